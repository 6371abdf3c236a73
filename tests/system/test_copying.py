"""Files in and out of containers: through mounts, links and races, running and stopped; and the whole root as a tar."""

from __future__ import annotations

import base64
import bz2
import gzip
import io
import json
import lzma
import os
import subprocess
import tarfile

import pytest
import zstandard

from corten.api.client import ApiError


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def tar_of(files: dict[str, bytes], **links: str) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.uid, entry.gid = len(data), 0o755, 7, 8
            archive.addfile(entry, io.BytesIO(data))
        for name, target in links.items():
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname = tarfile.SYMTYPE, target
            archive.addfile(entry)
    return output.getvalue()


def put(engine, container, path, data, **query):
    engine.client.open("PUT", f"/containers/{container}/archive", query={"path": path, **query}, body=data).close()


def get(engine, container, path):
    with engine.client.open("GET", f"/containers/{container}/archive", query={"path": path}) as response:
        return response.read()


def content(data: bytes, name: str) -> bytes:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.extractfile(name).read()


def refusal(call, *arguments, **query) -> tuple[int, str]:
    with pytest.raises(ApiError) as refused:
        call(*arguments, **query)
    return refused.value.http_status, refused.value.message


@pytest.fixture
def mounted(engine, tmp_path):
    """A container with a volume, a bind, a read-only bind and a tmpfs; its id."""
    (tmp_path / "ro").mkdir()
    (tmp_path / "ro" / "old").write_text("outside")
    (tmp_path / "rw").mkdir()
    container = engine.run("sleep", "600", Binds=[f"{tmp_path}/rw:/bind", f"{tmp_path}/ro:/bind/ro:ro", "cortest-copy:/volume"], Tmpfs={"/tmpfs": ""})
    yield container
    engine.remove_all()
    engine.client.delete("/volumes/cortest-copy")


@pytest.mark.parametrize("running", [True, False])
def test_paths_in_mounts(engine, mounted, tmp_path, running):
    if not running:
        engine.client.post(f"/containers/{mounted}/kill")
        engine.client.post(f"/containers/{mounted}/wait")
    data = tar_of({"file": b"new"})
    put(engine, mounted, "/bind", data)
    assert (tmp_path / "rw" / "file").read_text() == "new"
    put(engine, mounted, "/volume", data)
    assert content(get(engine, mounted, "/volume/file"), "file") == b"new"
    assert content(get(engine, mounted, "/bind/ro/old"), "old") == b"outside"
    assert refusal(put, engine, mounted, "/bind/ro", data) == (400, "mounted volume is marked read-only")
    assert b"127.0.0.1" in content(get(engine, mounted, "/etc/hosts"), "hosts")
    assert refusal(get, engine, mounted, "/proc/version") == (404, f"Could not find the file /proc/version in container {mounted}")
    if running:
        put(engine, mounted, "/tmpfs", data)
        assert content(get(engine, mounted, "/tmpfs/file"), "file") == b"new"
    assert not os.path.exists(tmp_path / "ro" / "file")
    engine.client.post(f"/containers/{mounted}/{'kill' if running else 'start'}")  # the mounts of a copy hold nothing up


def test_a_read_only_root(engine):
    container = engine.run("sleep", "600", ReadonlyRootfs=True, Tmpfs={"/writable": ""})
    assert refusal(put, engine, container, "/root", tar_of({"f": b""})) == (400, "container rootfs is marked read-only")
    put(engine, container, "/writable", tar_of({"f": b"x"}))
    assert content(get(engine, container, "/writable/f"), "f") == b"x"


def test_to_whom_it_belongs(engine):
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"], "User": "5:6"})["Id"]
    engine.client.post(f"/containers/{container}/start")
    put(engine, container, "/tmp", tar_of({"own": b""}))
    put(engine, container, "/tmp", tar_of({"user": b""}), copyUIDGID=1)
    with tarfile.open(fileobj=io.BytesIO(get(engine, container, "/tmp"))) as archive:
        assert [(archive.getmember(name).uid, archive.getmember(name).gid) for name in ("tmp/own", "tmp/user")] == [(7, 8), (5, 6)]


