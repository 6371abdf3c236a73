"""nftables by netlink: matches and statements as values, and replacing one whole table atomically.

Each value prints as nft(8) would write it and encodes to the kernel's expressions. Only what Corten's rules use is here.
Sources: include/uapi/linux/netfilter/nf_tables.h; `nft --debug=netlink` for the expression sequences.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from corten.linux.netlink import NLM_F_APPEND, NLM_F_CREATE, Netlink, Request, attribute, be32, nested, text

_SUBSYSTEM = 10 << 8
_NEWTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = 0, 2, 3, 6
_BATCH_BEGIN, _BATCH_END = 16, 17
_NFPROTO_IPV4 = 2
_REG_VERDICT, _REG_1, _REG_2 = 0, 1, 2
_CMP_EQ, _CMP_NEQ = 0, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_META_IIFNAME, _META_OIFNAME, _META_L4PROTO = 6, 7, 16
_HOOKS = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_VERDICTS = {"drop": 0, "accept": 1}
PROTOCOLS = {"tcp": 6, "udp": 17}
_CT_STATUS_DNAT = 0x20


def _expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def _compare(register: int, operator: int, value: bytes) -> bytes:
    return _expression("cmp", be32(1, register), be32(2, operator), nested(3, attribute(1, value)))


def _payload(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", be32(1, _REG_1), be32(2, base), be32(3, offset), be32(4, length))


def _meta(key: int) -> bytes:
    return _expression("meta", be32(2, key), be32(1, _REG_1))


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", be32(1, register), nested(2, attribute(1, value)))


def _masked(mask: bytes) -> bytes:
    return _expression(
        "bitwise", be32(1, _REG_1), be32(2, _REG_1), be32(3, len(mask)),
        nested(4, attribute(1, mask)), nested(5, attribute(1, bytes(len(mask)))),
    )  # fmt: skip


@dataclass(frozen=True)
class Address:
    """`ip saddr NET` or `ip daddr NET`."""

    side: str
    network: IPv4Network

    def __str__(self) -> str:
        host = self.network.prefixlen == 32
        return f"ip {self.side} {self.network.network_address if host else self.network}"

    def encode(self) -> bytes:
        load = _payload(_NETWORK_HEADER, 12 if self.side == "saddr" else 16, 4)
        mask = b"" if self.network.prefixlen == 32 else _masked(self.network.netmask.packed)
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
class Port:
    """`tcp dport N` or `udp dport N`."""

    protocol: str
    number: int

    def __str__(self) -> str:
        return f"{self.protocol} dport {self.number}"

    def encode(self) -> bytes:
        protocol = _meta(_META_L4PROTO) + _compare(_REG_1, _CMP_EQ, bytes([PROTOCOLS[self.protocol]]))
        return protocol + _payload(_TRANSPORT_HEADER, 2, 2) + _compare(_REG_1, _CMP_EQ, struct.pack(">H", self.number))


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
        load = _expression("ct", be32(2, 2), be32(1, _REG_1))  # key status
        return load + _masked(struct.pack("=I", _CT_STATUS_DNAT)) + _compare(_REG_1, _CMP_NEQ, bytes(4))


@dataclass(frozen=True)
class DestinationNat:
    address: IPv4Address
    port: int

    def __str__(self) -> str:
        return f"dnat to {self.address}:{self.port}"

    def encode(self) -> bytes:
        loads = _immediate(_REG_1, self.address.packed) + _immediate(_REG_2, struct.pack(">H", self.port))
        translate = _expression("nat", be32(1, 1), be32(2, _NFPROTO_IPV4), be32(3, _REG_1), be32(5, _REG_2))
        return loads + translate


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
        code = nested(2, be32(1, _VERDICTS[self.name]))
        return _expression("immediate", be32(1, _REG_VERDICT), nested(2, code))


Match = Address | Interface | Port | LocalDestination | WasTranslated
Statement = DestinationNat | Masquerade | Verdict


@dataclass(frozen=True)
class Rule:
    matches: tuple[Match, ...]
    statement: Statement

    def __str__(self) -> str:
        return " ".join(str(part) for part in (*self.matches, self.statement))


@dataclass(frozen=True)
class Chain:
    """A base chain: `type` filter or nat, on `hook` at `priority`, policy accept."""

    name: str
    type: str
    hook: str
    priority: int
    rules: tuple[Rule, ...]


@dataclass(frozen=True)
class Table:
    """A whole `ip` table."""

    name: str
    chains: tuple[Chain, ...]

    def __str__(self) -> str:
        lines = [f"table ip {self.name} {{"]
        for chain in self.chains:
            lines.append(f"\tchain {chain.name} {{")
            lines.append(f"\t\ttype {chain.type} hook {chain.hook} priority {chain.priority}; policy accept;")
            lines += [f"\t\t{rule}" for rule in chain.rules]
            lines.append("\t}")
        return "\n".join([*lines, "}"])


def _message(kind: int, flags: int, what: str, *attributes: bytes) -> Request:
    return Request(_SUBSYSTEM | kind, flags, struct.pack(">BBH", _NFPROTO_IPV4, 0, 0) + b"".join(attributes), what)


def _batch(kind: int) -> Request:
    return Request(kind, 0, struct.pack(">BBH", 0, 0, 10), "batch", acknowledged=False)


def _chain_request(table: Table, chain: Chain) -> Request:
    hook = nested(4, be32(1, _HOOKS[chain.hook]), be32(2, chain.priority & 0xFFFFFFFF))
    return _message(
        _NEWCHAIN, NLM_F_CREATE, f"chain {chain.name}",
        text(1, table.name), text(3, chain.name), hook, be32(5, _VERDICTS["accept"]), text(7, chain.type),
    )  # fmt: skip


def _rule_request(table: Table, chain: Chain, rule: Rule) -> Request:
    body = b"".join(part.encode() for part in (*rule.matches, rule.statement))
    return _message(
        _NEWRULE, NLM_F_CREATE | NLM_F_APPEND, f"rule {rule}", text(1, table.name), text(2, chain.name), nested(4, body)
    )


def _remove_requests(name: str) -> list[Request]:
    # Adding it first makes removing it succeed whether it was there or not.
    return [_message(_NEWTABLE, NLM_F_CREATE, f"table {name}", text(1, name)), _message(_DELTABLE, 0, f"table {name}", text(1, name))]


def replace_table(netlink: Netlink, table: Table) -> None:
    """Put this table in the place of the one of its name, in one transaction: no packet sees half of it."""
    requests = [_batch(_BATCH_BEGIN), *_remove_requests(table.name)]
    requests.append(_message(_NEWTABLE, NLM_F_CREATE, f"table {table.name}", text(1, table.name)))
    for chain in table.chains:
        requests.append(_chain_request(table, chain))
        requests += [_rule_request(table, chain, rule) for rule in chain.rules]
    netlink.execute([*requests, _batch(_BATCH_END)])


def delete_table(netlink: Netlink, name: str) -> None:
    """Idempotent."""
    netlink.execute([_batch(_BATCH_BEGIN), *_remove_requests(name), _batch(_BATCH_END)])
