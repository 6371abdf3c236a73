"""Volumes of engines that speak the Docker API, measured side by side in one run.

    python -m bench.volumes corten=/run/corten/corten.sock docker=/var/run/docker.sock [--rounds 20] [--base busybox.tar]

Start of a container with three volumes, and creation of one whose volume takes 10,000 files of the image. `--base` is the archive
of the image that the measured one is made of; it is loaded into each engine.
"""

from __future__ import annotations

import argparse
import http.client
import os
import statistics
import tempfile

from tests.images import derived, entry, layer

from bench.lifecycle import Connection, Engine, timed

FILES = 10_000
IMAGE = "corten-bench-files"


def load(engine: Engine, path: str) -> None:
    connection = Connection(engine.path)
    with open(path, "rb") as file:
        connection.request("POST", "/images/load?quiet=1", file, {"Content-Type": "application/x-tar", "Content-Length": str(os.path.getsize(path))})
        response: http.client.HTTPResponse = connection.getresponse()
        response.read()
    connection.close()


def three_volumes(engine: Engine) -> float:
    """Start only: the volumes are there, as they are in every start but the first."""
    container = engine.create(["sleep", "600"], Binds=[f"corten-bench-{name}:/{name}" for name in "abc"])
    try:
        return timed(lambda: engine.call("POST", f"/containers/{container}/start"))
    finally:
        engine.remove(container)


def three_new_volumes(engine: Engine) -> float:
    """Create, start and remove with three anonymous volumes."""

    def work() -> None:
        mounts = [{"Type": "volume", "Target": f"/{name}"} for name in "abc"]
        container = engine.create(["sleep", "600"], Mounts=mounts)
        engine.call("POST", f"/containers/{container}/start")
        engine.call("DELETE", f"/containers/{container}?force=1&v=1")

    return timed(work)


def copy_up(engine: Engine) -> float:
    body = {"Image": IMAGE, "Cmd": ["true"], "HostConfig": {"Mounts": [{"Type": "volume", "Target": "/files"}]}}
    made: list[str] = []
    elapsed = timed(lambda: made.append(engine.call("POST", "/containers/create", body)["Id"]))
    engine.call("DELETE", f"/containers/{made[0]}?v=1")
    return elapsed


CASES = {"start with three volumes": (three_volumes, 1), "life with three new volumes": (three_new_volumes, 1), f"copy-up of {FILES} files": (copy_up, 4)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--base", required=True)
    options = parser.parse_args()
    engines = {name: Engine(path, "busybox") for name, path in (text.split("=", 1) for text in options.engines)}
    files = [entry(f"files/{folder}/{number}", b"x" * (number % 4096), uid=number % 7) for folder in range(FILES // 100) for number in range(100)]
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        derived(options.base, archive.name, f"{IMAGE}:latest", layer(files))
        for engine in engines.values():
            load(engine, archive.name)
    print("| median of rounds, ms | " + " | ".join(engines) + " | ratio |\n|---|" + "---:|" * (len(engines) + 1))
    for title, (case, divisor) in CASES.items():
        found: dict[str, list[float]] = {name: [] for name in engines}
        for _ in range(max(3, options.rounds // divisor)):
            for name, engine in engines.items():
                found[name].append(case(engine))
        medians = [statistics.median(values) for values in found.values()]
        print(f"| {title:27} | " + " | ".join(f"{value:9.2f}" for value in medians) + f" | {medians[-1] / medians[0]:5.1f} |", flush=True)
    for engine in engines.values():
        for name in "abc":
            engine.call("DELETE", f"/volumes/corten-bench-{name}?force=1")
        engine.call("DELETE", f"/images/{IMAGE}?force=1")


if __name__ == "__main__":
    main()
