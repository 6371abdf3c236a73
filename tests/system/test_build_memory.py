"""What a build takes of memory, whatever its context: the engine's own peak, and that of its workers beside it. Nothing is timed."""

from __future__ import annotations

import io
import os
import tarfile
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import msgspec
import pytest

from tests.builds import Built, build
from tests.engines import RunningEngine

MIB = 1 << 10  # in the KiB that /proc speaks
LIMIT = 150 * MIB


def family(root: int) -> list[int]:
    """A process and all below it."""
    children = defaultdict(list)
    for pid in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                children[int(file.read().rpartition(")")[2].split()[1])].append(int(pid))
        except OSError:
            continue  # it has ended
    found, todo = [], [root]
    while todo:
        found.append(todo.pop())
        todo += children[found[-1]]
    return found


def field(pid: int, name: str, file: str) -> int:
    """KiB; 0 of a process that has ended."""
    try:
        with open(f"/proc/{pid}/{file}", encoding="utf-8") as lines:
            return next((int(line.split()[1]) for line in lines if line.startswith(f"{name}:")), 0)
    except OSError:
        return 0


class Peaks:
    """`together` is the proportional share of engine, launcher, monitors and workers; `worker` the largest of any but the engine (KiB)."""

    def __init__(self) -> None:
        self.together = self.worker = 0


@contextmanager
def watched(engine: RunningEngine) -> Iterator[Peaks]:
    peaks, done = Peaks(), threading.Event()
    root = engine.process.pid

    def look() -> None:
        while not done.wait(0.02):
            pids = family(root)
            peaks.together = max(peaks.together, sum(field(pid, "Pss", "smaps_rollup") for pid in pids))
            peaks.worker = max(peaks.worker, *(field(pid, "VmHWM", "status") for pid in pids if pid != root))

    watching = threading.Thread(target=look)
    watching.start()
    try:
        yield peaks
    finally:
        done.set()
        watching.join()


class Zeros(io.RawIOBase):
    """So many zero bytes, made as they are read."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readinto(self, buffer) -> int:
        count = min(len(buffer), self._left)
        buffer[:count] = bytes(count)
        self._left -= count
        return count


def packed(path: str, dockerfile: str, files: int, size: int) -> None:
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for name, length, content in [("Dockerfile", len(dockerfile), io.BytesIO(dockerfile.encode())), (".dockerignore", 10, io.BytesIO(b"Dockerfile")),
                                      *((f"d{n % 100}/some-file-name-{n}", size, Zeros(size)) for n in range(files))]:  # fmt: skip
            entry = tarfile.TarInfo(name)
            entry.size = length
            archive.addfile(entry, content)


def sent(engine: RunningEngine, body: IO[bytes], **query: object) -> Built:
    headers = {"Content-Type": "application/x-tar", "Content-Length": str(os.fstat(body.fileno()).st_size)}
    with engine.client.open("POST", "/build", query=query, body=body, headers=headers) as response:
        return Built([msgspec.json.decode(line) for line in response if line.strip()])


CONTEXTS = {
    "10,000 files": (10_000, 2_048, "COPY . /app"),
    "one file of 500 MB": (1, 500 << 20, "COPY . /app\nADD d0 /again"),
    "100,000 files": (100_000, 16, "COPY d1 d99 /app/"),  # all of it is looked at; 2,000 are enough to be written
    "all of 100,000 files": (100_000, 16, "COPY . /app"),
}


@pytest.mark.parametrize("name", CONTEXTS)
def test_the_engine_stays_small(own_engine, tmp_path, name):
    """The first build makes everything; the second, which has another instruction, compares with it and finds the copies in the cache."""
    files, size, copies = CONTEXTS[name]
    for number in range(2):
        path = f"{tmp_path}/{number}.tar"
        packed(path, f"FROM busybox\n{copies}\nENV n={number}\nCOPY d0/some-file-name-0 /one-{number}\n", files, size)
        with watched(own_engine) as peaks, open(path, "rb") as body:
            built = sent(own_engine, body)
        os.unlink(path)
        assert built.image
        assert bool(built.cached) == bool(number)
        engine = field(own_engine.process.pid, "VmHWM", "status")
        print(f"{name}: engine {engine / MIB:.1f} MiB at most, largest worker {peaks.worker / MIB:.1f}, together {peaks.together / MIB:.1f}")
        assert engine < LIMIT
        assert peaks.worker < LIMIT
        assert peaks.together < LIMIT


def test_a_miss_in_a_large_context_is_explained_within_the_limit(own_engine, tmp_path):
    """Two large runs are compared file by file: the one that differs is named."""
    for number in range(2):
        path = f"{tmp_path}/{number}.tar"
        packed(path, "FROM busybox\nCOPY d0 d1 d2 d3 d4 /app/\n", 40_000, 16 + number)
        with watched(own_engine) as peaks, open(path, "rb") as body:
            text = sent(own_engine, body, explain=1).text
        assert ("Not in the cache: file d0/some-file-name-0 is" in text) == bool(number)
        assert max(peaks.together, field(own_engine.process.pid, "VmHWM", "status")) < LIMIT
    assert build(own_engine, {"Dockerfile": "FROM busybox\nRUN true\n"}).image
