"""Builds that are left, killed or attacked: nothing half-made stays, nothing outside is touched, the cache holds."""

from __future__ import annotations

import io
import os
import socket
import subprocess
import sys
import tarfile
import threading

import pytest

from corten.api.client import ApiError
from tests.builds import Link, build, context
from tests.engines import RunningEngine, eventually

BIN = os.path.dirname(sys.executable)


def processes_with(word: str) -> list[int]:
    found = []
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read()
        except OSError:
            continue
        if word.encode() in command and b"pytest" not in command:
            found.append(int(pid))
    return found


def begin(engine, files) -> socket.socket:
    """A build whose client is in the test's hand."""
    body = context(files)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(engine.socket)
    sock.sendall(f"POST /build HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    return sock


def leftovers(engine) -> list[str]:
    folders = (f"{engine.data_root}/containers", f"{engine.data_root}/tmp", f"{engine.exec_root}/containers")
    return [f"{folder}/{name}" for folder in folders for name in os.listdir(folder)]


@pytest.fixture(autouse=True)
def clean(engine):
    yield
    engine.client.post("/build/prune", all=1)
    eventually(lambda: not leftovers(engine))


def test_a_client_that_leaves_ends_its_build(engine):
    files = {"Dockerfile": "FROM busybox\nRUN echo first\nRUN echo 4711-marker; sleep 4711\n"}
    sock = begin(engine, files)
    eventually(lambda: processes_with("4711"))
    sock.close()
    eventually(lambda: not processes_with("4711") and not leftovers(engine))
    assert build(engine, {"Dockerfile": "FROM busybox\nRUN echo first\n"}).cached == 1


def test_a_build_is_cancelled_by_its_id(engine):
    results = []
    files = {"Dockerfile": "FROM busybox\nRUN sleep 4715\n"}
    waiting = threading.Thread(target=lambda: results.append(build(engine, files, buildid="mine")))
    waiting.start()
    eventually(lambda: processes_with("4715"))
    engine.client.post("/build/cancel", id="other")
    engine.client.post("/build/cancel", id="mine")
    waiting.join()
    assert results[0].error == "the build was cancelled"
    assert not processes_with("4715")
    with pytest.raises(ApiError, match="build ID not provided"):
        engine.client.post("/build/cancel")


def test_a_step_that_two_want_goes_on_for_the_one_that_stays(engine):
    files = {"Dockerfile": "FROM busybox\nRUN echo one-$(cat /proc/sys/kernel/random/uuid); sleep 5.4714\n"}
    sock = begin(engine, files)
    eventually(lambda: processes_with("5.4714"))
    results = []
    other = threading.Thread(target=lambda: results.append(build(engine, files)))
    other.start()
    sock.close()
    other.join()
    assert results[0].image
    assert "one-" in results[0].text


def test_an_engine_killed_in_the_middle_of_a_build(own_engine):
    engine = own_engine
    files = {"Dockerfile": "FROM busybox\nRUN echo kept > /kept\nCOPY big /big\nRUN sleep 4712\n", "big": bytes(2_000_000)}
    sock = begin(engine, files)
    eventually(lambda: processes_with("4712"))
    engine.kill()
    sock.close()
    engine.start()
    eventually(lambda: not processes_with("4712"))
    eventually(lambda: not leftovers(engine))
    assert len(os.listdir(f"{engine.data_root}/layers")) == 3
    assert engine.client.get("/containers/json", all=1) == []
    again = build(engine, {**files, "Dockerfile": files["Dockerfile"].replace("sleep 4712", "cat /kept")})
    assert again.cached == 2
    assert "kept\n" in again.text
    assert os.listdir(f"{engine.data_root}/cache-mounts") == []


def test_a_context_that_leads_out(engine, tmp_path):
    for name in ("../escape", "a/../../escape"):
        with pytest.raises(ApiError, match="leads out"):
            build(engine, {"Dockerfile": "FROM busybox\n", name: "x"})
    files = {"Dockerfile": "FROM busybox\nCOPY out/passwd /x\n", "out": Link("/etc")}
    assert "out/passwd: file does not exist" in build(engine, files).error
    files = {"Dockerfile": "FROM busybox\nCOPY up/etc/passwd /x\n", "up": Link("../../../..")}
    assert "file does not exist" in build(engine, files).error


def test_targets_that_lead_out_stay_inside(engine, tmp_path):
    canary = tmp_path / "canary"
    files = {"Dockerfile": f"FROM busybox\nRUN mkdir -p {tmp_path} && ln -s ../../../../../../../../.. /up && ln -s {canary} /direct\nCOPY f /up{canary}\nCOPY f /direct\nRUN cat {canary}\n", "f": "inside\n"}
    assert "inside\n" in build(engine, files).text
    assert not canary.exists()


def test_a_hostile_archive(engine, tmp_path):
    canary = tmp_path / "canary"
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path)
        archive.addfile(link)
        entry = tarfile.TarInfo("link/canary")
        entry.size = 1
        archive.addfile(entry, io.BytesIO(b"x"))
    files = {"Dockerfile": "FROM busybox\nADD x.tar /in/\n", "x.tar": packed.getvalue()}
    build(engine, files)
    assert not canary.exists()


