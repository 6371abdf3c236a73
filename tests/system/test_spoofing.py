"""A container that claims another one's address, the gateway's, or to be the router redirects nobody. Frames are written by hand."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Callable

import pytest
from pyroute2 import IPRoute

from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine, eventually
from tests.system.test_network import inside, inspect
from tests.system.test_user_networks import execute

SUBNET, SUBNET6 = "10.231.83", "fd00:231:83:"


@pytest.fixture(scope="module")
def engine(assets):
    running = RunningEngine("p")
    try:
        running.load(f"{assets}/images/busybox.tar")
        pools = [{"Subnet": f"{SUBNET}.0/24"}, {"Subnet": f"{SUBNET6}:/64"}]
        running.client.post("/networks/create", {"Name": "shared", "EnableIPv6": True, "IPAM": {"Config": pools}})
        for name in ("liar", "victim", "third"):
            running.run("sleep", "600", name=name, NetworkMode="shared")
        yield running
    finally:
        running.stop()


def mac(engine: RunningEngine, name: str) -> bytes:
    return bytes.fromhex(inspect(engine, name)["NetworkSettings"]["Networks"]["shared"]["MacAddress"].replace(":", ""))


def send(engine: RunningEngine, frames: list[bytes]) -> None:
    fd = inside(engine, "liar")
    with network_namespace(fd), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as out:
        out.bind(("eth0", 0))
        for frame in frames:
            out.send(frame)
    os.close(fd)


def in_victim(engine: RunningEngine, ask: Callable[[IPRoute], object]) -> object:
    fd = inside(engine, "victim")
    with network_namespace(fd):
        there = IPRoute()
    os.close(fd)
    with there:
        return ask(there)


def neighbour(engine: RunningEngine, address: str) -> str:
    """The MAC that the victim has for an address."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    rows = in_victim(engine, lambda there: [dict(row["attrs"]) for row in there.get_neighbours(family=family)])
    return next((row.get("NDA_LLADDR", "") for row in rows if row["NDA_DST"] == address), "")


def arp(engine: RunningEngine, address: str) -> list[bytes]:
    """Both ways to say that an address is the liar's: an answer that nobody asked for, and a question."""
    own, to = mac(engine, "liar"), mac(engine, "victim")
    sender, target = socket.inet_aton(address), socket.inet_aton(inspect(engine, "victim")["NetworkSettings"]["Networks"]["shared"]["IPAddress"])
    return [to + own + struct.pack(">HHHBBH", 0x0806, 1, 0x0800, 6, 4, kind) + own + sender + to + target for kind in (2, 1)]


def checksum(source: bytes, destination: bytes, body: bytes) -> int:
    data = source + destination + struct.pack(">II", len(body), 58) + body + bytes(len(body) % 2)
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def icmp6(engine: RunningEngine, source: str, destination: str, kind: int, body: bytes) -> bytes:
    own, to = mac(engine, "liar"), mac(engine, "victim")
    addresses = socket.inet_pton(socket.AF_INET6, source), socket.inet_pton(socket.AF_INET6, destination)
    packed = struct.pack(">BBH", kind, 0, 0) + body
    packed = packed[:2] + struct.pack(">H", checksum(*addresses, packed)) + packed[4:]
    return to + own + struct.pack(">HIHBB", 0x86DD, 6 << 28, len(packed), 58, 255) + b"".join(addresses) + packed


def test_an_address_that_is_given_out_cannot_be_claimed_on_the_wire(engine):
    own = mac(engine, "liar").hex(":")
    third = inspect(engine, "third")["NetworkSettings"]["Networks"]["shared"]["IPAddress"]
    for address in (f"{SUBNET}.1", third):
        execute(engine, "victim", "ping", "-c", "1", "-W", "2", address)
        before = neighbour(engine, address)
        assert before not in ("", own)
        send(engine, arp(engine, address))
        execute(engine, "victim", "ping", "-c", "1", "-W", "2", address)
        assert neighbour(engine, address) == before
    free = f"{SUBNET}.200"  # what is nobody's may be used: the same frames do get through
    execute(engine, "victim", "ping", "-c", "1", "-W", "1", free)
    send(engine, arp(engine, free))
    eventually(lambda: neighbour(engine, free) == own, 5)


def test_a_neighbour_advertisement_for_another_one_is_lost(engine):
    own, me = mac(engine, "liar"), f"{SUBNET6}:99"
    victim = inspect(engine, "victim")["NetworkSettings"]["Networks"]["shared"]["GlobalIPv6Address"]

    def claim(address: str) -> None:
        body = struct.pack(">I", 0x60000000) + socket.inet_pton(socket.AF_INET6, address) + b"\x02\x01" + own
        send(engine, [icmp6(engine, me, victim, 136, body), icmp6(engine, address, victim, 136, body)])

    gateway = f"{SUBNET6}:1"
    execute(engine, "victim", "ping", "-6", "-c", "1", "-W", "2", gateway)
    before = neighbour(engine, gateway)
    assert before not in ("", own.hex(":"))
    claim(gateway)
    assert neighbour(engine, gateway) == before
    free = f"{SUBNET6}:c8"
    execute(engine, "victim", "ping", "-6", "-c", "1", "-W", "1", free)
    claim(free)
    eventually(lambda: neighbour(engine, free) == own.hex(":"), 5)


def test_nobody_is_made_to_use_another_router(engine):
    def routes(there: IPRoute) -> list[str]:
        return [dict(row["attrs"]).get("RTA_GATEWAY", "") for row in there.get_routes(family=socket.AF_INET6) if row["dst_len"] == 0]

    before = in_victim(engine, routes)
    advertised = struct.pack(">BBHII", 64, 0, 1800, 0, 0) + b"\x01\x01" + mac(engine, "liar")
    send(engine, [icmp6(engine, "fe80::bad", "ff02::1", 134, advertised)] * 3)
    assert f"{SUBNET6}:1" in before
    assert in_victim(engine, routes) == before
    assert execute(engine, "victim", "cat", "/proc/sys/net/ipv6/conf/eth0/accept_ra").strip() == "0"
    shared = next(network for network in engine.client.get("/networks") if network["Name"] == "shared")
    for bridge in (engine.bridge, f"br-{shared['Id'][:12]}"):
        with open(f"/proc/sys/net/ipv6/conf/{bridge}/accept_ra", encoding="utf-8") as file:
            assert file.read().strip() == "0"


def test_a_container_without_ipv6_has_none(engine):
    container = engine.run("sleep", "60")
    try:
        assert execute(engine, container, "cat", "/proc/sys/net/ipv6/conf/eth0/disable_ipv6").strip() == "1"
        assert "inet6" not in execute(engine, container, "ip", "address", "show", "eth0")
    finally:
        engine.remove(container)
