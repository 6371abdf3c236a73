"""Which AppArmor profile a container's processes run under, and that the kernel has it.

Docker's rule (moby daemon/apparmor_default.go, oci_linux.go): what `--security-opt apparmor=` names, else `unconfined` with
`privileged`, else `docker-default`, which is loaded when it is first needed. Where the kernel has no AppArmor, or nobody
compiles a profile for it, none is written; one that was asked for is then refused.
"""

from __future__ import annotations

import logging
from functools import cache

from corten.engine.records import ContainerRecord
from corten.engine.security_options import security_options
from corten.errors import Invalid, KernelRefused
from corten.linux import apparmor
from corten.spec.apparmor import DEFAULT_PROFILE, UNCONFINED, default_profile
from corten.spec.engine import HostConfig

_log = logging.getLogger("corten.engine")


def asked_for(settings: HostConfig) -> str:
    """The profile that the request names, `unconfined` included; empty without one. The last of several holds."""
    return ([value for key, value in security_options(settings) if key == "apparmor"] or [""])[-1]


def chosen(settings: HostConfig) -> str:
    """Pure: the profile's name on a host that has AppArmor."""
    return asked_for(settings) or (UNCONFINED if settings.privileged else DEFAULT_PROFILE)


def check(settings: HostConfig) -> None:
    """Raises Invalid for a profile that this host cannot enforce."""
    name = asked_for(settings)
    if name in ("", UNCONFINED) or supported():
        return
    lacks = "apparmor_parser is not installed" if apparmor.enabled() else "this kernel has no AppArmor"
    raise Invalid(f"--security-opt apparmor={name}: {lacks}; use apparmor={UNCONFINED}, or leave it out")


@cache
def supported() -> bool:
    """Asked once: neither the kernel's AppArmor nor the parser comes and goes under a running engine."""
    if apparmor.enabled() and not apparmor.parser():
        _log.warning("this kernel has AppArmor, but apparmor_parser is not installed: containers run without a profile")
        return False
    return apparmor.enabled()


def profile(settings: HostConfig) -> str:
    """For a process about to start; empty where there is no AppArmor. Raises KernelRefused if the default cannot be loaded."""
    if not supported():
        return ""
    name = chosen(settings)
    if name == DEFAULT_PROFILE:
        _load_default()
    return name


def shown(record: ContainerRecord) -> str:
    """What inspect says: from the first start on the profile, before it only what was asked for (Docker 28.5)."""
    if not supported() or record.state.status == "created":
        return asked_for(record.host_config)
    return chosen(record.host_config)


def _load_default() -> None:
    try:
        if DEFAULT_PROFILE not in apparmor.profiles():  # another engine's of that name is as good
            apparmor.load(default_profile())
    except OSError as error:
        raise KernelRefused(operation="load AppArmor profile", operand=DEFAULT_PROFILE, errno=error.errno or 0, reason=error.strerror or str(error)) from None
