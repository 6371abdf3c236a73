"""The query parameters of the builder's endpoints, for the table of routes: reading them is build_request.py's and build_calls.py's.

Apart from these, because routes are made at the start and the builder is loaded at the first build.
"""

from __future__ import annotations

from typing import Any

BUILD_QUERY: dict[str, Any] = {
    "dockerfile": str, "t": list[str], "q": bool, "nocache": bool, "pull": bool, "rm": bool, "forcerm": bool, "buildargs": str, "labels": str,
    "target": str, "platform": str, "networkmode": str, "extrahosts": list[str], "cachefrom": str, "memory": int, "memswap": int, "cpushares": int,
    "cpusetcpus": str, "cpusetmems": str, "cpuperiod": int, "cpuquota": int, "shmsize": int, "ulimits": str, "cgroupparent": str, "outputs": str,
    "version": str, "squash": bool, "buildid": str, "remote": str, "explain": bool, "progress": bool, "attest": str, "cacheto": str,
    "context": str,
}  # fmt: skip
CALL_QUERY: dict[str, Any] = {"method": str, **{key: BUILD_QUERY[key] for key in ("dockerfile", "buildargs", "target", "platform", "pull")}}
CONTEXTS_QUERY: dict[str, Any] = {"folder": str, "listing": str, "taken": int, "dockerfile": str}
