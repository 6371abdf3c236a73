"""What holds for every test run: nothing may be left on the machine. A leftover fails the run, whatever the tests said.

What is a run's own is told by its process id, so that two runs beside each other do not see one another: processes by the
variable CORTEN_TEST_RUN that they inherit, everything else by its name.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable

import hypothesis
import pytest

from tests.engines import PATIENCE

# The same code gets the same answer every time; to look further: HYPOTHESIS_PROFILE=explore. No deadlines: machines are noisy.
hypothesis.settings.register_profile("fixed", derandomize=True, deadline=None)
hypothesis.settings.register_profile("explore", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

_RUN = os.getpid()
_VARIABLE = f"CORTEN_TEST_RUN={_RUN}".encode()
_NAMES = re.compile(rf"cortest-([a-z0-9]+-)?{_RUN}\b|\bct{_RUN % 100000}[a-z]|\bcto{_RUN % 100000}\b")


def _processes() -> set[str]:
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/environ", "rb") as file:
                inherited = _VARIABLE in file.read().split(b"\0")
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                command = file.read().replace(b"\0", b" ").decode("utf-8", "replace")
            with open(f"/proc/{pid}/comm", encoding="utf-8") as file:
                name = file.read().strip()
        except OSError:
            continue
        if inherited and int(pid) != _RUN:
            found.add(f"process {pid}: {command or name}")
    return found


def _mounts() -> set[str]:
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        return {f"mount {line.split()[4]}" for line in file if _NAMES.search(line)}


def _links() -> set[str]:
    """Of ours by name, and veths that hang on no bridge: those of a run beside this one do, while they are in use."""
    names = os.listdir("/sys/class/net")
    lost = {name for name in names if name.startswith("veth") and not os.path.exists(f"/sys/class/net/{name}/master")}
    return {f"link {name}" for name in names if _NAMES.search(name) or name in lost}


def _cgroups() -> set[str]:
    found = set()
    for folder, names, _ in os.walk("/sys/fs/cgroup"):
        found |= {f"cgroup {folder}/{name}" for name in names if _NAMES.search(name)}
        if folder.count("/") >= 4:
            names.clear()
    return found


def _tables() -> set[str]:
    try:
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return set()
    return {f"nftables {line}" for line in done.stdout.splitlines() if _NAMES.search(line)}


def _folders() -> set[str]:
    return {f"folder {parent}/{name}" for parent in ("/run", "/tmp", "/var/run/netns") if os.path.isdir(parent)
            for name in os.listdir(parent) if _NAMES.search(name)}  # fmt: skip


_LOOKS: tuple[Callable[[], set[str]], ...] = (_processes, _mounts, _links, _cgroups, _tables, _folders)


def what_is_there() -> set[str]:
    return set().union(*(look() for look in _LOOKS))


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    config.stash[_BEFORE] = what_is_there()
    if not config.option.basetemp:  # pytest's own folder is shared: runs beside each other clean up under one another's feet
        config.option.basetemp = f"{tempfile.gettempdir()}/cortest-{_RUN}-files"
    os.environ["CORTEN_TEST_RUN"] = str(_RUN)


_BEFORE = pytest.StashKey[set]()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    shutil.rmtree(f"{tempfile.gettempdir()}/cortest-{_RUN}-files", ignore_errors=True)
    end = time.monotonic() + 5 * PATIENCE  # the kernel and the monitors take a moment to let go
    while (left := what_is_there() - session.config.stash[_BEFORE]) and time.monotonic() < end:
        time.sleep(0.05)
    if left:
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        reporter.write_line("left behind by this test run:", red=True)
        for line in sorted(left):
            reporter.write_line(f"  {line}")
        session.exitstatus = 1
