"""The host's own firewall holds for published ports: rules as nft, ufw and firewalld write them, two hosts outside, curl-like clients."""

from __future__ import annotations

import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine, eventually
from tests.places import FAR, NEAR, Place, socket_in
from tests.system.conftest import need
from tests.system.test_network import inside

PORT, OTHER, DATAGRAMS = 8080, 8081, 5300
SECOND = "10.231.79.3"  # the outside machine's second address


@pytest.fixture(scope="module")
def served(place, assets):
    """An engine in the place with one container that has three ports published."""
    with network_namespace(place.outside):
        subprocess.run(["ip", "address", "add", f"{SECOND}/24", "dev", "eth0"], check=True)
    ports = {"80/tcp": [{"HostPort": str(PORT)}, {"HostPort": str(OTHER)}], "53/udp": [{"HostPort": str(DATAGRAMS)}]}
    with place.engine("i", assets) as running:
        container = running.run("httpd", "-f", "-p", "80", "-h", "/var/www", name="web", PortBindings=ports)
        eventually(lambda: place.is_reached(PORT))
        with echo(inside(running, container)):
            yield running


@contextmanager
def echo(namespace: int) -> Iterator[None]:
    """Who sends a datagram to port 53 gets it back; one of no length ends that."""
    with socket_in(namespace, socket.SOCK_DGRAM) as answering, socket_in(namespace, socket.SOCK_DGRAM) as ending:
        os.close(namespace)
        answering.settimeout(None)
        answering.bind(("0.0.0.0", 53))

        def serve() -> None:
            while (found := answering.recvfrom(100))[0]:
                answering.sendto(*found)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            ending.sendto(b"", ("127.0.0.1", 53))
            thread.join()


@contextmanager
def rules_of(place: Place, served: RunningEngine, text: str) -> Iterator[None]:
    """Somebody loads these rules; inside, they are obeyed; afterwards they are gone and forgotten."""
    place.nft("-f", "-", text=text)
    tables = [line.split()[1:3] for line in text.splitlines() if line.startswith("table")]
    try:
        eventually(lambda: "_entry" in place.nft("list", "table", "inet", served.bridge), 5)
        yield
    finally:
        for family, table in tables:
            place.nft("delete", "table", family, table)
        eventually(lambda: "_entry" not in place.nft("list", "table", "inet", served.bridge), 5)
    assert place.outcome(PORT) == "open"


def echoes(place: Place) -> bool:
    with socket_in(place.outside, socket.SOCK_DGRAM) as asking:
        asking.settimeout(0.5)
        asking.sendto(b"there?", (NEAR, DATAGRAMS))
        try:
            return asking.recv(100) == b"there?"
        except OSError:
            return False


def base(policy: str, *rules: str, more: str = "") -> str:
    lines = "\n".join(rules)
    return table("inet", f"{more}\nchain input {{\ntype filter hook input priority filter; policy {policy};\n{lines}\n}}")


def table(family: str, inside: str) -> str:
    return f"table {family} mine{family} {{\n{inside}\n}}\n"


