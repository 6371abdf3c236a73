"""The file trees of images built here against what the real engine's BuildKit made of the same Dockerfiles (tests/conformance/build_trees.py)."""

from __future__ import annotations

import json
import os
from typing import Any

import pytest

from tests.conformance.build_trees import CASES
from tests.conformance.record_build_trees import PATH, outcome

# What differs, and why.
DIFFERENT = {
    "bad user": "BuildKit gives the files of a user that there is not to root; here, as in the classic builder, the build fails",
}


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    assert os.path.exists(PATH), "make record has not been run"
    with open(PATH, encoding="utf-8") as file:
        return json.load(file)


@pytest.fixture(scope="module", autouse=True)
def nothing_stays(engine):
    yield
    engine.client.post("/build/prune", all=1)


@pytest.mark.parametrize("name", [name for name in CASES if name not in DIFFERENT])
def test_a_tree_is_buildkits(engine, recorded, name):
    assert outcome(engine.client, name) == recorded[name]
