"""What holds for every test run: nothing may be left on the machine. A leftover fails the run, whatever the tests said."""

from __future__ import annotations

import os
import re
import subprocess
import time

import pytest

_OURS = re.compile(r"corten|cortest")
_OUR_RUN = re.compile(rf"corten|cortest-{os.getpid()}-")  # where another test run beside this one may leave its own for a while


def _processes() -> set[str]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode("utf-8", "replace")
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
        except OSError:
            continue
        if name.startswith("corten-") or re.search(r"corten\.(api\.daemon|runtime\.)|bin/cortend", command):
            found.add(f"process {pid}: {command or name}")
    return found


def _mounts() -> set[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return {f"mount {line.split()[4]}" for line in file if _OURS.search(line.split()[4]) or " - overlay " in line}


def _links() -> set[str]:
    return {f"link {name}" for name in os.listdir("/sys/class/net") if _OURS.search(name) or name.startswith("veth")}


def _cgroups() -> set[str]:
    found = set()
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"cgroup {folder}/{name}" for name in names if _OUR_RUN.search(name)}
        if folder.count("/") >= 4:
            names.clear()
    return found


def _tables() -> set[str]:
    try:
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return set()
    return {f"nftables {line}" for line in done.stdout.splitlines() if _OURS.search(line)}


def _run_folders() -> set[str]:
    return {f"folder /run/{name}" for name in os.listdir("/run") if name.startswith(f"cortest-{os.getpid()}-")}


def what_is_there() -> set[str]:
    return _processes() | _mounts() | _links() | _cgroups() | _tables() | _run_folders()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BEFORE] = what_is_there()


_BEFORE = pytest.StashKey[set]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    end = time.monotonic() + 5  # the kernel and the monitors take a moment to let go
    while (left := what_is_there() - session.config.stash[_BEFORE]) and time.monotonic() < end:
        time.sleep(0.05)
    if left:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line("left behind by this test run:", red=True)
        for line in sorted(left):
            reporter.write_line(f"  {line}")
        session.exitstatus = 1
