"""Option `idmap`: a mount that shows the owner of its source as the container's user, so that what the container makes is the owner's.

Owns the map and the worker that mounts with it. Only what this one mount shows is changed: nothing on disk is re-owned, and every
other id keeps its value (the container's user and the owner change places). Sources: mount_setattr(2) MOUNT_ATTR_IDMAP; the
kernel's Documentation/filesystems/idmappings.rst: of a line `DISK SHOWN COUNT`, DISK is the id on disk, SHOWN the one that is seen.
"""

from __future__ import annotations

import errno
import os
import re
import signal

import msgspec

from corten.engine.records import ContainerRecord
from corten.errors import CortenError, Invalid, KernelRefused
from corten.linux import mounts
from corten.linux import syscalls as sys
from corten.runtime import users
from corten.runtime.launch import Launch

IDMAP_JOB = "idmap"
WORD = re.compile(r"idmap(?:=(\d+)(?:\.(\d+))?)?")
_LAST = 0xFFFFFFFE  # the greatest id; one more means "none"


class IdmapRefused(CortenError):
    template = "idmap of {path}: {reason}"


class IdmapRequest(msgspec.Struct, frozen=True):
    """`uids` and `gids` are the texts of a user namespace's maps; `target` is where to mount."""

    uids: str
    gids: str
    target: str


def swap(owner: int, user: int) -> str:
    """The map in which `owner` on disk is seen as `user` and the reverse, and every other id as itself."""
    low, high = sorted((owner, user))
    rows = [(0, 0, low), (low, high, 1), (low + 1, low + 1, high - low - 1), (high, low, 1), (high + 1, high + 1, _LAST - high)]
    if low == high:
        rows = [(0, 0, _LAST + 1)]
    return "".join(f"{disk} {shown} {count}\n" for disk, shown, count in rows if count > 0)


def wanted_user(word: str, record: ContainerRecord, passwd: str, group: str) -> tuple[int, int]:
    """(uid, gid) inside: those that the option names (`idmap=UID[.GID]`), or the ones that the container's program gets."""
    match = WORD.fullmatch(word)
    if match and match[1]:
        return int(match[1]), int(match[2] or match[1])
    try:
        account = users.resolve(record.config.user, (), passwd, group)
    except users.UnknownUser as error:
        raise Invalid(f"idmap: {error}; name the user by number (idmap=UID.GID)") from None
    return account.uid, account.gid


async def mount(launch: Launch, source: str, target: str, user: tuple[int, int]) -> None:
    """Mount `source` on `target`, its owner shown as `user`. Raises IdmapRefused where its file system cannot."""
    fd = os.open(source, os.O_PATH | os.O_CLOEXEC)
    try:
        owner = os.fstat(fd)
        request = IdmapRequest(swap(owner.st_uid, user[0]), swap(owner.st_gid, user[1]), target)
        await launch.run_job(IDMAP_JOB, msgspec.json.encode(request), (fd,))
    except KernelRefused as error:
        reason = error.reason
        if error.errno in (errno.EINVAL, errno.EPERM, errno.EOPNOTSUPP):
            reason = f"its file system ({file_system(source)}) has no idmapped mounts; leave the option out, or keep the files on ext4, xfs or btrfs"
        raise IdmapRefused(path=source, reason=reason) from None
    finally:
        os.close(fd)


def file_system(path: str) -> str:
    return mounts.mount_holding(path).type


def job(argument: bytes, fds: list[int]) -> bytes:
    """Launcher job: the descriptor is the source."""
    request = msgspec.json.decode(argument, type=IdmapRequest)
    tree = sys.open_tree(fds[0], "", sys.OPEN_TREE_CLONE | sys.OPEN_TREE_CLOEXEC | sys.AT_EMPTY_PATH)
    pid, pidfd = sys.clone3(sys.CLONE_NEWUSER)
    if pid == 0:
        while True:
            signal.pause()  # it only holds the namespace, until it is killed
    try:
        for name, text in (("uid_map", request.uids), ("gid_map", request.gids)):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(text)
        namespace = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        sys.mount_setattr(tree, "", sys.AT_EMPTY_PATH, attr_set=sys.MOUNT_ATTR_IDMAP, userns_fd=namespace)
        mounts.attach_tree(tree, request.target)
    finally:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
    return b""
