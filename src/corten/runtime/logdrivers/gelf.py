"""The driver gelf: Graylog's JSON, chunked and compressed over UDP, ended by a zero byte over TCP.

Source: Graylog, "GELF" payload specification 1.1; moby daemon/logger/gelf.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import msgspec

from corten.runtime.logdrivers.sender import Message, Patience, Peer, Sender
from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec import log_options
from corten.spec.log_lines import Run, as_text

_LEVELS = {"stdout": 6, "stderr": 3}
_CHUNK, _MAX_CHUNKS = 1420, 128  # bytes of a datagram with its head of 12


class Gelf:
    def __init__(self, settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> None:
        options, subject = settings.options, settings.subject
        scheme, _, _ = log_options.gelf_address(options["gelf-address"])
        self._host = subject["hostname"]
        self._extra = {
            "_container_id": subject["id"], "_container_name": subject["name"], "_image_id": subject["image_id"],
            "_image_name": subject["image_name"], "_command": subject["command"], "_tag": settings.tag, "_created": subject["created"],
        } | {key if key.startswith("_") else f"_{key}": value for key, value in settings.attributes.items()}  # fmt: skip
        self._packed = _packer(options) if scheme == "udp" else None
        patience = Patience(
            log_options.buffer_limit(options), patient=not log_options.may_lose(options),
            retry=float(options.get("gelf-tcp-reconnect-delay", "1")) or 0.1, retries=int(options.get("gelf-tcp-max-reconnect", "0")),
        )  # fmt: skip
        self._sender = Sender(reactor, Peer(scheme, tuple(settings.peers)), patience, self._note, on_room)

    def write(self, run: Run) -> None:
        for line in run.lines():
            if line:
                self._put(self._message(run.stream, run.time, as_text(line)))

    def _message(self, stream: str, moment: int, text: str) -> bytes:
        return msgspec.json.encode({
            "version": "1.1", "host": self._host, "short_message": text, "timestamp": moment // 1_000_000 / 1000,
            "level": _LEVELS[stream], **self._extra,
        })  # fmt: skip

    def _put(self, message: bytes) -> None:
        if self._packed is None:
            self._sender.put(message + b"\0")
            return
        for datagram in chunks(self._packed(message)):
            self._sender.put(datagram)

    def _note(self, lost: int) -> Message:
        message = self._message("stderr", time.time_ns(), f"corten: {lost} messages were dropped: this destination did not keep up")
        return Message(self._packed(message) if self._packed else message + b"\0")

    @property
    def full(self) -> bool:
        return self._sender.full

    def close(self) -> None:
        self._sender.close()


def chunks(message: bytes) -> list[bytes]:
    """The datagrams of a message; none for one that is too long even for the most of them."""
    if len(message) <= _CHUNK:
        return [message]
    room = _CHUNK - 12
    count = -(-len(message) // room)
    if count > _MAX_CHUNKS:
        return []
    head = b"\x1e\x0f" + os.urandom(8)
    return [head + bytes([number, count]) + message[number * room : (number + 1) * room] for number in range(count)]


def _packer(options: dict[str, str]) -> Callable[[bytes], bytes]:
    kind, level = options.get("gelf-compression-type", "gzip"), int(options.get("gelf-compression-level", "1"))
    if kind == "none":
        return lambda message: message
    import zlib

    bits = 31 if kind == "gzip" else 15

    def pack(message: bytes) -> bytes:
        packer = zlib.compressobj(level, zlib.DEFLATED, bits)
        return packer.compress(message) + packer.flush()

    return pack


def make(settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> Gelf:
    return Gelf(settings, reactor, on_room)
