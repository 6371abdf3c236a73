"""The driver syslog: one message a line, as RFC 3164 (the local and the full form) or RFC 5424. Source: moby daemon/logger/syslog."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from corten.errors import Invalid
from corten.runtime.logdrivers.sender import Message, Patience, Peer, Sender
from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec import log_options
from corten.spec.log_lines import Run
from corten.spec.timestamps import rfc3339_nano_fixed

if TYPE_CHECKING:
    import ssl  # 3 MiB that only who uses TLS should carry

_SEVERITIES = {"stdout": 6, "stderr": 3}  # informational, error


class Syslog:
    def __init__(self, settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> None:
        options = settings.options
        scheme, _, _ = log_options.syslog_address(options.get("syslog-address", ""))
        self._facility = log_options.syslog_facility(options.get("syslog-facility", "")) << 3
        self._form, self._tag = options.get("syslog-format", ""), settings.tag
        self._hostname, self._counted = settings.subject["hostname"], scheme == "tcp+tls" and self._form.startswith("rfc5424")
        peer = Peer(scheme or "unixgram", tuple(settings.peers), _secure(settings) if scheme == "tcp+tls" else None)
        patience = Patience(log_options.buffer_limit(options), patient=not log_options.may_lose(options))
        self._sender = Sender(reactor, peer, patience, self._note, on_room)

    def write(self, run: Run) -> None:
        for line in run.lines():
            if line:
                self._sender.put(self._message(run.stream, run.time, line))

    def _message(self, stream: str, moment: int, line: bytes) -> bytes:
        priority, pid = self._facility | _SEVERITIES[stream], os.getpid()
        if self._form.startswith("rfc5424"):
            stamp = rfc3339_nano_fixed(moment)
            stamp = f"{stamp[:26]}Z" if self._form.endswith("micro") else f"{stamp[:19]}Z"
            head = f"<{priority}>1 {stamp} {self._hostname} {self._tag} {pid} {self._tag} - "
        else:
            stamp = time.strftime("%b %e %H:%M:%S", time.localtime(moment // 1_000_000_000))
            host = f"{self._hostname} " if self._form == "rfc3164" else ""
            head = f"<{priority}>{stamp} {host}{self._tag}[{pid}]: "
        message = head.encode() + line + b"\n"
        return b"%d %s" % (len(message), message) if self._counted else message

    def _note(self, lost: int) -> Message:
        return Message(self._message("stderr", time.time_ns(), b"corten: %d lines were dropped: this destination did not keep up" % lost))

    @property
    def full(self) -> bool:
        return self._sender.full

    def close(self) -> None:
        self._sender.close()


def tls_context(options: Mapping[str, str]) -> ssl.SSLContext:
    """Raises Invalid with Docker's texts for files that cannot be read."""
    import ssl

    authority, certificate, key = (options.get(f"syslog-tls-{name}", "") for name in ("ca-cert", "cert", "key"))
    try:
        context = ssl.create_default_context(cafile=authority or None)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Invalid(f'could not read CA certificate "{authority}": open {authority}: {reason}') from None
    if "syslog-tls-skip-verify" in options:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    if certificate:
        try:
            context.load_cert_chain(certificate, key or None)
        except OSError as error:
            raise Invalid(f"could not load X509 key pair: {error}. Make sure the key is not encrypted") from None
    return context


def _secure(settings: LogSettings) -> Callable[[socket.socket], socket.socket]:
    context = tls_context(settings.options)
    _, host, _ = log_options.syslog_address(settings.options["syslog-address"])
    return lambda sock: context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)


def make(settings: LogSettings, reactor: Reactor, on_room: Callable[[], None]) -> Syslog:
    return Syslog(settings, reactor, on_room)
