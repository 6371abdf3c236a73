"""`corten build --progress`: on a real terminal (seen through pyte's eyes), in a pipe, as values; and what an interrupt does."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest

from tests.builds import build, leaving_nothing
from tests.engines import eventually
from tests.system.test_cli_build import corten
from tests.terminals import Terminal

BIN = os.path.dirname(sys.executable)
WAITING = "FROM busybox\nRUN for i in 1 2 3 4 5 6 7 8; do echo said $i; done; sleep 600\n"
TIMES = re.compile(r"[\d.]+s\b|\d+\.\d{3}\b|[\d.]+[kM]?B\b|sha256:[0-9a-f]{64}")


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    with leaving_nothing(engine):
        yield


@pytest.fixture
def folder(tmp_path):
    def with_dockerfile(text: str) -> str:
        (tmp_path / "Dockerfile").write_text(text)
        return str(tmp_path)

    return with_dockerfile


@pytest.fixture
def on_terminal(engine):
    opened: list[Terminal] = []

    def start(*arguments: str, **options: object) -> Terminal:
        opened.append(Terminal([f"{BIN}/corten", "-H", f"unix://{engine.socket}", "build", *arguments], **options))
        return opened[-1]

    yield start
    for terminal in opened:
        terminal.close()


def steps(engine) -> list[str]:
    """What runs in the engine: folders of steps."""
    return [entry.path for entry in os.scandir(f"{engine.exec_root}/containers")]


def test_in_a_pipe_it_is_lines(engine, folder):
    path = folder("FROM busybox AS base\nRUN echo out; echo err >&2\nFROM base\nCOPY Dockerfile /d\n")
    done = corten(engine, "build", "-t", "view:1", path)
    assert done.stdout == b""
    lines = [TIMES.sub("N", line) for line in done.stderr.decode().splitlines()]
    said = sorted(lines[lines.index("#4 [base 2/2] RUN echo out; echo err >&2") + 1 :][:2])  # of two streams
    assert said == ["#4 N err", "#4 N out"]
    lines = [re.sub(r"(?: N)* done$", " done", line) for line in lines if not line.startswith("#4 N")]  # what took no time says none
    assert lines == [
        "#1 [internal] load metadata for docker.io/library/busybox:latest", "#1 DONE N", "",
        "#2 [internal] load build context", "#2 transferring context: done", "#2 DONE N", "",
        "#3 [base 1/2] FROM docker.io/library/busybox:latest", "#3 CACHED", "",
        "#4 [base 2/2] RUN echo out; echo err >&2", "#4 DONE N", "",
        "#5 [stage-1 1/1] COPY Dockerfile /d", "#5 DONE N", "",
        "#6 exporting to image", "#6 exporting layers done", "#6 writing image done", "#6 naming to docker.io/library/view:1 done", "#6 DONE N",
    ]  # fmt: skip
    again = corten(engine, "build", path).stderr.decode()
    assert "#4 [base 2/2] RUN echo out; echo err >&2\n#4 CACHED\n" in again


def test_a_step_that_fails_is_shown_with_its_log(engine, folder):
    done = corten(engine, "build", "--progress=plain", folder("FROM busybox\nRUN echo why; exit 3\n"), code=1)
    text = re.sub(r"\d+\.\d+", "N", done.stderr.decode())
    assert 'ERROR: process "/bin/sh -c echo why; exit 3" did not complete successfully: exit code: 3\n------\n > [2/2] RUN echo why; exit 3:\nN why\n------\n' in text
    place = f"Dockerfile:2\n{'-' * 20}\n   1 |     FROM busybox\n   2 | >>> RUN echo why; exit 3\n   3 |\n{'-' * 20}\n"
    assert text.endswith(f"corten: The command '/bin/sh -c echo why; exit 3' returned a non-zero code: 3\n{place}")


def test_a_step_over_several_lines_is_shown_whole(engine, folder):
    done = corten(engine, "build", folder("FROM busybox\n\n# why\nRUN true && \\\n  cat /nowhere\nCOPY missing /\n"), code=1)
    text = done.stderr.decode()
    assert f"Dockerfile:4\n{'-' * 20}\n   2 |\n   3 |     # why\n   4 | >>> RUN true && \\\n   5 | >>>   cat /nowhere\n   6 |     COPY missing /\n   7 |\n" in text


def test_a_copy_of_nothing_and_a_mount_of_nothing_show_their_lines(engine, folder):
    done = corten(engine, "build", folder("FROM busybox\nCOPY missing /\n"), code=1)
    assert "   2 | >>> COPY missing /\n" in done.stderr.decode()
    done = corten(engine, "build", folder("FROM busybox\nRUN --mount=type=bind,source=missing/x,target=/m true\n"), code=1)
    text = done.stderr.decode()
    assert "corten: mount source /missing/x: no such file or directory\nDockerfile:2\n" in text
    assert "COPY failed" not in text


def test_the_classic_front_shows_no_lines(engine):
    failed = build(engine, {"Dockerfile": "FROM busybox\nRUN exit 3\n"})
    assert failed.error == "The command '/bin/sh -c exit 3' returned a non-zero code: 3"
    failed = build(engine, {"Dockerfile": "FROM busybox\nRUN --mount=type=bind,source=missing,target=/m true\n"})
    assert failed.error == "mount source /missing: no such file or directory"


def test_a_terminal_has_a_picture(folder, on_terminal):
    path = folder("FROM busybox\nRUN echo begins; while [ ! -e /cache/go ]; do sleep 0.1; done\n".replace("RUN", "RUN --mount=type=cache,target=/cache"))
    terminal = on_terminal("-t", "view:2", path, columns=70, rows=12)
    terminal.until(lambda: " => => # begins" in terminal.text)
    assert re.match(r"\[\+\] Building \d+\.\ds \(3/4\)", terminal.screen.display[0])
    assert re.search(r"^ => \[2/2\] RUN --mount=type=cache,target=/cache echo begins; whil +\d+\.\ds$", terminal.text, re.MULTILINE)
    before = terminal.screen.display[0]
    terminal.until(lambda: terminal.screen.display[0] != before)  # time goes on though nothing is said
    terminal.resize(40, 5)
    terminal.until(lambda: any(re.fullmatch(r" => \[2/2\] RUN --mount=type=cache, +\d+\.\ds *", row) for row in terminal.screen.display))
    assert not terminal.scrolled
    terminal.resize(100, 30)
    other = folder("FROM busybox\nRUN --mount=type=cache,target=/cache touch /cache/go\n")
    assert on_terminal("-q", other).wait() == 0
    assert terminal.wait() == 0
    assert re.match(r"\[\+\] Building \d+\.\ds \(5/5\) FINISHED", terminal.screen.display[0]), terminal.text
    assert "# begins" not in terminal.text
    assert " => => naming to docker.io/library/view:2" in terminal.text
    assert terminal.text.count("[+] Building") == 1
    assert not terminal.screen.cursor.hidden
    assert pyte_wraps(terminal)


def pyte_wraps(terminal: Terminal) -> bool:
    """Whether the terminal is left as it was: with wrapping at its edge."""
    return (7 << 5) in terminal.screen.mode


def test_more_than_the_terminal_has_rows(folder, on_terminal):
    text = "FROM busybox\n" + "".join(f"COPY Dockerfile /{number}\n" for number in range(12)) + "RUN sleep 0.3\n"
    terminal = on_terminal(folder(text), columns=50, rows=6)
    assert terminal.wait() == 0
    assert terminal.text.count("[+] Building") == 1
    found = re.findall(r"\[ ?(\d+)/14\] COPY", terminal.text)
    assert found == [str(number) for number in range(2, 14)]


def test_colours(folder, on_terminal):
    path = folder("FROM busybox\nRUN echo a\n")
    coloured, plain, none = on_terminal(path), on_terminal(path, env={"NO_COLOR": "1"}), on_terminal(path, env={"TERM": "dumb"})
    assert coloured.wait() == plain.wait() == none.wait() == 0
    assert b"\x1b[34m => " in coloured.raw
    assert not re.search(rb"\x1b\[[\d;]*m", plain.raw)
    assert "FINISHED" in plain.text
    assert b"\x1b" not in none.raw
    assert "#2 [internal] load build context" in none.text


def test_values(engine, folder):
    done = corten(engine, "build", "--progress=rawjson", folder("FROM busybox\nRUN echo out; echo err >&2\n"))
    statuses = [json.loads(line) for line in done.stderr.splitlines()]
    ended = {vertex["name"]: vertex for status in statuses for vertex in status.get("vertexes", ()) if "completed" in vertex}
    assert list(ended) == [
        "[internal] load metadata for docker.io/library/busybox:latest", "[internal] load build context", "[1/2] FROM docker.io/library/busybox:latest",
        "[2/2] RUN echo out; echo err >&2", "exporting to image"]  # fmt: skip
    run = ended["[2/2] RUN echo out; echo err >&2"]
    assert run["inputs"] == [ended["[1/2] FROM docker.io/library/busybox:latest"]["digest"]]
    logs = [entry for status in statuses for entry in status.get("logs", ())]
    assert {(entry["vertex"], entry["stream"], entry["data"]) for entry in logs} == {(run["digest"], 1, "b3V0Cg=="), (run["digest"], 2, "ZXJyCg==")}


def test_quiet_and_none(engine, folder):
    path = folder("FROM busybox\nRUN echo a\n")
    for option in ("--progress=quiet", "-q"):
        done = corten(engine, "build", option, path)
        assert re.fullmatch(rb"sha256:[0-9a-f]{64}\n", done.stdout)
        assert done.stderr == b""
    silent = corten(engine, "build", "--progress=none", path)
    assert (silent.stdout, silent.stderr) == (b"", b"")
    assert corten(engine, "build", path, env={**os.environ, "BUILDKIT_PROGRESS": "none"}).stderr == b""
    assert b"cannot be used together" in corten(engine, "build", "-q", "--progress=plain", path, code=2).stderr
    assert b"failed to get console" in corten(engine, "build", "--progress=tty", path, code=2).stderr
    assert b"busybox" not in corten(engine, "build", "-q", folder("FROM busybox\nRUN exit 2\n"), code=1).stdout


def test_an_interrupt_ends_the_build_in_the_engine(engine, folder, on_terminal):
    terminal = on_terminal(folder(WAITING), columns=80, rows=20)
    terminal.until(lambda: " => => # said 8" in terminal.text)
    assert steps(engine)
    terminal.press(b"\x03")
    assert terminal.wait() == 130
    assert re.search(r"^ => CANCELED \[2/2\] RUN for i in .* \d+\.\ds$", terminal.text, re.MULTILINE)
    assert "corten: the build was cancelled" in terminal.text
    assert not steps(engine)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_without_a_terminal_too(engine, folder, how):
    words = [f"{BIN}/corten", "-H", f"unix://{engine.socket}", "build", folder(WAITING)]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as client:
        for line in client.stderr:
            if "said 8" in line:
                break
        client.send_signal(how)
        rest = client.stderr.read()
    assert client.returncode == (130 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        assert "CANCELED\n" in rest
    eventually(lambda: not steps(engine))


def test_an_interrupt_while_the_context_is_sent(engine, folder):
    """Nothing has begun then, and nothing stays."""
    path = folder("FROM busybox\nCOPY . /all\n")
    os.mkfifo(f"{path}/fed")
    command = f"tar c -C {path} Dockerfile; cat {path}/fed"
    with subprocess.Popen(["sh", "-c", command], stdout=subprocess.PIPE) as feeder:
        words = [f"{BIN}/corten", "-H", f"unix://{engine.socket}", "build", "-"]
        with subprocess.Popen(words, stdin=feeder.stdout, stderr=subprocess.PIPE, text=True) as client:
            assert client.stderr.readline() == "#1 [internal] load build context\n"
            client.send_signal(signal.SIGINT)
            rest = client.stderr.read()
        with open(f"{path}/fed", "wb"):
            pass  # the feeder goes on, and ends
    assert client.returncode == 130
    assert "corten: the build was cancelled" in rest
    eventually(lambda: not os.listdir(f"{engine.data_root}/tmp"))


def test_explained_at_the_end(engine, folder):
    path = folder("FROM busybox\nARG a=1\nRUN echo $a\n")
    corten(engine, "build", "-q", path)
    done = corten(engine, "build", "--explain", "--build-arg", "a=2", path)
    assert "\n[2/2] RUN echo 2: not in the cache: variable a is sha256:" in done.stderr.decode()


def test_several_platforms(engine, folder):
    done = corten(engine, "build", "--platform", "linux/amd64,linux/arm64", folder("FROM scratch AS only\nCOPY Dockerfile /\n"))
    text = done.stderr.decode()
    for platform in ("linux/amd64", "linux/arm64"):
        assert f"[{platform} 1/1] COPY Dockerfile /\n" in text
