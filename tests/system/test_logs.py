"""Logs of real containers: drivers, `docker logs` with its six flags, followers, rotation, a full disk."""

from __future__ import annotations

import glob
import json
import os
import re
import socket
import subprocess
import threading
import time
import zlib

import docker as docker_sdk
import pytest

from corten.api.client import ApiError, demultiplex
from tests.engines import RunningEngine

LINES = "i=0; while [ $i -lt {count} ]; do echo line $i; i=$((i+1)); done"


def log_config(driver: str, **options: str) -> dict:
    return {"LogConfig": {"Type": driver, "Config": {key.replace("_", "-"): value for key, value in options.items()}}}


def finished(engine, *command: str, **host: object) -> str:
    container = engine.run(*command, **host)
    engine.client.post(f"/containers/{container}/wait")
    return container


def logs(engine, container: str, **query: object) -> bytes:
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "stderr": 1, **query}) as response:
        return b"".join(data for _, data in demultiplex(response.read))


def follow(engine, container: str, **query: object) -> tuple[threading.Thread, list[bytes]]:
    """Reads in a thread what comes; ends with the stream."""
    found: list[bytes] = []
    response = engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "stderr": 1, "follow": 1, **query})

    def read() -> None:
        with response:
            found.extend(data for _, data in demultiplex(response.read))

    thread = threading.Thread(target=read)
    thread.start()
    return thread, found


@pytest.fixture
def docker(engine, docker_cli):
    return lambda *arguments, **options: engine.docker(docker_cli, *arguments, **options)


# --- docker logs
def test_the_six_flags(engine, docker):
    container = engine.run("sh", "-c", "echo one; echo two >&2; sleep 0.6; echo three; printf four", name="six", **log_config("json-file", labels="l", tag="{{.Name}}"))
    try:
        followed = docker("logs", "-f", "six")
        assert (followed.stdout, followed.stderr) == ("one\nthree\nfour", "two\n")
        assert docker("logs", "--tail", "2", "six").stdout == "three\nfour"
        assert docker("logs", "-n", "0", "six").stdout == ""
        stamped = docker("logs", "-t", "six").stdout.splitlines()
        assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (one|three|four)", line) for line in stamped)
        moment = stamped[1].split()[0]
        assert docker("logs", "--since", moment, "six").stdout == "three\nfour"
        assert docker("logs", "--until", stamped[0].split()[0], "six").stdout == "one\n"
        assert docker("logs", "--since", "1h", "--until", "2099-01-01T00:00:00", "six").stdout == "one\nthree\nfour"
        assert docker("logs", "--details", "six").stdout == "tag=six one\ntag=six three\ntag=six four"
    finally:
        engine.remove(container)


def test_a_log_file_is_docker_s(engine):
    host = log_config("json-file", labels="a,none", labels_regex="^x", env="E", tag="{{.ImageName}}/{{.ID}}")
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "printf 'a\"\\\\\\377\\n'; head -c 20000 /dev/zero | tr '\\0' z; echo"], "HostConfig": host,
            "Labels": {"a": "1", "x.y": "2", "b": "3"}, "Env": ["E=5"]}  # fmt: skip
    container = engine.client.post("/containers/create", body)["Id"]
    engine.client.post(f"/containers/{container}/start")
    engine.client.post(f"/containers/{container}/wait")
    with open(engine.client.get(f"/containers/{container}/json")["LogPath"], encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    engine.remove(container)
    assert [record["log"] for record in records] == ['a"\\\ufffd\n', "z" * 16384, "z" * 3616 + "\n"]
    assert {record["stream"] for record in records} == {"stdout"}
    assert all(record["attrs"] == {"a": "1", "x.y": "2", "E": "5", "tag": f"busybox/{container[:12]}"} for record in records)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z", record["time"]) for record in records)


@pytest.mark.parametrize("driver", ["json-file", "local"])
def test_compressed_rotated_files_are_read(engine, driver):
    container = finished(engine, "sh", "-c", LINES.format(count=3000), **log_config(driver, max_size="30k", max_file="4", compress="true"))
    folder = f"{engine.data_root}/containers/{container}" + ("/local-logs" if driver == "local" else "")
    end = time.monotonic() + 10
    while sum(name.endswith(".gz") for name in os.listdir(folder)) < 3:
        assert time.monotonic() < end
        time.sleep(0.02)
    everything = logs(engine, container).splitlines()
    assert everything == [b"line %d" % number for number in range(3000 - len(everything), 3000)]
    assert logs(engine, container, tail=len(everything) - 5).splitlines() == everything[5:]
    engine.remove(container)


def test_the_local_driver_keeps_bytes(engine):
    container = finished(engine, "sh", "-c", "head -c 3000 /dev/urandom > /x; cat /x; md5sum /x >&2", **log_config("local"))
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "stderr": 1}) as response:
        frames = list(demultiplex(response.read))
    import hashlib

    written, summed = (b"".join(data for stream, data in frames if stream == number) for number in (1, 2))
    assert summed.split()[0].decode() == hashlib.md5(written).hexdigest()
    assert engine.client.get(f"/containers/{container}/json")["LogPath"] == ""
    engine.remove(container)