def test_a_body_that_is_no_tar(engine):
    for body in (b"FROM busybox\n" * 100, b"\x1f\x8b\x08broken", context({"Dockerfile": "FROM busybox\n", "a": "x" * 5000})[:3000]):
        with pytest.raises(ApiError) as refused:
            build(engine, body)
        assert refused.value.http_status in (400, 500)


def test_special_files_in_a_context(engine):
    entry = tarfile.TarInfo("pipe")
    entry.type = tarfile.FIFOTYPE
    hard = tarfile.TarInfo("hard")
    hard.type, hard.linkname = tarfile.LNKTYPE, "file"
    files = {"Dockerfile": "FROM busybox\nCOPY . /x\nRUN test -p /x/pipe && cat /x/hard\n", "file": "linked\n", "pipe": (entry, b""), "hard": (hard, b"")}
    assert "linked\n" in build(engine, files).text


@pytest.mark.parametrize("source, hint", [
    ("fil.txt", "(did you mean file.txt?)"), ("dri/sub/x", "(did you mean dir?)"), ("dir/sbu/x", "(did you mean sub?)"), ("dir/sub/y", "(did you mean x?)"),
    ("secret.env", "(the ignore file excludes it)"), ("dir/gone.env", "(the ignore file excludes it)"),
])  # fmt: skip
def test_a_missing_file_is_told_with_what_may_have_been_meant(engine, docker_cli, tmp_path, source, hint):
    """From every client: those that read the ignore file themselves do not even send what it excludes. Nothing stays of it."""
    for name in ("file.txt", "dir/sub/x", "secret.env"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / ".dockerignore").write_text("**/*.env\n")
    (tmp_path / "Dockerfile").write_text(f"FROM busybox\nCOPY {source} /x\n")
    before = sorted(os.listdir(f"{engine.data_root}/layers")), sorted(os.listdir(f"{engine.data_root}/blobs/sha256"))
    for command in ([f"{BIN}/corten", "-H", f"unix://{engine.socket}", "build", str(tmp_path)], [docker_cli, "build", str(tmp_path)]):
        done = subprocess.run(command, env=engine.environment | {"DOCKER_BUILDKIT": "0"}, capture_output=True, text=True, check=False)
        assert done.returncode == 1
        assert f"stat {source}: file does not exist {hint}" in done.stderr
    eventually(lambda: not leftovers(engine))
    assert (sorted(os.listdir(f"{engine.data_root}/layers")), sorted(os.listdir(f"{engine.data_root}/blobs/sha256"))) == before


def test_names_that_are_odd(engine):
    odd = ["sp ace", "q'uote", 'dou"ble', "uni-é-💥", "new\nline", "-dash", "x" * 200, "star*", "br[acket"]
    files = {"Dockerfile": "FROM busybox\nCOPY odd /odd\nRUN ls /odd | wc -l\n", **{f"odd/{name}": name for name in odd}}
    first = build(engine, files)
    assert f"{len(odd)}\n" in first.text
    assert build(engine, files).cached == 2


def test_what_the_settings_allow_and_keep(engine, assets, tmp_path):
    asks = {"Dockerfile": "FROM busybox\nRUN --security=insecure grep CapEff /proc/self/status\n"}
    assert "security.insecure is not allowed" in build(engine, asks).error
    config = tmp_path / "daemon.json"
    config.write_text('{"builder": {"gc": {"defaultKeepStorage": 500}, "entitlements": {"security-insecure": true, "network-host": false}}}')
    other = RunningEngine("g", "--config-file", str(config))
    try:
        other.load(f"{assets}/images/busybox.tar")
        assert "CapEff:\t00000000a80425fb" not in build(other, asks).text
        assert "network.host is not allowed" in build(other, {"Dockerfile": "FROM busybox\nRUN --network=host true\n"}).error
        files = {"Dockerfile": "FROM busybox AS one\nRUN head -c 1000 /dev/zero > /one\nFROM busybox\nCOPY --from=one /bin/sh /s\n"}
        build(other, files, t="kept:1")
        eventually(lambda: not any(row["Size"] == 1000 for row in other.client.get("/system/df")["BuildCache"]))
        assert any(row["Shared"] for row in other.client.get("/system/df")["BuildCache"])
        assert build(other, files).cached == 1
    finally:
        other.stop()
