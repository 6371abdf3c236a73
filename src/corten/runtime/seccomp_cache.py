"""Compiled seccomp filters by the digest of their profile: compiling takes 20 ms, looking up takes none."""

from __future__ import annotations

import hashlib
import os

from corten.linux import seccomp
from corten.spec.runtime import parse_seccomp

_compiled: dict[str, tuple[bytes, int]] = {}


def filter_for(section: bytes, cache_dir: str = "") -> tuple[bytes, int]:
    """(BPF program, flags) of an OCI seccomp section given as JSON. Raises OSError, or DecodeError for a bad profile."""
    digest = hashlib.sha256(section).hexdigest()
    found = _compiled.get(digest)
    if found is None:
        parsed = parse_seccomp(section)
        flags = sum(seccomp.FILTER_FLAGS.get(flag, 0) for flag in parsed.flags or [])
        program = _stored(cache_dir, digest)
        if not program:
            program = seccomp.compile_filter(parsed)
            _store(cache_dir, digest, program)
        found = _compiled[digest] = program, flags
    return found


def _stored(cache_dir: str, digest: str) -> bytes:
    try:
        with open(os.path.join(cache_dir, digest), "rb") as file:
            return file.read() if cache_dir else b""
    except OSError:
        return b""


def _store(cache_dir: str, digest: str, program: bytes) -> None:
    if cache_dir:
        os.makedirs(cache_dir, mode=0o700, exist_ok=True)
        temporary = os.path.join(cache_dir, f"{digest}.{os.getpid()}")
        with open(temporary, "wb") as file:
            file.write(program)
        os.rename(temporary, os.path.join(cache_dir, digest))
