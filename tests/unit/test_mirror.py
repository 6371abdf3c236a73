"""Copies of the host's input rules: what of a rule becomes what, and what is left out with which reason."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine.host_rules import HostRules
from corten.linux.netlink import be32, nested, text
from corten.linux.nft_foreign import Expression, ForeignRule, HostChain, HostSet, HostTable, concern_hook
from corten.linux.xt_legacy import _judge
from corten.linux.xt_rules import Untranslatable, translate_match, translate_target
from corten.network.mirror import Mirror, make_mirror
from corten.network.plan import make_table


def verdict(code: int, chain: str = "") -> Expression:
    return Expression("immediate", be32(1, 0) + nested(2, nested(2, be32(1, code & 0xFFFFFFFF), *([text(2, chain)] if chain else []))))


DROP, ACCEPT = verdict(0), verdict(1)
LOAD = Expression("payload", be32(1, 1) + be32(2, 2) + be32(3, 2) + be32(4, 2))


def host(*rules: ForeignRule, family: str = "inet", drops: bool = False, sets: tuple[HostSet, ...] = (), more: tuple[HostChain, ...] = ()) -> list[HostTable]:
    return [HostTable(family, "f", (HostChain("input", rules, base=True, drops=drops), *more), sets)]


def xt(name: str, info: bytes, revision: int = 0) -> Expression:
    return Expression("match", text(1, name) + be32(2, revision) + struct.pack("=HH", 4 + len(info), 3) + info + bytes(-len(info) % 4))


def test_a_table_without_mirror_is_as_before():
    assert make_table("t") == make_table("t", make_mirror([]))


def test_a_chain_and_what_it_leads_to():
    mirror = make_mirror(host(ForeignRule(5, (LOAD, Expression("counter"), verdict(-3, "sub"))), drops=True, more=(HostChain("sub", (ForeignRule(7, (DROP,)),)),)))
    shown = make_table("t", mirror).render(())
    for line in (
        "chain host1_input {\n\t\t# rule 5 of chain input of table inet f\n",
        "chain host1_sub {\n\t\t# rule 7 of chain sub of table inet f\n",
        "chain host1_input_policy {\n\t\tjump host1_input\n\t\tdrop\n",
        "type filter hook prerouting priority -110; policy accept;\n\t\tct direction original meta l4proto . th dport @published fib daddr type local jump host1_input_policy",
    ):
        assert line in shown
    copied = next(chain for chain in mirror.chains if chain.name == "host1_input").rules[0]
    assert b"host1_sub\0" in copied.encode()
    assert b"counter" not in copied.encode()
    assert mirror.sources == ("chain input of table inet f",)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (Expression("dynset"), "a set that packets fill"),
        (Expression("meta", be32(3, 1) + be32(2, 3)), "meta that is set, or is a socket's"),
        (Expression("meta", be32(1, 1) + be32(2, 10)), "meta that is set, or is a socket's"),
        (verdict(3), "queue"),
        (xt("recent", bytes(8)), "match recent"),
        (Expression("something-new"), "something-new"),
        (Expression("lookup", text(1, "unknown") + be32(2, 1)), "set unknown"),
    ],
)
def test_what_cannot_be_copied_is_named_and_the_rest_is_there(expression, reason):
    mirror = make_mirror(host(ForeignRule(1, (expression, DROP)), ForeignRule(2, (LOAD, ACCEPT))))
    assert mirror.left_out == (f"rule 1 of chain input of table inet f ({reason})",)
    assert [rule.origin for chain in mirror.chains if chain.name == "host1_input" for rule in chain.rules] == ["rule 2 of chain input of table inet f"]


def test_what_the_kernel_refuses_is_left_out_too():
    mirror = make_mirror(host(ForeignRule(1, (DROP,))), {"rule 1 of chain input of table inet f"})
    assert mirror.left_out[0].startswith("rule 1 of chain input of table inet f (the kernel")


def test_sets_come_along_under_another_name():
    row = HostSet("__set0", 1 | 2 | 4, be32(4, 13), (nested(1, b"\0\0\0\0"),))
    mirror = make_mirror(host(ForeignRule(1, (LOAD, Expression("lookup", text(1, "__set0") + be32(2, 1) + be32(4, 9)), DROP)), sets=(row,)))
    assert [(copy.name, copy.flags, copy.elements) for copy in mirror.sets] == [("host1___set0", 4, row.elements)]
    assert b"host1___set0\0" in mirror.chains[0].rules[0].encode()


def test_rules_of_one_family_ask_for_it_first():
    mirror = make_mirror(host(ForeignRule(1, (DROP,)), family="ip"))
    assert str(mirror.chains[-1].rules[0]).startswith("meta nfproto ipv4 ct direction original ")


# --- xtables
def conntrack(state: int, *, flags: int = 1, inverted: int = 0) -> bytes:
    return bytes(146) + struct.pack("=HHHH", flags, inverted, state, 0) + bytes(8)


def multiport(where: int, ports: list[int], opens: list[int], *, inverted: bool = False) -> bytes:
    return struct.pack("=BB15H15BB", where, len(ports), *(ports + [0] * 15)[:15], *(opens + [0] * 15)[:15], inverted)


def words(rows: list[list[Expression]]) -> list[str]:
    return [" ".join(part.name for part in row) for row in rows]


def test_matches_of_xtables():
    assert words(translate_match("conntrack", 3, conntrack(6))) == ["ct bitwise cmp"]
    assert words(translate_match("multiport", 1, multiport(1, [22, 1000, 2000, 80], [0, 1, 0, 0]))) == ["payload cmp", "payload range", "payload cmp"]
    assert words(translate_match("multiport", 1, multiport(1, [22, 80], [0, 0], inverted=True))) == ["payload cmp payload cmp"]
    assert words(translate_match("addrtype", 1, struct.pack("=HHI", 0, 1 << 2 | 1 << 3, 0))) == ["fib cmp", "fib cmp"]
    assert words(translate_match("tcp", 0, struct.pack("=4H4B", 0, 65535, 80, 80, 0, 0x17, 2, 0))) == ["payload cmp payload bitwise cmp"]
    assert words(translate_match("udp", 0, struct.pack("=4HB", 0, 65535, 53, 60, 2))) == ["payload range"]
    assert translate_match("icmp", 0, b"") == []  # never of a published port
    for info in (conntrack(0x40), conntrack(2, flags=3)):
        with pytest.raises(Untranslatable):
            translate_match("conntrack", 3, info)


def test_targets_of_xtables():
    assert translate_target("LOG", b"", "ip") == []
    assert translate_target("REJECT", struct.pack("=I", 7), "ip")[0].body == be32(1, 1) + struct.pack("=HHB3x", 5, 2, 0)
    assert translate_target("REJECT", struct.pack("=I", 4), "ip6")[0].body == be32(1, 0) + struct.pack("=HHB3x", 5, 2, 4)
    for name, info in (("REJECT", struct.pack("=I", 4)), ("REJECT", b""), ("MARK", bytes(8))):
        with pytest.raises(Untranslatable):
            translate_target(name, info, "ip")


@given(st.sampled_from(["conntrack", "state", "addrtype", "multiport", "tcp", "udp"]), st.integers(0, 4), st.binary(max_size=200))
def test_any_bytes_are_translated_or_refused(name, revision, info):
    try:
        rows = translate_match(name, revision, info)
    except Untranslatable:
        return
    assert all(part.name in ("payload", "cmp", "range", "bitwise", "ct", "fib") for row in rows for part in row)


def test_rules_of_the_old_xtables_are_counted():
    def entry(code: int) -> bytes:
        return bytes(84) + struct.pack("=IHHI16x", 0, 112, 152, 0) + struct.pack("=H30xi4x", 40, code)

    entries = entry(-2) * 3
    assert str(_judge("iptables", entries[:112] + entries[112:], 0, 304)) == "iptables-legacy, chain INPUT (2 rules, policy ACCEPT)"
    assert _judge("iptables", entry(-2) + entry(-1), 0, 152).drops


class Kernel:
    def host_input(self, _own_table: str) -> list[HostTable]:
        return host(ForeignRule(1, (DROP,)), ForeignRule(2, (ACCEPT,), "mine"))


def test_what_the_kernel_refuses_is_found_by_trying(caplog):
    tried = []

    def put(mirror: Mirror) -> None:
        tried.append(mirror)
        for chain in mirror.chains:
            for rule in chain.rules:
                if getattr(rule, "origin", "") == "rule 2 (mine) of chain input of table inet f":
                    raise OSError(95, "Operation not supported", rule.origin)

    rules = HostRules(Kernel(), "t", put)
    rules.start()
    assert (len(tried), rules.mirror) == (2, tried[1])
    assert "the host's rule 2 (mine) of chain input of table inet f (the kernel does not take it before the port is translated) cannot be obeyed" in caplog.text


def test_an_error_that_is_nobodys_rule_is_raised():
    def put(_mirror: Mirror) -> None:
        raise OSError(12, "Cannot allocate memory", "table t")

    with pytest.raises(OSError, match="Cannot allocate memory"):
        HostRules(Kernel(), "t", put).start()


def test_only_what_concerns_the_hook_is_read_again():
    def message(kind: int, table: str, *more: bytes, family: int = 1) -> tuple[int, int, bytes]:
        return 10 << 8 | kind, 7, struct.pack(">BBH", family, 0, 0) + text(1, table) + b"".join(more)

    read = {("inet", "mine")}
    new_element, new_chain, new_table = 12, 3, 0
    assert concern_hook([message(new_element, "mine")], read, 1)
    assert concern_hook([message(new_table, "fresh")], read, 1)
    assert concern_hook([message(new_chain, "other", nested(4, be32(1, 1)))], read, 1)
    for quiet in (message(new_element, "other"), message(new_chain, "other", nested(4, be32(1, 2))), message(new_chain, "other"), message(new_element, "mine", family=7)):
        assert not concern_hook([quiet], read, 1)
    assert not concern_hook([message(new_element, "mine")], read, 7)  # our own
