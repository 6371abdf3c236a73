"""Log drivers against real sockets on loopback: what arrives, and that a destination that is away or slow blocks nobody."""

from __future__ import annotations

import array
import contextlib
import json
import random
import re
import socket
import ssl
import subprocess
import time
import zlib

import msgspec
import pytest

from corten.runtime.logdrivers import gelf
from corten.runtime.logdrivers.container_log import ContainerLog
from corten.runtime.messages import LogSettings
from corten.runtime.reactor import Reactor
from corten.spec.log_lines import LINE_LIMIT

SUBJECT = {"id": "f" * 64, "name": "web", "image_id": "sha256:aa", "image_name": "nginx", "command": "nginx -g", "hostname": "host", "created": "2026-01-01T00:00:00Z"}


def make(driver: str, peers: list[tuple[str, int]], **options: str) -> tuple[ContainerLog, Reactor]:
    reactor = Reactor()
    settings = LogSettings(driver, options={key.replace("_", "-"): value for key, value in options.items()}, attributes={"k": "v"}, tag="tag", subject=SUBJECT, peers=peers)
    return ContainerLog(settings, reactor, lambda: None), reactor


def finish(log: ContainerLog, reactor: Reactor) -> None:
    log.close()
    turn(reactor, lambda: all(driver._sender._sock is None for driver in log._drivers if hasattr(driver, "_sender")), 8)


def turn(reactor: Reactor, done, seconds: float = 5) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it does not happen"
        reactor.run_once(0.02)


def receive(reactor: Reactor, sock: socket.socket, wanted: int, end: bytes = b"") -> bytes:
    """At least so many bytes of a stream, and (`end`) this in them."""
    sock.setblocking(False)
    data = bytearray()

    def enough() -> bool:
        with contextlib.suppress(BlockingIOError):
            data.extend(sock.recv(1 << 16))
        return len(data) >= wanted and end in data

    turn(reactor, enough)
    return bytes(data)


def datagrams(reactor: Reactor, sock: socket.socket, wanted: int) -> list[bytes]:
    sock.setblocking(False)
    found: list[bytes] = []

    def enough() -> bool:
        with contextlib.suppress(BlockingIOError):
            found.append(sock.recv(1 << 16))
        return len(found) >= wanted

    turn(reactor, enough)
    return found


@pytest.fixture
def udp():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        yield sock


