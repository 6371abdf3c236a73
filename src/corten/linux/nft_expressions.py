"""What nftables rules are made of: matches and statements as values.

Each prints as nft(8) would write it and encodes to the kernel's expressions. Only what Corten's rules use is here. Rules live in
`inet` tables: whatever reads an IPv4 or IPv6 header checks the family first.
Sources: include/uapi/linux/netfilter/nf_tables.h; `nft --debug=netlink` for the expression sequences.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network

from corten.linux.netlink import attribute, be32, nested, text
from corten.linux.nft_sets import PROTOCOLS

_IPV4, _IPV6 = 2, 10  # NFPROTO
_REG_VERDICT, _REG_1, _REG32 = 0, 1, 8  # the 16-byte register 1 is the 4-byte registers 8 to 11
_CMP_EQ, _CMP_NEQ = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_PROTOCOL = 1
_ETHER_TYPES, _ICMP6_TYPES = {"ip": 0x0800, "arp": 0x0806, "ip6": 0x86DD}, {"nd-neighbor-advert": 136}
_META_IIFNAME, _META_OIFNAME, _META_NFTRACE, _META_NFPROTO, _META_L4PROTO = 6, 7, 12, 15, 16
_VERDICTS = {"drop": 0, "accept": 1}
_LEADS = {"jump": -3, "goto": -4}
_CT_STATE, _CT_DIRECTION, _CT_STATUS = 0, 1, 2
_STATES = {"established": 2, "related": 4}
_CT_STATUS_DNAT = 0x20
_LOOKUP_INVERTED = 1


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _compare(register: int, operator: int, value: bytes) -> bytes:
    return _expression("cmp", be32(1, register), be32(2, operator), nested(3, attribute(1, value)))


def _payload(base: int, offset: int, length: int, register: int = _REG_1) -> bytes:
    return _expression("payload", be32(1, register), be32(2, base), be32(3, offset), be32(4, length))


def _meta(key: int, register: int = _REG_1) -> bytes:
    return _expression("meta", be32(2, key), be32(1, register))


def _masked(mask: bytes) -> bytes:
    return _expression(
        "bitwise", be32(1, _REG_1), be32(2, _REG_1), be32(3, len(mask)),
        nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(len(mask)))),
    )  # fmt: skip


def _family(number: int) -> bytes:
    return _meta(_META_NFPROTO) + _compare(_REG_1, _CMP_EQ, bytes([number]))


@dataclass(frozen=True)
class Field:
    """Something of a packet that a set can be asked for: its load into a register, and its size there."""

    text: str
    size: int
    family: int = 0
    base: int = 0
    offset: int = 0
    meta: int = 0
    length: int = 0  # in the packet, if not `size`

    def load(self, register: int) -> bytes:
        if self.meta:
            return _meta(self.meta, register)
        return _payload(self.base, self.offset, self.length or self.size, register)


IIFNAME = Field("iifname", 16, meta=_META_IIFNAME)
OIFNAME = Field("oifname", 16, meta=_META_OIFNAME)
L4PROTO = Field("meta l4proto", 4, meta=_META_L4PROTO)
DPORT = Field("th dport", 4, base=_TRANSPORT_HEADER, offset=2, length=2)
SADDR4 = Field("ip saddr", 4, _IPV4, _NETWORK_HEADER, 12)
DADDR4 = Field("ip daddr", 4, _IPV4, _NETWORK_HEADER, 16)
SADDR6 = Field("ip6 saddr", 16, _IPV6, _NETWORK_HEADER, 8)
DADDR6 = Field("ip6 daddr", 16, _IPV6, _NETWORK_HEADER, 24)


# In tables of the bridge family: the rule asks for the frame's type itself
ARP_SADDR = Field("arp saddr ip", 4, base=_NETWORK_HEADER, offset=14)
BRIDGED_SADDR4 = Field("ip saddr", 4, base=_NETWORK_HEADER, offset=12)
BRIDGED_SADDR6 = Field("ip6 saddr", 16, base=_NETWORK_HEADER, offset=8)
ND_TARGET = Field("@th,64,128", 16, base=_TRANSPORT_HEADER, offset=8)


def _loads(fields: tuple[Field, ...]) -> bytes:
    """The fields in neighbouring registers, after a check of the family that they need."""
    families = {field.family for field in fields if field.family}
    body, register = b"".join(_family(number) for number in families), _REG32
    for field in fields:
        body += field.load(register)
        register += field.size // 4
    return body


@dataclass(frozen=True)
class In:
    """`FIELDS @SET`, or with `inside` off: not in it."""

    fields: tuple[Field, ...]
    set: str
    inside: bool = True

    def __str__(self) -> str:
        return f"{' . '.join(field.text for field in self.fields)} {'' if self.inside else '!= '}@{self.set}"

    def encode(self) -> bytes:
        return _loads(self.fields) + _lookup(self.set, 0 if self.inside else _LOOKUP_INVERTED)


def _lookup(name: str, flags: int = 0, destination: int = 0) -> bytes:
    parts = [text(1, name), be32(2, _REG32)]
    if destination:
        parts.append(be32(3, destination))
    if flags:
        parts.append(be32(5, flags))
    return _expression("lookup", *parts)


@dataclass(frozen=True)
class Family:
    """`meta nfproto ipv4` or ipv6."""

    name: str

    def __str__(self) -> str:
        return f"meta nfproto {self.name}"

    def encode(self) -> bytes:
        return _family(_IPV4 if self.name == "ipv4" else _IPV6)


@dataclass(frozen=True)
class Address:
    """`ip saddr NET` or `ip daddr NET`, or ip6."""

    side: str
    network: IPv4Network | IPv6Network

    @property
    def _is_host(self) -> bool:
        return self.network.prefixlen == self.network.max_prefixlen

    def __str__(self) -> str:
        return f"{'ip' if self.network.version == 4 else 'ip6'} {self.side} {self.network.network_address if self._is_host else self.network}"

    def encode(self) -> bytes:
        family, fields = (_IPV4, (SADDR4, DADDR4)) if self.network.version == 4 else (_IPV6, (SADDR6, DADDR6))
        load = _family(family) + fields[self.side == "daddr"].load(_REG_1)
        mask = b"" if self._is_host else _masked(self.network.netmask.packed)
        return load + mask + _compare(_REG_1, _CMP_EQ, self.network.network_address.packed)


@dataclass(frozen=True)
class Interface:
    """`iifname NAME`, `oifname NAME`, or with `equal` off: not that one."""

    side: str
    name: str
    equal: bool = True

    def __str__(self) -> str:
        return f'{self.side} {"" if self.equal else "!= "}"{self.name}"'

    def encode(self) -> bytes:
        key = _META_IIFNAME if self.side == "iifname" else _META_OIFNAME
        return _meta(key) + _compare(_REG_1, _CMP_EQ if self.equal else _CMP_NEQ, self.name.encode().ljust(16, b"\0"))


@dataclass(frozen=True)
class Protocol:
    """`meta l4proto NAME`."""

    name: str

    def __str__(self) -> str:
        return f"meta l4proto {self.name}"

    def encode(self) -> bytes:
        number = {"icmp": 1, "ipv6-icmp": 58, **PROTOCOLS}[self.name]
        return _meta(_META_L4PROTO) + _compare(_REG_1, _CMP_EQ, bytes([number]))


@dataclass(frozen=True)
class EtherType:
    """`meta protocol NAME`, which nft(8) does not print: what follows in the rule implies it."""

    name: str

    def __str__(self) -> str:
        return ""

    def encode(self) -> bytes:
        return _meta(_META_PROTOCOL) + _compare(_REG_1, _CMP_EQ, struct.pack(">H", _ETHER_TYPES[self.name]))


@dataclass(frozen=True)
class Icmp6Type:
    """`icmpv6 type NAME`."""

    name: str

    def __str__(self) -> str:
        return f"icmpv6 type {self.name}"

    def encode(self) -> bytes:
        load = _payload(_TRANSPORT_HEADER, 0, 1)
        return Protocol("ipv6-icmp").encode() + load + _compare(_REG_1, _CMP_EQ, bytes([_ICMP6_TYPES[self.name]]))


@dataclass(frozen=True)
class Port:
    """`tcp dport N`, or of another protocol."""

    protocol: str
    number: int

    def __str__(self) -> str:
        return f"{self.protocol} dport {self.number}"

    def encode(self) -> bytes:
        return Protocol(self.protocol).encode() + DPORT.load(_REG_1) + _compare(_REG_1, _CMP_EQ, struct.pack(">H", self.number))


@dataclass(frozen=True)
class LocalDestination:
    """`fib daddr type local`: any of this host's own addresses."""

    def __str__(self) -> str:
        return "fib daddr type local"

    def encode(self) -> bytes:
        lookup = _expression("fib", be32(1, _REG_1), be32(2, 3), be32(3, 2))  # result addrtype, flag daddr
        return lookup + _compare(_REG_1, _CMP_EQ, struct.pack("=I", 2))  # RTN_LOCAL


