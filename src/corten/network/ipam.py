"""Choosing subnets and addresses. Pure: what is taken comes in, what is chosen goes out.

Source: Docker Engine 28.5 (libnetwork ipamutils: the default pools and their order).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Any

from corten.errors import CortenError, Invalid

Address = IPv4Address | IPv6Address
Subnet = IPv4Network | IPv6Network


@dataclass(frozen=True)
class Pool:
    """Subnets of one size (a prefix length) are cut from `base`, lowest first."""

    base: Subnet
    size: int


# Docker's 31, in Docker's order; then 4,096 more, because 31 are soon used up.
DEFAULT_POOLS: tuple[Pool, ...] = (
    *(Pool(IPv4Network(f"172.{second}.0.0/16"), 16) for second in range(17, 32)),
    Pool(IPv4Network("192.168.0.0/16"), 20),
    Pool(IPv4Network("10.128.0.0/9"), 21),
)


class PoolsExhausted(CortenError):
    template = "could not find an available, non-overlapping {family} address pool among the defaults to assign to the network"


class SubnetFull(CortenError):
    template = "no available {family} addresses on this network's address pools: {subnet}"


class AddressTaken(CortenError):
    status = 403
    template = "Address already in use"


@dataclass(frozen=True)
class Range:
    """One subnet of a network: containers get addresses from `part`; what is `reserved` (gateway, auxiliary) is never given."""

    subnet: Subnet
    part: Subnet
    gateway: Address | None
    reserved: frozenset[Address] = frozenset()


def ula_pool(seed: str) -> Pool:
    """The host's own IPv6 pool (RFC 4193): a /48 that is derived from the engine's id, in /64s."""
    digest = hashlib.sha256(seed.encode()).digest()
    return Pool(IPv6Network((b"\xfd" + digest[:5] + bytes(10), 48)), 64)


def parse_pools(rows: Iterable[Any]) -> tuple[Pool, ...]:
    """`default-address-pools` of daemon.json: objects with base and size. Raises Invalid."""
    found: list[Pool] = []
    for row in rows:
        try:
            base, size = ip_network(row["base"], strict=False), int(row["size"])
        except (ValueError, KeyError, TypeError):
            raise Invalid(f'default-address-pools: {row!r}: want {{"base": "10.10.0.0/16", "size": 24}}') from None
        if not base.prefixlen <= size <= base.max_prefixlen:
            raise Invalid(f"default-address-pools: the size {size} is out of range for {base}")
        found.append(Pool(base, size))
    return tuple(found)


def choose_subnet(pools: Sequence[Pool], in_use: Iterable[Subnet], version: int = 4) -> Subnet:
    """The first subnet of the pools that overlaps nothing in use. Raises PoolsExhausted."""
    spans = _merged((int(net.network_address), int(net.broadcast_address)) for net in in_use if net.version == version)
    starts = [start for start, _ in spans]
    for pool in pools:
        if pool.base.version != version:
            continue
        step = 1 << (pool.base.max_prefixlen - pool.size)
        candidate, last = int(pool.base.network_address), int(pool.base.broadcast_address)
        while candidate + step - 1 <= last:
            at = bisect_right(starts, candidate + step - 1) - 1
            if at < 0 or spans[at][1] < candidate:
                kind = IPv4Network if version == 4 else IPv6Network
                return kind((candidate, pool.size))
            candidate = (spans[at][1] // step + 1) * step  # behind whatever is in the way
    raise PoolsExhausted(family=f"IPv{version}")


def _merged(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Sorted, and overlapping ones joined."""
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(found[-1][1], end))
        else:
            found.append((start, end))
    return found


def choose_gateway(subnet: Subnet, part: Subnet, taken: Iterable[Address]) -> Address:
    """Docker's: the first free address of the range, which is the range's very first one if that is not the subnet's own."""
    return _lowest(subnet, part, set(taken))


def choose_address(rows: Sequence[Range], taken: Iterable[Address]) -> tuple[Address, Range]:
    """The lowest free host address of the first range that has one. Raises SubnetFull."""
    used = set(taken)
    for row in rows:
        try:
            return _lowest(row.subnet, row.part, used | row.reserved), row
        except SubnetFull:
            if row is rows[-1]:
                raise
    raise SubnetFull(family="IP", subnet="none")


def own_addresses(subnet: Subnet) -> frozenset[Address]:
    """Those that no host can have: of an IPv4 subnet of more than two addresses the first and the last."""
    if subnet.version == 6 or subnet.prefixlen >= 31:
        return frozenset()
    return frozenset({subnet.network_address, subnet.broadcast_address})


def take_address(rows: Sequence[Range], wanted: Address, taken: Iterable[Address]) -> tuple[Address, Range]:
    """A fixed address. Raises AddressTaken, or Invalid if no subnet has it."""
    for row in rows:
        if wanted.version == row.subnet.version and wanted in row.subnet:
            if wanted in row.reserved or wanted in own_addresses(row.subnet) or wanted in set(taken):
                raise AddressTaken
            return wanted, row
    raise Invalid(f"invalid endpoint settings:\nno configured subnet or ip-range contain the IP address {wanted}")


def _lowest(subnet: Subnet, part: Subnet, used: set[Address]) -> Address:
    last = int(part.broadcast_address)
    if subnet.version == 4 and subnet.prefixlen < 31:
        last = min(last, int(subnet.broadcast_address) - 1)
    first = int(part.network_address)
    if subnet.prefixlen < subnet.max_prefixlen - 1:
        first = max(first, int(subnet.network_address) + 1)
    taken = {int(address) for address in used if address.version == subnet.version}
    number = first
    while number in taken:
        number += 1
    if number > last:
        raise SubnetFull(family=f"IPv{subnet.version}", subnet=subnet)
    return IPv4Address(number) if subnet.version == 4 else IPv6Address(number)


def mac_for(address: Address) -> str:
    """A locally administered MAC that is unique where the address is."""
    if isinstance(address, IPv4Address):
        return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)
    return "02:" + ":".join(f"{byte:02x}" for byte in hashlib.sha256(address.packed).digest()[:5])
