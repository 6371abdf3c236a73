"""What of an answer is compared: its status, its error text with the ids taken out, the keys and types of its JSON."""

from __future__ import annotations

import re
from typing import Any

_ID = re.compile(r"\b(sha256:)?[0-9a-f]{64}\b")
_SHORT = re.compile(r"\b[0-9a-f]{12}\b")
_RUNTIME = re.compile(r"\b(runc|corten-runtime) create failed")
_ROOTFS = re.compile(r"/tmp/cortest-[^/]+/(data/overlay2/ID/merged|containers/ID/rootfs)")
_VOLUMES = re.compile(r"/tmp/cortest-[^/]+/(data/)?volumes/")
_VETH = re.compile(r"\bveth[0-9a-f]+\b")
_FD = re.compile(r"/proc/self/fd/[0-9]+")


def text(message: str) -> str:
    """Without what differs from run to run or from place to place."""
    message = _RUNTIME.sub("RUNTIME create failed", _SHORT.sub("SHORT", _ID.sub("ID", message)))
    return _VETH.sub("VETH", _FD.sub("/proc/self/fd/N", _VOLUMES.sub("VOLUMES/", _ROOTFS.sub("ROOTFS", message))))


def shape(value: Any) -> Any:
    """Types instead of values. A map whose keys are data (labels, ports) keeps them; a list shows its first element."""
    if isinstance(value, dict):
        return {_ID.sub("ID", key): shape(item) for key, item in sorted(value.items())}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return {bool: "bool", int: "int", float: "int", str: "str", type(None): "null"}[type(value)]


def compare(expected: Any, actual: Any, path: str = "$", *, exact: bool = False) -> list[str]:
    """Where `actual` lacks what `expected` has. Null, an empty list and an empty map fit anything of their kind; more keys are welcome but if `exact`."""
    if expected == "null" or actual == expected:
        return []
    if isinstance(expected, dict):
        if not isinstance(actual, dict):
            return [] if actual == "null" and not expected else [f"{path}: {actual!r} instead of an object"]
        missing = [f"{path}.{key}: missing" for key in expected if key not in actual]
        more = [f"{path}.{key}: too much" for key in actual if exact and expected and key not in expected]
        return missing + more + [line for key in expected if key in actual for line in compare(expected[key], actual[key], f"{path}.{key}", exact=exact)]
    if isinstance(expected, list):
        if not isinstance(actual, list):
            return [] if actual == "null" and not expected else [f"{path}: {actual!r} instead of a list"]
        return compare(expected[0], actual[0], f"{path}[]", exact=exact) if expected and actual else []
    return [f"{path}: {actual!r} instead of {expected!r}"]
