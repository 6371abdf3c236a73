"""Start the real Docker Engine beside the running Corten one, and run every measurement on both. Called by run.sh."""

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
        subprocess.run(
            [sys.executable, f"{HERE}/memory.py", f"corten={ours}:cortend --data-root {work}|corten-launcher|corten-monitor|corten\\.runtime\\.launcher",
             f"docker={theirs}:dockerd --data-root {work}|containerd --config {work}|containerd-shim.*moby|docker-proxy"],
            check=True,
        )  # fmt: skip
        print(flush=True)
        sides = [f"corten={ours}", f"docker={theirs}"]
        subprocess.run([sys.executable, f"{HERE}/lifecycle.py", *sides], check=True)
        print(flush=True)
        for name in ("questions", "networks"):
            subprocess.run([sys.executable, "-m", f"bench.{name}", *sides], check=True, cwd=os.path.dirname(os.path.abspath(HERE)))
        print(flush=True)
        subprocess.run([sys.executable, f"{HERE}/logs.py", *sides, "--folder", f"{work}/disk"], check=True)
        print(flush=True)
        subprocess.run([sys.executable, "-m", "bench.volumes", *sides, "--base", f"{assets}/images/busybox.tar"], check=True)
        subprocess.run([sys.executable, "-m", "bench.clone"], check=True)
        print(flush=True)
        subprocess.run([sys.executable, f"{HERE}/images.py", *sides, "--archive", f"{assets}/images/debian.tar"], check=True)
        print(flush=True)
        os.environ.setdefault("CORTEN_BUILDX", f"{assets}/clients/usr/libexec/docker/cli-plugins/docker-buildx")
        subprocess.run([sys.executable, "-m", "bench.builds", *sides, "--base", f"{assets}/images/debian.tar", "--docker", f"{assets}/clients/usr/bin/docker"],
                       check=True, cwd=os.path.dirname(os.path.abspath(HERE)))  # fmt: skip

    os.makedirs(f"{work}/disk/plain")
    with docker_engine(assets, f"{work}/disk/plain", "--userland-proxy=false") as theirs:  # its own process is no part of a port
        print(flush=True)
        subprocess.run([sys.executable, "-m", "bench.published", f"corten={ours}", f"docker={theirs}"], check=True, cwd=os.path.dirname(os.path.abspath(HERE)))


if __name__ == "__main__":
    main()
