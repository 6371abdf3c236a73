"""Beside firewalls that drop forwarded packets: an engine in a network namespace of its own, with such rules and an outside host."""

from __future__ import annotations

import os
import socket
import subprocess

import pytest
from pyroute2 import IPRoute, NetNS, netns

from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine, eventually
from tests.system.conftest import need
from tests.system.test_network import ASK, inspect, socket_in

NEAR, FAR = "10.231.79.1", "10.231.79.2"
DOCKERS = """
table ip filter {
    chain DOCKER-USER { counter return comment "somebody's own"; }
    chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
}
"""


class Place:
    """A host of ours: a namespace with a link to another one, which is outside."""

    def __init__(self) -> None:
        self.name, self.other = f"cortest-{os.getpid()}-h", f"cortest-{os.getpid()}-o"
        self.fd = self.outside = -1

    def __enter__(self) -> Place:
        for name in (self.name, self.other):
            netns.create(name)
        self.fd, self.outside = (os.open(f"/var/run/netns/{name}", os.O_RDONLY) for name in (self.name, self.other))
        with NetNS(self.name) as here:
            here.link("add", ifname="out", kind="veth", peer={"ifname": "eth0", "net_ns_fd": self.other})
        for name, link, address in ((self.name, "out", NEAR), (self.other, "eth0", FAR)):
            with NetNS(name) as there:
                there.addr("add", index=there.link_lookup(ifname=link)[0], address=address, prefixlen=24)
                for up in (link, "lo"):
                    there.link("set", index=there.link_lookup(ifname=up)[0], state="up")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.fd)
        os.close(self.outside)
        for name in (self.name, self.other):
            netns.remove(name)

    def nft(self, *arguments: str, text: str | None = None) -> str:
        with network_namespace(self.fd):
            done = subprocess.run(["nft", *arguments], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture
def place(assets):
    need("nft")
    need("nsenter")
    with Place() as made:
        yield made


@pytest.fixture
def engine(place, assets):
    running = RunningEngine("f", prefix=("nsenter", f"--net=/var/run/netns/{place.name}"))
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


def reaches_outside(place: Place, engine: RunningEngine, network: str) -> bool:
    listener = socket_in(place.outside, socket.SOCK_STREAM)
    listener.settimeout(1.5)
    listener.bind((FAR, 0))
    listener.listen(1)
    client = engine.run("sh", "-c", f"echo through | nc -w 1 {FAR} {listener.getsockname()[1]}", NetworkMode=network)
    try:
        connection, peer = listener.accept()
        assert (connection.recv(100), peer[0]) == (b"through\n", NEAR)
        connection.close()
        return True
    except TimeoutError:
        return False
    finally:
        listener.close()
        engine.remove(client)


def is_reached(place: Place, port: int) -> bool:
    caller = socket_in(place.outside, socket.SOCK_STREAM)
    caller.settimeout(1.5)
    try:
        caller.connect((NEAR, port))
    except OSError:
        return False
    finally:
        caller.close()
    return True


def test_bridges_are_let_through_where_another_engine_drops(place, engine):
    server = engine.run("httpd", "-f", "-p", "80", "-h", "/var/www", PortBindings={"80/tcp": [{"HostPort": "8080"}]})
    assert reaches_outside(place, engine, "bridge")
    place.nft("-f", "-", text=DOCKERS)  # the other engine starts later
    eventually(lambda: engine.bridge in place.nft("list", "chain", "ip", "filter", "DOCKER-USER"))
    assert reaches_outside(place, engine, "bridge")
    assert is_reached(place, 8080)
    assert "bridges are accepted in its chain DOCKER-USER" in engine.log()
    network = engine.client.post("/networks/create", {"Name": "later"})["Id"]
    assert reaches_outside(place, engine, "later")
    engine.client.delete("/networks/later")
    shown = place.nft("list", "chain", "ip", "filter", "DOCKER-USER")
    assert f"br-{network[:12]}" not in shown
    assert 'comment "somebody\'s own"' in shown  # nobody else's rule is touched
    code, output = engine.output("sh", "-c", ASK.format(inspect(engine, server)["NetworkSettings"]["Gateway"], 8080))
    assert (code, output.endswith("hello from busybox\n")) == (0, True)
    engine.remove_all()
    engine.terminate()  # with nothing running it leaves nothing
    shown = place.nft("list", "chain", "ip", "filter", "DOCKER-USER")
    assert engine.bridge not in shown
    assert 'comment "somebody\'s own"' in shown
    engine.start()
    assert engine.bridge in place.nft("list", "chain", "ip", "filter", "DOCKER-USER")


def test_iptables_can_read_its_own_chain(place, engine):
    program = need("iptables-nft")
    with network_namespace(place.fd):
        subprocess.run([program, "-N", "DOCKER-USER"], check=True)
        eventually(lambda: f"-A DOCKER-USER -i {engine.bridge} " in subprocess.run([program, "-S"], capture_output=True, text=True, check=True).stdout)


def test_a_firewall_that_cannot_be_opened_is_named(place, engine):
    place.nft("-f", "-", text="table inet strict {\nchain forward {\ntype filter hook forward priority 5; policy drop;\n}\n}\n")
    engine.kill()
    engine.start()
    assert "chain forward of table inet strict drops forwarded packets" in engine.log()
    assert not reaches_outside(place, engine, "bridge")
    with IPRoute() as host:
        assert not host.link_lookup(ifname=engine.bridge)  # all of this is in its own namespace
