"""Networks: what there is, what creation refuses, connect and disconnect, running and not."""

from __future__ import annotations

from typing import Any

from tests.conformance.ask import RUN, Request, created

_OPTION = "com.docker.network."
_NET, _BOX = "conf-net", {"Container": "conf-box"}


def _refused(**fields: Any) -> Request:
    return ("POST", "/networks/create", {"Name": _NET, **fields})


def _pool(**pool: Any) -> Request:
    return _refused(IPAM={"Config": [pool]})


def _option(key: str, value: str) -> Request:
    return _refused(Options={_OPTION + key: value})


def _network(body: dict, *requests: Request) -> list[Request]:
    """The requests around a network `conf-net`."""
    return [("POST", "/networks/create", {"Name": _NET} | body), *requests, ("DELETE", "/networks/conf-net", None)]


def _connect(network: str, **settings: Any) -> Request:
    return ("POST", f"/networks/{network}/connect", _BOX | ({"EndpointConfig": settings} if settings else {}))


def _disconnect(network: str) -> Request:
    return ("POST", f"/networks/{network}/disconnect", _BOX)


_START: Request = ("POST", "/containers/conf-box/start", None)
_INSPECT: Request = ("GET", "/containers/conf-box/json", None)
_ON_NET = RUN | {"HostConfig": {"NetworkMode": _NET}}
_SUBNET = {"IPAM": {"Config": [{"Subnet": "10.231.76.0/24"}]}}

