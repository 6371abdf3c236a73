"""Volume objects: docker CLI and API, events, what a crash leaves."""

from __future__ import annotations

import json
import os

import pytest

from corten.api.client import ApiError


@pytest.fixture(autouse=True)
def no_volume_stays(engine):
    yield
    engine.remove_all()
    for volume in engine.client.get("/volumes")["Volumes"]:
        engine.client.delete(f"/volumes/{volume['Name']}")
    assert os.listdir(f"{engine.data_root}/volumes") == []


def names(engine, **filters: list[str]) -> set[str]:
    return {volume["Name"] for volume in engine.client.get("/volumes", filters=json.dumps(filters))["Volumes"]}


def test_the_cli_makes_lists_and_removes(engine, docker_cli):
    made = engine.docker(docker_cli, "volume", "create", "--label", "tier=data", "cli-data").stdout.strip()
    assert made == "cli-data"
    anonymous = engine.docker(docker_cli, "volume", "create").stdout.strip()
    assert len(anonymous) == 64
    listed = engine.docker(docker_cli, "volume", "ls", "--filter", "label=tier=data", "--format", "{{.Name}} {{.Driver}} {{.Labels}}").stdout
    assert listed == "cli-data local tier=data\n"
    shown = json.loads(engine.docker(docker_cli, "volume", "inspect", "cli-data").stdout)[0]
    assert (shown["Labels"], shown["Options"], shown["Scope"]) == ({"tier": "data"}, None, "local")
    assert os.path.isdir(shown["Mountpoint"])
    assert os.stat(shown["Mountpoint"]).st_mode & 0o777 == 0o755
    pruned = engine.docker(docker_cli, "volume", "prune", "-f").stdout
    assert anonymous in pruned
    assert "cli-data" not in pruned
    assert engine.docker(docker_cli, "volume", "rm", "cli-data").stdout == "cli-data\n"
    missing = engine.docker(docker_cli, "volume", "rm", "cli-data", check=False)
    assert missing.stderr.strip() == "Error response from daemon: get cli-data: no such volume"


def test_filters(engine):
    for name, labels in (("one", {"a": "1"}), ("two", {"a": "2"}), ("three", None)):
        engine.client.post("/volumes/create", {"Name": name, "Labels": labels})
    assert names(engine, name=["t"]) == {"two", "three"}
    assert names(engine, name=["^t.o$"]) == {"two"}
    assert names(engine, label=["a"]) == {"one", "two"}
    assert names(engine, label=["a=1"]) == {"one"}
    assert names(engine, driver=["nosuch"]) == set()
    assert names(engine, dangling=["true"]) == {"one", "two", "three"}
    assert names(engine, dangling=["false"]) == set()


def test_prune_reports_what_it_reclaims(engine):
    made = engine.client.post("/volumes/create", {"Name": "full"})
    with open(f"{made['Mountpoint']}/file", "wb") as file:
        file.write(bytes(1000))
    os.link(f"{made['Mountpoint']}/file", f"{made['Mountpoint']}/again")
    assert engine.client.post("/volumes/prune") == {"VolumesDeleted": [], "SpaceReclaimed": 0}
    pruned = engine.client.post("/volumes/prune", filters=json.dumps({"all": ["true"]}))
    assert pruned == {"VolumesDeleted": ["full"], "SpaceReclaimed": 1000}


def test_old_clients_prune_named_volumes_too(engine):
    engine.client.post("/v1.41/volumes/create", {"Name": "old"})
    assert engine.client.post("/v1.41/volumes/prune")["VolumesDeleted"] == ["old"]


def test_events(engine):
    moment = engine.client.get("/info")["SystemTime"]
    engine.client.post("/volumes/create", {"Name": "seen"})
    engine.client.post("/volumes/create", {"Name": "seen"})  # is there: nothing happens
    engine.client.delete("/volumes/seen")
    engine.client.post("/volumes/prune")
    until = engine.client.get("/info")["SystemTime"]
    with engine.client.open("GET", "/events", query={"since": moment, "until": until, "filters": json.dumps({"type": ["volume"]})}) as response:
        found = [json.loads(line) for line in response.read().splitlines()]
    assert [(event["Action"], event["Actor"]["ID"], event["Actor"]["Attributes"]) for event in found] == [
        ("create", "seen", {"driver": "local"}), ("destroy", "seen", {"driver": "local"}), ("prune", "", {"reclaimed": "0"}),
    ]  # fmt: skip


def test_an_unknown_driver_is_said_to_be(engine):
    with pytest.raises(ApiError) as caught:
        engine.client.post("/volumes/create", {"Name": "other", "Driver": "nosuch"})
    assert caught.value.http_status == 404
    assert caught.value.message == 'create other: error looking up volume plugin nosuch: plugin "nosuch" not found'
    assert names(engine) == set()


def test_volumes_outlive_a_crash_and_content_is_never_swept(own_engine):
    kept = own_engine.client.post("/volumes/create", {"Name": "kept", "Labels": {"a": "b"}})
    with open(f"{kept['Mountpoint']}/file", "w", encoding="utf-8") as file:
        file.write("data")
    os.makedirs(f"{own_engine.data_root}/volumes/empty/_data")  # as a crash between the folder and its row leaves it
    os.makedirs(f"{own_engine.data_root}/volumes/lost/_data/inside")
    os.mkdir(f"{own_engine.data_root}/tmp/volume-half")
    own_engine.kill()
    own_engine.start()
    assert own_engine.client.get("/volumes/kept") == kept
    assert names(own_engine) == {"kept", "lost"}
    assert os.listdir(f"{own_engine.data_root}/tmp") == []
    assert sorted(os.listdir(f"{own_engine.data_root}/volumes")) == ["kept", "lost"]
