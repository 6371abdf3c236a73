"""Corten answers as the real engine did. With CORTEN_CONFORMANCE_SOCKET, that engine is asked instead (and must agree too)."""

from __future__ import annotations

import json
import os

import pytest

from tests.conformance.ask import ask
from tests.conformance.cases import MODULES
from tests.conformance.differences import DIFFERENCES
from tests.conformance.record import RECORDED
from tests.conformance.shape import compare
from tests.engines import RunningEngine

OF_BUILDS = {"corpus.json", "build_views.json"}  # recorded by record_corpus.py and record_build_views.py

CASES = {name: (module, requests) for module, cases in MODULES.items() for name, requests in cases.items()}


def _answers(module: str) -> dict[str, list[dict]]:
    with open(f"{RECORDED}/{module}.json", encoding="utf-8") as file:
        return json.load(file)["answers"]


ANSWERS = {module: _answers(module) for module in MODULES}


@pytest.fixture(scope="module")
def socket_path():
    given = os.environ.get("CORTEN_CONFORMANCE_SOCKET")
    if given:
        yield given
        return
    assets = os.environ.get("CORTEN_ASSETS", "")
    if os.geteuid() != 0 or not os.path.isdir(assets):
        pytest.skip("needs root and the assets that `make system` makes")
    engine = RunningEngine("c")
    try:
        engine.load(f"{assets}/images/busybox.tar")
        yield engine.socket
    finally:
        engine.stop()


def differences(expected: dict, actual: dict, *, exact: bool) -> dict[str, str]:
    found = {}
    if actual["status"] != expected["status"]:
        found["status"] = f"{actual['status']} instead of {expected['status']} ({actual.get('message')})"
    if "message" in expected and actual.get("message") != expected["message"]:
        found["message"] = f"{actual.get('message')!r} instead of {expected['message']!r}"
    if "shape" in expected:
        found |= {line.split(":")[0]: line for line in compare(expected["shape"], actual.get("shape"), exact=exact)}
    return found


def test_every_case_is_recorded():
    assert len(CASES) == sum(map(len, MODULES.values())), "two cases of one name"
    assert {f"{module}.json" for module in MODULES} == set(os.listdir(RECORDED)) - OF_BUILDS
    for module, cases in MODULES.items():
        assert set(ANSWERS[module]) == set(cases), module
        for name, requests in cases.items():
            assert [answer["request"] for answer in ANSWERS[module][name]] == [f"{method} {path}" for method, path, _ in requests], name


@pytest.mark.parametrize("name", CASES)
def test_answers_as_docker_does(socket_path, name):
    problems = []
    allowed = set()
    module, requests = CASES[name]
    for expected, actual in zip(ANSWERS[module][name], ask(socket_path, requests), strict=True):
        for path, problem in differences(expected, actual, exact=module == "versions").items():
            key = (name, expected["request"], path)
            if key in DIFFERENCES:
                allowed.add(key)
            else:
                problems.append(f"{expected['request']}: {problem}")
    assert problems == []
    if not os.environ.get("CORTEN_CONFORMANCE_SOCKET"):
        stale = {key for key in DIFFERENCES if key[0] == name} - allowed
        assert stale == set(), "listed as different, but the same"
