"""The driver fluentd: the forward protocol's message mode, MessagePack over TCP or a UNIX socket.

With fluentd-request-ack every message carries a name of its own (`chunk`), which the server sends back once it has the message.
Source: Fluentd, "Forward Protocol Specification v1"; moby daemon/logger/fluentd.
"""

from __future__ import annotations

import base64
import os
import re
import socket
import struct
import time
from collections.abc import Callable

import msgspec

from corten.runtime.logdrivers.sender import Message, Patience, Peer, Sender
from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec import log_options
from corten.spec.go_values import parse_bool, parse_size
from corten.spec.log_lines import Run, as_text

_CHUNK = re.compile(rb"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64: found in an answer however its server packs it
_EVENT_TIME = 0  # the extension type of a time with nanoseconds


class Fluentd:
    def __init__(self, settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> None:
        options = settings.options
        scheme, host, _ = log_options.fluentd_address(options.get("fluentd-address", ""))
        self._tag = settings.tag
        self._subject = {"container_id": settings.subject["id"], "container_name": f"/{settings.subject['name']}"}
        self._extra = dict(settings.attributes)
        self._precise = parse_bool(options.get("fluentd-sub-second-precision") or "false")
        self._confirmed = parse_bool(options.get("fluentd-request-ack") or "false")
        self._encode = msgspec.msgpack.Encoder().encode
        renew = options.get("fluentd-async-reconnect-interval", "") if parse_bool(options.get("fluentd-async") or "false") else ""
        patience = Patience(
            log_options.buffer_limit(options), patient=not log_options.may_lose(options),
            messages=parse_size(options.get("fluentd-buffer-limit") or "1048576", unit=1024),
            retry=log_options.go_duration(options.get("fluentd-retry-wait") or "1s"), retries=int(options.get("fluentd-max-retries") or "0"),
            write_timeout=log_options.go_duration(options.get("fluentd-write-timeout") or "0s"), renew=log_options.go_duration(renew or "0s"),
        )  # fmt: skip
        peer = Peer(scheme, tuple(settings.peers), _secure(host) if scheme == "tls" else None)
        self._sender = Sender(reactor, peer, patience, self._note, on_room, _CHUNK if self._confirmed else None)

    def write(self, run: Run) -> None:
        piece: dict[str, str] = {}
        if run.piece:
            last = "true" if run.piece.last else "false"
            piece = {"partial_message": "true", "partial_id": run.piece.id, "partial_ordinal": str(run.piece.ordinal), "partial_last": last}
        for line in run.lines():
            self._sender.put(*self._event(run.stream, run.time, as_text(line), piece))

    def _event(self, stream: str, moment: int, text: str, piece: dict[str, str]) -> Message:
        seconds, rest = divmod(moment, 1_000_000_000)
        when = msgspec.msgpack.Ext(_EVENT_TIME, struct.pack(">II", seconds, rest)) if self._precise else seconds
        event = [self._tag, when, {**self._subject, "source": stream, "log": text, **self._extra, **piece}]
        if not self._confirmed:
            return Message(self._encode(event))
        chunk = base64.b64encode(os.urandom(16))
        return Message(self._encode([*event, {"chunk": chunk.decode()}]), chunk)

    def _note(self, lost: int) -> Message:
        return self._event("stderr", time.time_ns(), f"corten: {lost} lines were dropped: this destination did not keep up", {})

    @property
    def full(self) -> bool:
        return self._sender.full

    def close(self) -> None:
        self._sender.close()


def _secure(host: str) -> Callable[[socket.socket], socket.socket]:
    import ssl

    context = ssl.create_default_context()
    return lambda sock: context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


def make(settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> Fluentd:
    return Fluentd(settings, reactor, on_room)
