"""Several platforms of one image side by side: pulled, shown, chosen, saved, loaded, pushed, removed."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile

import pytest

from corten.api.client import ApiError
from corten.spec.platform import this_platform
from tests.engines import RunningEngine
from tests.system.conftest import need
from tests.system.test_pull import OCI, pull, put_image
from tests.system.test_push import in_registry

HERE = this_platform().architecture
OTHERS = [architecture for architecture in ("amd64", "arm64", "s390x") if architecture != HERE][:2]
DOCKER = "application/vnd.docker.distribution.manifest.v2+json"
ALL = [OTHERS[0], HERE, OTHERS[1]]


def asked(architecture: str) -> str:
    return json.dumps({"os": "linux", "architecture": architecture})


@pytest.fixture
def multi(fake):
    """(registry's address, the image's name, its index's digest)."""
    registry = fake()
    rows = []
    for architecture in ALL:
        rows.append(put_image(registry, "multi", architecture.encode(), architecture) | {"platform": {"architecture": architecture, "os": "linux"}})
    index = json.dumps({"schemaVersion": 2, "mediaType": OCI + "index.v1+json", "manifests": rows}).encode()
    row = registry.put("multi", "manifests", index, OCI + "index.v1+json", "1")
    return registry, f"{registry.address}/multi:1", row["digest"]


@pytest.fixture
def engine(assets):
    running = RunningEngine("p")
    try:
        yield running
        for image in running.client.get("/images/json", all=1):
            running.client.delete(f"/images/{image['Id']}", force=1)
        assert os.listdir(f"{running.data_root}/blobs/sha256") == []
        assert os.listdir(f"{running.data_root}/layers") == []
    finally:
        running.stop()


def images(engine, **query: object) -> list[dict]:
    return engine.client.get("/images/json", **query)


def architecture(engine, name: str, **query: object) -> str:
    return engine.client.get(f"/images/{name}/json", **query)["Architecture"]


def saved(engine, *names: str, platforms: tuple[str, ...] = ()) -> bytes:
    query = [("names", name) for name in names] + [("platform", asked(each)) for each in platforms]
    with engine.client.open("GET", "/images/get", query=query) as response:
        return response.read()


def load(engine, data: bytes, *platforms: str) -> list[str]:
    with engine.client.open("POST", "/images/load", query=[("platform", asked(each)) for each in platforms], body=io.BytesIO(data)) as response:
        messages = [json.loads(line) for line in response if line.strip()]
    for message in messages:
        if "error" in message:
            raise ApiError(500, message["error"])
    return [message["stream"].strip() for message in messages]


def test_the_second_platform_leaves_the_first(engine, multi):
    registry, name, digest = multi
    pull(engine, name, platform=f"linux/{OTHERS[0]}")
    assert architecture(engine, name) == OTHERS[0]
    with pytest.raises(ApiError, match=rf"was found but its platform \(linux/{OTHERS[0]}.*\) does not match the specified platform \(linux/{HERE}\)"):
        engine.client.post("/containers/create", {"Image": name, "Cmd": ["x"]}, platform=f"linux/{HERE}")
    shown = pull(engine, name)
    assert shown[-1]["status"].startswith("Status: Downloaded newer image")
    assert pull(engine, name)[-1]["status"].startswith("Status: Image is up to date")
    assert pull(engine, name, platform=f"linux/{OTHERS[0]}")[-1]["status"].startswith("Status: Image is up to date")
    assert architecture(engine, name) == HERE
    assert architecture(engine, name, platform=asked(OTHERS[0])) == OTHERS[0]
    (row,) = images(engine, manifests=1)
    assert row["RepoTags"] == [name]
    assert row["RepoDigests"] == [f"{registry.address}/multi@{digest}"]
    assert row["Descriptor"]["digest"] == digest
    manifests = {entry["ImageData"]["Platform"]["architecture"]: entry for entry in row["Manifests"]}
    assert [manifests[each]["Available"] for each in ALL] == [True, True, False]
    assert manifests[HERE]["Size"]["Content"] == engine_size(registry, manifests[HERE]["ID"])
    assert manifests[OTHERS[1]]["Size"] == {"Total": 0, "Content": 0}
    assert "Manifests" not in images(engine)[0]
    assert engine.client.get(f"/images/{name}/json", manifests=1)["Manifests"] == row["Manifests"]
    with pytest.raises(ApiError, match="does not match the specified platform"):
        engine.client.get(f"/images/{name}/json", platform=asked(OTHERS[1]))
    made = [engine.client.post("/containers/create", {"Image": name, "Cmd": ["/file"]}, platform=f"linux/{each}")["Id"] for each in ALL[:2]]
    told = [engine.client.get(f"/containers/{each}/json")["Image"] for each in made]
    assert [architecture(engine, each) for each in told] == ALL[:2]
    assert {item["Image"] for item in engine.client.get("/containers/json", all=1)} == {name}
    assert images(engine)[0]["Containers"] == 2
    engine.remove_all()
    assert [row["Id"] for row in engine.client.get(f"/images/{name}/history", platform=asked(OTHERS[0]))] == []


def engine_size(registry, manifest: str) -> int:
    data = registry.documents[f"/v2/multi/manifests/{manifest}"][1]
    document = json.loads(data)
    return len(data) + document["config"]["size"] + sum(layer["size"] for layer in document["layers"])


def test_a_tag_that_moves_on_leaves_the_old_platforms_by_digest(engine, multi, fake):
    registry, name, digest = multi
    for each in ALL[:2]:
        pull(engine, name, platform=f"linux/{each}")
    rows = [put_image(registry, "multi", b"new", HERE) | {"platform": {"architecture": HERE, "os": "linux"}}]
    registry.put("multi", "manifests", json.dumps({"schemaVersion": 2, "manifests": rows}).encode(), OCI + "index.v1+json", "1")
    pull(engine, name)
    tags = {tuple(row["RepoTags"]): row for row in images(engine)}
    assert set(tags) == {(name,), ()}
    assert tags[()]["RepoDigests"] == [f"{registry.address}/multi@{digest}"]
    assert architecture(engine, f"{registry.address}/multi@{digest}", platform=asked(OTHERS[0])) == OTHERS[0]


def test_names_and_ids(engine, multi):
    _, name, _ = multi
    for each in ALL:
        pull(engine, name, platform=f"linux/{each}")
    engine.client.post(f"/images/{name}/tag", repo="copy", tag="1")
    assert architecture(engine, "copy:1", platform=asked(OTHERS[0])) == OTHERS[0]
    other = engine.client.get(f"/images/{name}/json", platform=asked(OTHERS[0]))["Id"]
    engine.client.post(f"/images/{other}/tag", repo="one", tag="1")
    assert architecture(engine, "one:1") == OTHERS[0]
    assert {tuple(row["RepoTags"]) for row in images(engine)} == {(name, "copy:1"), (name, "copy:1", "one:1")}
    engine.client.delete("/images/one:1")
    assert len(images(engine)) == 1
    engine.client.delete("/images/copy:1")
    assert {"Deleted": other} in engine.client.delete(f"/images/{other}")
    assert architecture(engine, name) == HERE
    with pytest.raises(ApiError, match="does not match"):
        engine.client.get(f"/images/{name}/json", platform=asked(OTHERS[0]))
    own = engine.client.get(f"/images/{name}/json")["Id"]
    gone = {line["Deleted"] for line in engine.client.delete(f"/images/{own}") if "Deleted" in line}
    assert own in gone
    assert images(engine) == []


def test_platforms_are_removed_one_by_one(engine, multi):
    _, name, _ = multi
    for each in ALL:
        pull(engine, name, platform=f"linux/{each}")
    with pytest.raises(ApiError, match="Content will be removed from all images referencing this variant") as refused:
        engine.client.delete(f"/images/{name}", platforms=asked(OTHERS[0]))
    assert refused.value.http_status == 400
    engine.client.delete(f"/images/{name}", platforms=asked(HERE), force=1)
    assert architecture(engine, name) == OTHERS[0]
    container = engine.client.post("/containers/create", {"Image": name, "Cmd": ["/file"]}, platform=f"linux/{OTHERS[1]}")["Id"]
    with pytest.raises(ApiError, match="conflict: unable to remove repository reference"):
        engine.client.delete(f"/images/{name}")
    assert engine.client.post("/images/prune", filters=json.dumps({"dangling": ["false"]}))["ImagesDeleted"] is None
    engine.remove(container)
    pruned = engine.client.post("/images/prune", filters=json.dumps({"dangling": ["false"]}))["ImagesDeleted"]
    assert {"Untagged": name} in pruned
    assert images(engine) == []


def test_saved_and_loaded_with_all_platforms(engine, multi, tmp_path):
    _, name, _ = multi
    for each in ALL[:2]:
        pull(engine, name, platform=f"linux/{each}")
    data = saved(engine, name)
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        index = json.load(archive.extractfile("index.json"))
        (head,) = index["manifests"]
        inner = json.load(archive.extractfile(f"blobs/sha256/{head['digest'].removeprefix('sha256:')}"))
        classic = json.load(archive.extractfile("manifest.json"))
    assert [entry["platform"]["architecture"] for entry in inner["manifests"]] == ALL[:2]
    assert [item["RepoTags"] for item in classic] == [[name]]
    (tmp_path / "x.tar").write_bytes(data)
    copied = subprocess.run([need("skopeo"), "--insecure-policy", "copy", "-q", "--all", f"oci-archive:{tmp_path}/x.tar", f"dir:{tmp_path}/copy"],
                            capture_output=True, text=True, check=False)  # fmt: skip
    assert copied.returncode == 0, copied.stderr
    engine.client.delete(f"/images/{name}", force=1)
    assert load(engine, data) == [f"Loaded image: {name}"]
    assert [architecture(engine, name, platform=asked(each)) for each in ALL[:2]] == ALL[:2]
    assert saved(engine, name) == data
    one = saved(engine, name, platforms=(OTHERS[0],))
    with pytest.raises(ApiError, match=f"no suitable export target found for platform linux/{OTHERS[1]}"):
        saved(engine, name, platforms=(OTHERS[1],))
    engine.client.delete(f"/images/{name}", force=1)
    with pytest.raises(ApiError, match=rf"requested platform \(linux/{OTHERS[1]}\) not found"):
        load(engine, data, OTHERS[1])
    assert images(engine) == []
    load(engine, data, OTHERS[0])
    assert architecture(engine, name) == OTHERS[0]
    assert saved(engine, name, platforms=(OTHERS[0],)) == one
    engine.client.delete(f"/images/{name}", force=1)
    load(engine, one)
    assert architecture(engine, name) == OTHERS[0]


def test_pushed_with_the_same_digest(engine, multi, registry):
    _, name, digest = multi
    for each in ALL:
        pull(engine, name, platform=f"linux/{each}")
    engine.client.post(f"/images/{name}/tag", repo=f"{registry}/multi", tag="all")
    push(engine, f"{registry}/multi", tag="all")
    skopeo = [need("skopeo"), "inspect", "--raw", "--tls-verify=false"]
    raw = subprocess.run([*skopeo, f"docker://{registry}/multi:all"], capture_output=True, check=True).stdout
    assert [entry["platform"]["architecture"] for entry in json.loads(raw)["manifests"]] == ALL
    assert f"{registry}/multi@{digest}" in images(engine)[0]["RepoDigests"]
    push(engine, f"{registry}/multi", tag="all", platform=asked(OTHERS[0]))
    assert in_registry(registry, "multi", "all")[1]["config"]["digest"] == engine.client.get(f"/images/{name}/json", platform=asked(OTHERS[0]))["Id"]


def test_a_part_of_an_index_goes_out_as_what_the_name_means(engine, multi, registry):
    _, name, _ = multi
    for each in ALL[:2]:
        pull(engine, name, platform=f"linux/{each}")
    engine.client.post(f"/images/{name}/tag", repo=f"{registry}/part", tag="1")
    push(engine, f"{registry}/part", tag="1")
    assert in_registry(registry, "part", "1")[1]["config"]["digest"] == engine.client.get(f"/images/{name}/json")["Id"]


def test_loaded_platforms_are_packed_on_their_way(engine, multi, registry):
    """What is stored as plain tars goes out gzipped, in an index that says so."""
    _, name, digest = multi
    for each in ALL:
        pull(engine, name, platform=f"linux/{each}")
    data = saved(engine, name)
    engine.client.delete(f"/images/{name}", force=1)
    load(engine, data)
    engine.client.post(f"/images/{name}/tag", repo=f"{registry}/packed", tag="1")
    shown = push(engine, f"{registry}/packed", tag="1")
    pushed = shown[-1]["aux"]["Digest"]
    assert pushed != digest
    engine.client.delete(f"/images/{registry}/packed:1")
    engine.client.delete(f"/images/{name}", force=1)
    for each in ALL:
        pull(engine, f"{registry}/packed:1", platform=f"linux/{each}")
        assert architecture(engine, f"{registry}/packed:1", platform=asked(each)) == each


def push(engine, name: str, **query: object) -> list[dict]:
    with engine.client.open("POST", f"/images/{name}/push", query=query, headers={"X-Registry-Auth": "e30="}) as response:
        found = [json.loads(line) for line in response if line.strip()]
    assert "error" not in found[-1], found[-1]
    return found


def docker_form(registry, repository: str, manifest: str, *names: str) -> dict:
    """The same config and layers under a manifest in Docker's own format."""
    document = json.loads(registry.documents[f"/v2/{repository}/manifests/{manifest}"][1])
    own = {"schemaVersion": 2, "mediaType": DOCKER, "config": document["config"] | {"mediaType": "application/vnd.docker.container.image.v1+json"},
           "layers": [layer | {"mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip"} for layer in document["layers"]]}  # fmt: skip
    return registry.put(repository, "manifests", json.dumps(own).encode(), DOCKER, *names)


def test_the_same_image_in_another_manifest_format(engine, multi, registry):
    """Both digests are known, the newest manifest goes out, and an index keeps what it lists."""
    faked, name, digest = multi
    for each in ALL:
        pull(engine, name, platform=f"linux/{each}")
    (own,) = [row for row in json.loads(faked.documents["/v2/multi/manifests/1"][1])["manifests"] if row["platform"]["architecture"] == HERE]
    other = docker_form(faked, "multi", own["digest"], "docker")
    assert pull(engine, f"{faked.address}/multi:docker")[-1]["status"].startswith("Status: Downloaded newer image")
    inspected = engine.client.get(f"/images/{name}/json")
    assert set(inspected["RepoDigests"]) == {f"{faked.address}/multi@{each}" for each in (digest, other["digest"])}
    engine.client.post(f"/images/{name}/tag", repo=f"{registry}/forms", tag="index")
    engine.client.post(f"/images/{faked.address}/multi:docker/tag", repo=f"{registry}/forms", tag="docker")
    assert push(engine, f"{registry}/forms", tag="docker")[-1]["aux"]["Digest"] == other["digest"]
    assert push(engine, f"{registry}/forms", tag="index")[-1]["aux"]["Digest"] == digest
    assert engine.client.post("/corten/disk/check")["Problems"] == []
    faked.put("multi", "manifests", faked.documents[f"/v2/multi/manifests/{own['digest']}"][1], OCI + "manifest.v1+json", "oci")
    pull(engine, f"{faked.address}/multi:oci")
    engine.client.post(f"/images/{faked.address}/multi:oci/tag", repo=f"{registry}/forms", tag="oci")
    assert push(engine, f"{registry}/forms", tag="oci")[-1]["aux"]["Digest"] == own["digest"]
    engine.client.delete(f"/images/{name}")
    engine.client.delete(f"/images/{registry}/forms:index")
    engine.client.post("/corten/disk/collect", free="99TB", kinds="leftovers")
    assert push(engine, f"{registry}/forms", tag="docker")[-1]["aux"]["Digest"] == own["digest"]
    engine.client.post("/images/prune", filters=json.dumps({"dangling": ["false"]}))
    engine.client.post("/corten/disk/collect", free="99TB", kinds="leftovers")
