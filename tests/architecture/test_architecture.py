"""The import rule and the other rules of DESIGN that a program can check."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

import pytest

import corten

ROOT = os.path.dirname(corten.__file__)
# package -> the packages of Corten that it may import (besides itself)
MAY_IMPORT = {
    "errors": set(),
    "utf8": set(),
    "spec": {"errors"},
    "linux": {"errors", "spec"},
    "store": {"errors", "spec", "linux"},
    "runtime": {"errors", "spec", "linux"},
    "network": {"errors", "spec", "linux"},
    "registry": {"errors", "spec", "linux", "store"},
    "engine": {"errors", "spec", "linux", "store", "runtime", "network", "registry"},
    "builder": {"errors", "spec", "linux", "store", "runtime", "network", "registry"},
    "api": {"errors", "spec", "linux", "store", "runtime", "network", "registry", "engine", "builder", "utf8"},
    "cli": {"errors", "spec", "api.client", "utf8"},
}
JUNK_DRAWERS = {"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "tools"}
# What the launcher and every monitor carry must stay light: each fork pays for it.
HEAVY = {"asyncio", "aiohttp", "http", "ssl", "sqlite3", "tarfile", "logging", "subprocess", "zstandard", "isal"}
FORKED = ("interpreter", "launcher", "monitor", "sandbox", "init", "plan", "operations", "stdio", "clients", "spool", "logdrivers/container_log", "logdrivers/stored", "logdrivers/rotation", "messages", "reactor", "users", "seccomp_cache")


def sources() -> Iterator[tuple[str, ast.Module]]:
    for folder, _, names in os.walk(ROOT):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                with open(path, encoding="utf-8") as file:
                    yield os.path.relpath(path, ROOT), ast.parse(file.read())


def imported(tree: ast.Module, *, top_only: bool = False) -> Iterator[str]:
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


ALL = sorted(sources(), key=lambda pair: pair[0])


@pytest.mark.parametrize("path, tree", ALL, ids=[path for path, _ in ALL])
def test_imports_point_only_downward(path, tree):
    package = path.split(os.sep)[0].removesuffix(".py")
    if package == "__init__":
        return
    allowed = {f"corten.{name}" for name in {package, *MAY_IMPORT[package]}}
    for name in imported(tree):
        if name.startswith("corten.") and name != "corten.__version__":
            assert any(name == good or name.startswith(good + ".") for good in allowed), f"{path} imports {name}"


@pytest.mark.parametrize("path, tree", ALL, ids=[path for path, _ in ALL])
def test_ctypes_only_in_linux(path, tree):
    if not path.startswith("linux" + os.sep):
        assert not any(name == "ctypes" or name.startswith("ctypes.") for name in imported(tree)), path


def test_no_junk_drawers():
    names = {os.path.basename(path).removesuffix(".py") for path, _ in ALL}
    names |= {part for path, _ in ALL for part in path.split(os.sep)[:-1]}
    assert not names & JUNK_DRAWERS


@pytest.mark.parametrize("name", FORKED)
def test_what_forks_is_light(name):
    tree = dict(ALL)[os.path.join("runtime", f"{name}.py")]
    assert not HEAVY & {module.split(".")[0] for module in imported(tree, top_only=True)}


@pytest.mark.parametrize("path, tree", ALL, ids=[path for path, _ in ALL])
def test_every_file_says_what_it_owns(path, tree):
    assert len(ast.get_docstring(tree) or "") > 30, f"{path} has no header"


@pytest.mark.parametrize("path, tree", ALL, ids=[path for path, _ in ALL])
def test_files_and_functions_stay_readable(path, tree):
    longest = max((node.end_lineno - node.lineno + 1 for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)), default=0)
    assert longest <= 100, f"{path} has a function of {longest} lines"
    with open(os.path.join(ROOT, path), encoding="utf-8") as file:
        assert len(file.readlines()) <= 600, f"{path} is too long: a noun is missing"


@pytest.mark.parametrize("path, tree", ALL, ids=[path for path, _ in ALL])
def test_no_error_is_swallowed(path, tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and len(node.body) == 1 and isinstance(node.body[0], ast.Pass):
            kind = ast.unparse(node.type) if node.type else "everything"
            assert kind in ("BlockingIOError", "FileNotFoundError", "msgspec.ValidationError"), f"{path}:{node.lineno} passes on {kind}"


def test_cli_start_is_lean():
    import subprocess
    import sys

    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-c", "import sys; sys.argv = ['corten', '--version']\nfrom corten.cli.main import main\nmain()"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time")}
    assert done.stdout.startswith("corten ")
    assert not loaded & {"asyncio", "aiohttp", "sqlite3", "msgspec", "http.client", "ssl", "corten.cli.run", "corten.engine"}
