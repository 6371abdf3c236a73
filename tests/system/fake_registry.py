"""A registry of the tests' own: with a token service, and with faults where a test wants them."""

from __future__ import annotations

import base64
import hashlib
import http.server
import json
import ssl
import threading
import urllib.parse
from collections.abc import Callable

from tests.engines import free_port


class FakeRegistry(http.server.ThreadingHTTPServer):
    """A registry with a token service; `documents` maps a path to (content type, body)."""

    def __init__(self, *, token: bool, certificate: tuple[str, str] | None = None) -> None:
        super().__init__(("127.0.0.1", free_port()), _Handler)
        self.token, self.documents, self.asked = token, {}, []
        self.sent: list[tuple[str, str]] = []  # as `asked`, of what was uploaded
        self.forms: list[dict] = []  # what the token service was sent
        self.ranges: list[str] = []  # of each request in `asked`
        self.uploads: dict[str, bytearray] = {}
        self.faults: dict[str, Callable[[_Handler], None]] = {}  # a path to what answers it instead
        self.break_after = 0  # bytes of an upload after which its connection breaks, once
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*certificate)
            self.socket = context.wrap_socket(self.socket, server_side=True)
        self.thread = threading.Thread(target=self.serve_forever)
        self.thread.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.server_port}"

    def put(self, repository: str, kind: str, data: bytes, content_type: str, *names: str) -> dict:
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        for name in (digest, *names):
            self.documents[f"/v2/{repository}/{kind}/{name}"] = (content_type, data)
        return {"mediaType": content_type, "digest": digest, "size": len(data)}

    def stop(self) -> None:
        self.shutdown()
        self.server_close()
        self.thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Quiet."""

    def do_GET(self) -> None:
        server = self.server
        path = urllib.parse.urlsplit(self.path).path  # a client that takes this for its proxy sends a whole address
        server.asked.append((path, self.headers.get("Authorization", "")))
        server.ranges.append(self.headers.get("Range", ""))
        if path in server.faults:
            server.faults[path](self)
        elif path == "/token":
            good = self.headers.get("Authorization") == "Basic " + base64.b64encode(b"user:right").decode()
            self.answer(200 if good else 401, "application/json", json.dumps({"token": "abc"}).encode() if good else b"{}")
        elif server.token and self.headers.get("Authorization") != "Bearer abc":
            challenge = f'Bearer realm="http://{server.address}/token",service="fake"'
            self.answer(401, "application/json", b"{}", {"WWW-Authenticate": challenge})
        elif path == "/v2/":
            self.answer(200, "application/json", b"{}")
        elif path in server.documents:
            self.answer(200, *server.documents[path])
        elif path.endswith("/tags/list"):
            self.tags(path)
        elif "/upload/" in path:
            have = len(self._upload())
            self.answer(204, "application/json", b"", {"Range": f"0-{max(0, have - 1)}", "Location": path})
        else:
            self.answer(404, "application/json", b"{}")

    def tags(self, path: str) -> None:
        """One a page, as a registry with a long list would."""
        base = path.removesuffix("tags/list") + "manifests/"
        tags = sorted(name.removeprefix(base) for name in self.server.documents if name.startswith(base) and ":" not in name.removeprefix(base))
        last = urllib.parse.parse_qs(self.path.partition("?")[2]).get("last", [""])[0]
        left = [tag for tag in tags if tag > last]
        headers = {"Link": f'<{path}?last={left[0]}>; rel="next"'} if len(left) > 1 else {}
        body = json.dumps({"name": path.split("/")[2], "tags": left[:1]}).encode()
        self.answer(200 if tags else 404, "application/json", body, headers)

    def do_HEAD(self) -> None:
        path = self.path.partition("?")[0]
        self.answer(200 if path in self.server.documents else 404, "application/json", b"")

    def _refresh(self) -> None:
        """The token service's other way in: an identity token instead of a password."""
        form = urllib.parse.parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        self.server.forms.append(form)
        good = form.get("grant_type") == ["refresh_token"] and form.get("refresh_token") == ["identity"]
        self.answer(200 if good else 401, "application/json", json.dumps({"access_token": "abc"}).encode() if good else b"{}")

    def do_POST(self) -> None:
        if self.path in self.server.faults:
            self.server.faults[self.path](self)
            return
        if self.path == "/token":
            self._refresh()
            return
        name = f"/upload/{len(self.server.uploads)}"
        self.server.uploads[name] = bytearray()
        self.answer(202, "application/json", b"", {"Location": f"{self.path.partition('?')[0]}{name}"})

    def _upload(self) -> bytearray:
        return self.server.uploads[self.path[self.path.index("/upload/") :].partition("?")[0]]

    def do_PATCH(self) -> None:
        upload, server = self._upload(), self.server
        server.sent.append((self.path, self.headers.get("Authorization", "")))
        while size := int(self.rfile.readline(), 16):
            upload += self.rfile.read(size)
            self.rfile.readline()
            if server.break_after and len(upload) >= server.break_after:
                server.break_after = 0
                self.close_connection = True
                return
        self.rfile.readline()
        self.answer(202, "application/json", b"", {"Location": self.path})

    def do_PUT(self) -> None:
        path, _, query = self.path.partition("?")
        self.server.sent.append((path, self.headers.get("Authorization", "")))
        if "/manifests/" in path:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            server_path = path.rpartition("/")[0]
            for name in (path, f"{server_path}/sha256:{hashlib.sha256(data).hexdigest()}"):
                self.server.documents[name] = (self.headers["Content-Type"], data)
            self.answer(201, "application/json", b"")
            return
        data = bytes(self._upload())
        wanted = urllib.parse.parse_qs(query)["digest"][0]
        if wanted != "sha256:" + hashlib.sha256(data).hexdigest():
            self.answer(400, "application/json", b"{}")
            return
        repository = path.partition("/blobs/")[0]
        self.server.documents[f"{repository}/blobs/{wanted}"] = ("application/octet-stream", data)
        self.answer(201, "application/json", b"")

    def answer(self, status: int, content_type: str, body: bytes, headers: dict | None = None) -> None:
        self.send_response(status)
        for key, value in {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(body)
