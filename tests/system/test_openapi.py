"""Whatever a client sends by the engine's own API document, or beside it, is answered: never 5xx, never a hang, and the engine goes on.

Seeded: the same requests every time. The requests go over TCP; names in paths are often those of things that exist.
"""

from __future__ import annotations

import re
import warnings

import hypothesis
import pytest
import requests
from hypothesis import HealthCheck, Phase, given
from hypothesis import strategies as st

from tests.engines import RunningEngine
from tests.system.conftest import free_port

warnings.simplefilter("ignore")  # schemathesis and jsonschema import each other's deprecated names
import schemathesis
from schemathesis import GenerationMode

EXAMPLES = 15
PATIENCE = 15.0
_ANSWER = 1 << 16
# Only towards a registry may an answer be 5xx: that it is not there is nobody's bad input (Docker says the same).
_REGISTRY_GONE = re.compile(r'"(message|error)":"[^{]*(Get|Head|Post) \\"https?://')
# What Docker has and Corten says it does not have yet; or what only a swarm manager could do.
_SAID = {501, 503}
# Requests that would go to a registry go to one that is not there, on loopback.
_NOWHERE = "127.0.0.1:1/nothing"


@schemathesis.serializer("application/x-tar")
def tar_body(_context: object, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


@pytest.fixture(scope="module")
def target(assets):
    port = free_port()
    engine = RunningEngine("o", "-H", f"tcp://127.0.0.1:{port}", "--tls=false")
    try:
        yield Target(engine, assets, port)
    finally:
        engine.stop()


class Target:
    """The engine with things in it to be named. `refill` makes anew what a request took away."""

    def __init__(self, engine: RunningEngine, assets: str, port: int) -> None:
        self.engine, self.assets, self.url = engine, assets, f"http://127.0.0.1:{port}"
        self.session = requests.Session()
        self.schema = schemathesis.openapi.from_dict(engine.client.get("/openapi.json"))
        self.refill()

    def refill(self) -> None:
        client = self.engine.client
        if not any("busybox:latest" in image["RepoTags"] for image in client.get("/images/json")):
            self.engine.load(f"{self.assets}/images/busybox.tar")
        there = {name for item in client.get("/containers/json", all=1) for name in item["Names"]}
        for name in {"/up", "/made"} - there:
            client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"], "StopSignal": "KILL"}, name=name)
            if name == "/up":
                client.post("/containers/up/start")

    def names(self, path: str) -> list[str]:
        if path.startswith("/containers"):
            return ["up", "made", "/up"]
        if path.startswith("/images"):
            return ["busybox", "busybox:latest"]
        if path.startswith("/exec"):
            return [self.engine.client.post("/containers/up/exec", {"Cmd": ["true"]})["Id"]]
        return ["bridge", "host"]


def operations() -> list[str]:
    """Of the document without an engine: pytest wants the names before there is one."""
    import dataclasses
    from unittest.mock import MagicMock

    from corten.api.openapi import document
    from corten.api.routes import Handlers, make_routes

    rows = make_routes(Handlers(*(MagicMock() for _ in dataclasses.fields(Handlers))))
    return [f"{method.upper()} {path}" for path, item in document(rows)["paths"].items() for method in item]


def _aim(case: object, path: str) -> None:
    """Towards no registry but one that is not there, and with no patience."""
    if path == "/images/create" and isinstance(case.query, dict) and "fromImage" in case.query:
        case.query["fromImage"] = _NOWHERE
    if path.endswith(("/stop", "/restart")) and isinstance(case.query, dict) and isinstance(case.query.get("t"), int):
        case.query["t"] = 0  # a client may ask for any patience, the test has little
    if path == "/auth" and isinstance(case.body, dict):
        case.body["serveraddress"] = _NOWHERE
    if path in ("/images/{name}/push", "/distribution/{name}/json"):
        case.path_parameters = {"name": _NOWHERE}


@pytest.mark.parametrize("label", operations())
def test_is_answered(target, label):
    method, path = label.split(" ", 1)
    target.refill()
    operation = target.schema[path][method]
    strategies = [operation.as_strategy(generation_mode=GenerationMode.POSITIVE)]
    if operation.query or operation.body or operation.path_parameters:
        strategies.append(operation.as_strategy(generation_mode=GenerationMode.NEGATIVE))

    @hypothesis.seed(4)
    @hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(case=st.one_of(strategies), name=st.none() | st.sampled_from(target.names(path)))
    def ask(case, name):
        if name is not None and case.path_parameters and isinstance(case.path_parameters, dict):
            case.path_parameters = dict.fromkeys(case.path_parameters, name)
        _aim(case, path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sent = case.as_transport_kwargs(base_url=target.url)
        with target.session.request(**{**sent, "stream": True, "timeout": PATIENCE}) as response:
            text = ""
            if response.status_code >= 500:
                text = response.raw.read(_ANSWER).decode("utf-8", "replace")
            assert response.status_code < 500 or response.status_code in _SAID or _REGISTRY_GONE.search(text), f"{response.status_code} {text}"

    ask()
    assert target.engine.client.answers()
    assert target.engine.process.poll() is None


# Questions whose answers are held to their types, with a container running, one made, an exec, a volume.
QUESTIONS = {
    "/version": "/version", "/info": "/info", "/system/df": "/system/df", "/networks": "/networks", "/networks/{name}": "/networks/bridge",
    "/containers/json": "/containers/json?all=1&size=1", "/containers/{name}/json": "/containers/up/json?size=1", "/containers/{name}/top": "/containers/up/top",
    "/containers/{name}/changes": "/containers/up/changes", "/exec/{id}/json": "/exec/{exec}/json", "/images/json": "/images/json",
    "/images/{name}/json": "/images/busybox/json", "/images/{name}/history": "/images/busybox/history", "/volumes": "/volumes",
    "/volumes/{name}": "/volumes/seen",
}  # fmt: skip
# Docker's keys that its own API document does not have, or has as deprecated: not promised here, but answered.
UNPROMISED = {
    "$.NetworkSettings": {"Bridge", "HairpinMode", "LinkLocalIPv6Address", "LinkLocalIPv6PrefixLen", "SecondaryIPAddresses", "SecondaryIPv6Addresses",
                          "EndpointID", "Gateway", "GlobalIPv6Address", "GlobalIPv6PrefixLen", "IPAddress", "IPPrefixLen", "IPv6Gateway", "MacAddress"},
}  # fmt: skip


def unknown_keys(value: object, schema: dict, components: dict, path: str = "$") -> list[str]:
    """Keys of an answer that its schema does not have."""
    if "$ref" in schema:
        schema = components[schema["$ref"].rsplit("/", 1)[1]]
    if "anyOf" in schema:
        options = [unknown_keys(value, option, components, path) for option in schema["anyOf"] if option.get("type") != "null"]
        return min(options, key=len) if value is not None and options else []
    if isinstance(value, list):
        return [line for item in value for line in unknown_keys(item, schema.get("items", {}), components, f"{path}[]")]
    if not isinstance(value, dict):
        return []
    known, others = schema.get("properties", {}), schema.get("additionalProperties", {})
    if not known:
        return [line for item in value.values() for line in unknown_keys(item, others if isinstance(others, dict) else {}, components, f"{path}.*")]
    surplus = [f"{path}.{key}" for key in value if key not in known and key not in UNPROMISED.get(path, ())]
    return surplus + [line for key, item in value.items() if key in known for line in unknown_keys(item, known[key], components, f"{path}.{key}")]


def test_answers_are_what_the_document_says(target):
    import jsonschema_rs  # schemathesis brings it

    client = target.engine.client
    target.refill()
    client.post("/volumes/create", {"Name": "seen"})
    execs = client.post("/containers/up/exec", {"Cmd": ["true"]})["Id"]
    document = client.get("/openapi.json")
    for path, question in QUESTIONS.items():
        answer = client.get(question.replace("{exec}", execs).partition("?")[0], **dict(word.split("=") for word in question.partition("?")[2].split("&") if word))
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        problems = [f"{error.instance_path}: {error.message}" for error in jsonschema_rs.iter_errors(schema | {"components": document["components"]}, answer)]
        assert problems == [], question
        assert unknown_keys(answer, schema, document["components"]["schemas"]) == [], question
