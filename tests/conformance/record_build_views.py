"""Have the real engine's BuildKit build something and write recorded/build_views.json: a part of `make record`, as root.

The same build twice as `docker buildx history logs` tells it afterwards: as values (rawjson) and as lines (plain).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

from tests.conformance.record import RECORDED, docker_engine
from tests.conformance.record_corpus import _know_buildx

DOCKERFILES = {
    "stages": (
        "FROM busybox AS one\nRUN for i in 1 2 3 4; do echo one $i; sleep 0.3; done; printf 'no end'\n"
        "FROM busybox AS two\nRUN sleep 0.4; echo two >&2; sleep 0.4; printf 'a\\nb\\n'\nFROM busybox\nCOPY --from=one /bin/busybox /1\nCOPY --from=two /bin/busybox /2\nCOPY . /all\n"
    ),
    "cached": "FROM busybox AS one\nRUN for i in 1 2 3 4; do echo one $i; sleep 0.3; done; printf 'no end'\nCOPY . /all\n",
    "failing": "FROM busybox\nRUN for i in 1 2 3 4 5 6 7 8 9 10 11 12; do echo $i; done; exit 3\n",
}  # fmt: skip


def _docker(clients: str, socket: str, *words: str, code: int = 0) -> str:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": f"{clients}/.docker"}
    done = subprocess.run([f"{clients}/usr/bin/docker", *words], env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == code, done.stderr
    return done.stderr if "logs" in words else done.stdout


def record(clients: str, socket: str) -> None:
    found = {}
    for name, text in DOCKERFILES.items():
        with tempfile.TemporaryDirectory(prefix="cortest-view") as folder:
            with open(f"{folder}/Dockerfile", "w", encoding="utf-8") as file:
                file.write(text)
            _docker(clients, socket, "buildx", "build", "--provenance=false", "--progress=quiet", "-t", "view", folder, code=int(name == "failing"))
        logs = {mode: _docker(clients, socket, "buildx", "history", "logs", f"--progress={mode}") for mode in ("rawjson", "plain")}
        found[name] = {"rawjson": [json.loads(line) for line in logs["rawjson"].splitlines()], "plain": logs["plain"].splitlines()}
        print(name, len(found[name]["plain"]), "lines", flush=True)
    with open(os.path.join(RECORDED, "build_views.json"), "w", encoding="utf-8") as file:
        json.dump(found, file, indent=1)


if __name__ == "__main__":
    assets = os.environ["CORTEN_ASSETS"]
    clients = f"{assets}/clients"
    _know_buildx(clients)
    with docker_engine(assets) as socket:
        subprocess.run([f"{clients}/usr/bin/docker", "-H", f"unix://{socket}", "load", "-i", f"{assets}/images/busybox.tar"], check=True, capture_output=True)
        record(clients, socket)
    sys.exit(0)
