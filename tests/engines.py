"""Starting engines for tests: each with its own data root, bridge, cgroup parent and socket, taken down whole."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import TypeVar

from corten.api.client import Client

T = TypeVar("T")
# On a machine that is many times slower (test-vm's is emulated) every last moment is that many times later.
PATIENCE = float(os.environ.get("CORTEN_TEST_PATIENCE", "1"))


def eventually(check: Callable[[], T], seconds: float = 20) -> T:
    """Ask until the answer is true; it. What happens in its own time has no fixed moment, only a last one."""
    end = time.monotonic() + seconds * PATIENCE
    while not (answer := check()):
        assert time.monotonic() < end, f"still {answer!r} after {seconds} s"
        time.sleep(0.02)
    return answer


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class RunningEngine:
    """A cortend of its own. `stop()` leaves nothing; `kill()` is kill -9, `start()` brings it back on the same data."""

    def __init__(self, name: str, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        """`prefix`: a command that runs the engine somewhere else (nsenter)."""
        self.name = f"cortest-{os.getpid()}-{name}"
        self.data_root = tempfile.mkdtemp(prefix=self.name, dir=os.environ.get("CORTEN_TEST_ROOT"))
        self.exec_root = f"/run/{self.name}"
        self.socket = f"{self.exec_root}/s.sock"
        self.bridge = f"ct{os.getpid() % 100000}{name}"[:15]
        self.cgroup_parent = f"/{self.name}"
        self.arguments, self.prefix = list(arguments), prefix
        self.client = Client(self.socket)
        self.process: subprocess.Popen | None = None
        self.start()

    @property
    def environment(self) -> dict[str, str]:
        return os.environ | {"DOCKER_HOST": f"unix://{self.socket}", "DOCKER_CONFIG": f"{self.data_root}/docker"}

    def start(self) -> None:
        with open(f"{self.data_root}.log", "ab") as log:
            self.process = subprocess.Popen(
                [*self.prefix, os.path.join(os.path.dirname(sys.executable), "cortend"), "--data-root", self.data_root, "--exec-root", self.exec_root,
                 "-H", f"unix://{self.socket}", "--bridge", self.bridge, "--cgroup-parent", self.cgroup_parent, *self.arguments],
                stdout=log, stderr=log, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        end = time.monotonic() + 20 * PATIENCE
        while not self.client.answers():
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < end, self.log()
            time.sleep(0.02)

    def log(self) -> str:
        with open(f"{self.data_root}.log", encoding="utf-8", errors="replace") as file:
            return file.read()

    def monitor_log(self) -> str:
        with contextlib.suppress(FileNotFoundError), open(f"{self.exec_root}/monitors/monitor.log", encoding="utf-8") as file:
            return file.read()
        return ""

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def terminate(self) -> int:
        self.process.terminate()
        return self.process.wait(30 * PATIENCE)

    def load(self, path: str) -> None:
        with open(path, "rb") as file:
            for message in self.client.messages("/images/load", body=file):
                assert "Loaded image" in message["stream"]

    def run(self, *command: str, image: str = "busybox", name: str = "", **host: object) -> str:
        """Create and start; the id."""
        body = {"Image": image, "Cmd": list(command), "HostConfig": host}
        container = self.client.post("/containers/create", body, **({"name": name} if name else {}))["Id"]
        self.client.post(f"/containers/{container}/start")
        return container

    def output(self, *command: str, image: str = "busybox", **host: object) -> tuple[int, str]:
        """Run to the end: (exit code, standard output and error)."""
        container = self.run(*command, image=image, **host)
        try:
            code = self.client.post(f"/containers/{container}/wait")["StatusCode"]
            with self.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "stderr": 1}) as response:
                from corten.api.client import demultiplex

                return code, b"".join(data for _, data in demultiplex(response.read)).decode()
        finally:
            self.remove(container)

    def remove(self, container: str) -> None:
        self.client.delete(f"/containers/{container}", force=1)

    def remove_all(self) -> None:
        for item in self.client.get("/containers/json", all=1):
            self.remove(item["Id"])

    def stop(self) -> None:
        if self.process.poll() is not None:
            self.start()
        try:
            self.remove_all()
        finally:
            self.terminate()
            self.take_away()

    def take_away(self) -> None:
        """Remove what a stopped engine without containers has left, once its monitors have ended."""
        end = time.monotonic() + 5 * PATIENCE
        while os.path.isdir(f"{self.exec_root}/monitors") and any(name.endswith(".sock") for name in os.listdir(f"{self.exec_root}/monitors")):
            assert time.monotonic() < end, "a monitor does not end"
            time.sleep(0.02)
        shutil.rmtree(self.data_root)
        shutil.rmtree(self.exec_root, ignore_errors=True)
        os.unlink(f"{self.data_root}.log")

    def docker(self, program: str, *arguments: str, check: bool = True, **options: object) -> subprocess.CompletedProcess:
        """Run the real docker CLI against this engine."""
        done = subprocess.run([program, *arguments], env=self.environment, capture_output=True, text=True, timeout=120 * PATIENCE, check=False, **options)
        if check:
            assert done.returncode == 0, f"docker {' '.join(arguments)}: {done.stderr}\n{self.log()}"
        return done
