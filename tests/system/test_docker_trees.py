"""Layers against Docker Engine (CORTEN_DOCKER_SOCKET names one): random layers with whiteouts are the same tree in both engines, and
what a container changed, committed by one engine, is the container's tree in the other: apply(diff(a, b)) = b, judged by Docker.
"""

from __future__ import annotations

import hashlib
import io
import json
import random
import tarfile

import pytest

from corten.api.client import Client
from corten.spec.platform import this_platform
from tests.layer_trees import merged, packed, random_layer
from tests.system.test_round_trips import docker, ours, through

__all__ = ["docker", "ours"]  # fixtures
ADDED = ("dev", "etc", "proc", "sys", ".dockerenv", "run")  # what an engine makes in a container's root


def archive(name: str, layers: list[bytes]) -> bytes:
    config = {"architecture": this_platform().architecture, "os": "linux", "config": {"Cmd": ["/x"]},
              "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(data).hexdigest() for data in layers]}}  # fmt: skip
    files = {"config.json": json.dumps(config).encode(), **{f"{number}.tar": data for number, data in enumerate(layers)}}
    files["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": [f"{number}.tar" for number in range(len(layers))]}]).encode()
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as packed_files:
        for path, data in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(data)
            packed_files.addfile(entry, io.BytesIO(data))
    return output.getvalue()


def load(client: Client, data: bytes) -> None:
    assert not [message for message in client.messages("/images/load", body=io.BytesIO(data)) if "error" in message]


def exported(client: Client, image: str) -> dict[str, tuple]:
    """Path -> all that an image's container has there."""
    container = client.post("/containers/create", {"Image": image})["Id"]
    try:
        return tree_of(client, container)
    finally:
        client.delete(f"/containers/{container}")


def tree_of(client: Client, container: str) -> dict[str, tuple]:
    with client.open("GET", f"/containers/{container}/export") as response:
        data = response.read()
    found: dict[str, tuple] = {}
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for entry in archive:
            name = entry.name.removeprefix("./").rstrip("/")
            if not name or name == "." or name.split("/")[0] in ADDED:
                continue
            content = archive.extractfile(entry).read() if entry.isreg() or (entry.islnk() and entry.linkname) else None
            kind = tarfile.REGTYPE if entry.islnk() else entry.type  # which of several names comes first is the packer's affair
            found[name] = (kind, entry.mode, entry.uid, entry.gid, entry.linkname if entry.issym() else "", (entry.devmajor, entry.devminor) if entry.isdev() else (),
                           content, None if entry.isdir() else int(entry.mtime))  # fmt: skip
    return found


@pytest.mark.parametrize("seed", range(25))
def test_random_layers_are_one_tree(docker, ours, seed):
    chance = random.Random(seed)
    layers = [random_layer(chance) for _ in range(chance.randint(1, 4))]
    data = archive("made:1", [packed(layer, chance) for layer in layers])
    wanted = merged(layers)
    found = []
    for client in (docker, ours.client):
        load(client, data)
        found.append(exported(client, "made:1"))
        client.delete("/images/made:1", force=1)
    assert found[0] == found[1]
    assert {path: None if row[0] == tarfile.DIRTYPE else row[6].decode() for path, row in found[1].items()} == wanted


NAMES = ("a", "b", "c", "d")


def script(chance: random.Random) -> str:
    """Changes that busybox can make, in a folder of their own and among the image's files."""
    lines = ["mkdir -p /t/a /t/b; cd /t"]
    for _ in range(chance.randint(5, 25)):
        path, other = ("/".join(chance.choices(NAMES, k=chance.randint(1, 3))) for _ in range(2))
        number = chance.randint(0, 7)
        lines.append(chance.choice((
            f"mkdir -p {path}", f"echo {number} > {path}", f"rm -rf {path}", f"ln -s ../{other} {path}", f"ln {other} {path}", f"mv {other} {path}",
            f"chmod 4{number}{number}5 {path}", f"chown -h {number}:{number + 1} {path}", f"mkfifo {path}", f"mknod {path} c {number + 1} 5",
            f"touch -h -d @{1_000_000_000 + number} {path}", f"dd if=/dev/zero of={path} bs=1k seek={number * 100} count=1", f"rm -rf /bin/{chance.choice(('vi', 'wget', 'nc', 'ftpget'))}",
            f"cp /bin/busybox {path}", "rm -rf /home; mkdir /home; echo x > /home/x",
        )))  # fmt: skip
    return "\n".join(f"{line} 2>/dev/null" for line in lines) + "\ntrue"


@pytest.mark.parametrize("seed", range(8))
def test_what_one_commits_is_the_containers_tree_in_the_other(docker, ours, seed):
    chance = random.Random(seed)
    for writer, reader in ((ours.client, docker), (docker, ours.client)):
        image = "busybox"
        for step in (1, 2):  # the second difference is taken over the first one
            container = writer.post("/containers/create", {"Image": image, "Cmd": ["sh", "-c", script(chance)]})["Id"]
            try:
                writer.post(f"/containers/{container}/start")
                assert writer.post(f"/containers/{container}/wait")["StatusCode"] == 0
                wanted = tree_of(writer, container)
                writer.post("/commit", {"Cmd": ["true"]}, container=container, repo="made", tag=str(step))
            finally:
                writer.delete(f"/containers/{container}", force=1)
            image = f"made:{step}"
            load(reader, through(writer, image))
            assert exported(reader, image) == wanted
        for client in (writer, reader):
            for step in (2, 1):
                client.delete(f"/images/made:{step}", force=1)
