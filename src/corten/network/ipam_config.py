"""The IPAM part of a network's creation, checked and parsed. Pure; texts and order are Docker Engine 28.5's (libnetwork, api network)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_address, ip_network

from corten.errors import CortenError, Invalid
from corten.network.ipam import Address, Pool, Range, Subnet, choose_gateway, choose_subnet, own_addresses
from corten.spec.network import IpamPool


class PoolOverlaps(CortenError):
    status = 403
    template = "invalid pool request: Pool overlaps with other one on this address space"


@dataclass(frozen=True)
class Wanted:
    """What a client asked for of one subnet; `gateway` None: to be chosen."""

    subnet: Subnet
    part: Subnet
    gateway: Address | None
    auxiliary: tuple[Address, ...]


class CannotTake(Invalid):
    """Docker's text; it finds this out while it allocates, and answers 500."""

    template = "failed to allocate {what}: Address already in use"


def parse_pools(pools: Iterable[IpamPool]) -> list[Wanted]:
    """Raises Invalid with every fault that there is, as Docker lists them."""
    faults: list[str] = []
    pools = list(pools)
    found = [wanted for pool in pools if (wanted := _parse(pool, faults))]
    if faults:
        text = faults[0] if len(faults) == 1 else "\n".join(f"* {fault}" for fault in faults)
        raise Invalid(f"invalid network config:\n{text}")
    for pool, wanted in zip(pools, found, strict=True):
        _check_taken(pool, wanted)
    return found


def _check_taken(pool: IpamPool, wanted: Wanted) -> None:
    """No address twice, and none that is the subnet's own. Raises CannotTake."""
    taken = set(own_addresses(wanted.subnet))
    if wanted.gateway:
        if wanted.gateway in taken:
            raise CannotTake(what=f"gateway ({wanted.gateway})")
        taken.add(wanted.gateway)
    for name, address in zip(pool.auxiliary_addresses or (), wanted.auxiliary, strict=True):
        if address in taken:
            raise CannotTake(what=f"secondary ip address ({name}:{address})")
        taken.add(address)


def _network(text: str) -> Subnet | None:
    try:
        return ip_network(text, strict=False) if "/" in text else None
    except ValueError:
        return None


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _parse(pool: IpamPool, faults: list[str]) -> Wanted | None:
    subnet = _network(pool.subnet)
    if subnet is None:
        faults.append(f"invalid subnet {pool.subnet}: invalid CIDR block notation")
        return None
    if ip_address(pool.subnet.partition("/")[0]) != subnet.network_address:
        faults.append(f"invalid subnet {pool.subnet}: it should be {subnet}")
    before = len(faults)
    part: Subnet | None = _parse_range(pool.ip_range, subnet, faults) if pool.ip_range else subnet
    gateway = _inside(pool.gateway, subnet, "gateway", pool.gateway, faults) if pool.gateway else None
    auxiliary = [_inside(text, subnet, "auxiliary address", name, faults) for name, text in (pool.auxiliary_addresses or {}).items()]
    if len(faults) > before or part is None:
        return None
    return Wanted(subnet, part, gateway, tuple(address for address in auxiliary if address))


def _parse_range(text: str, subnet: Subnet, faults: list[str]) -> Subnet | None:
    part = _network(text)
    if part is None:
        faults.append(f"invalid ip-range {text}: invalid CIDR block notation")
    elif part.version != subnet.version:
        faults.append(f"invalid ip-range {text}: parent subnet is an IPv{subnet.version} block")
    else:
        if part.prefixlen < subnet.prefixlen:
            faults.append(f"invalid ip-range {text}: CIDR block is bigger than its parent subnet {subnet}")
        if ip_address(text.partition("/")[0]) != part.network_address:
            faults.append(f"invalid ip-range {text}: it should be {part}")
        if not subnet.overlaps(part):
            faults.append(f"invalid ip-range {text}: parent subnet {subnet} doesn't contain ip-range")
    return part


def _inside(text: str, subnet: Subnet, what: str, name: str, faults: list[str]) -> Address | None:
    address = _address(text)
    if address is None:
        faults.append(f"invalid {what} {name}: invalid address")
    elif address.version != subnet.version:
        faults.append(f"invalid {what} {name}: parent subnet is an IPv{subnet.version} block")
    elif address not in subnet:
        faults.append(f"invalid {what} {name}: parent subnet {subnet} doesn't contain this address")
    return address


def allocate(wanted: Sequence[Wanted], families: Sequence[int], pools: Sequence[Pool], networks: Iterable[Subnet],
             routed: Callable[[], Iterable[Subnet]]) -> list[Range]:  # fmt: skip
    """The subnets of a new network: those asked for, and one from the pools for each family that has none.

    `networks` are the subnets of other networks: nothing may overlap them. `routed` is asked for what else the host routes, which
    only a subnet from the pools keeps clear of. Raises PoolOverlaps, PoolsExhausted.
    """
    taken = list(networks)
    rows = [row for row in wanted if row.subnet.version in families]
    for row in rows:
        if any(row.subnet.version == other.version and row.subnet.overlaps(other) for other in taken):
            raise PoolOverlaps
        taken.append(row.subnet)
    missing = [version for version in families if not any(row.subnet.version == version for row in rows)]
    if missing:
        taken += routed()
        for version in missing:
            subnet = choose_subnet(pools, taken, version)
            taken.append(subnet)
            rows.append(Wanted(subnet, subnet, None, ()))
    return [_with_gateway(row) for row in rows]


def _with_gateway(row: Wanted) -> Range:
    gateway = row.gateway or choose_gateway(row.subnet, row.part, row.auxiliary)
    return replace(Range(row.subnet, row.part, gateway), reserved=frozenset({gateway, *row.auxiliary}))
