"""The resource limits that there are, by the runtime spec's names (getrlimit(2)). Pure."""

from __future__ import annotations

RLIMITS = frozenset(
    f"RLIMIT_{name}" for name in ("AS", "CORE", "CPU", "DATA", "FSIZE", "LOCKS", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC", "RSS",
                                  "RTPRIO", "RTTIME", "SIGPENDING", "STACK")
)  # fmt: skip
