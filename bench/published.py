"""Published ports and many containers on one bridge, of engines that speak the Docker API, measured side by side in one run.

    python -m bench.published corten=/run/corten/corten.sock docker=/var/run/docker.sock [--rounds 20]

Requests are HTTP's over one connection that stays, to a server of this program's in the container's network namespace, the same for each
engine. As root, on the engines' machine; the image busybox must be in both.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bench.lifecycle import CALM, Engine, timed
from corten.linux.namespaces import network_namespace

_REQUESTS, _MANY, _EDGE = 2000, 100, 10
_PROCESSOR = min(os.sched_getaffinity(0))
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
_REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def started(engine: Engine, **host: object) -> tuple[str, float]:
    """A container and the milliseconds of its start alone."""
    container = engine.create(["sleep", "600"], **host)
    return container, timed(lambda: engine.call("POST", f"/containers/{container}/start"))


def start_published(engine: Engine) -> float:
    container, took = started(engine, PortBindings={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": ""}]})
    engine.remove(container)
    time.sleep(CALM)
    return took


def serve(pid: int) -> int:
    """A server in the network namespace of a process; its own process."""
    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
    with network_namespace(fd):
        listener = socket.create_server(("0.0.0.0", 80))
    os.close(fd)
    child = os.fork()
    if child:
        listener.close()
        return child
    os.sched_setaffinity(0, {_PROCESSOR})
    while True:
        connection = listener.accept()[0]
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while connection.recv(4096):
            connection.sendall(_ANSWER)
        connection.close()


@contextmanager
def on_one_processor() -> Iterator[None]:
    """Beside the server: else it is the scheduler's choice between two processors, a matter of luck, that is measured, and not the way."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {_PROCESSOR})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def requests_a_second(address: tuple[str, int]) -> float:
    with on_one_processor(), socket.create_connection(address, 5) as asking:
        asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        start = time.perf_counter()
        for _ in range(_REQUESTS):
            asking.sendall(_REQUEST)
            if asking.recv(4096) != _ANSWER:
                raise SystemExit(f"{address}: a wrong answer")
        return _REQUESTS / (time.perf_counter() - start)


class Served:
    """A container with the server in it, and the two ways to it: its own address, and 127.0.0.1 at the published port."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._container, _ = started(engine, PortBindings={"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}]})
        shown = engine.call("GET", f"/containers/{self._container}/json")
        self._server = serve(shown["State"]["Pid"])
        port = int(shown["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"])
        self.ways = ((shown["NetworkSettings"]["IPAddress"], 80), ("127.0.0.1", port))

    def close(self) -> None:
        os.kill(self._server, signal.SIGKILL)
        os.waitpid(self._server, 0)
        self._engine.remove(self._container)


def compare_ways(engines: dict[str, Engine], rounds: int) -> dict[str, list[float]]:
    """Of each engine, requests a second on each of its two ways: all of them asked in turn."""
    served = {name: Served(engine) for name, engine in engines.items()}
    try:
        found: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in engines}
        for _ in range(rounds):
            for name, place in served.items():
                for number, way in enumerate(place.ways):
                    found[name][number].append(requests_a_second(way))
        return {name: [statistics.median(values) for values in rows] for name, rows in found.items()}
    finally:
        for place in served.values():
            place.close()


def many(engine: Engine) -> tuple[float, float]:
    """Median milliseconds of the first ten and of the last ten starts of a hundred on one bridge."""
    made: list[str] = []
    times: list[float] = []
    try:
        for _ in range(_MANY):
            container, took = started(engine)
            made.append(container)
            times.append(took)
    finally:
        for container in made:
            engine.remove(container)
    return statistics.median(times[:_EDGE]), statistics.median(times[-_EDGE:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    engines = {entry.split("=", 1)[0]: Engine(entry.split("=", 1)[1], "busybox") for entry in options.engines}
    first, last = next(iter(engines)), list(engines)[-1]
    starts: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(options.rounds + 1):
        for name, engine in engines.items():
            took = start_published(engine)
            if number:  # the first is for warmth
                starts[name].append(took)
    middle = {name: statistics.median(values) for name, values in starts.items()}
    crowds = {name: many(engine) for name, engine in engines.items()}
    ways = compare_ways(engines, options.rounds)
    rows = [
        ("start, one published port, ms", middle, "{:.2f}"),
        ("start, of the first ten, ms", {name: crowd[0] for name, crowd in crowds.items()}, "{:.2f}"),
        ("start, of the last ten of a hundred", {name: crowd[1] for name, crowd in crowds.items()}, "{:.2f}"),
        ("requests a second, its own address", {name: way[0] for name, way in ways.items()}, "{:.0f}"),
        ("requests a second, 127.0.0.1:PORT", {name: way[1] for name, way in ways.items()}, "{:.0f}"),
    ]
    print(f"| {'median of rounds':36} | " + " | ".join(f"{name:>9}" for name in engines) + " | ratio |")
    print("|---|" + "---:|" * (len(engines) + 1))
    for title, values, form in rows:
        print(f"| {title:36} | " + " | ".join(f"{form.format(value):>9}" for value in values.values()) + f" | {values[last] / values[first]:5.2f} |")


if __name__ == "__main__":
    main()
