"""DNS answers about containers: from a query's bytes and what the names mean to the answer's bytes. Pure.

Source: Docker Engine 28.5 (libnetwork resolver): TTL 600; a name that is known answers with no error also for a type that it has no
record of; whatever else is asked is for somebody else to answer.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TypeAlias

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, A, DNSError, DNSHeader, DNSRecord
from dnslib.bimap import BimapError

TTL = 600
Query: TypeAlias = DNSRecord
_MAX_DATAGRAM = 512
Address = IPv4Address | IPv6Address
NamesToAddresses = Callable[[str], Sequence[Address] | None]
AddressToName = Callable[[Address], str | None]


class Malformed(Exception):
    """Not a query that could be answered at all."""


def parse(query: bytes) -> Query:
    """Raises Malformed."""
    try:
        record = DNSRecord.parse(query)
    except (DNSError, BimapError, ValueError, IndexError, UnicodeError) as error:
        raise Malformed(str(error)) from None
    if record.header.qr or len(record.questions) != 1:
        raise Malformed("not a query with one question")
    return record


def answer(query: Query, addresses: NamesToAddresses, name_of: AddressToName) -> bytes | None:
    """The answer, or None if the name is not one of ours."""
    question = query.q
    name, kind = str(question.qname).rstrip(".").lower(), question.qtype
    if kind == QTYPE.PTR:
        found = _reversed(name)
        owner = name_of(found) if found else None
        return _pack(query, [RR(question.qname, QTYPE.PTR, ttl=TTL, rdata=PTR(owner))]) if owner else None
    known = addresses(name)
    if known is None:
        return None
    rows = [RR(question.qname, _type(address), ttl=TTL, rdata=_data(address)) for address in known if kind in (_type(address), QTYPE.ANY)]
    random.shuffle(rows)  # several addresses share the load
    return _pack(query, rows)


def failure(query: Query, code: str = "SERVFAIL") -> bytes:
    reply = _reply(query)
    reply.header.rcode = getattr(RCODE, code)
    return bytes(reply.pack())


def _type(address: Address) -> int:
    return int(QTYPE.A if address.version == 4 else QTYPE.AAAA)


def _data(address: Address) -> A | AAAA:
    return A(str(address)) if address.version == 4 else AAAA(str(address))


def _reply(query: DNSRecord) -> DNSRecord:
    header = DNSHeader(id=query.header.id, bitmap=query.header.bitmap, qr=1, ra=1, aa=0)
    return DNSRecord(header, q=query.q)


def _pack(query: DNSRecord, rows: list[RR]) -> bytes:
    reply = _reply(query)
    reply.header.rcode = 0
    for row in rows:
        reply.add_answer(row)
    return bytes(reply.pack())


def fit(reply: bytes, limit: int = _MAX_DATAGRAM) -> bytes:
    """For a datagram: an answer that is too long is cut to its question and says so (TC), so that the client asks again by TCP."""
    if len(reply) <= limit:
        return reply
    short = DNSRecord.parse(reply).truncate()
    return bytes(short.pack())


def datagram_limit(query: Query) -> int:
    """What the client says that it can take (EDNS0)."""
    sizes = [int(row.rclass) for row in query.ar if row.rtype == QTYPE.OPT]
    return max([_MAX_DATAGRAM, *sizes[:1]])


def _reversed(name: str) -> Address | None:
    labels = name.split(".")
    try:
        if name.endswith(".in-addr.arpa") and len(labels) == 6:
            return ip_address(".".join(reversed(labels[:4])))
        if name.endswith(".ip6.arpa") and len(labels) == 34:
            return IPv6Address(int("".join(reversed(labels[:32])), 16))
    except ValueError:
        return None
    return None