@pytest.mark.parametrize("compress", [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress])
def test_bodies_in_every_compression(engine, compress):
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    put(engine, container, "/root", compress(tar_of({"file": b"packed"})))
    assert content(get(engine, container, "/root/file"), "file") == b"packed"


def test_kinds_are_kept_when_asked(engine):
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    put(engine, container, "/root", tar_of({"folder/file": b""}))
    assert refusal(put, engine, container, "/root", tar_of({"folder": b""}), noOverwriteDirNonDir=1) == (500, 'cannot overwrite directory "folder" with non-directory "/root"')
    assert refusal(put, engine, container, "/root", tar_of({"folder/file/below": b""}), noOverwriteDirNonDir=1)[0] == 400
    put(engine, container, "/root", tar_of({"folder": b"now a file"}))
    assert content(get(engine, container, "/root/folder"), "folder") == b"now a file"


def test_links_as_docker_tells_them(engine):
    container = engine.run("sh", "-c", "mkdir -p /a/b; echo x >/a/b/c; ln -s /a /la; ln -s a/b/c /lc; ln -s nosuch /broken; ln -s /a/../../../etc /esc; mkfifo /fifo; mknod /dev1 c 1 3; nc -l -U /sock 2>/dev/null & sleep 600")
    wait_for(engine, container, "/dev1")

    def told(path):
        with engine.client.open("HEAD", f"/containers/{container}/archive", query={"path": path}) as response:
            found = json.loads(base64.b64decode(response.headers["X-Docker-Container-Path-Stat"]))
        return found["name"], found["mode"], found["linkTarget"]

    # Recorded of Docker 28.5.2.
    assert [told(path) for path in ("/", "/la", "/la/", "/la/.", "/lc", "/broken", "/esc", "..", "/fifo")] == [
        ("/", 2147484141, ""), ("la", 134218239, "/a"), ("la", 2147484141, ""), (".", 2147484141, ""), ("lc", 134218239, "/a/b/c"),
        ("broken", 134218239, "/nosuch"), ("esc", 134218239, "/etc"), ("..", 2147484141, ""), ("fifo", 33554852, ""),
    ]  # fmt: skip
    assert refusal(told, "/lc/")[0] == 500
    with tarfile.open(fileobj=io.BytesIO(get(engine, container, "/la/."))) as archive:
        assert archive.getnames() == [".", "./b", "./b/c"]
    with tarfile.open(fileobj=io.BytesIO(get(engine, container, "/dev1"))) as archive:
        assert (archive.getmember("dev1").ischr(), archive.getmember("dev1").devmajor) == (True, 1)


def wait_for(engine, container, path):
    """Until it is there: the container's own program makes it."""
    while True:
        try:
            return get(engine, container, path)
        except ApiError as error:
            assert error.http_status == 404


def test_a_process_that_swaps_links_gets_nothing_out_of_it(engine, tmp_path):
    """The target is a folder, then a link to the host's (as seen from inside), while copies go in and out."""
    marker = f"cortest-{os.getpid()}-race"
    secret = tmp_path / "secret"
    secret.write_text("the host's")
    swap = (
        f"mkdir -p /t/a {tmp_path}; echo inside >{secret}; i=0; while [ $i -lt 1500 ]; do mv /t/a /t/b; ln -s ../../../../../../.. /t/a; rm /t/a;"
        f" ln -s {tmp_path} /t/a; rm /t/a; mv /t/b /t/a; i=$((i+1)); done"
    )
    container = engine.run("sh", "-c", swap)
    rounds = 0
    while engine.client.get(f"/containers/{container}/json")["State"]["Running"]:
        rounds += 1
        for call in (lambda: put(engine, container, "/t/a", tar_of({marker: b"", "x/y": b""}, z="/")), lambda: _check(get(engine, container, f"/t/a{secret}"))):
            try:
                call()
            except ApiError as error:
                assert error.http_status in (400, 404, 500), error.message
    assert rounds > 3
    assert os.listdir(tmp_path) == ["secret"]
    assert secret.read_text() == "the host's"
    assert not any(os.path.lexists(f"{folder}/{marker}") for folder in ("/", "/t", "/t/a", "/tmp", engine.data_root))


