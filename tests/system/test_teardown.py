"""What `corten system teardown` takes away, and how it comes back; who can reach a port, said when it is published."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
from pyroute2 import NetNS

from corten.api.client import ApiError
from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine, eventually
from tests.places import NEAR, Place, socket_in
from tests.system.test_network import inspect

BINDINGS = {"80/tcp": [{"HostPort": "8080"}]}
HTTPD = ("httpd", "-f", "-p", "80", "-h", "/var/www")


def links(place: Place) -> set[str]:
    with NetNS(place.name) as there:
        return {dict(row["attrs"])["IFLA_IFNAME"] for row in there.get_links()}


def sysctl(place: Place, name: str, value: str = "") -> str:
    with network_namespace(place.fd), open(f"/proc/sys/{name}", "r+", encoding="utf-8") as file:
        if value:
            file.write(value)
            file.flush()
        file.seek(0)
        return file.read().strip()


def corten(engine: RunningEngine, *words: str) -> subprocess.CompletedProcess:
    program = os.path.join(os.path.dirname(sys.executable), "corten")
    return subprocess.run([program, "-H", f"unix://{engine.socket}", *words], capture_output=True, text=True, check=False)


def test_teardown_leaves_nothing_of_ours_and_all_of_others(place, assets):
    place.nft("-f", "-", text="table inet somebodys { chain forward { type filter hook forward priority 0; accept; }\n }")
    sysctl(place, "net/ipv4/ip_forward", "0")
    before, rules = links(place), place.nft("list", "ruleset")
    with place.engine("t", assets) as running:
        network = running.client.post("/networks/create", {"Name": "mine"})["Id"]
        container = running.run(*HTTPD, NetworkMode="mine", PortBindings=BINDINGS)
        assert sysctl(place, "net/ipv4/ip_forward") == "1"
        assert "set net.ipv4.ip_forward to 1: containers need it" in running.log()
        refused = corten(running, "system", "teardown")
        assert (refused.returncode, "stop first" in refused.stderr) == (1, True)
        assert f"br-{network[:12]}" in links(place)
        running.client.post(f"/containers/{container}/stop", t=0)
        done = corten(running, "system", "teardown")
        assert done.returncode == 0, done.stderr
        assert f"removed link br-{network[:12]}" in done.stdout
        assert "set net.ipv4.ip_forward back to 0" in done.stdout
        eventually(lambda: links(place) == before)
        assert place.nft("list", "ruleset") == rules
        assert sysctl(place, "net/ipv4/ip_forward") == "0"
        running.client.post(f"/containers/{container}/start")  # and all of it is made again
        eventually(lambda: place.is_reached(8080))
        assert sysctl(place, "net/ipv4/ip_forward") == "1"
        assert running.bridge in place.nft("list", "tables")
    place.nft("delete", "table", "inet", "somebodys")


def test_who_can_reach_a_port_is_said(placed_engine, place):
    made = placed_engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "60"], "HostConfig": {"PortBindings": BINDINGS}})
    assert len(made["Warnings"]) == 1
    assert f"port 8080/tcp is published on all addresses of this host ({NEAR}): no input rule of this host keeps anybody out." in made["Warnings"][0]
    placed_engine.client.post(f"/containers/{made['Id']}/start")
    assert f"{made['Warnings'][0][:60]}" in placed_engine.log()
    place.nft("-f", "-", text="table inet mine {\nchain input {\ntype filter hook input priority 0; policy drop;\n}\n}\n")
    try:
        eventually(lambda: "_entry" in place.nft("list", "table", "inet", placed_engine.bridge))
        made = placed_engine.client.post("/containers/create", {"Image": "busybox", "HostConfig": {"PortBindings": {"81/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]}}})
        assert "port for 81/tcp is published" in made["Warnings"][0]
        assert "only whom chain input of table inet mine of this host let in" in made["Warnings"][0]
    finally:
        place.nft("delete", "table", "inet", "mine")
    for bindings in ({"81/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}, {}):
        made = placed_engine.client.post("/containers/create", {"Image": "busybox", "HostConfig": {"PortBindings": bindings}})
        assert made["Warnings"] == []


def test_where_ports_go_by_default_is_a_setting(place, assets, tmp_path):
    config = tmp_path / "daemon.json"
    config.write_text(json.dumps({"default-publish-address": "127.0.0.1"}))
    with place.engine("d", assets, "--config-file", str(config)) as running:
        running.client.post("/networks/create", {"Name": "mine"})
        for network, port in (("bridge", 8080), ("mine", 8081)):
            body = {"Image": "busybox", "Cmd": list(HTTPD), "HostConfig": {"NetworkMode": network, "PortBindings": {"80/tcp": [{"HostPort": str(port)}]}}}
            made = running.client.post("/containers/create", body)
            assert made["Warnings"] == []
            running.client.post(f"/containers/{made['Id']}/start")
            assert inspect(running, made["Id"])["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "127.0.0.1", "HostPort": str(port)}]
            with socket_in(place.fd, socket.SOCK_STREAM) as caller:
                eventually(lambda caller=caller, port=port: caller.connect_ex(("127.0.0.1", port)) == 0)
            assert not place.is_reached(port)
        with pytest.raises(ApiError):
            running.client.post("/corten/system/teardown")
