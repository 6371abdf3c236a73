"""`update`, read in the control group of the running container; `container prune`; both with the real docker CLI."""

from __future__ import annotations

import time

import pytest

from corten.api.client import ApiError
from corten.linux.cgroup import host_layout
from tests.engines import eventually

MIB = 1 << 20


def limit(engine, container: str, controller: str, file: str) -> str:
    layout = host_layout()
    mount = layout.v2 if layout.unified else layout.v1[controller]
    with open(f"{mount}{engine.cgroup_parent}/{container}/{file}", encoding="utf-8") as read:
        return read.read().strip()


def memory(engine, container: str) -> int:
    return int(limit(engine, container, "memory", "memory.max" if host_layout().unified else "memory.limit_in_bytes"))


def test_limits_are_live(engine, docker_cli):
    container = engine.run("sleep", "600", Memory=20 * MIB)
    update = ("update", "--memory", "64m", "--memory-swap", "128m", "--cpus", "0.5", "--cpu-shares", "300", "--cpuset-cpus", "0", "--pids-limit", "77", container)
    assert engine.docker(docker_cli, *update).stdout.strip() == container
    assert memory(engine, container) == 64 * MIB
    assert limit(engine, container, "cpuset", "cpuset.cpus") == "0"
    assert limit(engine, container, "pids", "pids.max") == "77"
    if host_layout().unified:
        assert limit(engine, container, "cpu", "cpu.max") == "50000 100000"
    else:
        assert limit(engine, container, "cpu", "cpu.cfs_quota_us") == "50000"
        assert limit(engine, container, "cpu", "cpu.shares") == "300"
        assert int(limit(engine, container, "memory", "memory.memsw.limit_in_bytes")) == 128 * MIB
    engine.client.post(f"/containers/{container}/restart", t=0)
    assert memory(engine, container) == 64 * MIB
    host = engine.client.get(f"/containers/{container}/json")["HostConfig"]
    assert (host["Memory"], host["NanoCpus"], host["PidsLimit"]) == (64 * MIB, 500_000_000, 77)
    engine.remove(container)


def test_what_the_kernel_refuses_changes_nothing(engine):
    container = engine.run("sh", "-c", "dd if=/dev/zero of=/dev/shm/f bs=1M count=40 2>/dev/null; sleep 600", Memory=100 * MIB, MemorySwap=100 * MIB)
    end = time.monotonic() + 10
    while int(limit(engine, container, "memory", "memory.current" if host_layout().unified else "memory.usage_in_bytes")) < 40 * MIB:
        assert time.monotonic() < end
        time.sleep(0.02)
    if not host_layout().unified:  # version 2 takes it and kills
        with pytest.raises(ApiError, match=r"Cannot update container .*memory"):
            engine.client.post(f"/containers/{container}/update", {"Memory": 10 * MIB, "CpuShares": 99})
        assert memory(engine, container) == 100 * MIB
        assert limit(engine, container, "cpu", "cpu.shares") == "1024"
        assert engine.client.get(f"/containers/{container}/json")["HostConfig"]["Memory"] == 100 * MIB
    engine.remove(container)


def test_a_policy_that_comes_later_counts(engine, docker_cli):
    container = engine.run("sh", "-c", "while ! test -e /go; do sleep 0.05; done; exit 3")
    engine.docker(docker_cli, "update", "--restart", "on-failure:1", container)
    engine.docker(docker_cli, "exec", container, "touch", "/go")
    eventually(lambda: engine.client.get(f"/containers/{container}/json")["RestartCount"] == 1)
    engine.remove(container)


def test_prune(own_engine, docker_cli):
    engine = own_engine

    def made(name: str, **body: object) -> str:
        return engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", "head -c 100000 /dev/zero >/f"], **body}, name=name)["Id"]

    runs = engine.run("sleep", "600")
    kept, other = made("kept", Labels={"keep": "1"}), made("other", Labels={"which": "other"})
    engine.client.post(f"/containers/{other}/start")
    engine.client.post(f"/containers/{other}/wait")
    pruned = engine.client.post("/containers/prune", filters='{"until":["1h"]}')
    assert pruned == {"ContainersDeleted": None, "SpaceReclaimed": 0}
    shown = engine.docker(docker_cli, "container", "prune", "--force", "--filter", "label!=keep").stdout
    assert other in shown
    assert "100kB" in shown
    assert {item["Id"] for item in engine.client.get("/containers/json", all=1)} == {runs, kept}
    since = time.time() - 10
    assert engine.client.post("/containers/prune")["ContainersDeleted"] == [kept]
    with engine.client.open("GET", "/events", query={"since": since, "until": time.time(), "filters": '{"event":["prune"]}'}) as response:
        assert response.read().count(b'"reclaimed"') == 3
