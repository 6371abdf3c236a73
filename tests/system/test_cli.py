"""The corten command line, `corten hello`, cortend's flags, and the engine over TCP."""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

import pytest

from corten.api.client import own_engine
from corten.cli.credentials import registry_headers
from tests.engines import PATIENCE, RunningEngine
from tests.system.conftest import free_port, need

BIN = os.path.dirname(sys.executable)


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def corten(engine, *arguments: str, code: int = 0, **options: object) -> subprocess.CompletedProcess:
    done = subprocess.run([f"{BIN}/corten", "-H", f"unix://{engine.socket}", *arguments], capture_output=True, text=True, timeout=60, check=False, **options)
    assert done.returncode == code, done.stderr
    return done


def test_run_ps_exec_logs_stop_rm(engine):
    assert corten(engine, "run", "--rm", "-i", "busybox", "cat", input="typed\n").stdout == "typed\n"
    assert corten(engine, "run", "--rm", "busybox", "sh", "-c", "exit 5", code=5).stdout == ""
    identifier = corten(engine, "run", "-d", "--name", "box", "-p", "0:80", "-e", "A=b", "-m", "64m", "busybox", "sh", "-c", "echo $A; exec sleep 600").stdout.strip()
    shown = corten(engine, "ps").stdout
    assert identifier[:12] in shown
    assert "->80/tcp" in shown
    assert corten(engine, "exec", "box", "sh", "-c", "echo in; exit 3", code=3).stdout == "in\n"
    assert corten(engine, "logs", "box").stdout == "b\n"
    assert corten(engine, "stop", "-t", "0", "box").stdout == "box\n"
    assert corten(engine, "ps", "-q").stdout == ""
    assert corten(engine, "rm", "box").stdout == "box\n"
    assert "No such container: box" in corten(engine, "rm", "box", code=1).stderr
    assert corten(engine, "run", "busybox", "nosuch", code=127).stdout == ""
    assert "No such container" not in corten(engine, "daemon", "status").stdout


def test_images_pull_rmi_version(engine, registry):
    assert corten(engine, "pull", "-q", f"{registry}/busybox").stdout.strip() == f"{registry}/busybox"
    assert f"{registry}/busybox" in corten(engine, "images").stdout
    assert "Untagged" in corten(engine, "rmi", f"{registry}/busybox").stdout
    assert "Docker API 1.51" in corten(engine, "version").stdout


def test_push_and_pull_as_whom_docker_login_made_us_known(engine, fake, tmp_path):
    registry = fake(token=True)
    environment = os.environ | {"DOCKER_CONFIG": str(tmp_path)}
    corten(engine, "pull", f"{registry.address}/app", code=1, env=environment)
    (tmp_path / "config.json").write_text(json.dumps({"auths": {registry.address: {"auth": base64.b64encode(b"user:right").decode()}}}))
    engine.client.post("/images/busybox/tag", repo=f"{registry.address}/app", tag="latest")
    assert ": Pushed" in corten(engine, "push", f"{registry.address}/app", env=environment).stderr
    assert corten(engine, "push", "-q", "-a", f"{registry.address}/app", env=environment).stderr == ""
    assert "Status: Image is up to date" in corten(engine, "pull", f"{registry.address}/app", env=environment).stderr
    assert "tag can't be used with --all-tags" in corten(engine, "push", "-a", f"{registry.address}/app:1", code=2, env=environment).stderr
    engine.client.delete(f"/images/{registry.address}/app")


