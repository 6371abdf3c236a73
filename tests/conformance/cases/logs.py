"""Log drivers and their options refused, at creation and at the start; reading logs; attach's refusals."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created


def _with(driver: str, **options: str) -> dict:
    return {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"LogConfig": {"Type": driver, "Config": {key.replace("_", "-"): value for key, value in options.items()}}}}


_REFUSED_AT_CREATION = {
    "unknown driver": _with("nope"),
    "json-file option": _with("json-file", foo="1"),
    "local option": _with("local", foo="1"),
    "local has no labels": _with("local", labels="a"),
    "syslog option": _with("syslog", foo="1"),
    "syslog address": _with("syslog", syslog_address="foo"),
    "syslog facility": _with("syslog", syslog_facility="foo", syslog_address="udp://127.0.0.1:1"),
    "syslog format": _with("syslog", syslog_format="foo", syslog_address="udp://127.0.0.1:1"),
    "journald option": _with("journald", foo="1"),
    "fluentd option": _with("fluentd", foo="1"),
    "fluentd address": _with("fluentd", fluentd_address="foo://x"),
    "fluentd path": _with("fluentd", fluentd_address="tcp://x/y"),
    "fluentd async": _with("fluentd", fluentd_async="x"),
    "fluentd wait": _with("fluentd", fluentd_retry_wait="x"),
    "fluentd retries": _with("fluentd", fluentd_max_retries="-1"),
    "fluentd buffer": _with("fluentd", fluentd_buffer_limit="z"),
    "fluentd interval": _with("fluentd", fluentd_async_reconnect_interval="1ms"),
    "gelf without address": _with("gelf"),
    "gelf scheme": _with("gelf", gelf_address="foo"),
    "gelf port": _with("gelf", gelf_address="tcp://127.0.0.1"),
    "gelf compression over tcp": _with("gelf", gelf_address="tcp://127.0.0.1:1", gelf_compression_level="1"),
    "gelf compression": _with("gelf", gelf_address="udp://127.0.0.1:1", gelf_compression_type="zz"),
    "gelf level": _with("gelf", gelf_address="udp://127.0.0.1:1", gelf_compression_level="77"),
    "gelf reconnect over udp": _with("gelf", gelf_address="udp://127.0.0.1:1", gelf_tcp_max_reconnect="1"),
    "mode": _with("json-file", mode="foo"),
    "buffer of blocking": _with("json-file", mode="blocking", max_buffer_size="1m"),
    "buffer": _with("json-file", mode="non-blocking", max_buffer_size="1x"),
    "cache": _with("syslog", syslog_address="udp://127.0.0.1:1", cache_disabled="foo"),
}
_REFUSED_AT_THE_START = {
    "size": _with("json-file", max_size="abc"), "negative size": _with("json-file", max_size="-5m"), "no size": _with("json-file", max_size="0"),
    "no file": _with("json-file", max_size="1m", max_file="0"), "files": _with("json-file", max_size="1m", max_file="x"),
    "compress": _with("json-file", max_size="1m", max_file="2", compress="maybe"), "local size": _with("local", max_size="1x"),
    "local files": _with("local", max_file="0"), "local compress": _with("local", compress="x"), "tag": _with("json-file", tag="{{.Foo}}"),
    "open tag": _with("json-file", tag="{{.Name"), "journald": _with("journald"), "local syslog": _with("syslog"),
    "syslog away": _with("syslog", syslog_address="tcp://127.0.0.1:1"), "fluentd away": _with("fluentd", fluentd_address="tcp://127.0.0.1:1"),
    "gelf away": _with("gelf", gelf_address="tcp://127.0.0.1:1"), "cache size": _with("syslog", syslog_address="udp://127.0.0.1:1", cache_max_size="1x"),
}  # fmt: skip
_START: Request = ("POST", "/containers/conf-box/start", None)
_WAIT: Request = ("POST", "/containers/conf-box/wait", None)

CASES: dict[str, list[Request]] = {
    "log options refused at creation": [("POST", "/containers/create", body) for body in _REFUSED_AT_CREATION.values()],
    **{f"log refused at the start: {name}": created(body, _START, ("GET", "/containers/conf-box/json", None)) for name, body in _REFUSED_AT_THE_START.items()},
    "logs without a stream": created(RUN, ("GET", "/containers/conf-box/logs?follow=1", None), ("GET", "/containers/conf-box/logs?stdout=0", None)),
    "logs that are not kept": created(_with("none"), _START, _WAIT, ("GET", "/containers/conf-box/logs?stdout=1", None)),
    "logs with the cache off": created(_with("gelf", gelf_address="udp://127.0.0.1:9", cache_disabled="1"), _START, _WAIT, ("GET", "/containers/conf-box/logs?stdout=1", None)),
    "logs from the cache": created(_with("gelf", gelf_address="udp://127.0.0.1:9"), _START, _WAIT, ("GET", "/containers/conf-box/logs?stdout=1", None)),
    "logs with odd windows": created(RUN, ("GET", "/containers/conf-box/logs?stdout=1&since=x", None), ("GET", "/containers/conf-box/logs?stdout=1&until=x", None),
                                     ("GET", "/containers/conf-box/logs?stdout=1&tail=x", None), ("GET", "/containers/conf-box/logs?stdout=1&since=1.5&until=2.5", None)),
    "logs of nobody": [("GET", "/containers/conf-nobody/logs?stdout=1", None), ("GET", "/containers/conf-nobody/attach/ws", None),
                       ("POST", "/containers/conf-nobody/attach", None)],
    "attach with odd keys": created(RUN, _START, ("POST", "/containers/conf-box/attach?detachKeys=ctrl-,,", None), ("GET", "/containers/conf-box/attach/ws?detachKeys=foo", None)),
}  # fmt: skip
