"""The network as the kernel and a second opinion (pyroute2, nft) see it, and traffic from and to an outside host of our own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from functools import partial
from ipaddress import IPv4Address, IPv4Interface

import pytest
from pyroute2 import IPRoute, NetNS, netns

from corten.api.client import ApiError, demultiplex
from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine, eventually
from tests.places import socket_in
from tests.system.conftest import free_port, listens

_SUBNET = f"10.231.{os.getpid() % 250}"  # of this run
OUTSIDE, GATEWAY = f"{_SUBNET}.2", f"{_SUBNET}.1"


# busybox's wget wants a name service that a static binary does not have; nc does not.
ASK = "for i in $(seq 100); do printf 'GET / HTTP/1.0\\r\\n\\r\\n' | nc -w 2 {} {} && break; sleep 0.1; done"


def wait_for_links(engine, count: int) -> list[str]:
    """The bridge's ports, once there are so many: the kernel takes the link of an ended container away in its own time."""
    end = time.monotonic() + 10
    while True:
        ports = os.listdir(f"/sys/class/net/{engine.bridge}/brif")
        if len(ports) == count:
            return ports
        assert time.monotonic() < end, ports
        time.sleep(0.01)


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    wait_for_links(engine, 0)
    yield
    engine.remove_all()


def inspect(engine, container: str) -> dict:
    return engine.client.get(f"/containers/{container}/json")


def inside(engine, container: str) -> int:
    """A descriptor of the container's network namespace."""
    return os.open(f"/proc/{inspect(engine, container)['State']['Pid']}/ns/net", os.O_RDONLY)


@pytest.fixture
def outside():
    """A host of our own: a namespace behind a veth pair; a descriptor of it."""
    name, link = f"cortest-{os.getpid()}", f"cto{os.getpid() % 100000}"
    try:
        netns.create(name)
    except PermissionError:
        pytest.skip("cannot make network namespaces here")
    try:
        with IPRoute() as host:
            host.link("add", ifname=link, kind="veth", peer={"ifname": "eth0", "net_ns_fd": name})
            index = host.link_lookup(ifname=link)[0]
            host.addr("add", index=index, address=GATEWAY, prefixlen=24)
            host.link("set", index=index, state="up")
        with NetNS(name) as there:
            index = there.link_lookup(ifname="eth0")[0]
            there.addr("add", index=index, address=OUTSIDE, prefixlen=24)
            there.link("set", index=index, state="up")
            there.link("set", index=there.link_lookup(ifname="lo")[0], state="up")
            there.route("add", dst="default", gateway=GATEWAY)
        fd = os.open(f"/var/run/netns/{name}", os.O_RDONLY)
        yield fd
        os.close(fd)
    finally:
        with IPRoute() as host:
            for index in host.link_lookup(ifname=link):
                host.link("del", index=index)
        netns.remove(name)


def test_the_bridge_and_the_endpoint(engine):
    container = engine.run("sleep", "60")
    shown = inspect(engine, container)["NetworkSettings"]
    network = engine.client.get("/networks/bridge")
    subnet = network["IPAM"]["Config"][0]
    with IPRoute() as host:
        bridge = host.link_lookup(ifname=engine.bridge)[0]
        addresses = [dict(row["attrs"])["IFA_LOCAL"] for row in host.get_addr(family=socket.AF_INET, index=bridge)]
        assert addresses == [subnet["Gateway"]]
        ports = wait_for_links(engine, 1)
        assert ports[0].startswith("veth")
    fd = inside(engine, container)
    with network_namespace(fd):
        there = IPRoute()
    with there:
        names = {dict(row["attrs"])["IFLA_IFNAME"]: row for row in there.get_links()}
        assert set(names) == {"lo", "eth0"}
        assert dict(names["eth0"]["attrs"])["IFLA_ADDRESS"] == shown["MacAddress"]
        address = next(iter(there.get_addr(family=socket.AF_INET, index=names["eth0"]["index"])))
        assert (dict(address["attrs"])["IFA_LOCAL"], address["prefixlen"]) == (shown["IPAddress"], shown["IPPrefixLen"])
        gateways = [dict(row["attrs"]).get("RTA_GATEWAY") for row in there.get_routes(family=socket.AF_INET) if row["dst_len"] == 0]
        assert gateways == [shown["Gateway"]]
    os.close(fd)
    assert network["Containers"][container]["IPv4Address"] == f"{shown['IPAddress']}/{shown['IPPrefixLen']}"
    engine.remove(container)
    assert engine.client.get("/networks/bridge")["Containers"] == {}


