"""The networks there are: finding, creating, removing, pruning, and making their links again after a start.

Owns the records (a row each, all of them in memory too). Which container is where is endpoints.py's.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, ip_network

from msgspec.structs import replace

from corten.engine.events import Events
from corten.engine.firewall import Firewall
from corten.engine.network_records import (
    BUILTIN,
    DRIVERS,
    NetworkRecord,
    bridge_of,
    decode_network,
    encode_network,
    subnet_record,
)
from corten.engine.records import ContainerRecord
from corten.errors import (
    AmbiguousPrefix,
    CortenError,
    Forbidden,
    Invalid,
    KernelRefused,
    NetworkNameInUse,
    NoSuchNetwork,
    NoSuchPlugin,
    NotSupported,
)
from corten.network import bridge_options, ipam, ipam_config, port_guard, sublink_options
from corten.network.apply import FORWARDING, Kernel
from corten.network.plan import AnyAddress, make_elements
from corten.spec.network import Ipam, NetworkCreate
from corten.spec.timestamps import now_ns, rfc3339_nano
from corten.store.database import Database

_MODES = {"default": "bridge", "": "bridge"}
_BUILTIN_DRIVERS = {"bridge": "bridge", "host": "host", "none": "null"}
_PREFIX = "com.docker.network"
BINDING = f"{_PREFIX}.bridge.host_binding_ipv4"
_NOTED = "sysctl "  # a setting with the value of before, of a sysctl that was changed here
_log = logging.getLogger("corten.engine")


def drivers() -> list[str]:
    """As /info names them."""
    return sorted(DRIVERS)


@dataclass(frozen=True)
class NetworkDefaults:
    """What the engine's settings say: the default bridge, its address ("" to choose), the pools, where ports are published by default."""

    bridge: str
    bip: str = ""
    pools: tuple[ipam.Pool, ...] = ()
    publish_address: str = ""  # of the default bridge, Docker's `ip`
    publish_everywhere: str = ""  # of every network, default-publish-address
    direct_routing: bool = False  # published ports are reached at the containers' own addresses, too, from outside


