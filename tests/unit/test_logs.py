"""Logs without a container: cutting lines, both formats, rotation and compression, reading, following, options, tags."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corten.api.log_stream import Window, frames
from corten.engine.log_setup import KeptLog
from corten.engine.logs import Following, read_log
from corten.errors import Invalid
from corten.runtime.logdrivers.container_log import ContainerLog
from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec import log_json, log_local, log_options, log_tag
from corten.spec.log_lines import LINE_LIMIT, Run, Splitter, as_text

# What matters in a log: newlines, quotes, escapes, bytes that are no UTF-8, and the mark that log_json uses itself.
SPICY = st.lists(st.sampled_from([b"\n", b"\\", b'"', b"a", b"\x7f", b"\xff", b"\xe2\x82", "é\u2028".encode(), b"\x00", b"\r", b"\\n", b'","stream":"']), max_size=60).map(b"".join)




@given(SPICY, st.lists(st.integers(0, 200), max_size=5))
def test_any_chunking_gives_the_same_lines(data, places):
    borders = sorted({0, len(data), *(place for place in places if place < len(data))})
    pieces = [data[start:end] for start, end in itertools.pairwise(borders)]
    splitter = Splitter("x")
    parts = [run.data for piece in pieces for run in splitter.feed(piece, 1)] + [run.data for run in splitter.finish(1)]
    assert b"".join(parts) == data
    assert [line for part in parts for line in re.findall(rb"[^\n]*\n|[^\n]+", part)] == re.findall(rb"[^\n]*\n|[^\n]+", data)


@settings(max_examples=30)
@given(st.lists(st.sampled_from([0, 1, LINE_LIMIT - 1, LINE_LIMIT, LINE_LIMIT + 1, 3 * LINE_LIMIT + 7]), min_size=1, max_size=5), st.integers(1, 70000), st.booleans())
def test_long_lines_are_cut_as_docker_cuts_them(lengths, chunk, ended):
    data = b"\n".join(b"x" * length for length in lengths) + (b"\n" if ended else b"")
    splitter = Splitter("stdout")
    runs = [run for at in range(0, len(data), chunk) for run in splitter.feed(data[at : at + chunk], 1)] + splitter.finish(1)
    found = [line for run in runs for line in re.findall(rb"[^\n]*\n|[^\n]+", run.data)]
    expected = []
    for number, length in enumerate(lengths):
        line = b"x" * length + (b"\n" if ended or number < len(lengths) - 1 else b"")
        while len(line.rstrip(b"\n")) >= LINE_LIMIT:
            expected.append(line[:LINE_LIMIT])
            line = line[LINE_LIMIT:]
        expected += [line] if line else []
    assert found == expected
    ids = {run.piece.id for run in runs if run.piece}
    assert len(ids) == sum(1 for number, length in enumerate(lengths) if length >= LINE_LIMIT or (number == len(lengths) - 1 and not ended and length))


@given(SPICY, st.sampled_from([(), (("k", "v"),), (("a", 'q"\\'), ("b", "é"))]))
def test_json_records_are_docker_s_and_come_back(data, attributes):
    splitter = Splitter("stderr", attributes)
    runs = splitter.feed(data, 1_700_000_000_123_456_789) + splitter.finish(1_700_000_001_000_000_000)
    block = b"".join(map(log_json.encode, runs))
    records = [json.loads(line) for line in block.split(b"\n")[:-1]]
    assert "".join(record["log"] for record in records) == "".join(as_text(line) for line in re.findall(rb"[^\n]*\n|[^\n]+", data))
    assert all(record["stream"] == "stderr" and record.get("attrs", {}) == dict(attributes) for record in records)
    back = list(log_json.decode(block))
    assert b"".join(run.data for run in back) == "".join(record["log"] for record in records).encode()
    assert {(run.stream, run.attributes) for run in back} <= {("stderr", attributes)}
    assert all(run.time in (1_700_000_000_123_456_789, 1_700_000_001_000_000_000) for run in back)


@given(SPICY, st.sampled_from([(), (("k", "v"),)]))
def test_the_local_format_keeps_every_byte(data, attributes):
    splitter = Splitter("stderr", attributes)
    runs = splitter.feed(data, 5) + splitter.finish(6)
    block = b"".join(map(log_local.encode, runs))
    assert log_local.whole(block) == len(block)
    assert not block or log_local.whole(block[:-1]) < len(block) - 1
    back = list(log_local.decode(block))
    assert b"".join(run.data for run in back) == data
    assert [run.piece for run in back if run.piece] == [run.piece for run in runs if run.piece]
    assert {(run.stream, run.attributes) for run in back} <= {("stderr", attributes)}


def test_records_of_another_writer_are_read():
    lines = [
        '{"log":"a\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}', '{"log":"b\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}',
        '{"log":"c","stream":"stdout","time":"2026-01-01T00:00:00Z"}', '{"log":"to', '{"stream":"stdout","time":"2026-01-01T00:00:00Z"}',
        '{"time":"2026-01-01T00:00:00+01:00","stream":"stderr","log":"d\\u003c\\n"}', '{"log":"e\\\\n\\n","stream":"stdout","attrs":{"k":"v"},"time":"2026-01-01T00:00:00.5Z"}',
    ]  # fmt: skip
    runs = list(log_json.decode("".join(line + "\n" for line in lines).encode()))
    assert b"".join(run.data for run in runs) == b"a\nb\ncd<\ne\\n\n"
    assert runs[-1] == Run("stdout", 1767225600_500000000, b"e\\n\n", (("k", "v"),))


@given(SPICY)
def test_a_line_is_a_frame(data):
    framed, at, lines = frames("stderr", data), 0, []
    while at < len(framed):
        assert framed[at : at + 4] == b"\2\0\0\0"
        size = int.from_bytes(framed[at + 4 : at + 8])
        lines.append(framed[at + 8 : at + 8 + size])
        at += 8 + size
    assert lines == re.findall(rb"[^\n]*\n|[^\n]+", data)


def test_what_is_shown_of_a_run():
    run = Run("stdout", 1_700_000_000_000_000_005, b"a\nb\n", (("k k", "v="),))
    everything = frozenset({"stdout", "stderr"})
    assert Window(everything, framed=False, timestamps=True, details=True).show(run) == (
        b"2023-11-14T22:13:20.000000005Z k+k=v%3D a\n2023-11-14T22:13:20.000000005Z k+k=v%3D b\n"
    )
    assert Window(everything, framed=False, since=run.time + 1).show(run) == b""
    assert Window(frozenset({"stderr"}), framed=False).show(run) == b""
    assert Window(everything, framed=False, until=run.time - 1).over(run)
    assert not Window(everything, framed=False, until=run.time).over(run)
    long = Run("stdout", 1, b"x" * LINE_LIMIT)
    assert Window(everything, framed=True, timestamps=True).show(long)[8:].endswith(b"x" * LINE_LIMIT)


# --- files
def make_log(path: str, driver: str = "json-file", *, size: int = 0, count: int = 1, compress: bool = False) -> tuple[ContainerLog, Reactor]:
    reactor = Reactor()
    return ContainerLog(LogSettings(driver, path, size, count, compress), reactor, lambda: None), reactor


def read(path: str, tail: int | None = None, driver: str = "json-file") -> list[bytes]:
    async def collect() -> bytes:
        return b"".join([run.data async for runs in read_log(KeptLog(driver, path), tail, None) for run in runs])

    return asyncio.run(collect()).splitlines(keepends=True)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_a_log_rotates_and_is_read_across_files(tmp_path, driver):
    path = str(tmp_path / "x.log")
    log, _ = make_log(path, driver, size=2000, count=3)
    for number in range(100):
        log.write("stdout", b"line %03d\n" % number)
    log.write("stdout", b"".join(b"line %03d\n" % number for number in range(100, 200)))
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["x.log", "x.log.1", "x.log.2"]
    assert all(os.path.getsize(tmp_path / name) <= 2000 for name in os.listdir(tmp_path))
    everything = read(path, driver=driver)
    assert everything[-1] == b"line 199\n"
    assert everything == [b"line %03d\n" % number for number in range(200 - len(everything), 200)]
    for count in (0, 1, 5, 40, len(everything), 1000):
        assert read(path, count, driver) == everything[len(everything) - min(count, len(everything)) :]


def run_until(reactor: Reactor, done) -> None:
    for _ in range(1000):
        if done():
            return
        reactor.run_once(0.05)
    raise AssertionError("it does not happen")


def test_rotated_files_are_compressed_and_read(tmp_path):
    path = str(tmp_path / "x.log")
    log, reactor = make_log(path, size=2000, count=4, compress=True)
    for number in range(100):
        log.write("stdout", b"line %03d\n" % number)
    run_until(reactor, lambda: not [name for name in os.listdir(tmp_path) if name.removeprefix("x.log") not in ("", ".1.gz", ".2.gz", ".3.gz")])
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["x.log", "x.log.1.gz", "x.log.2.gz", "x.log.3.gz"]
    with gzip.open(tmp_path / "x.log.1.gz") as file:
        assert json.loads(file.readline())["log"].startswith("line")
    everything = read(path)
    assert everything == [b"line %03d\n" % number for number in range(100 - len(everything), 100)]
    assert len(everything) > 60
    assert read(path, 50) == everything[-50:]
    assert sorted(os.listdir(tmp_path)) == ["x.log", "x.log.1.gz", "x.log.2.gz", "x.log.3.gz"]


def test_a_compression_that_a_crash_cut_short_is_made_good(tmp_path):
    path = str(tmp_path / "x.log")
    log, _ = make_log(path, size=2000, count=3)
    for number in range(60):
        log.write("stdout", b"line %03d\n" % number)
    log.close()
    before = read(path)
    (tmp_path / "x.log.0a.gz.new").write_bytes(b"half")
    with gzip.open(tmp_path / "x.log.1.gz", "wb") as file:
        file.write((tmp_path / "x.log.1").read_bytes())
    assert read(path) == before
    log, reactor = make_log(path, size=2000, count=3, compress=True)
    run_until(reactor, lambda: sorted(os.listdir(tmp_path)) == ["x.log", "x.log.1.gz", "x.log.2.gz"])
    log.close()
    assert read(path) == before


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=20), st.booleans())
def test_a_follower_loses_and_doubles_nothing_across_rotations(tmp_path_factory, bursts, compress):
    path = str(tmp_path_factory.mktemp("log") / "x.log")
    log, reactor = make_log(path, size=1000, count=20, compress=compress)
    written: list[bytes] = []
    done = False

    async def follow() -> bytes:
        nonlocal done
        following = Following(lambda: done)

        async def write() -> None:
            nonlocal done
            for burst in bursts:
                lines = [b"line %05d\n" % (len(written) + number) for number in range(burst)]
                written.extend(lines)
                log.write("stdout", b"".join(lines))
                reactor.run_once(0)
                await asyncio.sleep(0)
            done = True
            following.stir()

        writer = asyncio.ensure_future(write())
        found = b"".join([run.data async for runs in read_log(KeptLog("json-file", path), None, following) for run in runs])
        await writer
        return found

    found = asyncio.run(follow())
    log.close()
    run_until(reactor, lambda: not [name for name in os.listdir(os.path.dirname(path)) if name.endswith(".gz.new")])
    assert found == b"".join(written)


def test_an_unfinished_record_is_waited_for(tmp_path):
    path = tmp_path / "x.log"
    good = '{"log":"a\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n'
    path.write_text(good + good[:-5])
    assert read(str(path)) == [b"a\n"]


def test_without_older_files_a_rotation_starts_anew(tmp_path):
    path = str(tmp_path / "x.log")
    log, _ = make_log(path, size=300, count=1)
    for number in range(20):
        log.write("stdout", b"line %03d\n" % number)
    log.close()
    assert os.listdir(tmp_path) == ["x.log"]
    assert read(path)[-1] == b"line 019\n"


# --- options and tags: the texts are those of Docker Engine 28.5
@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("json-file", {"foo": "1"}, "unknown log opt 'foo' for json-file log driver"),
        ("local", {"labels": "a"}, "unknown log opt 'labels' for log driver local"),
        ("gelf", {"gelf-address": "udp://h:1", "foo": "x"}, 'unknown log opt "foo" for gelf log driver'),
        ("gelf", {}, "gelf-address is a required parameter"),
        ("gelf", {"gelf-address": "tcp://h"}, "gelf: please provide gelf-address as proto://host:port"),
        ("gelf", {"gelf-address": "tcp://h:1", "gelf-compression-level": "1"}, "compression is only supported on UDP"),
        ("gelf", {"gelf-address": "udp://h:1", "gelf-tcp-max-reconnect": "1"}, '"gelf-tcp-max-reconnect" is only valid for TCP'),
        ("nope", {}, 'error looking up logging plugin nope: plugin "nope" not found'),
        ("syslog", {"syslog-address": "foo"}, "unsupported scheme: ''"),
        ("syslog", {"syslog-facility": "zz"}, "invalid syslog facility"),
        ("syslog", {"syslog-format": "zz"}, "Invalid syslog format"),
        ("fluentd", {"fluentd-address": "foo://x"}, "invalid fluentd-address (foo://x): unsupported scheme: 'foo'"),
        ("fluentd", {"fluentd-async": "x"}, 'strconv.ParseBool: parsing "x": invalid syntax'),
        ("fluentd", {"fluentd-retry-wait": "x"}, 'time: invalid duration "x"'),
        ("fluentd", {"fluentd-max-retries": "-1"}, 'strconv.ParseUint: parsing "-1": invalid syntax'),
        ("json-file", {"mode": "foo"}, "logger: logging mode not supported: foo"),
        ("json-file", {"max-buffer-size": "1m"}, "logger: max-buffer-size option is only supported with 'mode=non-blocking'"),
        ("json-file", {"mode": "non-blocking", "max-buffer-size": "1x"}, "error parsing option max-buffer-size: invalid suffix: 'x'"),
        ("syslog", {"cache-disabled": "foo"}, "invalid value for option cache-disabled: foo"),
    ],
)
def test_refused_log_options_have_docker_s_texts(driver, options, text):
    with pytest.raises(Invalid) as refused:
        log_options.check(driver, options)
    assert refused.value.message == text


@pytest.mark.parametrize(
    ("driver", "options", "text"),
    [
        ("json-file", {"max-size": "abc"}, "invalid size: 'abc'"),
        ("json-file", {"max-size": "-5m"}, "invalid size: '-5m'"),
        ("json-file", {"max-size": "0"}, "max-size must be a positive number"),
        ("json-file", {"max-file": "0"}, "max-file cannot be less than 1"),
        ("json-file", {"max-file": "x"}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ("json-file", {"compress": "maybe"}, 'strconv.ParseBool: parsing "maybe": invalid syntax'),
        ("local", {"max-size": "1x"}, "invalid value for max-size: 1x: invalid suffix: 'x'"),
        ("local", {"max-file": "0"}, "compression cannot be enabled when max file count is 1"),
        ("syslog", {"cache-max-size": "1x"}, "invalid value for max-size: 1x: invalid suffix: 'x'"),
    ],
)
def test_refused_log_limits_have_docker_s_texts(driver, options, text):
    with pytest.raises(Invalid) as refused:
        log_options.limits(driver, options)
    assert refused.value.message == text


def test_log_limits():
    assert log_options.limits("json-file", {}) == log_options.Limits(20 << 20, 5, compress=False)
    assert log_options.limits("json-file", {"max-size": "1.5m", "max-file": "2", "compress": "true"}) == log_options.Limits(1_500_000, 2, compress=True)
    assert log_options.limits("local", {}) == log_options.Limits(20 << 20, 5, compress=True)
    assert log_options.limits("syslog", {"cache-max-size": "1k", "cache-compress": "f"}) == log_options.Limits(1000, 5, compress=False)


SUBJECT = log_tag.Subject("f" * 64, "web", "sha256:" + "a" * 64, "nginx", "nginx -g x", "host", "2026-01-01T00:00:00Z")


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{.ID}}", "f" * 12), ("{{.FullID}}", "f" * 64), ("{{.Name}}/{{ .ImageName }}", "web/nginx"), ("{{.ImageID}}", "a" * 12),
        ("{{.ImageFullID}}", "sha256:" + "a" * 64), ("{{.Command}}@{{.Hostname}}", "nginx -g x@host"), ("plain", "plain"), ("{{upper .Name}}", "WEB"),
        ("{{json .Name}}", '"web"'), ("{{.DaemonName}}", "docker"),
    ],
)  # fmt: skip
def test_tags(template, expected):
    assert log_tag.render(template, SUBJECT) == expected


@pytest.mark.parametrize(("template", "text"), [("{{.Foo}}", "can't evaluate field Foo in type *logger.Info"), ("{{.Name", "template: log-tag:1: unclosed action"), ("{{nope .Name}}", 'function "nope" not defined')])
def test_refused_tags(template, text):
    with pytest.raises(Invalid, match=re.escape(text)):
        log_tag.render(template, SUBJECT)


def test_attributes_are_picked():
    labels, environment = {"a": "1", "b.c": "2", "d": "3"}, ["X=y", "Y=z=w", "BARE"]
    assert log_tag.pick_attributes({"labels": "a,none", "labels-regex": r"^b\.", "env": "X", "env-regex": "Y"}, labels, environment) == {"a": "1", "b.c": "2", "X": "y", "Y": "z=w"}
    with pytest.raises(Invalid, match="error parsing regexp"):
        log_tag.pick_attributes({"labels-regex": "("}, labels, environment)


@pytest.mark.parametrize("driver", ["json-file", "local"])
@pytest.mark.parametrize("cut", [1, 3, 20])
def test_a_record_that_was_cut_short_does_not_spoil_the_next(tmp_path, driver, cut):
    path = str(tmp_path / "x.log")
    log, _ = make_log(path, driver)
    log.write("stdout", b"one\ntwo\n")
    log.close()
    os.truncate(path, os.path.getsize(path) - cut)
    log, _ = make_log(path, driver)
    log.write("stdout", b"three\n")
    log.close()
    assert read(path, driver=driver) == [b"one\n", b"three\n"]
    assert read(path, 2, driver) == [b"one\n", b"three\n"]
