"""What a container can see and do, read from inside and from the kernel."""

from __future__ import annotations

import os
import re

import pytest

from corten.spec.security import MASKED_PATHS
from tests.engines import eventually


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def host_bounding() -> str:
    return next(line.split()[1] for line in read("/proc/self/status").splitlines() if line.startswith("CapBnd"))


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def test_own_namespaces(engine):
    code, output = engine.output("sh", "-c", "for n in pid mnt net ipc uts; do readlink /proc/self/ns/$n; done; echo $$; hostname; ls /proc | grep -c '^[0-9]'")
    lines = output.split()
    for name, link in zip(("pid", "mnt", "net", "ipc", "uts"), lines, strict=False):
        assert link != os.readlink(f"/proc/self/ns/{name}")
    assert lines[5] == "1"
    assert re.fullmatch("[0-9a-f]{12}", lines[6])
    assert int(lines[7]) < 6
    assert code == 0


def test_mounts_are_dockers(engine):
    _, output = engine.output("cat", "/proc/self/mountinfo")
    rows = {line.split()[4]: line for line in output.splitlines()}
    assert " - overlay " in rows["/"]
    for path, fstype, flags in (("/proc", "proc", "rw,nosuid,nodev,noexec"), ("/dev", "tmpfs", "rw,nosuid"), ("/dev/pts", "devpts", "rw,nosuid,noexec"),
                                ("/sys", "sysfs", "ro,nosuid,nodev,noexec"), ("/dev/mqueue", "mqueue", "rw,nosuid,nodev,noexec"),
                                ("/dev/shm", "tmpfs", "rw,nosuid,nodev,noexec")):  # fmt: skip
        assert f" - {fstype} " in rows[path]
        assert rows[path].split()[5].startswith(flags), rows[path]
    assert rows["/proc/sys"].split()[5].startswith("ro")
    masked = [path for path in MASKED_PATHS if os.path.exists(path)]
    assert masked
    assert all(" - tmpfs " in rows[path] or "/null" in rows[path] for path in masked)
    assert {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf"} <= set(rows)
    assert not any("/var/lib" in path or "cortest" in path for path in rows)


def test_writing_where_one_may_not(engine):
    for command in ("echo 1 > /proc/sys/kernel/panic", "echo b > /proc/sysrq-trigger", "mount -t tmpfs x /tmp", "mknod /dev/sdz b 8 0 && cat /dev/sdz", "dmesg -n 1"):
        code, output = engine.output("sh", "-c", command)
        assert code != 0, f"{command}: {output}"


def test_default_capabilities_and_seccomp(engine):
    _, output = engine.output("cat", "/proc/self/status")
    status = dict(line.split(":\t") for line in output.splitlines() if ":\t" in line)
    assert status["CapEff"] == status["CapBnd"] == "00000000a80425fb"
    assert status["CapInh"] == status["CapAmb"] == "0" * 16
    assert status["Seccomp"] == "2"
    assert status["NoNewPrivs"] == "0"


@pytest.mark.parametrize(
    ("host", "wanted"),
    [({"CapDrop": ["ALL"]}, 0), ({"CapDrop": ["ALL"], "CapAdd": ["NET_ADMIN"]}, 1 << 12), ({"CapAdd": ["SYS_TIME"]}, 0xA80425FB | 1 << 25)],
)
def test_capabilities_as_asked(engine, host, wanted):
    _, output = engine.output("grep", "CapEff", "/proc/self/status", **host)
    assert int(output.split()[1], 16) == wanted & int(host_bounding(), 16)


def test_privileged_gets_what_the_host_has(engine):
    _, output = engine.output("sh", "-c", "grep CapEff /proc/self/status; mount -t tmpfs x /tmp && echo mounted; ls /dev/kmsg", Privileged=True)
    assert output.split()[1] == host_bounding()
    assert "mounted" in output


def test_seccomp_refuses_new_namespaces_and_can_be_lifted(engine):
    code, output = engine.output("unshare", "-U", "true")
    assert code != 0
    assert "Operation not permitted" in output
    _, output = engine.output("grep", "Seccomp:", "/proc/self/status", SecurityOpt=["seccomp=unconfined"])
    assert output.split() == ["Seccomp:", "0"]
    profile = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}'
    code, output = engine.output("mkdir", "/x", SecurityOpt=[f"seccomp={profile}"])
    assert code != 0
    assert "Operation not permitted" in output


