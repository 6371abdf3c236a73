"""Networks of engines that speak the Docker API, measured side by side in one run.

    python -m bench.networks corten=/run/corten/corten.sock docker=/var/run/docker.sock [--rounds 10]

Printed: the median of each in milliseconds, and the ratio to the first; names: answers a second, from inside a container. As root, on the
engines' machine; the image busybox must be in both.
"""

from __future__ import annotations

import argparse
import os
import socket
import statistics
import struct
import time
from collections.abc import Callable

from bench.lifecycle import Engine, timed
from corten.linux.namespaces import network_namespace

_QUERIES = 2000


def name(number: int) -> str:
    return f"bench-{os.getpid()}-{number}"


def create_network(engine: Engine, number: int = 0) -> None:
    engine.call("POST", "/networks/create", {"Name": name(number)})


def remove_network(engine: Engine, number: int = 0) -> None:
    engine.call("DELETE", f"/networks/{name(number)}")


def case_many(engine: Engine, count: int = 25) -> float:
    def work() -> None:
        for number in range(count):
            create_network(engine, number)
        for number in range(count):
            remove_network(engine, number)

    return timed(work)


def _with_container(engine: Engine, work: Callable[[str], float], **host: object) -> float:
    create_network(engine)
    container = engine.create(["sleep", "600"], **host)
    engine.call("POST", f"/containers/{container}/start")
    try:
        return work(container)
    finally:
        engine.remove(container)
        remove_network(engine)


def case_connect(engine: Engine) -> float:
    return _with_container(engine, lambda container: timed(lambda: engine.call("POST", f"/networks/{name(0)}/connect", {"Container": container})))


def case_disconnect(engine: Engine) -> float:
    def work(container: str) -> float:
        engine.call("POST", f"/networks/{name(0)}/connect", {"Container": container})
        return timed(lambda: engine.call("POST", f"/networks/{name(0)}/disconnect", {"Container": container}))

    return _with_container(engine, work)


def case_life_on_a_network(engine: Engine) -> float:
    create_network(engine)
    try:
        return timed(lambda: engine.life(NetworkMode=name(0)))
    finally:
        remove_network(engine)


def answers_a_second(engine: Engine) -> float:
    """One question after the other, for the container's own short id."""

    def work(container: str) -> float:
        pid = engine.call("GET", f"/containers/{container}/json")["State"]["Pid"]
        fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY)
        with network_namespace(fd):
            asking = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        os.close(fd)
        label = container[:12].encode()
        question = bytes([len(label)]) + label + b"\0" + struct.pack(">HH", 1, 1)
        with asking:
            asking.settimeout(5)
            asking.connect(("127.0.0.11", 53))
            start = time.perf_counter()
            for number in range(_QUERIES):
                asking.send(struct.pack(">HHHHHH", number, 0x0100, 1, 0, 0, 0) + question)
                answer = asking.recv(512)
                if answer[:2] != struct.pack(">H", number) or answer[6:8] == b"\0\0":
                    raise SystemExit(f"{engine.path}: a wrong answer: {answer!r}")
            return _QUERIES / (time.perf_counter() - start)

    return _with_container(engine, work, NetworkMode=name(0))


CASES: dict[str, tuple[Callable[[Engine], float], int]] = {
    "create and remove 25 networks": (case_many, 3),
    "connect": (case_connect, 1),
    "disconnect": (case_disconnect, 1),
    "life of `true`, network of its own": (case_life_on_a_network, 1),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    engines = {entry.split("=", 1)[0]: Engine(entry.split("=", 1)[1], "busybox") for entry in options.engines}
    first = next(iter(engines))
    print(f"| {'median of rounds, ms':34} | " + " | ".join(f"{title:>9}" for title in engines) + " | ratio |")
    print("|---|" + "---:|" * (len(engines) + 1))
    for title, (case, share) in CASES.items():
        times: dict[str, list[float]] = {title: [] for title in engines}
        for _ in range(max(2, options.rounds // share)):
            for label, engine in engines.items():
                times[label].append(case(engine))
        medians = {label: statistics.median(values) for label, values in times.items()}
        print(f"| {title:34} | " + " | ".join(f"{value:9.2f}" for value in medians.values()) + f" | {list(medians.values())[-1] / medians[first]:5.1f} |", flush=True)
    rates = {label: answers_a_second(engine) for label, engine in engines.items()}
    print(f"| {'answers about names, a second':34} | " + " | ".join(f"{value:9.0f}" for value in rates.values()) + f" | {rates[first] / list(rates.values())[-1]:5.1f} |")


if __name__ == "__main__":
    main()
