"""From a record's log options to what the monitor is told, and to where its log is read.

Names are looked up and destinations tried here: a monitor must not wait for either. Source: moby daemon/logs.go, logger/loginfo.go.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

import msgspec

from corten.engine.records import ContainerRecord
from corten.errors import Invalid, LogDriverFailed, LogsNotReadable
from corten.runtime.logdrivers.syslog import tls_context
from corten.runtime.messages import LogSettings
from corten.spec import log_options
from corten.spec.engine import LogConfig
from corten.spec.go_values import parse_bool
from corten.spec.log_tag import Subject, pick_attributes, render
from corten.store.layout import Layout

JOURNAL_SOCKET = "/run/systemd/journal/socket"
_SYSLOG_SOCKETS = ("/dev/log", "/var/run/syslog", "/var/run/log")
_CONNECT_SECONDS = 5.0
_STREAMS = ("tcp", "tcp+tls", "tls")


@dataclass(frozen=True)
class KeptLog:
    """Where a log can be read. `driver` is json-file or local: the format of its files."""

    driver: str
    path: str


class LogSetup:
    """`default` is what holds for containers that name no driver (daemon.json: log-driver, log-opts)."""

    def __init__(self, layout: Layout, default: LogConfig) -> None:
        self._layout, self.default = layout, default

    def complete(self, asked: LogConfig) -> LogConfig:
        """What a new container has: the engine's defaults filled in. Raises Invalid."""
        defaults = self.default.config or {}
        driver, options = asked.type or self.default.type, dict(asked.config or {})
        for key, value in defaults.items():
            if driver == self.default.type or key.startswith("cache-"):
                options.setdefault(key, value)
        log_options.check(driver, options)
        return LogConfig(driver, options)

    def shows_labels(self, config: LogConfig) -> bool:
        """Whether the container's labels are part of what is logged."""
        return any((config.config or {}).get(key) for key in ("labels", "labels-regex"))

    def kept(self, record: ContainerRecord) -> KeptLog:
        """Raises LogsNotReadable for a log that is kept nowhere."""
        config = record.host_config.log_config
        match config.type:
            case "json-file":
                return KeptLog("json-file", self._layout.log(record.id))
            case "local":
                return KeptLog("local", self._layout.local_log(record.id))
            case driver if driver != "none" and log_options.is_cached(config.config or {}):
                return KeptLog("local", self._layout.cached_log(record.id))
        raise LogsNotReadable

    async def settings(self, record: ContainerRecord) -> LogSettings:
        """Raises LogDriverFailed with Docker's text."""
        config = record.host_config.log_config
        options = config.config or {}
        if config.type == "none":
            return LogSettings("none")
        try:
            kept = self.kept(record)
            limits, path = log_options.limits(config.type, options), kept.path
        except LogsNotReadable:
            limits, path = log_options.Limits(0, 1, compress=False), ""
        except Invalid as error:
            raise LogDriverFailed(reason=error.message) from None
        try:
            subject = _subject(record)
            attributes = pick_attributes(options, record.config.labels or {}, record.config.env or [])
            template = options.get("tag", "")
            tag = render(template or "{{.ID}}", subject)
            if template and config.type == "json-file":
                attributes["tag"] = tag
            peers = await _reach(config.type, options)
        except Invalid as error:
            raise LogDriverFailed(reason=error.message) from None
        return LogSettings(
            config.type, path, limits.max_size, limits.max_file, limits.compress, options,
            attributes if config.type != "local" else {}, tag, msgspec.to_builtins(subject), peers,
        )  # fmt: skip


def _subject(record: ContainerRecord) -> Subject:
    return Subject(
        id=record.id, name=record.name, image_id=record.image, image_name=record.config.image, command=" ".join(record.argv),
        hostname=os.uname().nodename, created=record.created,
    )  # fmt: skip


# --- destinations
async def _reach(driver: str, options: Mapping[str, str]) -> list[tuple[str, int]]:
    """The addresses of the driver's destination, tried unless it is told to wait for it. Raises Invalid with Go's texts."""
    match driver:
        case "syslog":
            return await _reach_syslog(options)
        case "gelf":
            scheme, host, port = log_options.gelf_address(options["gelf-address"])
            try:
                return await _addresses(scheme, host, port, attempt=True)
            except Invalid as error:
                raise Invalid(f"gelf: cannot connect to GELF endpoint: {host}:{port} {error.message}") from None
        case "fluentd":
            scheme, host, port = log_options.fluentd_address(options.get("fluentd-address", ""))
            later = parse_bool(options.get("fluentd-async") or "false")
            context = ssl.create_default_context() if scheme == "tls" else None
            return await _addresses(scheme, host, port, attempt=not later, context=context)
        case "journald":
            if not os.path.exists(JOURNAL_SOCKET):
                raise Invalid("journald is not enabled on this host")
            return [(JOURNAL_SOCKET, 0)]
    return []


async def _reach_syslog(options: Mapping[str, str]) -> list[tuple[str, int]]:
    scheme, host, port = log_options.syslog_address(options.get("syslog-address", ""))
    if scheme:
        return await _addresses(scheme, host, port, attempt=True, context=tls_context(options) if scheme == "tcp+tls" else None)
    for path in _SYSLOG_SOCKETS:
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
            probe.connect(path)
            return [(path, 0)]
    raise Invalid("Unix syslog delivery error")


async def _addresses(scheme: str, host: str, port: int, *, attempt: bool, context: ssl.SSLContext | None = None) -> list[tuple[str, int]]:
    if scheme in ("unix", "unixgram"):
        if attempt:
            await _try_unix(host, socket.SOCK_DGRAM if scheme == "unixgram" else socket.SOCK_STREAM)
        return [(host, 0)]
    kind = "tcp" if scheme in _STREAMS else "udp"
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError:
        raise Invalid(f"dial {kind}: lookup {host}: no such host") from None
    addresses = [(str(address[0]), int(address[1])) for *_, address in found]
    if attempt and kind == "tcp":
        await _try_tcp(addresses[0], context, host)
    return addresses


async def _try_tcp(address: tuple[str, int], context: ssl.SSLContext | None, name: str) -> None:
    host, port = address
    try:
        connection = asyncio.open_connection(host, port, ssl=context, server_hostname=name if context else None)
        _, writer = await asyncio.wait_for(connection, _CONNECT_SECONDS)
    except TimeoutError:
        raise Invalid(f"dial tcp {host}:{port}: i/o timeout") from None
    except ssl.SSLCertVerificationError as error:
        raise Invalid(f"tls: failed to verify certificate: x509: {error.verify_message}") from None
    except OSError as error:
        raise Invalid(f"dial tcp {host}:{port}: connect: {os.strerror(error.errno or 0).lower()}") from None
    writer.close()


async def _try_unix(path: str, kind: int) -> None:
    try:
        with socket.socket(socket.AF_UNIX, kind) as probe:
            probe.setblocking(False)
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(probe, path), _CONNECT_SECONDS)
    except OSError as error:
        raise Invalid(f"dial unix {path}: connect: {os.strerror(error.errno or 0).lower()}") from None
