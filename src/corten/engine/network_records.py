"""What is stored of a network: a frozen value, one row; and what it means for the kernel. Pure."""

from __future__ import annotations

from functools import cached_property
from ipaddress import IPv4Network, ip_address, ip_interface, ip_network

import msgspec

from corten.network.bridge_options import BridgeOptions, parse_options
from corten.network.ipam import Range
from corten.network.plan import Bridge
from corten.spec.network import IpamPool

BUILTIN = ("bridge", "host", "none")
DRIVERS = ("bridge", "host", "null", "macvlan", "ipvlan")


class SubnetRecord(msgspec.Struct, frozen=True):
    """One subnet as it was settled: every value in canonical text."""

    subnet: str
    part: str
    gateway: str
    reserved: list[str] = []


class NetworkRecord(msgspec.Struct, frozen=True, dict=True):
    """`asked` is the IPAM configuration as the client sent it; `link` is the host's: the bridge, or a macvlan's parent."""

    id: str
    name: str
    created: str
    driver: str
    link: str = ""
    link_made: bool = True  # by us, to be removed by us; one that was there before is its owner's
    ipv4: bool = True
    ipv6: bool = False
    ipam_driver: str = "default"
    ipam_options: dict[str, str] | None = None
    asked: list[IpamPool] = []
    subnets: list[SubnetRecord] = []
    internal: bool = False
    attachable: bool = False
    config_only: bool = False
    config_from: str = ""
    options: dict[str, str] = {}
    labels: dict[str, str] = {}

    @property
    def builtin(self) -> bool:
        return self.name in BUILTIN

    @cached_property
    def bridge_options(self) -> BridgeOptions:
        return parse_options(self.options, internal=self.internal)

    @cached_property
    def _ranges(self) -> tuple[Range, ...]:
        return tuple(map(parse_subnet, self.subnets))

    def ranges(self, version: int) -> list[Range]:
        return [row for row in self._ranges if row.subnet.version == version]

    def asked_for_subnet(self, version: int) -> bool:
        return any(ip_network(pool.subnet).version == version for pool in self.asked)


def parse_subnet(row: SubnetRecord) -> Range:
    gateway = ip_address(row.gateway) if row.gateway else None
    return Range(ip_network(row.subnet), ip_network(row.part), gateway, frozenset(map(ip_address, row.reserved)))


def subnet_record(row: Range) -> SubnetRecord:
    return SubnetRecord(str(row.subnet), str(row.part), str(row.gateway or ""), sorted(map(str, row.reserved)))


def bridge_of(network: NetworkRecord) -> Bridge:
    """The bridge that a network of that driver wants."""
    options = network.bridge_options
    rows = [parse_subnet(row) for row in network.subnets]
    addresses = []
    for row in rows:
        four = isinstance(row.subnet, IPv4Network)
        hidden = (options.mode4 if four else options.mode6) == "isolated" or (four and options.without_gateway4)
        if row.gateway and not hidden:
            addresses.append(ip_interface(f"{row.gateway}/{row.subnet.prefixlen}"))
    return Bridge(
        network.link, tuple(addresses), tuple(row.subnet for row in rows), options.mtu, network.internal, options.icc,
        options.masquerade, options.mode4, options.mode6, options.source4, options.source6,
    )  # fmt: skip


_decoder = msgspec.json.Decoder(NetworkRecord)
decode_network = _decoder.decode
encode_network = msgspec.json.Encoder().encode