STRICT = "chain input { type filter hook input priority 0; policy drop; }"
SET = "set friends { type ipv4_addr; flags interval; elements = { 10.231.79.3-10.231.79.9 } }"
MANY = "set friends { type ipv4_addr; flags interval; elements = { 10.231.79.2, " + ", ".join(
    f"10.{high}.{low}.0-10.{high}.{low}.9" for high in range(30, 60) for low in range(200)
) + " } }"  # fmt: skip
VERDICTS = f"map verdicts {{ type inet_service : verdict; elements = {{ {PORT} : goto ours, {OTHER} : drop }} }}\nchain ours {{ ip saddr {SECOND} accept; reject; }}"
PAIRS = f"set pairs {{ type ipv4_addr . inet_service; flags interval; elements = {{ 10.231.79.0/24 . {PORT}-{PORT} }} }}"
FIREWALLD = f"""
table inet firewalld {{
    chain filter_INPUT {{ type filter hook input priority filter + 10; policy accept;
        ct state {{ established, related }} accept
        ct status dnat accept
        iifname "lo" accept
        ct state invalid drop
        jump filter_INPUT_ZONES
        reject with icmpx admin-prohibited
    }}
    chain filter_INPUT_ZONES {{ iifname "out" goto filter_IN_public; goto filter_IN_block; }}
    chain filter_IN_public {{ jump filter_IN_public_allow; meta l4proto {{ icmp, ipv6-icmp }} accept; }}
    chain filter_IN_public_allow {{ tcp dport {PORT} ct state {{ new, untracked }} accept; }}
    chain filter_IN_block {{ reject with icmpx admin-prohibited; }}
}}
"""
# name -> (rules, what is seen at PORT, at OTHER, at PORT from the second host, whether datagrams come through)
CASES: dict[str, tuple[str, str, str, str, bool]] = {
    "drop": (base("accept", f"tcp dport {PORT} drop"), "silence", "open", "silence", True),
    "reset": (base("accept", f"tcp dport {PORT} reject with tcp reset"), "refused", "open", "refused", True),
    "prohibited": (base("accept", f"tcp dport {PORT} reject with icmpx admin-prohibited"), "unreachable", "open", "unreachable", True),
    "policy": (base("drop", "ct state established,related accept", f"tcp dport {PORT} accept"), "open", "silence", "open", False),
    "return meets the policy": (base("drop", f"tcp dport {PORT} return", "accept"), "silence", "open", "silence", True),
    "interface": (base("accept", 'iifname "out" udp dport 5300 drop', 'iifname "elsewhere" drop'), "open", "open", "open", False),
    "set of ranges": (base("accept", f"tcp dport {PORT} ip saddr != @friends drop", more=SET), "silence", "open", "open", True),
    "anonymous set": (base("accept", f"tcp dport {{ 22, {PORT}-{OTHER} }} drop"), "silence", "silence", "silence", True),
    "concatenation": (base("accept", "ip saddr . tcp dport @pairs drop", more=PAIRS), "silence", "open", "silence", True),
    "verdict map": (base("accept", "tcp dport vmap @verdicts", more=VERDICTS), "refused", "silence", "open", True),
    "other family": (table("ip6", STRICT), "open", "open", "open", True),
    "ip family": (table("ip", STRICT), "silence", "silence", "silence", False),
    "two chains, both asked": (
        base("accept", f"tcp dport {PORT} accept") + table("ip", f"chain i {{\ntype filter hook input priority 50;\ntcp dport {PORT} drop\n}}"),
        "silence", "open", "silence", True,
    ),
    "firewalld": (FIREWALLD, "open", "unreachable", "open", False),
    "very many": (
        base("accept", *(f"tcp dport {number} drop" for number in range(10000, 11500)), f"tcp dport {PORT} ip saddr @friends drop", more=MANY),
        "silence", "open", "open", True,
    ),
    "a limit that is used up": (base("accept", f"tcp dport {PORT} limit rate over 1/day burst 1 packets drop"), "silence", "open", "silence", True),
}  # fmt: skip


@pytest.mark.parametrize("title", CASES)
def test_input_rules_hold_for_published_ports(served, place, title):
    rules, *expected = CASES[title]
    with rules_of(place, served, rules):
        if title == "a limit that is used up":
            place.outcome(PORT)
        seen = [place.outcome(PORT), place.outcome(OTHER), place.outcome(PORT, SECOND), echoes(place)]
        assert seen == expected, place.nft("list", "table", "inet", served.bridge)


UFW = f"""*filter
:INPUT DROP [0:0]
:ufw-before-input - [0:0]
:ufw-user-input - [0:0]
:ufw-not-local - [0:0]
:ufw-after-logging-input - [0:0]
-A INPUT -j ufw-before-input
-A INPUT -j ufw-user-input
-A INPUT -j ufw-after-logging-input
-A ufw-before-input -i lo -j ACCEPT
-A ufw-before-input -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A ufw-before-input -m conntrack --ctstate INVALID -j DROP
-A ufw-before-input -p icmp --icmp-type echo-request -j ACCEPT
-A ufw-before-input -p udp --sport 67 --dport 68 -j ACCEPT
-A ufw-before-input -j ufw-not-local
-A ufw-not-local -m addrtype --dst-type LOCAL -j RETURN
-A ufw-not-local -m addrtype --dst-type MULTICAST -j RETURN
-A ufw-not-local -j DROP
-A ufw-user-input -p tcp -m multiport --dports 22,8079:{PORT} -m comment --comment dapp_web -j ACCEPT
-A ufw-user-input -p tcp --dport {OTHER} -m conntrack --ctstate NEW -m recent --set --name DEFAULT
-A ufw-user-input -p tcp -s {SECOND} --dport {OTHER} -j REJECT --reject-with tcp-reset
-A ufw-after-logging-input -m limit --limit 3/min --limit-burst 10 -j LOG --log-prefix "[UFW BLOCK] "
COMMIT
"""


def test_rules_as_ufw_writes_them(served, place):
    with network_namespace(place.fd):
        subprocess.run([need("iptables-nft-restore")], input=UFW, text=True, check=True)
    with rules_of(place, served, "table ip filter { }\n"):  # taken away whole at the end
        assert [place.outcome(PORT), place.outcome(OTHER), place.outcome(OTHER, SECOND), echoes(place)] == ["open", "silence", "refused", False]
        eventually(lambda: "of chain ufw-user-input of table ip filter (match recent) cannot be obeyed" in served.log())
        for _ in range(3):  # connections that are there go on
            with network_namespace(place.outside):
                asked = subprocess.run(["curl", "-sS", "-m", "2", f"http://{NEAR}:{PORT}/"], capture_output=True, text=True, check=True)
            assert "hello from busybox" in asked.stdout


