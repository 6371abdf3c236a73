"""Where a packet goes and who drops it: a real one, followed through every rule of the host, with the reason in words.

From a container or this host the packet is sent here (a connection that is closed at once, or an empty datagram); one from outside is waited
for. The rules that mark it are in a table of their own, which is gone afterwards.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_interface

from corten.engine.containers import Containers
from corten.engine.endpoints import network_namespace_of
from corten.engine.firewall import Firewall
from corten.engine.networks import Networks
from corten.engine.records import ContainerRecord
from corten.errors import Invalid
from corten.linux.namespaces import network_namespace
from corten.linux.nft_trace import Met, trace_table
from corten.network.apply import Kernel
from corten.network.tracer import Tracer

_PATIENCE, _LOOK = 1.0, 0.02  # seconds: for a connection, between two looks for a packet from outside
_OUTCOMES = {errno.ECONNREFUSED: "refused", errno.ENETUNREACH: "unreachable", errno.EHOSTUNREACH: "unreachable", errno.EPERM: "dropped"}
# How a table's or chain's name begins -> whose it is
_OWNERS = {"firewalld": "firewalld", "ufw": "ufw", "DOCKER": "Docker", "LIBVIRT": "libvirt", "KUBE": "Kubernetes", "f2b": "fail2ban"}
_XTABLES = ("filter", "nat", "mangle", "raw", "security")
Address = IPv4Address | IPv6Address


@dataclass(frozen=True)
class Step:
    """One rule that the packet met: whose, which, what it says, what it decided."""

    owner: str
    where: str
    text: str
    verdict: str


@dataclass(frozen=True)
class Trace:
    """`outcome`: connected, sent (a datagram), refused, unreachable, dropped, silence; of a packet from outside: seen, or none."""

    source: str
    destination: str
    outcome: str
    steps: list[Step]
    dropped_by: Step | None
    conclusion: str


class _NoWay(Exception):
    """The reason, in words."""


class Tracing:
    def __init__(self, kernel: Kernel, containers: Containers, networks: Networks, firewall: Firewall) -> None:
        self._kernel, self._containers, self._networks, self._firewall = kernel, containers, networks, firewall
        self._one = asyncio.Lock()

    async def trace(self, source: str, target: str, port: int, protocol: str, wait: float) -> Trace:
        """`source`: a container, `host`, or an address outside. `target`: a container or an address. `wait`: seconds, for one from outside.

        Raises Invalid, NoSuchContainer, KernelRefused, OSError.
        """
        if protocol not in ("tcp", "udp") or not 0 < port < 65536:
            raise Invalid(f"cannot trace to {target}:{port}/{protocol}: want tcp or udp, and a port from 1 to 65535")
        outside = _address(source)
        sender = None if outside or source == "host" else self._containers.find(source)
        receiver = None if _address(target) else self._containers.find(target)
        async with self._one:
            try:
                destination = _address(target) or self._address_of(receiver, sender)
                way = (outside or self._leaves_from(source, sender, destination), destination)
            except _NoWay as reason:
                return Trace(source, target, "unreachable", [], None, str(reason))
            if way[0].version != destination.version:
                raise Invalid(f"cannot trace from {way[0]} to {destination}: they are of two families")
            with self._kernel.following(trace_table(f"{self._firewall.name}-trace", *way, protocol, port)) as seen:
                outcome = await (_arrival(seen, wait) if outside else self._send(sender, protocol, (str(destination), port)))
                steps = self._explain(_first_packet(seen.read()))
        dropped = next((step for step in steps if step.verdict == "drop"), None)
        shown = f"[{destination}]:{port}/{protocol}" if destination.version == 6 else f"{destination}:{port}/{protocol}"
        return Trace(source, shown, outcome, steps, dropped, self._conclude(outcome, dropped, sender, receiver, bool(steps)))

    # --- the way
    @staticmethod
    def _address_of(receiver: ContainerRecord | None, sender: ContainerRecord | None) -> Address:
        """A container's address on a network of both, or its first. Raises _NoWay."""
        places = [place for place in (receiver.active_endpoints if receiver else ()) if place.address or place.address6]
        if not places:
            raise _NoWay("the target does not run, or is on no network")
        shared = {place.network_id for place in (sender.active_endpoints if sender else ())}
        best = next((place for place in places if place.network_id in shared), places[0])
        return ip_interface(best.address or best.address6).ip

    def _leaves_from(self, source: str, sender: ContainerRecord | None, destination: Address) -> Address:
        """The address that a packet has when it leaves. Raises _NoWay."""
        with self._socket(sender, destination, socket.SOCK_DGRAM) as asking:
            try:
                asking.connect((str(destination), 9))  # sends nothing: the kernel chooses the way
            except OSError as error:
                inside = sender and all(self._networks.find(place.network_id).internal for place in sender.active_endpoints)
                why = ", all its networks are internal" if inside else ""
                raise _NoWay(f"{source} has no way to {destination}: {os.strerror(error.errno or 0).lower()}{why}") from None
            return ip_address(asking.getsockname()[0])

    @staticmethod
    @contextmanager
    def _socket(sender: ContainerRecord | None, destination: Address, kind: int) -> Iterator[socket.socket]:
        """In the sender's network namespace, or here."""
        family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
        if sender is None:
            made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        else:
            with network_namespace_of(sender) as fd, network_namespace(fd):
                made = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        with made:
            yield made

    async def _send(self, sender: ContainerRecord | None, protocol: str, to: tuple[str, int]) -> str:
        loop = asyncio.get_running_loop()
        kind = socket.SOCK_STREAM if protocol == "tcp" else socket.SOCK_DGRAM
        with self._socket(sender, ip_address(to[0]), kind) as sending:
            try:
                await asyncio.wait_for(loop.sock_connect(sending, to), _PATIENCE)
                if kind == socket.SOCK_DGRAM:
                    sending.send(b"")
                    await asyncio.sleep(_LOOK)
                    return "sent"
            except TimeoutError:
                return "silence"
            except OSError as error:
                return _OUTCOMES.get(error.errno or 0, "unreachable")
        return "connected"

    # --- what it met
    def _explain(self, met: list[Met]) -> list[Step]:
        texts = self._firewall.explain()
        steps = []
        for row in met:
            if row.table == self._firewall.name:
                text = texts.get((row.chain, row.handle), "" if row.handle else "policy")
                steps.append(Step("Corten", row.where, text, row.verdict))
            else:
                steps.append(Step(_owner(row), row.where, "", row.verdict))
        return steps

    def _conclude(self, outcome: str, dropped: Step | None, sender: ContainerRecord | None, receiver: ContainerRecord | None, met: bool) -> str:  # noqa: FBT001
        if dropped:
            why = f": {dropped.text}" if dropped.text else ""
            return f"dropped by {dropped.owner}: {dropped.where}{why}"
        if outcome == "none":
            return "no such packet has come to this host: it is lost on its way here, or was not sent"
        quiet = self._isolated_between(sender, receiver)
        if quiet and outcome in ("silence", "unreachable"):
            return f"network {quiet} keeps its containers apart (enable_icc=false): its bridge passes no frame between them"
        ends = {
            "connected": "reached: the connection was made", "sent": "no rule of this host dropped it", "seen": "no rule of this host dropped it",
            "refused": "reached: but nothing listens there, or it does not want this connection",
            "silence": "no rule of this host dropped it, and nothing answered: its receiver, or a host behind, does not",
            "unreachable": "nobody has the address: it is not in use, or its host is down", "dropped": "the sender's own rules drop it",
        }  # fmt: skip
        return ends[outcome] + ("" if met or outcome in ("dropped", "unreachable") else " (it met no rule of this host: it stayed on its bridge)")

    def _isolated_between(self, sender: ContainerRecord | None, receiver: ContainerRecord | None) -> str:
        """The name of a network of both whose containers do not reach each other."""
        both = {place.network_id for place in (sender.active_endpoints if sender else ())} & {
            place.network_id for place in (receiver.active_endpoints if receiver else ())
        }
        found = (self._networks.find(network_id) for network_id in both)
        return next((network.name for network in found if network.driver == "bridge" and not network.bridge_options.icc), "")


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


async def _arrival(seen: Tracer, wait: float) -> str:
    loop = asyncio.get_running_loop()
    end = loop.time() + wait
    while not seen.met and loop.time() < end:
        await asyncio.sleep(_LOOK)
        seen.read()
    await asyncio.sleep(_LOOK)  # the rest of its way
    return "seen" if seen.read() else "none"


def _first_packet(met: list[Met]) -> list[Met]:
    """Pure. The kernel gives a packet another number on each hook; a second one begins where the first chain is met again after its end."""
    ended = False
    for index, row in enumerate(met):
        if ended and (row.table, row.chain) == (met[0].table, met[0].chain):
            return met[:index]
        ended = ended or row.verdict in ("accept", "drop")
    return met


def _owner(row: Met) -> str:
    for name in (row.chain, row.table):
        for beginning, owner in _OWNERS.items():
            if name.startswith(beginning):
                return owner
    return "iptables" if row.family in ("ip", "ip6") and row.table in _XTABLES else f"table {row.family} {row.table}"