def _check(data: bytes) -> None:
    assert b"the host's" not in data


def test_the_hosts_processes_are_no_way_out(engine):
    container = engine.run("sh", "-c", "ln -s /proc/1/root /out; sleep 600", PidMode="host")
    wait_for(engine, container, "/out")
    for path in ("/proc/1/root/etc/passwd", "/out/etc/passwd", f"/proc/{os.getpid()}/cwd/"):
        assert refusal(get, engine, container, path)[0] == 404
    assert refusal(put, engine, container, "/out/tmp", tar_of({f"cortest-{os.getpid()}-out": b""}))[0] == 404


# --- docker cp and export
@pytest.fixture
def docker(engine, docker_cli):
    def run(*arguments: str, **options: object) -> str:
        return engine.docker(docker_cli, *arguments, **options).stdout

    return run


def test_docker_cp_with_its_flags(engine, docker, docker_cli, tmp_path):
    engine.run("sh", "-c", "mkdir /d; echo 1 >/d/f; ln -s /d/f /l; ln -s /d /ld; sleep 600", name="cp")
    wait_for(engine, "cp", "/ld")
    (tmp_path / "in").write_text("in")
    os.chown(tmp_path / "in", 11, 12)
    docker("cp", "-a", str(tmp_path / "in"), "cp:/d/kept")
    docker("cp", str(tmp_path / "in"), "cp:/ld/through")
    assert docker("exec", "cp", "stat", "-c", "%u:%g", "/d/kept").strip() == "11:12"
    assert docker("exec", "cp", "cat", "/d/through").strip() == "in"
    docker("cp", "cp:/l", str(tmp_path / "link"))
    docker("cp", "-L", "cp:/l", str(tmp_path / "followed"))
    assert os.readlink(tmp_path / "link") == "/d/f"
    assert (tmp_path / "followed").read_text() == "1\n"
    docker("cp", "cp:/d/.", str(tmp_path / "content"))
    assert sorted(os.listdir(tmp_path / "content")) == ["f", "kept", "through"]
    (tmp_path / "x.tar").write_bytes(tar_of({"from/stdin": b"y"}))
    with open(tmp_path / "x.tar", "rb") as file:
        subprocess.run([docker_cli, "cp", "-", "cp:/d"], stdin=file, env=engine.environment, check=True, timeout=60)
    assert docker("exec", "cp", "cat", "/d/from/stdin") == "y"
    failed = engine.docker(docker_cli, "cp", str(tmp_path / "in"), "cp:/nosuch/x", check=False)
    assert failed.returncode == 1


@pytest.mark.parametrize("running", [True, False])
def test_docker_export_and_import(engine, docker, tmp_path, running):
    container = engine.run("sh", "-c", "echo 1 >/file; ln /file /hard; chown 3:4 /file; rm /etc/group; mkdir /gone; echo done; sleep 600", Binds=["/tmp:/bound"], name="ex")
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as follow:
        follow.read(9)
    if not running:
        engine.client.post(f"/containers/{container}/kill")
        engine.client.post(f"/containers/{container}/wait")
    docker("export", "-o", str(tmp_path / "x.tar"), "ex")
    with tarfile.open(tmp_path / "x.tar") as archive:
        names = archive.getnames()
        assert {".dockerenv", "bin/busybox", "file", "hard", "dev/console", "etc/mtab", "proc", "bound"} <= set(names)
        assert not [name for name in names if name == "etc/group" or name.startswith(("proc/", "sys/", "bound/", "dev/pts/"))]
        assert archive.getmember("hard").linkname == "file"
        assert archive.getmember("etc/hosts").size == 0
    docker("import", "-c", 'CMD ["cat", "/hard"]', "-m", "back", str(tmp_path / "x.tar"), "reimported")
    try:
        assert docker("run", "--rm", "reimported") == "1\n"
        assert docker("run", "--rm", "reimported", "stat", "-c", "%u:%g %h", "/file").strip() == "3:4 2"
    finally:
        engine.remove_all()
        engine.client.delete("/images/reimported")
