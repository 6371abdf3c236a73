#!/usr/bin/env python3
"""Pack a root folder as a docker archive with one layer: make_image.py NAME ROOT OUTPUT COMMAND..."""

import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile

CREATED = "2026-01-01T00:00:00Z"


def main() -> None:
    name, root, output, *command = sys.argv[1:]
    layer = output + ".layer"
    subprocess.run(["tar", "--numeric-owner", "--xattrs", "--sort=name", "-C", root, "-cf", layer, "."], check=True)
    digest = hashlib.sha256()
    with open(layer, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine]
    config = json.dumps({
        "architecture": machine, "os": "linux", "created": CREATED,
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": command},
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest.hexdigest()}"]},
        "history": [{"created": CREATED, "created_by": "make_image.py", "comment": name}],
    }).encode()
    config_name = hashlib.sha256(config).hexdigest() + ".json"
    layer_name = f"{digest.hexdigest()}/layer.tar"
    manifest = json.dumps([{"Config": config_name, "RepoTags": [f"{name}:latest"], "Layers": [layer_name]}]).encode()
    with tarfile.open(output + ".new", "w", format=tarfile.USTAR_FORMAT) as archive:
        for entry, data in ((config_name, config), ("manifest.json", manifest)):
            info = tarfile.TarInfo(entry)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        archive.add(layer, layer_name)
    os.unlink(layer)
    os.rename(output + ".new", output)


if __name__ == "__main__":
    main()