@dataclass(frozen=True)
class WasTranslated:
    """`ct status dnat`."""

    def __str__(self) -> str:
        return "ct status dnat"

    def encode(self) -> bytes:
        load = _expression("ct", be32(2, _CT_STATUS), be32(1, _REG_1))
        return load + _masked(struct.pack("=I", _CT_STATUS_DNAT)) + _compare(_REG_1, _CMP_NEQ, bytes(4))


@dataclass(frozen=True)
class KnownConnection:
    """`ct state established,related`."""

    def __str__(self) -> str:
        return "ct state established,related"

    def encode(self) -> bytes:
        load = _expression("ct", be32(2, _CT_STATE), be32(1, _REG_1))
        return load + _masked(struct.pack("=I", sum(_STATES.values()))) + _compare(_REG_1, _CMP_NEQ, bytes(4))


@dataclass(frozen=True)
class FirstDirection:
    """`ct direction original`: a packet from who began the connection."""

    def __str__(self) -> str:
        return "ct direction original"

    def encode(self) -> bytes:
        return _expression("ct", be32(2, _CT_DIRECTION), be32(1, _REG_1)) + _compare(_REG_1, _CMP_EQ, b"\0")


@dataclass(frozen=True)
class Translate:
    """`dnat ip to FIELDS map @MAP` (or snat, or ip6): where to is what the map says; a packet that is not in it goes on as it is."""

    kind: str
    family: str
    fields: tuple[Field, ...]
    map: str

    def __str__(self) -> str:
        return f"{self.kind} {self.family} to {' . '.join(field.text for field in self.fields)} map @{self.map}"

    def encode(self) -> bytes:
        """The address is in the first registers, for dnat the port behind it."""
        width, number = (1, _IPV4) if self.family == "ip" else (4, _IPV6)
        parts = [be32(1, 1 if self.kind == "dnat" else 0), be32(2, number), be32(3, _REG32)]
        if self.kind == "dnat":
            parts.append(be32(5, _REG32 + width))
        return _loads(self.fields) + _lookup(self.map, destination=_REG32) + _expression("nat", *parts)


