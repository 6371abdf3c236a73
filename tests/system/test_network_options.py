"""What each option of a network does, seen from outside, in the container, or in the kernel: an engine on a host of its own, a host beside it
that routes the networks' addresses there.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess

import pytest
from pyroute2 import NetNS

from corten.linux.namespaces import network_namespace
from tests.engines import eventually
from tests.places import FAR, NEAR, socket_in
from tests.system.test_network import inside, inspect

PREFIX = "com.docker.network."
ROUTED = "10.231.96.0/20"  # where the outside host looks for the networks of these tests
SOURCE = "10.231.79.7"  # a second address of the engine's host
PORT = 8085


@pytest.fixture(scope="module")
def nets(place, assets):
    with network_namespace(place.outside):
        subprocess.run(["ip", "route", "add", ROUTED, "via", NEAR], check=True)
    with network_namespace(place.fd):
        subprocess.run(["ip", "address", "add", f"{SOURCE}/24", "dev", "out"], check=True)
    with place.engine("n", assets) as running:
        yield running


@pytest.fixture(autouse=True)
def nothing_stays(nets):
    yield
    nets.remove_all()
    nets.client.post("/networks/prune")


def make(engine, options: dict[str, str] | None = None, subnet: str = "10.231.96.0/24", **fields: object) -> dict:
    """The network `net`, as inspect shows it."""
    body = {"Name": "net", "Options": {PREFIX + key: value for key, value in (options or {}).items()}, "IPAM": {"Config": [{"Subnet": subnet}]}}
    engine.client.post("/networks/create", body | fields)
    return engine.client.get("/networks/net")


def serve(engine) -> str:
    """A container on `net` that answers at 80, which is published, and at 81; its address."""
    ports = {"80/tcp": [{"HostPort": str(PORT)}]}
    container = engine.run("sh", "-c", "httpd -p 81 -h /bin; exec httpd -f -p 80 -h /bin", NetworkMode="net", PortBindings=ports)
    address = inspect(engine, container)["NetworkSettings"]["Networks"]["net"]["IPAddress"]
    fd = inside(engine, container)
    try:
        eventually(lambda: all(_answers(fd, "127.0.0.1", port) for port in (80, 81)))
    finally:
        os.close(fd)
    return address


def _answers(fd: int, address: str, port: int, patience: float = 0.7) -> bool:
    with socket_in(fd, socket.SOCK_STREAM) as caller:
        caller.settimeout(patience)
        return caller.connect_ex((address, port)) == 0


def from_outside(place, address: str) -> tuple[bool, bool, bool]:
    """Whether the outside host reaches (the published port at the container's address, the other port there, the published one at the host)."""
    return _answers(place.outside, address, 80), _answers(place.outside, address, 81), _answers(place.outside, NEAR, PORT)


@pytest.mark.parametrize(("options", "reached"), [
    ({}, (False, False, True)),
    ({"bridge.trusted_host_interfaces": "out"}, (True, False, True)),
    ({"bridge.trusted_host_interfaces": "lo:out"}, (True, False, True)),
    ({"bridge.trusted_host_interfaces": "lo:eth9"}, (False, False, True)),
    ({"bridge.gateway_mode_ipv4": "nat-unprotected"}, (True, True, True)),
    ({"bridge.gateway_mode_ipv4": "routed"}, (True, False, False)),
], ids=["nat", "trusted", "trusted among others", "another is trusted", "nat-unprotected", "routed"])  # fmt: skip
def test_who_gets_in(nets, place, options, reached):
    make(nets, options)
    address = serve(nets)
    assert from_outside(place, address) == reached
    assert _answers(place.fd, address, 81), "this host itself reaches everything"


def test_who_is_trusted_gets_in_after_the_engine_was_killed_and_no_more_once_the_container_has_gone(nets, place):
    make(nets, {"bridge.trusted_host_interfaces": "out"})
    address = serve(nets)
    nets.kill()
    assert _answers(place.outside, address, 80)
    nets.start()
    assert from_outside(place, address) == (True, False, True)
    table = place.nft("list", "table", "inet", nets.bridge)
    assert f'"out" . {address} . tcp . 80' in table
    nets.remove_all()
    eventually(lambda: address not in place.nft("list", "table", "inet", nets.bridge))


@pytest.mark.parametrize("how", ["flag", "daemon.json"])
def test_direct_routing_that_the_engine_allows(nets, place, tmp_path, how):
    nets.terminate()
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"allow-direct-routing": True}))
    arguments = ["--allow-direct-routing"] if how == "flag" else ["--config-file", str(config)]
    nets.arguments += arguments
    nets.start()
    try:
        make(nets)
        address = serve(nets)
        assert from_outside(place, address) == (True, False, True)
        other = nets.run("sleep", "600")  # on another network
        fd = inside(nets, other)
        assert not _answers(fd, address, 80)
        assert not _answers(fd, address, 81)
        os.close(fd)
    finally:
        nets.arguments = nets.arguments[: -len(arguments)]
        nets.terminate()
        nets.start()
    assert from_outside(place, address) == (False, False, True), "what runs on follows the engine's setting"


