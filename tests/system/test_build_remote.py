"""Builds from elsewhere: ADD of URLs and git repositories, and whole contexts by address. The servers are here, on loopback."""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import subprocess
import threading
import time

import pytest

from corten.api.client import ApiError
from tests.builds import build, context, leaving_nothing
from tests.system.conftest import free_port, need
from tests.system.test_build_outputs import build as made
from tests.system.test_build_outputs import content, fetch, parcels
from tests.system.test_build_outputs import context as archive
from tests.system.test_cli_build import corten, shown

DATA = b"some bytes\n"
DIGEST = f"sha256:{hashlib.sha256(DATA).hexdigest()}"
GIT = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@x", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@x", "HOME": "/nonexistent", "PATH": os.environ["PATH"]}


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    with leaving_nothing(engine):
        yield


@pytest.fixture(scope="module")
def web():
    """What is asked for, as it is in FILES."""
    files = {"/dir/data.bin": DATA, "/c.tar": context({"Dockerfile": "FROM busybox\nCOPY a /a\n", "a": "from a tar"}), "/D": b"FROM busybox\nRUN echo D >/d\n",
             "/packed.tar": context({"inside": "unpacked"})}  # fmt: skip

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            data = files.get(self.path)
            if self.path == "/private" and self.headers["Authorization"] == "Bearer hush":
                data = DATA
            self.send_response(200 if data is not None else 404)
            self.send_header("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
            self.send_header("Content-Length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_):
            return

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture(scope="module")
def repository(tmp_path_factory):
    """(address, commits): a repository with a branch, a tag, a folder, and a link that leads out."""
    base = tmp_path_factory.mktemp("git")
    work = base / "r.git"

    def git(*words: str) -> str:
        return subprocess.run(["git", "-C", str(work), *words], env=GIT, check=True, capture_output=True, text=True).stdout.strip()

    work.mkdir()
    git("init", "-q", "-b", "main")
    (work / "Dockerfile").write_text("FROM busybox\nCOPY f /f\n")
    (work / "f").write_text("one")
    (work / "sub").mkdir()
    (work / "sub" / "Dockerfile").write_text("FROM busybox\nRUN echo sub >/s\n")
    (work / "out").symlink_to("/etc")
    commits = []
    for text in ("one", "two"):
        (work / "f").write_text(text)
        git("add", ".")
        git("commit", "-qm", text)
        commits.append(git("rev-parse", "HEAD"))
    git("tag", "v1", commits[0])
    git("branch", "old", commits[0])
    other = base / "s.git"
    other.mkdir()
    for words in (["init", "-q"], ["commit", "-qm", "s", "--allow-empty"]):
        subprocess.run(["git", "-C", str(other), *words], env=GIT, check=True)
    (other / "inside").write_text("sub module")
    for words in (["add", "."], ["commit", "-qm", "t"]):
        subprocess.run(["git", "-C", str(other), *words], env=GIT, check=True)
    commit = subprocess.run(["git", "-C", str(other), "rev-parse", "HEAD"], env=GIT, check=True, capture_output=True, text=True).stdout.strip()
    git("checkout", "-q", "-b", "modules")
    (work / ".gitmodules").write_text('[submodule "mod"]\n\tpath = mod\n\turl = ../s.git\n')
    git("add", ".gitmodules")
    git("update-index", "--add", "--cacheinfo", f"160000,{commit},mod")
    git("commit", "-qm", "a submodule")
    git("checkout", "-q", "main")
    port = free_port()
    daemon = subprocess.Popen(
        ["git", "daemon", "--export-all", f"--base-path={base}", "--listen=127.0.0.1", f"--port={port}", "--reuseaddr", str(base)],
        env=GIT, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    address = f"git://127.0.0.1:{port}/r.git"
    end = time.monotonic() + 30
    while subprocess.run(["git", "ls-remote", address], env=GIT, capture_output=True, check=False).returncode and time.monotonic() < end:
        time.sleep(0.05)
    yield address, commits
    os.killpg(daemon.pid, 15)
    daemon.wait()


def add(engine, line: str, *more: str, **parameters) -> str:
    build(engine, {"Dockerfile": "\n".join(["FROM busybox", line, *more, ""])}, t="remote:1", **parameters).image  # noqa: B018 - raises the build's error
    return "remote:1"


def test_add_of_a_url(engine, web):
    add(engine, f"ADD --checksum={DIGEST} {web}/dir/data.bin /d/")
    assert shown(engine, "remote:1", "sh", "-c", "cat /d/data.bin; stat -c '%a %u' /d/data.bin") == "some bytes\n600 0\n"
    add(engine, f"ADD --chmod=644 --chown=5:6 {web}/dir/data.bin /name")
    assert shown(engine, "remote:1", "stat", "-c", "%a %u:%g", "/name") == "644 5:6\n"
    add(engine, f"ADD {web}/packed.tar /as-it-is.tar")
    add(engine, f"ADD --unpack {web}/packed.tar /p/")
    assert shown(engine, "remote:1", "cat", "/p/inside") == "unpacked"


def test_a_url_is_cached_by_content(engine, web):
    text = f"FROM busybox\nADD {web}/dir/data.bin /d\nRUN date >/when\n"
    first, again = build(engine, {"Dockerfile": text}), build(engine, {"Dockerfile": text})
    assert again.cached == 2
    assert first.image == again.image


@pytest.mark.parametrize("line, error", [
    ("ADD --checksum=sha256:" + "0" * 64 + " {web}/dir/data.bin /", f"digest mismatch sha256:{'0' * 64}: {DIGEST} of {{web}}/dir/data.bin"),
    ("ADD {web}/nosuch /", "failed to GET {web}/nosuch with status 404 Not Found: "),
    ("ADD git://127.0.0.1:1/r.git /", "failed to fetch git://127.0.0.1:1/r.git: "),
    ("ADD git@127.0.0.1:r.git /", 'no SSH key "default" forwarded from the client'),
])  # fmt: skip
def test_what_cannot_be_fetched(engine, web, line, error):
    for word, program in {"git": "git", "git@": "ssh"}.items():
        if f"ADD {word}" in line:
            need(program)  # without it the engine says just that
    built = build(engine, {"Dockerfile": f"FROM busybox\n{line.format(web=web)}\n"})
    assert built.error.startswith(error.format(web=web))


def test_add_of_a_repository(engine, repository):
    address, (one, two) = repository
    for ref, text in (("", "two"), ("#main", "two"), ("#old", "one"), ("#v1", "one"), (f"#{one}", "one"), (f"#{one[:10]}", "one"), ("?tag=v1", "one"), (f"?commit={two}", "two")):
        add(engine, f"ADD {address}{ref} /r")
        assert shown(engine, "remote:1", "cat", "/r/f") == text, ref
        assert shown(engine, "remote:1", "sh", "-c", "ls -a /r | grep -c git || true").strip() == "0"
    add(engine, f"ADD {address}#main:sub /s/")
    assert shown(engine, "remote:1", "ls", "/s") == "Dockerfile\n"
    add(engine, f"ADD --keep-git-dir {address} /k")
    assert "HEAD" in shown(engine, "remote:1", "ls", "/k/.git")


def test_submodules(engine, repository):
    address, _ = repository
    add(engine, f"ADD {address}#modules /r")
    assert shown(engine, "remote:1", "sh", "-c", "cat /r/mod/inside; ls -A /r/mod") == "sub moduleinside\n"
    add(engine, f"ADD {address}?branch=modules&submodules=false /r")
    assert shown(engine, "remote:1", "ls", "-A", "/r/mod") == ""


def test_what_a_repository_does_not_have(engine, repository):
    address, (one, _) = repository
    for line, error in (
        (f"ADD --checksum={one} {address}#main /", f"expected checksum to match {one}, got "), (f"ADD {address}#nosuch /", "failed to fetch"),
        (f"ADD {address}#main:nosuch /", f"the repository {address} has no folder nosuch"), (f"ADD {address}#main:out /", "the folder out leads out of the repository"),
        (f"ADD {address}?nosuch=1 /", 'unexpected query "nosuch" of a git repository'),
    ):  # fmt: skip
        assert build(engine, {"Dockerfile": f"FROM busybox\n{line}\n"}).error.startswith(error), line


def test_a_secret_opens_an_address(engine, web):
    text = f"FROM busybox\nADD {web}/private /p\n".encode()
    corten(engine, "build", "-q", "-t", "remote:p", "--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN", "-", input=text, env={**os.environ, "TOKEN": "hush\n"})
    assert shown(engine, "remote:p", "cat", "/p") == "some bytes\n"
    assert b"404 Not Found" in corten(engine, "build", "-q", "--no-cache", "-", input=text, code=1).stderr


def test_contexts_by_address(engine, web, repository):
    address, _ = repository
    for where, path, text in ((f"{web}/c.tar", "/a", "from a tar"), (f"{web}/D", "/d", "D\n"), (address, "/f", "two"), (f"{address}#v1", "/f", "one"), (f"{address}#main:sub", "/s", "sub\n")):
        corten(engine, "build", "-q", "-t", "remote:2", where)
        assert shown(engine, "remote:2", "cat", path) == text
    with pytest.raises(ApiError, match="ftp://x/y is no address of a build context"):
        engine.client.post("/build", remote="ftp://x/y")


def test_the_provenance_names_what_was_fetched(engine, web, repository):
    address, commits = repository
    dockerfile = f"FROM scratch\nADD {web}/dir/data.bin /d/\nADD {address}#v1 /g/\n"
    tree = parcels(made(engine, archive(Dockerfile=dockerfile), [{"Type": "tar"}], attest='{"Provenance": "max"}'))[0]
    found = json.loads(content(fetch(engine, tree), "provenance.json"))["predicate"]
    digests = {row["uri"]: row["digest"] for row in found["buildDefinition"]["resolvedDependencies"]}
    assert digests == {f"{web}/dir/data.bin": {"sha256": DIGEST.partition(":")[2]}, f"{address}#v1": {"sha1": commits[0]}}
    tree = parcels(made(engine, b" ", [{"Type": "tar"}], attest='{"Provenance": "min"}', remote=f"{address}#v1"))[0]
    source = json.loads(content(fetch(engine, tree), "provenance.json"))["predicate"]["buildDefinition"]["externalParameters"]["configSource"]
    assert source == {"path": "Dockerfile", "uri": f"{address}#v1", "digest": {"sha1": commits[0]}}
