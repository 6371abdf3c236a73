"""The pure halves of networks: addresses, IPAM requests, options of drivers, endpoint settings, ports, and the plan of rules."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine import endpoint_settings, host_ports
from corten.engine.endpoints import _match
from corten.engine.network_records import NetworkRecord, SubnetRecord, bridge_of, decode_network, encode_network
from corten.engine.records import PublishedPort
from corten.errors import CortenError, Invalid
from corten.linux.nft_sets import Element
from corten.network import bridge_options, files, ipam, ipam_config, plan, sublink_options
from corten.spec.engine import (
    CreateRequest,
    EndpointAddresses,
    EndpointSettings,
    HostConfig,
    NetworkingConfig,
    PortBinding,
)
from corten.spec.network import IpamPool

V4 = IPv4Network("10.7.0.0/24")
NETWORK = NetworkRecord("n" * 64, "mine", "2026-01-01T00:00:00Z", "bridge", "br0", asked=[IpamPool("10.7.0.0/24")],
                        subnets=[SubnetRecord("10.7.0.0/24", "10.7.0.0/24", "10.7.0.1", ["10.7.0.1"])])  # fmt: skip


# --- subnets
subnets = st.builds(lambda number, prefix: IPv4Network((number, prefix), strict=False), st.integers(0, 2**32 - 1), st.integers(8, 30))


@given(st.lists(subnets, max_size=20))
def test_a_chosen_subnet_is_of_the_pools_and_overlaps_nothing(taken):
    try:
        chosen = ipam.choose_subnet(ipam.DEFAULT_POOLS, taken)
    except ipam.PoolsExhausted:
        assert sum(net.num_addresses for net in taken) > 2**20
        return
    assert not any(chosen.overlaps(other) for other in taken)
    assert any(chosen.subnet_of(pool.base) and chosen.prefixlen == pool.size for pool in ipam.DEFAULT_POOLS)


def test_the_default_pools_are_dockers_first_and_then_thousands():
    taken: list[ipam.Subnet] = []
    for _ in range(40):
        taken.append(ipam.choose_subnet(ipam.DEFAULT_POOLS, taken))
    assert [str(net) for net in taken[:2]] == ["172.17.0.0/16", "172.18.0.0/16"]
    assert str(taken[15]) == "192.168.0.0/20"
    assert str(taken[31]) == "10.128.0.0/21"
    assert sum(2 ** (pool.size - pool.base.prefixlen) for pool in ipam.DEFAULT_POOLS) == 31 + 4096


def test_pools_of_the_engines_settings():
    pools = ipam.parse_pools([{"base": "10.10.0.0/16", "size": 24}, {"base": "fd00:1::/48", "size": "64"}])
    assert ipam.choose_subnet(pools, [IPv4Network("10.10.0.0/24")]) == IPv4Network("10.10.1.0/24")
    assert ipam.choose_subnet(pools, [], 6) == IPv6Network("fd00:1::/64")
    for bad in ({"base": "x", "size": 24}, {"base": "10.0.0.0/16"}, {"base": "10.0.0.0/16", "size": 8}, {"base": "10.0.0.0/16", "size": 33}, 5):
        with pytest.raises(Invalid, match="default-address-pools"):
            ipam.parse_pools([bad])
    assert ipam.ula_pool("a").base.subnet_of(IPv6Network("fd00::/8"))
    assert ipam.ula_pool("a") != ipam.ula_pool("b")


# --- addresses
@given(st.sets(st.integers(0, 255)), st.integers(24, 30), st.integers(0, 3))
def test_an_address_is_the_lowest_free_one_of_the_range(numbers, prefix, offset):
    part = IPv4Network((int(V4.network_address) + (offset << (32 - prefix)) % 256, prefix), strict=False)
    taken = [V4.network_address + number for number in numbers]
    row = ipam.Range(V4, part, None, frozenset({V4.network_address + 9}))
    free = [address for address in part if address not in (*taken, V4.network_address, V4.broadcast_address, V4.network_address + 9)]
    if free:
        assert ipam.choose_address([row], taken) == (free[0], row)
    else:
        with pytest.raises(ipam.SubnetFull):
            ipam.choose_address([row], taken)


def test_several_subnets_are_filled_one_after_the_other():
    rows = [ipam.Range(net, net, None) for net in (IPv4Network("10.0.0.0/30"), IPv4Network("10.1.0.0/30"))]
    taken: list[ipam.Address] = []
    for expected in ("10.0.0.1", "10.0.0.2", "10.1.0.1", "10.1.0.2"):
        taken.append(ipam.choose_address(rows, taken)[0])
        assert str(taken[-1]) == expected
    with pytest.raises(ipam.SubnetFull):
        ipam.choose_address(rows, taken)


def test_fixed_addresses():
    row = ipam.Range(V4, V4, V4[1], frozenset({V4[1]}))
    assert ipam.take_address([row], V4[200], [V4[2]]) == (V4[200], row)
    for taken in (V4[1], V4[2]):
        with pytest.raises(ipam.AddressTaken):
            ipam.take_address([row], taken, [V4[2]])
    with pytest.raises(Invalid, match="no configured subnet or ip-range contain the IP address"):
        ipam.take_address([row], IPv4Address("10.9.0.1"), [])
    assert ipam.mac_for(IPv4Address("172.17.0.2")) == "02:42:ac:11:00:02"
    assert ipam.mac_for(IPv6Address("fd00::2")).startswith("02:")


# --- IPAM as it is asked for
@pytest.mark.parametrize(
    ("pool", "text"),
    [
        (IpamPool("1.2.3"), "invalid subnet 1.2.3: invalid CIDR block notation"),
        (IpamPool("10.9.0.1/24"), "invalid subnet 10.9.0.1/24: it should be 10.9.0.0/24"),
        (IpamPool(gateway="10.9.0.1"), "invalid subnet : invalid CIDR block notation"),
        (IpamPool("10.9.0.0/24", gateway="10.8.0.1"), "invalid gateway 10.8.0.1: parent subnet 10.9.0.0/24 doesn't contain this address"),
        (IpamPool("10.9.0.0/24", gateway="x"), "invalid gateway x: invalid address"),
        (IpamPool("10.9.0.0/24", "10.8.0.0/28"), "invalid ip-range 10.8.0.0/28: parent subnet 10.9.0.0/24 doesn't contain ip-range"),
        (IpamPool("10.9.0.0/24", auxiliary_addresses={"a": "10.8.0.5"}),
         "invalid auxiliary address a: parent subnet 10.9.0.0/24 doesn't contain this address"),
        (IpamPool("10.9.0.0/24", gateway="x", ip_range="y"), "* invalid ip-range y: invalid CIDR block notation\n* invalid gateway x: invalid address"),
    ],
)  # fmt: skip
def test_what_an_ipam_request_cannot_say(pool, text):
    with pytest.raises(Invalid) as caught:
        ipam_config.parse_pools([pool])
    assert caught.value.message == f"invalid network config:\n{text}"


@given(st.builds(IpamPool, *[st.text(st.sampled_from("0123456789./:abfx "), max_size=14)] * 3))
def test_an_ipam_request_is_parsed_or_invalid(pool):
    try:
        ipam_config.parse_pools([pool])
    except CortenError as error:
        assert error.status == 400


def test_subnets_are_allocated_for_each_family():
    wanted = ipam_config.parse_pools([IpamPool("172.28.0.0/16", "172.28.5.0/24", auxiliary_addresses={"a": "172.28.5.0"})])
    pools = (*ipam.DEFAULT_POOLS, ipam.ula_pool("x"))
    four, six = ipam_config.allocate(wanted, [4, 6], pools, [IPv4Network("172.17.0.0/16")], list)
    assert (str(four.gateway), str(four.part)) == ("172.28.5.1", "172.28.5.0/24")  # the range's first is taken
    assert six.gateway == six.subnet[1]
    assert ipam_config.allocate([], [4], pools, [], lambda: [IPv4Network("172.17.0.0/16")])[0].subnet == IPv4Network("172.18.0.0/16")
    for pair in ([IpamPool("10.9.0.0/24"), IpamPool("10.9.0.0/25")], [IpamPool("172.17.5.0/24")]):
        with pytest.raises(ipam_config.PoolOverlaps, match="Pool overlaps with other one on this address space"):
            ipam_config.allocate(ipam_config.parse_pools(pair), [4], pools, [IPv4Network("172.17.0.0/16")], list)


# --- options of drivers
def test_bridge_options():
    prefix = "com.docker.network."
    found = bridge_options.parse_options(
        {f"{prefix}bridge.name": "b0", f"{prefix}driver.mtu": "1400", f"{prefix}bridge.enable_icc": "false", "foo": "bar",
         f"{prefix}bridge.gateway_mode_ipv6": "routed", f"{prefix}bridge.host_binding_ipv4": "127.0.0.1"}, internal=False)  # fmt: skip
    assert (found.name, found.mtu, found.icc, found.mode4, found.mode6, str(found.binding4)) == ("b0", 1400, False, "nat", "routed", "127.0.0.1")
    assert bridge_options.parse_options({f"{prefix}driver.mtu": "0"}, internal=False).mtu == 1500


@pytest.mark.parametrize(
    ("key", "value", "status", "text"),
    [
        ("driver.mtu", "x", 400, 'failed to parse com.docker.network.driver.mtu value: x (strconv.Atoi: parsing "x": invalid syntax)'),
        ("driver.mtu", "-5", 400, "invalid MTU number: -5"),
        ("bridge.enable_icc", "x", 400, 'failed to parse com.docker.network.bridge.enable_icc value: x (strconv.ParseBool: parsing "x": invalid syntax)'),
        ("bridge.gateway_mode_ipv4", "x", 400, "failed to parse com.docker.network.bridge.gateway_mode_ipv4 value: x (unknown gateway mode x)"),
        ("bridge.gateway_mode_ipv4", "isolated", 500, "gateway mode 'isolated' can only be used for an internal network"),
        ("bridge.host_binding_ipv4", "x", 400, "failed to parse com.docker.network.bridge.host_binding_ipv4 value: x (nil ip)"),
        ("bridge.name", "averyveryverylongname", 500, "numerical result out of range"),
        ("bridge.name", "a/b", 400, "invalid bridge name 'a/b'"),
        ("container_iface_prefix", "", 400, "invalid interface name prefix ''"),
    ],
)
def test_bridge_options_that_cannot_be(key, value, status, text):
    with pytest.raises(CortenError) as caught:
        bridge_options.parse_options({f"com.docker.network.{key}": value}, internal=False)
    assert (caught.value.status, caught.value.message) == (status, text)


def test_sublink_options():
    assert sublink_options.parse_options("macvlan", {"parent": "eth0.30"}) == sublink_options.SublinkOptions("eth0.30", "bridge", 0, "eth0", 30)
    assert sublink_options.parse_options("ipvlan", {"parent": "eth0", "ipvlan_mode": "l3"}).mode == "l3,bridge"
    for driver, options in (("macvlan", {}), ("macvlan", {"parent": "e", "macvlan_mode": "l2"}), ("ipvlan", {"parent": "e", "ipvlan_flag": "x"})):
        with pytest.raises(Invalid):
            sublink_options.parse_options(driver, options)


# --- endpoints
def known(name):
    return NETWORK if name in ("mine", NETWORK.id) else None


def create(mode, **endpoints):
    return CreateRequest(networking_config=NetworkingConfig(endpoints)), HostConfig(network_mode=mode)


def test_places_of_a_new_container():
    fixed = EndpointSettings(ipam=EndpointAddresses(ipv4="10.7.0.9"))
    found = endpoint_settings.places(*create(NETWORK.id, other=None, mine=fixed), known)
    assert [(place.network, place.settings) for place in found] == [("mine", fixed), ("other", EndpointSettings())]
    assert endpoint_settings.places(*create("container:x"), known) == []
    assert endpoint_settings.places(*create("default"), known)[0].network == "bridge"
    old = msgspec.structs.replace(create("bridge")[0], mac_address="02:42:ac:11:00:99")
    assert endpoint_settings.places(old, HostConfig(network_mode="bridge"), known)[0].settings.mac_address == "02:42:ac:11:00:99"


@pytest.mark.parametrize(
    ("mode", "network", "settings", "text"),
    [
        ("bridge", "bridge", EndpointSettings(ipam=EndpointAddresses(ipv4="1.2.3.x")), "invalid IPv4 address: 1.2.3.x"),
        ("mine", "mine", EndpointSettings(ipam=EndpointAddresses(ipv4="10.8.0.1")),
         "invalid config for network mine: invalid endpoint settings:\nno configured subnet or ip-range contain the IP address 10.8.0.1"),
        ("mine", "mine", EndpointSettings(mac_address="x"), "invalid MAC address x"),
        ("mine", "mine", EndpointSettings(driver_opts={"com.docker.network.endpoint.sysctls": "net.ipv4.conf.eth0.log_martians=1"}), "IFNAME"),
        ("mine", "mine", EndpointSettings(driver_opts={"com.docker.network.endpoint.ifname": "a/b"}), "invalid interface name"),
    ],
)  # fmt: skip
def test_endpoint_settings_that_cannot_be(mode, network, settings, text):
    with pytest.raises(Invalid) as caught:
        endpoint_settings.places(*create(mode, **{network: settings}), known)
    assert text in caught.value.message


def test_sysctls_of_an_interface():
    assert endpoint_settings.parse_sysctls("net.ipv4.conf.IFNAME.log_martians=1,net.ipv6.conf.IFNAME.accept_ra=0", "eth1") == (
        ("net/ipv4/conf/eth1/log_martians", "1"), ("net/ipv6/conf/eth1/accept_ra", "0"),
    )  # fmt: skip
    for bad in ("net.ipv4.ip_forward=1", "net.ipv4.conf.IFNAME/../x.y=1", "kernel.a.b.IFNAME.c=1", "x"):
        with pytest.raises(ValueError):
            endpoint_settings.parse_sysctls(bad, "eth0")


def test_network_records_come_back():
    assert decode_network(encode_network(NETWORK)) == NETWORK


# --- ports
def test_published_ports():
    host = HostConfig(port_bindings={"80/tcp": [PortBinding("", "8080"), PortBinding("127.0.0.1", "")], "53/udp": [PortBinding("", "100-102")]}, publish_all_ports=True)
    both = ("0.0.0.0", "::")
    assert host_ports.wanted_ports(host, {"80/tcp": {}, "90-91/tcp": {}}, both) == [
        host_ports.Wanted(80, "tcp", both, range(8080, 8081)), host_ports.Wanted(80, "tcp", ("127.0.0.1",), range(1)),
        host_ports.Wanted(53, "udp", both, range(100, 103)), host_ports.Wanted(90, "tcp", both, range(1)), host_ports.Wanted(91, "tcp", both, range(1)),
    ]  # fmt: skip


def test_what_stays_published_is_not_published_anew():
    ports = [PublishedPort("tcp", 80, "0.0.0.0", 8080), PublishedPort("tcp", 81, "0.0.0.0", 40000)]
    wanted = [host_ports.Wanted(80, "tcp", ("0.0.0.0",), range(8081, 8082)), host_ports.Wanted(81, "tcp", ("0.0.0.0",), range(1))]
    assert _match(ports, wanted) == ([ports[1]], [wanted[0]])


# --- the plan
def test_the_plan_of_a_bridge_and_its_ports():
    published = [
        plan.Publication("tcp", IPv4Address("0.0.0.0"), 8080, IPv4Address("10.7.0.2"), 80),
        plan.Publication("udp", IPv4Address("127.0.0.1"), 53, IPv4Address("10.7.0.2"), 53),
        plan.Opening("tcp", IPv4Address("10.7.0.2"), 443),
    ]
    elements = plan.make_elements([bridge_of(NETWORK)], published)
    assert {Element("same", ("br0", "br0")), Element("nat4", ("br0",)), Element("own4", (V4, "br0"))} <= elements
    text = plan.make_table("t").render(elements)
    assert "map any4 { type inet_proto . inet_service : ipv4_addr . inet_service; elements = { tcp . 8080 : 10.7.0.2 . 80 } }" in text
    assert "elements = { 127.0.0.1 . udp . 53 : 10.7.0.2 . 53 }" in text
    assert "elements = { 10.7.0.2 . tcp . 443 }" in text
    assert text.count("oifname @bridges drop") == 1


def test_what_a_network_wants_of_its_bridge():
    def made(*, internal=False, **options):
        return bridge_of(msgspec.structs.replace(NETWORK, internal=internal, options={f"com.docker.network.bridge.{key}": value for key, value in options.items()}))

    assert made().addresses == (IPv4Interface("10.7.0.1/24"),)
    assert made(internal=True, gateway_mode_ipv4="isolated").addresses == ()
    assert made(inhibit_ipv4="true").addresses == ()
    for bridge in (made(internal=True), made(enable_ip_masquerade="false"), made(gateway_mode_ipv4="routed")):
        assert not any(element.set == "nat4" for element in plan.make_elements([bridge], ()))
    assert Element("internal", ("br0",)) in plan.make_elements([made(internal=True)], ())
    assert Element("open4", ("br0",)) in plan.make_elements([made(gateway_mode_ipv4="nat-unprotected")], ())


def test_resolv_conf():
    host = "# c\nnameserver 127.0.0.53\nnameserver 9.9.9.9\nsearch a b\noptions ndots:2\n"
    assert files.resolv_conf(host, (), (), (), keep_loopback=False) == "nameserver 9.9.9.9\nsearch a b\noptions ndots:2\n"
    assert files.resolv_conf("nameserver 127.0.0.1\n", (), (), (), keep_loopback=False).startswith("nameserver 8.8.8.8\n")
    assert files.resolv_conf(host, ("1.1.1.1",), ("x",), (), keep_loopback=False) == "nameserver 1.1.1.1\nsearch x\noptions ndots:2\n"
    assert files.hosts([("n", "1.2.3.4"), ("h.d h", "10.0.0.2")]).endswith("1.2.3.4\tn\n10.0.0.2\th.d h\n")
