"""Images of as many layers as overlayfs takes, wherever their layers are mounted; and one more. Docker's overlay2 store takes 125."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile

import pytest

from corten.api.client import ApiError
from corten.spec.image import MOST_LAYERS
from corten.spec.platform import this_platform
from tests.builds import build
from tests.engines import RunningEngine, eventually
from tests.images import entry, layer
from tests.system.test_platforms import load


@pytest.fixture(scope="module")
def engine(assets):
    running = RunningEngine("deep")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


def deep(assets: str, count: int) -> bytes:
    """The archive of `deep:COUNT`: busybox and layers with a file each, f1 to f(COUNT - 1)."""
    with tarfile.open(f"{assets}/images/busybox.tar") as base:
        manifest = json.load(base.extractfile("manifest.json"))[0]
        layers = [base.extractfile(manifest["Layers"][0]).read()]
    layers += [layer([entry(f"f{number}", str(number).encode())]) for number in range(1, count)]
    config = {"architecture": this_platform().architecture, "os": "linux", "config": {"Cmd": ["sh"]},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(each).hexdigest() for each in layers]}}  # fmt: skip
    files = {f"{number}.tar": data for number, data in enumerate(layers)} | {"config.json": json.dumps(config).encode()}
    files["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": [f"deep:{count}"], "Layers": list(files)[:-1]}]).encode()
    return layer([entry(name, data) for name, data in files.items()])


def test_as_many_as_there_may_be(engine, assets):
    name, last = f"deep:{MOST_LAYERS}", MOST_LAYERS - 1
    load(engine, deep(assets, MOST_LAYERS))
    assert engine.output("cat", "/f1", f"/f{last}", image=name) == (0, f"1{last}")
    mounted = [{"Type": "image", "Source": name, "Target": "/deep"}]
    assert engine.output("cat", "/deep/f1", f"/deep/f{last}", Mounts=mounted) == (0, f"1{last}")
    stopped = engine.client.post("/containers/create", {"Image": name, "Cmd": ["true"]})["Id"]
    with engine.client.open("GET", f"/containers/{stopped}/archive", query={"path": f"/f{last}"}) as response, tarfile.open(fileobj=io.BytesIO(response.read())) as tar:
        assert tar.extractfile(f"f{last}").read() == str(last).encode()
    helper = engine.client.post(f"/corten/containers/{stopped}/tools", {"Image": "busybox", "Cmd": ["cat", f"/target/f{last}"], "AttachStdout": True})["ContainerId"]
    waiting = engine.client.open("POST", f"/containers/{helper}/wait", query={"condition": "removed"})
    with waiting as response:
        engine.client.post(f"/containers/{helper}/start")
        assert json.loads(response.read())["StatusCode"] == 0
    running = engine.run("sleep", "600")
    with engine.client.open("POST", f"/corten/containers/{running}/tools", body=json.dumps({"Image": name, "Cmd": ["cat", f"/f{last}"]}).encode(),
                            headers={"Content-Type": "application/json"}) as response:  # fmt: skip
        tools = json.loads(response.read())["ExecId"]
    engine.client.post(f"/exec/{tools}/start", {"Detach": True})
    eventually(lambda: not engine.client.get(f"/exec/{tools}/json")["Running"])
    assert engine.client.get(f"/exec/{tools}/json")["ExitCode"] == 0
    files = {"Dockerfile": f'FROM busybox\nRUN --mount=type=bind,from={name},target=/deep cat /deep/f1 /deep/f{last} >/both\nCMD ["cat", "/both"]\n', "x": ""}
    build(engine, files, t="from-deep:1")
    assert engine.output("cat", "/both", image="from-deep:1") == (0, f"1{last}")
    changed = engine.run("touch", "/new", image=name)
    engine.client.post(f"/containers/{changed}/wait")
    for ask in (lambda: engine.client.post("/commit", {}, container=changed, repo="deeper", tag="1"), lambda: load(engine, deep(assets, MOST_LAYERS + 1))):
        with pytest.raises(ApiError, match=f"max depth exceeded: the image has {MOST_LAYERS + 1} layers, {MOST_LAYERS} are the most"):
            ask()