def test_addresses_are_given_again(engine):
    first = engine.run("sleep", "60")
    second = engine.run("sleep", "60")
    addresses = [inspect(engine, container)["NetworkSettings"]["IPAddress"] for container in (first, second)]
    assert len(set(addresses)) == 2
    engine.remove(first)
    wait_for_links(engine, 1)
    third = engine.run("sleep", "60")
    assert inspect(engine, third)["NetworkSettings"]["IPAddress"] == addresses[0]


def test_an_address_is_not_shared_with_a_dying_container(engine):
    for _ in range(15):
        server = engine.run("httpd", "-f", "-p", "80", "-h", "/var/www")
        address = inspect(engine, server)["NetworkSettings"]["IPAddress"]
        eventually(partial(listens, 80, address))
        engine.remove(server)


def test_the_link_goes_also_while_somebody_keeps_the_namespace(engine):
    container = engine.run("sleep", "60")
    fd = inside(engine, container)
    try:
        engine.remove(container)
        wait_for_links(engine, 0)
    finally:
        os.close(fd)


def test_nft_agrees_with_the_plan(engine):
    nft = shutil.which("nft")
    if not nft:
        pytest.skip("needs nft for a second opinion")
    port = free_port()
    container = engine.run("sleep", "60", PortBindings={"80/tcp": [{"HostPort": str(port)}], "53/udp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]})
    address = inspect(engine, container)["NetworkSettings"]["IPAddress"]
    shown = rules(nft, engine)
    assert f"tcp . {port} : {address} . 80" in shown
    assert f"127.0.0.1 . udp . {port} : {address} . 53" in shown
    assert shown.count("fib daddr type local meta nfproto ipv4 dnat ip to meta l4proto . th dport map @any4") == 2
    assert 'iifname != "lo" ip daddr 127.0.0.0/8 drop' in shown
    engine.remove(container)
    assert str(port) not in rules(nft, engine)


def rules(nft: str, engine) -> str:
    return subprocess.run([nft, "list", "table", "inet", engine.bridge], capture_output=True, text=True, check=True).stdout


def test_containers_reach_each_other_and_the_outside_as_the_host(engine, outside):
    server = engine.run("httpd", "-f", "-p", "80", "-h", "/var/www")
    address = inspect(engine, server)["NetworkSettings"]["IPAddress"]
    _, output = engine.output("sh", "-c", ASK.format(address, 80))
    assert output.endswith("hello from busybox\n"), output
    listener = socket_in(outside, socket.SOCK_STREAM)
    listener.bind((OUTSIDE, 0))
    listener.listen(1)
    client = engine.run("sh", "-c", f"echo through | nc -w 2 {OUTSIDE} {listener.getsockname()[1]}")
    connection, peer = listener.accept()
    assert peer[0] == GATEWAY  # masqueraded: the outside knows only the host
    assert connection.recv(100) == b"through\n"
    connection.close()
    listener.close()
    engine.remove(client)


def test_published_ports_from_other_containers_and_from_itself(engine):
    """By way of the host's address: the translation must be undone on the way back."""
    port = free_port()
    server = engine.run("httpd", "-f", "-p", "80", "-h", "/var/www", PortBindings={"80/tcp": [{"HostPort": str(port)}]})
    gateway = inspect(engine, server)["NetworkSettings"]["Gateway"]
    _, output = engine.output("sh", "-c", ASK.format(gateway, port))
    assert output.endswith("hello from busybox\n"), output
    exec_id = engine.client.post(f"/containers/{server}/exec", {"Cmd": ["sh", "-c", ASK.format(gateway, port)], "AttachStdout": True})["Id"]
    stream = engine.client.hijack(f"/exec/{exec_id}/start", {})
    shown = b"".join(data for _, data in demultiplex(stream.recv))
    stream.close()
    assert shown.endswith(b"hello from busybox\n"), shown


def test_published_ports_from_the_outside_keep_the_clients_address(engine, outside):
    port = free_port()
    container = engine.run("sleep", "60", PortBindings={"7/tcp": [{"HostPort": str(port)}], "7/udp": [{"HostPort": str(port)}]})
    fd = inside(engine, container)
    address = inspect(engine, container)["NetworkSettings"]["IPAddress"]
    tcp, udp = socket_in(fd, socket.SOCK_STREAM), socket_in(fd, socket.SOCK_DGRAM)
    tcp.bind((address, 7))
    tcp.listen(1)
    udp.bind((address, 7))
    caller, sender = socket_in(outside, socket.SOCK_STREAM), socket_in(outside, socket.SOCK_DGRAM)
    caller.connect((GATEWAY, port))
    connection, peer = tcp.accept()
    assert peer[0] == OUTSIDE
    sender.sendto(b"ask", (GATEWAY, port))
    data, peer = udp.recvfrom(100)
    assert (data, peer[0]) == (b"ask", OUTSIDE)
    udp.sendto(b"answer", peer)
    assert sender.recvfrom(100) == (b"answer", (GATEWAY, port))
    local = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # and from this host's loopback
    local.settimeout(5)
    local.sendto(b"near", ("127.0.0.1", port))
    data, peer = udp.recvfrom(100)
    assert data == b"near"
    udp.sendto(b"back", peer)
    assert local.recvfrom(100) == (b"back", ("127.0.0.1", port))
    for made in (tcp, udp, caller, sender, connection, local):
        made.close()
    os.close(fd)


def test_a_port_on_loopback_only_is_not_outside(engine, outside):
    port = free_port()
    container = engine.run("httpd", "-f", "-p", "80", PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]})
    eventually(lambda: listens(port))
    caller = socket_in(outside, socket.SOCK_STREAM)
    caller.settimeout(1)
    with pytest.raises(OSError):
        caller.connect((GATEWAY, port))
    caller.close()
    engine.remove(container)


