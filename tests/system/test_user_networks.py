"""User-defined networks: names, isolation, several endpoints, connect and disconnect, options, and what a crash leaves."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from dnslib import DNSRecord
from pyroute2 import IPRoute

from corten.api.client import ApiError
from corten.linux.namespaces import network_namespace
from tests.engines import RunningEngine, eventually
from tests.places import socket_in
from tests.system.conftest import free_port
from tests.system.test_network import ASK, OUTSIDE, inside, inspect, outside  # noqa: F401 (a fixture)


@pytest.fixture(scope="module")
def nets(assets):
    """An engine with two networks: `front` with addresses of our choice, and `back`, internal."""
    running = RunningEngine("u")
    try:
        running.load(f"{assets}/images/busybox.tar")
        make(running, "front", IPAM={"Config": [{"Subnet": "10.231.80.0/24", "IPRange": "10.231.80.64/26"}]})
        make(running, "back", Internal=True)
        yield running
    finally:
        running.stop()


@pytest.fixture(autouse=True)
def nothing_stays(nets):
    yield
    nets.remove_all()


def make(engine, name: str, **fields: object) -> str:
    return engine.client.post("/networks/create", {"Name": name, **fields})["Id"]


def run(engine, name: str, *networks: str, command=("sleep", "600"), settings: dict | None = None, **host: object) -> str:
    endpoints = {network: (settings or {}).get(network, {}) for network in networks}
    body = {"Image": "busybox", "Cmd": list(command), "HostConfig": {"NetworkMode": networks[0], **host}, "NetworkingConfig": {"EndpointsConfig": endpoints}}
    container = engine.client.post("/containers/create", body, name=name)["Id"]
    engine.client.post(f"/containers/{container}/start")
    return container


def execute(engine, container: str, *command: str) -> str:
    from corten.api.client import demultiplex

    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": list(command), "AttachStdout": True, "AttachStderr": True})["Id"]
    stream = engine.client.hijack(f"/exec/{exec_id}/start", {})
    shown = b"".join(data for _, data in demultiplex(stream.recv)).decode()
    stream.close()
    return shown


def place(engine, container: str, network: str) -> dict:
    return inspect(engine, container)["NetworkSettings"]["Networks"][network]


def resolve(engine, container: str, name: str, kind: str = "A") -> set[str]:
    """As a program in the container: by UDP at 127.0.0.11."""
    fd = inside(engine, container)
    asking = socket_in(fd, socket.SOCK_DGRAM)
    os.close(fd)
    with asking:
        asking.sendto(DNSRecord.question(name, kind).pack(), ("127.0.0.11", 53))
        return {str(row.rdata) for row in DNSRecord.parse(asking.recv(4096)).rr}


def test_names_aliases_and_addresses(nets):
    one = run(nets, "one", "front", settings={"front": {"Aliases": ["both"]}})
    two = run(nets, "two", "front", settings={"front": {"Aliases": ["both"], "Links": ["one:friend"]}})
    first, second = (place(nets, container, "front")["IPAddress"] for container in (one, two))
    assert first == "10.231.80.65"  # the range's first is the gateway
    for name, expected in (("one", {first}), ("ONE.front", {first}), ("both", {first, second}), ("friend", {first}), (one[:12], {first})):
        assert resolve(nets, two, name) == expected, name
    assert resolve(nets, one, ".".join(reversed(second.split("."))) + ".in-addr.arpa", "PTR") == {"two.front."}
    assert resolve(nets, one, "friend") == set()
    assert place(nets, one, "front")["DNSNames"] == ["one", "both", one[:12]]
    assert "ndots:0" in execute(nets, one, "cat", "/etc/resolv.conf")
    fd = inside(nets, one)
    with socket_in(fd, socket.SOCK_STREAM) as asking:  # and by TCP
        asking.connect(("127.0.0.11", 53))
        query = DNSRecord.question("two").pack()
        asking.sendall(len(query).to_bytes(2, "big") + query)
        length = int.from_bytes(asking.recv(2), "big")
        assert str(DNSRecord.parse(asking.recv(length)).rr[0].rdata) == second
    own = socket_in(fd, socket.SOCK_DGRAM)
    own.bind(("0.0.0.0", 53))  # port 53 is the container's own
    own.close()
    os.close(fd)
    nets.client.post(f"/containers/{two}/rename", name="three")
    assert resolve(nets, one, "three") == {second}
    nets.remove(two)
    assert resolve(nets, one, "three") == set()


def test_questions_are_forwarded_and_internal_networks_ask_nobody(nets, tmp_path):
    """To a server of ours: the container's own (--dns) is asked from inside."""
    front = run(nets, "front1", "front", Dns=["10.231.80.99"])
    server = run(nets, "server", "front", settings={"front": {"IPAMConfig": {"IPv4Address": "10.231.80.99"}}})
    fd = inside(nets, server)
    upstream = socket_in(fd, socket.SOCK_DGRAM)
    os.close(fd)
    upstream.bind(("10.231.80.99", 53))
    fd = inside(nets, front)
    asking = socket_in(fd, socket.SOCK_DGRAM)
    os.close(fd)
    asking.sendto(DNSRecord.question("elsewhere.example").pack(), ("127.0.0.11", 53))
    query, client = upstream.recvfrom(4096)
    reply = DNSRecord.parse(query).replyZone("elsewhere.example 60 A 9.8.7.6")
    upstream.sendto(reply.pack(), client)
    assert str(DNSRecord.parse(asking.recv(4096)).rr[0].rdata) == "9.8.7.6"
    asking.close()
    upstream.close()
    back = run(nets, "back1", "back")
    fd = inside(nets, back)
    with socket_in(fd, socket.SOCK_DGRAM) as alone:
        os.close(fd)
        alone.sendto(DNSRecord.question("elsewhere.example").pack(), ("127.0.0.11", 53))
        assert DNSRecord.parse(alone.recv(4096)).header.rcode == 2  # SERVFAIL at once