def test_a_follower_crosses_rotations(engine):
    container = engine.client.post("/containers/create", {
        "Image": "busybox", "Cmd": ["sh", "-c", f"for n in 1 2 3 4 5 6; do {LINES.format(count=400)}; sleep 0.1; done"],
        "HostConfig": log_config("json-file", max_size="20k", max_file="20"),
    })["Id"]  # fmt: skip
    engine.client.post(f"/containers/{container}/start")
    thread, found = follow(engine, container)
    thread.join(30)
    assert b"".join(found).split(b"\n")[:-1] == [b"line %d" % number for number in range(400)] * 6
    engine.remove(container)


def test_followers_end_when_the_container_is_removed(engine):
    container = engine.run("sh", "-c", "echo here; sleep 600")
    thread, found = follow(engine, container)
    stopped, _ = follow(engine, container, tail=0)
    end = time.monotonic() + 5
    while not found and time.monotonic() < end and thread.is_alive():
        if logs(engine, container):
            break
    engine.remove(container)
    thread.join(10)
    stopped.join(10)
    assert not thread.is_alive()
    assert not stopped.is_alive()
    assert found == [b"here\n"]


def test_a_full_disk_loses_lines_and_nothing_else(assets, tmp_path):
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "none", str(tmp_path)], check=True)
    os.environ["CORTEN_TEST_ROOT"] = str(tmp_path)
    try:
        engine = RunningEngine("f")
        try:
            engine.load(f"{assets}/images/busybox.tar")
            container = engine.run("sh", "-c", "while [ ! -e /tmp/go ]; do sleep 0.02; done; yes 0123456789012345678901234567890123456789 | head -c 60000000; echo end >&2; sleep 600",
                                   **log_config("json-file", max_size="1g"))  # fmt: skip
            run = f"/containers/{container}/exec"
            exec_id = engine.client.post(run, {"Cmd": ["touch", "/tmp/go"]})["Id"]
            with engine.client.hijack(f"/exec/{exec_id}/start", {}) as sock:
                sock.recv(1)
            with engine.client.hijack(f"/containers/{container}/attach", stream=1, stderr=1, logs=0) as sock:
                sock.settimeout(60)
                assert b"end" in sock.recv(100)
            assert os.statvfs(tmp_path).f_bavail < 100
            with open(engine.client.get(f"/containers/{container}/json")["LogPath"], "rb") as file:
                for line in file:
                    json.loads(line)
            assert "output is lost until there is room" in engine.monitor_log()
            assert engine.client.get(f"/containers/{container}/json")["State"]["Running"]
        finally:
            for name in glob.glob(f"{tmp_path}/*/containers/*/*-json.log"):
                os.truncate(name, 0)  # the engine's own database is on this disk, too
            engine.stop()
    finally:
        del os.environ["CORTEN_TEST_ROOT"]
        end = time.monotonic() + 5
        while subprocess.run(["umount", str(tmp_path)], check=False, capture_output=True).returncode:
            assert time.monotonic() < end, "the file system stays in use"
            time.sleep(0.05)


# --- drivers that send logs elsewhere
def test_syslog_and_the_cache(engine, docker):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.settimeout(10)
        address = f"udp://127.0.0.1:{server.getsockname()[1]}"
        docker("run", "-d", "--name", "sl", "--log-driver", "syslog", "--log-opt", f"syslog-address={address}", "--log-opt", "tag={{.Name}}",
                      "--log-opt", "syslog-format=rfc5424micro", "busybox", "sh", "-c", "printf 'hello\\n\\377\\n'")  # fmt: skip
        assert re.fullmatch(rb"<30>1 \S+Z \S+ sl \d+ sl - hello\n", server.recv(1000))
        assert server.recv(1000).endswith(b" - \xff\n")
    assert logs(engine, "sl") == b"hello\n\xff\n"
    assert re.fullmatch(rb"\S+Z  hello\n\S+Z  \xff\n", logs(engine, "sl", details=1, timestamps=1))
    docker("rm", "sl")


def test_without_the_cache_logs_cannot_be_read(engine, docker):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        address = f"udp://127.0.0.1:{server.getsockname()[1]}"
        docker("run", "--name", "nc", "--log-driver", "gelf", "--log-opt", f"gelf-address={address}", "--log-opt", "cache-disabled=true", "busybox", "echo", "hello")
        server.settimeout(10)
        message = json.loads(zlib.decompress(server.recv(4000), 31))
        assert (message["short_message"], message["_container_name"], message["_command"]) == ("hello", "nc", "echo hello")
    refused = docker("logs", "nc", check=False)
    assert "configured logging driver does not support reading" in refused.stderr
    docker("rm", "nc")


