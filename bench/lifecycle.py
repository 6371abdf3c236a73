"""Lifecycle times of engines that speak the Docker API, measured side by side in one run.

    python bench/lifecycle.py corten=/run/corten/corten.sock docker=/var/run/docker.sock [--rounds 20] [--image busybox]

Both sides are asked in turn, round after round, over their UNIX sockets with one keep-alive connection each (as an SDK
does). Printed: the median of each, in milliseconds, and the ratio to the first. The image must be in both engines.
"""

from __future__ import annotations

import argparse
import http.client
import json
import socket
import statistics
import threading
import time
from collections.abc import Callable

CALM = 0.2  # seconds: the kernel takes a removed container's network down in its own time, with locks that the other engine's start waits for


class Connection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


class Engine:
    def __init__(self, path: str, image: str) -> None:
        self.path, self.image = path, image
        self.connection = Connection(path)

    def call(self, method: str, path: str, body: object = None) -> dict:
        data = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"} if data else {}
        self.connection.request(method, path, data, headers)
        response = self.connection.getresponse()
        text = response.read()
        if response.status >= 400:
            raise SystemExit(f"{self.path}: {method} {path}: {response.status} {text!r}")
        return json.loads(text) if text.strip().startswith((b"{", b"[")) else {}

    def create(self, command: list[str], **host: object) -> str:
        exposed = {key: {} for key in host.get("PortBindings", {})}  # as the docker CLI sends them; Docker publishes nothing without
        return self.call("POST", "/containers/create", {"Image": self.image, "Cmd": command, "HostConfig": host, "ExposedPorts": exposed})["Id"]

    def running(self, *command: str) -> str:
        container = self.create(list(command) or ["sleep", "600"])
        self.call("POST", f"/containers/{container}/start")
        return container

    def remove(self, container: str) -> None:
        self.call("DELETE", f"/containers/{container}?force=1")

    def life(self, **host: object) -> None:
        container = self.create(["true"], **host)
        self.call("POST", f"/containers/{container}/start")
        self.call("POST", f"/containers/{container}/wait")
        self.call("DELETE", f"/containers/{container}")


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def case_life(engine: Engine) -> float:
    return timed(engine.life)


def case_life_without_network(engine: Engine) -> float:
    return timed(lambda: engine.life(NetworkMode="none"))


def case_published_port(engine: Engine) -> float:
    found: list[str] = []

    def work() -> None:
        found.append(engine.create(["sleep", "600"], PortBindings={"80/tcp": [{"HostPort": ""}]}))
        engine.call("POST", f"/containers/{found[0]}/start")

    try:
        return timed(work)
    finally:
        engine.remove(found[0])
        time.sleep(CALM)


def case_exec(engine: Engine) -> float:
    container = engine.running()

    def work() -> None:
        body = {"Cmd": ["true"], "AttachStdout": True, "AttachStderr": True}
        exec_id = engine.call("POST", f"/containers/{container}/exec", body)["Id"]
        hijacked = Connection(engine.path)
        hijacked.request("POST", f"/exec/{exec_id}/start", "{}", {"Content-Type": "application/json", "Connection": "Upgrade", "Upgrade": "tcp"})
        while hijacked.sock.recv(4096):
            pass
        hijacked.close()

    try:
        return timed(work)
    finally:
        engine.remove(container)


def case_stop(engine: Engine) -> float:
    container = engine.running("sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.02; done")
    time.sleep(0.1)
    try:
        return timed(lambda: engine.call("POST", f"/containers/{container}/stop"))
    finally:
        engine.remove(container)


def case_remove_force(engine: Engine) -> float:
    container = engine.running()
    return timed(lambda: engine.remove(container))


def case_20_parallel_lives(engine: Engine) -> float:
    others = [Engine(engine.path, engine.image) for _ in range(20)]
    threads = [threading.Thread(target=other.life) for other in others]

    def work() -> None:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    return timed(work)


def case_inspect(engine: Engine) -> float:
    container = engine.create(["true"])
    try:
        return timed(lambda: engine.call("GET", f"/containers/{container}/json"))
    finally:
        engine.remove(container)


def case_ping(engine: Engine) -> float:
    return timed(lambda: engine.call("GET", "/_ping"))


CASES: dict[str, tuple[Callable[[Engine], float], int]] = {
    "life of `true`, bridge": (case_life, 1),
    "life of `true`, no network": (case_life_without_network, 1),
    "create + start, published port": (case_published_port, 1),
    "exec `true`": (case_exec, 1),
    "stop (TERM trapped)": (case_stop, 2),
    "rm -f of a running one": (case_remove_force, 1),
    "20 parallel lives": (case_20_parallel_lives, 4),
    "inspect": (case_inspect, 1),
    "ping": (case_ping, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--image", default="busybox")
    options = parser.parse_args()
    engines = {name: Engine(path, options.image) for name, path in (entry.split("=", 1) for entry in options.engines)}
    first = next(iter(engines))
    print(f"| {'median of rounds, ms':32} | " + " | ".join(f"{name:>9}" for name in engines) + " | ratio |")
    print("|---|" + "---:|" * (len(engines) + 1))
    for title, (case, share) in CASES.items():
        rounds = max(3, options.rounds // share)
        times: dict[str, list[float]] = {name: [] for name in engines}
        for engine in engines.values():
            case(engine)
        for _ in range(rounds):
            for name, engine in engines.items():
                times[name].append(case(engine))
        medians = {name: statistics.median(values) for name, values in times.items()}
        last = list(medians.values())[-1]
        print(f"| {title:32} | " + " | ".join(f"{value:9.2f}" for value in medians.values()) + f" | {last / medians[first]:5.1f} |", flush=True)


if __name__ == "__main__":
    main()
