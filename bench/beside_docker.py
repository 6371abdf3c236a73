"""Start the real Docker Engine beside the running Corten one, and run every measurement on both (or the one that CORTEN_BENCH names). Called by run.sh."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from tests.conformance.record import docker_engine

from corten.api.client import Client

HERE = os.path.dirname(__file__)


def main() -> None:
    work, assets = os.environ["CORTEN_BENCH_WORK"], os.environ["CORTEN_ASSETS"]
    ours = f"{work}/corten.sock"
    while not Client(ours).answers():
        time.sleep(0.05)
    with open(f"{assets}/images/busybox.tar", "rb") as image:
        for _ in Client(ours).messages("/images/load", body=image):
            continue
    os.makedirs(f"{work}/disk/docker", exist_ok=True)
    with docker_engine(assets, f"{work}/disk/docker") as theirs:
        sides = [f"corten={ours}", f"docker={theirs}"]
        base = f"{assets}/images/busybox.tar"
        os.environ.setdefault("CORTEN_BUILDX", f"{assets}/clients/usr/libexec/docker/cli-plugins/docker-buildx")
        parts = {
            "memory": [
                f"{HERE}/memory.py", f"corten={ours}:cortend --data-root {work}|corten-launcher|corten-monitor|corten\\.runtime\\.launcher",
                f"docker={theirs}:dockerd --data-root {work}|containerd --config {work}|containerd-shim.*moby|docker-proxy",
            ],
            "lifecycle": [f"{HERE}/lifecycle.py", *sides],
            "questions": ["-m", "bench.questions", *sides],
            "networks": ["-m", "bench.networks", *sides],
            "logs": [f"{HERE}/logs.py", *sides, "--folder", f"{work}/disk"],
            "volumes": ["-m", "bench.volumes", *sides, "--base", base],
            "clone": ["-m", "bench.clone"],
            "images": [f"{HERE}/images.py", *sides, "--archive", f"{assets}/images/debian.tar"],
            "builds": ["-m", "bench.builds", *sides, "--base", f"{assets}/images/debian.tar", "--docker", f"{assets}/clients/usr/bin/docker"],
        }
        os.environ.setdefault("CORTEN_BUILDX", f"{assets}/buildx/usr/libexec/docker/cli-plugins/docker-buildx")
        for name, command in parts.items():
            _measure(name, command)
    os.makedirs(f"{work}/disk/plain", exist_ok=True)
    with docker_engine(assets, f"{work}/disk/plain", "--userland-proxy=false") as theirs:  # its own process is no part of a port
        _measure("published", ["-m", "bench.published", f"corten={ours}", f"docker={theirs}"])


def _measure(name: str, command: list[str]) -> None:
    if os.environ.get("CORTEN_BENCH", name) == name:
        subprocess.run([sys.executable, *command], check=True, cwd=os.path.dirname(os.path.abspath(HERE)))
        print(flush=True)


if __name__ == "__main__":
    main()