CASES: dict[str, list[Request]] = {
    "networks": [("GET", '/networks?filters={"driver":["bridge"]}', None), ("GET", "/networks/bridge", None), ("GET", "/networks/none", None), ("GET", "/networks/host", None)],
    "network create refused": [
        ("POST", "/networks/create", {}), ("POST", "/networks/create", None), ("POST", "/networks/create", {"Name": "bridge"}),
        _refused(Driver="host"), _refused(Driver="null"), _refused(Driver="nosuch"), _refused(Driver="overlay"), _refused(Scope="swarm"), _refused(Ingress=True),
        _refused(IPAM={"Driver": "nosuch"}),
    ],
    "network addresses refused": [
        _pool(Subnet="1.2.3"), _pool(Subnet="10.9.0.1/24"), _pool(Gateway="10.9.0.1"), _pool(Subnet="10.9.0.0/24", Gateway="10.8.0.1"),
        _pool(Subnet="10.9.0.0/24", Gateway="x"), _pool(Subnet="10.9.0.0/24", IPRange="10.8.0.0/28"),
        _pool(Subnet="10.9.0.0/24", AuxiliaryAddresses={"a": "10.8.0.5"}), _pool(Subnet="10.9.0.0/24", Gateway="x", IPRange="10.8.0.0/28"),
        _refused(IPAM={"Config": [{"Subnet": "10.9.0.0/24"}, {"Subnet": "10.9.0.0/25"}]}),
    ],
    "network options refused": [
        _option("driver.mtu", "x"), _option("driver.mtu", "-5"), _option("bridge.enable_icc", "x"), _option("bridge.gateway_mode_ipv4", "x"),
        _option("bridge.gateway_mode_ipv4", "isolated"), _option("bridge.name", "averyveryverylongname"), _option("bridge.host_binding_ipv4", "x"),
    ],
    "network life": _network(
        {"Labels": {"l": "v"}}, _refused(), ("GET", "/networks/conf-net", None), ("GET", '/networks?filters={"name":["conf-net"]}', None),
        ("GET", '/networks?filters={"label":["l=v"],"type":["custom"],"dangling":["true"]}', None),
    ),
    "network with addresses": _network(
        {"IPAM": {"Config": [{"Subnet": "10.231.76.0/24", "IPRange": "10.231.76.64/26", "AuxiliaryAddresses": {"a": "10.231.76.70"}}]}},
        ("GET", "/networks/conf-net", None),
    ),
    "network of both families": _network({"EnableIPv6": True}, ("GET", "/networks/conf-net", None)),
    "network internal": _network({"Internal": True, "Attachable": True, "Options": {"foo": "bar"}}, ("GET", "/networks/conf-net", None)),
    "network configuration": [
        ("POST", "/networks/create", {"Name": "conf-only", "ConfigOnly": True, "Options": {"foo": "bar"}}),
        *_network({"ConfigFrom": {"Network": "conf-only"}}, ("GET", "/networks/conf-net", None), ("DELETE", "/networks/conf-only", None)),
        ("GET", "/networks/conf-only", None), ("DELETE", "/networks/conf-only", None),
    ],
    "network filters": [
        ("GET", '/networks?filters={"foo":["x"]}', None), ("GET", '/networks?filters={"type":["x"]}', None), ("GET", '/networks?filters={"dangling":["x"]}', None),
        ("GET", '/networks?filters={"dangling":["true","false"]}', None), ("GET", '/networks?filters={"scope":["x"]}', None),
        ("POST", '/networks/prune?filters={"foo":["x"]}', None), ("POST", '/networks/prune?filters={"label":["conf-nosuch"]}', None),
    ],
    "networks that are not there": [
        ("DELETE", "/networks/bridge", None), ("DELETE", "/networks/conf-nosuch", None), ("POST", "/networks/conf-nosuch/connect", _BOX),
        ("POST", "/networks/conf-nosuch/disconnect", _BOX), ("POST", "/networks/bridge/connect", {}), ("POST", "/networks/bridge/disconnect", {}),
        ("POST", "/networks/bridge/connect", {"Container": "conf-nosuch"}), ("POST", "/networks/bridge/disconnect", {"Container": "conf-nosuch"}),
    ],
    "network in use": _network(
        _SUBNET,
        *created(_ON_NET, _INSPECT, _START, _INSPECT, ("GET", "/networks/conf-net", None), ("DELETE", "/networks/conf-net", None),
                 _connect(_NET), _connect("host"), _connect("none"), _connect("bridge", IPAMConfig={"IPv4Address": "172.17.0.99"}), _connect("bridge"), _INSPECT,
                 _disconnect(_NET), _disconnect(_NET), _connect(_NET, IPAMConfig={"IPv4Address": "10.9.9.9"}), _connect(_NET, MacAddress="x"),
                 _connect(_NET, IPAMConfig={"IPv4Address": "10.231.76.9"}, GwPriority=3), _INSPECT),
    ),
    "network names": _network(
        _SUBNET,
        *created(_ON_NET | {"NetworkingConfig": {"EndpointsConfig": {_NET: {"Aliases": ["al"], "Links": ["conf-x:y"], "GwPriority": 2, "DriverOpts": {"a": "b"}}}}},
                 _INSPECT, _START, _INSPECT, ("GET", '/containers/json?filters={"name":["conf-box"]}', None), ("GET", '/containers/json?filters={"network":["conf-net"]}', None),
                 _connect("bridge", Aliases=["q"])),
    ),
    "legacy links": [
        ("POST", "/containers/create?name=conf-other", RUN),
        *created(RUN | {"HostConfig": {"NetworkMode": "bridge", "Links": ["conf-other:al"]}}, _INSPECT, _START),
        ("DELETE", "/containers/conf-other", None),
        ("POST", "/containers/create", RUN | {"HostConfig": {"Links": ["conf-nosuch:al"]}}),
        ("POST", "/containers/create", RUN | {"HostConfig": {"NetworkMode": "host", "Links": ["conf-other:al"]}}),
    ],
    "network of a stopped container": _network({}, *created(RUN, _connect(_NET), _connect(_NET, GwPriority=1), _INSPECT, _disconnect(_NET), _disconnect(_NET))),
    "address taken": _network(
        _SUBNET, ("POST", "/containers/create?name=conf-other", _ON_NET), ("POST", "/containers/conf-other/start", None),
        *created(_ON_NET | {"NetworkingConfig": {"EndpointsConfig": {_NET: {"IPAMConfig": {"IPv4Address": "10.231.76.2"}}}}}, _START),
        ("DELETE", "/containers/conf-other?force=1", None),
    ),
    "network missing at start": created(RUN | {"HostConfig": {"NetworkMode": "conf-nosuch"}}, _START),
    "endpoint missing at start": created(RUN | {"NetworkingConfig": {"EndpointsConfig": {"conf-nosuch": {}}}}, _START),
    "endpoint refused": [
        ("POST", "/containers/create", RUN | {"HostConfig": {"NetworkMode": "bridge"}, "NetworkingConfig": {"EndpointsConfig": {"bridge": settings}}})
        for settings in ({"IPAMConfig": {"IPv4Address": "172.17.0.9"}}, {"MacAddress": "x"})
    ],
    "host network": created(RUN | {"HostConfig": {"NetworkMode": "host"}}, _connect("bridge"), _START, _INSPECT, _connect("bridge"), _disconnect("host")),
    "somebody else's network": [
        ("POST", "/containers/create", RUN | {"HostConfig": {"NetworkMode": "container:x"} | host} | rest)
        for host, rest in (({"PortBindings": {"80/tcp": [{"HostPort": "18080"}]}}, {}), ({"Dns": ["1.1.1.1"]}, {}), ({"ExtraHosts": ["a:1.1.1.1"]}, {}),
                           ({}, {"Hostname": "x"}), ({}, {"ExposedPorts": {"80/tcp": {}}}))
    ],
}  # fmt: skip
