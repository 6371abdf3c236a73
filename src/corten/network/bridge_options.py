"""The options of the bridge driver, from Docker's keys to typed values. Pure; texts are Docker Engine 28.5's (libnetwork bridge).

A key that no driver knows is kept and means nothing, as with Docker.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

from corten.errors import CortenError, Invalid

_PREFIX = "com.docker.network."
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
_MODES = ("nat", "nat-unprotected", "routed", "isolated")


_ANYWHERE = IPv4Address("0.0.0.0")
_LONGEST_NAME = 15  # bytes of a link's name


@dataclass(frozen=True)
class BridgeOptions:
    name: str = ""
    mtu: int = 1500  # 0 in a request means this, too
    icc: bool = True
    masquerade: bool = True
    binding4: IPv4Address = _ANYWHERE
    mode4: str = "nat"
    mode6: str = "nat"
    source4: IPv4Address | None = None
    source6: IPv6Address | None = None
    interface_prefix: str = "eth"
    without_gateway4: bool = False  # inhibit_ipv4: the bridge has no address of its own
    default: bool = False  # the engine's own bridge, which no client makes
    trusted: tuple[str, ...] = ()  # links of the host by which published ports are reached at the containers' own addresses


class _Refused(CortenError):
    """Docker answers 500 here; the text is what matters."""


def _flag(text: str) -> bool:
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _number(text: str) -> int:
    if not re.fullmatch(r"[+-]?\d+", text):
        raise ValueError(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


def _ipv4(text: str) -> IPv4Address:
    try:
        return IPv4Address(text)
    except ValueError:
        raise ValueError("nil ip") from None


def _ipv6(text: str) -> IPv6Address:
    try:
        return IPv6Address(text)
    except ValueError:
        raise ValueError("nil ip") from None


def _names(text: str) -> tuple[str, ...]:
    found = tuple(filter(None, text.split(":")))
    for name in found:
        if len(name.encode()) > _LONGEST_NAME:
            raise ValueError(f"no interface can be named {name}")
    return found


def _mode(text: str) -> str:
    if text not in ("", *_MODES):
        raise ValueError(f"unknown gateway mode {text}")
    return text or "nat"


# key -> (field, how its text is read)
_KEYS: dict[str, tuple[str, Callable[[str], object]]] = {
    "bridge.name": ("name", str),
    "driver.mtu": ("mtu", _number),
    "bridge.enable_icc": ("icc", _flag),
    "bridge.enable_ip_masquerade": ("masquerade", _flag),
    "bridge.host_binding_ipv4": ("binding4", _ipv4),
    "bridge.gateway_mode_ipv4": ("mode4", _mode),
    "bridge.gateway_mode_ipv6": ("mode6", _mode),
    "bridge.inhibit_ipv4": ("without_gateway4", _flag),
    "bridge.default_bridge": ("default", _flag),
    "bridge.trusted_host_interfaces": ("trusted", _names),
    "host_ipv4": ("source4", _ipv4),
    "host_ipv6": ("source6", _ipv6),
    "container_iface_prefix": ("interface_prefix", str),
}  # fmt: skip


def parse_options(options: Mapping[str, str], *, internal: bool) -> BridgeOptions:
    """Raises Invalid naming the key and the value."""
    fields: dict[str, object] = {}
    for key, text in options.items():
        if key.startswith(_PREFIX) and (row := _KEYS.get(key.removeprefix(_PREFIX))):
            name, read = row
            try:
                fields[name] = read(text)
            except ValueError as error:
                raise Invalid(f"failed to parse {key} value: {text} ({error})") from None
    found = BridgeOptions(**fields)  # type: ignore[arg-type]  # the table pairs each field with its reader
    _check(found, internal=internal)
    return found if found.mtu else replace(found, mtu=BridgeOptions.mtu)


def _check(found: BridgeOptions, *, internal: bool) -> None:
    if found.mtu < 0:
        raise Invalid(f"invalid MTU number: {found.mtu}")
    if found.mtu > 65535 or 0 < found.mtu < 68:
        raise Invalid(f"invalid MTU number: {found.mtu}: want 68 to 65535")
    if len(found.name) > 15:
        raise _Refused("numerical result out of range")
    if "isolated" in (found.mode4, found.mode6) and not internal:
        raise _Refused("gateway mode 'isolated' can only be used for an internal network")
    if not re.fullmatch(r"[^/:\s]{1,11}", found.interface_prefix):
        raise Invalid(f"invalid interface name prefix {found.interface_prefix!r}")
    if found.name and not re.fullmatch(r"[^/:\s]+", found.name):
        raise Invalid(f"invalid bridge name {found.name!r}")
