"""The corpus of Dockerfiles, built here: the same files with the same modes and owners as the real engine's BuildKit has made."""

from __future__ import annotations

import io
import json

import pytest

from tests.builds import FOLDER, build
from tests.conformance.dockerfiles import CASES, CONTEXT
from tests.conformance.record_dockerfiles import beside, tree_of
from tests.unit.test_dockerfile_reference import BUILT, RECORDED


@pytest.fixture(scope="module", autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()
    for image in engine.client.get("/images/json", all=1):
        if not any(tag.startswith("busybox:") for tag in image["RepoTags"] or []):
            engine.client.delete(f"/images/{image['Id']}", force=1)
    engine.client.post("/build/prune", all=1)


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


@pytest.mark.parametrize("name", [name for name in BUILT if RECORDED[name]["layers"]])
def test_files_are_as_buildkit_makes_them(engine, base, name):
    case, wanted = CASES[name], RECORDED[name]
    folders = {f"{name.rpartition('/')[0]}/": FOLDER for name in CONTEXT if "/" in name}
    files = {"dir/": FOLDER, **folders, **CONTEXT, "Dockerfile": case.text.encode()}
    parameters = {"buildargs": json.dumps(case.arguments), **({"target": case.target} if case.target else {})}
    image = build(engine, files, **parameters).image
    # A step that changes nothing has no layer here; BuildKit writes an empty one.
    assert len(engine.client.get(f"/images/{image}/json")["RootFS"]["Layers"]) <= wanted["layers"]
    assert beside(base, exported(engine, image)) == wanted["tree"]
