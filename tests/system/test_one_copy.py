"""One copy of every layer: its blob goes when its bytes can be had again, and they are had again, the same ones, when somebody wants them."""

from __future__ import annotations

import glob
import hashlib
import io
import json
import os
import shutil
import sqlite3
import subprocess
import tarfile

import pytest

from corten.spec.platform import this_platform
from tests.engines import RunningEngine, eventually
from tests.system.conftest import need
from tests.system.test_disk import check
from tests.system.test_image_archives import load, members, saved
from tests.system.test_pull import pull, put_image
from tests.system.test_push import in_registry, push


@pytest.fixture
def engine(own_engine):
    return own_engine


@pytest.fixture
def keeping(assets, tmp_path):
    """An engine that keeps blobs."""
    (tmp_path / "daemon.json").write_text('{"corten.keep-blobs": true}')
    running = RunningEngine("k", "--config-file", str(tmp_path / "daemon.json"))
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


def blob(engine, digest: str) -> str:
    return f"{engine.data_root}/blobs/sha256/{digest.removeprefix('sha256:')}"


def gone(engine, *digests: str) -> None:
    eventually(lambda: not any(os.path.exists(blob(engine, digest)) for digest in digests))


def layers(engine, name: str) -> list[str]:
    return engine.client.get(f"/images/{name}/json")["RootFS"]["Layers"]


def test_a_pulled_layer_is_kept_once_and_goes_out_as_it_came(engine, registry, fake, docker_cli):
    """To another registry it is fetched from where it came, to the same one it is mounted."""
    name, other = f"{registry}/debian:latest", fake()
    pull(engine, name)
    digest, manifest = in_registry(registry, "debian", "latest")
    packed = [layer["digest"] for layer in manifest["layers"]]
    gone(engine, *packed)
    sizes = os.path.getsize(glob.glob(f"{engine.data_root}/records/*")[0])
    assert 0 < sizes < 1 << 20
    assert check(engine) == []
    assert engine.output("cat", "/etc/debian_version", image=name)[0] == 0
    engine.client.post(f"/images/{name}/tag", repo=f"{other.address}/debian", tag="1")
    shown = push(engine, f"{other.address}/debian", tag="1")
    assert "Fetching what it came as" in {message.get("status") for message in shown}
    assert shown[-1]["aux"]["Digest"] == digest
    assert hashlib.sha256(other.documents[f"/v2/debian/blobs/{packed[0]}"][1]).hexdigest() == packed[0].removeprefix("sha256:")
    gone(engine, *packed)
    asked = len(other.asked)
    engine.client.post(f"/images/{name}/tag", repo=f"{registry}/elsewhere", tag="1")
    shown = push(engine, f"{registry}/elsewhere", tag="1")
    assert {"Mounted from debian", "Layer already exists"} & {message.get("status") for message in shown}
    assert shown[-1]["aux"]["Digest"] == digest
    assert len(other.asked) == asked
    assert not any(os.path.exists(blob(engine, each)) for each in packed), "it was fetched though the registry has it"


def test_without_its_registry_it_is_packed_anew_and_that_is_said(engine, fake, keeping):
    source, target = fake(), fake()
    manifest = put_image(source, "app", b"content" * 1000, this_platform().architecture, "1")
    name = f"{source.address}/app:1"
    pull(engine, name)
    packed = json.loads(source.documents["/v2/app/manifests/1"][1])["layers"][0]["digest"]
    gone(engine, packed)
    first = saved(engine, name)
    engine.client.post(f"/images/{name}/tag", repo=f"{target.address}/app", tag="1")
    source.documents.clear()
    shown = push(engine, f"{target.address}/app", tag="1")
    assert any("is packed anew: " in message.get("status", "") for message in shown), shown
    assert shown[-1]["aux"]["Digest"] != manifest["digest"]
    pull(keeping, f"{target.address}/app:1")
    assert keeping.client.get(f"/images/{target.address}/app:1/json")["Id"] == engine.client.get(f"/images/{name}/json")["Id"]
    assert saved(engine, name) == first, "save asks no registry"
    again = push(engine, f"{target.address}/app", tag="1")
    assert "Layer already exists" in {message.get("status") for message in again}


def test_a_packed_layer_that_nobody_else_has_is_kept(engine, assets, tmp_path):
    skopeo = need("skopeo")
    archive = tmp_path / "packed.tar"
    subprocess.run([skopeo, "--insecure-policy", "copy", "-q", "--dest-compress", f"docker-archive:{assets}/images/busybox.tar",
                    f"oci-archive:{archive}:packed:1"], check=True, capture_output=True)  # fmt: skip
    files = members(archive.read_bytes())
    manifest = json.loads(files["blobs/sha256/" + json.loads(files["index.json"])["manifests"][0]["digest"][7:]])
    packed = manifest["layers"][0]
    assert packed["mediaType"].endswith("gzip")
    engine.client.delete("/images/busybox")
    load(engine, archive.read_bytes())
    engine.terminate()
    engine.start()
    assert saved(engine, engine.client.get("/images/json")[0]["Id"])
    engine.load(f"{assets}/images/busybox.tar")  # its work ends after that of the load before
    gone(engine, layers(engine, "busybox")[0])
    assert os.path.getsize(blob(engine, packed["digest"])) == packed["size"]


