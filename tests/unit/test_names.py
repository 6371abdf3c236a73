"""The name service's pure half: queries in, answers out; links; the files."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec
import pytest
from dnslib import EDNS0, QTYPE, RCODE, DNSRecord
from hypothesis import given
from hypothesis import strategies as st

from corten.engine import links
from corten.engine.records import ContainerRecord, EndpointRecord, State
from corten.errors import Invalid
from corten.network import dns, files
from corten.spec.engine import Config, EndpointSettings, HostConfig

KNOWN = {"web": [IPv4Address("10.0.0.2"), IPv4Address("10.0.0.3")], "six": [IPv6Address("fd00::2")]}


def ask(name: str, kind: str = "A") -> DNSRecord | None:
    query = dns.parse(DNSRecord.question(name, kind).pack())
    reply = dns.answer(query, KNOWN.get, {IPv4Address("10.0.0.2"): "c1.n1", IPv6Address("fd00::2"): "c6.n1"}.get)
    if reply is None:
        return None
    parsed = DNSRecord.parse(reply)
    assert (parsed.header.id, parsed.header.qr, parsed.header.rcode, parsed.q) == (query.header.id, 1, 0, query.q)
    return parsed


def data(reply: DNSRecord) -> set[str]:
    return {str(row.rdata) for row in reply.rr}


def test_names_mean_addresses_of_the_family_that_is_asked_for():
    assert data(ask("web")) == {"10.0.0.2", "10.0.0.3"}
    assert data(ask("WEB.")) == {"10.0.0.2", "10.0.0.3"}
    assert data(ask("six", "AAAA")) == {"fd00::2"}
    assert data(ask("six", "A")) == set()  # known, but not in this family: no error, nothing to forward
    assert data(ask("web", "MX")) == set()
    assert ask("elsewhere.example") is None


def test_addresses_mean_names():
    assert data(ask("2.0.0.10.in-addr.arpa", "PTR")) == {"c1.n1."}
    reverse = ip_address("fd00::2").reverse_pointer
    assert data(ask(reverse, "PTR")) == {"c6.n1."}
    for unknown in ("9.0.0.10.in-addr.arpa", "x.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "z" + reverse[1:]):
        assert ask(unknown, "PTR") is None


def test_several_addresses_take_turns():
    assert {str(ask("web").rr[0].rdata) for _ in range(60)} == {"10.0.0.2", "10.0.0.3"}


@given(st.binary(max_size=80))
def test_a_malformed_query_is_malformed_and_nothing_else(query):
    try:
        dns.answer(dns.parse(query), KNOWN.get, lambda _address: None)
    except dns.Malformed:
        return


def test_an_answer_that_is_too_long_is_cut():
    many = {"many": [IPv4Address(number) for number in range(1, 100)]}
    query = dns.parse(DNSRecord.question("many").pack())
    reply = dns.answer(query, many.get, lambda _address: None)
    short = DNSRecord.parse(dns.fit(reply))
    assert (short.header.tc, short.rr) == (1, [])
    assert dns.fit(reply, 4096) == reply
    asked = DNSRecord.question("many")
    asked.add_ar(EDNS0(udp_len=1400))
    assert dns.datagram_limit(dns.parse(asked.pack())) == 1400
    assert DNSRecord.parse(dns.failure(query)).header.rcode == RCODE.SERVFAIL
    assert QTYPE.A == 1


# --- links
def container(name: str, *, ip: str = "172.17.0.2", **config: object) -> ContainerRecord:
    place = EndpointRecord("bridge", network_id="n", id="e", address=f"{ip}/16")
    return ContainerRecord("a" * 64, name, "2026-01-01T00:00:00Z", "sha256:" + "b" * 64, [], Config(**config), HostConfig(), [place],
                           state=State("running"))  # fmt: skip


def test_legacy_links():
    other = container("db", exposed_ports={"5432/tcp": {}, "80/udp": {}}, env=["A=b", "HOME=/x"], hostname="abc")
    assert links.stored(["db:my-db"], "web", lambda _name: other) == ["/db:/web/my-db"]
    record = msgspec.structs.replace(container("web"), host_config=HostConfig(links=["/db:/web/my-db"]))
    [(link, found)] = links.resolve(record, lambda _name: other)
    assert links.host_row(link, found) == ("my-db abc db", "172.17.0.2")
    assert links.environment(link, found) == [
        "MY_DB_PORT=udp://172.17.0.2:80",
        "MY_DB_PORT_80_UDP=udp://172.17.0.2:80", "MY_DB_PORT_80_UDP_ADDR=172.17.0.2", "MY_DB_PORT_80_UDP_PORT=80", "MY_DB_PORT_80_UDP_PROTO=udp",
        "MY_DB_PORT_5432_TCP=tcp://172.17.0.2:5432", "MY_DB_PORT_5432_TCP_ADDR=172.17.0.2", "MY_DB_PORT_5432_TCP_PORT=5432",
        "MY_DB_PORT_5432_TCP_PROTO=tcp", "MY_DB_NAME=/web/my-db", "MY_DB_ENV_A=b",
    ]  # fmt: skip
    stopped = msgspec.structs.replace(other, state=State("exited"))
    with pytest.raises(links.LinkedNotRunning, match="Cannot link to a non running container: /db AS /web/my-db"):
        list(links.resolve(record, lambda _name: stopped))


def test_links_on_a_network_of_ones_own_are_the_endpoints():
    host = HostConfig(links=["db:x"])
    assert links.of_endpoint(host, "mine", EndpointSettings()).links == ["db:x"]
    assert links.kept(host, [EndpointRecord("mine")]) is None
    assert links.kept(host, [EndpointRecord("bridge")]) == ["db:x"]
    for bad in (":x", "db:", "a:b:c", ""):
        with pytest.raises(Invalid, match="bad format for links"):
            links.parse(bad)


# --- resolv.conf
def test_the_resolver_of_a_network_of_ones_own_is_asked_first():
    host = "nameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a\noptions edns0\n"
    assert files.own_resolv_conf(host, (), (), "127.0.0.11") == "nameserver 127.0.0.11\nsearch a\noptions edns0 ndots:0\n"
    assert files.own_resolv_conf("nameserver 1.1.1.1\n", ("b",), (), "127.0.0.11") == "nameserver 127.0.0.11\nsearch b\noptions ndots:0\n"
    assert files.own_resolv_conf(host, (), ("ndots:3",), "127.0.0.11").endswith("options ndots:3\n")
    assert files.nameservers(host) == ["127.0.0.53", "9.9.9.9"]
