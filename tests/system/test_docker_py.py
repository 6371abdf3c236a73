"""docker-py, the Python SDK: the same walk as with the CLI."""

from __future__ import annotations

import gc
import io
import tarfile
import time
import urllib.request
import warnings

import docker
import pytest

from tests.engines import eventually
from tests.system.conftest import free_port, listens

# docker-py leaves connections of hijacked streams to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def sdk(engine):
    client = docker.DockerClient(base_url=f"unix://{engine.socket}", version="auto", timeout=60)
    yield client
    client.close()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def test_pull_and_run(sdk, registry):
    image = sdk.images.pull(f"{registry}/debian", tag="latest")
    assert f"{registry}/debian:latest" in image.tags
    assert sdk.containers.run(image, "echo hello", remove=True) == b"hello\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        sdk.containers.run(image, "sh -c 'echo bad >&2; exit 3'", remove=True)
    assert failed.value.exit_status == 3
    assert failed.value.stderr == b"bad\n"
    assert image.history()
    sdk.images.remove(image.id, force=True)
    with pytest.raises(docker.errors.ImageNotFound):
        sdk.images.get(f"{registry}/debian")


def test_errors_are_the_sdks_own(sdk):
    with pytest.raises(docker.errors.ImageNotFound):
        sdk.containers.create("nosuch:image")
    with pytest.raises(docker.errors.NotFound):
        sdk.containers.get("nosuch")
    sdk.containers.create("busybox", "true", name="twice")
    with pytest.raises(docker.errors.APIError) as conflict:
        sdk.containers.create("busybox", "true", name="twice")
    assert conflict.value.status_code == 409


def test_life(sdk):
    port = free_port()
    box = sdk.containers.run("busybox", "httpd -f -p 80 -h /var/www", detach=True, name="box", ports={"80/tcp": port}, labels={"a": "b"}, environment={"X": "y"})
    box.reload()
    assert box.status == "running"
    assert box.ports == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": str(port)}]}
    eventually(lambda: listens(port))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5) as answer:
        assert answer.read() == b"hello from busybox\n"
    assert [found.name for found in sdk.containers.list(filters={"label": "a=b"})] == ["box"]
    assert box.exec_run("sh -c 'echo $X; echo err >&2; exit 4'", demux=True) == (4, (b"y\n", b"err\n"))
    assert box.exec_run("id -u", user="nobody").output == b"65534\n"
    assert any("httpd" in " ".join(row) for row in box.top()["Processes"])
    assert box.stats(stream=False)["memory_stats"]["usage"] > 0
    box.pause()
    box.reload()
    assert box.status == "paused"
    box.unpause()
    box.rename("other")
    box.stop(timeout=0)
    assert box.wait()["StatusCode"] == 137
    box.restart(timeout=0)
    box.remove(force=True)


def test_logs_follow(sdk):
    box = sdk.containers.run("busybox", "sh -c 'for i in 1 2 3; do echo $i; sleep 0.1; done'", detach=True)
    assert b"".join(box.logs(stream=True, follow=True)) == b"1\n2\n3\n"
    assert box.logs(tail=1) == b"3\n"


def test_attach_with_input(sdk):
    box = sdk.containers.create("busybox", "cat", stdin_open=True)
    sock = box.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    box.start()
    sock._sock.sendall(b"through\n")
    header = sock._sock.recv(8)
    assert header[0] == 1
    assert sock._sock.recv(int.from_bytes(header[4:], "big")) == b"through\n"
    sock.close()
    box.remove(force=True)


def test_archives(sdk):
    box = sdk.containers.create("busybox", "true")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        info = tarfile.TarInfo("dir/file")
        info.size = 3
        archive.addfile(info, io.BytesIO(b"abc"))
    assert box.put_archive("/root", packed.getvalue())
    data, found = box.get_archive("/root/dir")
    assert found["name"] == "dir"
    with tarfile.open(fileobj=io.BytesIO(b"".join(data))) as archive:
        assert archive.extractfile("dir/file").read() == b"abc"
    with pytest.raises(docker.errors.NotFound):
        box.get_archive("/nosuch")


