"""Compiled seccomp filters by their profile: compiling takes 20 ms, looking up takes none.

A file is named by the profile's CRC and holds the profile before the program, so that two profiles of one CRC are never taken for one
another. A cryptographic digest would do the same for 3 MiB (OpenSSL) in the launcher and in every monitor.
"""

from __future__ import annotations

import os
import zlib

from corten.linux import seccomp
from corten.spec.runtime import parse_seccomp

_compiled: dict[bytes, tuple[bytes, int]] = {}


def filter_for(section: bytes, cache_dir: str = "") -> tuple[bytes, int]:
    """(BPF program, flags) of an OCI seccomp section given as JSON. Raises OSError, or DecodeError for a bad profile."""
    found = _compiled.get(section)
    if found is None:
        parsed = parse_seccomp(section)
        flags = sum(seccomp.FILTER_FLAGS.get(flag, 0) for flag in parsed.flags or [])
        path = os.path.join(cache_dir, f"{zlib.crc32(section):08x}") if cache_dir else ""
        program = _stored(path, section)
        if not program:
            program = seccomp.compile_filter(parsed)
            _store(path, section, program)
        found = _compiled[section] = program, flags
    return found


def _head(section: bytes) -> bytes:
    return len(section).to_bytes(8) + section


def _stored(path: str, section: bytes) -> bytes:
    """Empty if there is none of this very profile."""
    head = _head(section)
    try:
        with open(path, "rb") as file:
            return file.read() if file.read(len(head)) == head else b""
    except OSError:
        return b""


def _store(path: str, section: bytes, program: bytes) -> None:
    if path:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        temporary = f"{path}.{os.getpid()}"
        with open(temporary, "wb") as file:
            file.write(_head(section) + program)
        os.rename(temporary, path)
