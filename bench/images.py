"""Image work of engines that speak the Docker API, side by side in one run: cold pull, pull of what is there, push, load, save.

    python bench/images.py corten=SOCKET docker=SOCKET --archive debian.tar [--rounds 5] [--large 512] [--only push]

Both engines must reach this machine's loopback: Debian's docker-registry is started there. Printed: the median of each in
milliseconds, and the ratio to the first. `12 layers` is the same files as `debian`, in twelve layers. Then the most memory
that the engine and all that it starts had while an image with one layer of so many MiB was loaded, saved, pushed and pulled.
"""

from __future__ import annotations

import argparse
import copy
import glob
import gzip
import hashlib
import io
import json
import os
import socket
import statistics
import struct
import subprocess
import tarfile
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from corten.api.client import ApiError, Client

_OCI = "application/vnd.oci.image"


@contextmanager
def registry(folder: str) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with open(f"{folder}/config.yml", "w", encoding="utf-8") as file:
        file.write(f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {folder}/data}}}}\nhttp: {{addr: '{address}'}}\n")
    with open(f"{folder}/log", "wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", f"{folder}/config.yml"], stdout=log, stderr=log)
    try:
        while True:
            try:
                urllib.request.urlopen(f"http://{address}/v2/", timeout=5).close()
                break
            except OSError:
                time.sleep(0.05)
        yield address
    finally:
        process.terminate()
        process.wait()


def put(address: str, repository: str, path: str, data: bytes, content_type: str) -> dict:
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    base = f"http://{address}/v2/{repository}"
    if path:
        url = f"{base}/manifests/{path}"
    else:
        begin = urllib.request.Request(f"{base}/blobs/uploads/", method="POST")
        with urllib.request.urlopen(begin) as response:
            url = response.headers["Location"] + f"&digest={digest}"
    request = urllib.request.Request(url, data=data, method="PUT", headers={"Content-Type": content_type if path else "application/octet-stream"})
    urllib.request.urlopen(request).close()
    return {"mediaType": content_type, "digest": digest, "size": len(data)}


def put_image(address: str, repository: str, archive: str, layers: int) -> None:
    """The one layer of a docker archive, as so many gzipped layers of about the same number of files."""
    with tarfile.open(archive) as saved:
        manifest = json.load(saved.extractfile("manifest.json"))
        config = json.load(saved.extractfile(manifest[0]["Config"]))
        with tarfile.open(fileobj=saved.extractfile(manifest[0]["Layers"][0])) as layer:
            members = layer.getmembers()
            share = -(-len(members) // layers)
            packed, diff_ids = [], []
            for start in range(0, len(members), share):
                data = io.BytesIO()
                with tarfile.open(fileobj=data, mode="w") as part:
                    for member in members[start : start + share]:
                        source, named = member, member
                        if member.islnk() and layers > 1:  # its target may be in another layer
                            source = layer.getmember(member.linkname)
                            named = copy.copy(source)
                            named.name = member.name
                        part.addfile(named, layer.extractfile(source) if source.isreg() else None)
                diff_ids.append("sha256:" + hashlib.sha256(data.getvalue()).hexdigest())
                packed.append(gzip.compress(data.getvalue(), 6, mtime=0))
    config["rootfs"]["diff_ids"] = diff_ids
    config["history"] = [{"created_by": "bench"} for _ in diff_ids]
    rows = [put(address, repository, "", data, f"{_OCI}.layer.v1.tar+gzip") for data in packed]
    head = put(address, repository, "", json.dumps(config).encode(), f"{_OCI}.config.v1+json")
    document = {"schemaVersion": 2, "mediaType": f"{_OCI}.manifest.v1+json", "config": head, "layers": rows}
    put(address, repository, "latest", json.dumps(document).encode(), document["mediaType"])


class Side:
    def __init__(self, name: str, path: str) -> None:
        self.name, self.client, self.pushes = name, Client(path), 0
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(path)
            self.root = self.client.get("/info")["DockerRootDir"]
            self.pid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]

    def pull(self, name: str) -> None:
        for message in self.client.messages("/images/create", fromImage=name):
            if "error" in message:
                raise SystemExit(f"{self.name}: {message['error']}")

    def push(self, name: str) -> None:
        with self.client.open("POST", f"/images/{name}/push", query={"tag": "1"}, headers={"X-Registry-Auth": "e30="}) as response:
            last = [json.loads(line) for line in response if line.strip()][-1]
        if "aux" not in last:
            raise SystemExit(f"{self.name}: {last}")

    def remove(self, name: str) -> None:
        try:
            self.client.delete(f"/images/{name}", force=1)
        except ApiError as error:
            if error.http_status != 404:
                raise
        while glob.glob(f"{self.root}/tmp/removed-*"):  # Corten answers first, and deletes then
            time.sleep(0.05)

    def load(self, archive: str) -> None:
        with open(archive, "rb") as file:
            for _ in self.client.messages("/images/load", body=file):
                continue


    def save(self, name: str) -> None:
        with self.client.open("GET", f"/images/{name}/get") as response:
            while response.read(1 << 20):
                continue


