"""Pruning images: what is refused, and what nothing to do looks like. (What is pruned is tested on images of one's own.)"""

from __future__ import annotations

from tests.conformance.ask import Request

CASES: dict[str, list[Request]] = {
    "image prune": [
        ("POST", '/images/prune?filters={"foo":["x"]}', None),
        ("POST", '/images/prune?filters={"dangling":["x"]}', None),
        ("POST", '/images/prune?filters={"until":["x"]}', None),
        ("POST", '/images/prune?filters={"until":["1h","2h"]}', None),
        ("POST", '/images/prune?filters={"label":["conf-nobody-has-this"],"dangling":["false"]}', None),
        ("GET", '/images/json?filters={"until":["x"]}', None),
    ],
}
