"""Networks."""

from __future__ import annotations

from tests.conformance.ask import Request

CASES: dict[str, list[Request]] = {
    "networks": [("GET", '/networks?filters={"driver":["bridge"]}', None), ("GET", "/networks/bridge", None), ("GET", "/networks/none", None), ("GET", "/networks/host", None)],
}  # fmt: skip
