"""`cortend`: the process. Settings, lock, launcher before any thread, event loop, signals. What runs in it is assembly.py's."""

from __future__ import annotations

import asyncio
import fcntl
import gc
import logging
import os
import resource
import signal
import sys
from contextlib import suppress

import click

from corten.api.assembly import Engine
from corten.api.jobs import JOBS
from corten.api.settings import Settings, parse_arguments
from corten.errors import CortenError
from corten.runtime.launch import LauncherProcess
from corten.store.layout import Layout
from corten.utf8 import speak_utf8

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
    gc.freeze()  # what is there now stays: no later collection need look at it again (it would take tens of milliseconds)
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
        launcher = LauncherProcess(JOBS)
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
