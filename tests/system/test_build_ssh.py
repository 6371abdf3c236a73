"""Git over SSH and RUN --mount=type=ssh, with a real OpenSSH server and real agents."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import pytest

from tests.builds import build, leaving_nothing
from tests.engines import eventually
from tests.sshd import Agent, Sshd, sshd_path
from tests.system.conftest import need
from tests.system.test_cli_build import corten, shown

GIT = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@x", "HOME": "/nonexistent", "PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    with leaving_nothing(engine):
        yield


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    for program in ("ssh-agent", "ssh-add", "ssh-keygen"):
        need(program)
    running = Agent(str(tmp_path_factory.mktemp("agent"))).start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def sshd(assets, agent, tmp_path_factory):
    need("ssh")
    program = sshd_path(assets)
    if not program:
        pytest.skip("needs sshd (openssh-server)")
    server = Sshd(program, str(tmp_path_factory.mktemp("sshd")), agent.public).start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """The path of one with a folder, a branch, and a submodule that is reached as it is itself."""
    base = tmp_path_factory.mktemp("git")

    def git(folder: str, *words: str) -> str:
        return subprocess.run(["git", "-C", str(folder), *words], env=GIT, check=True, capture_output=True, text=True).stdout.strip()

    commits = {}
    for name in ("inner", "r"):
        work = base / f"{name}.git"
        (work / "sub").mkdir(parents=True)
        git(work, "init", "-q", "-b", "main")
        (work / "Dockerfile").write_text("FROM busybox\nCOPY f /f\n")
        (work / "f").write_text(name)
        (work / "sub" / "Dockerfile").write_text("FROM busybox\nRUN echo sub >/f\n")
        if name == "r":
            (work / ".gitmodules").write_text('[submodule "mod"]\n\tpath = mod\n\turl = ../inner.git\n')
            git(work, "update-index", "--add", "--cacheinfo", f"160000,{commits['inner']},mod")
        git(work, "add", "Dockerfile", "f", "sub", *([".gitmodules"] if name == "r" else []))
        git(work, "commit", "-qm", name)
        commits[name] = git(work, "rev-parse", "HEAD")
    git(work, "checkout", "-q", "-b", "other")
    (work / "f").write_text("other")
    git(work, "commit", "-qam", "other")
    git(work, "checkout", "-q", "main")
    return str(base / "r.git")


@pytest.fixture
def home(tmp_path, sshd):
    """A user's, who knows the server."""
    (tmp_path / ".ssh").mkdir()
    (tmp_path / ".ssh" / "known_hosts").write_text(sshd.known)
    return tmp_path


def environment(home, agent: Agent) -> dict[str, str]:
    return {**os.environ, "HOME": str(home), "SSH_AUTH_SOCK": agent.socket}


@pytest.mark.parametrize("form, text", [
    ("git@{host}:{path}", "r"), ("ssh://git@{host}{path}", "r"), ("git@{host}:{path}#other", "other"), ("ssh://git@{host}{path}#main:sub", "sub\n"),
])  # fmt: skip
def test_a_context(engine, sshd, repository, agent, home, form, text):
    address = form.format(host=sshd.address, path=repository)
    corten(engine, "build", "-q", "-t", "ssh:1", address, env=environment(home, agent))
    assert shown(engine, "ssh:1", "cat", "/f") == text
    assert "Accepted publickey for git" in sshd.log()


def test_add_and_a_named_context(engine, sshd, repository, agent, home):
    address = f"git@{sshd.address}:{repository}"
    text = f"FROM busybox\nADD {address} /all\nCOPY --from=named f /named\n".encode()
    arguments = ["--ssh", "default", "--build-context", f"named=ssh://git@{sshd.address}{repository}#other"]
    corten(engine, "build", "-q", "-t", "ssh:2", *arguments, "-", input=text, env=environment(home, agent))
    assert shown(engine, "ssh:2", "cat", "/all/f", "/all/mod/f", "/named") == "rinnerother"


def test_without_an_agent(engine, sshd, repository):
    address = f"git@{sshd.address}:{repository}"
    done = build(engine, {"Dockerfile": f"FROM busybox\nADD {address} /all\n"})
    assert done.error == 'no SSH key "default" forwarded from the client'
    without = {name: value for name, value in os.environ.items() if name != "SSH_AUTH_SOCK"}
    assert b"is no agent's socket" in corten(engine, "build", address, env=without, code=2).stderr


