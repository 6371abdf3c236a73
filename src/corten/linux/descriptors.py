"""Descriptors across processes: SCM_RIGHTS on SOCK_SEQPACKET sockets, and closing what must not leak."""

from __future__ import annotations

import array
import fcntl
import os
import socket
import sys
import termios
from collections.abc import Sequence

from corten.linux import syscalls

_MAX_DESCRIPTORS = 16


def send_packet(sock: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """One packet with its descriptors; the receiver gets copies. Raises OSError (EMSGSIZE over the socket buffer)."""
    ancillary = (
        [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors).tobytes())] if descriptors else []
    )
    sock.sendmsg([data], ancillary)


def receive_packet(sock: socket.socket, limit: int = 1 << 20) -> tuple[bytes, list[int]]:
    """One packet; empty data means that the peer has gone. Received descriptors are close-on-exec and the caller's."""
    space = socket.CMSG_SPACE(_MAX_DESCRIPTORS * array.array("i").itemsize)
    try:
        data, ancillary, flags, _ = sock.recvmsg(limit, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:  # it went with packets unread
        return b"", []
    descriptors: list[int] = []
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received = array.array("i")
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
            descriptors.extend(received)
    if flags & socket.MSG_TRUNC:
        for descriptor in descriptors:
            os.close(descriptor)
        raise OSError(90, "packet longer than the receive buffer")
    return data, descriptors


def close_on_exec_from(first: int) -> None:
    """Mark every descriptor from `first` on close-on-exec: nothing of the host leaks into what is executed next."""
    syscalls.close_range(first, 0xFFFFFFFF, syscalls.CLOSE_RANGE_CLOEXEC)


def close_all_but(keep: set[int]) -> None:
    """Close every other descriptor: what a fork has inherited and the child has no business with."""
    previous = -1
    for fd in sorted(keep):
        if fd > previous + 1:
            syscalls.close_range(previous + 1, fd - 1, 0)
        previous = fd
    syscalls.close_range(previous + 1, 0xFFFFFFFF, 0)


def close_all(fds: list[int]) -> None:
    """Close and forget them."""
    while fds:
        os.close(fds.pop())


def unread(sock: int) -> int:
    """Bytes sent on a UNIX stream socket that the peer has not read yet (unix(7), SIOCOUTQ)."""
    answer = fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0")
    return int.from_bytes(answer, sys.byteorder)