def test_fluentd_may_come_later(engine, docker):
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = server.getsockname()
        server.close()
        refused = docker("run", "--name", "fl0", "--log-driver", "fluentd", "--log-opt", f"fluentd-address=127.0.0.1:{address[1]}", "busybox", "true", check=False)
        assert f"failed to initialize logging driver: dial tcp 127.0.0.1:{address[1]}: connect: connection refused" in refused.stderr
        docker("rm", "fl0")
        docker("run", "-d", "--name", "fl", "--log-driver", "fluentd", "--log-opt", f"fluentd-address=127.0.0.1:{address[1]}", "--log-opt", "fluentd-async=true",
               "--log-opt", "fluentd-retry-wait=100ms", "busybox", "sh", "-c", "echo hello; sleep 600")  # fmt: skip
        with socket.create_server(address) as late:
            late.settimeout(15)
            connection, _ = late.accept()
            with connection:
                connection.settimeout(10)
                assert b"hello" in connection.recv(4096)
        docker("rm", "-f", "fl")


@pytest.mark.parametrize(
    ("host", "status", "text"),
    [
        (log_config("nope"), 400, 'error looking up logging plugin nope: plugin "nope" not found'),
        (log_config("json-file", foo="1"), 400, "unknown log opt 'foo' for json-file log driver"),
        (log_config("json-file", mode="foo"), 400, "logger: logging mode not supported: foo"),
        (log_config("gelf"), 400, "gelf-address is a required parameter"),
        (log_config("fluentd", fluentd_write_timeout="-1s"), 400, "invalid value for fluentd-write-timeout: value must be a duration that is non-negative"),
    ],
)
def test_what_is_refused_at_creation(engine, host, status, text):
    with pytest.raises(ApiError) as refused:
        engine.run("true", **host)
    assert refused.value.http_status == status
    assert text in refused.value.message


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (log_config("json-file", max_size="abc"), "invalid size: 'abc'"),
        (log_config("json-file", tag="{{.Foo}}"), "template: log-tag:1:2: executing \"log-tag\" at <.Foo>: can't evaluate field Foo in type *logger.Info"),
        (log_config("syslog", syslog_address="tcp+tls://127.0.0.1:1", syslog_tls_ca_cert="/nope"), 'could not read CA certificate "/nope": open /nope: no such file or directory'),
        (log_config("syslog", syslog_address="tcp://127.0.0.1:1"), "dial tcp 127.0.0.1:1: connect: connection refused"),
        (log_config("gelf", gelf_address="tcp://127.0.0.1:1"), "gelf: cannot connect to GELF endpoint: 127.0.0.1:1 dial tcp 127.0.0.1:1: connect: connection refused"),
    ],
)
def test_what_is_refused_at_the_start(engine, host, text):
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": host})["Id"]
    with pytest.raises(ApiError) as refused:
        engine.client.post(f"/containers/{container}/start")
    assert (refused.value.http_status, refused.value.message) == (500, f"failed to create task for container: failed to initialize logging driver: {text}")
    state = engine.client.get(f"/containers/{container}/json")["State"]
    assert (state["Status"], state["ExitCode"], state["Error"]) == ("created", 128, refused.value.message)
    engine.remove(container)


@pytest.mark.skipif(os.path.exists("/run/systemd/journal/socket"), reason="there is a journal here")
def test_journald_needs_a_journal(engine):
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": log_config("journald")})["Id"]
    with pytest.raises(ApiError, match="journald is not enabled on this host"):
        engine.client.post(f"/containers/{container}/start")
    engine.remove(container)


def test_the_engine_s_defaults(assets):
    engine = RunningEngine("g", "--log-driver", "local", "--log-opt", "max-size=5m", "--log-opt", "cache-max-file=2")
    try:
        engine.load(f"{assets}/images/busybox.tar")
        assert engine.client.get("/info")["LoggingDriver"] == "local"
        container = finished(engine, "echo", "hello")
        shown = engine.client.get(f"/containers/{container}/json")["HostConfig"]["LogConfig"]
        assert shown == {"Type": "local", "Config": {"max-size": "5m", "cache-max-file": "2"}}
        assert logs(engine, container) == b"hello\n"
        other = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": log_config("json-file")})["Id"]
        assert engine.client.get(f"/containers/{other}/json")["HostConfig"]["LogConfig"] == {"Type": "json-file", "Config": {"cache-max-file": "2"}}
        refused = subprocess.run([engine.process.args[0], "--data-root", engine.data_root, "--log-opt", "foo=1"], capture_output=True, text=True, timeout=30, check=False)
        assert refused.returncode == 1
        assert "failed to set log opts: unknown log opt 'foo' for json-file log driver" in refused.stderr
    finally:
        engine.stop()


def test_docker_py_reads_logs(engine):
    sdk = docker_sdk.DockerClient(base_url=f"unix://{engine.socket}")
    try:
        container = sdk.containers.run("busybox", ["sh", "-c", "for n in 1 2 3; do echo out $n; done; sleep 0.1; echo err >&2"], detach=True)
        container.wait()
        assert list(container.logs(stream=True, stderr=False)) == [b"out 1\n", b"out 2\n", b"out 3\n"]
        assert container.logs(stdout=False) == b"err\n"
        assert container.logs(stderr=False, tail=2) == b"out 3\n"
        assert container.attach(logs=True, stream=False, stderr=False) == b"out 1\nout 2\nout 3\n"
        container.remove()
    finally:
        sdk.close()
