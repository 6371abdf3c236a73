"""AppArmor as the kernel shows and enforces it. Needs a kernel that has it: `make test-vm` boots one."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from corten.api.client import ApiError
from corten.engine import confinement
from corten.linux import apparmor

NAME = f"cortest-{os.getpid()}"


@pytest.fixture(scope="module", autouse=True)
def kernel():
    if not confinement.supported():
        pytest.skip("needs a kernel with AppArmor, and apparmor_parser")


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


@pytest.fixture
def profile():
    """A profile of the test's own, under which nothing below /etc can be read."""
    text = f"profile {NAME} flags=(attach_disconnected) {{\n  file,\n  capability,\n  network,\n  umount,\n  signal,\n  deny /etc/** r,\n}}\n"
    apparmor.load(text)
    yield NAME
    subprocess.run([apparmor.parser(), "-R"], input=text, text=True, check=True, capture_output=True)


def label(pid: int) -> str:
    with open(f"/proc/{pid}/attr/current", encoding="utf-8") as file:
        return file.read().strip()


def running(engine, **host: object) -> dict:
    container = engine.run("sleep", "60", **host)
    return engine.client.get(f"/containers/{container}/json")


def test_docker_default_is_what_containers_run_under(engine):
    shown = running(engine)
    assert label(shown["State"]["Pid"]) == "docker-default (enforce)"
    assert shown["AppArmorProfile"] == "docker-default"
    assert "docker-default" in apparmor.profiles()
    assert "name=apparmor" in engine.client.get("/info")["SecurityOptions"]
    assert label(os.getpid()) == "unconfined"


def test_an_exec_runs_under_it_too(engine, docker_cli):
    shown = running(engine)
    assert engine.docker(docker_cli, "exec", shown["Id"], "cat", "/proc/self/attr/current").stdout == "docker-default (enforce)\n"


@pytest.mark.parametrize("host", [{"Privileged": True}, {"SecurityOpt": ["apparmor=unconfined"]}])
def test_unconfined(engine, host):
    shown = running(engine, **host)
    assert label(shown["State"]["Pid"]) == "unconfined"
    assert shown["AppArmorProfile"] == "unconfined"


def test_it_denies_what_capabilities_would_allow(engine):
    """With all capabilities, no seccomp and open paths only the profile is left to refuse."""
    open_wide = {"CapAdd": ["ALL"], "SecurityOpt": ["seccomp=unconfined"], "MaskedPaths": [], "ReadonlyPaths": []}
    refused = ("mount -t tmpfs x /tmp", "head -c 1 /proc/kcore", "echo 1 > /proc/sys/kernel/panic", "echo 1 > /proc/sys/net/ipv4/ip_forward", "ls /sys/firmware/*")
    allowed = ("echo 65536 > /proc/sys/kernel/shmall", "echo x > /proc/self/comm", "ls /sys/kernel")
    for command in (*refused, *allowed):
        code, output = engine.output("sh", "-c", command, **open_wide)
        assert (code == 0) == (command in allowed), f"{command}: {output}"
        assert command in allowed or "denied" in output, f"{command}: {output}"


def test_a_profile_of_ones_own(engine, profile):
    shown = running(engine, SecurityOpt=[f"apparmor={profile}"])
    assert label(shown["State"]["Pid"]) == f"{profile} (enforce)"
    assert shown["AppArmorProfile"] == profile
    code, output = engine.output("cat", "/etc/passwd", SecurityOpt=[f"apparmor={profile}", "no-new-privileges"])
    assert code == 1
    assert "Permission denied" in output
    assert engine.output("cat", "/var/www/index.html", SecurityOpt=[f"apparmor={profile}"])[0] == 0


def test_a_profile_that_is_not_loaded_starts_nothing(engine):
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"SecurityOpt": ["apparmor=cortest-not-there"]}}
    container = engine.client.post("/containers/create", body)["Id"]
    with pytest.raises(ApiError, match=r"cortest-not-there.*No such file"):
        engine.client.post(f"/containers/{container}/start")


def test_signals_reach_containers_from_outside_and_inside(engine):
    shown = running(engine, Init=True)
    engine.client.post(f"/containers/{shown['Id']}/stop")
    assert engine.client.get(f"/containers/{shown['Id']}/json")["State"]["ExitCode"] == 143


def test_the_oci_runtime_keeps_hooks_out_of_it(engine, assets, tmp_path, profile):
    """Hooks of the kind createContainer are the runtime's own: they run before the program is confined."""
    runtime = os.path.join(os.path.dirname(sys.executable), "corten-runtime")
    subprocess.run(["cp", "-a", f"{assets}/images/busybox-rootfs", tmp_path / "rootfs"], check=True)
    subprocess.run([runtime, "spec", "-b", str(tmp_path)], check=True)
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"] |= {"args": ["cat", "/proc/self/attr/current"], "terminal": False, "apparmorProfile": profile}
    config["hooks"] = {"createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", f"cat /proc/self/attr/current > {tmp_path}/hook"]}]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = subprocess.run([runtime, "--root", str(tmp_path / "state"), "run", "-b", str(tmp_path), f"cortest-aa-{os.getpid()}"],
                          capture_output=True, text=True, timeout=60, check=False)  # fmt: skip
    assert (done.returncode, done.stdout) == (0, f"{profile} (enforce)\n"), done.stderr
    assert (tmp_path / "hook").read_text().strip() == "unconfined"