def test_none_has_only_a_loopback(engine):
    container = engine.run("sleep", "60", NetworkMode="none")
    fd = inside(engine, container)
    with network_namespace(fd):
        there = IPRoute()
    with there:
        rows = [(dict(row["attrs"])["IFLA_IFNAME"], row["state"]) for row in there.get_links()]
    os.close(fd)
    assert rows == [("lo", "up")]


def test_the_files_say_where_it_is(engine):
    code, output = engine.output("sh", "-c", "cat /etc/hostname /etc/hosts /etc/resolv.conf", ExtraHosts=["gate:host-gateway", "db:1.2.3.4"], Dns=["9.9.9.9"], DnsSearch=["x.y"])
    lines = output.splitlines()
    assert code == 0
    assert any(line.endswith(f"\t{lines[0]}") for line in lines[1:])
    assert f"{engine.client.get('/networks/bridge')['IPAM']['Config'][0]['Gateway']}\tgate" in lines
    assert "1.2.3.4\tdb" in lines
    assert lines[-2:] == ["nameserver 9.9.9.9", "search x.y"]


def test_a_full_bridge_says_so(assets):
    engine = RunningEngine("n", "--bip", "10.231.78.1/30")
    try:
        engine.load(f"{assets}/images/busybox.tar")
        first = engine.run("sleep", "60")
        assert IPv4Address(inspect(engine, first)["NetworkSettings"]["IPAddress"]) in IPv4Interface("10.231.78.1/30").network
        with pytest.raises(ApiError, match="no available IPv4 addresses on this network's address pools"):
            engine.run("true")
    finally:
        engine.stop()
