"""The FIFOs that are a process's standard streams: held open at both ends, so that whoever reads may die and be replaced."""

from __future__ import annotations

import errno
import os
from contextlib import suppress

from corten.linux.descriptors import close_all


def make_fifo(path: str) -> tuple[int, int]:
    """A named FIFO: (the process's end, ours). The process's end is open both ways, ours reads without blocking."""
    os.mkfifo(path, 0o600)
    theirs = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    return theirs, os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def make_stdin(path: str) -> tuple[int, int]:
    """A FIFO for input: (the process's end, ours). Closing ours is the process's end of file."""
    os.mkfifo(path, 0o600)
    ours = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    theirs = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    os.close(ours)
    return theirs, writer


def open_stdio(run_dir: str, prefix: str, ours: list[int], theirs: list[int], *, open_stdin: bool,
               terminal: bool) -> tuple[dict[str, int], int, tuple[int, int, int] | None]:  # fmt: skip
    """(our readable ends, our input, the process's three). The caller closes `theirs`, and `ours` if the clone fails."""
    if terminal:
        return {}, -1, None
    outputs: dict[str, int] = {}
    ends: list[int] = []
    input_fd = -1
    if open_stdin:
        end, input_fd = make_stdin(f"{run_dir}/{prefix}stdin")
        ours.append(input_fd)
    else:
        end = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    ends.append(end)
    theirs.append(end)
    for stream in ("stdout", "stderr"):
        end, outputs[stream] = make_fifo(f"{run_dir}/{prefix}{stream}")
        ours.append(outputs[stream])
        ends.append(end)
        theirs.append(end)
    return outputs, input_fd, (ends[0], ends[1], ends[2])


def reopen_stdio(run_dir: str, *, open_stdin: bool) -> tuple[dict[str, int], int]:
    """(our readable ends, our input) of a container that has its own ends still open. Raises OSError if it never had them."""
    opened: list[int] = []
    try:
        for stream in ("stdout", "stderr"):
            opened.append(os.open(f"{run_dir}/{stream}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))
        input_fd = _reopen_input(f"{run_dir}/stdin") if open_stdin else -1
    except BaseException:
        close_all(opened)
        raise
    return {"stdout": opened[0], "stderr": opened[1]}, input_fd


def _reopen_input(path: str) -> int:
    try:
        return os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return -1  # the process has closed its end


def unlink_fifos(run_dir: str, prefix: str) -> None:
    """Idempotent."""
    for stream in ("stdin", "stdout", "stderr"):
        with suppress(FileNotFoundError):
            os.unlink(f"{run_dir}/{prefix}{stream}")
