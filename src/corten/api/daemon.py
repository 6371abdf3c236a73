"""`cortend`: the process. Settings, lock, launcher before any thread, event loop, signals. What runs in it is assembly.py's."""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import resource
import signal
import sys
from contextlib import suppress

import click

from corten.api.assembly import Engine
from corten.api.settings import Settings, parse_arguments
from corten.builder.attest.scan_job import SCAN_JOB
from corten.builder.cache_transfer.mount_job import PACK_MOUNT_JOB, UNPACK_MOUNT_JOB
from corten.builder.context_job import CONTEXT_JOB
from corten.builder.file_job import FILE_JOB
from corten.builder.outputs.oci_tar import OCI_JOB
from corten.builder.outputs.tree_tar import TREE_JOB
from corten.engine.copy_up import COPY_UP_JOB
from corten.engine.copying import COPY_JOB
from corten.engine.idmap import IDMAP_JOB
from corten.errors import CortenError
from corten.runtime.launch import LauncherProcess
from corten.store.image_writer import SAVE_JOB
from corten.store.layer_maker import DIFF_JOB, REPACK_JOB, SEAL_JOB
from corten.store.layers import RETAR_JOB, UNPACK_JOB
from corten.store.layout import Layout
from corten.store.packing import PACK_JOB
from corten.utf8 import speak_utf8

_JOBS = {
    UNPACK_JOB: "corten.store.unpack:job",
    PACK_JOB: "corten.store.packing:job",
    SAVE_JOB: "corten.store.image_writer:job",
    DIFF_JOB: "corten.store.layer_diff:diff_job",
    REPACK_JOB: "corten.store.layer_diff:repack_job",
    SEAL_JOB: "corten.store.layer_seal:seal_job",
    RETAR_JOB: "corten.store.layer_seal:retar_job",
    COPY_UP_JOB: "corten.engine.copy_up_job:job",
    IDMAP_JOB: "corten.engine.idmap:job",
    COPY_JOB: "corten.engine.copy_job:job",
    CONTEXT_JOB: "corten.builder.context_job:job",
    FILE_JOB: "corten.builder.file_job:job",
    OCI_JOB: "corten.builder.outputs.oci_tar:job",
    PACK_MOUNT_JOB: "corten.builder.cache_transfer.mount_job:pack_job",
    UNPACK_MOUNT_JOB: "corten.builder.cache_transfer.mount_job:unpack_job",
    SCAN_JOB: "corten.builder.attest.scan_job:job",
    TREE_JOB: "corten.builder.outputs.tree_tar:job",
}
_log = logging.getLogger("corten")


def _take_lock(root: str) -> int:
    """One engine per data root: two would undo each other's work. Held until the process ends."""
    fd = os.open(f"{root}/lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise SystemExit(f"cortend: another engine uses {root}; stop it, or give this one its own --data-root") from None
    return fd


def _raise_descriptor_limit() -> None:
    """To what the host allows: a container on a user-defined network costs the engine two. After the launcher, whose children are containers."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def serve(settings: Settings, layout: Layout, launcher: LauncherProcess) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    engine = Engine(settings, layout, launcher)
    await engine.start()
    if settings.pidfile:
        with open(settings.pidfile, "w", encoding="utf-8") as file:
            file.write(f"{os.getpid()}\n")
    _log.info("API listen on %s", ", ".join(settings.hosts))
    try:
        await stopping.wait()
    finally:
        await engine.stop()
        if settings.pidfile:
            with suppress(FileNotFoundError):
                os.unlink(settings.pidfile)


def main() -> None:
    """Console script. Ends with 1 and one line on standard error if the engine cannot start."""
    speak_utf8()
    try:
        settings = parse_arguments(sys.argv[1:])
        level = logging.DEBUG if settings.debug else getattr(logging, settings.log_level.upper().replace("FATAL", "CRITICAL"), logging.INFO)
        logging.basicConfig(level=level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
        if os.geteuid() != 0:
            raise SystemExit("cortend: the engine needs root for now (docs/compat.md); run it with sudo")
        layout = Layout(settings.data_root, settings.exec_root)
        os.makedirs(settings.data_root, mode=0o700, exist_ok=True)
        lock = _take_lock(settings.data_root)
        layout.create()
        launcher = LauncherProcess(_JOBS)
        _raise_descriptor_limit()
        asyncio.run(serve(settings, layout, launcher))
        os.close(lock)
    except CortenError as error:
        raise SystemExit(f"cortend: {error.message}") from None
    except click.ClickException as error:
        error.show()
        raise SystemExit(error.exit_code) from None


if __name__ == "__main__":
    main()
