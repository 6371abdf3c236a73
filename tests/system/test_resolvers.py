"""The host's resolvers as containers meet them: the file changes while containers run. Servers of ours on loopback."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from dnslib import DNSRecord

from tests.engines import RunningEngine, eventually
from tests.places import socket_in
from tests.system.conftest import need
from tests.system.test_network import inside


@contextmanager
def server(address: str, answer: str) -> Iterator[None]:
    """A name server that has one answer; a datagram of no length ends it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answering:
        answering.bind((address, 53))

        def serve() -> None:
            while (found := answering.recvfrom(512))[0]:
                query = DNSRecord.parse(found[0])
                answering.sendto(query.replyZone(f"{query.q.qname} 1 A {answer}").pack(), found[1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ending:
                ending.sendto(b"", (address, 53))
            thread.join()


@pytest.fixture
def hosts_file(tmp_path):
    """What the engine of this test sees as /etc/resolv.conf."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver 127.231.0.1\n")
    return path


@pytest.fixture
def engine(assets, hosts_file):
    need("unshare")
    script = f'mount --bind {hosts_file} /etc/resolv.conf && exec "$@"'
    running = RunningEngine("r", prefix=("unshare", "--mount", "--propagation", "slave", "sh", "-c", script, "sh"))
    try:
        running.load(f"{assets}/images/busybox.tar")
        running.client.post("/networks/create", {"Name": "named"})
        yield running
    finally:
        running.stop()


def test_changes_of_the_hosts_file_are_followed(engine, hosts_file):
    container = engine.run("sleep", "600", NetworkMode="named")
    fd = inside(engine, container)
    asking = socket_in(fd, socket.SOCK_DGRAM)
    os.close(fd)

    def resolved() -> str:
        asking.sendto(DNSRecord.question("somewhere.example").pack(), ("127.0.0.11", 53))
        return "".join(str(row.rdata) for row in DNSRecord.parse(asking.recv(4096)).rr)

    with asking, server("127.231.0.1", "192.0.2.1"), server("127.231.0.2", "192.0.2.2"):
        assert resolved() == "192.0.2.1"
        hosts_file.write_text("# changed\nnameserver 127.231.0.2\noptions timeout:1\n")
        eventually(lambda: resolved() == "192.0.2.2", 5)
        hosts_file.write_text("nameserver 127.231.0.3\nnameserver 127.231.0.1\n")  # the first has nobody: the next is asked
        asking.settimeout(10)
        eventually(lambda: resolved() == "192.0.2.1", 10)
