"""AppArmor: whether the kernel enforces it, which profiles it has, loading one, and what the next program runs under.

What a profile says is spec/apparmor.py's; who runs under which is engine/confinement.py's.
Sources: apparmor_parser(8); the kernel's security/apparmor (apparmorfs.c, lsm.c: "exec NAME" in /proc/self/attr).
"""

from __future__ import annotations

import os

_ENABLED = "/sys/module/apparmor/parameters/enabled"
_LOADED = "/sys/kernel/security/apparmor/profiles"
_PARSERS = ("/sbin/apparmor_parser", "/usr/sbin/apparmor_parser")
_ATTRIBUTES = ("/proc/self/attr/apparmor/exec", "/proc/self/attr/exec")  # the first where several LSMs are stacked


def enabled() -> bool:
    """The kernel enforces AppArmor, and its file system is there to ask it."""
    try:
        with open(_ENABLED, encoding="ascii") as file:
            return file.read(1) == "Y" and os.path.exists(_LOADED)
    except OSError:
        return False


def parser() -> str:
    """The program that compiles profiles; empty where it is not installed."""
    return next((path for path in _PARSERS if os.access(path, os.X_OK)), "")


def parse_profiles(text: str) -> frozenset[str]:
    """Pure: the names in `NAME (mode)` lines; a name may have spaces and parentheses of its own."""
    return frozenset(line.rpartition(" (")[0] for line in text.splitlines() if line.endswith(")"))


def profiles() -> frozenset[str]:
    """What is loaded. Raises OSError where this process may not know."""
    with open(_LOADED, encoding="utf-8", errors="surrogateescape") as file:
        return parse_profiles(file.read())


def load(text: str) -> None:
    """Compile and load a profile, in place of one of the same name. Raises OSError with the parser's words."""
    import subprocess  # this module is in every monitor; loading is once a boot

    done = subprocess.run([parser(), "-Kr"], input=text, capture_output=True, text=True, timeout=60, check=False)  # -K: no cache file
    if done.returncode:
        raise OSError(22, " ".join((done.stderr or done.stdout).split()) or "apparmor_parser failed", "profile")


def confine_exec(profile: str) -> None:
    """From the next execve on, the calling process runs under `profile`. ENOENT: no such profile is loaded."""
    path = next((path for path in _ATTRIBUTES if os.path.exists(path)), _ATTRIBUTES[-1])
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, f"exec {profile}".encode())
    except OSError as error:
        raise OSError(error.errno, os.strerror(error.errno or 0), profile) from None
    finally:
        os.close(fd)
