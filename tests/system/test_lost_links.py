"""What somebody takes away by hand while the engine runs: noticed and said at once, and mended at the next start or connect."""

from __future__ import annotations

import json
import subprocess

import pytest
from pyroute2 import NetNS

from corten.api.client import ApiError
from tests.engines import RunningEngine, eventually
from tests.places import Place
from tests.system.test_network import inspect

BINDINGS = {"80/tcp": [{"HostPort": "8080"}]}
HTTPD = ("httpd", "-f", "-p", "80", "-h", "/var/www")


@pytest.fixture
def engine(placed_engine):
    return placed_engine


def veths(place: Place) -> list[str]:
    with NetNS(place.name) as there:
        return [name for row in there.get_links() if (name := dict(row["attrs"])["IFLA_IFNAME"]).startswith("veth")]


def the_veth(place: Place) -> str:
    """The only one, once the links of the test before have gone."""
    (veth,) = eventually(lambda: found if len(found := veths(place)) == 1 else [])
    return veth


def take_away(place: Place, link: str) -> None:
    with NetNS(place.name) as there:
        there.link("del", index=there.link_lookup(ifname=link)[0])


def said(engine: RunningEngine, text: str) -> None:
    eventually(lambda: text in engine.log())


def test_a_bridge_is_mended_at_the_next_start(engine, place):
    first = engine.run(*HTTPD, PortBindings=BINDINGS)
    eventually(lambda: place.is_reached(8080))
    take_away(place, engine.bridge)
    said(engine, f"network bridge: its bridge {engine.bridge} has been taken away; it is made again at the next start")
    assert not place.is_reached(8080)
    second = engine.run("sleep", "60")
    assert f"network bridge: its bridge {engine.bridge} is gone: made again" in engine.log()
    eventually(lambda: place.is_reached(8080))  # the one that ran on is on it again
    assert inspect(engine, second)["NetworkSettings"]["IPAddress"] != inspect(engine, first)["NetworkSettings"]["IPAddress"]


def test_a_veth_is_said_at_once_and_mended_at_the_next_start(engine, place):
    container = engine.run(*HTTPD, name="web", PortBindings=BINDINGS)
    eventually(lambda: place.is_reached(8080))
    veth = the_veth(place)
    take_away(place, veth)
    said(engine, f"container web: its link {veth} of network bridge is gone; restart the container, or connect it to the network again (docker network connect bridge web)")
    assert inspect(engine, container)["State"]["Running"]
    assert inspect(engine, container)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"] == ""
    assert "8080" not in place.nft("list", "map", "inet", engine.bridge, "any4")  # nothing leads to nowhere
    with pytest.raises(ApiError, match="address already in use"):  # and yet nobody else gets the port
        engine.run("sleep", "60", PortBindings=BINDINGS)
    engine.client.post(f"/containers/{container}/restart", t=0)
    eventually(lambda: place.is_reached(8080))
    assert engine.log().count("its link") == 1


def test_a_veth_is_mended_by_a_connect(engine, place):
    container = engine.run(*HTTPD, name="web", PortBindings=BINDINGS)
    eventually(lambda: place.is_reached(8080))
    veth = the_veth(place)
    take_away(place, veth)
    said(engine, f"its link {veth} of network bridge is gone")
    engine.client.post("/networks/bridge/connect", {"Container": container})
    eventually(lambda: place.is_reached(8080))
    assert inspect(engine, container)["NetworkSettings"]["Networks"]["bridge"]["IPAddress"]


def test_a_veth_taken_away_without_an_engine_is_said_by_the_next(engine, place):
    container = engine.run(*HTTPD, PortBindings=BINDINGS)
    eventually(lambda: place.is_reached(8080))
    veth = the_veth(place)
    engine.kill()
    take_away(place, veth)
    engine.start()
    assert f"its link {veth} of network bridge is gone" in engine.log()
    engine.client.post(f"/containers/{container}/restart", t=0)
    eventually(lambda: place.is_reached(8080))


def unplug(place: Place, veth: str) -> None:
    with NetNS(place.name) as there:
        there.link("set", index=there.link_lookup(ifname=veth)[0], master=0)


