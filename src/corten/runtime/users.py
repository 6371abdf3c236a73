"""Who a process runs as: Docker's user strings resolved against the container's own passwd and group files.

Runs inside the container's root (after pivot_root or setns), so a hostile file or symlink there reaches nothing else.
Source: Docker Engine 28.5 (moby/sys/user GetExecUser): name, uid, name:group, uid:gid.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from corten.spec.runtime import User

_LIMIT = 1 << 24  # a passwd file larger than this is an attack
_MAX_ID = (1 << 31) - 1


class UnknownUser(Exception):
    """Docker's text; becomes a Failure."""


@dataclass(frozen=True)
class Account:
    """`groups` begin with `gid`: a process that takes another group with setgid(2) must not lose what its own one is denied (CVE-2022-36109)."""

    uid: int
    gid: int
    groups: tuple[int, ...]
    home: str


def _rows(text: str, fields: int) -> list[list[str]]:
    rows = [line.split(":") for line in text.splitlines() if line and not line.startswith("#")]
    return [row for row in rows if len(row) >= fields and row[2].isdecimal()]


def resolve(user: str, extra_groups: Sequence[str], passwd: str, group: str) -> Account:
    """Pure. `user` as in Config.User; `extra_groups` as in HostConfig.GroupAdd. Raises UnknownUser."""
    user_part, _, group_part = user.partition(":")
    people, teams = _rows(passwd, 6), _rows(group, 4)
    uid, gid, home, name = 0, 0, "/", ""
    row = next((row for row in people if row[0] == user_part), None) or next(
        (row for row in people if row[2] == (user_part or "0")), None
    )
    if row:
        name, uid, gid, home = row[0], int(row[2]), int(row[3]) if row[3].isdecimal() else 0, row[5] or "/"
    elif user_part.isdecimal():
        uid = int(user_part)
        if uid > _MAX_ID:
            raise UnknownUser(f"uids and gids must be in range 0-{_MAX_ID}")
    elif user_part:
        raise UnknownUser(f"unable to find user {user_part}: no matching entries in passwd file")
    groups: list[int] = []
    if group_part:
        gid = _group_id(group_part, teams)
    else:
        groups = [int(row[2]) for row in teams if name and name in row[3].split(",")]
    groups += [_group_id(name, teams) for name in extra_groups]
    return Account(uid, gid, tuple(dict.fromkeys((gid, *groups))), home)


def _group_id(wanted: str, teams: list[list[str]]) -> int:
    for row in teams:
        if row[0] == wanted:
            return int(row[2])
    if wanted.isdecimal() and int(wanted) <= _MAX_ID:
        return int(wanted)
    raise UnknownUser(f"unable to find group {wanted}: no matching entries in group file")


def _read(path: str) -> str:
    try:
        with open(path, "rb", buffering=0) as file:
            size = min(os.fstat(file.fileno()).st_size or _LIMIT, _LIMIT)  # Python makes room for all that it asks for
            return (file.read(size) or b"").decode("utf-8", "replace")
    except OSError:
        return ""  # an image without the file: only numbers work, as in Docker


def look_up(user: str, extra_groups: Sequence[str]) -> Account:
    """`resolve` against the files of the root that the caller is in."""
    return resolve(user, extra_groups, _read("/etc/passwd"), _read("/etc/group"))


def numeric(user: User) -> Account:
    """An OCI user, which is numbers already; the home comes from the container's passwd."""
    home = look_up(str(user.uid), ()).home
    return Account(user.uid, user.gid, tuple(user.additional_gids or ()), home)
