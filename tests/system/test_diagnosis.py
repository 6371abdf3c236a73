"""`corten network trace` says where a packet is dropped and by whose rule; `corten network inspect --map` what there is."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading

import pytest

from corten.api.client import ApiError
from tests.engines import RunningEngine, eventually
from tests.places import FAR, NEAR, socket_in
from tests.system.test_host_firewall import base, rules_of
from tests.system.test_network import inspect

HTTPD = ("httpd", "-f", "-p", "80", "-h", "/var/www")


@pytest.fixture(scope="module")
def engine(place, assets):
    with place.engine("g", assets) as running:
        for name, fields in (("one", {}), ("two", {}), ("inner", {"Internal": True}), ("quiet", {"Options": {"com.docker.network.bridge.enable_icc": "false"}})):
            running.client.post("/networks/create", {"Name": name, **fields})
        running.run(*HTTPD, name="web", NetworkMode="one", PortBindings={"80/tcp": [{"HostPort": "8080"}]})
        running.run("sleep", "600", name="friend", NetworkMode="one")
        running.run("sleep", "600", name="stranger", NetworkMode="two")
        running.run("sleep", "600", name="shut", NetworkMode="inner")
        for name in ("quiet1", "quiet2"):
            running.run(*HTTPD, name=name, NetworkMode="quiet")
        eventually(lambda: place.is_reached(8080))
        yield running


def corten(engine: RunningEngine, *words: str) -> subprocess.CompletedProcess:
    program = os.path.join(os.path.dirname(sys.executable), "corten")
    return subprocess.run([program, "-H", f"unix://{engine.socket}", "network", *words], capture_output=True, text=True, check=False)


def trace(engine: RunningEngine, source: str, target: str, port: int, **more: object) -> dict:
    return engine.client.post("/corten/networks/trace", source=source, target=target, port=port, **more)


def test_what_arrives(engine):
    for source, target, port in (("friend", "web", 80), ("host", "web", 80), ("host", "127.0.0.1", 8080), ("stranger", NEAR, 8080)):
        found = trace(engine, source, target, port)
        assert (found["Outcome"], found["DroppedBy"]) == ("connected", None), found
    assert any("map @any4" in step["Rule"] for step in trace(engine, "host", "127.0.0.1", 8080)["Steps"])
    refused = trace(engine, "friend", "web", 81)
    assert (refused["Outcome"], refused["Conclusion"][:30]) == ("refused", "reached: but nothing listens t")


def test_another_network_is_kept_out_by_our_own_rule(engine):
    done = corten(engine, "trace", "stranger", "web:80")
    assert done.returncode == 1
    assert "dropped by Corten: rule" in done.stdout.splitlines()[-1]
    assert "oifname @bridges drop (a network is entered only at published ports, by answers, and from itself)" in done.stdout
    assert f"of chain forward of table inet {engine.bridge}" in done.stdout


def test_somebody_elses_rule_is_named(engine, place):
    place.nft("-f", "-", text="table ip filter {\nchain ufw-forward {\ntype filter hook forward priority 5; policy drop;\n}\n}\n")
    try:
        found = trace(engine, "stranger", NEAR, 8080)
        assert (found["Outcome"], found["DroppedBy"]["Owner"]) == ("silence", "ufw")
        assert found["Conclusion"] == "dropped by ufw: policy of chain ufw-forward of table ip filter"
    finally:
        place.nft("delete", "table", "ip", "filter")


def test_the_hosts_input_rule_behind_a_copy_is_named(engine, place):
    with rules_of(place, engine, base("accept", 'tcp dport 8080 drop comment "mine"')):
        found = trace(engine, "stranger", NEAR, 8080)
        assert found["DroppedBy"]["Rule"].startswith("rule 2 (mine) of chain input of table inet mineinet"), found


def test_who_has_no_way_is_told_why(engine):
    found = trace(engine, "shut", "web", 80)
    assert (found["Outcome"], found["Steps"]) == ("unreachable", [])
    assert found["Conclusion"].endswith("network is unreachable, all its networks are internal")
    found = trace(engine, "quiet1", "quiet2", 80)
    assert "network quiet keeps its containers apart (enable_icc=false)" in found["Conclusion"]


def test_a_packet_from_outside_is_waited_for(engine, place):
    def call() -> None:
        with socket_in(place.outside, socket.SOCK_STREAM) as caller:
            caller.settimeout(0.5)
            caller.connect_ex((NEAR, 8080))

    timer = threading.Timer(0.5, call)
    timer.start()
    done = corten(engine, "trace", FAR, f"{NEAR}:8080", "--wait", "5")
    timer.join()
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "no rule of this host dropped it")
    assert trace(engine, FAR, NEAR, 8080, wait=0)["Conclusion"].startswith("no such packet has come to this host")
    assert "trace" not in place.nft("list", "tables")


def test_what_cannot_be_traced_is_said(engine):
    for source, target, port, status in (("nobody", "web", 80, 404), ("web", "nobody", 80, 404), ("web", NEAR, 0, 400), ("fd00::1", NEAR, 80, 400)):
        with pytest.raises(ApiError) as caught:
            trace(engine, source, target, port)
        assert caught.value.http_status == status
    assert corten(engine, "trace", "web", "elsewhere").returncode == 2


def test_the_map_has_networks_containers_ports_and_rules(engine, place):
    shown = json.loads(corten(engine, "inspect", "--map").stdout)
    networks = {network["Name"]: network for network in shown["Networks"]}
    web = next(row for row in networks["one"]["Containers"] if row["Name"] == "web")
    full = inspect(engine, web["Id"])["NetworkSettings"]["Networks"]["one"]
    assert (web["Addresses"], web["MacAddress"], web["LinkThere"]) == ([f"{full['IPAddress']}/{full['IPPrefixLen']}"], full["MacAddress"], True)
    assert (networks["inner"]["Internal"], networks["one"]["LinkThere"]) == (True, True)
    assert {"HostIp": "0.0.0.0", "HostPort": 8080, "Protocol": "tcp", "Container": "web", "ContainerPort": 80} in shown["Ports"]
    assert shown["Rules"] == {"Table": f"inet {engine.bridge}", "Whole": True, "Obeyed": [], "LeftOut": []}
    only = json.loads(corten(engine, "inspect", "--map", "two").stdout)
    assert ([network["Name"] for network in only["Networks"]], only["Ports"]) == (["two"], [])
    assert json.loads(corten(engine, "inspect", "two").stdout)[0]["Name"] == "two"
    with rules_of(place, engine, base("accept", "meta skuid 0 drop")):
        rules = json.loads(corten(engine, "inspect", "--map", "one").stdout)["Rules"]
        assert (rules["Whole"], rules["Obeyed"]) == (True, ["chain input of table inet mineinet"])
        assert rules["LeftOut"] == ["rule 2 of chain input of table inet mineinet (meta that is set, or is a socket's)"]
