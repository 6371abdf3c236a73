"""A container's places on networks as a client asks for them: merged at creation, checked on every connect. Pure.

Texts and statuses are Docker Engine 28.5's (moby api/types/network endpoint, daemon container_operations).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

import msgspec

from corten.engine import links
from corten.engine.network_records import NetworkRecord
from corten.engine.networks import Networks
from corten.engine.records import EndpointRecord
from corten.errors import Invalid
from corten.spec.engine import CreateRequest, EndpointSettings, HostConfig

_MAC = re.compile(r"[0-9a-fA-F]{2}([:-][0-9a-fA-F]{2}){5}")
_INTERFACE = re.compile(r"[^/:\s]{1,15}")
IFNAME, SYSCTLS = "com.docker.network.endpoint.ifname", "com.docker.network.endpoint.sysctls"
Known = Callable[[str], NetworkRecord | None]


def check_mac(mac: str) -> None:
    if mac and not _MAC.fullmatch(mac):
        raise Invalid(f"invalid MAC address {mac}")


def check_network_mode(request: CreateRequest, host: HostConfig) -> None:
    """What a container with somebody else's network cannot have. Raises Invalid with Docker's text."""
    mode = host.network_mode
    if mode == "host" and host.links:
        raise Invalid("conflicting options: host type networking can't be used with links. This would result in undefined behavior")
    if not mode.startswith("container:"):
        return
    conflicts: tuple[tuple[object, str], ...] = (
        (request.hostname, "hostname and the network mode"),
        (host.links, "container type network can't be used with links. This would result in undefined behavior"),
        (host.dns, "dns and the network mode"),
        (host.extra_hosts, "custom host-to-IP mapping and the network mode"),
        (request.mac_address, "mac-address and the network mode"),
        (host.port_bindings or host.publish_all_ports, "port publishing and the container type network mode"),
        (request.exposed_ports, "port exposing and the container type network mode"),
    )
    for value, text in conflicts:
        if value:
            raise Invalid(f"conflicting options: {text}")


def warnings(request: CreateRequest, host: HostConfig) -> list[str]:
    found = []
    if request.mac_address:
        found.append("The container-wide MacAddress field is now deprecated. It should be specified in EndpointsConfig instead.")
    if host.network_mode == "host" and (host.port_bindings or host.publish_all_ports):
        found.append("Published ports are discarded when using host network mode")
    return found


def places(request: CreateRequest, host: HostConfig, known: Known) -> list[EndpointRecord]:
    """The endpoints of a new container, the one of NetworkMode first. Raises Invalid."""
    primary = Networks.name_of_mode(host.network_mode)
    asked: dict[str, EndpointSettings] = {}
    for name, settings in ((request.networking_config and request.networking_config.endpoints_config) or {}).items():
        asked[_canonical(Networks.name_of_mode(name), known)] = settings or EndpointSettings()
    if not primary:
        if asked:
            raise Invalid("conflicting options: cannot attach user-defined network to a container with the container type network mode")
        return []
    primary = _canonical(primary, known)
    first = asked.pop(primary, EndpointSettings())
    if request.mac_address:
        if first.mac_address not in ("", request.mac_address):
            raise Invalid("the container-wide MAC address must match the endpoint-specific MAC address for the main network, or be left empty")
        first = msgspec.structs.replace(first, mac_address=request.mac_address)
    first = links.of_endpoint(host, primary, first)
    found = [EndpointRecord(primary, first), *(EndpointRecord(name, settings) for name, settings in asked.items())]
    for place in found:
        try:
            check_mac(place.settings.mac_address)
        except Invalid as error:
            raise Invalid(f"invalid config for network {place.network}: {error.message}") from None
        network = known(place.network)
        faults = endpoint_faults(place.settings, place.network, network)
        if faults:
            raise Invalid(f"invalid config for network {place.network}: invalid endpoint settings:\n{_listed(faults)}")
    return found


def _canonical(name: str, known: Known) -> str:
    network = known(name)
    return network.name if network else name


def _listed(faults: list[str]) -> str:
    return faults[0] if len(faults) == 1 else "\n".join(f"* {fault}" for fault in faults)


def check_connect(settings: EndpointSettings, network: NetworkRecord) -> None:
    """Raises Invalid."""
    check_mac(settings.mac_address)
    faults = endpoint_faults(settings, network.name, network)
    if faults:
        raise Invalid(f"invalid endpoint settings:\n{_listed(faults)}")


def endpoint_faults(settings: EndpointSettings, name: str, network: NetworkRecord | None) -> list[str]:
    """`network` is None if there is none of the name (yet)."""
    user_defined = name not in ("bridge", "host", "none")
    faults: list[str] = []
    if settings.ipam and (settings.ipam.ipv4 or settings.ipam.ipv6) and not user_defined:
        faults.append("user specified IP address is supported on user defined networks only")
    if settings.aliases and not user_defined:
        faults.append("network-scoped alias is supported only for containers in user defined networks")
    for text, version, address in _fixed_addresses(settings, faults):
        if network is None:
            continue
        if not network.asked_for_subnet(version):
            faults.append("user specified IP address is supported only when connecting to networks with user configured subnets")
        elif address is None or not any(address in row.subnet for row in network.ranges(version)):
            faults.append(f"no configured subnet or ip-range contain the IP address {text}")
    faults += _option_faults(settings)
    return faults


def _fixed_addresses(settings: EndpointSettings, faults: list[str]) -> list[tuple[str, int, IPv4Address | IPv6Address | None]]:
    """(as it was written, IP version, address) of each; no address for what is none."""
    found: list[tuple[str, int, IPv4Address | IPv6Address | None]] = []
    ipam = settings.ipam
    if ipam is None:
        return found
    for text, kind, version in ((ipam.ipv4, IPv4Address, 4), (ipam.ipv6, IPv6Address, 6)):
        if text:
            try:
                found.append((text, version, kind(text)))
            except ValueError:
                faults.append(f"invalid IPv{version} address: {text}")
                found.append((text, version, None))
    for text in ipam.link_local or []:
        try:
            link_local_interface(text)
        except ValueError:
            faults.append(f"invalid link-local IP address: {text}")
    return found


def link_local_interface(text: str) -> str:
    """With the prefix that link-local addresses have. Raises ValueError."""
    try:
        return f"{IPv4Address(text)}/16"
    except ValueError:
        return f"{IPv6Address(text)}/64"


def _option_faults(settings: EndpointSettings) -> list[str]:
    options, faults = settings.driver_opts or {}, []
    name = options.get(IFNAME, "")
    if name and not _INTERFACE.fullmatch(name):
        faults.append(f"invalid interface name {name!r}")
    try:
        parse_sysctls(options.get(SYSCTLS, ""), "eth0")
    except ValueError as error:
        faults.append(str(error))
    return faults


def parse_sysctls(text: str, interface: str) -> tuple[tuple[str, str], ...]:
    """`net.ipv4.conf.IFNAME.log_martians=1,...` -> (path under /proc/sys, value). Raises ValueError."""
    found: list[tuple[str, str]] = []
    for entry in filter(None, text.split(",")):
        key, equals, value = entry.partition("=")
        words = key.split(".")
        if not equals or len(words) != 5 or words[0] != "net" or words[1] not in ("ipv4", "ipv6", "mpls") or words[3] != "IFNAME" or "/" in key:
            raise ValueError(f"unrecognised network interface sysctl '{entry}'; represent 'net.X.Y.ethN.Z=V' as 'net.X.Y.IFNAME.Z=V', 'X' must be 'ipv4', 'ipv6' or 'mpls'")
        words[3] = interface
        found.append(("/".join(words), value))
    return tuple(found)
