"""Publishing beyond the usual: all or nothing, ranges, SCTP, and where a port goes that names no address."""

from __future__ import annotations

import os
import re
import socket
import subprocess

import pytest

from corten.api.client import ApiError
from tests.engines import RunningEngine, free_port
from tests.system.conftest import need
from tests.system.test_network import inspect


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def ports(engine, container: str) -> dict:
    return inspect(engine, container)["NetworkSettings"]["Ports"]


def binding(port: object, host_ip: str = "") -> list[dict]:
    return [{"HostIp": host_ip, "HostPort": str(port)}]


def test_a_port_in_use_is_said_and_nothing_is_half_published(engine):
    free = free_port()
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        port = taken.getsockname()[1]
        with pytest.raises(ApiError, match=rf"driver failed programming external connectivity on endpoint .*{port}.*address already in use"):
            engine.run("sleep", "60", PortBindings={"80/tcp": binding(free), "81/tcp": binding(port)})
    with socket.socket() as probe:
        probe.bind(("0.0.0.0", free))
    nft = need("nft")
    assert str(free) not in subprocess.run([nft, "list", "table", "inet", engine.bridge], capture_output=True, text=True, check=True).stdout


def test_a_range_gives_the_next_free_port(engine):
    first = free_port()
    span = f"{first}-{first + 5}"
    given = [ports(engine, engine.run("sleep", "60", PortBindings={"80/tcp": binding(span)}))["80/tcp"][0]["HostPort"] for _ in range(2)]
    assert given[0] != given[1]
    assert all(first <= int(port) <= first + 5 for port in given)


def test_sctp_is_translated_too(engine):
    port = free_port()
    container = engine.run("sleep", "60", PortBindings={"80/sctp": binding(port)})
    assert ports(engine, container) == {"80/sctp": [{"HostIp": "0.0.0.0", "HostPort": str(port)}]}
    with pytest.raises(ApiError, match="address already in use"):
        engine.run("sleep", "60", PortBindings={"80/sctp": binding(port)})
    shown = subprocess.run([need("nft"), "list", "table", "inet", engine.bridge], capture_output=True, text=True, check=True).stdout
    assert re.search(rf"sctp \. {port} : [\d.]+ \. 80", shown)


def test_an_address_that_cannot_be_is_refused(engine):
    with pytest.raises(ApiError, match="this host does not have the address"):
        engine.run("sleep", "60", PortBindings={"80/tcp": binding("", "203.0.113.1")})
    with pytest.raises(ApiError, match="has no IPv6 address"):
        engine.run("sleep", "60", PortBindings={"80/tcp": binding("", "::1")})


def test_all_exposed_ports(engine):
    body = {"Image": "busybox", "Cmd": ["sleep", "60"], "ExposedPorts": {"80/tcp": {}, "90-91/udp": {}}, "HostConfig": {"PublishAllPorts": True}}
    container = engine.client.post("/containers/create", body)["Id"]
    engine.client.post(f"/containers/{container}/start")
    published = {key for key, value in ports(engine, container).items() if value}
    assert published == {"80/tcp", "90/udp", "91/udp"}


def test_where_ports_go_that_name_no_address(assets):
    running = RunningEngine("w", "--ip", "127.0.0.1", "--default-address-pool", f"base=10.{200 + os.getpid() % 50}.0.0/16,size=24")
    try:
        running.load(f"{assets}/images/busybox.tar")
        container = running.run("sleep", "60", PortBindings={"80/tcp": binding("")})
        assert ports(running, container)["80/tcp"][0]["HostIp"] == "127.0.0.1"
        option = {"com.docker.network.bridge.host_binding_ipv4": "127.0.0.2"}
        running.client.post("/networks/create", {"Name": "other", "Options": option})
        container = running.run("sleep", "60", NetworkMode="other", PortBindings={"80/tcp": binding("")})
        assert ports(running, container)["80/tcp"][0]["HostIp"] == "127.0.0.2"
        subnets = [row["Subnet"] for network in running.client.get("/networks") for row in network["IPAM"]["Config"] or []]
        assert sorted(subnets) == [f"10.{200 + os.getpid() % 50}.{third}.0/24" for third in (0, 1)]
    finally:
        running.stop()
