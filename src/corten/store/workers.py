"""Running confined workers: how they are started (by the launcher; the composition root hands that in), and whose error theirs is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from corten.errors import ArchiveRefused, KernelRefused

RunJob = Callable[[str, bytes, Sequence[int]], Awaitable[bytes]]
PIPE_BUFFER = 1 << 20  # a sixteenth of the turns that two processes take at what a pipe has by itself


async def run_on_archive(run_job: RunJob, entry: str, fds: Sequence[int], argument: bytes = b"") -> bytes:
    """Run a worker; what it refuses of an archive is the client's error: ArchiveRefused."""
    try:
        return await run_job(entry, argument, fds)
    except KernelRefused as error:
        if error.operand == ArchiveRefused.__name__:
            raise ArchiveRefused(error.reason) from None
        raise
