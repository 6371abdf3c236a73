"""Devices that a container gets: looking at the host's, and deciding nodes and rules from what was seen.

Source: Docker Engine 28.5 (moby oci/devices_linux.go): texts, a folder stands for the devices in it, unknown permission letters mean
nothing. CDI devices are cdi.py's.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress

from corten.errors import Invalid
from corten.spec import runtime as oci
from corten.spec.engine import DeviceMapping, HostConfig

_RULE = re.compile(r"([acb]) ([0-9]+|\*):([0-9]+|\*) ([rwm]{1,3})")
_LARGEST = (1 << 32) - 1
_NOT_SHARED = ("/dev/pts", "/dev/shm", "/dev/mqueue", "/dev/fd", "/dev/console", "/dev/.udev")
Statuses = Mapping[str, os.stat_result]


def look(settings: HostConfig) -> dict[str, os.stat_result]:
    """Status of every device that the request names; with `privileged`, of all devices of the host. Raises Invalid."""
    found: dict[str, os.stat_result] = {}
    for device in settings.devices or []:
        found |= _look_at(device.path_on_host)
    for listed in (settings.blkio_weight_device, settings.blkio_device_read_bps, settings.blkio_device_write_bps,
                   settings.blkio_device_read_iops, settings.blkio_device_write_iops):  # fmt: skip
        for limited in listed or []:
            try:
                found[limited.path] = os.stat(limited.path)
            except (OSError, ValueError) as error:
                raise Invalid(f"stat {limited.path}: {_reason(error)}") from None
    if settings.privileged:
        found |= dict(_below("/dev"))
    return found


def _look_at(path: str) -> dict[str, os.stat_result]:
    failed = f'error gathering device information while adding custom device "{path}": '
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:
        raise Invalid(failed + _reason(error)) from None
    if stat.S_ISDIR(status.st_mode):
        inside = dict(_below(os.path.realpath(path)))
        return {path + name.removeprefix(os.path.realpath(path)): status for name, status in inside.items()}
    if not _is_device(status):
        raise Invalid(failed + "not a device node")
    return {path: status}


def _reason(error: OSError | ValueError) -> str:
    return (error.strerror or "").lower() if isinstance(error, OSError) else str(error)


def _is_device(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)


def _below(top: str) -> Iterator[tuple[str, os.stat_result]]:
    for folder, folders, names in os.walk(top):
        folders[:] = [name for name in folders if os.path.join(folder, name) not in _NOT_SHARED]
        for name in names:
            path = os.path.join(folder, name)
            with suppress(OSError):
                status = os.lstat(path)
                if path not in _NOT_SHARED and _is_device(status):
                    yield path, status


def _meant(device: DeviceMapping, there: Statuses) -> Iterator[tuple[str, os.stat_result]]:
    """(path inside, status) of each device of a mapping."""
    inside = device.path_in_container or device.path_on_host
    if device.path_on_host in there:
        yield inside, there[device.path_on_host]
        return
    for path, status in there.items():
        if path.startswith(device.path_on_host.rstrip("/") + "/"):
            yield inside.rstrip("/") + path.removeprefix(device.path_on_host.rstrip("/")), status


def make_devices(settings: HostConfig, there: Statuses) -> list[oci.Device]:
    found = [make_device(path, status) for device in settings.devices or [] for path, status in _meant(device, there)]
    if settings.privileged:
        mapped = {device.path for device in found}
        found += [make_device(path, status) for path, status in there.items() if path not in mapped and path.startswith("/dev/")]
    return found


def make_device(path: str, status: os.stat_result) -> oci.Device:
    kind = "b" if stat.S_ISBLK(status.st_mode) else "c"
    return oci.Device(path, kind, os.major(status.st_rdev), os.minor(status.st_rdev), stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)


def make_rules(settings: HostConfig, there: Statuses) -> list[oci.DeviceRule]:
    if settings.privileged:
        return [oci.DeviceRule(True, "rwm")]
    rules = [oci.DeviceRule(False, "rwm")]
    for device in settings.devices or []:
        access = "".join(letter for letter in "rwm" if letter in (device.cgroup_permissions or "rwm"))
        for path, status in _meant(device, there):
            made = make_device(path, status)
            rules.append(oci.DeviceRule(bool(access), access or "rwm", made.type, made.major, made.minor))
    return rules + [parse_rule(text) for text in settings.device_cgroup_rules or []]


def check_rules(settings: HostConfig) -> None:
    """Raises Invalid."""
    for text in settings.device_cgroup_rules or []:
        parse_rule(text)


def parse_rule(text: str) -> oci.DeviceRule:
    """`c 1:3 rwm`, with `*` for any number. Raises Invalid."""
    match = _RULE.fullmatch(text)
    numbers = [None if number == "*" else int(number) for number in match.groups()[1:3]] if match else []
    if not match or any(number is not None and number > _LARGEST for number in numbers):
        raise Invalid(f"invalid device cgroup rule format: '{text}'")
    return oci.DeviceRule(True, match[4], match[1], *numbers)
