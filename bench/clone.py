"""Cloning a volume of 1 GB on file systems that share blocks. Corten alone: Docker has no clone.

    CORTEN_ASSETS=... python -m bench.clone [--rounds 10]

Each file system is made in a file and mounted by loop, with an engine of its own on it; root, and 1.5 GB of room below /tmp.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import tempfile

from tests.engines import RunningEngine

from bench.lifecycle import timed

SIZE = 1 << 30
KINDS = ("xfs", "btrfs")


def measure(kind: str, rounds: int) -> list[float]:
    folder = tempfile.mkdtemp(prefix="corten-bench-clone-")
    disk, point = f"{folder}/disk", f"{folder}/point"
    os.mkdir(point)
    with open(disk, "wb") as file:
        file.truncate(SIZE * 3 // 2)
    try:
        subprocess.run([f"mkfs.{kind}", "-q", disk], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["mount", "-o", "loop", disk, point], check=True)
        try:
            os.environ["CORTEN_TEST_ROOT"] = point
            engine = RunningEngine("k")
            try:
                return clones(engine, rounds)
            finally:
                engine.stop()
        finally:
            subprocess.run(["umount", point], check=True)
    finally:
        shutil.rmtree(folder)


def clones(engine: RunningEngine, rounds: int) -> list[float]:
    path = engine.client.post("/volumes/create", {"Name": "source"})["Mountpoint"]
    with open(f"{path}/file", "wb") as file:
        for _ in range(SIZE >> 20):
            file.write(os.urandom(1 << 20))
        os.fsync(file.fileno())
    found = []
    for number in range(rounds):
        found.append(timed(lambda number=number: engine.client.post("/corten/volumes/source/clone", name=f"copy{number}")))
        engine.client.delete(f"/volumes/copy{number}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    medians = {kind: statistics.median(measure(kind, options.rounds)) for kind in KINDS if shutil.which(f"mkfs.{kind}")}
    print("| clone of 1 GB, median, ms | " + " | ".join(medians) + " |\n|---|" + "---:|" * len(medians))
    print("|  | " + " | ".join(f"{value:.1f}" for value in medians.values()) + " |")


if __name__ == "__main__":
    main()
