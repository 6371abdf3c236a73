"""Choosing subnets and addresses. Pure: what is taken comes in, what is chosen goes out."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network

from corten.errors import CortenError

# Docker's default pools, in Docker's order (libnetwork ipamutils).
DEFAULT_POOLS = tuple(IPv4Network(f"172.{second}.0.0/16") for second in range(17, 32)) + tuple(
    IPv4Network(f"192.168.{third}.0/20") for third in range(0, 256, 16)
)


class PoolsExhausted(CortenError):
    template = "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network"


class SubnetFull(CortenError):
    template = "no available IPv4 addresses on this network's address pools: {subnet}"


def choose_subnet(in_use: Iterable[IPv4Network]) -> IPv4Network:
    """The first default pool that overlaps nothing that the host routes."""
    taken = list(in_use)
    for pool in DEFAULT_POOLS:
        if not any(pool.overlaps(other) for other in taken):
            return pool
    raise PoolsExhausted


def choose_address(subnet: IPv4Network, taken: Iterable[IPv4Address]) -> IPv4Address:
    """The lowest free host address; the first one is the gateway's. Raises SubnetFull."""
    used = set(taken)
    for number in range(2, subnet.num_addresses - 1):
        candidate = subnet.network_address + number
        if candidate not in used:
            return candidate
    raise SubnetFull(subnet=subnet)


def mac_for(address: IPv4Address) -> str:
    """A locally administered MAC that is unique where the address is."""
    return "02:42:" + ":".join(f"{byte:02x}" for byte in address.packed)
