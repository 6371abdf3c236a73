"""Where everything is on disk. Every path of the store is built here and nowhere else.

<root>/                                    mode 0700
oci-layout, index.json                   an OCI image layout of the images whose blobs are all kept: any OCI tool can read them
blobs/sha256/<hex>                       manifests, configs, and of layers what cannot be had again (thinning.py)
partial/<hex>                            downloads to be gone on with
layers/<number>/                         one unpacked layer, whiteouts in overlay form, keyed by diff id (state.db)
records/<number>                         what its tar has beside the files' contents (tar_record.py)
inits/<chain>/                           the files that the engine mounts over, between an image's layers and a container's
containers/<id>/upper, work              a container's writable layer
containers/<id>/disk, writable           with a size limit: a file with a file system, and where it is mounted; upper and work are in it
containers/<id>/rootfs                   where its root is mounted, in its own mount namespace only
containers/<id>/config.json              the bundle's OCI config
containers/<id>/hosts, hostname, resolv.conf
containers/<id>/<id>-json.log            Docker's json-file log
containers/<id>/local-logs/container.log the log of the driver local
containers/<id>/container-cached.log     what any other driver sends elsewhere, kept for `logs` in local's format
volumes/<name>/_data                     what a volume of the local driver holds; Docker's path
volumes/<name>/disk                      with a size limit: a file with a file system, mounted on _data while it is used
cache-mounts/<name>/                     what RUN --mount=type=cache keeps from build to build
contexts/<name>/                         what is kept of a client's folder that was a build context (builder/kept_folder.py)
tmp/                                     whatever is unfinished; emptied at start-up
state.db                                 every mutable thing is a row here
<exec-root>/                               mode 0700, gone after a reboot
monitors/<n>.sock
mounts/<id>/<n>                          a mount's source while its container starts: only mount points, never walked
containers/<id>/                         FIFOs, exit.json
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass

from corten.spec.digest import encoded, parse_digest


@dataclass(frozen=True)
class Layout:
    root: str
    exec_root: str

    def create(self) -> None:
        """Make the folders, and remove what a crash left half done."""
        os.makedirs(self.root, mode=0o700, exist_ok=True)
        os.makedirs(self.exec_root, mode=0o711, exist_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        for folder in (self.blobs, self.partials, self.layers, self.records, self.inits, self.containers, self.volumes, self.cache_mounts, self.contexts, self.temporary, self.runs, self.staging):
            os.makedirs(folder, mode=0o700, exist_ok=True)

    @property
    def database(self) -> str:
        return f"{self.root}/state.db"

    @property
    def blobs(self) -> str:
        return f"{self.root}/blobs/sha256"

    def blob(self, digest: str) -> str:
        return f"{self.blobs}/{encoded(parse_digest(digest))}"

    @property
    def partials(self) -> str:
        return f"{self.root}/partial"

    def partial(self, digest: str) -> str:
        return f"{self.partials}/{encoded(parse_digest(digest))}"

    @property
    def layers(self) -> str:
        return f"{self.root}/layers"

    def layer(self, number: int) -> str:
        return f"{self.layers}/{number}"

    @property
    def records(self) -> str:
        return f"{self.root}/records"

    def record(self, number: int) -> str:
        return f"{self.records}/{number}"

    @property
    def inits(self) -> str:
        return f"{self.root}/inits"

    @property
    def containers(self) -> str:
        return f"{self.root}/containers"

    def container(self, container_id: str) -> str:
        return f"{self.containers}/{container_id}"

    def log(self, container_id: str) -> str:
        return f"{self.container(container_id)}/{container_id}-json.log"

    @property
    def volumes(self) -> str:
        return f"{self.root}/volumes"

    def volume(self, name: str) -> str:
        return f"{self.volumes}/{name}"

    def volume_data(self, name: str) -> str:
        """What Docker calls the mountpoint."""
        return f"{self.volume(name)}/_data"

    def local_log(self, container_id: str) -> str:
        return f"{self.container(container_id)}/local-logs/container.log"

    def cached_log(self, container_id: str) -> str:
        return f"{self.container(container_id)}/container-cached.log"

    @property
    def cache_mounts(self) -> str:
        return f"{self.root}/cache-mounts"

    @property
    def contexts(self) -> str:
        return f"{self.root}/contexts"

    @property
    def runs(self) -> str:
        return f"{self.exec_root}/containers"

    def run(self, container_id: str) -> str:
        return f"{self.runs}/{container_id}"

    @property
    def staging(self) -> str:
        return f"{self.exec_root}/mounts"

    def staged(self, container_id: str) -> str:
        return f"{self.staging}/{container_id}"

    @property
    def temporary(self) -> str:
        return f"{self.root}/tmp"