def large_archive(path: str, size: int) -> None:
    """A docker archive of an image `large` with one layer of `size` MiB, half of it noise."""
    with open(f"{path}.layer", "w+b") as layer, tarfile.open(path, "w") as archive:
        with tarfile.open(fileobj=layer, mode="w") as content, tempfile.TemporaryFile() as data:
            for _ in range(size):
                data.write(os.urandom(1 << 19) + bytes(1 << 19))
            data.seek(0)
            info = tarfile.TarInfo("large")
            info.size = size << 20
            content.addfile(info, data)
        layer.seek(0)
        diff_id = "sha256:" + hashlib.file_digest(layer, "sha256").hexdigest()
        config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": [diff_id]}}
        manifest = [{"Config": "config.json", "RepoTags": ["large:latest"], "Layers": ["layer.tar"]}]
        for name, data in (("config.json", json.dumps(config).encode()), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        layer.seek(0)
        info = tarfile.TarInfo("layer.tar")
        info.size = os.stat(layer.name).st_size
        archive.addfile(info, layer)
    os.unlink(f"{path}.layer")


def engine_memory(pid: int) -> float:
    """MiB: the proportional set size of an engine's process and all that it has started."""
    children: dict[int, list[int]] = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError), open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
            children.setdefault(int(file.read().rpartition(")")[2].split()[1]), []).append(int(entry))
    waiting, total = [pid], 0
    while waiting:
        each = waiting.pop()
        waiting += children.get(each, [])
        with suppress(OSError), open(f"/proc/{each}/smaps_rollup", encoding="utf-8") as file:
            total += next((int(line.split()[1]) for line in file if line.startswith("Pss:")), 0)
    return total / 1024


def peak(side: Side, work: Callable[[], object]) -> float:
    """MiB: the most that was seen while `work` was done."""
    highest, done = engine_memory(side.pid), threading.Event()

    def watch() -> None:
        nonlocal highest
        while not done.wait(0.05):
            highest = max(highest, engine_memory(side.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        work()
    finally:
        done.set()
        watcher.join()
    return highest


def memory_table(sides: list[Side], address: str, folder: str, size: int) -> None:
    archive, name = f"{folder}/large.tar", f"{address}/large"
    large_archive(archive, size)
    steps: dict[str, Callable[[Side], object]] = {"load": lambda side: side.load(archive), "save": lambda side: side.save("large"),
                                                  "push": lambda side: side.push(name), "pull": lambda side: side.pull(f"{name}:1")}  # fmt: skip
    print(f"\n| most memory in MiB, a layer of {size} MiB | " + " | ".join(f"{side.name:>9}" for side in sides) + " |")
    print("|---|" + "---:|" * len(sides))
    for title, step in steps.items():
        found = []
        for side in sides:
            if title == "push":
                side.client.post("/images/large/tag", repo=name, tag="1")
            if title == "pull":
                side.remove(f"{name}:1")
                side.remove("large")
            found.append(peak(side, lambda side=side, step=step: step(side)))
        print(f"| {title:40} | " + " | ".join(f"{value:9.1f}" for value in found) + " |", flush=True)
    for side in sides:
        side.remove(f"{name}:1")


def timed(work: Callable[[], object]) -> float:
    os.sync()  # what the other side has still to write is not this side's
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("engines", nargs="+", metavar="NAME=SOCKET")
    parser.add_argument("--archive", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", type=int, default=512, help="MiB of the layer that memory is measured with")
    parser.add_argument("--only", default="", help="the cases whose title has this in it")
    options = parser.parse_args()
    sides = [Side(*entry.split("=", 1)) for entry in options.engines]
    with tempfile.TemporaryDirectory(prefix="corten-bench-images") as folder, registry(folder) as address:
        put_image(address, "bench/one", options.archive, 1)
        put_image(address, "bench/twelve", options.archive, 12)
        one, twelve = f"{address}/bench/one:latest", f"{address}/bench/twelve:latest"

        def cold(name: str) -> Callable[[Side], float]:
            def case(side: Side) -> float:
                side.remove(name)
                return timed(lambda: side.pull(name))

            return case

        def push(side: Side) -> float:
            """A layer that the registry has never seen: a loaded image with a file of its own would be one; an empty registry is another."""
            side.pushes += 1
            with registry(tempfile.mkdtemp(dir=folder)) as fresh:
                side.load(options.archive)
                side.client.post("/images/debian/tag", repo=f"{fresh}/cold", tag="1")
                took = timed(lambda: side.push(f"{fresh}/cold"))
            side.remove(f"{fresh}/cold:1")
            side.remove("debian")
            return took

        def load(side: Side) -> float:
            side.remove("debian")
            return timed(lambda: side.load(options.archive))

        def save(side: Side) -> float:
            return timed(lambda: side.save("debian"))

        cases = {"pull, cold": cold(one), "pull, 12 layers": cold(twelve), "pull, up to date": lambda side: timed(lambda: side.pull(twelve)),
                 "push, cold": push, "load": load, "save": save}  # fmt: skip
        print(f"| {'median of rounds, ms':32} | " + " | ".join(f"{side.name:>9}" for side in sides) + " | ratio |")
        print("|---|" + "---:|" * (len(sides) + 1))
        for title, case in cases.items():
            if options.only not in title:
                continue
            times: dict[str, list[float]] = {side.name: [] for side in sides}
            for _ in range(options.rounds):
                for side in sides:
                    times[side.name].append(case(side))
            medians = [statistics.median(values) for values in times.values()]
            print(f"| {title:32} | " + " | ".join(f"{value:9.1f}" for value in medians) + f" | {medians[-1] / medians[0]:5.1f} |", flush=True)
        memory_table(sides, address, folder, options.large)


if __name__ == "__main__":
    main()
