"""The engine as a service of systemd, by the unit that is shipped. Needs a host that runs systemd: `make test-vm` boots one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from corten.api.client import Client
from corten.linux.cgroup import host_layout
from tests.engines import RunningEngine, eventually

UNIT = Path(__file__).parents[2] / "packaging" / "corten.service"


@pytest.fixture(scope="module", autouse=True)
def systemd():
    if not os.path.isdir("/run/systemd/system"):
        pytest.skip("needs a host that systemd runs")


def systemctl(*arguments: str) -> str:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


class Service(RunningEngine):
    """The shipped unit under a name of the test's own, its command line with this test's folders."""

    def __init__(self, name: str) -> None:
        self.unit = f"cortest-{os.getpid()}-{name}.service"
        super().__init__(name)

    def start(self) -> None:
        command = (f"{os.path.dirname(sys.executable)}/cortend --data-root {self.data_root} --exec-root {self.exec_root} -H unix://{self.socket} "
                   f"--bridge {self.bridge} --cgroup-parent {self.cgroup_parent}")  # fmt: skip
        text = UNIT.read_text().replace("ExecStart=/opt/corten/bin/cortend\n", f"ExecStart={command}\nEnvironment=CORTEN_TEST_RUN={os.getpid()}\n")
        assert command in text
        Path(f"/run/systemd/system/{self.unit}").write_text(text)
        Path(f"{self.data_root}.log").touch()
        systemctl("daemon-reload")
        systemctl("start", self.unit)
        eventually(self.client.answers, 60)

    def stop(self) -> None:
        try:
            self.remove_all()
        finally:
            systemctl("stop", self.unit)
            os.unlink(f"/run/systemd/system/{self.unit}")
            systemctl("daemon-reload")
            self.take_away()

    def main_pid(self) -> int:
        return int(systemctl("show", "--value", "-p", "MainPID", self.unit))


@pytest.fixture
def service(assets):
    running = Service("u")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


def state(client: Client, container: str) -> dict:
    return client.get(f"/containers/{container}/json")["State"]


def test_a_restart_of_the_service_stops_no_container(service, docker_cli):
    container = service.run("sh", "-c", "while :; do date; sleep 0.2; done", Memory=64 << 20)
    pid, engine = state(service.client, container)["Pid"], service.main_pid()
    systemctl("restart", service.unit)
    eventually(service.client.answers, 60)
    assert service.main_pid() != engine
    assert state(service.client, container)["Pid"] == pid
    assert service.docker(docker_cli, "exec", container, "echo", "still here").stdout == "still here\n"
    lines = service.docker(docker_cli, "logs", container).stdout.count("\n")
    eventually(lambda: service.docker(docker_cli, "logs", container).stdout.count("\n") > lines)


@pytest.mark.parametrize("what", ["reload", "set"])
def test_systemd_leaves_the_containers_groups_alone(service, what):
    if not host_layout().unified:
        pytest.skip("needs cgroup version 2 alone")
    container = service.run("sleep", "600", Memory=64 << 20, PidsLimit=20, CpusetCpus="0")
    folder = f"{host_layout().v2}{service.cgroup_parent}/{container}"
    names = ("cgroup.controllers", "memory.max", "pids.max", "cpuset.cpus")
    before = {name: Path(folder, name).read_text() for name in names}
    assert before["memory.max"] == f"{64 << 20}\n"
    if what == "reload":
        systemctl("daemon-reload")
        systemctl("daemon-reexec")
    else:
        systemctl("set-property", "--runtime", "system.slice", "CPUWeight=200")
        systemctl("set-property", "--runtime", "system.slice", "CPUWeight=")
    assert {name: Path(folder, name).read_text() for name in names} == before
    assert state(service.client, container)["Running"]


def test_a_container_is_killed_by_nobody_when_its_engine_is(service):
    container = service.run("sleep", "600")
    pid, engine = state(service.client, container)["Pid"], service.main_pid()
    systemctl("kill", "--kill-whom=main", "-s", "KILL", service.unit)
    eventually(lambda: service.main_pid() not in (0, engine), 60)  # Restart=on-failure
    eventually(service.client.answers, 60)
    assert state(service.client, container) | {"Pid": pid, "Running": True} == state(service.client, container)
