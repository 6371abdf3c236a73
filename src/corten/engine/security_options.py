"""What a container asks of the security of its processes: --security-opt and capabilities, checked with Docker's texts. Pure.

Source: Docker Engine 28.5 (moby daemon/daemon_unix.go parseSecurityOpt, oci/caps). SELinux labels are taken and have no effect, as in
a Docker engine without --selinux-enabled; an AppArmor profile has one where the kernel has AppArmor (confinement.py).
"""

from __future__ import annotations

from corten.errors import Invalid
from corten.linux.capabilities import NAMES as ALL_CAPABILITIES
from corten.spec.engine import HostConfig
from corten.spec.seccomp_profile import parse_profile
from corten.spec.security import DEFAULT_CAPABILITIES

_BARE = ("no-new-privileges", "writable-cgroups", "disable")
_KEYS = ("label", "apparmor", "seccomp", "no-new-privileges", "writable-cgroups")
_TRUE, _FALSE = frozenset(("1", "t", "T", "true", "TRUE", "True")), frozenset(("0", "f", "F", "false", "FALSE", "False"))


def security_options(host: HostConfig) -> list[tuple[str, str]]:
    """(key, value) of each, split at the first `=`, else the first `:`; a bare key has the value `true`."""
    found = []
    for option in host.security_opt or []:
        if option in _BARE:
            found.append((option, "true"))
            continue
        key, _, value = option.partition("=" if "=" in option else ":")
        found.append((key, value))
    return found


def check_security(host: HostConfig) -> None:
    """Raises Invalid."""
    for option, (key, value) in zip(host.security_opt or [], security_options(host), strict=True):
        if option not in _BARE and "=" not in option and ":" not in option:
            raise Invalid(f'invalid --security-opt 1: "{option}"')
        if option not in _BARE and key not in _KEYS:
            raise Invalid(f'invalid --security-opt 2: "{option}"')
        if key in ("no-new-privileges", "writable-cgroups") and value not in _TRUE | _FALSE:
            raise Invalid(f'invalid --security-opt 2: "{option}"')
        if key == "seccomp" and value not in ("", "unconfined", "builtin"):
            parse_profile(value)
    _check_capabilities("CapAdd", host.cap_add)
    _check_capabilities("CapDrop", host.cap_drop)


def _last(host: HostConfig, key: str) -> str:
    """The last one counts."""
    return next((value for name, value in reversed(security_options(host)) if name == key), "")


def no_new_privileges(host: HostConfig) -> bool:
    return _last(host, "no-new-privileges") in _TRUE


def writable_cgroups(host: HostConfig) -> bool:
    """Docker's default: only for privileged containers."""
    asked = _last(host, "writable-cgroups")
    return asked in _TRUE if asked else host.privileged


def seccomp_profile(host: HostConfig) -> str:
    """`unconfined`, the text of a profile, or empty for the built-in one."""
    asked = _last(host, "seccomp")
    return "" if asked == "builtin" else asked


def _normal(name: str) -> str:
    upper = name.upper()
    return upper if upper == "ALL" or upper.startswith("CAP_") else f"CAP_{upper}"


def _check_capabilities(key: str, names: list[str] | None) -> None:
    for name in map(_normal, names or []):
        if name != "ALL" and name not in ALL_CAPABILITIES:
            raise Invalid(f'invalid {key}: unknown capability: "{name}"')


def wanted_capabilities(host: HostConfig, there: tuple[str, ...]) -> list[str]:
    """Docker's rule: the default set, or all that are there with `privileged` or ALL, minus drops, plus adds."""
    adds, drops = list(map(_normal, host.cap_add or [])), list(map(_normal, host.cap_drop or []))
    if host.privileged:
        return list(there)
    base = list(there) if "ALL" in adds else [] if "ALL" in drops else list(DEFAULT_CAPABILITIES)
    kept = [name for name in base if name not in drops]
    return kept + [name for name in adds if name != "ALL" and name not in kept]
