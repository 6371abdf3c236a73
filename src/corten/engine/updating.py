"""Update: new limits and another restart policy for a container that is there, live if it runs.

The kernel's files are written by the engine itself, whoever runs the container: a group is a group.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from msgspec.structs import replace

from corten.engine import bundle, resources, states
from corten.engine.containers import Containers
from corten.engine.groups import Groups
from corten.engine.records import ContainerRecord
from corten.engine.restarts import check_policy
from corten.errors import CannotUpdate, LimitRefused
from corten.linux.cgroup import Cgroup, Setting
from corten.linux.cgroup_settings import settings_for
from corten.spec.engine import HostConfig, RestartPolicy, UpdateRequest

# What the kernel takes together: who changes one of a row needs all of it.
_TOGETHER = (
    ("memory", "memory_swap"), ("memory_reservation",), ("nano_cpus", "cpu_period", "cpu_quota"), ("cpu_shares",),
    ("cpuset_cpus",), ("cpuset_mems",), ("blkio_weight",), ("pids_limit",),
)  # fmt: skip
_LIMITS = tuple(name for row in _TOGETHER for name in row)


class Updating:
    def __init__(self, containers: Containers, groups: Groups) -> None:
        self._containers, self._groups = containers, groups

    async def update(self, record: ContainerRecord, request: UpdateRequest) -> list[str]:
        """Returns warnings. Raises Invalid, CannotUpdate, LimitRefused; then nothing has changed."""
        asked = as_host_config(request)
        resources.check_resources(asked, update=True)
        asked, warnings = resources.fit(asked, self._groups.abilities)
        policy = request.restart_policy
        if policy and policy.name:
            check_policy(RestartPolicy(policy.name, policy.maximum_retry_count))
        async with self._containers.lock(record.id):
            before = self._containers.find(record.id)
            states.check("update", before)
            after = merge(before.id, before.host_config, asked, request)
            if states.is_running(before):
                self._write(before, after)
            updated = self._containers.save(replace(before, host_config=after))
            self._containers.emit("update", updated)
        return warnings

    def _write(self, record: ContainerRecord, after: HostConfig) -> None:
        group = self._groups.of(record)
        settings = live_settings(record.host_config, after, unified=self._groups.unified)
        previous: list[Setting] = []
        try:
            previous += [_as_it_is(setting, group) for setting in settings]
            group.apply(settings, None)
        except OSError as error:
            gone = error.errno == errno.ENODEV or (error.errno == errno.ENOENT and not os.path.isdir(os.path.dirname(error.filename or "")))
            if gone:
                return  # it has just ended, and its group with it: what is stored holds from the next start
            for setting in reversed(previous):
                with suppress(OSError):
                    group.apply([setting], None)
            raise LimitRefused(id=record.id, file=error.filename, reason=error.strerror or str(error)) from None


def _as_it_is(setting: Setting, group: Cgroup) -> Setting:
    """The same file as it is now."""
    return Setting(setting.controller, setting.file, group.read(setting.controller, setting.file).strip(), setting.optional)


def as_host_config(request: UpdateRequest) -> HostConfig:
    """Pure: what the request asks for, everything else unset. Any limit below one process means none (moby postContainerUpdate)."""
    asked = replace(HostConfig(), **{name: getattr(request, name) for name in (*_LIMITS, "memory_swappiness", "oom_kill_disable")})
    if asked.pids_limit is not None and asked.pids_limit <= 0:
        return replace(asked, pids_limit=0)
    return asked


def merge(container_id: str, before: HostConfig, asked: HostConfig, request: UpdateRequest) -> HostConfig:
    """Pure. Raises CannotUpdate for what does not go with what holds already."""

    def refuse(reason: str) -> None:
        raise CannotUpdate(id=container_id, reason=reason)

    for field, name in (("cpu_period", "CPU Period"), ("cpu_quota", "CPU Quota")):
        if asked.nano_cpus > 0 and getattr(before, field) > 0:
            refuse(f"Conflicting options: Nano CPUs cannot be updated as {name} has already been set")
        if getattr(asked, field) > 0 and before.nano_cpus > 0:
            refuse(f"Conflicting options: {name} cannot be updated as NanoCPUs has already been set")
    if asked.memory and asked.memory_swap == 0 and asked.memory > before.memory_swap:
        refuse("Memory limit should be smaller than already set memoryswap limit, update the memoryswap at the same time")
    changes = {name: getattr(asked, name) for name in _LIMITS if getattr(asked, name) not in (0, "", None)}
    if asked.pids_limit is not None:
        changes["pids_limit"] = asked.pids_limit
    policy = request.restart_policy
    if policy and policy.name:
        if before.auto_remove and policy.name != "no":
            refuse("Restart policy cannot be updated because AutoRemove is enabled for the container")
        changes["restart_policy"] = RestartPolicy(policy.name, policy.maximum_retry_count)
    return replace(before, **changes)


def live_settings(before: HostConfig, after: HostConfig, *, unified: bool) -> list[Setting]:
    """Pure: what to write into the group so that `after` holds where `before` did."""
    changed: dict[str, object] = {}
    for row in _TOGETHER:
        if any(getattr(before, name) != getattr(after, name) for name in row):
            changed |= {name: getattr(after, name) for name in row}
    if changed.get("pids_limit") == 0:
        changed["pids_limit"] = -1
    settings = settings_for(bundle.make_resources(replace(HostConfig(), **changed), {}), unified=unified)
    # The kernel keeps limit <= limit + swap at every moment (version 1): a limit above the old sum has to come second.
    if 0 < before.memory_swap < after.memory:
        settings.sort(key=lambda setting: setting.file != "memory.memsw.limit_in_bytes")
    return settings