@pytest.mark.parametrize(("options", "source"), [
    ({}, NEAR), ({"bridge.enable_ip_masquerade": "false"}, "10.231.96.2"), ({"host_ipv4": SOURCE}, SOURCE), ({"bridge.gateway_mode_ipv4": "routed"}, "10.231.96.2"),
], ids=["masquerade", "no masquerade", "host_ipv4", "routed"])  # fmt: skip
def test_whose_address_goes_out(nets, place, options, source):
    make(nets, options)
    with socket_in(place.outside, socket.SOCK_STREAM) as listening:
        listening.bind((FAR, 0))
        listening.listen()
        nets.run("nc", "-w", "5", FAR, str(listening.getsockname()[1]), NetworkMode="net", OpenStdin=False)
        connection, peer = listening.accept()
        connection.close()
    assert peer[0] == source


def addresses(fd: int, link: str) -> list[str]:
    with network_namespace(fd):
        shown = subprocess.run(["ip", "-o", "address", "show", "dev", link], capture_output=True, text=True, check=True).stdout
    return [line.split()[3] for line in shown.splitlines()]


@pytest.mark.parametrize(("options", "fields", "expected"), [
    ({}, {}, ["10.231.96.1/24"]),
    ({"bridge.inhibit_ipv4": "true"}, {}, []),
    ({"bridge.gateway_mode_ipv4": "isolated"}, {"Internal": True}, []),
], ids=["gateway", "inhibit_ipv4", "isolated"])  # fmt: skip
def test_the_bridges_address(nets, place, options, fields, expected):
    make(nets, options | {"bridge.name": "opt0"}, **fields)
    assert [address for address in addresses(place.fd, "opt0") if not address.startswith("fe80:")] == expected


def test_the_mtu_and_the_interfaces_name(nets, place):
    make(nets, {"driver.mtu": "1400", "container_iface_prefix": "conf", "bridge.name": "opt0"})
    container = nets.run("sleep", "600", NetworkMode="net")
    fd = inside(nets, container)
    try:
        assert "10.231.96.2/24" in addresses(fd, "conf0")
        with network_namespace(fd), NetNS(f"/proc/{inspect(nets, container)['State']['Pid']}/ns/net") as there:
            assert there.link("get", ifname="conf0")[0].get_attr("IFLA_MTU") == 1400
    finally:
        os.close(fd)
    with network_namespace(place.fd):
        assert "mtu 1400" in subprocess.run(["ip", "link", "show", "opt0"], capture_output=True, text=True, check=True).stdout


def test_auxiliary_addresses_are_given_to_nobody(nets):
    nets.client.post("/networks/create", {"Name": "net", "IPAM": {"Config": [
        {"Subnet": "10.231.96.0/29", "AuxiliaryAddresses": {"a": "10.231.96.2", "b": "10.231.96.4"}}]}})  # fmt: skip
    given = [inspect(nets, nets.run("sleep", "600", NetworkMode="net"))["NetworkSettings"]["Networks"]["net"]["IPAddress"] for _ in range(3)]
    assert given == ["10.231.96.3", "10.231.96.5", "10.231.96.6"]


def test_link_local_addresses(nets):
    make(nets)
    settings = {"EndpointsConfig": {"net": {"IPAMConfig": {"LinkLocalIPs": ["169.254.7.7", "fe80::77"]}}}}
    container = nets.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "net"}, "NetworkingConfig": settings})["Id"]
    nets.client.post(f"/containers/{container}/start")
    fd = inside(nets, container)
    try:
        assert {"10.231.96.2/24", "169.254.7.7/16"} <= set(addresses(fd, "eth0"))
    finally:
        os.close(fd)


def test_a_network_without_ipv4(nets):
    nets.client.post("/networks/create", {"Name": "net", "EnableIPv4": False, "EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:c0f::/64"}]}})
    container = nets.run("sleep", "600", NetworkMode="net")
    place = inspect(nets, container)["NetworkSettings"]["Networks"]["net"]
    assert (place["IPAddress"], place["GlobalIPv6Address"]) == ("", "fd00:c0f::2")
    fd = inside(nets, container)
    try:
        shown = addresses(fd, "eth0")
    finally:
        os.close(fd)
    assert "fd00:c0f::2/64" in shown
    assert not [address for address in shown if ":" not in address]


def test_a_place_on_a_network_that_has_gone_is_left_by_force(nets):
    """Only by force while the container runs: it is attached to nothing of that name."""
    make(nets)
    container = nets.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": {"NetworkMode": "net"}})["Id"]
    nets.client.delete("/networks/net")
    nets.client.post("/networks/net/disconnect", {"Container": container})
    assert "net" not in inspect(nets, container)["NetworkSettings"]["Networks"]
