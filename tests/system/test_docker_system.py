"""The real docker CLI's questions about the engine: info, version, system df, events, inspect, ps with all of its flags."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest

from tests.system.conftest import free_port


@pytest.fixture
def docker(engine, docker_cli):
    def run(*arguments: str, **options: object) -> str:
        return engine.docker(docker_cli, *arguments, **options).stdout

    engine.remove_all()
    yield run
    engine.remove_all()


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def test_info_is_what_the_host_is(docker, engine):
    info = json.loads(docker("info", "--format", "{{json .}}"))
    assert info["NCPU"] == len(os.sched_getaffinity(0))
    with open("/proc/meminfo", encoding="utf-8") as file:
        assert info["MemTotal"] == int(file.readline().split()[1]) * 1024
    assert info["KernelVersion"] == os.uname().release
    assert info["Name"] == os.uname().nodename
    assert info["DockerRootDir"] == engine.data_root
    assert info["Images"] == len(engine.client.get("/images/json"))
    with open("/proc/sys/net/ipv4/ip_forward", encoding="utf-8") as file:
        assert info["IPv4Forwarding"] == (file.read().strip() == "1")
    features = json.loads(info["Runtimes"]["corten"]["status"]["org.opencontainers.runtime-spec.features"])
    assert "network" in features["linux"]["namespaces"]
    assert "local" in info["Plugins"]["Volume"]
    shown = docker("info")
    for part in ("Server Version: 28.5.2", "Storage Driver: overlay2", "Default Runtime: corten", "Swarm: inactive", "Live Restore Enabled: true"):
        assert part in shown


def test_info_counts_containers(docker):
    docker("run", "-d", "--name", "up", "busybox", "sleep", "600")
    docker("run", "-d", "--name", "held", "busybox", "sleep", "600")
    docker("pause", "held")
    docker("create", "busybox", "true")
    assert docker("info", "--format", "{{.Containers}} {{.ContainersRunning}} {{.ContainersPaused}} {{.ContainersStopped}}").split() == ["3", "1", "1", "1"]


def test_version(docker):
    version = json.loads(docker("version", "--format", "{{json .}}"))
    assert version["Server"]["Version"] == "28.5.2"
    assert version["Server"]["MinAPIVersion"] == "1.24"
    assert version["Server"]["KernelVersion"] == os.uname().release
    assert [part["Name"] for part in version["Server"]["Components"]] == ["Engine", "corten"]
    assert "Corten" in docker("version")


def test_disk_usage(docker, engine):
    docker("run", "--name", "writer", "busybox", "sh", "-c", "head -c 300000 /dev/zero > /file; ln /file /again")
    docker("volume", "create", "df-vol")
    docker("run", "--rm", "-v", "df-vol:/v", "busybox", "sh", "-c", "head -c 5000 /dev/zero > /v/file")
    try:
        rows = {row["Type"]: row for row in map(json.loads, lines(docker("system", "df", "--format", "{{json .}}")))}
        assert set(rows) == {"Images", "Containers", "Local Volumes", "Build Cache"}
        assert rows["Containers"]["Size"] == "300kB"
        assert rows["Local Volumes"]["Size"] == "5kB"
        assert (rows["Images"]["TotalCount"], rows["Images"]["Active"]) == (str(len(engine.client.get("/images/json"))), "1")
        shown = docker("system", "df", "-v")
        assert "writer" in shown
        assert "df-vol" in shown
        usage = engine.client.get("/system/df")
        sizes = {layer["Id"]: layer["Size"] for layer in usage["Images"]}
        assert usage["LayersSize"] == sum(sizes.values()) - sum(image["SharedSize"] for image in usage["Images"])
        assert next(item for item in usage["Containers"] if item["Names"] == ["/writer"])["SizeRw"] == 300000
        assert engine.client.get("/system/df", type="volume")["Containers"] is None
        assert docker("ps", "-as", "--format", "{{.Size}}").startswith("300kB (virtual ")
        assert engine.client.get("/containers/writer/json", size=1)["SizeRw"] == 300000
    finally:
        docker("rm", "writer")
        docker("volume", "rm", "df-vol")


def events_of(docker, since: float, *filters: str) -> list[dict]:
    arguments = [word for value in filters for word in ("--filter", value)]
    out = docker("events", "--since", f"{since:.6f}", "--until", f"{time.time():.6f}", "--format", "{{json .}}", *arguments)
    return [json.loads(line) for line in lines(out)]


def test_events_are_filtered(docker):
    since = time.time()
    docker("run", "--name", "first", "--label", "colour=red", "busybox", "true")
    docker("run", "--name", "second", "busybox", "true")
    docker("rm", "first", "second")
    everything = events_of(docker, since)
    assert {event["Type"] for event in everything} >= {"container", "network"}
    assert [event["Action"] for event in events_of(docker, since, "container=first", "type=container") if event["Action"] != "attach"] == ["create", "start", "die", "destroy"]
    died = events_of(docker, since, "event=die", "container=second")
    assert len(died) == 1
    assert died[0]["Actor"]["Attributes"]["exitCode"] == "0"
    assert died[0]["Actor"]["Attributes"]["image"] == "busybox"
    assert died[0]["from"] == "busybox"
    assert died[0]["timeNano"] // 1_000_000_000 == died[0]["time"]
    assert {event["Actor"]["Attributes"]["name"] for event in events_of(docker, since, "label=colour=red")} == {"first"}
    assert {event["Type"] for event in events_of(docker, since, "type=network")} == {"network"}
    assert {event["Action"] for event in events_of(docker, since, "image=busybox", "event=create", "event=start")} == {"create", "start"}
    assert events_of(docker, since, "scope=swarm") == []


def test_events_by_duration_and_format(docker):
    docker("create", "--name", "made", "busybox", "true")
    out = docker("events", "--since", "1m", "--until", f"{time.time():.6f}", "--filter", "container=made", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}")
    assert lines(out)[-1] == "container create made"


def test_events_follow(docker, engine, docker_cli):
    with subprocess.Popen([docker_cli, "events", "--filter", "type=container", "--format", "{{.Action}}"], env=engine.environment, stdout=subprocess.PIPE, text=True) as follower:
        try:
            end = time.monotonic() + 20
            while engine.client.get("/info")["NEventsListener"] == 0:
                assert time.monotonic() < end
                time.sleep(0.02)
            docker("create", "--name", "followed", "busybox", "true")
            assert follower.stdout.readline() == "create\n"
            docker("rm", "followed")
            assert follower.stdout.readline() == "destroy\n"
        finally:
            follower.terminate()


@pytest.mark.parametrize(("accept", "form", "before"), [
    ("application/json", "application/json", b""), ("application/jsonl", "application/jsonl", b""),
    ("application/x-ndjson", "application/x-ndjson", b""), ("application/json-seq", "application/json-seq", b"\x1e"),
])  # fmt: skip
def test_events_in_every_form(docker, engine, accept, form, before):
    docker("create", "--name", "formed", "busybox", "true")
    with engine.client.open("GET", "/events", query={"since": 0, "until": time.time(), "filters": '{"container":["formed"]}'}, headers={"Accept": accept}) as response:
        assert response.headers.get_content_type() == form
        records = response.read().splitlines()
    assert records
    for record in records:
        assert record.startswith(before)
        assert json.loads(record[len(before) :])["Type"] == "container"


def test_inspect(docker):
    docker("create", "--name", "seen", "--label", "a=b", "busybox", "true")
    assert docker("inspect", "seen", "--format", "{{.Config.Labels.a}} {{.State.Status}}") == "b created\n"
    assert json.loads(docker("inspect", "--type", "image", "busybox"))[0]["Os"] == "linux"
    assert json.loads(docker("inspect", "bridge"))[0]["Driver"] == "bridge"
    assert json.loads(docker("inspect", "-s", "seen"))[0]["SizeRootFs"] > 0


def test_ps_with_every_flag(docker):
    port = free_port()
    first = docker("run", "-d", "--name", "first", "-p", f"127.0.0.1:{port}:80", "--label", "l=1", "busybox", "sleep", "600").strip()
    docker("run", "--name", "second", "busybox", "sh", "-c", "exit 3", check=False)
    third = docker("create", "--name", "third", "--annotation", "a=b", "busybox", "true").strip()
    names = ["ps", "--format", "{{.Names}}"]
    assert lines(docker(*names)) == ["first"]
    assert lines(docker(*names, "-a")) == ["third", "second", "first"]
    assert lines(docker(*names, "-l")) == ["third"]
    assert lines(docker(*names, "-n", "2")) == ["third", "second"]
    assert lines(docker("ps", "-q")) == [first[:12]]
    assert lines(docker("ps", "-aq", "--no-trunc"))[0] == third
    assert "virtual" in docker("ps", "-s")
    assert docker("ps", "--no-trunc", "--format", '{{.Command}}|{{.Ports}}|{{.Label "l"}}') == f'"sleep 600"|127.0.0.1:{port}->80/tcp|1\n'
    assert docker("ps", "-a", "--filter", "name=second", "--no-trunc", "--format", "{{.Command}}") == "\"sh -c 'exit 3'\"\n"
    for value, found in {
        "status=exited": ["second"], "status=created": ["third"], "exited=3": ["second"], "exited=0": [], "label=l": ["first"], "label=l=2": [],
        "name=ir": ["third", "first"], f"id={first[:8]}": ["first"], "ancestor=busybox": ["third", "second", "first"],
        "before=third": ["second", "first"], "since=first": ["third", "second"], "network=bridge": ["third", "second", "first"],
    }.items():  # fmt: skip
        assert lines(docker(*names, "-a", "--filter", value)) == found, value
    assert lines(docker(*names, "-a", "--filter", "status=exited", "--filter", "status=created")) == ["third", "second"]


def test_login(docker, engine, docker_cli, tmp_path):
    """Against a registry that is not there: the text is the daemon's."""
    port = free_port()
    done = engine.docker(docker_cli, "login", "-u", "user", "-p", "word", f"127.0.0.1:{port}", check=False)
    assert done.returncode == 1
    assert "connection refused" in done.stderr
