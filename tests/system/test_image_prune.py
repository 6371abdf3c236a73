"""Pruning images with the real docker CLI: what goes, what stays, what is said."""

from __future__ import annotations

import json
import time

import pytest

from corten.api.client import ApiError
from tests.images import derived, entry, layer


@pytest.fixture
def made(engine, assets, tmp_path):
    """prune:1 and prune:2 with the label prune=yes, a layer of 1000 bytes each."""
    for number in (1, 2):
        added = layer([entry(f"only-in-{number}", bytes([number]) * 1000)])
        derived(f"{assets}/images/busybox.tar", f"{tmp_path}/{number}.tar", f"prune:{number}", added, Labels={"prune": "yes"})
        engine.load(f"{tmp_path}/{number}.tar")
    yield
    engine.remove_all()
    for image in engine.client.get("/images/json", filters=json.dumps({"label": ["prune"]})):
        engine.client.delete(f"/images/{image['Id']}", force=1)


def names(engine) -> set[str]:
    return {tag for image in engine.client.get("/images/json") for tag in image["RepoTags"] if tag.startswith("prune")}


def test_all_unused_images_with_a_label(engine, docker_cli, made):
    engine.client.post("/images/prune:1/tag", repo="prune-again", tag="1")
    used = engine.run("sleep", "600", image="prune:2")
    since = time.time()
    shown = engine.docker(docker_cli, "image", "prune", "-af", "--filter", "label=prune=yes").stdout
    assert "untagged: prune:1\n" in shown
    assert "untagged: prune-again:1\n" in shown
    assert "Total reclaimed space: 1kB" in shown
    assert names(engine) == {"prune:2"}
    assert engine.client.get(f"/containers/{used}/json")["State"]["Running"]
    shown = engine.docker(docker_cli, "events", "--since", str(since), "--until", str(time.time()), "--filter", "type=image", "--format", "{{json .}}").stdout
    events = [json.loads(line) for line in shown.splitlines()]
    assert [event["Action"] for event in events] == ["untag", "untag", "delete", "prune"]
    assert events[0]["Actor"]["Attributes"]["prune"] == "yes"
    assert events[-1]["Actor"]["Attributes"] == {"reclaimed": "1000"}


def test_without_all_only_what_has_no_tag(engine, docker_cli, made):
    image = engine.client.get("/images/prune:1/json")["Id"]
    container = engine.client.post("/containers/create", {"Image": image, "Cmd": ["true"]})["Id"]
    engine.client.post("/images/busybox/tag", repo="prune", tag="1")  # its container keeps what had the name
    assert engine.docker(docker_cli, "image", "prune", "-f").stdout == "Total reclaimed space: 0B\n"
    engine.remove(container)
    shown = engine.docker(docker_cli, "image", "prune", "-f").stdout
    assert f"deleted: {image}\n" in shown
    assert names(engine) == {"prune:1", "prune:2"}
    with pytest.raises(ApiError, match="No such image"):
        engine.client.get(f"/images/{image}/json")


def test_filters(engine, made):
    def prune(**filters: list[str]) -> dict:
        return engine.client.post("/images/prune", filters=json.dumps({"dangling": ["false"], "label": ["prune"], **filters}))

    nothing = {"ImagesDeleted": None, "SpaceReclaimed": 0}
    assert prune(label=["prune=no"]) == nothing
    assert prune(**{"label!": ["prune=yes"]}) == nothing
    assert prune(until=["876000h"]) == nothing
    assert names(engine) == {"prune:1", "prune:2"}
    assert prune(until=["0s"])["SpaceReclaimed"] == 2000
    assert names(engine) == set()
