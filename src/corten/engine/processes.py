"""`top`: the processes of a container in the columns that ps prints, read from /proc; other columns by the host's ps."""

from __future__ import annotations

import asyncio
import os
import pwd
import re
import shutil
import time

from corten.errors import Invalid

_TITLES = ["UID", "PID", "PPID", "C", "STIME", "TTY", "TIME", "CMD"]
_FIELDS = re.compile(r"[^\t\n\f\r ]+")  # a command may hold other white space
_TICKS = os.sysconf("SC_CLK_TCK")


_RENAMED_PID = re.compile(r"\s+(\S*)=\s*(PID\S*)")


class PsFailed(Invalid):
    template = "ps: {reason}"


class NoPidColumn(Invalid):
    template = "Couldn't find PID field in ps output"


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
    """(titles, rows). Raises NoPidColumn, PsFailed with what ps says, Invalid for a column that only looks like the PID."""
    if arguments.strip() in ("", "-ef"):
        return _TITLES, full_format(pids)
    for key, value in _RENAMED_PID.findall(arguments):
        if key != "pid":
            raise Invalid(f'specifying "{key}={value}" is not allowed')
    words = arguments.split(" ")
    status, output, _ = await _ps([*words, f"-q{','.join(map(str, pids))}"])
    if status:  # some options cannot be used together with -q
        status, output, errors = await _ps(words)
        if status:
            raise PsFailed(reason=errors.partition("\n")[0] or f"exit status {status}")
    return parse_ps(output, frozenset(pids))


async def _ps(arguments: list[str]) -> tuple[int, str, str]:
    program = shutil.which("ps")
    if program is None:
        raise PsFailed(reason="these columns need the host's ps, and it is not installed (package procps)")
    process = await asyncio.create_subprocess_exec(program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE)
    output, errors = await process.communicate()
    return process.returncode or 0, output.decode("utf-8", "replace"), errors.decode("utf-8", "replace")


def parse_ps(output: str, pids: frozenset[int]) -> tuple[list[str], list[list[str]]]:
    """Pure: the rows of these processes, and of their threads (`m`: lines without a number after their process's)."""
    lines = [_FIELDS.findall(line) for line in output.split("\n") if line]
    titles = lines[0] if lines else []
    if "PID" not in titles:
        raise NoPidColumn
    at, last = titles.index("PID"), len(titles) - 1
    rows: list[list[str]] = []
    ours = False
    for fields in lines[1:]:
        if len(fields) <= at:
            continue
        number = fields[at]
        ours = ours if number == "-" else number.isdecimal() and int(number) in pids
        if ours:
            rows.append([*fields[:last], " ".join(fields[last:])])
    return titles, rows
