"""stats and top: the numbers are the kernel's, the rows those of the container's processes."""

from __future__ import annotations

import concurrent.futures
import json
import os

import pytest

from corten.api.client import ApiError
from corten.engine.processes import parse_ps


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def group_file(engine, container: str, controller: str, name: str) -> int:
    for root in (f"/sys/fs/cgroup/{controller}", "/sys/fs/cgroup"):
        path = f"{root}{engine.cgroup_parent}/{container}/{name}"
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                return int(file.read().split()[0])
    pytest.skip(f"no {name}")


def test_numbers_are_those_of_the_cgroup(engine):
    container = engine.run("sh", "-c", "head -c 8000000 /dev/zero >/dev/shm/x; echo done; while :; do :; done", Memory=64 << 20, PidsLimit=7)
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as follow:
        follow.read(9)
    once = engine.client.get(f"/containers/{container}/stats", stream=0, **{"one-shot": 1})
    cpu = group_file(engine, container, "cpuacct", "cpuacct.usage")
    assert "name" not in once
    assert 0 < once["cpu_stats"]["cpu_usage"]["total_usage"] <= cpu
    memory = group_file(engine, container, "memory", "memory.usage_in_bytes")
    assert abs(once["memory_stats"]["usage"] - memory) < 4 << 20
    assert once["memory_stats"]["usage"] > 8_000_000
    assert (once["memory_stats"]["limit"], once["pids_stats"]["limit"]) == (64 << 20, 7)
    both = engine.client.get(f"/containers/{container}/stats", stream=0)
    used = both["cpu_stats"]["cpu_usage"]["total_usage"] - both["precpu_stats"]["cpu_usage"]["total_usage"]
    whole = both["cpu_stats"]["system_cpu_usage"] - both["precpu_stats"]["system_cpu_usage"]
    assert 0 < used <= whole
    assert set(both["networks"]) == {"eth0"}


def test_one_shot_of_many_at_once(engine):
    containers = [engine.run("sleep", "600", NetworkMode="none") for _ in range(12)]
    with concurrent.futures.ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda container: engine.client.get(f"/containers/{container}/stats", stream=0, **{"one-shot": 1}), containers))
    assert [sample["pids_stats"]["current"] for sample in found] == [1] * 12


def test_a_stream_goes_on_over_the_end_of_the_container(engine):
    container = engine.run("sleep", "600")
    with engine.client.open("GET", f"/containers/{container}/stats") as stream:
        first = json.loads(stream.readline())
        assert first["name"].startswith("/")
        engine.client.post(f"/containers/{container}/kill")
        engine.client.post(f"/containers/{container}/wait")
        while json.loads(stream.readline())["read"] != "0001-01-01T00:00:00Z":
            continue
        engine.remove(container)
        while stream.readline():
            continue
    with pytest.raises(ApiError) as refused:
        engine.client.get("/containers/zz/stats", **{"one-shot": 1})
    assert refused.value.http_status == 404


def test_stream_and_one_shot_exclude_each_other(engine):
    container = engine.run("sleep", "600")
    with pytest.raises(ApiError) as refused:
        engine.client.get(f"/containers/{container}/stats", **{"one-shot": 1})
    assert (refused.value.http_status, refused.value.message) == (400, "cannot have stream=true and one-shot=true")


def test_docker_stats(engine, docker_cli):
    engine.run("sleep", "600", name="shown", Memory=32 << 20)
    shown = engine.docker(docker_cli, "stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}").stdout.split()
    assert (shown[:2], shown[-1]) == (["shown", "1"], "32MiB")


def test_top_with_columns_of_ones_own(engine):
    container = engine.run("sh", "-c", "sleep 599 & echo up; exec sleep 600")
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as follow:
        follow.read(9)

    def top(arguments: str) -> dict:
        return engine.client.get(f"/containers/{container}/top", ps_args=arguments)

    assert top("-o pid,args")["Titles"] == ["PID", "COMMAND"]
    assert len(top("-o pid,args")["Processes"]) == 2
    assert top("aux")["Titles"][:2] == ["USER", "PID"]
    assert len(top("axf -o pid,cmd")["Processes"]) == 2  # f and -q exclude each other: asked for again without
    for arguments, text in (("-o cmd", "Couldn't find PID field in ps output"), ("--bad", "ps: "), ("-o cmd=PID", 'specifying "cmd=PID" is not allowed')):
        with pytest.raises(ApiError) as refused:
            top(arguments)
        assert text in refused.value.message


def test_threads_belong_to_their_process():
    output = "USER PID COMMAND\nroot 1 a  b\nroot - -\nroot 2 c\nroot - -\n"
    assert parse_ps(output, frozenset({1})) == (["USER", "PID", "COMMAND"], [["root", "1", "a b"], ["root", "-", "-"]])
