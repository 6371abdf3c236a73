"""`top`: the processes of a container in the columns that ps prints, read from /proc; other columns by the host's ps."""

from __future__ import annotations

import asyncio
import os
import pwd
import shutil
import time

from corten.errors import Invalid

_TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_TICKS = os.sysconf("SC_CLK_TCK")


class PsFailed(Invalid):
    """Docker answers 500."""

    template = "error running ps: {reason}"


def _boot_time() -> float:
    with open("/proc/stat", encoding="utf-8") as file:
        return next(float(line.split()[1]) for line in file if line.startswith("btime"))


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _terminal(number: int) -> str:
    major, minor = os.major(number), os.minor(number)
    return f"pts/{minor}" if 136 <= major <= 143 else f"tty{minor}" if major == 4 else "?"


def full_format(pids: list[int]) -> list[list[str]]:
    """One row a process, as `ps -ef` prints it. Processes that have just ended are left out."""
    rows: list[list[str]] = []
    boot, now = _boot_time(), time.time()
    for pid in sorted(pids):
        try:
            with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
                text = file.read()
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode("utf-8", "replace").strip()
            uid = os.stat(f"/proc/{pid}").st_uid
        except (FileNotFoundError, ProcessLookupError):
            continue
        name = text[text.index("(") + 1 : text.rindex(")")]
        fields = text[text.rindex(")") + 2 :].split()
        used = (int(fields[11]) + int(fields[12])) / _TICKS
        started = boot + int(fields[19]) / _TICKS
        share = int(100 * used / max(now - started, 1))
        moment = time.strftime("%H:%M" if now - started < 86400 else "%b%d", time.localtime(started))
        clock = time.strftime("%H:%M:%S", time.gmtime(used))
        rows.append([_user(uid), str(pid), fields[1], str(share), moment, _terminal(int(fields[4])), clock, command or f"[{name}]"])
    return rows


async def top(pids: list[int], arguments: str) -> tuple[list[str], list[list[str]]]:
    """(titles, rows). Raises Invalid if ps's output has no PID column, PsFailed if ps does not run."""
    if arguments.strip() in ("", "-ef"):
        return _TITLES, full_format(pids)
    program = shutil.which("ps")
    if program is None:
        raise PsFailed(reason=f"columns for {arguments!r} need the host's ps, and it is not installed (package procps)")
    process = await asyncio.create_subprocess_exec(
        program, *arguments.split(), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    output, errors = await process.communicate()
    if process.returncode:
        raise PsFailed(reason=errors.decode("utf-8", "replace").strip() or f"exit status {process.returncode}")
    lines = output.decode("utf-8", "replace").splitlines()
    titles = lines[0].split()
    if "PID" not in titles:
        raise Invalid("Couldn't find PID field in ps output")
    at, wanted = titles.index("PID"), {str(pid) for pid in pids}
    rows = [line.split(None, len(titles) - 1) for line in lines[1:]]
    return titles, [row for row in rows if len(row) > at and row[at] in wanted]
