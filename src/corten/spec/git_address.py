"""How a git address is reached. Pure. Source: git-clone(1), "GIT URLS"."""

from __future__ import annotations

import re

_SSH = re.compile(r"(?:ssh|git\+ssh|ssh\+git)://", re.IGNORECASE)
_SCP = re.compile(r"[a-zA-Z0-9_-]+@[a-zA-Z0-9.-]+:")  # git@host:path


def is_over_ssh(address: str) -> bool:
    return bool(_SSH.match(address) or ("://" not in address and _SCP.match(address)))
