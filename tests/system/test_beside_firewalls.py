"""Beside firewalls that drop forwarded packets: an engine in a network namespace of its own, with such rules and an outside host."""

from __future__ import annotations

import socket
import subprocess

from pyroute2 import IPRoute

from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine, eventually
from tests.places import FAR, NEAR, Place, socket_in
from tests.system.conftest import need
from tests.system.test_network import ASK, inspect

DOCKERS = """
table ip filter {
    chain DOCKER-USER { counter return comment "somebody's own"; }
    chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
}
"""


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


def test_bridges_are_let_through_where_another_engine_drops(place, placed_engine):
    server = placed_engine.run("httpd", "-f", "-p", "80", "-h", "/var/www", PortBindings={"80/tcp": [{"HostPort": "8080"}]})
    assert reaches_outside(place, placed_engine, "bridge")
    place.nft("-f", "-", text=DOCKERS)  # the other engine starts later
    eventually(lambda: placed_engine.bridge in place.nft("list", "chain", "ip", "filter", "DOCKER-USER"))
    assert reaches_outside(place, placed_engine, "bridge")
    assert place.is_reached(8080)
    assert "bridges are accepted in its chain DOCKER-USER" in placed_engine.log()
    network = placed_engine.client.post("/networks/create", {"Name": "later"})["Id"]
    assert reaches_outside(place, placed_engine, "later")
    placed_engine.client.delete("/networks/later")
    shown = place.nft("list", "chain", "ip", "filter", "DOCKER-USER")
    assert f"br-{network[:12]}" not in shown
    assert 'comment "somebody\'s own"' in shown  # nobody else's rule is touched
    code, output = placed_engine.output("sh", "-c", ASK.format(inspect(placed_engine, server)["NetworkSettings"]["Gateway"], 8080))
    assert (code, output.endswith("hello from busybox\n")) == (0, True)
    placed_engine.remove_all()
    placed_engine.terminate()  # with nothing running it leaves nothing
    shown = place.nft("list", "chain", "ip", "filter", "DOCKER-USER")
    assert placed_engine.bridge not in shown
    assert 'comment "somebody\'s own"' in shown
    placed_engine.start()
    assert placed_engine.bridge in place.nft("list", "chain", "ip", "filter", "DOCKER-USER")


def test_iptables_can_read_its_own_chain(place, placed_engine):
    program = need("iptables-nft")
    with network_namespace(place.fd):
        subprocess.run([program, "-N", "DOCKER-USER"], check=True)
        eventually(lambda: f"-A DOCKER-USER -i {placed_engine.bridge} " in subprocess.run([program, "-S"], capture_output=True, text=True, check=True).stdout)


def test_a_firewall_that_cannot_be_opened_is_named(place, placed_engine):
    place.nft("-f", "-", text="table inet strict {\nchain forward {\ntype filter hook forward priority 5; policy drop;\n}\n}\n")
    placed_engine.kill()
    placed_engine.start()
    assert "chain forward of table inet strict drops forwarded packets" in placed_engine.log()
    assert not reaches_outside(place, placed_engine, "bridge")
    with IPRoute() as host:
        assert not host.link_lookup(ifname=placed_engine.bridge)  # all of this is in its own namespace
