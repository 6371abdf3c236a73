"""RUN --mount=type=secret with real ones: where they come from, what the step sees of them, and that nothing of them stays anywhere."""

from __future__ import annotations

import base64
import hashlib
import os
import re

import pytest

from tests.builds import build
from tests.system.test_build_ssh import nothing_stays  # noqa: F401 - after each test
from tests.system.test_cli_build import corten, shown


class Hidden:
    """A secret of a file and one of the environment, as no other test has them."""

    def __init__(self) -> None:
        self.file = f"hush-{os.urandom(9).hex()}".encode() + b"-and-not-a-word" * 40 + b"\n"
        self.said = f"said-{os.urandom(9).hex()}-in-the-environment"

    def places(self, *roots: str) -> list[str]:
        """Files below that have a piece of one in them, as it is or as base64 has it."""
        wholes = (self.file, self.said.encode())
        pieces = [re.escape(piece) for whole in wholes for piece in (whole[:16], base64.b64encode(whole)[:16], base64.b64encode(b"xx" + whole)[4:24])]
        wanted, found = re.compile(b"|".join(pieces)), []
        for root in roots:
            for folder, _, names in os.walk(root):
                for path in (os.path.join(folder, name) for name in names):
                    if os.path.isfile(path) and not os.path.islink(path):
                        with open(path, "rb") as file:
                            found += [path] if wanted.search(file.read()) else []
        return found


@pytest.fixture
def hidden():
    return Hidden()


@pytest.fixture
def context(tmp_path, hidden):
    """(folder of a context, the secret's file, which is not in it)."""
    (tmp_path / "hush").write_bytes(hidden.file)
    (tmp_path / "context").mkdir()

    def folder(*lines: str) -> tuple[str, str]:
        (tmp_path / "context" / "Dockerfile").write_text("\n".join(["FROM busybox", *lines, ""]))
        return str(tmp_path / "context"), str(tmp_path / "hush")

    return folder


def test_places_are_found(engine, hidden, context):
    """The search would see one."""
    path, hush = context(f"RUN echo {hidden.said} >/s", "COPY hush /h")
    os.link(hush, f"{path}/hush")
    corten(engine, "build", "-q", path)
    assert {os.path.basename(found) for found in hidden.places(engine.data_root, engine.exec_root)} >= {"s", "h"}


def test_what_a_step_sees(engine, hidden, context):
    path, hush = context(
        "RUN --mount=type=secret,id=f md5sum </run/secrets/f >/sum",
        "RUN --mount=type=secret,id=f stat -c '%a %u:%g' /run/secrets/f >/default",
        "WORKDIR /w",
        "RUN --mount=type=secret,id=f,target=own,mode=0440,uid=12,gid=34 stat -c '%a %u:%g' /w/own >/given; ! echo x >>/w/own",
        'RUN --mount=type=secret,id=v,env=NAMED echo "$NAMED" | wc -c >/env; ls /run/secrets >/none 2>&1; true',
        'RUN --mount=type=secret,id=v,env=NAMED,target=/both test "$NAMED" = "$(cat /both)"',
        "RUN --mount=type=secret,id=v,env= echo ${#v} >/own-name",
        "RUN --mount=type=secret,id=missing test ! -e /run/secrets/missing",
        "USER 12",
        "RUN --mount=type=secret,id=f ! cat /run/secrets/f 2>/dev/null",
        "RUN --mount=type=secret,id=f,uid=12 cat /run/secrets/f >/dev/null",
    )  # fmt: skip
    arguments = ["--secret", f"id=f,src={hush}", "--secret", "id=v,env=SAID"]
    done = corten(engine, "build", "--progress=plain", "-t", "secret:1", *arguments, path, env={**os.environ, "SAID": hidden.said})
    files = ("/sum", "/default", "/given", "/env", "/own-name")
    assert shown(engine, "secret:1", "cat", *files).split("\n") == [f"{hashlib.md5(hidden.file).hexdigest()}  -", "400 0:0", "440 12:34", str(len(hidden.said) + 1), str(len(hidden.said)), ""]
    assert shown(engine, "secret:1", "sh", "-c", "ls -A /w /both /run 2>/dev/null; true") == "/w:\n"
    assert not hidden.places(engine.data_root, engine.exec_root)
    assert hidden.said.encode() not in done.stderr


def test_nothing_of_it_stays(engine, hidden, context, tmp_path):
    """Not in layers, history, config, cache (here and exported), attestations, logs, nor in what the engine keeps of itself; also of a step that fails."""
    path, hush = context(
        'RUN --mount=type=secret,id=f --mount=type=secret,id=v,env=NAMED --mount=type=cache,target=/c cat /run/secrets/f >/dev/null; test -n "$NAMED"; env | grep -c NAMED >/n',
        "RUN echo after",
    )  # fmt: skip
    arguments = ["--secret", f"id=f,src={hush}", "--secret", "id=v,env=SAID"]
    environment = {**os.environ, "SAID": hidden.said}
    corten(engine, "build", "-t", "secret:2", *arguments, "--cache-to", f"type=local,dest={tmp_path}/cache,mode=max", path, env=environment)
    corten(engine, "build", "-o", f"type=oci,dest={tmp_path}/out.tar", "--provenance", "mode=max", "--sbom", "true", *arguments, path, env=environment)
    context("RUN --mount=type=secret,id=f --mount=type=secret,id=v,env=NAMED exit 3")
    corten(engine, "build", *arguments, path, env=environment, code=1)
    os.unlink(hush)
    assert not hidden.places(engine.data_root, engine.exec_root, str(tmp_path))
    log = engine.log()
    assert hidden.said not in log
    assert base64.b64encode(hidden.file).decode()[:16] not in log
    history = engine.client.get("/images/secret:2/history")
    assert not any(hidden.said in line["CreatedBy"] or "hush" in line["CreatedBy"] for line in history)


def test_another_secret_is_no_other_step(engine, context):
    """As in BuildKit: a secret's content is no part of what a step is known by, whether there is one is neither."""
    path, hush = context("RUN --mount=type=secret,id=f cat /run/secrets/f >/dev/null; date +%N >/when")
    corten(engine, "build", "-q", "-t", "secret:3", "--secret", f"id=f,src={hush}", path)
    with open(hush, "w", encoding="ascii") as file:
        file.write("another")
    corten(engine, "build", "-q", "-t", "secret:4", "--secret", f"id=f,src={hush}", path)
    assert engine.client.get("/images/secret:3/json")["Id"] == engine.client.get("/images/secret:4/json")["Id"]


def test_one_that_is_asked_for_and_missing(engine, context):
    assert build(engine, {"Dockerfile": "FROM busybox\nRUN --mount=type=secret,id=nosuch,required true\n"}).error.startswith("secret nosuch: not found")
    path, _ = context("RUN true")
    assert b"the secret f: /no/such: No such file or directory" in corten(engine, "build", "--secret", "id=f,src=/no/such", path, code=1).stderr
