"""The same context, base and arguments make the same image: on another machine, another day, by another user, by another client.

Every world has an engine of its own with nothing cached, and a folder with the same content whose times, owner, place and order of creation
are others. Clocks are libfaketime's: the kernel's stay, so a test of those looks at the times in a layer.
"""

from __future__ import annotations

import glob
import io
import os
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from pathlib import Path

import docker
import msgspec
import pytest

from tests.builds import build
from tests.engines import RunningEngine
from tests.system.conftest import need

BIN = os.path.dirname(sys.executable)
AS_STRANGER = ("unshare", "--user", "--map-user=1234", "--map-group=4321")


def _packed(*names: str) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mtime, entry.uid = len(name), 1_600_000_000, 7
            archive.addfile(entry, io.BytesIO(name.encode()))
    return packed.getvalue()


FILES: dict[str, bytes] = {
    "a.txt": b"a\n", "b/z": b"z", "b/a": b"a", "b/uni-\u00e9": b"u", "script": b"#!/bin/sh\n", "big": bytes(400_000), "x.tar": _packed("in/one", "two"),
    ".dockerignore": b"*.log\nDockerfile\n.dockerignore\n", "left.log": b"left out",
    "Dockerfile": b"""FROM busybox AS made
WORKDIR /w
RUN echo x >file && ln -s file link && ln file hard && mkfifo pipe && mkdir -p d/e && touch -d '2001-02-03 04:05:06' old d/e/old
RUN umask >umask; id >id; hostname >host; env | sort >env; stat -c '%a %u %g %h %n' /w/file /w/d >seen
RUN rm -r /var/www && mv d moved && chmod 711 moved && touch /etc/group && chown 5 /etc/passwd
RUN --mount=target=/ctx cp -a /ctx/b copied && stat -c '%a %u %g %s %Y %n' /ctx/b/* >>seen
FROM busybox
COPY . /app
COPY --from=made /w /w
COPY --link --chown=3:4 b /linked/
ADD x.tar a.txt /unpacked/
COPY <<E /doc
text
E
ENV A=1
WORKDIR /new/folder
RUN sed -i s/x/y/ /w/file && cat /app/a.txt >>/w/file
""",
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """`prefix` is in front of the engine's command, `client` of the client's; `variables` are for both. `root`: where the data root is."""

    prefix: tuple[str, ...] = ()
    client: tuple[str, ...] = ()
    variables: tuple[tuple[str, str], ...] = ()
    faketime: str = ""
    root: str = ""
    umask: int = 0o022


WORLDS = {
    "years ago, in another time zone": World(faketime="-9000d", variables=(("TZ", "Asia/Kathmandu"),)),
    "in years": World(faketime="+9000d", variables=(("TZ", "UTC-14"),)),
    "no locale": World(variables=(("LC_ALL", "C"), ("LANG", "C"))),
    "a locale without UTF-8": World(variables=(("LC_ALL", "C"), ("LANG", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0"))),
    "another user": World(client=AS_STRANGER),
    "a narrow umask": World(umask=0o077),
    "no umask": World(umask=0),
    "another host": World(prefix=("unshare", "--uts", "sh", "-c", 'hostname somewhere.else; exec "$@"', "sh")),
    "another disk": World(root="/dev/shm"),
}


def fill(folder: Path, *, backwards: bool, time: int, owner: int) -> Path:
    """The files, made in one order or the other."""
    for name, data in sorted(FILES.items(), reverse=backwards):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        path.chmod(0o755 if name == "script" else 0o644)
        os.chown(path, owner, owner)
        os.utime(path, (time, time))
    for path in (folder, folder / "b"):
        path.chmod(0o755)
        os.chown(path, owner, owner)
        os.utime(path, (time + 1, time + 1))
    return folder


def environment(engine: RunningEngine, world: World) -> dict[str, str]:
    return engine.environment | dict(world.variables) | faked(world) | {"DOCKER_BUILDKIT": "0"}


def faked(world: World) -> dict[str, str]:
    """Have libfaketime for Python's programs. Times of files stay true: on another day the files of an image have no other times either."""
    if not world.faketime:
        return {}
    libraries = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")
    if not libraries:
        pytest.skip("needs libfaketime (package faketime)")
    return {"LD_PRELOAD": libraries[0], "FAKETIME": world.faketime, "NO_FAKE_STAT": "1"}


def image_of(engine: RunningEngine, name: str) -> tuple[str, list[str]]:
    """(id, diff ids)"""
    found = engine.client.get(f"/images/{name}/json")
    return found["Id"], found["RootFS"]["Layers"]


def by_corten(engine: RunningEngine, world: World, folder: Path, docker_cli: str, *arguments: str) -> None:
    command = [*world.client, f"{BIN}/corten", "-H", f"unix://{engine.socket}", "build", "-q", "-t", "same:1", *arguments, str(folder)]
    done = subprocess.run(command, env=environment(engine, world), umask=world.umask, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def by_docker(engine: RunningEngine, world: World, folder: Path, docker_cli: str, *arguments: str) -> None:
    done = subprocess.run(
        [*world.client, docker_cli, "build", "-q", "-t", "same:1", *arguments, str(folder)],
        env=environment(engine, world), umask=world.umask, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def by_docker_py(engine: RunningEngine, world: World, folder: Path, docker_cli: str, *arguments: str) -> None:
    """`arguments` are the words of --build-arg."""
    client = docker.DockerClient(base_url=f"unix://{engine.socket}", version="auto", timeout=120)
    given = dict(word.split("=", 1) for word in arguments if "=" in word)
    try:
        client.images.build(path=str(folder), tag="same:1", buildargs=given)
    finally:
        client.close()


CLIENTS = [by_corten, by_docker, by_docker_py]


@pytest.fixture(autouse=True)
def tidy(engine):
    yield
    for item in engine.client.get("/images/json", all=1):
        if "busybox:latest" not in (item["RepoTags"] or []):
            engine.client.delete(f"/images/{item['Id']}", force=1)


@pytest.fixture
def engine_in(assets, monkeypatch):
    started = []

    def start(world: World) -> RunningEngine:
        if world.root:
            monkeypatch.setenv("CORTEN_TEST_ROOT", world.root)
        with_variables = [f"{name}={value}" for name, value in (dict(world.variables) | faked(world)).items()]
        umask = ("sh", "-c", f'umask {world.umask:o}; exec "$@"', "sh")
        started.append(RunningEngine("w", prefix=(*world.prefix, "env", *with_variables, *umask)))
        started[-1].load(f"{assets}/images/busybox.tar")
        return started[-1]

    yield start
    for running in started:
        running.stop()


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("here"), backwards=False, time=1_500_000_000, owner=0)


@pytest.fixture(scope="module")
def reference(engine, here):
    """What the ordinary world makes of it, by `corten build`."""
    by_corten(engine, World(), here, "")
    found = image_of(engine, "same:1")
    yield found
    engine.client.post("/build/prune", all=1)


@pytest.mark.parametrize("name", WORLDS)
def test_the_image_is_the_same(reference, engine_in, docker_cli, tmp_path, name):
    world = WORLDS[name]
    for program in {*world.prefix[:1], *world.client[:1]}:
        need(program)
    other = engine_in(world)
    if world.client:
        assert subprocess.run([*world.client, "id", "-u"], capture_output=True, text=True, check=True).stdout == "1234\n"
    elsewhere = fill(tmp_path / "else" / "where", backwards=True, time=1_700_000_000, owner=4321 if not world.client else 0)
    for number, by in enumerate(CLIENTS):
        by(other, world, elsewhere, docker_cli)
        assert image_of(other, "same:1") == reference, by.__name__
        assert "Traceback" not in other.log()
        if not number:
            other.client.delete("/images/same:1", force=1)
            other.client.post("/build/prune", all=1)  # the next one starts from nothing, the last finds everything


@pytest.mark.parametrize("by", CLIENTS)
def test_source_date_epoch_is_the_time_of_everything(engine, docker_cli, tmp_path, by):
    """Of what is made here: what the base brought keeps its times."""
    epoch = 1_234_567_890
    folder = fill(tmp_path, backwards=False, time=1_700_000_000, owner=0)
    by(engine, World(), folder, docker_cli, "--build-arg", f"SOURCE_DATE_EPOCH={epoch}")
    assert engine.client.get("/images/same:1/json")["Created"] == "2009-02-13T23:31:30Z"
    base = len(engine.client.get("/images/busybox/json")["RootFS"]["Layers"])
    times = {path: time for layer in layer_times(engine, "same:1")[base:] for path, time in layer.items()}
    assert times["app/a.txt"] == times["new/folder"] == times["w/file"] == times["doc"] == epoch
    assert times["w/old"] == times["w/moved/e/old"] < epoch  # RUN said so itself
    assert max(times.values()) == epoch


def layer_times(engine: RunningEngine, image: str) -> list[dict[str, int]]:
    """Of each layer: path -> seconds."""
    with engine.client.open("GET", f"/images/{image}/get") as response:
        data = response.read()
    found = []
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        for name in msgspec.json.decode(archive.extractfile("manifest.json").read())[0]["Layers"]:
            with tarfile.open(fileobj=archive.extractfile(name)) as layer:
                found.append({entry.name.removeprefix("./").rstrip("/"): int(entry.mtime) for entry in layer})
    return found


def test_a_clock_that_is_behind_the_base(engine):
    """The base says that it is of 2096; what a step makes today is as old as on a machine that knows what day it is."""
    far = 4_000_000_000
    build(engine, {"Dockerfile": "FROM busybox\nENV A=1\n"}, t="far:1", buildargs={"SOURCE_DATE_EPOCH": str(far)})
    dockerfile = "FROM far:1\nRUN echo x >/made && touch -d '2000-01-01 00:00:00' /old && chmod 600 /etc/group\nCOPY a /copied/\nWORKDIR /w\n"
    image = build(engine, {"Dockerfile": dockerfile, "a": "a"}, nocache=1).image
    *base, ran, copied, worked = layer_times(engine, image)
    [group] = [layer["etc/group"] for layer in base if "etc/group" in layer]
    assert {path: time for path, time in ran.items() if path != "etc"} == {"made": far, "old": 946_684_800, "etc/group": group}
    assert copied == {"copied": far, "copied/a": far}
    assert worked == {"w": far}


def test_the_pushed_manifest_is_the_same(reference, here, engine, engine_in, registry, docker_cli, tmp_path):
    """Also where the layers were there before, packed, as a registry had them."""

    def pushed(running: RunningEngine, name: str) -> str:
        running.client.post("/images/same:1/tag", repo=f"{registry}/{name}", tag="1")
        list(running.client.messages(f"/images/{registry}/{name}/push", tag="1"))
        repositories = running.client.get(f"/images/{registry}/{name}:1/json")["RepoDigests"]
        running.client.delete(f"/images/{registry}/{name}:1")
        return next(text.partition("@")[2] for text in repositories if text.startswith(f"{registry}/{name}@"))

    by_corten(engine, World(), here, docker_cli)
    first = pushed(engine, "same")
    other = engine_in(World())
    by_corten(other, World(), fill(tmp_path, backwards=True, time=1_600_000_000, owner=3), docker_cli)
    assert pushed(other, "again") == first
    other.client.delete("/images/same:1", force=1)
    other.client.post("/build/prune", all=1)
    list(other.client.messages("/images/create", fromImage=f"{registry}/same", tag="1"))
    by_docker(other, World(), tmp_path, docker_cli)
    assert image_of(other, "same:1") == reference
    assert pushed(other, "third") == first