def test_an_agent_that_the_server_does_not_know(engine, sshd, repository, home, tmp_path_factory):
    stranger = Agent(str(tmp_path_factory.mktemp("stranger"))).start()
    try:
        done = corten(engine, "build", f"git@{sshd.address}:{repository}", env=environment(home, stranger), code=1)
    finally:
        stranger.stop()
    assert f"failed to fetch git@{sshd.address}:{repository}: ".encode() in done.stderr
    assert b"Permission denied (publickey). fatal: Could not read from remote repository." in done.stderr


def test_a_server_that_is_not_who_it_was(engine, sshd, repository, agent, home):
    """One that is not known yet is taken as it is, as in BuildKit; a known one has to have its key."""
    known = home / ".ssh" / "known_hosts"
    address = f"git@{sshd.address}:{repository}"
    known.write_text(f"{sshd.address} {agent.public}")
    done = corten(engine, "build", address, env=environment(home, agent), code=1)
    assert b"Host key verification failed. fatal: Could not read from remote repository." in done.stderr
    known.unlink()
    corten(engine, "build", "-q", address, env=environment(home, agent))
    assert not known.exists()


# --- the agent in RUN
@pytest.fixture
def with_ssh_add(tmp_path):
    """A context's folder with the machine's own ssh-add and what it is linked with."""
    program = need("ssh-add")
    for path in [program, *re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", program], check=True, capture_output=True, text=True).stdout)]:
        target = f"{tmp_path}/root{path}"
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(path, target)

    def folder(*lines: str) -> str:
        (tmp_path / "Dockerfile").write_text("\n".join(["FROM busybox", "COPY root /", *lines, ""]))
        return str(tmp_path)

    return folder


def test_run_asks_a_real_agent(engine, agent, with_ssh_add):
    path = with_ssh_add(
        'RUN --mount=type=ssh,required ssh-add -l >/keys; echo "$SSH_AUTH_SOCK" >/where; ls -A /run >/left # of the mount point',
        "RUN --mount=type=ssh,id=second,target=/tmp/s,mode=0666,uid=7,gid=8 stat -c '%a %u:%g' /tmp/s >/mode; SSH_AUTH_SOCK=/tmp/s ssh-add -L >/second",
        "USER 7",
        "RUN --mount=type=ssh ! ssh-add -l",  # the socket is root's
        "RUN --mount=type=ssh,uid=7 ssh-add -l",
        'RUN --mount=type=ssh,id=missing test -z "$SSH_AUTH_SOCK"',
    )  # fmt: skip
    corten(engine, "build", "-q", "-t", "ssh:run", "--ssh", "default", "--ssh", f"second={agent.socket}", path, env={**os.environ, "SSH_AUTH_SOCK": agent.socket})
    fingerprint = subprocess.run(["ssh-add", "-l"], env={**os.environ, "SSH_AUTH_SOCK": agent.socket}, check=True, capture_output=True, text=True).stdout
    assert shown(engine, "ssh:run", "cat", "/keys") == fingerprint
    assert shown(engine, "ssh:run", "cat", "/where", "/left", "/mode", "/second") == f"/run/buildkit/ssh_agent.0\nbuildkit\n666 7:8\n{agent.public}"
    assert shown(engine, "ssh:run", "sh", "-c", "find /tmp -mindepth 1; ls -d /run || true") == ""
    assert os.stat(agent.socket).st_mode & 0o777 == 0o600  # the user's own socket is as it was


def test_an_agent_that_is_asked_for_and_missing(engine):
    done = build(engine, {"Dockerfile": "FROM busybox\nRUN --mount=type=ssh,id=other,required true\n"})
    assert done.error == 'no SSH key "other" forwarded from the client'


def test_an_agent_that_is_gone(engine, with_ssh_add, tmp_path_factory):
    """What asks it sees the connection end; the build goes on."""
    gone = Agent(str(tmp_path_factory.mktemp("gone"))).start()
    held = f"{gone.folder}/held"
    os.link(gone.socket, held)
    gone.stop()
    eventually(lambda: not os.path.exists(gone.socket))
    path = with_ssh_add("RUN --mount=type=ssh,required ssh-add -l; echo code $? >/code")
    corten(engine, "build", "-q", "-t", "ssh:gone", "--ssh", f"default={held}", path)
    assert shown(engine, "ssh:gone", "cat", "/code") != "code 0\n"