def test_names_go_on_while_the_engine_is_away(nets):
    one = run(nets, "one", "front")
    two = run(nets, "two", "front")
    address = place(nets, two, "front")["IPAddress"]
    fd = inside(nets, one)
    asking = socket_in(fd, socket.SOCK_DGRAM)
    os.close(fd)
    asking.settimeout(20)
    nets.kill()
    try:
        asking.connect(("127.0.0.11", 53))
        asking.send(DNSRecord.question("two").pack())  # nobody is there to answer
        time.sleep(0.1)
        asking.setblocking(False)
        with pytest.raises(BlockingIOError):
            asking.recv(4096)
        asking.settimeout(20)
    finally:
        nets.start()
    assert str(DNSRecord.parse(asking.recv(4096)).rr[0].rdata) == address
    asking.close()


def test_networks_are_apart(nets, outside):  # noqa: F811
    web = ("httpd", "-f", "-p", "80", "-h", "/var/www")
    server = run(nets, "server", "front", command=web)
    hidden = run(nets, "hidden", "back", command=web)
    peer = run(nets, "peer", "front")
    plain = nets.run("sleep", "600")
    addresses = [place(nets, server, "front")["IPAddress"], place(nets, hidden, "back")["IPAddress"]]
    assert execute(nets, peer, "sh", "-c", ASK.format(addresses[0], 80)).endswith("hello from busybox\n")
    for client, address in ((plain, addresses[0]), (peer, addresses[1]), (plain, addresses[1]), (hidden, addresses[0])):
        assert execute(nets, client, "sh", "-c", f"nc -w 1 {address} 80 </dev/null 2>/dev/null && echo through || echo no").strip().endswith("no")
    assert "default" not in execute(nets, hidden, "ip", "route")
    listener = socket_in(outside, socket.SOCK_STREAM)
    listener.bind((OUTSIDE, 0))
    listener.listen(1)
    run(nets, "caller", "front", command=("sh", "-c", f"echo through | nc -w 2 {OUTSIDE} {listener.getsockname()[1]}"))
    connection, _ = listener.accept()
    assert connection.recv(100) == b"through\n"
    connection.close()
    listener.close()
    caller = socket_in(outside, socket.SOCK_STREAM)  # an outside host that has a route reaches no port that is not published
    caller.settimeout(1)
    with pytest.raises(OSError):
        caller.connect((addresses[0], 80))
    caller.close()


