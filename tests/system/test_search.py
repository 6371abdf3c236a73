"""`docker search` at a registry with a search of its own, at one that has only a catalog, and at none."""

from __future__ import annotations

import base64
import json
import urllib.parse

import pytest

from corten.api.client import ApiError
from tests.system.conftest import free_port

RESULTS = [
    {"name": "library/box", "description": "A box", "star_count": 40, "is_official": True, "is_automated": True},
    {"name": "some/box", "description": "Another", "star_count": 3, "is_official": False},
    {"name": "some/boxes", "description": "", "star_count": 0},
]


@pytest.fixture
def hub(fake):
    registry = fake()
    document = json.dumps({"query": "box", "num_results": 3, "results": RESULTS}).encode()
    registry.documents |= {"/v1/_ping": ("application/json", b"{}"), "/v1/search": ("application/json", document)}
    return registry


def search(engine, term: str, **query: object) -> list[dict]:
    if "filters" in query:
        query["filters"] = json.dumps(query["filters"])
    return engine.client.get("/images/search", term=term, **query)


def test_results_with_filters_and_limit(engine, hub):
    found = search(engine, f"{hub.address}/box")
    assert found[0] == RESULTS[0] | {"is_automated": False}
    assert [each["name"] for each in found] == [each["name"] for each in RESULTS]
    assert [each["name"] for each in search(engine, f"{hub.address}/box", limit=1)] == ["library/box"]
    for filters, names in (
        ({"is-official": ["true"]}, ["library/box"]), ({"is-official": ["false"], "stars": ["1"]}, ["some/box"]), ({"stars": ["1", "5"]}, ["library/box"]),
        ({"is-automated": ["true"]}, []),
    ):  # fmt: skip
        assert [each["name"] for each in search(engine, f"{hub.address}/box", filters=filters)] == names
    hub.documents["/v1/search"] = ("application/json", b"<html>")
    with pytest.raises(ApiError, match="error decoding registry search results"):
        search(engine, f"{hub.address}/box")


def test_the_docker_cli_draws_it(engine, docker_cli, hub):
    shown = engine.docker(docker_cli, "search", "--limit", "2", "--filter", "stars=3", f"{hub.address}/box").stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["NAME", "library/box", "some/box"]
    assert "[OK]" in shown.splitlines()[1]


def test_a_registry_that_has_only_a_catalog(engine, registry, fake):
    assert [each["name"] for each in search(engine, f"{registry}/busy")] == [f"{registry}/busybox"]
    closed = fake(token=True)
    closed.documents["/v2/_catalog"] = ("application/json", b'{"repositories": ["app", "other/application"]}')
    with pytest.raises(ApiError, match="unauthorized"):
        search(engine, f"{closed.address}/app")
    login = base64.urlsafe_b64encode(b'{"username": "user", "password": "right"}').decode()
    with engine.client.open("GET", "/images/search", query={"term": f"{closed.address}/app"}, headers={"X-Registry-Auth": login}) as response:
        assert [each["name"] for each in json.loads(response.read())] == [f"{closed.address}/app", f"{closed.address}/other/application"]


@pytest.mark.parametrize(
    ("term", "query", "status", "text"),
    [
        ("http://x/y", {}, 400, "should not have a scheme"),
        ("x", {"limit": "x"}, 400, "invalid limit specified: strconv.Atoi"),
        ("x", {"limit": "101"}, 400, "limit 101 is outside the range of [1, 100]"),
        ("x", {"filters": {"stars": ["x"]}}, 400, "invalid filter 'stars=x'"),
        ("x", {"filters": {"is-official": ["x"]}}, 400, "invalid filter 'is-official=[x]'"),
        ("x", {"filters": {"foo": ["x"]}}, 400, "invalid filter 'foo'"),
    ],
)
def test_what_is_refused(engine, term, query, status, text):
    with pytest.raises(ApiError) as refused:
        search(engine, term, **query)
    assert refused.value.http_status == status
    assert text in refused.value.message


def test_nobody_there(engine, fake):
    with pytest.raises(ApiError, match=r'invalid registry endpoint "http://127\.0\.0\.1:\d+/v1/"\. HTTPS attempt: .* HTTP attempt: ') as refused:
        search(engine, f"127.0.0.1:{free_port()}/x")
    assert refused.value.http_status == 400
    silent = fake()
    with pytest.raises(ApiError, match="Unexpected status code 404"):
        search(engine, f"{silent.address}/{urllib.parse.quote('x')}")
