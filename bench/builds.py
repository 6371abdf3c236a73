"""Builds side by side in one run: of the same folders, `corten build`, `docker build` on Corten's classic front, and `docker build` on Docker through BuildKit.

    python -m bench.builds corten=SOCKET docker=SOCKET --base debian.tar [--rounds 3]

The client is the docker CLI of the assets; with its buildx plugin (CORTEN_BUILDX names it) Docker gets the context as BuildKit's own
client sends it, otherwise as a tar through the API. Cold: nothing cached but the base image. Printed: medians in milliseconds, and how many times
as long as `corten build` the others take. A process' start is part of each. The sides take turns, round by round.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass

from corten.api.client import Client

_TWO_STAGES = """
FROM debian AS build
WORKDIR /src
ENV LANG=C
COPY src .
RUN mkdir -p /out && cat *.txt > /out/all
RUN for i in $(seq 200); do echo $i > /out/f$i; done
RUN tar cf /out/doc.tar -C /usr/share doc
LABEL stage=build
FROM debian
ENV APP=/app
WORKDIR /app
COPY --from=build /out /app/out
RUN echo app:x:999:999::/app:/bin/sh >> /etc/passwd && chown -R 999 /app
USER app
EXPOSE 80
CMD ["sh"]
"""
_PARALLEL = "".join(
    f"FROM debian AS s{n}\nRUN i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done; echo {n} > /done\n" for n in range(4)
) + "FROM debian\n" + "".join(f"COPY --from=s{n} /done /d{n}\n" for n in range(4))


@dataclass(frozen=True)
class Case:
    name: str
    dockerfile: str
    fill: Callable[[str], None]


def _sources(folder: str) -> None:
    os.mkdir(f"{folder}/src")
    for n in range(20):
        with open(f"{folder}/src/{n}.txt", "w", encoding="utf-8") as file:
            file.write(f"{n}\n" * 100)


def _many(folder: str) -> None:
    for n in range(10_000):
        os.makedirs(f"{folder}/d{n % 100}", exist_ok=True)
        with open(f"{folder}/d{n % 100}/{n}", "wb") as file:
            file.write(os.urandom(1 << 11))


def _large(folder: str) -> None:
    with open(f"{folder}/large", "wb") as file:
        for _ in range(500):
            file.write(os.urandom(1 << 20))


def _nothing(_folder: str) -> None:
    """A context of its Dockerfile alone."""


CASES = [
    Case("two stages, 16 instructions", _TWO_STAGES, _sources),
    Case("10,000 files", "FROM debian\nCOPY . /app\n", _many),
    Case("one file of 500 MB", "FROM debian\nCOPY . /app\n", _large),
    Case("four stages side by side", _PARALLEL, _nothing),
]


class Side:
    """`own`: the client is `corten build`, else docker's."""

    def __init__(self, name: str, socket_path: str, docker: str, buildx: str, *, buildkit: bool = False, own: bool = False) -> None:
        self.name, self._socket, self._docker, self._own = name, socket_path, docker, own
        self._client = Client(socket_path)
        self._config = tempfile.mkdtemp(prefix="bench-docker-")
        self._buildkit = buildkit
        self._through_api = buildkit and not buildx
        if buildx:
            os.mkdir(f"{self._config}/cli-plugins")
            os.symlink(buildx, f"{self._config}/cli-plugins/docker-buildx")

    def close(self) -> None:
        shutil.rmtree(self._config)

    def load(self, path: str) -> None:
        with open(path, "rb") as file:
            for _ in self._client.messages("/images/load", body=file):
                continue

    def forget(self) -> None:
        """Everything but the base image."""
        for image in self._client.get("/images/json", all=1):
            if "debian:latest" not in (image["RepoTags"] or []):
                self._client.delete(f"/images/{image['Id']}", force=1)
        self._client.post("/build/prune", all=1)

    def build(self, folder: str) -> float:
        """Milliseconds."""
        begin = time.perf_counter()
        if self._through_api:
            packed = io.BytesIO()
            with tarfile.open(fileobj=packed, mode="w") as archive:
                archive.add(folder, ".")
            packed.seek(0)
            for _ in self._client.messages("/build", body=packed, t="bench", version=2):
                continue
        elif self._own:
            program = os.path.join(os.path.dirname(sys.executable), "corten")
            subprocess.run([program, "-H", f"unix://{self._socket}", "build", "-q", "-t", "bench", folder], capture_output=True, check=True)
        else:
            environment = os.environ | {"DOCKER_HOST": f"unix://{self._socket}", "DOCKER_CONFIG": self._config, "DOCKER_BUILDKIT": str(int(self._buildkit))}
            subprocess.run([self._docker, "build", "-q", "-t", "bench", folder], env=environment, capture_output=True, check=True)
        return (time.perf_counter() - begin) * 1000


def measure(sides: list[Side], folder: str, rounds: int) -> list[tuple[float, float]]:
    """(cold, cached) of each side."""
    found: list[list[tuple[float, float]]] = [[] for _ in sides]
    for _ in range(rounds):
        for side, times in zip(sides, found, strict=True):
            side.forget()
            os.sync()
            times.append((side.build(folder), side.build(folder)))
    return [(statistics.median(cold for cold, _ in times), statistics.median(cached for _, cached in times)) for times in found]


def _sides(texts: list[str], docker: str, buildx: str) -> list[Side]:
    found: list[Side] = []
    for name, _, socket_path in (text.partition("=") for text in texts):
        if name == "corten":
            found += [Side("corten build", socket_path, docker, buildx, own=True), Side("classic", socket_path, docker, buildx)]
        else:
            found.append(Side(name, socket_path, docker, buildx, buildkit=True))
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("sides", nargs="+", help="NAME=SOCKET")
    parser.add_argument("--base", required=True)
    parser.add_argument("--docker", default=os.environ.get("CORTEN_DOCKER", "docker"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", default="")
    arguments = parser.parse_args()
    buildx = os.environ.get("CORTEN_BUILDX", "")
    buildx = buildx if os.path.exists(buildx) else ""
    sides = _sides(arguments.sides, arguments.docker, buildx)
    print(f"builds (ms){'' if buildx else ', BuildKit fed through the API':30s}" + "".join(f"{side.name:>13s}" for side in sides))
    for side in sides:
        side.load(arguments.base)
    for case in CASES:
        if arguments.case in case.name:
            with tempfile.TemporaryDirectory(prefix="bench-context-") as folder:
                case.fill(folder)
                with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
                    file.write(case.dockerfile)
                rows = measure(sides, folder, arguments.rounds)
                for number, how in enumerate(("cold", "cached")):
                    values = [row[number] for row in rows]
                    print(f"  {case.name}, {how:42s}"[:44].ljust(44) + "".join(f"{value:13.0f}" for value in values)
                          + "".join(f"{value / values[0]:9.2f}x" for value in values[1:]), flush=True)  # fmt: skip
    for side in sides:
        side.forget()
        side.close()


if __name__ == "__main__":
    main()
