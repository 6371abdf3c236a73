"""The options of the log drivers: which there are, what they may be, Docker's texts for what is wrong. Pure.

`check` is what Docker refuses when a container is created, `limits` what it refuses at the start.
Source: moby daemon/logger/*: ValidateLogOpt and New of each driver (28.5).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from corten.errors import Invalid
from corten.spec.go_values import FALSE, TRUE, parse_bool, parse_number, parse_size
from corten.spec.timestamps import parse_duration

Options = Mapping[str, str]
_METADATA = frozenset({"env", "env-regex", "labels", "labels-regex", "tag"})
_FILES = frozenset({"max-size", "max-file", "compress"})
_EVERYWHERE = frozenset({"mode", "max-buffer-size", "cache-disabled", "cache-max-size", "cache-max-file", "cache-compress"})
_FACILITIES = ("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
               "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7")  # fmt: skip
SYSLOG_FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
_DEFAULT_BUFFER = 1_000_000  # bytes: Docker's ring


@dataclass(frozen=True)
class Limits:
    """Of the files that a log is kept in. `max_size` is bytes, 0 for no limit."""

    max_size: int
    max_file: int
    compress: bool


def limits(driver: str, options: Options) -> Limits:
    """By default five files of 20 MiB, those of `local` and of the cache compressed. Raises Invalid with Docker's texts."""
    if driver == "json-file":
        return _json_limits(options)
    found = options if driver == "local" else {key.removeprefix("cache-"): value for key, value in options.items() if key.startswith("cache-")}
    return _local_limits(found)


def _json_limits(options: Options) -> Limits:
    size = 20 << 20
    if "max-size" in options:
        size = parse_size(options["max-size"])
        if size <= 0:
            raise Invalid("max-size must be a positive number")
    count = parse_number(options.get("max-file", "5"))
    if count < 1:
        raise Invalid("max-file cannot be less than 1")
    compress = parse_bool(options.get("compress", "false"))
    if compress and count < 2:
        raise Invalid("compress cannot be true when max-file is less than 2 or max-size is not set")
    return Limits(size, count, compress)


def _local_limits(options: Options) -> Limits:
    size = 20 << 20
    if "max-size" in options:
        try:
            size = parse_size(options["max-size"])
        except Invalid as error:
            raise Invalid(f"invalid value for max-size: {options['max-size']}: {error.message}") from None
    count = parse_number(options.get("max-file", "5"))
    try:
        compress = parse_bool(options.get("compress", "true"))
    except Invalid as error:
        raise Invalid(f"error reading compress log option: {error.message}") from None
    if count <= 1 and compress:
        raise Invalid("compression cannot be enabled when max file count is 1")
    return Limits(size, max(count, 1), compress)


def buffer_limit(options: Options) -> int:
    """Bytes that may wait for a log's destination."""
    return parse_size(options["max-buffer-size"], unit=1024) if "max-buffer-size" in options else _DEFAULT_BUFFER


def may_lose(options: Options) -> bool:
    return options.get("mode") == "non-blocking"


def is_cached(options: Options) -> bool:
    """Whether what goes elsewhere is kept here too, for `logs` to read."""
    return not parse_bool(options.get("cache-disabled") or "false")


# --- addresses
def syslog_address(text: str) -> tuple[str, str, int]:
    """(scheme, host or path, port). Raises Invalid."""
    if not text:
        return "", "", 0
    parts = urlsplit(text)
    if parts.scheme in ("unix", "unixgram"):
        return parts.scheme, parts.path, 0
    if parts.scheme not in ("udp", "tcp", "tcp+tls"):
        raise Invalid(f"unsupported scheme: '{parts.scheme}'")
    return parts.scheme, parts.hostname or "", _port(parts, 514)


def fluentd_address(text: str) -> tuple[str, str, int]:
    """(scheme, host or path, port). Raises Invalid with Docker's prefix."""
    parts = urlsplit(text if "://" in text else f"tcp://{text}")
    try:
        if parts.scheme == "unix":
            if not parts.path.strip("/"):
                raise Invalid("path is empty")
            return "unix", parts.path, 0
        if parts.scheme not in ("tcp", "tls"):
            raise Invalid(f"unsupported scheme: '{parts.scheme}'")
        if parts.path:
            raise Invalid("should not contain a path element")
        return parts.scheme, parts.hostname or "127.0.0.1", _port(parts, 24224)
    except Invalid as error:
        raise Invalid(f"invalid fluentd-address ({text}): {error.message}") from None


def gelf_address(text: str) -> tuple[str, str, int]:
    """(scheme, host, port). Raises Invalid."""
    if not text:
        raise Invalid("gelf-address is a required parameter")
    parts = urlsplit(text)
    if parts.scheme not in ("udp", "tcp"):
        raise Invalid("gelf: endpoint needs to be TCP or UDP")
    port = _port(parts, -1)
    if port < 0:
        raise Invalid("gelf: please provide gelf-address as proto://host:port")
    return parts.scheme, parts.hostname or "127.0.0.1", port


def _port(parts: SplitResult, default: int) -> int:
    try:
        return default if parts.port is None else parts.port
    except ValueError:
        raise Invalid(f"invalid port in address {parts.netloc!r}") from None


def syslog_facility(text: str) -> int:
    """Its number. Raises Invalid."""
    if not text:
        return _FACILITIES.index("daemon")
    if text in _FACILITIES:
        return _FACILITIES.index(text)
    if text.isdigit() and int(text) <= 23:
        return int(text)
    raise Invalid("invalid syslog facility")