@pytest.mark.parametrize("with_engine", [True, False], ids=["at once", "by the next engine"])
def test_a_veth_off_its_bridge_is_said_and_mended_at_the_next_start(engine, place, with_engine):
    engine.client.post("/networks/create", {"Name": "apart", "Options": {"com.docker.network.bridge.enable_icc": "false"}})
    engine.run(*HTTPD, name="web", PortBindings=BINDINGS, NetworkMode="apart")
    eventually(lambda: place.is_reached(8080))
    veth = the_veth(place)
    if not with_engine:
        engine.kill()
    unplug(place, veth)
    if not with_engine:
        engine.start()
    said(engine, f"container web: its link {veth} has been taken off bridge br-")
    assert not place.is_reached(8080)
    engine.run("sleep", "60")
    assert not place.is_reached(8080)  # on another network
    other = engine.run("sleep", "60", NetworkMode="apart")
    eventually(lambda: place.is_reached(8080))
    assert flags(place, veth) == ("1", "1")  # it meets its own published port, and no other container
    address = inspect(engine, "web")["NetworkSettings"]["Networks"]["apart"]["IPAddress"]
    asked = engine.client.post(f"/containers/{other}/exec", {"Cmd": ["nc", "-w", "1", address, "80"]})["Id"]
    engine.client.post(f"/exec/{asked}/start", {"Detach": True})
    assert eventually(lambda: engine.client.get(f"/exec/{asked}/json")["ExitCode"]) == 1
    assert engine.log().count("has been taken off bridge") == 1


def flags(place: Place, veth: str) -> tuple[str, str]:
    """Of a bridge port: hairpin, isolated."""
    shown = subprocess.run(["ip", "-n", place.name, "-details", "-json", "link", "show", veth], check=True, capture_output=True).stdout
    data = json.loads(shown)[0]["linkinfo"]["info_slave_data"]
    return str(int(data["hairpin"])), str(int(data["isolated"]))


def test_a_veth_off_its_bridge_is_mended_by_its_containers_restart(engine, place):
    container = engine.run(*HTTPD, name="web", PortBindings=BINDINGS)
    eventually(lambda: place.is_reached(8080))
    veth = the_veth(place)
    unplug(place, veth)
    said(engine, f"its link {veth} has been taken off bridge {engine.bridge} of network bridge")
    assert not place.is_reached(8080)
    engine.client.post(f"/containers/{container}/restart", t=0)
    eventually(lambda: place.is_reached(8080))


def test_a_gateway_is_given_again(engine, place):
    engine.run(*HTTPD, PortBindings=BINDINGS)
    eventually(lambda: place.is_reached(8080))
    (subnet,) = engine.client.get("/networks/bridge")["IPAM"]["Config"]
    prefix = int(subnet["Subnet"].partition("/")[2])

    with NetNS(place.name) as there:
        there.addr("del", index=there.link_lookup(ifname=engine.bridge)[0], address=subnet["Gateway"], prefixlen=prefix)
    said(engine, f"network bridge: its gateway {subnet['Gateway']} has been taken off bridge {engine.bridge}; it is given again at the next start")
    assert not place.is_reached(8080)
    engine.run("sleep", "60")
    eventually(lambda: place.is_reached(8080))


def test_what_ends_by_itself_is_no_loss(engine, place):
    network = engine.client.post("/networks/create", {"Name": "mine"})["Id"]
    container = engine.run(*HTTPD, PortBindings=BINDINGS)
    engine.client.post("/networks/mine/connect", {"Container": container})
    engine.client.post("/networks/mine/disconnect", {"Container": container})
    engine.client.post(f"/containers/{container}/restart", t=0)
    engine.client.post(f"/containers/{container}/kill")
    engine.client.post(f"/containers/{container}/wait")
    eventually(lambda: not veths(place))
    engine.client.delete("/networks/mine")
    engine.client.post("/corten/system/teardown")
    engine.run("sleep", "60")
    log = engine.log()
    assert "its link" not in log  # neither gone nor off its bridge
    assert "taken" not in log, network
