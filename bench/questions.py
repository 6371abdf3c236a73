"""How long engines take to answer questions when there are many containers, measured side by side in one run.

    python bench/questions.py corten=/run/corten/corten.sock docker=/var/run/docker.sock [--containers 200] [--rounds 30] [--image busybox]

Makes the containers in both (one in ten is started), asks both in turn over keep-alive connections, and removes what it made. Printed: the median of each,
in milliseconds, and the ratio to the first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time

from bench.lifecycle import Engine

_EVERY = 10  # one of so many containers runs


def questions(mark: str) -> dict[str, str]:
    return {
        "ps -a": "/containers/json?all=1",
        "ps": "/containers/json",
        "ps -a, by label": "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22" + mark + "%22%5D%7D",
        "inspect": f"/containers/{mark}-0/json",
        "images": "/images/json",
        "info": "/info",
        "version": "/version",
        "ping": "/_ping",
    }


def fill(engine: Engine, mark: str, count: int) -> None:
    for number in range(count):
        body = {"Image": engine.image, "Cmd": ["sleep", "3600"], "Labels": {mark: str(number)}, "Env": ["A=b", "C=d"], "StopSignal": "KILL"}
        engine.call("POST", f"/containers/create?name={mark}-{number}", body)
        if number % _EVERY == 0:
            engine.call("POST", f"/containers/{mark}-{number}/start")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--containers", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--image", default="busybox")
    options = parser.parse_args()
    engines = {name: Engine(path, options.image) for name, path in (word.split("=", 1) for word in options.engines)}
    mark = f"questions-{os.getpid()}"
    try:
        for engine in engines.values():
            fill(engine, mark, options.containers)
        names = list(engines)
        print(f"| median of {options.rounds}, {options.containers} containers, ms | " + " | ".join(names) + " | ratio |")
        print("|---|" + "---:|" * (len(names) + 1))
        for title, path in questions(mark).items():
            times: dict[str, list[float]] = {name: [] for name in names}
            for _ in range(options.rounds):
                for name, engine in engines.items():
                    start = time.perf_counter()
                    engine.call("GET", path)
                    times[name].append((time.perf_counter() - start) * 1000)
            middle = [statistics.median(times[name]) for name in names]
            print(f"| {title} | " + " | ".join(f"{value:.2f}" for value in middle) + f" | {middle[-1] / middle[0]:.1f} |", flush=True)
    finally:
        for engine in engines.values():
            for number in range(options.containers):
                engine.connection.close()
                engine.remove(f"{mark}-{number}")


if __name__ == "__main__":
    main()
