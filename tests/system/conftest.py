"""Fixtures of the system tests. What the machine lacks is said by name, and the test skipped."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess

import pytest

from tests.engines import RunningEngine, eventually, free_port
from tests.places import Place
from tests.system.fake_registry import FakeRegistry


@pytest.fixture(scope="session", autouse=True)
def root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root", allow_module_level=True)


@pytest.fixture(scope="session")
def assets() -> str:
    folder = os.environ.get("CORTEN_ASSETS", "")
    if not os.path.isdir(folder):
        pytest.skip("needs the assets that `make system` makes (CORTEN_ASSETS is not set)")
    return folder


@pytest.fixture(scope="session")
def docker_cli(assets) -> str:
    program = f"{assets}/clients/usr/bin/docker"
    if not os.path.exists(program):
        pytest.skip("needs the docker CLI in the assets")
    return program


@pytest.fixture(scope="session")
def engine(assets):
    running = RunningEngine("a")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


@pytest.fixture
def own_engine(assets):
    """An engine of the test's own, to be killed and restarted."""
    running = RunningEngine("b")
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def place():
    """Hosts of the test module's own (tests/places.py)."""
    need("nft")
    need("nsenter")
    with Place() as made:
        yield made


@pytest.fixture
def placed_engine(place, assets):
    """An engine on such a host, of the test's own; what others have of nftables there goes with it."""
    with place.engine("f", assets) as running:
        yield running
    place.nft("flush", "ruleset")


def need(program: str) -> str:
    found = shutil.which(program)
    if not found:
        pytest.skip(f"needs {program}")
    return found


def listens(port: int, address: str = "127.0.0.1") -> bool:
    """Whether a program has opened the port by now."""
    try:
        socket.create_connection((address, port), 5).close()
    except ConnectionError:
        return False
    return True


@pytest.fixture(scope="session")
def registry(assets, tmp_path_factory):
    """Debian's docker-registry on loopback with `debian` in it; its address."""
    program, skopeo = need("docker-registry"), need("skopeo")
    folder, port = tmp_path_factory.mktemp("registry"), free_port()
    (folder / "config.yml").write_text(
        f"version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {folder}/data\nhttp:\n  addr: 127.0.0.1:{port}\n"
    )
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen([program, "serve", str(folder / "config.yml")], stdout=log, stderr=log)
    try:
        eventually(lambda: listens(port))
        for name in ("debian", "busybox"):
            subprocess.run(
                [skopeo, "--insecure-policy", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{assets}/images/{name}.tar",
                 f"docker://127.0.0.1:{port}/{name}:latest"],
                check=True, capture_output=True,
            )  # fmt: skip
        yield f"127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture
def fake():
    servers = []

    def start(*, token: bool = False, certificate: tuple[str, str] | None = None) -> FakeRegistry:
        servers.append(FakeRegistry(token=token, certificate=certificate))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()