def test_the_hosts_python_cannot_be_run(engine):
    """The first process is Python until it executes its program; its binary must stay out of reach."""
    body = {"Image": "busybox", "Cmd": ["/proc/self/exe", "-c", "print('host python')"]}
    container = engine.client.post("/containers/create", body)["Id"]
    with pytest.raises(Exception, match="permission denied"):
        engine.client.post(f"/containers/{container}/start")
    shown = engine.client.get(f"/containers/{container}/json")
    assert shown["State"]["ExitCode"] == 126


def test_a_script_that_names_it_gets_a_view_that_cannot_be_written(engine):
    script = "printf '#!/proc/self/exe\\n' > /tmp/x; chmod +x /tmp/x; exec /tmp/x"
    code, _ = engine.output("sh", "-c", script)
    assert code != 0
    with open(f"/proc/{_launcher(engine)}/exe", "rb") as binary:
        assert os.fstatvfs(binary.fileno()).f_flag & os.ST_RDONLY
    with pytest.raises(OSError):
        os.close(os.open(f"/proc/{_launcher(engine)}/exe", os.O_WRONLY))


def _launcher(engine) -> int:
    children = []
    for task in os.listdir(f"/proc/{engine.process.pid}/task"):
        with open(f"/proc/{engine.process.pid}/task/{task}/children", encoding="utf-8") as file:
            children += file.read().split()
    return int(children[0])