# --- one check a driver: its own options are known by name already
def _check_syslog(options: Options) -> None:
    syslog_address(options.get("syslog-address", ""))
    syslog_facility(options.get("syslog-facility", ""))
    if options.get("syslog-format", "") not in SYSLOG_FORMATS:
        raise Invalid("Invalid syslog format")


def _check_fluentd(options: Options) -> None:
    fluentd_address(options.get("fluentd-address", ""))
    if options.get("fluentd-buffer-limit"):
        parse_size(options["fluentd-buffer-limit"], unit=1024)
    if options.get("fluentd-retry-wait"):
        go_duration(options["fluentd-retry-wait"])
    retries = options.get("fluentd-max-retries", "")
    if retries and not retries.isdigit():
        raise Invalid(f'strconv.ParseUint: parsing "{retries}": invalid syntax')
    for key in ("fluentd-async", "fluentd-sub-second-precision", "fluentd-request-ack"):
        if options.get(key):
            parse_bool(options[key])
    interval = options.get("fluentd-async-reconnect-interval", "")
    if interval and go_duration(interval) and not 0.1 <= go_duration(interval) <= 10:
        raise Invalid(f'invalid value for fluentd-async-reconnect-interval: value ("{interval}") must be between 100ms and 10s')
    if options.get("fluentd-write-timeout") and go_duration(options["fluentd-write-timeout"]) < 0:
        raise Invalid("invalid value for fluentd-write-timeout: value must be a duration that is non-negative")


def go_duration(text: str) -> float:
    """Seconds. Raises Invalid with Go's text."""
    try:
        return parse_duration(text) / 1e9
    except Invalid:
        raise Invalid(f'time: invalid duration "{text}"') from None


def _check_gelf(options: Options) -> None:
    scheme, _, _ = gelf_address(options.get("gelf-address", ""))
    for key in ("gelf-compression-level", "gelf-compression-type"):
        if key in options and scheme != "udp":
            raise Invalid("compression is only supported on UDP")
    level, kind = options.get("gelf-compression-level", "1"), options.get("gelf-compression-type", "gzip")
    if not re.fullmatch(r"-1|\d", level):
        raise Invalid(f'unknown value "{level}" for log opt "gelf-compression-level" for gelf log driver')
    if kind not in ("gzip", "zlib", "none"):
        raise Invalid(f'unknown value "{kind}" for log opt "gelf-compression-type" for gelf log driver')
    for key in ("gelf-tcp-max-reconnect", "gelf-tcp-reconnect-delay"):
        if key in options and scheme != "tcp":
            raise Invalid(f'"{key}" is only valid for TCP')
        if not options.get(key, "0").isdigit():
            raise Invalid(f'"{key}" must be a positive integer')


@dataclass(frozen=True)
class _Driver:
    options: frozenset[str]
    check: Callable[[Options], None]
    unknown: str  # Docker's text for an option it does not have


_OF = "unknown log opt '{option}' for {driver} log driver"
_DRIVERS = {
    "none": _Driver(frozenset(), lambda _: None, ""),
    "json-file": _Driver(_METADATA | _FILES, lambda _: None, _OF),
    "local": _Driver(_FILES, lambda _: None, "unknown log opt '{option}' for log driver {driver}"),
    "syslog": _Driver(
        _METADATA | {f"syslog-{key}" for key in ("address", "facility", "format", "tls-ca-cert", "tls-cert", "tls-key", "tls-skip-verify")},
        _check_syslog, _OF),
    "journald": _Driver(_METADATA, lambda _: None, _OF),
    "gelf": _Driver(
        _METADATA | {f"gelf-{key}" for key in ("address", "compression-level", "compression-type", "tcp-max-reconnect", "tcp-reconnect-delay")},
        _check_gelf, 'unknown log opt "{option}" for {driver} log driver'),
    "fluentd": _Driver(
        _METADATA | {f"fluentd-{key}" for key in ("address", "async", "async-reconnect-interval", "buffer-limit", "max-retries", "request-ack",
                                                  "retry-wait", "sub-second-precision", "write-timeout")},
        _check_fluentd, _OF),
}  # fmt: skip
DRIVERS = tuple(sorted(_DRIVERS))


def check(driver: str, options: Options) -> None:
    """Raises Invalid, with Docker's text, for a driver, an option or a value that it refuses when a container is created."""
    if driver == "none":
        return
    if options.get("mode", "") not in ("", "blocking", "non-blocking"):
        raise Invalid(f"logger: logging mode not supported: {options['mode']}")
    if "max-buffer-size" in options:
        if not may_lose(options):
            raise Invalid("logger: max-buffer-size option is only supported with 'mode=non-blocking'")
        try:
            buffer_limit(options)
        except Invalid as error:
            raise Invalid(f"error parsing option max-buffer-size: {error.message}") from None
    disabled = options.get("cache-disabled", "")
    if disabled and disabled not in TRUE | FALSE:
        raise Invalid(f"invalid value for option cache-disabled: {disabled}")
    found = _DRIVERS.get(driver)
    if found is None:
        raise Invalid(f'error looking up logging plugin {driver}: plugin "{driver}" not found')
    for option in options:
        if option not in found.options | _EVERYWHERE:
            raise Invalid(found.unknown.format(option=option, driver=driver))
    found.check(options)
