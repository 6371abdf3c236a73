"""Every option of the network endpoints that networks.py has not: of bridges, of their addresses, of endpoints, of disconnecting."""

from __future__ import annotations

from typing import Any

from tests.conformance.ask import RUN, Request, created
from tests.conformance.cases.networks import (
    _BOX,
    _INSPECT,
    _NET,
    _ON_NET,
    _START,
    _SUBNET,
    _connect,
    _disconnect,
    _network,
    _option,
    _pool,
    _refused,
)

_LOOK: Request = ("GET", "/networks/conf-net", None)
_GONE: Request = ("DELETE", "/networks/conf-net", None)
_PREFIX = "com.docker.network."


def _made(key: str, value: str, **fields: Any) -> list[Request]:
    """A network with an option; it is taken away whether it was made or not."""
    return [("POST", "/networks/create", {"Name": _NET, "Options": {_PREFIX + key: value}} | fields), _LOOK, _GONE]


def _endpoint(**settings: Any) -> Request:
    return ("POST", "/containers/create", _ON_NET | {"NetworkingConfig": {"EndpointsConfig": {_NET: settings}}})


def _force(container: str, network: str) -> Request:
    return ("POST", f"/networks/{network}/disconnect", {"Container": container, "Force": True})


CASES: dict[str, list[Request]] = {
    "bridge options": [
        *_made("bridge.name", "confbr0"), *_made("driver.mtu", "1400"), *_made("driver.mtu", "0"), *_made("bridge.enable_icc", "false"), *_made("bridge.enable_ip_masquerade", "0"),
        *_made("bridge.host_binding_ipv4", "127.0.0.1"), *_made("bridge.gateway_mode_ipv4", "routed"), *_made("bridge.gateway_mode_ipv4", "nat-unprotected"),
        *_made("bridge.gateway_mode_ipv6", "routed", EnableIPv6=True), *_made("bridge.gateway_mode_ipv4", "isolated", Internal=True), *_made("bridge.inhibit_ipv4", "true"),
        *_made("bridge.trusted_host_interfaces", "lo:eth0"), *_made("bridge.trusted_host_interfaces", ""), *_made("host_ipv4", "127.0.0.1"), *_made("container_iface_prefix", "conf"),
        *_made("bridge.default_bridge", "false"), *_made("nosuch", "x"),
    ],
    "bridge options refused": [
        _option("bridge.enable_ip_masquerade", "x"), _option("bridge.gateway_mode_ipv6", "x"), _option("bridge.gateway_mode_ipv6", "isolated"), _option("bridge.inhibit_ipv4", "x"),
        _option("bridge.default_bridge", "x"), _option("bridge.name", "lo"), _option("bridge.host_binding_ipv4", ""), _option("driver.mtu", ""),
        _option("driver.mtu", "1.5"), _option("bridge.enable_icc", ""),
    ],
    "families": [
        _refused(EnableIPv4=False), _refused(EnableIPv4=False, EnableIPv6=False), *_network({"EnableIPv4": False, "EnableIPv6": True}, _LOOK),
        *_network({"EnableIPv6": True, "IPAM": {"Config": [{"Subnet": "fd00:c0f::/64", "Gateway": "fd00:c0f::1"}]}}, _LOOK),
        _refused(EnableIPv6=True, IPAM={"Config": [{"Subnet": "fd00:c0f::/65", "Gateway": "10.1.1.1"}]}), _pool(Subnet="fd00:c0f::/64"), _GONE,
        _refused(EnableIPv4=False, EnableIPv6=True, IPAM={"Config": [{"Subnet": "10.231.77.0/24"}]}), _GONE,
    ],
    "two subnets": [_refused(IPAM={"Config": [{"Subnet": "10.231.76.0/24"}, {"Subnet": "10.231.77.0/24"}]}), _LOOK, _GONE],
    "subnets": [
        _refused(IPAM={"Options": {"a": "b"}, "Config": [{"Subnet": "10.231.76.0/24", "Gateway": "10.231.76.254"}]}), _LOOK, _GONE,
        _pool(Subnet="10.231.76.0/32"), _GONE, _pool(Subnet="10.231.76.0/31"), _GONE, _pool(Subnet="10.231.76.0/30", Gateway="10.231.76.0"), _GONE,
        _pool(Subnet="10.231.76.0/24", IPRange="10.231.76.0/23"), _pool(Subnet="10.231.76.0/24", IPRange="x"), _pool(Subnet="10.231.76.0/24", IPRange="10.231.76.1/25"),
        _pool(Subnet="10.231.76.0/24", AuxiliaryAddresses={"a": "x"}),
        _pool(Subnet="10.231.76.0/24", Gateway="10.231.76.9", AuxiliaryAddresses={"a": "10.231.76.9"}), _GONE,
    ],
    "other drivers": [
        _refused(Driver="macvlan", Options={"parent": "conf-nosuch"}), _GONE, _refused(Driver="macvlan", Options={"macvlan_mode": "x"}), _refused(Driver="ipvlan", Options={"ipvlan_mode": "x"}),
        _refused(Driver="ipvlan", Options={"ipvlan_flag": "x"}), _GONE,
    ],
    "network requests": [
        *_network({"CheckDuplicate": True, "Scope": "local", "Attachable": True}, _LOOK), *_network({"Labels": None, "Options": None, "IPAM": None}, _LOOK),
        *_network({"ConfigOnly": True}, _LOOK), _refused(ConfigFrom={"Network": "conf-nosuch"}), _refused(ConfigOnly=True, ConfigFrom={"Network": "conf-nosuch"}),
        ("POST", "/networks/create", {"Name": "conf/net"}), ("DELETE", "/networks/conf%2Fnet", None), ("POST", "/networks/create", {"Name": " "}), ("DELETE", "/networks/%20", None),
        ("POST", "/networks/create", {"Name": "-x"}), ("DELETE", "/networks/-x", None), ("POST", "/networks/create", {"Name": "n" * 300}), ("DELETE", f"/networks/{'n' * 300}", None),
        ("POST", "/networks/create", {"Name": "default"}), ("POST", "/networks/create", []), ("POST", "/networks/create", {"Name": 5}),
    ],
    "named like a container": [("POST", "/networks/create", {"Name": "container:x"})],
    "network inspect": _network(
        {}, ("GET", "/networks/conf-net?verbose=1", None), ("GET", "/networks/conf-net?scope=local", None), ("GET", "/networks/conf-net?scope=swarm", None),
        ("GET", "/networks/conf-net?scope=x", None), ("GET", "/networks/conf-net?verbose=x", None), ("GET", "/networks/conf-none?verbose=1", None), ("GET", "/networks/conf", None),
    ),
    "network prune": [
        ("POST", '/networks/prune?filters={"until":["x"]}', None), ("POST", '/networks/prune?filters={"until":["1h","2h"]}', None), ("POST", '/networks/prune?filters={"label!":["l"],"label":["conf-nosuch"]}', None),
        ("POST", "/networks/prune?filters=x", None), ("POST", '/networks/prune?filters={"dangling":["true"]}', None),
        *_network({"Labels": {"conf": "prune"}}, ("POST", '/networks/prune?filters={"label":["conf=prune"],"until":["2000-01-01"]}', None), _LOOK,
                  ("POST", '/networks/prune?filters={"label":["conf=prune"]}', None), _LOOK),
    ],
    "network list": _network(
        {"Labels": {"l": "v"}}, *(("GET", f"/networks?filters={text}", None) for text in (
            '{"id":["zz"]}', '{"name":["conf-n"]}', '{"driver":["bridge","null"],"name":["conf-net"]}', '{"label":["l=x"]}', '{"label":["l"]}', '{"dangling":["1"],"name":["conf-net"]}',
            '{"dangling":["false"],"name":["conf-net"]}', '{"dangling":["TRUE"]}', '{"scope":["local"],"name":["conf-net"]}', '{"type":["custom","builtin"],"name":["conf-net"]}', "x", "[]")),
    ),
    "endpoint options": _network(
        _SUBNET,
        *created(_ON_NET | {"NetworkingConfig": {"EndpointsConfig": {_NET: {
            "IPAMConfig": {"IPv4Address": "10.231.76.20", "LinkLocalIPs": ["169.254.7.7"]}, "MacAddress": "02:42:0a:00:00:09", "Aliases": ["al"], "GwPriority": 7,
            "DriverOpts": {_PREFIX + "endpoint.ifname": "conf0", _PREFIX + "endpoint.sysctls": "net.ipv4.conf.IFNAME.log_martians=1"}}}}}, _INSPECT, _START, _INSPECT),
    ),
    "endpoint options refused": _network(
        _SUBNET, _endpoint(IPAMConfig={"IPv4Address": "x"}), _endpoint(IPAMConfig={"IPv6Address": "x"}), _endpoint(IPAMConfig={"IPv6Address": "fd00::9"}), _endpoint(IPAMConfig={"LinkLocalIPs": ["x"]}),
        _endpoint(IPAMConfig={"IPv4Address": "10.231.76.20", "LinkLocalIPs": ["x", "y"]}), _endpoint(MacAddress="02:42:0a:00:00"), _endpoint(DriverOpts={_PREFIX + "endpoint.sysctls": "x"}),
        _endpoint(DriverOpts={_PREFIX + "endpoint.sysctls": "net.ipv4.conf.eth0.log_martians=1"}), ("POST", "/containers/create", _ON_NET | {"MacAddress": "x"}),
        ("POST", "/containers/create", _ON_NET | {"HostConfig": {"NetworkMode": ""}, "NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["x"]}}}}),
    ),
    "endpoint fails at the start": _network(
        _SUBNET,
        *created(_ON_NET | {"NetworkingConfig": {"EndpointsConfig": {_NET: {"DriverOpts": {_PREFIX + "endpoint.sysctls": "net.ipv4.conf.IFNAME.nosuch=1"}}}}}, _START),
        *created(_ON_NET | {"NetworkingConfig": {"EndpointsConfig": {_NET: {"IPAMConfig": {"IPv4Address": "10.231.76.1"}}}}}, _START),
        *created(_ON_NET | {"NetworkingConfig": {"EndpointsConfig": {_NET: {"IPAMConfig": {"IPv4Address": "10.231.76.255"}}}}}, _START),
    ),
    "disconnect by force": [
        _force("conf-nosuch", "bridge"), _force("conf-nosuch", "conf-nosuch"), _force("", "bridge"),
        *created(RUN | {"HostConfig": {"NetworkMode": "conf-nosuch"}}, _disconnect("conf-nosuch"), _force("conf-box", "conf-other"), _force("conf-box", "conf-nosuch"), _INSPECT, _force("conf-box", "conf-nosuch")),
        *_network(_SUBNET, *created(_ON_NET, _START, _force("conf-box", "conf-nosuch"), _force("conf-box", _NET), _force("conf-box", _NET), _INSPECT)),
    ],
    "connect refused": _network(
        _SUBNET, *created(RUN, _START, _connect(_NET, IPAMConfig={"IPv4Address": "10.231.76.1"}), _connect(_NET, IPAMConfig={"IPv4Address": "10.231.77.5"}), _connect(_NET, MacAddress="02:42"),
                          _connect(_NET, DriverOpts={_PREFIX + "endpoint.sysctls": "x"}), _connect(_NET, IPAMConfig={"LinkLocalIPs": ["x"]}), _connect("conf-nosuch"),
                          ("POST", "/networks/conf-net/connect", _BOX | {"EndpointConfig": None}), _INSPECT, _disconnect(_NET)),
    ),
}  # fmt: skip
