"""The corpus of Dockerfiles, built here: the same files with the same modes and owners as the real engine's BuildKit has made."""

from __future__ import annotations

import io
import json

import pytest

from corten.api.client import ApiError
from tests.builds import build, forget_builds
from tests.conformance.corpus import CASES
from tests.conformance.record_corpus import beside, tree_of
from tests.system.test_build_failures import leftovers
from tests.unit.test_dockerfile_reference import BUILT, RECORDED


@pytest.fixture(scope="module", autouse=True)
def nothing_stays(engine):
    yield
    forget_builds(engine)


@pytest.fixture(scope="module")
def base(engine):
    return exported(engine, "busybox")


def exported(engine, image: str):
    container = engine.client.post("/containers/create", {"Image": image, "Cmd": ["x"]})["Id"]
    try:
        with engine.client.open("GET", f"/containers/{container}/export") as response:
            return tree_of(io.BytesIO(response.read()))
    finally:
        engine.client.delete(f"/containers/{container}")


# What differs, and why.
DIFFERENT = {
    "files: bad user": "BuildKit gives the files of a user that there is not to root; here, as in the classic builder, the build fails",
}


def parameters(name: str) -> dict[str, str]:
    case = CASES[name]
    return {"buildargs": json.dumps(case.arguments), **({"target": case.target} if case.target else {})}


@pytest.mark.parametrize("name", [name for name in BUILT if RECORDED[name]["layers"] and name not in DIFFERENT])
def test_files_are_as_buildkit_makes_them(engine, base, name):
    wanted = RECORDED[name]
    image = build(engine, CASES[name].entries, **parameters(name)).image
    # A step that changes nothing has no layer here; BuildKit writes an empty one.
    assert len(engine.client.get(f"/images/{image}/json")["RootFS"]["Layers"]) <= wanted["layers"]
    assert beside(base, exported(engine, image)) == wanted["tree"]


@pytest.mark.parametrize("name", [name for name in CASES if name not in BUILT or name in DIFFERENT])
def test_what_buildkit_refuses_is_refused(engine, name):
    """With which words is test_dockerfile_reference.py's. Nothing is left of it."""
    before = leftovers(engine)
    try:
        assert build(engine, CASES[name].entries, **parameters(name)).error
    except ApiError as refused:
        assert refused.http_status in (400, 404)
    assert leftovers(engine) == before


def test_the_corpus_is_large_enough():
    """Forty trees and more, a feature each."""
    assert len([name for name in BUILT if name.startswith("files: ")]) >= 40
