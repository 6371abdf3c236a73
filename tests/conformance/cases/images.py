"""Images: lists, tags, refusals."""

from __future__ import annotations

from tests.conformance.ask import Request

CASES: dict[str, list[Request]] = {
    "images": [("GET", "/images/json", None), ("GET", "/images/busybox/json", None), ("GET", "/images/busybox/history", None),
               ("POST", "/images/busybox/tag?repo=conf-tag&tag=1", None), ("POST", "/images/busybox/tag?repo=BAD", None),
               ("DELETE", "/images/conf-tag:1", None), ("POST", "/images/create?fromImage=BAD", None)],
}  # fmt: skip