def test_no_descriptor_leaks(engine):
    _, output = engine.output("sh", "-c", "for f in /proc/self/fd/*; do echo ${f##*/} $(readlink $f); done")
    numbers = {line.split()[0] for line in output.splitlines()}
    assert numbers <= {"0", "1", "2", "3", "10", "255"}
    assert not re.search(r"monitors|state\.db|socket:", output)
    container = engine.run("sleep", "60")
    pid = engine.client.get(f"/containers/{container}/json")["State"]["Pid"]
    links = [os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")]
    assert len(links) == 3
    assert links[0] == "/dev/null"
    assert all(re.search(r"/(stdout|stderr)", link) or link.startswith("pipe:") for link in sorted(links)[1:]), links


def test_exec_leaks_no_descriptor(engine):
    container = engine.run("sleep", "60")
    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": ["ls", "/proc/self/fd"], "AttachStdout": True})["Id"]
    sock = engine.client.hijack(f"/exec/{exec_id}/start", {})
    from corten.api.client import demultiplex

    shown = b"".join(data for _, data in demultiplex(sock.recv)).split()
    sock.close()
    assert set(shown) <= {b"0", b"1", b"2", b"3"}


def test_limits_reach_the_kernel(engine):
    container = engine.run("sleep", "60", Memory=64 << 20, NanoCpus=500_000_000, PidsLimit=20, CpuShares=512, BlkioWeight=300)
    pid = engine.client.get(f"/containers/{container}/json")["State"]["Pid"]
    with open(f"/proc/{pid}/cgroup", encoding="utf-8") as file:
        groups = {name: line.split(":")[2].strip() for line in file for name in line.split(":")[1].split(",")}
    if groups.get("memory"):  # version 1
        base = "/sys/fs/cgroup"
        for controller, name, value in (("memory", "memory.limit_in_bytes", "67108864"), ("memory", "memory.memsw.limit_in_bytes", "134217728"),
                                        ("cpu", "cpu.cfs_quota_us", "50000"), ("cpu", "cpu.shares", "512"), ("pids", "pids.max", "20")):  # fmt: skip
            path = f"{base}/{controller}{groups[controller]}/{name}"
            if os.path.exists(path):
                assert read(path).strip() == value, path
        assert groups["devices"].endswith(container)
    else:
        base = f"/sys/fs/cgroup{groups['']}"
        assert read(f"{base}/memory.max").strip() == "67108864"


def test_oom_is_told(engine):
    container = engine.run("sh", "-c", "x=a; while :; do x=$x$x; done", Memory=16 << 20, MemorySwap=16 << 20)
    assert engine.client.post(f"/containers/{container}/wait")["StatusCode"] in (137, 1, 2)
    assert engine.client.get(f"/containers/{container}/json")["State"]["OOMKilled"] is True


def test_shared_namespaces(engine):
    first = engine.run("sleep", "60", name="first", IpcMode="shareable")
    pid = engine.client.get(f"/containers/{first}/json")["State"]["Pid"]
    container = engine.run("sleep", "60", NetworkMode=f"container:{first}", PidMode="container:first", IpcMode="container:first")
    other = engine.client.get(f"/containers/{container}/json")["State"]["Pid"]
    for name in ("net", "pid", "ipc"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/{other}/ns/{name}")
    assert os.readlink(f"/proc/{pid}/ns/mnt") != os.readlink(f"/proc/{other}/ns/mnt")
    host = engine.run("sleep", "60", NetworkMode="host", PidMode="host", IpcMode="host", UTSMode="host")
    pid = engine.client.get(f"/containers/{host}/json")["State"]["Pid"]
    for name in ("net", "pid", "ipc", "uts"):
        assert os.readlink(f"/proc/{pid}/ns/{name}") == os.readlink(f"/proc/self/ns/{name}")


def test_init_reaps_and_forwards(engine):
    container = engine.run("sh", "-c", "trap 'exit 6' TERM; (sleep 0.1 &) ; while :; do sleep 0.05; done", Init=True)

    def reaped() -> bool:
        """The orphan has gone, and not stayed as a zombie: what is left is the init, the shell and its newest sleep."""
        rows = engine.client.get(f"/containers/{container}/top")["Processes"]
        assert any("docker-init" in row[-1] for row in rows)
        looping = any(row[-1] == "sleep 0.05" for row in rows)  # behind its trap
        return looping and not any("defunct" in row[-1] or row[-1] == "sleep 0.1" for row in rows)

    eventually(reaped)
    engine.client.post(f"/containers/{container}/stop")
    assert engine.client.get(f"/containers/{container}/json")["State"]["ExitCode"] == 6


def test_binds_and_tmpfs(engine, tmp_path):
    (tmp_path / "in").write_text("from the host")
    code, output = engine.output(
        "sh", "-c", "cat /data/in; echo made > /data/out; touch /ro/x; df -k /scratch | tail -1; touch /root/x",
        Binds=[f"{tmp_path}:/data", f"{tmp_path}:/ro:ro"], Tmpfs={"/scratch": "size=1m"}, ReadonlyRootfs=True,
    )  # fmt: skip
    assert "from the host" in output
    assert (tmp_path / "out").read_text() == "made\n"
    assert output.count("Read-only file system") == 2
    assert "1024" in output
    assert code == 1


def test_devices_only_as_asked(engine):
    code, _ = engine.output("cat", "/dev/kmsg")
    assert code != 0
    code, _ = engine.output("test", "-c", "/dev/mykmsg", Devices=[{"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/mykmsg", "CgroupPermissions": "r"}])
    assert code == 0


def test_dockers_name_for_its_own_runtime_means_ours(engine):
    code, output = engine.output("echo", "hi", Runtime="runc")
    assert (code, output) == (0, "hi\n")
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Runtime": "runc"}})["Id"]
    assert engine.client.get(f"/containers/{container}/json")["HostConfig"]["Runtime"] == "runc"
    assert {"corten", "runc"} <= set(engine.client.get("/info")["Runtimes"])