@dataclass(frozen=True)
class DestinationNat:
    """`dnat ip to ADDRESS:PORT`, fixed."""

    address: bytes
    port: int

    def __str__(self) -> str:
        return f"dnat ip to {'.'.join(map(str, self.address))}:{self.port}"

    def encode(self) -> bytes:
        loads = _immediate(_REG32, self.address) + _immediate(_REG32 + 1, struct.pack(">H", self.port))
        return loads + _expression("nat", be32(1, 1), be32(2, _IPV4), be32(3, _REG32), be32(5, _REG32 + 1))


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", be32(1, register), nested(2, attribute(1, value)))


@dataclass(frozen=True)
class Masquerade:
    def __str__(self) -> str:
        return "masquerade"

    def encode(self) -> bytes:
        return _expression("masq")


@dataclass(frozen=True)
class Verdict:
    name: str

    def __str__(self) -> str:
        return self.name

    def encode(self) -> bytes:
        return _expression("immediate", be32(1, _REG_VERDICT), nested(2, nested(2, be32(1, _VERDICTS[self.name]))))


@dataclass(frozen=True)
class Lead:
    """`jump CHAIN`, or `goto CHAIN`: then nothing after it is asked."""

    chain: str
    kind: str = "jump"

    def __str__(self) -> str:
        return f"{self.kind} {self.chain}"

    def encode(self) -> bytes:
        return _expression("immediate", be32(1, _REG_VERDICT), nested(2, nested(2, be32(1, _LEADS[self.kind] & 0xFFFFFFFF), text(2, self.chain))))


@dataclass(frozen=True)
class Traced:
    """`meta nftrace set 1`: every rule that the packet meets from here on is told."""

    def __str__(self) -> str:
        return "meta nftrace set 1"

    def encode(self) -> bytes:
        return _immediate(_REG_1, b"\x01") + _expression("meta", be32(2, _META_NFTRACE), be32(3, _REG_1))


Match = (
    In | Family | Address | Interface | Protocol | Port | EtherType | Icmp6Type
    | LocalDestination | WasTranslated | KnownConnection | FirstDirection
)  # fmt: skip
Statement = Translate | DestinationNat | Masquerade | Verdict | Lead | Traced


@dataclass(frozen=True)
class Rule:
    """`why`: in words, for who asks why a packet is lost; it is not in the kernel."""

    matches: tuple[Match, ...]
    statement: Statement
    why: str = ""

    def __str__(self) -> str:
        return " ".join(filter(None, map(str, (*self.matches, self.statement))))

    def encode(self) -> bytes:
        return b"".join(part.encode() for part in (*self.matches, self.statement))
