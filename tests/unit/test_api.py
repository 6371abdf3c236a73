"""The border of the API without an engine: queries, versions, the table of routes."""

from __future__ import annotations

import ast
import dataclasses
import pathlib
from unittest.mock import MagicMock

import pytest
from hypothesis import given
from hypothesis import strategies as st

import corten.api
from corten.api.call import parse_query
from corten.api.routes import Handlers, make_routes
from corten.api.versions import GATES, apply, differences
from corten.errors import CortenError, Invalid

ROUTES = make_routes(Handlers(*(MagicMock() for _ in dataclasses.fields(Handlers))))
NEWEST = (1, 51)
READS = {"text", "flag", "number", "values", "given"}


def changed(route: str, version: tuple[int, int], place: str, value: object) -> object:
    apply(getattr(differences(route, version), place), value)
    return value


def test_queries_are_read_as_go_reads_them():
    assert parse_query("a=1&a=2&b&c=%2F+x") == {"a": ["1", "2"], "b": [""], "c": ["/ x"]}
    with pytest.raises(Invalid, match='invalid URL escape "%zz"'):
        parse_query("all=%zz")
    with pytest.raises(Invalid, match="invalid semicolon separator in query"):
        parse_query("a;b")


@given(st.text(max_size=30))
def test_a_query_is_read_or_refused(text):
    try:
        parse_query(text)
    except CortenError as error:
        assert error.status == 400


def test_every_gate_is_of_an_endpoint_and_a_parameter_that_there_are():
    rows = {route.key: route for route in ROUTES}
    for gate in GATES:
        assert gate.route in rows, gate.route
        assert (1, 24) < gate.before <= NEWEST
        assert gate.place in ("query", "body", "answer")


def test_the_newest_version_has_nothing_differently():
    assert all(differences(route.key, NEWEST) == differences("nowhere", (1, 24)) for route in ROUTES)


def test_every_parameter_that_a_handler_reads_is_in_the_table():
    known = {name for route in ROUTES for name in route.query} | {gate.path[0] for gate in GATES if gate.place == "query"}
    for path in pathlib.Path(corten.api.__path__[0]).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in READS and ast.unparse(node.func.value) == "call":
                name = node.args[0]
                if isinstance(name, ast.Constant):
                    assert name.value in known, f"{path.name}:{node.lineno} reads {name.value!r}, which no route has"


def test_paths_and_methods_are_unique():
    keys = [(method, route.path) for route in ROUTES for method in route.methods]
    assert len(keys) == len(set(keys))


def test_requests_of_older_versions():
    create = "POST /containers/create"
    body = {"HostConfig": {"Annotations": {"a": "b"}, "AutoRemove": True, "Mounts": [
        {"Type": "bind", "BindOptions": {"NonRecursive": True, "CreateMountpoint": True}, "TmpfsOptions": {"Mode": 1}}]}}  # fmt: skip
    assert changed(create, (1, 24), "body", body) == {"HostConfig": {"IpcMode": "shareable", "Mounts": [{"Type": "bind", "BindOptions": {}}]}}
    assert changed(create, (1, 43), "body", {"Healthcheck": {"StartInterval": 1, "Retries": 2}}) == {"Healthcheck": {"Retries": 2}}
    for version, refused in (
        ((1, 47), {"HostConfig": {"Mounts": [{"Type": "image"}]}}),
        ((1, 44), {"HostConfig": {"Mounts": [{"VolumeOptions": {"Subpath": "x"}}]}}),
        ((1, 43), {"HostConfig": {"Mounts": [{"BindOptions": {"ReadOnlyForceRecursive": True}}]}}),
        ((1, 43), {"NetworkingConfig": {"EndpointsConfig": {"a": None, "b": None}}}),
    ):
        with pytest.raises(Invalid):
            changed(create, version, "body", refused)
    assert differences(create, (1, 40)).query == {"platform"}


@given(st.recursive(st.none() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["HostConfig", "Mounts", "NetworkingConfig", "EndpointsConfig", "BindOptions", "Healthcheck", "Type"]), inner, max_size=4), max_leaves=12))  # fmt: skip
def test_a_body_of_any_shape_is_changed_or_refused(value):
    try:
        changed("POST /containers/create", (1, 24), "body", value)
    except CortenError as error:
        assert error.status == 400


def test_answers_of_older_versions():
    image = {"Id": "x", "RepoTags": [], "RepoDigests": [], "Size": 7, "Containers": 3}
    assert changed("GET /images/json", (1, 42), "answer", [dict(image)]) == [
        image | {"RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"], "VirtualSize": 7, "Containers": -1}
    ]
    assert changed("GET /images/json", (1, 50), "answer", [dict(image)]) == [image | {"Containers": -1}]
    info = {"SecurityOptions": ["name=seccomp,profile=builtin"], "Runtimes": {"x": {"path": "p", "status": {}}}, "MemoryLimit": True, "CgroupVersion": "1",
            "FirewallBackend": {}, "RuncCommit": {"ID": "r"}}  # fmt: skip
    old = changed("GET /info", (1, 24), "answer", info)
    assert old["SecurityOptions"] == ["seccomp"]
    assert old["Runtimes"] == {"x": {"path": "p"}}
    assert old["KernelMemory"] is True
    assert old["BridgeNfIptables"] is False
    assert old["RuncCommit"] == {"ID": "r", "Expected": "r"}
    assert "FirewallBackend" not in old
    inspected = {"NetworkSettings": {"Networks": {"bridge": {"Aliases": None, "DNSNames": None}, "mine": {"Aliases": ["a"], "DNSNames": ["name", "a", "0123"]}}}}
    old = changed("GET /containers/{name}/json", (1, 44), "answer", inspected)
    assert old["NetworkSettings"]["Networks"]["mine"]["Aliases"] == ["a", "0123"]
    assert old["NetworkSettings"]["Networks"]["bridge"]["Aliases"] is None
