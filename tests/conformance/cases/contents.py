"""What is in a container: changes."""

from __future__ import annotations

from tests.conformance.ask import Request, created

CASES: dict[str, list[Request]] = {
    "changes": created({"Image": "busybox", "Cmd": ["touch", "/new"]}, ("GET", "/containers/conf-box/changes", None), ("POST", "/containers/conf-box/start", None),
                       ("POST", "/containers/conf-box/wait", None), ("GET", "/containers/conf-box/changes", None)),
    "changes refused": [("GET", "/containers/zz/changes", None)],
}  # fmt: skip
