"""`corten build`: contexts from folders and standard input, ignore files, flags, findings, outline, targets."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest

from corten.api.client import ApiError
from tests.builds import context, forget_builds

BIN = os.path.dirname(sys.executable)


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    forget_builds(engine)


@pytest.fixture
def folder(tmp_path):
    files = {
        "Dockerfile": "FROM busybox\nARG who=nobody\nCOPY . /all/\nRUN find /all | sort >/list; echo $who >/who\n",
        ".dockerignore": "*.log\nhidden\n!hidden/kept\nDockerfile\n", "a.txt": "a", "x.log": "x", "hidden/gone": "g", "hidden/kept": "k", "dir/b": "b",
    }  # fmt: skip
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    (tmp_path / "link").symlink_to("a.txt")
    return tmp_path


def corten(engine, *arguments: str, code: int = 0, **options: object) -> subprocess.CompletedProcess:
    done = subprocess.run([f"{BIN}/corten", "-H", f"unix://{engine.socket}", *arguments], capture_output=True, timeout=120, check=False, **options)
    assert done.returncode == code, (done.stdout, done.stderr)
    return done


def shown(engine, image: str, *command: str) -> str:
    return corten(engine, "run", "--rm", image, *command).stdout.decode()


def test_a_folder_is_sent_without_what_is_ignored(engine, folder):
    done = corten(engine, "build", "-t", "cli:1", "-t", "cli:2", "--build-arg", "who=me", "--label", "a=b", "--iidfile", f"{folder}/id", str(folder))
    assert b"[1/3] FROM docker.io/library/busybox:latest" in done.stderr
    assert b" naming to docker.io/library/cli:2 done" in done.stderr
    assert shown(engine, "cli:1", "cat", "/list").split() == [
        "/all", "/all/.dockerignore", "/all/a.txt", "/all/dir", "/all/dir/b", "/all/hidden", "/all/hidden/kept", "/all/link"]  # fmt: skip
    assert shown(engine, "cli:2", "cat", "/who") == "me\n"
    image = engine.client.get("/images/cli:1/json")
    assert (folder / "id").read_text() == image["Id"]
    assert image["Config"]["Labels"] == {"a": "b"}


def test_quiet_prints_the_id_only(engine, folder):
    done = corten(engine, "build", "-q", str(folder))
    assert done.stdout.decode().strip() == engine.client.get(f"/images/{done.stdout.decode().strip()}/json")["Id"]


def test_a_dockerfile_from_elsewhere(engine, folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "Other"
    elsewhere.write_text("FROM busybox\nCOPY a.txt /other\n")
    corten(engine, "build", "-q", "-t", "cli:other", "-f", str(elsewhere), str(folder))
    assert shown(engine, "cli:other", "cat", "/other") == "a"
    corten(engine, "build", "-q", "-t", "cli:typed", "-f", "-", str(folder), input=b"FROM busybox\nCOPY a.txt /typed\n")
    assert shown(engine, "cli:typed", "cat", "/typed") == "a"
    (folder / "sub").mkdir()
    (folder / "sub" / "D").write_text("FROM busybox\nRUN echo sub >/sub\n")
    corten(engine, "build", "-q", "-t", "cli:sub", "-f", str(folder / "sub" / "D"), str(folder))
    assert shown(engine, "cli:sub", "cat", "/sub") == "sub\n"


def test_standard_input(engine):
    corten(engine, "build", "-q", "-t", "cli:in", "-", input=b"FROM busybox\nRUN echo in >/in\n")
    assert shown(engine, "cli:in", "cat", "/in") == "in\n"
    packed = context({"Dockerfile": "FROM busybox\nCOPY a /a\n", "a": "tar"})
    corten(engine, "build", "-q", "-t", "cli:tar", "-", input=packed)
    assert shown(engine, "cli:tar", "cat", "/a") == "tar"


def test_errors_show_their_place(engine):
    done = corten(engine, "build", "--progress=none", "-", input=b"FROM busybox\nRUNN x\n", code=1)
    assert done.stderr.decode() == (
        "corten: dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)\nDockerfile:2\n--------------------\n"
        "   1 |     FROM busybox\n   2 | >>> RUNN x\n     |     ^^^^\n   3 |\n--------------------\n"
    )
    assert b"no-such-folder is not a folder" in corten(engine, "build", "no-such-folder", code=1).stderr


def test_check(engine):
    done = corten(engine, "build", "--check", "-", input=b"FROM busybox\nCMD a\n", code=1)
    assert done.stdout.decode() == (
        "Check complete, 1 warning has been found!\n\n"
        "WARNING: JSONArgsRecommended - https://docs.docker.com/go/dockerfile/rule/json-args-recommended/\n"
        "JSON arguments recommended for CMD to prevent unintended behavior related to OS signals\n"
        "Dockerfile:2\n--------------------\n   1 |     FROM busybox\n   2 | >>> CMD a\n   3 |\n--------------------\n"
    )
    assert corten(engine, "build", "--check", "-", input=b"FROM busybox\n").stdout == b"Check complete, no warnings found.\n"
    done = corten(engine, "build", "--check", "-", input=b"FROM busybox\nUSER ${x\n", code=1)
    assert b"ERROR: failed to process" in done.stdout


def test_outline_and_targets(engine):
    text = b"# base is below\nFROM busybox AS base\n# a says so\nARG a=1\nRUN --mount=type=secret,id=s,required true\nFROM base\nRUN --mount=type=ssh true\n"
    assert corten(engine, "build", "--call", "outline", "-", input=text).stdout.decode() == (
        "BUILD ARG   VALUE   DESCRIPTION\na           1       says so\nSECRET   REQUIRED\ns        true\nSSH       REQUIRED\ndefault\n"
    )
    assert corten(engine, "build", "--call=targets", "-", input=text).stdout.decode() == "TARGET      DESCRIPTION\nbase        is below\n(default)\n"


def test_call_is_answered_in_buildkits_json(engine):
    with engine.client.open("POST", "/corten/build/call", query={"method": "targets"}, body=context({"Dockerfile": "FROM busybox AS a\n"})) as response:
        location = {"ranges": [{"start": {"line": 1}, "end": {"line": 1}}]}
        assert json.load(response) == {
            "targets": [{"name": "a", "default": True, "base": "busybox", "location": location}], "sources": ["FROM busybox AS a\n"]}  # fmt: skip


def test_named_contexts(engine, folder, tmp_path_factory):
    other = tmp_path_factory.mktemp("other")
    for name, text in {"o": "o", "x.tmp": "x", ".dockerignore": "*.tmp\n"}.items():
        (other / name).write_text(text)
    (folder / "Dockerfile").write_text(
        "FROM base AS stage\nCOPY --from=files o /o\nRUN --mount=from=files,target=/m ls /m >/m.txt\nCOPY . /all/\nRUN ls -a /all >/all.txt\n"
    )
    arguments = ["--build-context", f"files={other}", "--build-context", "base=docker-image://busybox"]
    corten(engine, "build", "-q", "-t", "cli:named", *arguments, str(folder))
    assert shown(engine, "cli:named", "cat", "/o", "/m.txt") == "oo\n"
    assert ".corten-contexts" not in shown(engine, "cli:named", "cat", "/all.txt")
    assert b"failed to find the folder /no/such" in corten(engine, "build", "--build-context", "a=/no/such", str(folder), code=2).stderr
    refused = corten(engine, "build", "--build-context", "base=oci-layout:///x", str(folder), code=1)
    assert b"/x is no OCI layout: index.json: No such file" in refused.stderr


def test_secrets_and_agents(engine, tmp_path):
    (tmp_path / "secret").write_bytes(b"hush" * 20_000)
    path = str(tmp_path / "agent")
    text = (
        b'FROM busybox\nRUN --mount=type=secret,id=s wc -c </run/secrets/s >/count\nRUN --mount=type=secret,id=e,env=E test "$E" = value\n'
        b'RUN --mount=type=ssh,required test -S "$SSH_AUTH_SOCK" && ls -A /run >/left\n'
    )  # fmt: skip
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(path)
        arguments = ["--secret", f"id=s,src={tmp_path}/secret", "--secret", "id=e,env=SAID", "--ssh", f"default={path}"]
        corten(engine, "build", "-q", "-t", "cli:private", *arguments, "-", input=text, env={**os.environ, "SAID": "value"})
    assert shown(engine, "cli:private", "sh", "-c", "cat /count; ls -A /run/secrets 2>/dev/null; ls /tmp") == "80000\n"
    assert "aHVzaGh1c2" not in engine.log()
    assert b"want id=NAME" in corten(engine, "build", "--secret", "src=x", "-", input=text, code=2).stderr
    assert b"is no agent's socket" in corten(engine, "build", "--ssh", f"default={tmp_path}/secret", "-", input=text, code=2).stderr


def test_a_header_that_is_none_is_refused_without_its_content(engine):
    with pytest.raises(ApiError, match="the header X-Corten-Build is not what docs"):
        engine.client.open("POST", "/build", body=context({"Dockerfile": "FROM busybox\n"}), headers={"X-Corten-Build": "eyJzZWNyZXRzIjoxfQ=="})