def test_host_config(sdk):
    output = sdk.containers.run(
        "busybox", "sh -c 'cat /sys/fs/cgroup/memory/memory.limit_in_bytes /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; "
        "ulimit -n; cat /proc/sys/net/ipv4/ip_forward; grep probe /etc/hosts; df -k /dev/shm | tail -1; grep NoNewPrivs /proc/self/status'",
        remove=True, mem_limit="64m", pids_limit=33, ulimits=[docker.types.Ulimit(name="nofile", soft=77, hard=88)], sysctls={"net.ipv4.ip_forward": "0"},
        extra_hosts={"probe": "1.2.3.4"}, shm_size="16m", security_opt=["no-new-privileges"],
    ).decode().split("\n")  # fmt: skip
    assert output[:4] == ["67108864", "33", "77", "0"]
    assert output[4].split() == ["1.2.3.4", "probe"]
    assert "16384" in output[5]
    assert output[6].split() == ["NoNewPrivs:", "1"]


def test_events(sdk):
    since = int(time.time())
    sdk.containers.run("busybox", "true", remove=True, name="seen")
    found = [event["Action"] for event in sdk.events(since=since, until=int(time.time()) + 1, filters={"container": "seen"}, decode=True)]
    assert found[0] == "create"
    assert found[-1] == "destroy"
    assert "die" in found


def test_versions_from_1_24(engine):
    for version in ("1.24", "1.40", "1.51"):
        client = docker.DockerClient(base_url=f"unix://{engine.socket}", version=version)
        assert client.containers.run("busybox", "echo x", remove=True) == b"x\n"
        client.close()


def test_what_an_exec_answers_is_framed_as_its_start_asks(sdk):
    """A terminal of the process does not make the stream raw: the start's own Tty does."""
    box = sdk.containers.run("busybox", "sleep 600", detach=True)
    for tty in (False, True):
        identifier = sdk.api.exec_create(box.id, ["echo", "hello"], tty=True)["Id"]
        assert sdk.api.exec_start(identifier, tty=tty) == b"hello\r\n"
    identifier = sdk.api.exec_create(box.id, ["sh", "-c", "echo out; echo err >&2"])["Id"]
    assert sdk.api.exec_start(identifier, demux=True) == (b"out\n", b"err\n")


def test_keys_of_a_body_in_any_case(sdk):
    """docker-py spells this one `detachKeys`."""
    box = sdk.containers.run("busybox", "sleep 600", detach=True)
    identifier = sdk.api.exec_create(box.id, "cat", stdin=True, tty=True, detach_keys="ctrl-x")["Id"]
    assert sdk.api.exec_inspect(identifier)["DetachKeys"] == "ctrl-x"
    stream = sdk.api.exec_start(identifier, tty=True, socket=True)
    stream._sock.sendall(b"typed")
    assert stream._sock.recv(5) == b"typed"
    stream._sock.sendall(b"\x18")
    while stream._sock.recv(100):
        continue
    stream.close()
    assert sdk.api.exec_inspect(identifier)["Running"]


def test_a_killed_container_has_its_exit_code_at_once(sdk):
    box = sdk.containers.run("busybox", "sleep 600", detach=True)
    box.kill()
    box.reload()
    assert (box.status, box.attrs["State"]["ExitCode"]) == ("exited", 137)
    box.remove()


def test_disk_usage(sdk):
    usage = sdk.df()
    assert {"LayersSize", "Images", "Containers", "Volumes", "BuildCache"} <= set(usage)
    assert any("busybox:latest" in image["RepoTags"] for image in usage["Images"])


def test_no_swarm_and_no_plugins(sdk):
    assert sdk.swarm.leave(force=True)
    with pytest.raises(docker.errors.APIError) as refused:
        sdk.swarm.reload()
    assert refused.value.status_code == 503
    assert sdk.plugins.list() == []


def test_credentials_of_nobody(sdk):
    with pytest.raises(docker.errors.APIError, match="connection refused"):
        sdk.login("user", "word", registry=f"127.0.0.1:{free_port()}", reauth=True)


def test_a_platform_that_the_image_is_not_for(sdk):
    with pytest.raises(docker.errors.NotFound, match="does not match the specified platform"):
        sdk.containers.create("busybox", "true", platform="linux/s390x")
