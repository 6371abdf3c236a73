"""A small S3 for tests: objects in memory, path style, whole and multipart uploads. It believes a signature that names its key."""

from __future__ import annotations

import hashlib
import http.server
import threading
from urllib.parse import parse_qs, unquote, urlsplit

KEY_ID = "AKTEST"


class FakeS3:
    """`objects`: `bucket/key` -> content; a test may alter them."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.puts: list[str] = []
        server = self

        class Handler(_Handler):
            s3 = server

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    s3: FakeS3
    parts: dict[str, dict[int, bytes]] = {}

    def log_message(self, *_: object) -> None: ...

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def _begin(self) -> tuple[str, dict[str, list[str]], bytes]:
        address = urlsplit(self.path)
        data = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        return unquote(address.path).lstrip("/"), parse_qs(address.query, keep_blank_values=True), data

    def _allowed(self) -> bool:
        if f"Credential={KEY_ID}/" in self.headers.get("Authorization", ""):
            return True
        self._answer(403, b"<Error><Code>AccessDenied</Code></Error>")
        return False

    def _get(self) -> None:
        key, _, _ = self._begin()
        if not self._allowed():
            return
        data = self.s3.objects.get(key)
        if data is None:
            self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
        elif self.command == "HEAD":
            self.send_response(200)
            for name, value in {"Content-Length": str(len(data)), **_about(data)}.items():
                self.send_header(name, value)
            self.end_headers()
        else:
            self._answer(200, data, **{name.replace("-", "_"): value for name, value in _about(data).items()})

    do_GET = do_HEAD = _get

    def do_PUT(self) -> None:
        key, query, data = self._begin()
        if not self._allowed():
            return
        if "uploadId" in query:
            self.parts[query["uploadId"][0]][int(query["partNumber"][0])] = data
        else:
            self.s3.objects[key] = data
            self.s3.puts.append(key)
        self._answer(200, ETag=f'"{hashlib.md5(data).hexdigest()}"')

    def do_POST(self) -> None:
        key, query, _ = self._begin()
        if not self._allowed():
            return
        if "uploads" in query:
            self.parts[key] = {}
            self._answer(200, f"<InitiateMultipartUploadResult><UploadId>{key}</UploadId></InitiateMultipartUploadResult>".encode())
        else:
            parts = self.parts.pop(query["uploadId"][0])
            self.s3.objects[key] = b"".join(parts[number] for number in sorted(parts))
            self.s3.puts.append(key)
            self._answer(200, b'<CompleteMultipartUploadResult><ETag>"x"</ETag></CompleteMultipartUploadResult>')


def _about(data: bytes) -> dict[str, str]:
    return {"ETag": f'"{hashlib.md5(data).hexdigest()}"', "Last-Modified": "Mon, 01 Jan 2024 00:00:00 GMT"}
