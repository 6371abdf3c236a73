"""Project quotas: which project a folder's files count for, and how many bytes a project may have. ext4 and xfs.

Which ids are used and when is not decided here. Sources: quotactl(2), quotactl_fd (Linux 5.14); include/uapi/linux/{fs,quota,dqblk_xfs}.h.
"""

from __future__ import annotations

import errno
import fcntl
import struct
from dataclasses import dataclass

from corten.linux import syscalls

_FS_IOC_FSGETXATTR, _FS_IOC_FSSETXATTR = 0x801C581F, 0x401C5820
_FS_XFLAG_PROJINHERIT = 0x200
_FSXATTR = struct.Struct("=IIII12x")  # xflags, extsize, nextents, projid, then cowextsize and padding
_PRJQUOTA = 2
_Q_GETQUOTA, _Q_SETQUOTA, _Q_XGETQSTATV = 0x800007, 0x800008, 0x5808
_DQBLK = struct.Struct("=8QI4x")  # struct if_dqblk: hard and soft limit of blocks, bytes in use, the same of inodes, times, what is valid
_LIMIT_UNIT = 1024
_QIF_BLIMITS = 1
_STATV_SIZE, _STATV_VERSION = 256, 1
_FS_QUOTA_PDQ_ENFD = 1 << 5


@dataclass(frozen=True)
class Quota:
    """Bytes; a limit of 0 is none."""

    limit: int
    used: int


def enforced(fd: int) -> bool:
    """Whether the file system of a descriptor counts projects and holds them to their limits."""
    answer = bytearray(_STATV_SIZE)
    answer[0] = _STATV_VERSION
    try:
        answer = bytearray(syscalls.quotactl_fd(fd, _command(_Q_XGETQSTATV), 0, bytes(answer)))
    except OSError:
        return False  # a kernel, or a file system, without
    return bool(int.from_bytes(answer[2:4], "little") & _FS_QUOTA_PDQ_ENFD)


def project(fd: int) -> int:
    """0 for a file that counts for none. Raises OSError."""
    return int(_FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))[3])


def set_project(fd: int, number: int) -> None:
    """A folder's project, which what is made in it inherits. Raises OSError."""
    flags, extent, extents, _ = _FSXATTR.unpack(fcntl.ioctl(fd, _FS_IOC_FSGETXATTR, bytes(_FSXATTR.size)))
    fcntl.ioctl(fd, _FS_IOC_FSSETXATTR, _FSXATTR.pack(flags | _FS_XFLAG_PROJINHERIT, extent, extents, number))


def quota(fd: int, number: int) -> Quota:
    """Raises OSError where there are no quotas."""
    try:
        answer = syscalls.quotactl_fd(fd, _command(_Q_GETQUOTA), number, bytes(_DQBLK.size))
    except OSError as error:
        if error.errno != errno.ENOENT:  # xfs: nothing has counted for it yet
            raise
        return Quota(0, 0)
    hard, _, used, *_ = _DQBLK.unpack(answer)
    return Quota(hard * _LIMIT_UNIT, used)


def set_limit(fd: int, number: int, size: int) -> None:
    """`size` in bytes, 0 for none. Raises OSError."""
    blocks = -(-size // _LIMIT_UNIT)
    syscalls.quotactl_fd(fd, _command(_Q_SETQUOTA), number, _DQBLK.pack(blocks, blocks, 0, 0, 0, 0, 0, 0, _QIF_BLIMITS))


def _command(operation: int) -> int:
    return operation << 8 | _PRJQUOTA
