"""Updates of limits and restart policy: what is taken, refused, warned about. And the prune of containers."""

from __future__ import annotations

from tests.conformance.ask import RUN, Request, created


def _update(**changes: object) -> Request:
    return ("POST", "/containers/conf-box/update", changes)


_MEMORY = RUN | {"HostConfig": {"Memory": 20000000}}
_START: Request = ("POST", "/containers/conf-box/start", None)
_NOTHING = '"label":["conf-nosuch"]'

CASES: dict[str, list[Request]] = {
    "update memory": created(
        _MEMORY, _START, _update(), ("POST", "/containers/conf-box/update", None), _update(Memory=1), _update(Memory=60000000), _update(Memory=60000000, MemorySwap=50000000),
        _update(Memory=60000000, MemorySwap=80000000), _update(Memory=12000000), _update(MemoryReservation=1000000), _update(MemoryReservation=10000000),
        _update(MemorySwappiness=200), _update(OomKillDisable=True), ("GET", "/containers/conf-box/json", None),
    ),
    "update cpu": created(
        RUN, _START, _update(NanoCpus=500000000), _update(CpuPeriod=100000), _update(CpuQuota=50000), _update(NanoCpus=99000000000), _update(NanoCpus=1, CpuPeriod=1),
        _update(CpuShares=512), _update(CpusetCpus="0"), _update(CpusetCpus="99"), _update(CpusetCpus="x"), _update(CpusetMems="7"), _update(CpuPeriod=10), _update(CpuQuota=10),
    ),
    "update others": created(RUN, _START, _update(PidsLimit=10), _update(PidsLimit=-1), _update(PidsLimit=0), ("POST", "/containers/conf-nosuch/update", {})),
    "update policy": created(
        RUN, _START, _update(RestartPolicy={"Name": "nope"}), _update(RestartPolicy={"Name": "always", "MaximumRetryCount": 3}),
        _update(RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3}), _update(RestartPolicy={"MaximumRetryCount": 3}), ("GET", "/containers/conf-box/json", None),
    ),
    "update auto remove": created(RUN | {"HostConfig": {"AutoRemove": True}}, _update(RestartPolicy={"Name": "always"}), _update(RestartPolicy={"Name": "no"})),
    "prune containers": created(
        RUN, ("POST", f"/containers/prune?filters={{{_NOTHING}}}", None), ("POST", f'/containers/prune?filters={{{_NOTHING},"until":["2h"]}}', None),
        ("POST", '/containers/prune?filters={"until":["x"]}', None), ("POST", '/containers/prune?filters={"until":["1h","2h"]}', None),
        ("POST", '/containers/prune?filters={"foo":["x"]}', None), ("POST", "/containers/prune?filters=x", None),
    ),
}  # fmt: skip
