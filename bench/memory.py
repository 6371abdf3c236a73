"""Memory of engines that speak the Docker API: idle, and what each idle container adds. PSS of engine processes only.

    python bench/memory.py NAME=SOCKET:PATTERN ... [--containers 32] [--image busybox]

PATTERN is a regular expression over `name command-line` that picks the engine's own processes (daemon, launcher, monitors,
shims), never the containers' programs.
"""

from __future__ import annotations

import argparse
import os
import re
import time

from lifecycle import Engine


def engine_pss(pattern: str) -> int:
    """KiB, proportional set size, of all processes that match."""
    total = 0
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode("utf-8", "replace")
            if int(pid) == os.getpid() or not re.search(pattern, f"{name} {command}"):
                continue
            with open(f"/proc/{pid}/smaps_rollup", encoding="utf-8") as file:
                total += next(int(line.split()[1]) for line in file if line.startswith("Pss:"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET:PATTERN")
    parser.add_argument("--containers", type=int, default=32)
    parser.add_argument("--image", default="busybox")
    options = parser.parse_args()
    print("| PSS, MiB | idle | each idle container |")
    print("|---|---:|---:|")
    for entry in options.engines:
        name, _, rest = entry.partition("=")
        path, _, pattern = rest.partition(":")
        engine = Engine(path, options.image)
        engine.remove(engine.running())
        time.sleep(2)
        idle = engine_pss(pattern)
        made = [engine.running() for _ in range(options.containers)]
        time.sleep(3)
        each = (engine_pss(pattern) - idle) / options.containers
        for container in made:
            engine.remove(container)
        print(f"| {name} | {idle / 1024:.1f} | {each / 1024:.2f} |", flush=True)


if __name__ == "__main__":
    main()
