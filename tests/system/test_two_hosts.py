"""Two hosts outside, one routed behind the other, and a firewall that lets in only one of them; each client's address arrives as it is.

Also SCTP, which this machine's kernel may have no sockets for: packets are made by hand.
"""

from __future__ import annotations

import os
import re
import socket
import struct

import pytest

from corten.linux.namespaces import network_namespace
from tests.engines import eventually
from tests.places import BEYOND, FAR, NEAR, socket_in
from tests.system.test_host_firewall import base
from tests.system.test_network import inside, inspect

PORT, DATAGRAMS, ASSOCIATIONS = 8080, 5300, 3868
SCTP = 132
_CRC32C = [0] * 256
for _byte in range(256):
    _value = _byte
    for _ in range(8):
        _value = _value >> 1 ^ (0x82F63B78 if _value & 1 else 0)
    _CRC32C[_byte] = _value


@pytest.fixture(scope="module")
def served(place, assets):
    """An engine whose one container has a port of each protocol published; nobody serves there but the tests themselves."""
    ports = {"80/tcp": [{"HostPort": str(PORT)}], "53/udp": [{"HostPort": str(DATAGRAMS)}], "2905/sctp": [{"HostPort": str(ASSOCIATIONS)}]}
    with place.engine("w", assets) as running:
        running.container = running.run("sleep", "600", PortBindings=ports)
        yield running


@pytest.fixture
def namespace(served):
    fd = inside(served, served.container)
    yield fd
    os.close(fd)


def home(place, source: str) -> int:
    return place.beyond if source == BEYOND else place.outside


def arrives(place, namespace: int, source: str) -> tuple[str, str]:
    """As whom the container sees a host that connects and one that sends a datagram; empty for who does not get there."""
    with socket_in(namespace, socket.SOCK_STREAM) as listening, socket_in(namespace, socket.SOCK_DGRAM) as receiving:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("0.0.0.0", 80))
        listening.listen()
        receiving.bind(("0.0.0.0", 53))
        receiving.settimeout(0.5)
        stream = ""
        if place.outcome(PORT, source) == "open":
            connection, (stream, _) = listening.accept()
            connection.close()
        with socket_in(home(place, source), socket.SOCK_DGRAM) as sending:
            sending.sendto(b"there?", (NEAR, DATAGRAMS))
            try:
                datagram = receiving.recvfrom(100)[1][0]
            except TimeoutError:
                datagram = ""
    return stream, datagram


def test_each_clients_address_is_kept(place, namespace):
    assert [arrives(place, namespace, source) for source in (FAR, BEYOND)] == [(FAR, FAR), (BEYOND, BEYOND)]


@pytest.mark.parametrize("welcome, other", [(FAR, BEYOND), (BEYOND, FAR)])
@pytest.mark.parametrize("rules", [
    ("accept", "ip saddr {other} drop"),
    ("drop", "ct state established,related accept", "ip saddr {welcome} accept"),
    ("drop", 'iifname "out" ip saddr {welcome} tcp dport 8080 accept', "ip saddr {welcome} udp dport 5300 accept"),
])  # fmt: skip
def test_one_host_is_let_in_and_the_other_not(place, served, namespace, rules, welcome, other):
    policy, *lines = (line.format(welcome=welcome, other=other) for line in rules)
    place.nft("-f", "-", text=base(policy, *lines))
    try:
        eventually(lambda: "_entry" in place.nft("list", "table", "inet", served.bridge), 5)
        assert arrives(place, namespace, welcome) == (welcome, welcome)
        assert arrives(place, namespace, other) == ("", "")
    finally:
        place.nft("delete", "table", "inet", "mineinet")
        eventually(lambda: "_entry" not in place.nft("list", "table", "inet", served.bridge), 5)
    assert arrives(place, namespace, other) == (other, other)


def association(source_port: int, port: int) -> bytes:
    """An SCTP packet with one INIT chunk (RFC 9260, 3.3.2): what begins an association."""
    chunk = struct.pack(">BBHIIHHI", 1, 0, 20, 0x1234, 65535, 1, 1, 1)
    packet = bytearray(struct.pack(">HHII", source_port, port, 0, 0) + chunk)
    crc = 0xFFFFFFFF
    for byte in packet:
        crc = crc >> 8 ^ _CRC32C[(crc ^ byte) & 0xFF]
    packet[8:12] = struct.pack("<I", crc ^ 0xFFFFFFFF)
    return bytes(packet)


@pytest.mark.parametrize("source", [FAR, BEYOND])
def test_an_association_is_led_to_the_container(place, served, namespace, source):
    with socket_in(home(place, source), socket.SOCK_RAW, SCTP) as sending, socket_in(namespace, socket.SOCK_RAW, SCTP) as receiving:
        sending.sendto(association(40000, ASSOCIATIONS), (NEAR, 0))
        receiving.settimeout(1)
        try:
            packet = receiving.recv(1500)
        except TimeoutError:
            if not _tracks_sctp(place):
                pytest.skip("this kernel's connection tracking does not know SCTP (CONFIG_NF_CT_PROTO_SCTP)")
            raise
    header = (packet[0] & 15) * 4
    assert socket.inet_ntoa(packet[12:16]) == source
    assert socket.inet_ntoa(packet[16:20]) == inspect(served, served.container)["NetworkSettings"]["IPAddress"]
    assert struct.unpack(">HH", packet[header : header + 4]) == (40000, 2905)
    assert packet[header:] == association(40000, 2905)  # the checksum is made anew, too


def _tracks_sctp(place) -> bool:
    """Its settings are there where it does (nf_conntrack-sysctl)."""
    with network_namespace(place.fd):
        return os.path.isdir("/proc/sys/net/netfilter") and any(re.search("sctp", name) for name in os.listdir("/proc/sys/net/netfilter"))
