"""A disk that cannot fill: who holds what, what goes next, the collector, fsck."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from corten.api.client import ApiError
from corten.spec.platform import this_platform
from tests.builds import build as run_build
from tests.engines import RunningEngine, eventually
from tests.images import derived, entry, layer
from tests.system.test_platforms import load
from tests.system.test_pull import pull, put_image


@pytest.fixture
def engine(own_engine):
    return own_engine


def build(engine, assets, tmp_path, name: str, size: int, **config: object) -> str:
    """An image with a layer of its own; its id."""
    derived(f"{assets}/images/busybox.tar", str(tmp_path / "x.tar"), name, layer([entry(f"data-{name.replace(':', '-')}", os.urandom(size))]), **config)
    load(engine, (tmp_path / "x.tar").read_bytes())
    return engine.client.get(f"/images/{name}/json")["Id"]


def rows(engine) -> dict[str, dict]:
    return {(row["Names"] or [row["Id"]])[0]: row for row in engine.client.get("/corten/disk")["Rows"]}


def collect(engine, **query: object) -> list[dict]:
    return engine.client.post("/corten/disk/collect", **query)["Steps"]


def names(engine) -> set[str]:
    return {tag for row in engine.client.get("/images/json") for tag in row["RepoTags"]}


def test_least_recently_used_goes_first_and_nothing_that_is_needed(engine, assets, tmp_path):
    for name in ("a:1", "b:1", "c:1", "d:1"):
        build(engine, assets, tmp_path, name, 1 << 20)
    build(engine, assets, tmp_path, "labelled:1", 1 << 20, Labels={"dev.corten.pin": "true"})
    build(engine, assets, tmp_path, "loose:1", 1 << 20)
    engine.client.post("/images/busybox/tag", repo="loose", tag="1")  # what it was is dangling now
    engine.client.post("/corten/images/b:1/pin", pinned=1)
    used = engine.client.post("/containers/create", {"Image": "c:1", "Cmd": ["true"]})["Id"]
    engine.remove(engine.client.post("/containers/create", {"Image": "a:1", "Cmd": ["true"]})["Id"])
    found = rows(engine)
    assert found["b:1"]["Kept"] == found["labelled:1"]["Kept"] == "pinned"
    assert found["c:1"]["Kept"].startswith("in use by container ")
    assert found["d:1"]["Unique"] >= 2 << 20
    assert found["d:1"]["Size"] > found["d:1"]["Unique"]
    planned = collect(engine, dryRun=1, free="99TB")
    assert [step["Names"][:1] for step in planned] == [["d:1"], [], ["busybox:latest"], ["a:1"]]
    assert [found[name]["Next"] for name in ("d:1", "a:1", "b:1")] == [1, 4, 0]
    before = names(engine)
    assert [step["Names"] for step in collect(engine, free="1MB")] == [["d:1"]]
    assert names(engine) == before - {"d:1"}
    done = collect(engine, free="3MB")
    assert [(step["Kind"], step["Names"]) for step in done] == [("dangling", []), ("images", ["a:1"])]
    assert names(engine) == before - {"a:1", "d:1"}
    engine.client.post("/corten/images/b:1/pin", pinned=0)
    engine.remove(used)
    assert {"b:1", "c:1"} <= {name for step in collect(engine, free="99TB") for name in step["Names"]}
    assert names(engine) == {"labelled:1"}
    with pytest.raises(ApiError, match="watermark 'much'"):
        collect(engine, free="much")


def test_watermarks_are_kept_by_themselves(assets, tmp_path):
    settings = tmp_path / "daemon.json"
    settings.write_text("{}")
    engine = RunningEngine("w", "--config-file", str(settings))
    try:
        engine.load(f"{assets}/images/busybox.tar")
        for number in range(3):
            build(engine, assets, tmp_path, f"big:{number}", 1 << 21)
        low = engine.client.get("/corten/disk")["FileSystem"]["Store"] - (1 << 20)
        settings.write_text(json.dumps({"corten.gc": {"high": str(low), "low": str(low), "kinds": ["leftovers", "images"]}}))
        engine.terminate()
        engine.start()  # it looks when it starts
        eventually(lambda: "big:0" not in names(engine))
        assert names(engine) == {"busybox:latest", "big:1", "big:2"}
        assert engine.client.get("/corten/disk")["FileSystem"]["Store"] <= low
        assert "collected 1 things" in engine.log()
    finally:
        engine.stop()


ALL_KINDS = "leftovers,logs,build-cache,containers,volumes,dangling,images"


@pytest.fixture
def configured(assets, tmp_path):
    """With the kinds that no engine collects by itself, and nothing that would trigger it."""
    settings = tmp_path / "daemon.json"
    gc = {"high": "900TB", "low": "900TB", "kinds": ["containers", "volumes", "logs", "images"], "unused-for": {"containers": "0s", "volumes": "0s"}}
    settings.write_text(json.dumps({"corten.gc": gc}))
    engine = RunningEngine("k", "--config-file", str(settings))
    try:
        engine.load(f"{assets}/images/busybox.tar")
        yield engine
    finally:
        engine.stop()


def ended(engine, *command: str, **host: object) -> str:
    container = engine.run(*command, **host)
    engine.client.post(f"/containers/{container}/wait")
    eventually(lambda: engine.client.get(f"/containers/{container}/json")["State"]["Status"] == "exited")
    return container


def known(engine, container: str) -> bool:
    return container in {row["Id"] for row in engine.client.get("/containers/json", all=1)}


def test_stopped_containers_and_their_volumes_go_and_no_others(configured):
    engine = configured
    write = ("sh", "-c", "head -c 300000 /dev/zero >/made; head -c 200000 /dev/zero >/data/made")
    volumes = [{"Type": "volume", "Target": "/data"}]
    old = ended(engine, *write, Mounts=volumes)
    (volume,) = [mount["Name"] for mount in engine.client.get(f"/containers/{old}/json")["Mounts"]]
    again = engine.run("sleep", "600", RestartPolicy={"Name": "always"})
    engine.client.post(f"/containers/{again}/stop", t=0)
    pinned = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Labels": {"dev.corten.pin": "1"}})["Id"]
    running = engine.run("sleep", "600", Mounts=[{"Type": "volume", "Target": "/data"}])
    base = ended(engine, "true")
    linked = ended(engine, "true")
    engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Labels": {"dev.corten.pin": "1"}, "HostConfig": {"Links": [f"{linked}:other"]}})
    sharing = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Labels": {"dev.corten.pin": "1"},
                                                        "HostConfig": {"NetworkMode": f"container:{base}"}})["Id"]  # fmt: skip
    named = ended(engine, "true", Mounts=[{"Type": "volume", "Source": "mine", "Target": "/data"}])
    found = {row["Id"]: row for row in engine.client.get("/corten/disk")["Rows"]}
    assert found[old]["Kept"] == found[volume]["Kept"] == found[named]["Kept"] == ""
    assert found[old]["Unique"] >= 300_000
    assert found[volume]["Unique"] == 200_000
    assert found[again]["Kept"] == "its restart policy is always"
    assert found[pinned]["Kept"] == "pinned"
    assert found[running]["Kept"] == "it runs"
    for one in (base, linked):
        assert found[one]["Kept"].startswith("container ")
        assert found[one]["Kept"].endswith(" uses it")
    assert "mine" not in found
    assert engine.client.get("/corten/disk")["Collector"]["UnusedFor"] == {"containers": "0s", "volumes": "0s"}
    order = [(step["Kind"], step["Id"]) for step in collect(engine, dryRun=1, free="99TB")]
    assert order == [("containers", old), ("volumes", volume), ("containers", named)]
    assert [found[identity]["Next"] for _, identity in order] == [1, 2, 3]
    program = os.path.join(os.path.dirname(sys.executable), "corten")
    shown = subprocess.run([program, "-H", f"unix://{engine.socket}", "system", "df"], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("the collector takes containers (unused for 0s), volumes (unused for 0s), logs, images until 900000000000000.\n")
    assert any(line.endswith("its restart policy is always") for line in shown.splitlines())
    assert known(engine, old)
    done = collect(engine, free="400kB")
    assert [(step["Kind"], step["Id"]) for step in done] == order[:2]
    assert done[1]["Frees"] == 200_000
    assert not known(engine, old)
    assert volume not in {row["Name"] for row in engine.client.get("/volumes")["Volumes"]}
    assert not os.path.exists(f"{engine.data_root}/volumes/{volume}")
    collect(engine, free="99TB")
    assert all(known(engine, container) for container in (again, pinned, running, base, linked, sharing))
    assert not known(engine, named)
    assert "mine" in {row["Name"] for row in engine.client.get("/volumes")["Volumes"]}


def test_a_watermark_in_bytes_counts_what_is_collected(assets, tmp_path):
    settings = tmp_path / "daemon.json"
    settings.write_text("{}")
    engine = RunningEngine("b", "--config-file", str(settings))
    try:
        engine.load(f"{assets}/images/busybox.tar")
        old, young = (ended(engine, "sh", "-c", "head -c 3000000 /dev/zero >/made") for _ in range(2))
        mark = str(engine.client.get("/corten/disk")["FileSystem"]["Store"] + 4_000_000)
        settings.write_text(json.dumps({"corten.gc": {"high": mark, "low": mark, "kinds": ["containers"], "unused-for": {"containers": "1ns"}}}))
        engine.terminate()
        engine.start()
        eventually(lambda: not known(engine, old))
        eventually(lambda: "collected 1 things" in engine.log())
        assert known(engine, young)
        assert engine.client.get("/corten/disk")["FileSystem"]["Store"] <= int(mark)
    finally:
        engine.stop()


def test_an_image_goes_once_its_last_container_has(configured, assets, tmp_path):
    engine = configured
    build(engine, assets, tmp_path, "only:1", 1 << 20)
    container = engine.client.post("/containers/create", {"Image": "only:1", "Cmd": ["true"]})["Id"]
    kept = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Labels": {"dev.corten.pin": "1"}})["Id"]
    assert [step["Kind"] for step in collect(engine, dryRun=1, kinds="images", free="99TB")] == []
    steps = collect(engine, free="1MB")
    assert [(step["Kind"], step["Names"]) for step in steps if step["Kind"] == "images"] == [("images", ["only:1"])]
    assert container in {step["Id"] for step in steps}
    assert names(engine) == {"busybox:latest"}
    assert known(engine, kept)


def test_rotated_logs_go_and_what_is_written_stays(configured):
    engine = configured
    options = {"Type": "json-file", "Config": {"max-size": "50k", "max-file": "4"}}
    container = engine.run("sh", "-c", "seq 1 3000; sleep 600", LogConfig=options)
    log = engine.client.get(f"/containers/{container}/json")["LogPath"]
    eventually(lambda: os.path.exists(log) and b"3000" in Path(log).read_bytes())  # in the moment of a rotation there is none
    rotated = sorted(glob.glob(f"{log}.*"))
    assert len(rotated) >= 2
    found = [row for row in engine.client.get("/corten/disk")["Rows"] if row["Kind"] == "logs"]
    assert {name.partition(": ")[2] for row in found for name in row["Names"]} == set(map(os.path.basename, rotated))
    sizes = {os.path.basename(path): os.path.getsize(path) for path in rotated}
    (step,) = collect(engine, free="1", kinds="logs")
    oldest = os.path.basename(rotated[-1])
    assert (step["Names"][0].partition(": ")[2], step["Frees"]) == (oldest, sizes[oldest])
    assert sorted(glob.glob(f"{log}.*")) == rotated[:-1]
    collect(engine, free="99TB", kinds="logs")
    assert glob.glob(f"{log}.*") == []
    done = engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "tail": 1})
    with done as response:
        assert response.read().endswith(b"3000\n")
    assert engine.client.get(f"/containers/{container}/json")["State"]["Running"]


def test_nothing_of_that_goes_unasked(engine):
    """Without settings a collection by hand takes what can be built or pulled again, and names make it take others, but not young ones."""
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Volumes": {"/data": {}}})["Id"]
    found = {row["Id"]: row for row in engine.client.get("/corten/disk")["Rows"]}
    assert found[container]["Kept"] == "used less than 168h0m0s ago"
    assert found[container]["Next"] == 0
    assert collect(engine, free="99TB") == []
    assert collect(engine, free="99TB", kinds=ALL_KINDS) == []
    assert known(engine, container)
    with pytest.raises(ApiError, match="unknown kind 'x'"):
        collect(engine, kinds="x")


@pytest.mark.parametrize(
    ("value", "text"),
    [({"high": "x"}, "watermark 'x'"), ({"high": "50%", "low": "60%"}, "is not below"), ({"high": "50%", "low": "1GB"}, "is not below"),
     ({"kinds": ["x"]}, "unknown kind 'x'"), ({"unused-for": {"x": "1h"}}, "unknown kind 'x'"),
     ({"unused-for": {"containers": "long"}}, "invalid duration 'long'"), ({"hig": "1%"}, "unknown field `hig`")],
)  # fmt: skip
def test_bad_watermarks_stop_the_engine(tmp_path, value, text):
    settings = tmp_path / "daemon.json"
    settings.write_text(json.dumps({"corten.gc": value}))
    program = os.path.join(os.path.dirname(sys.executable), "cortend")
    done = subprocess.run([program, "--config-file", str(settings), "--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path / "e")],
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 1
    assert "corten.gc: " in done.stderr
    assert text in done.stderr


def test_a_week_after_a_crash_nothing_is_left(engine):
    """A blob between a download and its image: kept for the next try, and not for ever."""
    blobs = f"{engine.data_root}/blobs/sha256"
    for age in (0, 8):
        path = f"{blobs}/{age:064d}"
        with open(path, "w") as file:
            file.write("left")
        os.utime(path, (os.path.getmtime(path) - age * 24 * 3600,) * 2)
    engine.kill()
    engine.start()
    assert f"{0:064d}" in os.listdir(blobs)
    assert f"{8:064d}" not in os.listdir(blobs)
    steps = collect(engine, free="1")
    assert [(step["Kind"], step["Id"]) for step in steps] == [("leftovers", f"sha256:{0:064d}")]
    assert f"{0:064d}" not in os.listdir(blobs)
    assert engine.output("echo", "fine")[1] == "fine\n"


def check(engine, **query: object) -> list[dict]:
    return engine.client.post("/corten/disk/check", **query)["Problems"]


def test_what_is_broken_is_named_and_fetched_again(engine, fake):
    registry = fake()
    put_image(registry, "app", b"content", this_platform().architecture, "1")
    name = f"{registry.address}/app:1"
    pull(engine, name)
    assert check(engine) == []
    manifest = json.loads(registry.documents["/v2/app/manifests/1"][1])
    config, packed = manifest["config"]["digest"], manifest["layers"][0]["digest"]
    inspected = engine.client.get(f"/images/{name}/json")
    (diff_id,) = inspected["RootFS"]["Layers"]
    folder = inspected["GraphDriver"]["Data"]["UpperDir"]
    kept = f"{engine.data_root}/blobs/sha256/{packed.removeprefix('sha256:')}"
    eventually(lambda: not os.path.exists(kept))
    with open(f"{folder}/file", "r+b") as file:
        file.write(b"X")
    os.utime(f"{folder}/file", ns=(0, 0))
    (problem,) = check(engine)
    assert (problem["Kind"], problem["Id"], problem["Images"]) == ("layer", diff_id, [inspected["Id"]])
    assert problem["Problem"] == "/file differs in its content"
    for digest in (config, inspected["RepoDigests"][0].partition("@")[2]):
        with open(f"{engine.data_root}/blobs/sha256/{digest.removeprefix('sha256:')}", "ab") as file:
            file.write(b" ")
    broken = {problem["Id"]: problem for problem in check(engine)}
    assert set(broken) == {config, diff_id, inspected["RepoDigests"][0].partition("@")[2]}
    engine.terminate()
    engine.start()  # broken as it is
    assert names(engine) == {"busybox:latest"}
    assert f"image {inspected['Id']} is left out: blob {config} does not match its digest: `corten system fsck --repair`" in engine.log()
    with pytest.raises(ApiError, match="fsck --repair"):
        engine.client.get(f"/images/{name}/json")
    engine.client.post("/images/busybox/tag", repo="other", tag="1")
    engine.client.delete("/images/other:1")
    repaired = {problem["Id"]: problem for problem in check(engine, repair=1)}
    assert all(problem["Repaired"] for problem in repaired.values()), repaired
    assert repaired[diff_id]["How"] == f"fetched from {registry.address}/app and unpacked again"
    assert engine.client.get(f"/images/{name}/json")["Id"] == inspected["Id"]
    assert check(engine) == []
    with open(f"{folder}/file", "rb") as file:
        assert file.read() == b"content"
    eventually(lambda: not os.path.exists(kept))
    engine.client.delete(f"/images/{name}")


def test_what_nobody_else_has_stays_broken_and_is_said(engine):
    (diff_id,) = engine.client.get("/images/busybox/json")["RootFS"]["Layers"]
    eventually(lambda: not os.path.exists(f"{engine.data_root}/blobs/sha256/{diff_id.removeprefix('sha256:')}"))
    (file,) = glob.glob(f"{engine.data_root}/layers/*/etc/passwd")
    was = os.stat(file)
    with open(file, "rb") as source:
        good = source.read()
    with open(file, "wb") as target:
        target.write(good.replace(b"r", b"X"))
    environment = engine.environment
    program = os.path.join(os.path.dirname(sys.executable), "corten")
    done = subprocess.run([program, "-H", f"unix://{engine.socket}", "system", "fsck", "--repair"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"layer {diff_id}: /etc/passwd differs in its content" in done.stdout
    assert "no registry is known that has it: remove its image, and load or build it again" in done.stdout
    with open(file, "wb") as target:
        target.write(good)
    os.utime(file, ns=(was.st_mtime_ns, was.st_mtime_ns))
    done = subprocess.run([program, "-H", f"unix://{engine.socket}", "system", "fsck"], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.splitlines()[-1].endswith(", 0 broken")) == (0, True), done.stdout
    container = engine.run("sleep", "60")
    folder = glob.glob(f"{engine.data_root}/layers/*/bin")[0]
    os.rename(folder, f"{folder}.gone")
    (problem,) = check(engine, repair=1)
    assert not problem["Repaired"]
    assert "stands on it: stop it and check again" in problem["How"]
    engine.remove(container)
    os.rename(f"{folder}.gone", folder)
    assert check(engine) == []
    assert engine.output("echo", "whole")[1] == "whole\n"


def test_a_check_tells_how_far_it_is(engine):
    def stream(accept: str, **query: object) -> tuple[str, list[dict]]:
        with engine.client.open("POST", "/corten/disk/check", query=query, headers={"Accept": accept}) as response:
            return response.headers["Content-Type"], [json.loads(line) for line in response if line.strip()]

    kind, messages = stream("application/jsonl")
    assert kind == "application/jsonl"
    assert stream("*/*", progress=1) == ("application/json", messages)
    *told, last = messages
    assert last["aux"] == engine.client.post("/corten/disk/check")
    for what in ("blobs", "layers"):
        steps = [message["progressDetail"] for message in told if message["id"] == what]
        assert len(steps) == last["aux"][what.title()]
        assert steps[-1]["current"] == steps[-1]["total"] > 0
        assert [step["current"] for step in steps] == sorted(step["current"] for step in steps)
    (diff_id,) = engine.client.get("/images/busybox/json")["RootFS"]["Layers"]
    folder = glob.glob(f"{engine.data_root}/layers/*/bin")[0]
    os.rename(folder, f"{folder}.gone")
    *told, last = stream("application/jsonl", repair=1)[1]
    assert {"status": "unpacked again", "id": f"layer {diff_id}", "progressDetail": {}} in told
    assert last["aux"]["Problems"][0]["Repaired"]


def test_on_a_terminal_a_check_is_watched(engine):
    primary, secondary = os.openpty()
    program = os.path.join(os.path.dirname(sys.executable), "corten")
    done = subprocess.run([program, "-H", f"unix://{engine.socket}", "system", "fsck"], stdout=subprocess.PIPE, stderr=secondary, check=False)
    os.close(secondary)
    shown = os.read(primary, 1 << 16)
    os.close(primary)
    assert done.returncode == 0
    assert b"Checking layers 100 %" in shown
    assert shown.endswith(b"\r\x1b[K")
    assert done.stdout.endswith(b", 0 broken\n")


def test_the_commands_say_it(engine, assets, tmp_path):
    build(engine, assets, tmp_path, "a:1", 1 << 20)

    def corten(*arguments: str) -> str:
        program = os.path.join(os.path.dirname(sys.executable), "corten")
        done = subprocess.run([program, "-H", f"unix://{engine.socket}", "system", *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    corten("pin", "busybox")
    shown = corten("df").splitlines()
    assert shown[0].split() == ["NEXT", "KIND", "WHAT", "SIZE", "UNIQUE", "LAST", "USED", "KEPT"]
    assert shown[1].split()[:3] == ["1", "images", "a:1"]
    assert any(line.split()[:2] == ["images", "busybox:latest"] and line.endswith("pinned") for line in shown)
    assert "Nothing is collected by itself" in shown[-1]
    assert corten("df", "--layers").count("image ") >= 3
    assert "Would collect" in corten("gc", "--dry-run", "--free", "1MB")
    assert "a:1" in names(engine)
    assert "a:1" in corten("gc", "--free", "1MB")
    assert "a:1" not in names(engine)
    corten("unpin", "busybox")


def test_what_a_build_has_made_is_checked_and_held(engine):
    """Its layers' tars are made when they are asked for; until then their folders are held against their digests."""
    built = run_build(engine, {"Dockerfile": "FROM busybox\nRUN echo made >/made\n", "x": "1"}, t="made:1")
    diff_id = engine.client.get("/images/made:1/json")["RootFS"]["Layers"][-1]
    assert not os.path.exists(f"{engine.data_root}/blobs/sha256/{diff_id.removeprefix('sha256:')}")
    assert check(engine) == []
    engine.client.delete(f"/images/{built.image}", force=1)
    assert run_build(engine, {"Dockerfile": "FROM busybox\nRUN echo made >/made\n", "x": "1"}, t="made:1").cached == 1  # held by the cache
    (made,) = glob.glob(f"{engine.data_root}/layers/*/made")
    with open(made, "w", encoding="utf-8") as file:
        file.write("else\n")
    (problem,) = check(engine)
    assert (problem["Kind"], problem["Id"]) == ("layer", diff_id)
    engine.client.delete("/images/made:1")
    (row,) = [row for row in engine.client.get("/corten/disk")["Rows"] if row["Kind"] == "build-cache"]
    assert (row["Names"], row["Kept"]) == (["[2/2] RUN echo made >/made"], "")
    assert row["Unique"] > 0
    planned = engine.client.post("/corten/disk/collect", dryRun=1, free="1", kinds="build-cache")["Steps"]
    assert [step["Id"] for step in planned] == [row["Id"]]
    engine.client.post("/corten/disk/collect", free="1", kinds="build-cache")
    eventually(lambda: not glob.glob(f"{engine.data_root}/layers/*/made"))
