"""What an idle engine and its children carry: heavy modules are there from their first use on, not before. And free pages go to the kernel."""

import subprocess
import sys

import pytest

# What only some engines ever use: libraries, and the builder beyond its cache.
LATE = {"cryptography", "yaml", "obstore", "deflate", "corten.builder.solve", "corten.builder.parser", "corten.builder.attest",
        "corten.api.build", "corten.api.build_assembly", "corten.registry.signatures"}  # fmt: skip
# What costs each monitor its own: OpenSSL (by way of hashlib), and all that the engine is made of.
DAEMONS = LATE | {"zstandard", "isal", "hashlib", "_hashlib", "ssl", "asyncio", "aiohttp", "sqlite3", "logging", "subprocess", "tarfile", "calendar"}


def loaded_by(module):
    code = f"import sys, {module}; print(*sys.modules)"
    return set(subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout.split())


@pytest.mark.parametrize(("module", "absent"), [("corten.api.daemon", LATE), ("corten.runtime.launcher", DAEMONS)])
def test_heavy_modules_are_not_loaded_at_the_start(module, absent):
    assert not loaded_by(module) & absent


def test_free_pages_between_used_ones_go_back_to_the_kernel():
    code = """
from corten.linux.memory import give_back
def anonymous():
    with open("/proc/self/smaps_rollup") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("Anonymous"))
blocks = [bytes([number % 256]) * 60_000 for number in range(1000)]  # below the size that is mapped apart
kept = blocks[::50] + [blocks[-1]]
del blocks
before = anonymous()
give_back()
print(before - anonymous())
"""
    freed = int(subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True).stdout)
    assert freed > 30_000
