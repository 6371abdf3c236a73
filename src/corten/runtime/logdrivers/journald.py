"""The driver journald: fields in one datagram to systemd's socket; a large entry as a sealed memory file.

Source: systemd, "Native Journal Protocol"; moby daemon/logger/journald.
"""

from __future__ import annotations

import array
import errno
import fcntl
import os
import re
import socket
import sys
from collections.abc import Callable

from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec.log_lines import Run
from corten.spec.timestamps import rfc3339_nano

_PRIORITIES = {"stdout": "6", "stderr": "3"}


class Journald:
    full = False  # the journal's socket takes an entry or does not; it is never waited for

    def __init__(self, settings: LogSettings) -> None:
        subject = settings.subject
        self._path = settings.peers[0][0]
        self._fixed = {
            "CONTAINER_ID": subject["id"][:12], "CONTAINER_ID_FULL": subject["id"], "CONTAINER_NAME": subject["name"],
            "CONTAINER_TAG": settings.tag, "IMAGE_NAME": subject["image_name"], "SYSLOG_IDENTIFIER": settings.tag,
            "CONTAINER_LOG_EPOCH": os.urandom(32).hex(),
        } | {_field_name(key): value for key, value in settings.attributes.items()}  # fmt: skip
        self._ordinal = self._lost = 0
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def write(self, run: Run) -> None:
        fields = self._fixed | {"PRIORITY": _PRIORITIES[run.stream], "SYSLOG_TIMESTAMP": rfc3339_nano(run.time)}
        if run.piece:
            fields |= {"CONTAINER_PARTIAL_ID": run.piece.id, "CONTAINER_PARTIAL_ORDINAL": str(run.piece.ordinal),
                       "CONTAINER_PARTIAL_LAST": "true" if run.piece.last else "false"}  # fmt: skip
            fields |= {} if run.piece.last else {"CONTAINER_PARTIAL_MESSAGE": "true"}
        for line in run.lines():
            if self._lost and self._send({**fields, "PRIORITY": "3"}, b"corten: %d lines were dropped: the journal did not keep up" % self._lost):
                self._lost = 0
            if not self._send(fields, line):
                self._lost += 1

    def _send(self, fields: dict[str, str], line: bytes) -> bool:
        self._ordinal += 1
        entry = b"".join(field(name, value.encode()) for name, value in fields.items())
        entry += field("CONTAINER_LOG_ORDINAL", str(self._ordinal).encode()) + field("MESSAGE", line)
        try:
            self._sock.sendto(entry, self._path)
        except OSError as error:
            if error.errno in (errno.EMSGSIZE, errno.ENOBUFS):
                return self._send_as_file(entry)
            return False
        return True

    def _send_as_file(self, entry: bytes) -> bool:
        fd = os.memfd_create("journal-entry", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.write(fd, entry)
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE | fcntl.F_SEAL_SEAL)
            self._sock.sendmsg([], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]).tobytes())], 0, self._path)
        except OSError:
            return False
        finally:
            os.close(fd)
        return True

    def close(self) -> None:
        if self._lost:
            sys.stderr.write(f"journal: {self._lost} lines dropped\n")
        self._sock.close()


def field(name: str, value: bytes) -> bytes:
    """With its length where it has newlines (or might look as if)."""
    if b"\n" not in value:
        return b"%s=%s\n" % (name.encode(), value)
    return b"%s\n%s%s\n" % (name.encode(), len(value).to_bytes(8, "little"), value)


def _field_name(key: str) -> str:
    """Upper case, digits and underscores, none of these in front."""
    return re.sub(r"[^A-Z0-9]", "_", key.upper()).lstrip("_")


def make(settings: LogSettings, _reactor: Reactor, _on_room: Callable[[], None]) -> Journald:
    return Journald(settings)
