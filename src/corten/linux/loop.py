"""Loop devices: a file as a block device for as long as it is mounted. Source: loop(4); include/uapi/linux/loop.h."""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

LOOP_CTL_GET_FREE = 0x4C82
LOOP_CONFIGURE = 0x4C0A
LO_FLAGS_AUTOCLEAR = 4
_ATTEMPTS = 50
# struct loop_config: fd, block size, then struct loop_info64, then eight reserved words
_CONFIG = struct.Struct("=II 5Q 4I 64s64s32s 2Q 8Q")


@contextmanager
def attached(path: str) -> Iterator[str]:
    """The file's device, to be mounted inside the block; it goes when it is neither held here nor mounted. Raises OSError."""
    backing = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        device, name = _configure(backing, path)
    finally:
        os.close(backing)
    try:
        yield name
    finally:
        os.close(device)


def _configure(backing: int, path: str) -> tuple[int, str]:
    config = _CONFIG.pack(backing, 0, 0, 0, 0, 0, 0, 0, 0, 0, LO_FLAGS_AUTOCLEAR, os.fsencode(path)[-63:], b"", b"", *[0] * 10)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(_ATTEMPTS):
            name = f"/dev/loop{fcntl.ioctl(control, LOOP_CTL_GET_FREE)}"
            device = os.open(name, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, LOOP_CONFIGURE, config)
                return device, name
            except OSError as error:
                os.close(device)
                if error.errno != errno.EBUSY:  # somebody else took it in between: the next one
                    raise OSError(error.errno, error.strerror, path) from None
        raise OSError(errno.EBUSY, "no loop device is free", path)
    finally:
        os.close(control)