def test_hello_starts_and_stops_an_engine_of_its_own():
    folder = tempfile.mkdtemp(prefix=f"cortest-hello-{os.getpid()}-")
    try:
        done = subprocess.run([f"{BIN}/corten", "--data-root", folder, "hello"], capture_output=True, text=True, timeout=60 * PATIENCE, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith("Hello from Corten")
        assert "Its process id is 1:" in done.stdout
        assert re.search(r"its network links: +(eth0 lo|lo eth0)\n", done.stdout)
        assert re.search(r"It took [\d.]+ ms", done.stdout)
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(os.path.dirname(own_engine(folder)[0]), ignore_errors=True)


@pytest.mark.parametrize("architecture", ["amd64", "arm64"])
def test_assembled_programs_run(architecture, tmp_path):
    from corten.engine.hello import hello_program
    from corten.runtime.reaper import reaper_program

    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    emulator = [] if architecture == machine else [need({"amd64": "qemu-x86_64", "arm64": "qemu-aarch64"}[architecture])]
    for name, program in (("hello", hello_program(architecture)), ("init", reaper_program(architecture))):
        (tmp_path / name).write_bytes(program)
        (tmp_path / name).chmod(0o755)
    shown = subprocess.run([*emulator, str(tmp_path / "hello")], capture_output=True, text=True, check=True, timeout=30).stdout
    assert f"its host name:       {os.uname().nodename}\n" in shown
    links = re.search(r"network links: (.*)\n", shown)[1].split()
    assert sorted(links) == sorted(os.listdir("/sys/class/net"))
    for script, code in (("exit 7", 7), ("kill -9 $$", 137), ("(sleep 0.2; exit 1) & exit 0", 0)):
        done = subprocess.run([*emulator, str(tmp_path / "init"), "/bin/sh", "sh", "-c", script], timeout=30, check=False, stdin=subprocess.DEVNULL)
        assert done.returncode == code


@pytest.mark.parametrize(
    ("arguments", "text"),
    [(["--no-such-flag"], "No such option"), (["--storage-driver", "zfs"], "storage driver 'zfs' is not supported"), (["-H", "tcp://127.0.0.1:1"], "without TLS"),
     (["--exec-opt", "native.cgroupdriver=systemd"], "is not supported"), (["--config-file", "/nonexistent"], "no such file")],
)  # fmt: skip
def test_cortend_refuses_what_it_cannot_do(arguments, text):
    done = subprocess.run([f"{BIN}/cortend", *arguments], capture_output=True, text=True, timeout=30, check=False)
    assert done.returncode in (1, 2)
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_over_tcp():
    port = free_port()
    engine = RunningEngine("t", "-H", f"tcp://127.0.0.1:{port}", "--tls=false")
    try:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        connection.request("GET", "/v1.41/_ping")
        answer = connection.getresponse()
        assert answer.read() == b"OK"
        assert answer.headers["Api-Version"] == "1.51"
        assert answer.headers["Builder-Version"] == "1"
        connection.close()
    finally:
        engine.stop()


def certificates(folder) -> None:
    """An authority, a server's certificate for 127.0.0.1, and a client's."""
    openssl = need("openssl")

    def run(*arguments: str) -> None:
        subprocess.run([openssl, *arguments], check=True, capture_output=True, cwd=folder)

    run("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", "ca-key.pem", "-out", "ca.pem", "-days", "2", "-subj", "/CN=authority")
    for name, extension in (("server", "subjectAltName=IP:127.0.0.1"), ("client", "extendedKeyUsage=clientAuth")):
        (folder / "ext").write_text(extension)
        run("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", f"{name}-key.pem", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        run("x509", "-req", "-in", f"{name}.csr", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", "ext")
    for name in ("cert", "key"):
        shutil.copy(folder / ("client.pem" if name == "cert" else "client-key.pem"), folder / f"{name}.pem")


def test_over_tls_with_certificates(docker_cli, assets, tmp_path):
    certificates(tmp_path)
    port = free_port()
    engine = RunningEngine("s", "-H", f"tcp://127.0.0.1:{port}", "--tlsverify", "--tlscacert", f"{tmp_path}/ca.pem",
                           "--tlscert", f"{tmp_path}/server.pem", "--tlskey", f"{tmp_path}/server-key.pem")  # fmt: skip
    try:
        engine.load(f"{assets}/images/busybox.tar")
        environment = os.environ | {"DOCKER_HOST": f"tcp://127.0.0.1:{port}", "DOCKER_TLS_VERIFY": "1", "DOCKER_CERT_PATH": str(tmp_path)}
        text = "".join(f"line {number}\n" for number in range(20000))
        done = subprocess.run([docker_cli, "run", "--rm", "-i", "busybox", "cat"], input=text, env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout == text) == (0, True), done.stderr
        container = engine.run("sleep", "60")
        done = subprocess.run([docker_cli, "exec", container, "sh", "-c", "echo in; exit 3"], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stdout) == (3, "in\n"), done.stderr
        stranger = subprocess.run([docker_cli, "--tls", "--tlscacert", f"{tmp_path}/ca.pem", "-H", f"tcp://127.0.0.1:{port}", "ps"], env=os.environ | {"DOCKER_CERT_PATH": "/nonexistent"},
                                  capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
        assert stranger.returncode != 0
    finally:
        engine.stop()


def test_many_at_once(engine):
    before = engine.monitor_log()
    import threading

    failures: list[BaseException] = []

    def life() -> None:
        try:
            assert engine.output("echo", "x") == (0, "x\n")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=life) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert engine.monitor_log() == before


def test_volumes(engine, registry, tmp_path):
    path = engine.client.post("/volumes/create", {"Name": "first"})["Mountpoint"]
    with open(f"{path}/file", "w", encoding="utf-8") as file:
        file.write("content")
    try:
        assert corten(engine, "volume", "rename", "first", "data").stdout == "data\n"
        assert corten(engine, "volume", "clone", "data", "copy").stdout == "copy\n"
        snapshots = [corten(engine, "volume", "snapshot", "data", "--keep", "1").stdout.strip() for _ in range(2)]
        corten(engine, "volume", "save", "data", "-o", str(tmp_path / "tar"))
        with open(tmp_path / "tar", "rb") as tar:
            assert corten(engine, "volume", "load", "loaded", stdin=tar).stdout == "loaded\n"
        assert corten(engine, "volume", "push", "data", f"{registry}/cli/data:1").stdout.startswith(f"{registry}/cli/data:1@sha256:")
        assert corten(engine, "volume", "pull", f"{registry}/cli/data:1", "pulled").stdout == "pulled\n"
        corten(engine, "run", "--rm", "--name", "user", "-v", "data:/data", "busybox", "true")
        assert re.search(r"user +\w+ +/data +rw .*\n\nMEASURED", corten(engine, "volume", "history", "data").stdout)
        assert "there is a volume of that name" in corten(engine, "volume", "clone", "data", "copy", code=1).stderr
        volumes = {volume["Name"]: volume["Mountpoint"] for volume in engine.client.get("/volumes")["Volumes"]}
        assert {"data", "copy", "loaded", "pulled", snapshots[1]} <= set(volumes)
        assert not {"first", snapshots[0]} & set(volumes)
        for name in ("data", "copy", "loaded", "pulled", snapshots[1]):
            with open(f"{volumes[name]}/file", encoding="utf-8") as file:
                assert file.read() == "content"
    finally:
        for volume in engine.client.get("/volumes")["Volumes"]:
            engine.client.delete(f"/volumes/{volume['Name']}")


def test_what_docker_login_wrote_is_sent(monkeypatch, tmp_path):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"auths": {"127.0.0.1:5": {"auth": base64.b64encode(b"user:pass:word").decode()}}}))
    sent = json.loads(base64.urlsafe_b64decode(registry_headers("127.0.0.1:5/x")["X-Registry-Auth"]))
    assert (sent["username"], sent["password"]) == ("user", "pass:word")
    assert registry_headers("127.0.0.1:6/x") == {}