def test_connect_and_disconnect_live(nets):
    port = free_port()
    container = nets.run("httpd", "-f", "-p", "80", "-h", "/var/www", PortBindings={"80/tcp": [{"HostPort": str(port)}]})
    peer = run(nets, "peer", "front")
    nets.client.post("/networks/front/connect", {"Container": container, "EndpointConfig": {
        "Aliases": ["late"], "IPAMConfig": {"IPv4Address": "10.231.80.200"}, "DriverOpts": {"com.docker.network.endpoint.ifname": "late0",
                                                                                              "com.docker.network.endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}}})  # fmt: skip
    assert resolve(nets, peer, "late") == {"10.231.80.200"}
    assert resolve(nets, container, "peer") == {place(nets, peer, "front")["IPAddress"]}
    assert execute(nets, container, "cat", "/proc/sys/net/ipv4/conf/late0/log_martians").strip() == "1"
    assert "10.231.80.200\t" in execute(nets, container, "cat", "/etc/hosts")
    nets.client.post("/networks/bridge/disconnect", {"Container": container})
    assert execute(nets, container, "ip", "route").startswith("default via 10.231.80.64 dev late0")
    socket.create_connection(("127.0.0.1", port), 5).close()  # the port has moved along
    with pytest.raises(ApiError, match="is not connected to network bridge"):
        nets.client.post("/networks/bridge/disconnect", {"Container": container})
    with pytest.raises(ApiError, match="already exists in network front"):
        nets.client.post("/networks/front/connect", {"Container": container})
    nets.client.post("/networks/front/disconnect", {"Container": container})
    assert inspect(nets, container)["NetworkSettings"]["Networks"] == {}
    assert "10.231.80.200" not in execute(nets, container, "cat", "/etc/hosts")
    nets.client.post("/networks/bridge/connect", {"Container": container})
    socket.create_connection(("127.0.0.1", port), 5).close()


def test_the_gateway_is_where_the_priority_is_highest(nets):
    container = run(nets, "both", "front", "bridge", settings={"front": {"GwPriority": 2}, "bridge": {"GwPriority": 1}})
    assert execute(nets, container, "ip", "route").startswith("default via 10.231.80.64 ")
    other = run(nets, "other", "front", "bridge")  # without one, the first name
    assert execute(nets, other, "ip", "route").startswith(f"default via {place(nets, other, 'bridge')['Gateway']} ")


def test_both_families(nets, outside):  # noqa: F811
    make(nets, "six", EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:231:80::/64"}]})
    port = free_port()
    container = run(nets, "server", "six", command=("httpd", "-f", "-p", "80", "-h", "/var/www"), PortBindings={"80/tcp": [{"HostPort": str(port)}]})
    shown = place(nets, container, "six")
    assert (shown["GlobalIPv6Address"], shown["GlobalIPv6PrefixLen"], shown["IPv6Gateway"]) == ("fd00:231:80::2", 64, "fd00:231:80::1")
    assert inspect(nets, container)["NetworkSettings"]["Ports"]["80/tcp"] == [{"HostIp": "0.0.0.0", "HostPort": str(port)}, {"HostIp": "::", "HostPort": str(port)}]
    assert resolve(nets, container, "server", "AAAA") == {"fd00:231:80::2"}
    peer = run(nets, "peer", "six")
    assert execute(nets, peer, "sh", "-c", ASK.format("fd00:231:80::2", 80)).endswith("hello from busybox\n")
    assert execute(nets, peer, "sh", "-c", ASK.format("fd00:231:80::1", port)).endswith("hello from busybox\n")
    nets.remove_all()
    nets.client.delete("/networks/six")


def test_containers_without_icc_reach_only_the_way_out(nets):
    make(nets, "quiet", Options={"com.docker.network.bridge.enable_icc": "false"})
    port = free_port()
    server = run(nets, "server", "quiet", command=("httpd", "-f", "-p", "80", "-h", "/var/www"), PortBindings={"80/tcp": [{"HostPort": str(port)}]})
    peer = run(nets, "peer", "quiet")
    shown = place(nets, server, "quiet")
    assert execute(nets, peer, "sh", "-c", f"nc -w 1 {shown['IPAddress']} 80 </dev/null && echo through || echo no").strip().endswith("no")
    assert execute(nets, peer, "ping", "-c", "1", "-W", "1", shown["Gateway"]).count("1 packets received") == 1
    socket.create_connection(("127.0.0.1", port), 5).close()
    nets.remove_all()
    nets.client.delete("/networks/quiet")


def test_a_flush_by_others_is_put_back(nets):
    nft = shutil.which("nft")
    if not nft:
        pytest.skip("needs nft to be somebody else")
    port = free_port()
    nets.run("httpd", "-f", "-p", "80", PortBindings={"80/tcp": [{"HostPort": str(port)}]})

    def whole(shown: str) -> bool:
        return f"tcp . {port} :" in shown and shown.count("map @any4") == 2 and "@owned4 drop" in shown

    for damage in (("delete", "table", "inet", nets.bridge), ("flush", "chain", "inet", nets.bridge, "prerouting"), ("flush", "map", "inet", nets.bridge, "any4"),
                   ("delete", "table", "bridge", nets.bridge)):  # fmt: skip
        subprocess.run([nft, *damage], check=True)
        eventually(lambda: whole("".join(subprocess.run([nft, "list", "table", family, nets.bridge], capture_output=True, text=True, check=False).stdout
                                         for family in ("inet", "bridge"))))  # fmt: skip
        socket.create_connection(("127.0.0.1", port), 5).close()


def test_the_plan_says_what_nft_lists(nets):
    port = free_port()
    run(nets, "server", "front", PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": str(port)}]})
    done = subprocess.run([os.path.join(os.path.dirname(sys.executable), "corten"), "-H", f"unix://{nets.socket}", "network", "plan"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    assert "bridge br-" in done.stdout
    assert f"127.0.0.1 . tcp . {port} : 10.231.80." in done.stdout
    nft = shutil.which("nft")
    if nft:
        listed = "".join(subprocess.run([nft, "list", "table", family, nets.bridge], capture_output=True, text=True, check=True).stdout for family in ("inet", "bridge"))
        rules = [line.strip() for line in done.stdout.splitlines() if line.startswith("\t\t") and " hook " not in line]
        assert [rule for rule in rules if rule not in listed] == []


def test_a_link_that_is_somebody_elses_stays(nets):
    name = f"cto{os.getpid() % 100000}"
    option = {"com.docker.network.bridge.name": name}
    with IPRoute() as host:
        host.link("add", ifname=name, kind="veth", peer={"ifname": f"ctp{os.getpid() % 100000}"})
        try:
            with pytest.raises(ApiError, match=f"existing interface {name} is not a bridge"):
                make(nets, "taken", Options=option)
        finally:
            host.link("del", index=host.link_lookup(ifname=name)[0])
        host.link("add", ifname=name, kind="bridge")
        try:
            make(nets, "borrowed", Options=option)
            container = run(nets, "guest", "borrowed")
            assert os.listdir(f"/sys/class/net/{name}/brif")
            nets.remove(container)
            nets.client.delete("/networks/borrowed")
            assert host.link_lookup(ifname=name)
        finally:
            host.link("del", index=host.link_lookup(ifname=name)[0])


def our_links(engine) -> set[str]:
    found = set()
    for network in engine.client.get("/networks"):
        link = engine.bridge if network["Name"] == "bridge" else f"br-{network['Id'][:12]}"
        folder = f"/sys/class/net/{link}/brif"
        found |= set(os.listdir(folder)) if os.path.isdir(folder) else set()
    return found


def our_rules(engine) -> list[str]:
    """Both tables as the kernel has them: every rule and element, in whatever order."""
    nft = shutil.which("nft")
    shown = [subprocess.run([nft, "list", "table", family, engine.bridge], capture_output=True, text=True, check=True).stdout
             for family in ("inet", "bridge")] if nft else []  # fmt: skip
    return sorted(re.split(r"[,\s{}]+", " ".join(shown)))


def network_namespaces() -> set[str]:
    """Of processes that this test run has started."""
    run, found = f"CORTEN_TEST_RUN={os.environ['CORTEN_TEST_RUN']}".encode(), set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if run in file.read().split(b"\0"):
                found.add(os.readlink(f"/proc/{pid}/ns/net"))
    return found


def test_a_crash_in_the_middle_of_connect_leaves_nothing(nets):
    """Killed at many moments around it: afterwards the record and the kernel agree, in links, namespaces and rules."""
    container = nets.run("sleep", "600")
    base, rules, namespaces = our_links(nets), our_rules(nets), network_namespaces()
    for delay in (0.0, 0.002, 0.004, 0.008, 0.016):
        caller = socket.socket(socket.AF_UNIX)
        caller.connect(nets.socket)
        body = json.dumps({"Container": container}).encode()
        caller.sendall(b"POST /networks/front/connect HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        time.sleep(delay)
        nets.kill()
        caller.close()
        nets.start()
        connected = "front" in inspect(nets, container)["NetworkSettings"]["Networks"]
        assert len(our_links(nets) - base) == int(connected)
        fd = inside(nets, container)
        with network_namespace(fd):
            there = IPRoute()
        with there:
            names = {dict(row["attrs"])["IFLA_IFNAME"] for row in there.get_links()}
        os.close(fd)
        assert len(names) == 2 + int(connected), names
        if connected:
            nets.client.post("/networks/front/disconnect", {"Container": container})
            assert our_links(nets) == base
        assert our_rules(nets) == rules
        assert network_namespaces() <= namespaces


def test_networks_outlive_the_engine_and_are_removed_whole(nets):
    network = make(nets, "brief", Labels={"a": "b"})
    link = f"br-{network[:12]}"
    before = nets.client.get("/networks/brief")
    nets.kill()
    with IPRoute() as host:
        host.link("del", index=host.link_lookup(ifname=link)[0])  # somebody takes it away meanwhile
    nets.start()
    assert nets.client.get("/networks/brief") == before
    assert os.path.isdir(f"/sys/class/net/{link}")
    assert nets.client.post("/networks/prune", filters='{"label":["a=b"]}')["NetworksDeleted"] == ["brief"]
    assert not os.path.isdir(f"/sys/class/net/{link}")
    with pytest.raises(ApiError, match="network brief not found"):
        nets.client.get("/networks/brief")


def test_macvlan_sits_on_a_link_of_the_host(nets):
    name = f"cto{os.getpid() % 100000}"
    with IPRoute() as host:
        host.link("add", ifname=name, kind="veth", peer=f"{name}p")  # with a carrier, which a bridge without ports has not
        for end in (name, f"{name}p"):
            host.link("set", index=host.link_lookup(ifname=end)[0], state="up")
    try:
        with pytest.raises(ApiError, match="needs a link of the host to sit on"):
            make(nets, "mac", Driver="macvlan")
        try:
            make(nets, "mac", Driver="macvlan", Options={"parent": name}, IPAM={"Config": [{"Subnet": "10.231.81.0/24"}]})
        except ApiError as error:
            pytest.skip(str(error))
        one, two = run(nets, "m1", "mac"), run(nets, "m2", "mac")
        assert place(nets, one, "mac")["IPAddress"] == "10.231.81.2"
        assert execute(nets, two, "ping", "-c", "1", "-W", "2", "m1").count("1 packets received") == 1
        nets.client.post("/networks/mac/disconnect", {"Container": two})
        assert "10.231.81" not in execute(nets, two, "ip", "address")
        nets.client.post("/networks/mac/connect", {"Container": two})
        assert execute(nets, two, "ping", "-c", "1", "-W", "2", "m1").count("1 packets received") == 1
        nets.remove_all()
        nets.client.delete("/networks/mac")
    finally:
        with IPRoute() as host:
            host.link("del", index=host.link_lookup(ifname=name)[0])