class Networks:
    """`records` yields the containers that there are."""

    def __init__(self, kernel: Kernel, database: Database, events: Events, firewall: Firewall, defaults: NetworkDefaults,
                 records: Callable[[], Iterable[ContainerRecord]]) -> None:  # fmt: skip
        self._kernel, self._database, self._events, self._firewall = kernel, database, events, firewall
        self.defaults, self._records = defaults, records
        self._pools = (*(defaults.pools or ipam.DEFAULT_POOLS), self._ula_pool())
        stored = [decode_network(row) for row in database.networks()]
        self._networks = {network.id: network for network in stored}
        self._networks = {network.id: network for network in (*map(self._builtin, BUILTIN), *stored)}
        self._names = {network.name: network.id for network in self._networks.values()}
        self._bare: set[str] = set()  # networks whose bridge has lost an address
        self._torn_down = False

    def _ula_pool(self) -> ipam.Pool:
        seed = self._database.setting("ula-seed") or secrets.token_hex(16)
        self._database.put_setting("ula-seed", seed)
        return ipam.ula_pool(seed)

    # --- the three that are always there
    def _builtin(self, name: str) -> NetworkRecord:
        stored = self._database.setting(f"network-{name}")
        if stored is None:
            stored = f"{secrets.token_hex(32)} {rfc3339_nano(now_ns())}"
            self._database.put_setting(f"network-{name}", stored)
        network_id, created = stored.split(" ")
        if name != "bridge":
            return NetworkRecord(network_id, name, created, _BUILTIN_DRIVERS[name])
        gateway = self._default_gateway()
        made = self._database.setting("bridge-made") == self.defaults.bridge or not self._kernel.has_link(self.defaults.bridge)
        if made:
            self._database.put_setting("bridge-made", self.defaults.bridge)
        options = {
            f"{_PREFIX}.bridge.default_bridge": "true", f"{_PREFIX}.bridge.enable_icc": "true", f"{_PREFIX}.bridge.enable_ip_masquerade": "true",
            BINDING: self.defaults.publish_address or self.defaults.publish_everywhere or "0.0.0.0", f"{_PREFIX}.bridge.name": self.defaults.bridge,
            f"{_PREFIX}.driver.mtu": "1500",
        }  # fmt: skip
        row = ipam.Range(gateway.network, gateway.network, gateway.ip, frozenset({gateway.ip}))
        return NetworkRecord(network_id, name, created, "bridge", self.defaults.bridge, made, subnets=[subnet_record(row)], options=options)

    def _default_gateway(self) -> IPv4Interface:
        """As told; or what the bridge that is there has; or the subnet used before, as long as nothing else uses it."""
        if self.defaults.bip:
            try:
                return IPv4Interface(self.defaults.bip)
            except ValueError:
                raise Invalid(f"--bip {self.defaults.bip!r}: want an IPv4 address with its prefix, such as 172.20.0.1/16") from None
        if self._kernel.has_link(self.defaults.bridge) and not self._kernel.is_bridge(self.defaults.bridge):
            raise Invalid(f"--bridge {self.defaults.bridge}: existing interface {self.defaults.bridge} is not a bridge")
        existing = self._kernel.address_of(self.defaults.bridge)
        if existing:
            return existing
        in_use = self._in_use()
        before = self._database.setting("bridge-subnet")
        subnet = ip_network(before) if before else ipam.choose_subnet(self._pools, in_use)
        if before and any(subnet.version == other.version and subnet.overlaps(other) for other in in_use):
            subnet = ipam.choose_subnet(self._pools, in_use)
        self._database.put_setting("bridge-subnet", str(subnet))
        return IPv4Interface(f"{subnet.network_address + 1}/{subnet.prefixlen}")

    def _in_use(self) -> list[ipam.Subnet]:
        """What other networks have and what the host routes."""
        return [*self._subnets(), *self._routed()]

    def _routed(self) -> list[ipam.Subnet]:
        return [route.destination for route in self._kernel.routes()]

    def _subnets(self) -> list[ipam.Subnet]:
        return [ip_network(row.subnet) for network in self._networks.values() for row in network.subnets]

    # --- finding
    def all(self) -> list[NetworkRecord]:
        return list(self._networks.values())

    def find(self, name: str) -> NetworkRecord:
        """By full id, name, or unique prefix of an id. Raises NoSuchNetwork, AmbiguousPrefix."""
        network_id = name if name in self._networks else self._names.get(name)
        if network_id:
            return self._networks[network_id]
        found = [network for network in self._networks.values() if name and network.id.startswith(name)]
        if len(found) > 1:
            raise AmbiguousPrefix(name=name)
        if not found:
            raise NoSuchNetwork(name=name)
        return found[0]

    def known(self, name: str) -> NetworkRecord | None:
        try:
            return self.find(name)
        except CortenError:
            return None

    @staticmethod
    def name_of_mode(mode: str) -> str:
        """The network's name in HostConfig.NetworkMode; empty for container:ID."""
        return "" if mode.startswith("container:") else _MODES.get(mode, mode)

    def binding(self, network: NetworkRecord) -> IPv4Address:
        """Where its containers' ports are published that name no address."""
        if BINDING in network.options or not self.defaults.publish_everywhere:
            return network.bridge_options.binding4
        return IPv4Address(self.defaults.publish_everywhere)

    # --- creating and removing
    def create(self, request: NetworkCreate) -> tuple[NetworkRecord, str]:
        """Make a network; the record and a warning or "". Raises Docker's errors, and KernelRefused; then nothing stays."""
        self._check_request(request)
        source = self._config_source(request)
        asked = list(source.config or [])
        wanted = ipam_config.parse_pools(asked)
        network = NetworkRecord(
            id=secrets.token_hex(32), name=request.name, created=rfc3339_nano(now_ns()),
            driver="null" if request.config_only else request.driver or "bridge",
            ipv4=request.enable_ipv4 is not False, ipv6=bool(request.enable_ipv6), ipam_driver=source.driver or "default",
            ipam_options=source.options, asked=asked, internal=request.internal, attachable=request.attachable,
            config_only=request.config_only, config_from=request.config_from.network if request.config_from else "",
            options=self._options(request), labels=request.labels or {},
        )  # fmt: skip
        warning = ""
        if not request.config_only:
            network, warning = self._settle(network, wanted)
        self._database.put_network(network.id, network.name, encode_network(network))
        self._networks[network.id] = network
        self._names[network.name] = network.id
        try:
            self._raise_link(network)
        except (OSError, CortenError) as error:
            self._undo_create(network)
            if isinstance(error, OSError):
                raise KernelRefused(operation="create network", operand=network.name, errno=error.errno or 0, reason=str(error.strerror)) from None
            raise
        self._say("create", network)
        return network, warning

    def _undo_create(self, network: NetworkRecord) -> None:
        del self._networks[network.id]
        del self._names[network.name]
        self._firewall.drop(network.id)
        if self._owns_link(network):
            self._kernel.remove_link(network.link)
        self._database.delete_network(network.id)

    def _owns_link(self, network: NetworkRecord) -> bool:
        """Whether its link goes with it: we have made it, and no other network sits on it."""
        used = any(other.link == network.link for other in self._networks.values() if other.id != network.id)
        return bool(network.link) and network.link_made and not used

    def _check_request(self, request: NetworkCreate) -> None:
        driver = request.driver or "bridge"
        if not request.name.strip():
            raise Invalid("invalid name: name is empty")
        if request.name in (*BUILTIN, "default") or request.name.startswith("container:"):
            raise Forbidden(f"operation is not permitted on predefined {request.name} network ")
        if request.ingress:
            raise Forbidden("Ingress network can only be global scope network")
        if driver == "overlay":
            raise Forbidden('This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm and try again.')
        if request.scope not in ("", "local"):
            raise Forbidden("cannot create a swarm scoped network when swarm is not active")
        if driver in ("host", "null"):
            raise Forbidden(f'only one instance of "{driver}" network is allowed')
        if driver not in DRIVERS:
            raise NoSuchPlugin(name=driver)
        if request.ipam and request.ipam.driver not in ("", "default"):
            raise NoSuchPlugin(name=request.ipam.driver)
        if request.name in self._names:
            raise NetworkNameInUse(name=request.name)
        if request.enable_ipv4 is False and not request.enable_ipv6:
            raise Invalid("IPv4 or IPv6 must be enabled")

    def _config_source(self, request: NetworkCreate) -> Ipam:
        if not request.config_from or not request.config_from.network:
            return request.ipam or Ipam()
        if request.config_only:
            raise Forbidden("a configuration network cannot depend on another configuration network")
        source = self.known(request.config_from.network)
        if source is None or not source.config_only:
            raise NoSuchConfiguration(name=request.config_from.network)
        return Ipam(source.ipam_driver, source.ipam_options, source.asked)

    def _options(self, request: NetworkCreate) -> dict[str, str]:
        if request.config_from and request.config_from.network:
            return self.find(request.config_from.network).options
        return request.options or {}

    def _settle(self, network: NetworkRecord, wanted: list[ipam_config.Wanted]) -> tuple[NetworkRecord, str]:
        """Subnets and link of a new network, checked against what there is."""
        families = [version for version, on in ((4, network.ipv4), (6, network.ipv6)) if on]
        if network.driver == "bridge":
            options = bridge_options.parse_options(network.options, internal=network.internal)
            if options.default:
                raise Forbidden("com.docker.network.bridge.default_bridge is the engine's own bridge, and there is one already")
            link = options.name or f"br-{network.id[:12]}"
            if self._kernel.has_link(link) and not self._kernel.is_bridge(link):
                raise Invalid(f"existing interface {link} is not a bridge")
            if any(other.link == link for other in self._networks.values()):
                raise Forbidden(f"cannot create network {network.id} ({link}): conflicts with another network: networks have same bridge name")
        else:
            link = self._parent(network)
        rows = ipam_config.allocate(wanted, families, self._pools, self._subnets(), self._routed)
        warning = self._clash(network.name, [row.subnet for row in wanted]) if wanted and network.driver == "bridge" else ""
        made = not self._kernel.has_link(link)
        return replace(network, link=link, link_made=made, subnets=[subnet_record(row) for row in rows]), warning

    def _parent(self, network: NetworkRecord) -> str:
        """The host's link that a macvlan or ipvlan network sits on. Raises Invalid if it is not there and cannot be made."""
        options = sublink_options.parse_options(network.driver, network.options)
        if not options.vlan and not self._kernel.has_link(options.parent):
            raise Invalid(f"invalid subinterface vlan name {options.parent}, example formatting is eth0.10")
        return options.parent

    def _clash(self, name: str, asked: list[ipam.Subnet]) -> str:
        """A warning if the host routes part of what was asked for to somewhere else: asked is asked, but it should be known."""
        for other in self._routed():
            for subnet in asked:
                if subnet.version == other.version and subnet.overlaps(other):
                    warning = f"the subnet {subnet} overlaps {other}, to which this host has a route"
                    _log.warning("network %s: %s", name, warning)
                    return warning
        return ""

    def _raise_link(self, network: NetworkRecord) -> None:
        """Make what the network needs on the host. Idempotent. Raises OSError, NotSupported."""
        self._torn_down = False
        if network.config_only or network.driver in ("host", "null"):
            return
        if network.driver == "bridge":
            bridge = bridge_of(network)
            self._note_sysctls(self._kernel.sysctls_to_set(bridge))
            self._kernel.ensure_bridge(bridge)
            self._firewall.put(network.id, make_elements([bridge], ()) | frozenset(port_guard.gateways(bridge)))
            return
        options = sublink_options.parse_options(network.driver, network.options)
        if options.vlan and not self._kernel.has_link(options.parent):
            self._kernel.ensure_vlan(options.parent, options.vlan_parent, options.vlan)
        try:
            self._kernel.try_sublink(network.driver, options.mode, f"cn{network.id[:11]}", options.parent)
        except OSError as error:
            if error.errno in (95, 93):  # EOPNOTSUPP, EPROTONOSUPPORT
                raise NotSupported(f"this kernel has no {network.driver} links (CONFIG_{network.driver.upper()})") from None
            raise

    def _note_sysctls(self, before: dict[str, str]) -> None:
        """What is about to be changed of the whole host: the first value is kept, for teardown."""
        for name, value in before.items():
            if not self._database.setting(_NOTED + name):
                self._database.put_setting(_NOTED + name, value)

    def mend(self, network: NetworkRecord) -> bool:
        """Before a container comes to it: whether its bridge was gone and has been made again. Raises OSError, CortenError."""
        self._firewall.wake()
        if network.driver != "bridge" or not network.link:
            return False
        gone = not self._kernel.has_link(network.link)
        if gone:
            _log.warning("network %s: its bridge %s is gone: made again", network.name, network.link)
        if gone or network.id in self._bare:
            self._raise_link(network)
            self._bare.discard(network.id)
        return gone

    def link_lost(self, link: str) -> None:
        """A link has gone from this host: if it is a network's bridge, say so. It is made again before a container comes to the network."""
        for network in self._networks.values():
            if network.driver == "bridge" and network.link == link and not self._torn_down:
                _log.warning("network %s: its bridge %s has been taken away; it is made again at the next start or connect of a container on it", network.name, link)

    def address_lost(self, link: str, address: AnyAddress) -> None:
        """A link of this host has lost an address: if it is a network's gateway, say so. It is given again before a container comes to the network."""
        for network in self._networks.values():
            if network.driver == "bridge" and network.link == link and any(address == own.ip for own in bridge_of(network).addresses):
                self._bare.add(network.id)
                _log.warning(
                    "network %s: its gateway %s has been taken off bridge %s; it is given again at the next start or connect of a container on it",
                    network.name, address, link,
                )  # fmt: skip

    def remove(self, name: str) -> None:
        """Raises Forbidden, NoSuchNetwork."""
        network = self.find(name)
        if network.builtin:
            raise Forbidden(f"{network.name} is a pre-defined network and cannot be removed")
        for other in self._networks.values():
            if network.config_only and other.config_from == network.name:
                raise Forbidden(f'error while removing network: configuration network "{network.name}" is in use')
        active = [(record, place) for record in self._records() for place in record.active_endpoints if place.network_id == network.id]
        if active:
            shown = ", ".join(f'name:"{record.name}" id:"{place.id[:12]}"' for record, place in active)
            raise Forbidden(f"error while removing network: network {network.name} has active endpoints ({shown})")
        self._forget(network)

    def _forget(self, network: NetworkRecord) -> None:
        """The row goes last: a network that a crash kept from being removed whole is there again."""
        del self._networks[network.id]
        del self._names[network.name]
        self._firewall.drop(network.id)
        if self._owns_link(network):
            self._kernel.bury_bridge(network.link)
        self._database.delete_network(network.id)
        self._say("destroy", network)

    def prune(self, wanted: Callable[[NetworkRecord], bool]) -> list[str]:
        """Remove what no container is connected to, running or not, and `wanted` says yes to; their names."""
        used = {place.network for record in self._records() for place in record.endpoints}
        used |= {place.network_id for record in self._records() for place in record.endpoints}
        removed: list[str] = []
        for network in self.all():
            if not network.builtin and network.name not in used and network.id not in used and wanted(network):
                self._forget(network)
                removed.append(network.name)
        self._events.emit("network", "prune", "", reclaimed="0")
        return removed

    def _say(self, action: str, network: NetworkRecord, **attributes: str) -> None:
        self._events.emit("network", action, network.id, name=network.name, type=network.driver, **attributes)

    def say(self, action: str, network: NetworkRecord, record: ContainerRecord) -> None:
        """A container's connect or disconnect."""
        self._say(action, network, container=record.id)

    # --- start and end of the engine
    def restore(self) -> None:
        """Make every network's link again, and sweep those that were on their way out. One that cannot be made is said in the log and is there without its link."""
        self._kernel.sweep_bridges()
        for network in self._networks.values():
            try:
                self._raise_link(network)
            except (OSError, CortenError) as error:
                if network.builtin:
                    raise
                _log.error("network %s: its link %s cannot be made: %s", network.name, network.link, error)

    def tear_down(self) -> list[str]:
        """Take every bridge away of our making, with nothing on it; their names."""
        self._torn_down = True
        removed = {network.link for network in self._networks.values() if self._owns_link(network) and self._kernel.has_link(network.link)}
        for link in sorted(removed):
            self._kernel.remove_link(link)
        return sorted(removed)

    def put_sysctls_back(self) -> dict[str, str]:
        """Those that were changed here, to what they were before; name -> value. One that somebody else has changed since stays."""
        put: dict[str, str] = {}
        for name in FORWARDING:
            before = self._database.setting(_NOTED + name)
            if before:
                self._kernel.put_sysctl(name, before)
                self._database.put_setting(_NOTED + name, "")
                put[name.replace("/", ".")] = before
        return put


class NoSuchConfiguration(CortenError):
    status = 404
    template = 'configuration network "{name}" does not exist'
