"""The engine itself: ping, versions, info."""

from __future__ import annotations

from tests.conformance.ask import Request

CASES: dict[str, list[Request]] = {
    "ping": [("GET", "/_ping", None), ("HEAD", "/_ping", None), ("GET", "/v1.24/_ping", None)],
    "versions": [("GET", "/v1.99/info", None), ("GET", "/nosuchpage", None), ("GET", "/v1.40/version", None), ("GET", "/info", None)],
}  # fmt: skip