def test_with_keep_blobs_the_store_is_a_layout(keeping, registry, tmp_path):
    skopeo = need("skopeo")
    name = f"{registry}/busybox:latest"
    pull(keeping, name)
    container = keeping.run("sh", "-c", "echo made >/made; rm /etc/passwd")
    keeping.client.post(f"/containers/{container}/wait")
    keeping.client.post("/commit", container=container, repo="made", tag="1")
    keeping.remove(container)
    eventually(lambda: os.path.exists(blob(keeping, layers(keeping, "made:1")[-1])))
    keeping.client.post("/corten/hello")
    for each in (name, "docker.io/library/busybox:latest", "docker.io/library/made:1", "docker.io/library/hello:latest"):
        out = tmp_path / each.replace("/", "-").replace(":", "-")
        eventually(lambda: subprocess.run([skopeo, "--insecure-policy", "copy", "-q", f"oci:{keeping.data_root}:{each}", f"dir:{out}"], check=False).returncode == 0)  # noqa: B023
    assert check(keeping) == []
    for each in ("made:1", "hello", name):
        keeping.client.delete(f"/images/{each}")


def test_killed_before_the_blob_goes(engine, registry):
    name = f"{registry}/debian:latest"
    pull(engine, name)
    engine.kill()
    packed = in_registry(registry, "debian", "latest")[1]["layers"][0]["digest"]
    there = os.path.exists(blob(engine, packed))
    engine.start()
    gone(engine, packed)
    assert there, "it went before the engine was killed: the test proves nothing"
    assert check(engine) == []
    assert engine.output("echo", "fine", image=name)[1] == "fine\n"


def test_a_data_root_from_before(keeping, registry):
    """Layers without record: their blobs stay until a check has made the records."""
    engine, name = keeping, f"{registry}/debian:latest"
    pull(engine, name)
    plain, packed = layers(engine, "busybox")[0], in_registry(registry, "debian", "latest")[1]["layers"][0]["digest"]
    engine.terminate()
    shutil.rmtree(f"{engine.data_root}/records")
    with sqlite3.connect(f"{engine.data_root}/state.db") as database:
        for table in ("tars", "origins"):
            database.execute(f"DROP TABLE {table}")
    database.close()
    del engine.arguments[engine.arguments.index("--config-file") :]
    engine.start()
    first = saved(engine, "busybox")
    pull(engine, name)
    assert all(os.path.exists(blob(engine, each)) for each in (plain, packed))
    assert check(engine) == []
    gone(engine, plain, packed)
    assert saved(engine, "busybox") == first
    assert check(engine) == []


def test_an_imported_tar_comes_out_as_it_went_in(engine):
    """Also an odd one; of one that replaces too much of its own, the layer is what it unpacks to."""
    for number, size in enumerate((1000, 20 << 20)):
        output = io.BytesIO()
        with tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as archive:
            for content in (os.urandom(size), b"second"):
                entry = tarfile.TarInfo("twice")
                entry.size, entry.mtime = len(content), 7
                archive.addfile(entry, io.BytesIO(content))
        data = output.getvalue()
        list(engine.client.messages("/images/create", body=io.BytesIO(data), fromSrc="-", repo="odd", tag=f"{number}"))
        (diff_id,) = layers(engine, f"odd:{number}")
        assert not os.path.exists(blob(engine, diff_id))
        content = members(saved(engine, f"odd:{number}"))[f"blobs/sha256/{diff_id.removeprefix('sha256:')}"]
        assert "sha256:" + hashlib.sha256(content).hexdigest() == diff_id
        assert (content == data) == (number == 0)
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            assert archive.extractfile("twice").read() == b"second"
    assert check(engine) == []


def test_a_layer_that_goes_takes_its_record_along(engine, registry):
    name = f"{registry}/debian:latest"
    pull(engine, name)
    before = set(os.listdir(f"{engine.data_root}/records"))
    engine.client.delete(f"/images/{name}", force=1)
    assert len(os.listdir(f"{engine.data_root}/records")) < len(before)
    with sqlite3.connect(f"file:{engine.data_root}/state.db?mode=ro", uri=True) as database:
        assert database.execute("SELECT count(*) FROM origins").fetchone() == (0,)
        assert database.execute("SELECT count(*) FROM tars").fetchone() == (1,)
    database.close()


def test_a_bad_setting_stops_the_engine(tmp_path):
    from corten.api.settings import read_config_file
    from corten.errors import Invalid

    (tmp_path / "daemon.json").write_text('{"corten.keep-blobs": "yes"}')
    with pytest.raises(Invalid, match=r"corten\.keep-blobs: want true or false"):
        read_config_file(str(tmp_path / "daemon.json"), required=True)
