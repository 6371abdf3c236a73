"""Additional processes in a running container."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created

CASES: dict[str, list[Request]] = {
    "exec": created(RUN, ("POST", "/containers/conf-box/start", None), ("POST", "/containers/conf-box/exec", {"Cmd": []}),
                     ("POST", "/containers/conf-box/exec", {"Cmd": ["sh", "-c", "exit 3"], "AttachStdout": True}), ("GET", "/exec/{ID}/json", None),
                     ("POST", "/exec/{ID}/start", {"Detach": True}), ("POST", "/exec/nosuch/start", {})),
}  # fmt: skip
