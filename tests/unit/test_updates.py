"""What an update refuses, merges and writes: pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine import resources
from corten.engine.updating import as_host_config, live_settings, merge
from corten.errors import CannotUpdate, Invalid
from corten.linux.cgroup_abilities import FLAGS, Abilities
from corten.spec.engine import HostConfig, PolicyChange, RestartPolicy, UpdateRequest

MIB = 1 << 20
ABLE = Abilities(1, "0-1", "0", 2, **dict.fromkeys(FLAGS, True))


def update(before: HostConfig, **changes: object) -> HostConfig:
    request = UpdateRequest(**changes)
    return merge("a" * 64, before, as_host_config(request), request)


def written(before: HostConfig, *, unified: bool = False, **changes: object) -> list[tuple[str, str]]:
    return [(setting.file, setting.value) for setting in live_settings(before, update(before, **changes), unified=unified)]


@pytest.mark.parametrize(
    ("before", "changes", "text"),
    [
        (HostConfig(memory=20 * MIB, memory_swap=40 * MIB), {"memory": 60 * MIB}, "smaller than already set memoryswap limit"),
        (HostConfig(), {"memory": 60 * MIB}, "smaller than already set memoryswap limit"),
        (HostConfig(cpu_period=100000), {"nano_cpus": 10**9}, "as CPU Period has already been set"),
        (HostConfig(cpu_quota=100000), {"nano_cpus": 10**9}, "as CPU Quota has already been set"),
        (HostConfig(nano_cpus=10**9), {"cpu_quota": 50000}, "CPU Quota cannot be updated as NanoCPUs"),
        (HostConfig(auto_remove=True), {"restart_policy": PolicyChange("always")}, "because AutoRemove is enabled"),
    ],
)
def test_what_does_not_go_with_what_holds(before, changes, text):
    with pytest.raises(CannotUpdate, match=text):
        update(before, **changes)


def test_merged():
    before = HostConfig(memory=20 * MIB, memory_swap=40 * MIB, cpu_shares=7, pids_limit=5)
    after = update(before, memory=10 * MIB, pids_limit=-1, restart_policy=PolicyChange("on-failure", 2))
    assert (after.memory, after.memory_swap, after.cpu_shares, after.pids_limit) == (10 * MIB, 40 * MIB, 7, 0)
    assert after.restart_policy == RestartPolicy("on-failure", 2)
    assert update(before, restart_policy=PolicyChange("", 9)) == before


def test_only_what_changed_is_written():
    assert written(HostConfig(cpu_shares=512, memory=20 * MIB), cpuset_cpus="1") == [("cpuset.cpus", "1")]
    assert written(HostConfig(pids_limit=5), pids_limit=0) == [("pids.max", "max")]
    assert written(HostConfig(cpu_quota=50000), cpu_period=50000, unified=True) == [("cpu.max", "50000 50000")]
    assert written(HostConfig(memory=20 * MIB, memory_swap=40 * MIB), memory=10 * MIB, unified=True) == [
        ("memory.swap.max", str(30 * MIB)), ("memory.max", str(10 * MIB)),
    ]  # fmt: skip


LIMITS = st.integers(6, 100).map(lambda size: size * MIB)


@given(LIMITS, LIMITS, LIMITS, LIMITS)
def test_the_kernel_never_sees_a_limit_above_the_sum(limit, swap, new_limit, new_swap):
    before = HostConfig(memory=limit, memory_swap=limit + swap)
    now = {"memory.limit_in_bytes": limit, "memory.memsw.limit_in_bytes": limit + swap}
    for file, value in written(before, memory=new_limit, memory_swap=new_limit + new_swap):
        now[file] = int(value)
        assert now["memory.limit_in_bytes"] <= now["memory.memsw.limit_in_bytes"]
    assert now == {"memory.limit_in_bytes": new_limit, "memory.memsw.limit_in_bytes": new_limit + new_swap}


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (HostConfig(cpuset_cpus="99"), "Requested CPUs are not available - requested 99, available: 0-1"),
        (HostConfig(cpuset_cpus="x"), "Invalid value x for cpuset cpus: invalid format: x"),
        (HostConfig(cpuset_cpus="0-99999999999"), "invalid format"),
        (HostConfig(cpuset_mems="7"), "Requested memory nodes are not available - requested 7, available: 0"),
        (HostConfig(nano_cpus=3 * 10**9), "range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available"),
        (HostConfig(blkio_weight=5), "Range of blkio weight is from 10 to 1000"),
    ],
)
def test_what_is_not_there_is_refused(host, text):
    with pytest.raises(Invalid, match=text):
        resources.fit(host, ABLE)


def test_what_the_kernel_cannot_is_discarded_with_a_warning():
    weak = Abilities(1, "0", "0", 1, **dict.fromkeys(FLAGS, False))
    fitted, warnings = resources.fit(HostConfig(memory=8 * MIB, memory_swappiness=0, blkio_weight=300, oom_kill_disable=True), weak)
    assert (fitted.memory_swap, fitted.memory_swappiness, fitted.blkio_weight, fitted.oom_kill_disable) == (-1, None, 0, None)
    assert [warning.split(".")[0] for warning in warnings] == [
        "Your kernel does not support swap limit capabilities or the cgroup is not mounted",
        "Your kernel does not support memory swappiness capabilities or the cgroup is not mounted",
        "Your kernel does not support OomKillDisable",
        "Your kernel does not support Block I/O weight or the cgroup is not mounted",
    ]


@given(st.sets(st.integers(0, 300), min_size=1))
def test_kernel_lists(numbers):
    assert resources.parse_set(",".join(map(str, numbers))) == numbers
    assert resources.parse_set(f"{min(numbers)}-{max(numbers)}") == set(range(min(numbers), max(numbers) + 1))
