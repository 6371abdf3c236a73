"""What a monitor writes down of a container's end, for the daemon that finds it: exit.json in the container's run folder."""

from __future__ import annotations

import os

import msgspec

EXIT_RECORD = "exit.json"


class ExitRecord(msgspec.Struct, frozen=True):
    """What the next daemon needs to know of a container that ended while none was there."""

    exit_code: int
    oom_killed: bool
    finished: int


def write_exit_record(run_dir: str, record: ExitRecord) -> None:
    """Whole or not at all."""
    temporary = os.path.join(run_dir, EXIT_RECORD + ".new")
    with open(temporary, "wb") as file:
        file.write(msgspec.json.encode(record))
    os.rename(temporary, os.path.join(run_dir, EXIT_RECORD))


def read_exit_record(run_dir: str) -> ExitRecord | None:
    """The record of a container that has ended, or None."""
    try:
        with open(os.path.join(run_dir, EXIT_RECORD), "rb") as file:
            return msgspec.json.decode(file.read(), type=ExitRecord)
    except FileNotFoundError:
        return None
