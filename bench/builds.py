"""Builds side by side in one run: `docker build` of the same folders, on Corten through its classic front, on Docker through BuildKit.

    python -m bench.builds corten=SOCKET docker=SOCKET --base debian.tar [--rounds 3]

The client is the docker CLI of the assets; with its buildx plugin (CORTEN_BUILDX names it) Docker gets the context as BuildKit's own
client sends it, otherwise as a tar through the API. Cold: nothing cached but the base image. Printed: medians in milliseconds, and the ratio.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import statistics
import subprocess
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
    def __init__(self, name: str, socket_path: str, docker: str, buildx: str) -> None:
        self.name, self._socket, self._docker = name, socket_path, docker
        self._client = Client(socket_path)
        self._config = tempfile.mkdtemp(prefix="bench-docker-")
        self._buildkit = name != "corten"
        self._through_api = self._buildkit and not buildx
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
        else:
            environment = os.environ | {"DOCKER_HOST": f"unix://{self._socket}", "DOCKER_CONFIG": self._config, "DOCKER_BUILDKIT": str(int(self._buildkit))}
            subprocess.run([self._docker, "build", "-q", "-t", "bench", folder], env=environment, capture_output=True, check=True)
        return (time.perf_counter() - begin) * 1000


def measure(side: Side, folder: str, rounds: int) -> tuple[float, float]:
    """(cold, cached)"""
    cold, cached = [], []
    for _ in range(rounds):
        side.forget()
        os.sync()
        cold.append(side.build(folder))
        cached.append(side.build(folder))
    return statistics.median(cold), statistics.median(cached)


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
    sides = [Side(*text.split("=", 1), arguments.docker, buildx) for text in arguments.sides]
    print(f"builds (ms){'' if buildx else ', BuildKit fed through the API':30s}" + "".join(f"{side.name:>12s}" for side in sides))
    for side in sides:
        side.load(arguments.base)
    for case in CASES:
        if arguments.case in case.name:
            with tempfile.TemporaryDirectory(prefix="bench-context-") as folder:
                case.fill(folder)
                with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
                    file.write(case.dockerfile)
                rows = [measure(side, folder, arguments.rounds) for side in sides]
                for number, how in enumerate(("cold", "cached")):
                    values = [row[number] for row in rows]
                    print(f"  {case.name}, {how:42s}"[:44].ljust(44) + "".join(f"{value:12.0f}" for value in values)
                          + "".join(f"{value / values[0]:9.2f}x" for value in values[1:]), flush=True)  # fmt: skip
    for side in sides:
        side.forget()
        side.close()


if __name__ == "__main__":
    main()
