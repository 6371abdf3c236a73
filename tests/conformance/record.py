"""Ask the real Docker Engine (unpacked by scripts/assets.sh) and write recorded/: `make record`, as root.

`python -m tests.conformance.record [MODULE ...]` records only those modules of cases/; with CORTEN_REFERENCE_SOCKET set, from the
real engine that listens there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

from corten.api.client import Client
from tests.conformance.ask import ask
from tests.conformance.cases import MODULES

RECORDED = os.path.join(os.path.dirname(__file__), "recorded")


@contextmanager
def docker_engine(assets: str, data_root: str | None = None, *arguments: str) -> Iterator[str]:
    """A dockerd of our own with these further arguments; its socket. Everything that it makes on the host is taken away again."""
    folder = data_root or tempfile.mkdtemp(prefix="cortest-dockerd")
    unpacked = f"{assets}/dockerd"
    path = ":".join([f"{unpacked}/usr/sbin", f"{unpacked}/usr/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"])
    with open(f"{folder}/log", "wb") as log:
        process = subprocess.Popen(
            ["dockerd", "--data-root", f"{folder}/data", "--exec-root", f"{folder}/exec", "--pidfile", f"{folder}/pid", "-H", f"unix://{folder}/sock",
             "--storage-driver", "overlay2", "--exec-opt", "native.cgroupdriver=cgroupfs", *arguments],
            env=os.environ | {"PATH": path}, stdout=log, stderr=log, stdin=subprocess.DEVNULL, start_new_session=True,
            executable=shutil.which("dockerd", path=path),
        )  # fmt: skip
    try:
        client, end = Client(f"{folder}/sock"), time.monotonic() + 60
        while not client.answers():
            if process.poll() is not None or time.monotonic() > end:
                with open(f"{folder}/log", encoding="utf-8", errors="replace") as log_file:
                    raise SystemExit(f"dockerd did not come up:\n{log_file.read()[-2000:]}")
            time.sleep(0.1)
        with open(f"{assets}/images/busybox.tar", "rb") as image:
            for _ in client.messages("/images/load", body=image):
                continue
        yield f"{folder}/sock"
    finally:
        process.terminate()
        process.wait(60)
        _clean_host(folder)
        if not data_root:
            shutil.rmtree(folder, ignore_errors=True)


def _clean_host(folder: str) -> None:
    """docker0, its iptables chains, its namespaces' mounts and cgroups."""
    with open("/proc/mounts", encoding="utf-8") as file:
        for line in sorted(file, reverse=True):
            if line.split()[1].startswith(folder + "/exec"):
                subprocess.run(["umount", line.split()[1]], check=False)
    subprocess.run(["ip", "link", "del", "docker0"], check=False, capture_output=True)
    for tool in ("iptables", "ip6tables"):
        subprocess.run([tool, "-P", "FORWARD", "ACCEPT"], check=False, capture_output=True)
        for table in ("filter", "nat"):
            rules = subprocess.run([tool, "-t", table, "-S"], capture_output=True, text=True, check=False).stdout.splitlines()
            for rule in rules:
                if rule.startswith("-A") and ("DOCKER" in rule or "docker0" in rule):
                    subprocess.run([tool, "-t", table, "-D", *rule.split()[1:]], check=False, capture_output=True)
            for step in ("-F", "-X"):
                for rule in rules:
                    if rule.startswith("-N DOCKER"):
                        subprocess.run([tool, "-t", table, step, rule.split()[1]], check=False, capture_output=True)
    subprocess.run("find /sys/fs/cgroup/*/docker -depth -type d -exec rmdir {} + 2>/dev/null", shell=True, check=False)


def _record(path: str, modules: list[str]) -> None:
    version = Client(path).get("/version")["Version"]
    for module in modules:
        answers = {name: ask(path, requests) for name, requests in MODULES[module].items()}
        with open(f"{RECORDED}/{module}.json", "w", encoding="utf-8") as file:
            json.dump({"engine": f"Docker {version}", "answers": answers}, file, indent=1, sort_keys=True)
            file.write("\n")
        print(f"recorded {sum(map(len, answers.values()))} answers of Docker {version} for {module}", file=sys.stderr)


def main(modules: list[str]) -> None:
    wanted = modules or list(MODULES)
    running = os.environ.get("CORTEN_REFERENCE_SOCKET")
    if running:
        _record(running, wanted)
        return
    with docker_engine(os.environ["CORTEN_ASSETS"]) as path:
        _record(path, wanted)


if __name__ == "__main__":
    main(sys.argv[1:])
