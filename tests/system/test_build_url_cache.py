"""ADD of a URL again and again: a server that counts says what has been sent."""

from __future__ import annotations

import http.server
import os
import threading
from email.utils import formatdate
from time import time

import pytest

from tests.builds import build
from tests.system.test_build_ssh import nothing_stays  # noqa: F401 - after each test
from tests.system.test_cli_build import corten, shown


class Server(http.server.ThreadingHTTPServer):
    """`headers` of the one file it has, `content`; `sent` are the statuses it has answered with, `asked` the validators it was asked by."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content, self.headers = b"", {}
        self.sent: list[int] = []
        self.asked: list[str | None] = []
        self.token = ""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/file"


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        server = self.server
        server.asked.append(self.headers["If-None-Match"] or self.headers["If-Modified-Since"])
        same = server.asked[-1] is not None and server.asked[-1] in (server.headers.get("ETag"), server.headers.get("Last-Modified"))
        allowed = not server.token or self.headers["Authorization"] == f"Bearer {server.token}"
        status = 401 if not allowed else 304 if same else 200
        server.sent.append(status)
        self.send_response(status)
        for name, value in server.headers.items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(server.content) if allowed else 0))
        self.end_headers()
        if status == 200:
            self.wfile.write(server.content)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def server():
    running = Server()
    thread = threading.Thread(target=running.serve_forever, daemon=True)
    thread.start()
    yield running
    running.shutdown()
    running.server_close()
    thread.join()


def added(engine, server, *more: str, **parameters) -> str:
    built = build(engine, {"Dockerfile": "\n".join(["FROM busybox", f"ADD {server.url} /added", *more, ""])}, t="url:1", **parameters)
    assert built.image
    return shown(engine, "url:1", "cat", "/added")


OLD = formatdate(time() - 86_400, usegmt=True)


@pytest.mark.parametrize("headers, changed", [
    ({"ETag": '"one"'}, {"ETag": '"two"'}), ({"ETag": 'W/"one"'}, {"ETag": 'W/"two"'}),
    ({"Last-Modified": OLD}, {"Last-Modified": formatdate(time() - 3600, usegmt=True)}),
    ({"ETag": '"one"', "Last-Modified": OLD}, {"ETag": '"two"', "Last-Modified": OLD}),
])  # fmt: skip
def test_what_is_unchanged_is_not_sent_again(engine, server, headers, changed):
    server.content, server.headers = b"one", headers
    assert added(engine, server) == "one"
    assert added(engine, server) == "one"
    assert added(engine, server, "RUN true") == "one"
    assert (server.sent, server.asked) == ([200, 304, 304], [None, next(iter(headers.values())), next(iter(headers.values()))])
    server.content, server.headers = b"two", changed
    assert added(engine, server) == "two"
    assert added(engine, server) == "two"
    assert server.sent[3:] == [200, 304]


def test_the_file_is_there_for_another_step(engine, server):
    """Not only the layer that was made of it: with another owner it is taken from what is kept."""
    server.content, server.headers = os.urandom(300_000).hex().encode(), {"ETag": '"x"'}
    assert added(engine, server).encode() == server.content
    build(engine, {"Dockerfile": f"FROM busybox\nADD --chown=5:6 --chmod=640 {server.url} /other\n"}, t="url:2").image  # noqa: B018 - raises
    assert shown(engine, "url:2", "cat", "/other").encode() == server.content
    assert shown(engine, "url:2", "stat", "-c", "%u:%g %a", "/other") == "5:6 640\n"
    assert server.sent == [200, 304]


@pytest.mark.parametrize("headers", [{}, {"Last-Modified": formatdate(time() + 3600, usegmt=True)}, {"ETag": '"x"', "Cache-Control": "private, no-store"}])
def test_what_says_nothing_to_go_by_is_sent_again(engine, server, headers):
    server.content, server.headers = b"same", headers
    assert added(engine, server) == added(engine, server) == "same"
    assert (server.sent, server.asked) == ([200, 200], [None, None])


def test_without_the_cache(engine, server):
    server.content, server.headers = b"same", {"ETag": '"x"'}
    added(engine, server)
    added(engine, server, nocache=1)
    assert (server.sent, server.asked) == ([200, 200], [None, None])


def test_a_checksum_that_is_known_needs_no_server(engine, server):
    server.content, server.headers = b"sum", {"ETag": '"x"'}
    added(engine, server)
    digest = "sha256:d4502c2a01b6ac0aa3a1c5f8bdb0a8e3a1d2f6e0a0b4ad5d4d7e3f3c1b0b0f00"
    wrong = build(engine, {"Dockerfile": f"FROM busybox\nADD --checksum={digest} {server.url} /added\n"})
    assert "digest mismatch" in wrong.error
    right = wrong.error.split(": ")[1].split(" of ")[0]
    assert server.sent == [200, 304]
    build(engine, {"Dockerfile": f"FROM busybox\nADD --checksum={right} {server.url} /sum\n"}, t="url:3").image  # noqa: B018 - raises
    assert shown(engine, "url:3", "cat", "/sum") == "sum"
    assert server.sent == [200, 304]


def test_who_may_not_have_it_does_not_get_it(engine, server, tmp_path):
    server.content, server.headers, server.token = b"private", {"ETag": '"x"'}, "hush"
    text = f"FROM busybox\nADD {server.url} /p\n".encode()
    arguments = ["-q", "--secret", "id=HTTP_AUTH_TOKEN_127.0.0.1,env=TOKEN", "-"]
    corten(engine, "build", *arguments, input=text, env={**os.environ, "TOKEN": "hush"})
    refused = corten(engine, "build", "-q", "-", input=text, code=1)
    assert b"status 401" in refused.stderr
    corten(engine, "build", *arguments, input=text, env={**os.environ, "TOKEN": "hush"})
    assert server.sent == [200, 401, 304]


def test_it_is_a_row_of_the_cache_and_goes_with_it(engine, server):
    server.content, server.headers = b"x" * 5000, {"ETag": '"x"'}
    added(engine, server)
    [row] = [row for row in engine.client.get("/system/df")["BuildCache"] if row["Type"] == "source.http"]
    assert (row["Description"], row["Size"], row["InUse"]) == (f"http url {server.url}", 5000, False)
    pruned = engine.client.post("/build/prune", all=1, filters='{"type":["source.http"]}')
    assert (pruned["CachesDeleted"], pruned["SpaceReclaimed"]) == ([row["ID"]], 5000)
    added(engine, server)
    assert server.sent == [200, 200]


def test_it_outlives_the_engine(own_engine, server):
    server.content, server.headers = b"kept", {"ETag": '"x"'}
    added(own_engine, server)
    own_engine.kill()
    own_engine.start()
    added(own_engine, server)
    assert server.sent == [200, 304]


def test_at_the_same_time_it_is_fetched_once(engine, server):
    server.content, server.headers = b"z" * 200_000, {"ETag": '"x"'}
    text = f"FROM busybox AS a\nADD {server.url} /a\nFROM busybox AS b\nADD --chmod=600 {server.url} /b\nFROM busybox\nCOPY --from=a /a /\nCOPY --from=b /b /\n"
    threads = [threading.Thread(target=build, args=(engine, {"Dockerfile": text})) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(server.sent)[:1] == [200]
    assert server.sent.count(200) == 1
