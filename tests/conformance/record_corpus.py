"""Build the corpus with the real engine's BuildKit and write recorded/corpus.json: a part of `make record`, as root. Names of cases: only those.

Of each: the image's config and history (without times and what the base brings), its files where they are not the base's, the findings of
`--check`, or the refusal.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from typing import IO, Any

from tests.builds import context
from tests.conformance.corpus import CASES, Case
from tests.conformance.record import RECORDED, docker_engine


def write_context(folder: str, case: Case) -> None:
    with tarfile.open(fileobj=io.BytesIO(context(case.entries))) as archive:
        archive.extractall(folder, numeric_owner=True)


def _docker(clients: str, socket: str, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "DOCKER_HOST": f"unix://{socket}", "DOCKER_CONFIG": f"{clients}/.docker"}
    return subprocess.run([f"{clients}/usr/bin/docker", *words], env=environment, capture_output=True, text=True, check=False, timeout=300)


def _options(case: Case) -> list[str]:
    return [*(f"--build-arg={name}={value}" for name, value in case.arguments.items()), *([f"--target={case.target}"] if case.target else [])]


def _config(clients: str, socket: str) -> dict[str, Any]:
    """Docker 28.5 cannot save an image without layers: of that one there is no history here."""
    with tempfile.NamedTemporaryFile(suffix=".tar") as archive:
        if _docker(clients, socket, "save", "-o", archive.name, "case").returncode:
            [image] = json.loads(_docker(clients, socket, "inspect", "case").stdout)
            return {"config": {key: value for key, value in image["Config"].items() if value}, "history": [], "rootfs": {"diff_ids": []}}
        with tarfile.open(archive.name) as tar:
            [entry] = json.load(tar.extractfile("manifest.json"))
            return json.load(tar.extractfile(entry["Config"]))


_KINDS = {"file": lambda entry: entry.isreg() or entry.islnk(), "folder": tarfile.TarInfo.isdir, "fifo": tarfile.TarInfo.isfifo}


def tree_of(archive: IO[bytes]) -> dict[str, list[Any]]:
    """An exported root: kind, mode, owner, and what is in it, by path. Times are not compared, and what the engine puts there itself is left out."""
    found: dict[str, list[Any]] = {}
    with tarfile.open(fileobj=archive, mode="r|") as tar:
        for entry in tar:
            name = entry.name.strip("./")
            if name.split("/")[0] in ("", "dev", "proc", "sys", ".dockerenv") or name in ("etc", "etc/hosts", "etc/hostname", "etc/resolv.conf", "etc/mtab"):
                continue
            content = hashlib.sha256(tar.extractfile(entry).read()).hexdigest()[:16] if entry.isreg() else entry.linkname
            kind = next((kind for kind, holds in _KINDS.items() if holds(entry)), "link")
            found[name] = [kind, f"{entry.mode:o}", entry.uid, entry.gid, content]
    return found


def beside(base: dict[str, list[Any]], tree: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What is not as in the base; what is no longer there is an empty list. An image that has nothing of the base stands on nothing."""
    base = base if base.keys() & tree.keys() else {}
    return {name: entry for name, entry in tree.items() if base.get(name) != entry} | {name: [] for name in base if name not in tree}


def _tree(clients: str, socket: str, image: str) -> dict[str, list[Any]]:
    made = _docker(clients, socket, "create", image, "x")
    with tempfile.TemporaryFile() as archive:
        environment = {"DOCKER_HOST": f"unix://{socket}", "HOME": "/nonexistent"}
        subprocess.run([f"{clients}/usr/bin/docker", "export", made.stdout.strip()], env=environment, stdout=archive, check=True)
        _docker(clients, socket, "rm", made.stdout.strip())
        archive.seek(0)
        return tree_of(archive)


def _build(clients: str, socket: str, folder: str, case: Case) -> dict[str, Any]:
    built = _docker(clients, socket, "buildx", "build", "--progress=plain", "--provenance=false", "-t", "case", *_options(case), folder)
    if built.returncode:
        [reason] = re.findall(r"^ERROR: (?:failed to (?:build: )?(?:failed to )?solve: )?(.*)", built.stderr, re.MULTILINE | re.DOTALL)
        return {"refused": re.sub(r"of ref \S+:", "of ref REF:", reason.strip().replace(folder, "CONTEXT"))}
    config = _config(clients, socket)
    history = [{key: line[key] for key in ("created_by", "comment", "empty_layer", "created") if key in line} for line in config["history"]]
    for line in history:
        if line.get("created") != "1970-01-01T00:16:40Z":  # but for the case with SOURCE_DATE_EPOCH
            line.pop("created", None)
    return {
        "config": config["config"], "history": [line for line in history if line.get("comment") == "buildkit.dockerfile.v0"],
        "author": config.get("author", ""), "layers": len(config["rootfs"]["diff_ids"]),
        "tree": beside(_tree(clients, socket, "busybox"), _tree(clients, socket, "case")) if config["rootfs"]["diff_ids"] else {},
    }  # fmt: skip


def _called(clients: str, socket: str, folder: str, case: Case, method: str) -> Any:
    answer = _docker(clients, socket, "buildx", "build", f"--call={method},format=json", *_options(case), folder)
    try:
        found = json.loads(answer.stdout)
    except ValueError:
        return None
    found.pop("sources", None)
    found.pop("buildId", None)
    return found


def _know_buildx(clients: str) -> None:
    """The docker CLI looks for its plugins below its configuration."""
    os.makedirs(f"{clients}/.docker/cli-plugins", exist_ok=True)
    plugin = f"{clients}/.docker/cli-plugins/docker-buildx"
    if not os.path.lexists(plugin):
        os.symlink(os.path.abspath(f"{clients}/usr/libexec/docker/cli-plugins/docker-buildx"), plugin)


def record(clients: str, socket: str, names: list[str]) -> None:
    path = os.path.join(RECORDED, "corpus.json")
    found: dict[str, Any] = {}
    if names and os.path.exists(path):
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
    for name in names or CASES:
        with tempfile.TemporaryDirectory(prefix="cortest-corpus") as folder:
            write_context(folder, CASES[name])
            found[name] = _build(clients, socket, folder, CASES[name])
            found[name] |= {method: _called(clients, socket, folder, CASES[name], method) for method in ("check", "outline", "targets")}
        print(name, "refused" if "refused" in found[name] else "built", flush=True)
    with open(path, "w", encoding="utf-8") as file:
        json.dump({name: found[name] for name in sorted(found) if name in CASES}, file, indent=1, ensure_ascii=False, sort_keys=True)
        file.write("\n")


if __name__ == "__main__":
    assets = os.environ.get("CORTEN_ASSETS", ".corten/assets")
    _know_buildx(f"{assets}/clients")
    with docker_engine(assets) as engine:
        record(f"{assets}/clients", engine, sys.argv[1:])