@pytest.fixture
def tcp():
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.mark.parametrize(
    ("form", "pattern"),
    [
        ("", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d tag\[\d+\]: hello\n"),
        ("rfc3164", rb"<30>[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d host tag\[\d+\]: hello\n"),
        ("rfc5424", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ host tag \d+ tag - hello\n"),
        ("rfc5424micro", rb"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z host tag \d+ tag - hello\n"),
    ],
)
def test_syslog_forms(udp, form, pattern):
    log, reactor = make("syslog", [udp.getsockname()], syslog_address="udp://127.0.0.1", syslog_format=form)
    log.write("stdout", b"hello\n\nworld\n")
    found = datagrams(reactor, udp, 2)
    assert re.fullmatch(pattern, found[0])
    assert found[1].endswith(b"world\n")
    finish(log, reactor)


def test_syslog_over_streams_and_unix_sockets(tcp, tmp_path):
    log, reactor = make("syslog", [tcp.getsockname()], syslog_address="tcp://127.0.0.1", syslog_facility="local1")
    log.write("stderr", b"one\ntwo\n")
    turn(reactor, lambda: True)
    connection, _ = tcp.accept()
    with connection:
        assert re.fullmatch(rb"<139>.*: one\n<139>.*: two\n", receive(reactor, connection, 60))
    finish(log, reactor)
    for kind, scheme in ((socket.SOCK_DGRAM, "unixgram"), (socket.SOCK_STREAM, "unix")):
        path = str(tmp_path / scheme)
        with socket.socket(socket.AF_UNIX, kind) as sock:
            sock.bind(path)
            if scheme == "unix":
                sock.listen()
            log, reactor = make("syslog", [(path, 0)], syslog_address=f"{scheme}://{path}")
            log.write("stdout", b"x\n")
            reactor.run_once(0.02)
            if scheme == "unix":
                with sock.accept()[0] as accepted:
                    assert receive(reactor, accepted, 10).endswith(b": x\n")
            else:
                assert datagrams(reactor, sock, 1)[0].endswith(b": x\n")
            finish(log, reactor)


def test_syslog_over_tls_counts_its_messages(tcp, tmp_path):
    key, certificate = str(tmp_path / "key"), str(tmp_path / "cert")
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=x",
                    "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)  # fmt: skip
    log, reactor = make("syslog", [tcp.getsockname()], syslog_address="tcp+tls://127.0.0.1", syslog_format="rfc5424", syslog_tls_ca_cert=certificate)
    log.write("stdout", b"secret\n")
    reactor.run_once(0.02)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    connection, _ = tcp.accept()
    with context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as secure:
        secure.setblocking(False)

        def shaken() -> bool:
            try:
                secure.do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return False
            return True

        turn(reactor, shaken)
        data = bytearray()

        def arrived() -> bool:
            try:
                data.extend(secure.recv(1000))
            except ssl.SSLWantReadError:
                return False
            return data.endswith(b"secret\n")

        turn(reactor, arrived)
    count, _, message = bytes(data).partition(b" ")
    assert int(count) == len(message)
    finish(log, reactor)


def test_gelf_over_udp(udp):
    log, reactor = make("gelf", [udp.getsockname()], gelf_address="udp://127.0.0.1:1")
    log.write("stderr", b"hello\n")
    message = json.loads(zlib.decompress(datagrams(reactor, udp, 1)[0], 31))
    assert {"version": "1.1", "host": "host", "short_message": "hello", "level": 3, "_k": "v", "_tag": "tag", "_container_name": "web"}.items() <= message.items()
    assert abs(message["timestamp"] - time.time()) < 60
    noise = random.Random(1).randbytes(7000).hex().encode()
    log.write("stdout", noise + b"\n")
    pieces = datagrams(reactor, udp, 1)
    pieces += datagrams(reactor, udp, pieces[0][11] - 1)
    assert {piece[:2] for piece in pieces} == {b"\x1e\x0f"}
    assert [piece[10] for piece in pieces] == list(range(len(pieces)))
    assert {piece[11] for piece in pieces} == {len(pieces)}
    assert json.loads(zlib.decompress(b"".join(piece[12:] for piece in pieces), 31))["short_message"].encode() == noise[:LINE_LIMIT]
    finish(log, reactor)


def test_gelf_chunks_have_an_end():
    assert len(gelf.chunks(b"x" * 1420)) == 1
    assert len(gelf.chunks(b"x" * 1421)) == 2
    assert gelf.chunks(b"x" * 1408 * 129) == []


def test_gelf_over_tcp(tcp):
    log, reactor = make("gelf", [tcp.getsockname()], gelf_address="tcp://127.0.0.1:1")
    log.write("stdout", b"a\nb\n")
    reactor.run_once(0.02)
    with tcp.accept()[0] as connection:
        data = receive(reactor, connection, 400)
        turn(reactor, lambda: True)
        found = [json.loads(part)["short_message"] for part in data.split(b"\0") if part]
        assert found == ["a", "b"]
    finish(log, reactor)


@pytest.mark.parametrize("precise", ["true", "false"])
def test_fluentd(tcp, precise):
    log, reactor = make("fluentd", [tcp.getsockname()], fluentd_sub_second_precision=precise)
    log.write("stdout", b"x" * (LINE_LIMIT + 1) + b"\nshort\n")
    reactor.run_once(0.02)
    with tcp.accept()[0] as connection:
        data = receive(reactor, connection, LINE_LIMIT, b"short")
    decoder, events = msgspec.msgpack.Decoder(), []
    while data and len(events) < 3:
        for end in range(1, len(data) + 1):  # one message after the other: the shortest beginning that decodes
            if end < 60:
                continue
            try:
                events.append(decoder.decode(data[:end]))
            except msgspec.DecodeError:
                continue
            data = data[end:]
            break
    tags, times, records = zip(*events, strict=True)
    assert tags == ("tag",) * 3
    assert all(isinstance(moment, msgspec.msgpack.Ext if precise == "true" else int) for moment in times)
    assert [record["log"] for record in records] == ["x" * LINE_LIMIT, "x", "short"]
    assert [record.get("partial_ordinal") for record in records] == ["1", "2", None]
    assert [record.get("partial_last") for record in records] == ["false", "true", None]
    assert {"container_id": "f" * 64, "container_name": "/web", "source": "stdout", "k": "v"}.items() <= records[2].items()
    finish(log, reactor)


def events(data: bytes) -> list[list]:
    """What has arrived, message by message: the shortest beginnings that decode."""
    found, start = [], 0
    for end in range(1, len(data) + 1):
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.msgpack.decode(data[start:end]))
            start = end
    return [event for event in found if isinstance(event, list)]


def receive_events(reactor: Reactor, sock: socket.socket, count: int) -> list[list]:
    sock.setblocking(False)
    data = bytearray()

    def enough() -> bool:
        with contextlib.suppress(BlockingIOError):
            data.extend(sock.recv(1 << 16))
        return len(events(bytes(data))) >= count

    turn(reactor, enough)
    return events(bytes(data))


def accept(reactor: Reactor, tcp: socket.socket) -> socket.socket:
    tcp.setblocking(False)
    found = []

    def there() -> bool:
        with contextlib.suppress(BlockingIOError):
            found.append(tcp.accept()[0])
        return bool(found)

    turn(reactor, there)
    return found[0]


def test_fluentd_sends_again_what_was_not_confirmed(tcp):
    log, reactor = make("fluentd", [tcp.getsockname()], fluentd_request_ack="true", fluentd_retry_wait="10ms")
    log.write("stdout", b"one\ntwo\n")
    with accept(reactor, tcp) as connection:
        first = receive_events(reactor, connection, 2)
        assert [event[2]["log"] for event in first] == ["one", "two"]
        connection.sendall(msgspec.msgpack.encode({"ack": first[0][3]["chunk"]}))
        turn(reactor, lambda: len(log._drivers[0]._sender._unconfirmed) == 1)
    with accept(reactor, tcp) as connection:  # the connection broke before the other was confirmed
        log.write("stdout", b"three\n")
        again = receive_events(reactor, connection, 2)
        assert [event[2]["log"] for event in again] == ["two", "three"]
        assert again[0][3] == first[1][3]
        confirmed = b"".join(msgspec.msgpack.encode({"ack": event[3]["chunk"]}) for event in again)
        for middle in (len(confirmed) // 3, len(confirmed)):  # an answer may come in pieces
            connection.sendall(confirmed[:middle])
            confirmed = confirmed[middle:]
            reactor.run_once(0.05)
        turn(reactor, lambda: not log._drivers[0]._sender._unconfirmed)
        assert log._drivers[0]._sender._size == 0
        finish(log, reactor)


def test_fluentd_keeps_within_its_buffer_while_nothing_is_confirmed(tcp):
    log, reactor = make("fluentd", [tcp.getsockname()], fluentd_request_ack="true", fluentd_buffer_limit="10", mode="non-blocking")
    with accept(reactor, tcp) as connection:
        for number in range(50):
            log.write("stdout", b"%d\n" % number)
        seen = receive_events(reactor, connection, 10)
        assert [event[2]["log"] for event in seen] == [str(number) for number in range(10)]
        assert log._drivers[0]._sender._lost == 40
    log._drivers[0]._sender._shut()


def test_fluentd_gives_up_a_connection_that_takes_nothing(tcp):
    log, reactor = make("fluentd", [tcp.getsockname()], fluentd_write_timeout="100ms", fluentd_retry_wait="10ms", mode="non-blocking", max_buffer_size="16m")
    with accept(reactor, tcp):
        for _ in range(600):
            log.write("stdout", b"x" * 15000 + b"\n")
        with accept(reactor, tcp) as second:
            assert receive(reactor, second, 100)
    log._drivers[0]._sender._shut()


@pytest.mark.parametrize("asynchronous", ["true", "false"])
def test_fluentd_renews_an_old_connection(tcp, asynchronous):
    log, reactor = make("fluentd", [tcp.getsockname()], fluentd_async=asynchronous, fluentd_async_reconnect_interval="100ms")
    with accept(reactor, tcp) as first:
        log.write("stdout", b"one\n")
        receive(reactor, first, 1, b"one")
        time.sleep(0.15)
        log.write("stdout", b"two\n")
        receive(reactor, first, 1, b"two")
        log.write("stdout", b"three\n")
        if asynchronous == "true":
            with accept(reactor, tcp) as second:
                assert [event[2]["log"] for event in receive_events(reactor, second, 1)] == ["three"]
        else:
            receive(reactor, first, 1, b"three")
    log._drivers[0]._sender._shut()


@pytest.mark.parametrize("elsewhere", ["none", "syslog"])
def test_a_log_changes_its_place_between_two_bytes(tmp_path, elsewhere):
    path = str(tmp_path / "log")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as peer:
        peer.bind(("127.0.0.1", 0))
        reactor, told = Reactor(), []
        kept = LogSettings("json-file", path, 1000, 3, attributes={"k": "old"}, subject=SUBJECT)
        log = ContainerLog(kept, reactor, lambda: told.append(1))
        log.write("stdout", b"one\nbegun")
        with pytest.raises(OSError, match="Not a directory"):
            log.change(LogSettings("json-file", f"{path}/under/a/file", subject=SUBJECT))
        log.change(LogSettings(elsewhere, options={"syslog-address": "udp://127.0.0.1:1"}, tag="tag", subject=SUBJECT, peers=[peer.getsockname()]))
        assert told
        log.write("stdout", b" and ended\n")
        if elsewhere == "syslog":
            assert datagrams(reactor, peer, 1)[0].endswith(b": begun and ended\n")
        log.change(LogSettings("json-file", path, 1000, 3, attributes={"k": "new"}, subject=SUBJECT))
        log.write("stdout", b"last\n")
        finish(log, reactor)
        lines = [json.loads(line) for line in (tmp_path / "log").read_bytes().splitlines()]
        expected = [("one\n", "old"), *([("begun", "old")] if elsewhere == "none" else []), ("last\n", "new")]
        assert [(line["log"], line["attrs"]["k"]) for line in lines] == expected


def test_journald(tmp_path):
    path = str(tmp_path / "journal")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as journal:
        journal.bind(path)
        log, reactor = make("journald", [(path, 0)])
        log.write("stderr", b"hello\n")
        fields = dict(line.split(b"=", 1) for line in datagrams(reactor, journal, 1)[0].splitlines())
        assert fields[b"MESSAGE"] == b"hello"
        assert (fields[b"PRIORITY"], fields[b"CONTAINER_NAME"], fields[b"CONTAINER_ID"], fields[b"K"], fields[b"CONTAINER_TAG"]) == (b"3", b"web", b"f" * 12, b"v", b"tag")
        journal.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        log._drivers[0]._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
        log.write("stdout", b"x" * 12000 + b"\n")
        data, ancillary, _, _ = journal.recvmsg(1 << 16, socket.CMSG_SPACE(4))
        assert data == b""
        fds = array.array("i", ancillary[0][2][:4])
        with open(fds[0], "rb") as file:
            file.seek(0)
            assert b"MESSAGE=" + b"x" * 12000 in file.read()
        finish(log, reactor)


def test_a_destination_that_is_away_is_tried_again_and_loses_nothing_that_fits(tcp):
    address = tcp.getsockname()
    tcp.close()
    log, reactor = make("syslog", [address], syslog_address="tcp://127.0.0.1")
    log.write("stdout", b"early\n")
    turn(reactor, lambda: True)
    with socket.create_server(address) as server:
        server.setblocking(False)
        accepted: list[socket.socket] = []

        def connected() -> bool:
            try:
                accepted.append(server.accept()[0])
            except BlockingIOError:
                return False
            return True

        turn(reactor, connected, 15)
        with accepted[0] as connection:
            assert receive(reactor, connection, 10).endswith(b"early\n")
        finish(log, reactor)


def test_what_does_not_fit_is_dropped_and_counted(tcp):
    log, reactor = make("syslog", [tcp.getsockname()], syslog_address="tcp://127.0.0.1", mode="non-blocking", max_buffer_size="100k")
    reactor.run_once(0.02)
    connection, _ = tcp.accept()
    with connection:
        started = time.monotonic()
        for _ in range(1000):
            log.write("stdout", b"y" * 9999 + b"\n")
            assert not log.full
            reactor.run_once(0)
        assert time.monotonic() - started < 30
        connection.setblocking(False)
        data = bytearray()

        def drained() -> bool:
            log.write("stdout", b"again\n")
            try:
                data.extend(connection.recv(1 << 20))
            except BlockingIOError:
                return False
            return b"lines were dropped" in data

        turn(reactor, drained, 20)
        noted = re.search(rb"corten: (\d+) lines were dropped", bytes(data))
        assert noted
        assert int(noted[1]) + len(re.findall(rb"y{9999}", bytes(data))) >= 1000
    finish(log, reactor)


def test_one_that_takes_messages_slowly_is_waited_for(tcp):
    log, reactor = make("syslog", [tcp.getsockname()], syslog_address="tcp://127.0.0.1")
    reactor.run_once(0.02)
    connection, _ = tcp.accept()
    with connection:
        written = 0
        while not log.full:
            log.write("stdout", b"z" * 9999 + b"\n")
            reactor.run_once(0)
            written += 1
            assert written < 10000
        connection.setblocking(False)
        data = bytearray()

        def everything() -> bool:
            try:
                data.extend(connection.recv(1 << 20))
            except BlockingIOError:
                return False
            return data.count(b"\n") >= written

        turn(reactor, everything, 20)
        assert not log.full
        assert b"dropped" not in data
    finish(log, reactor)