def test_changes_are_followed(served, place):
    with rules_of(place, served, base("accept", f"tcp dport {PORT} ip saddr @friends drop", more="set friends { type ipv4_addr; }")):
        assert place.outcome(PORT) == "open"
        place.nft("add", "element", "inet", "mineinet", "friends", f"{{ {FAR} }}")
        eventually(lambda: place.outcome(PORT) == "silence", 5)
        assert place.outcome(PORT, SECOND) == "open"
        place.nft("flush", "set", "inet", "mineinet", "friends")
        eventually(lambda: place.outcome(PORT) == "open", 5)
        place.nft("insert", "rule", "inet", "mineinet", "input", "tcp", "dport", str(PORT), "drop")
        eventually(lambda: place.outcome(PORT) == "silence", 5)
        place.nft("flush", "table", "inet", served.bridge)  # somebody empties our table: the copy comes back with the rest
        eventually(lambda: place.outcome(OTHER) == "open", 5)
        assert place.outcome(PORT) == "silence"


def test_the_host_itself_is_not_kept_out(served, place):
    with rules_of(place, served, base("drop", "ct state established accept", 'iifname "lo" accept')):
        assert place.outcome(PORT) == "silence"
        for address in ("127.0.0.1", NEAR):
            with socket_in(place.fd, socket.SOCK_STREAM) as caller:
                caller.connect((address, PORT))


def test_what_cannot_be_obeyed_is_named(served, place):
    more = "set met { type ipv4_addr; flags dynamic; size 10; }"
    with rules_of(place, served, base("accept", f"tcp dport {PORT} add @met {{ ip saddr }} drop", f"tcp dport {OTHER} drop", "meta skuid 0 drop", more=more)):
        assert (place.outcome(PORT), place.outcome(OTHER)) == ("open", "silence")
        eventually(lambda: served.log().count("cannot be obeyed for published ports: it holds for the host's own programs only") >= 2)
        assert "of chain input of table inet mineinet (a set that packets fill)" in served.log()


def test_the_old_xtables_are_named(served, place):
    program = need("iptables-legacy")
    with network_namespace(place.fd):
        done = subprocess.run([program, "-A", "INPUT", "-p", "tcp", "--dport", "1", "-j", "DROP"], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel has no old xtables: {done.stderr}")
    served.remove(served.run("sleep", "60", PortBindings={"81/tcp": [{"HostPort": "8090"}]}))
    assert "published ports do not obey iptables-legacy, chain INPUT (1 rules, policy ACCEPT)" in served.log()


def test_an_engine_that_starts_obeys_from_its_first_moment(served, place):
    with rules_of(place, served, base("accept", f"tcp dport {PORT} drop")):
        served.kill()
        assert place.outcome(PORT) == "silence"  # the rules stay without an engine
        served.start()
        assert (place.outcome(PORT), place.outcome(OTHER)) == ("silence", "open")


def test_ipv6_obeys_its_own_rules(served, place):
    near, far = "fd00:231:79::1", "fd00:231:79::2"
    for namespace, address, link in ((place.fd, near, "out"), (place.outside, far, "eth0")):
        with network_namespace(namespace):
            subprocess.run(["ip", "address", "add", f"{address}/64", "dev", link, "nodad"], check=True)
    served.client.post("/networks/create", {"Name": "six", "EnableIPv6": True})
    container = served.run("httpd", "-f", "-p", "80", "-h", "/var/www", NetworkMode="six", PortBindings={"80/tcp": [{"HostPort": "8086"}]})

    def asked(address: str) -> bool:
        with network_namespace(place.outside):
            done = subprocess.run(["curl", "-sS", "-m", "1", f"http://{address}:8086/"], capture_output=True, text=True, check=False)
        return "hello from busybox" in done.stdout

    try:
        eventually(lambda: asked(f"[{near}]") and asked(NEAR))
        for rules, expected in (
            (table("ip6", STRICT), (False, True)),
            (table("ip6", f"chain input {{\ntype filter hook input priority 0; policy drop;\nicmpv6 type != echo-request accept\nip6 saddr {far} tcp dport 8086 accept\n}}"), (True, True)),
            (base("accept", "meta nfproto ipv6 tcp dport 8086 reject with tcp reset"), (False, True)),
            (table("ip", STRICT), (True, False)),
        ):  # fmt: skip
            with rules_of(place, served, rules):
                assert (asked(f"[{near}]"), asked(NEAR)) == expected, place.nft("list", "ruleset")
    finally:
        served.remove(container)
        served.client.delete("/networks/six")
