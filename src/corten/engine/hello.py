"""The image `hello`: a static program that says hello and shows what it sees, assembled by ourselves, as a docker archive.

Everything the program prints is read inside the container: nothing is claimed that it has not seen.
"""

from __future__ import annotations

import io
import tarfile

import msgspec

from corten.linux.machine import ASSEMBLERS, Assembler
from corten.spec.digest import digest_of, encoded
from corten.spec.image import History, ImageConfig, RootFS, RunConfig
from corten.spec.platform import Platform

NAME = "hello:latest"
_CREATED = "1970-01-01T00:00:00Z"
_BUFFER = 4096
_AT_FDCWD = -100
_DIRENT_LENGTH, _DIRENT_NAME = 16, 19


def _show_link(asm: Assembler, buffer: int, path: bytes) -> None:
    done = asm.fresh("done")
    asm.text("A1", path + b"\0")
    asm.constant("A0", _AT_FDCWD)
    asm.constant("A2", buffer)
    asm.constant("A3", _BUFFER)
    asm.system_call(asm.syscalls["readlinkat"])
    asm.result("S1")
    asm.branch("le", "S1", 0, done)
    asm.call("write", 1, buffer, "S1")
    asm.label(done)


def _open(asm: Assembler, path: bytes, failed: str) -> None:
    """Open for reading into S0."""
    asm.text("A1", path + b"\0")
    asm.constant("A0", _AT_FDCWD)
    asm.constant("A2", 0)
    asm.constant("A3", 0)
    asm.system_call(asm.syscalls["openat"])
    asm.result("S0")
    asm.branch("lt", "S0", 0, failed)


def _show_file(asm: Assembler, buffer: int, path: bytes) -> None:
    done = asm.fresh("done")
    _open(asm, path, done)
    asm.call("read", "S0", buffer, _BUFFER)
    asm.result("S1")
    asm.branch("le", "S1", 0, done)
    asm.call("write", 1, buffer, "S1")
    asm.label(done)


def _show_folder(asm: Assembler, buffer: int, path: bytes) -> None:
    """Names in a folder, a space before each, hidden ones left out."""
    done, entry, following, measure, measured = (asm.fresh(stem) for stem in ("done", "entry", "next", "measure", "measured"))
    _open(asm, path, done)
    asm.call("getdents64", "S0", buffer, _BUFFER)
    asm.result("S1")
    asm.branch("le", "S1", 0, done)
    asm.constant("S2", buffer)
    asm.move("S3", "S1")
    asm.add("S3", "S2")
    asm.label(entry)
    asm.branch("ge", "S2", "S3", done)
    asm.load("S0", "S2", _DIRENT_NAME, 1)
    asm.branch("eq", "S0", ord("."), following)
    asm.write(b" ")
    asm.move("S4", "S2")
    asm.add_constant("S4", _DIRENT_NAME)
    asm.move("S1", "S4")
    asm.label(measure)
    asm.load("S0", "S4", 0, 1)
    asm.branch("eq", "S0", 0, measured)
    asm.add_constant("S4", 1)
    asm.jump(measure)
    asm.label(measured)
    asm.subtract("S4", "S1")
    asm.call("write", 1, "S1", "S4")
    asm.label(following)
    asm.load("S0", "S2", _DIRENT_LENGTH, 2)
    asm.add("S2", "S0")
    asm.jump(entry)
    asm.label(done)


def hello_program(architecture: str) -> bytes:
    """The ELF file for `amd64` or `arm64`. Raises KeyError for others."""
    asm = ASSEMBLERS[architecture]()
    buffer = asm.reserve(_BUFFER)
    asm.write(b"Hello from Corten: one kilobyte of program, in a container of its own.\n  its process id:      ")
    _show_link(asm, buffer, b"/proc/self")
    asm.write(b"\n  its host name:       ")
    _show_file(asm, buffer, b"/proc/sys/kernel/hostname")
    asm.write(b"  all of its root:    ")
    _show_folder(asm, buffer, b"/")
    asm.write(b"\n  its network links:  ")
    _show_folder(asm, buffer, b"/sys/class/net")
    asm.write(b"\n")
    asm.call("exit_group", 0)
    return asm.finish()


def _tar(entries: list[tuple[str, bytes, int]]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data, mode in entries:
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), mode
            archive.addfile(info, io.BytesIO(data))
    return output.getvalue()


def hello_archive(platform: Platform) -> bytes:
    """A docker archive of the image, the same bytes every time. Raises KeyError for an architecture without assembler."""
    layer = _tar([("hello", hello_program(platform.architecture), 0o755)])
    diff_id = digest_of(layer)
    config = ImageConfig(
        architecture=platform.architecture, os=platform.os, variant=platform.variant, created=_CREATED,
        config=RunConfig(cmd=["/hello"], env=["PATH=/"]), rootfs=RootFS([diff_id]),
        history=[History(created=_CREATED, created_by="corten: assembled hello")],
    )  # fmt: skip
    config_data = msgspec.json.encode(config)
    layer_name, config_name = f"{encoded(diff_id)}/layer.tar", f"{encoded(digest_of(config_data))}.json"
    manifest = [{"Config": config_name, "RepoTags": [NAME], "Layers": [layer_name]}]
    return _tar(
        [(config_name, config_data, 0o644), (layer_name, layer, 0o644), ("manifest.json", msgspec.json.encode(manifest), 0o644)]
    )
