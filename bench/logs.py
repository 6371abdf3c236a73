"""A million lines of 100 bytes: written by a container to json-file, read back, and the last ten of them. In seconds; the last in ms.

    python bench/logs.py NAME=SOCKET ... [--lines 1000000] [--rounds 3] [--folder /tmp] [--image busybox]

The container prints a file that is bound into it, so that nobody waits for the program. Written: from start to exit. Both sides keep the
whole log in one file (max-size 10g), and are asked in turn. Median of the rounds, and the ratio to the first.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time

from lifecycle import Engine

_LINE = bytes(33 + number * 7 % 90 for number in range(99)).translate(bytes.maketrans(b'"\\', b"xy")) + b"\n"


def read(engine: Engine, path: str) -> tuple[float, int]:
    """(seconds, bytes of the body)."""
    start, size = time.perf_counter(), 0
    engine.connection.request("GET", path)
    response = engine.connection.getresponse()
    while data := response.read(1 << 20):
        size += len(data)
    return time.perf_counter() - start, size


def measure(engine: Engine, path: str, lines: int) -> tuple[float, float, float]:
    """(written, read back, the last ten)."""
    container = engine.create(["cat", "/lines"], Binds=[f"{path}:/lines:ro"], NetworkMode="none", LogConfig={"Type": "json-file", "Config": {"max-size": "10g"}})
    try:
        start = time.perf_counter()
        engine.call("POST", f"/containers/{container}/start")
        engine.call("POST", f"/containers/{container}/wait")
        written = time.perf_counter() - start
        logs = f"/containers/{container}/logs?stdout=1&stderr=1"
        everything, size = read(engine, logs)
        if size != lines * (len(_LINE) + 8):
            raise SystemExit(f"{engine.path}: {size} bytes read back of {lines} lines")
        last, size = read(engine, f"{logs}&tail=10")
        if size != 10 * (len(_LINE) + 8):
            raise SystemExit(f"{engine.path}: {size} bytes are the last ten lines")
        return written, everything, last * 1000
    finally:
        engine.remove(container)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", default=tempfile.gettempdir())
    parser.add_argument("--image", default="busybox")
    options = parser.parse_args()
    engines = {name: Engine(path, options.image) for name, path in (entry.split("=", 1) for entry in options.engines)}
    rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in engines}
    with tempfile.NamedTemporaryFile(dir=options.folder, prefix="corten-bench-lines-") as file:
        for _ in range(options.lines // 1000):
            file.write(_LINE * 1000)
        file.flush()
        os.chmod(file.name, 0o644)
        for _ in range(options.rounds):
            for name, engine in engines.items():
                rounds[name].append(measure(engine, file.name, options.lines))
    print(f"| {f'{options.lines} lines of {len(_LINE)} bytes':32} | " + " | ".join(f"{name:>9}" for name in engines) + " | ratio |")
    print("|---|" + "---:|" * (len(engines) + 1))
    for column, title in enumerate(("written to json-file, s", "read back, s", "the last ten, ms")):
        medians = [statistics.median(row[column] for row in rows) for rows in rounds.values()]
        print(f"| {title:32} | " + " | ".join(f"{value:9.2f}" for value in medians) + f" | {medians[-1] / medians[0]:5.1f} |", flush=True)


if __name__ == "__main__":
    main()
