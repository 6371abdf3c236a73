"""Searching: what is refused before anybody is asked."""

from __future__ import annotations

from tests.conformance.ask import Request

CASES: dict[str, list[Request]] = {
    "search": [
        ("GET", "/images/search?term=http://conf/x", None), ("GET", "/images/search?term=x&limit=x", None), ("GET", "/images/search?term=x&limit=101", None),
        ("GET", '/images/search?term=x&filters={"stars":["x"]}', None), ("GET", '/images/search?term=x&filters={"is-official":["x"]}', None),
        ("GET", '/images/search?term=x&filters={"foo":["x"]}', None), ("GET", '/images/search?term=x&filters={"is-automated":["true"]}', None),
        ("GET", "/images/search?term=127.0.0.1:1/x", None), ("GET", "/images/search?term=x&filters=x", None),
    ],
}  # fmt: skip
