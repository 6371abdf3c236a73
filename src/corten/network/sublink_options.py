"""The options of the macvlan and ipvlan drivers. Pure. Source: Docker Engine 28.5 (libnetwork drivers macvlan, ipvlan)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from corten.errors import Invalid

_MODES = {"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2", "l3", "l3s")}
_FLAGS = ("bridge", "private", "vepa")


@dataclass(frozen=True)
class SublinkOptions:
    """`parent` is a link of the host; with `vlan`, one that is made on `vlan_parent` if it is not there."""

    parent: str
    mode: str
    mtu: int = 0
    vlan_parent: str = ""
    vlan: int = 0


def parse_options(driver: str, options: Mapping[str, str]) -> SublinkOptions:
    """Raises Invalid naming the key and the value."""
    mode = options.get(f"{driver}_mode", "") or _MODES[driver][0]
    if mode not in _MODES[driver]:
        raise Invalid(f"requested {driver} mode '{mode}' is not valid, '{_MODES[driver][0]}' mode is the {driver} driver default")
    if driver == "ipvlan":
        flag = options.get("ipvlan_flag", "") or "bridge"
        if flag not in _FLAGS:
            raise Invalid(f"requested ipvlan flag '{flag}' is not valid, 'bridge' is the ipvlan driver default")
        mode = f"{mode},{flag}"
    parent = options.get("parent", "")
    if not parent:
        raise Invalid(f"a {driver} network needs a link of the host to sit on: -o parent=eth0")
    mtu = options.get("com.docker.network.driver.mtu", "0")
    if not mtu.isdecimal() or int(mtu) > 65535:
        raise Invalid(f"failed to parse com.docker.network.driver.mtu value: {mtu}")
    vlan = re.fullmatch(r"(.+)\.(\d+)", parent)
    if vlan and 1 <= int(vlan[2]) <= 4094:
        return SublinkOptions(parent, mode, int(mtu), vlan[1], int(vlan[2]))
    return SublinkOptions(parent, mode, int(mtu))
