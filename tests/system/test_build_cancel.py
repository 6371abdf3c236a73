"""A client that leaves, and an engine that is killed, at every stage of a build: nothing goes on for nobody, and nothing stays.

What is there is read from the engine's folders, its database, and the kernel: processes, mounts, links, control groups.
"""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import threading
from contextlib import closing
from urllib.parse import urlencode

import pytest

from tests.builds import build, context
from tests.engines import RunningEngine, eventually
from tests.system.test_build_failures import leftovers, processes_with
from tests.system.test_build_memory import family


def begin(engine: RunningEngine, body: bytes, *, whole: bool = True, **query: str) -> socket.socket:
    """A build whose client is in the test's hand; without `whole` the last thousand bytes are still to come."""
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(engine.socket)
    head = f"POST /build?{urlencode(query)} HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\nX-Registry-Config: e30=\r\nContent-Length: {len(body)}\r\n\r\n"
    sock.sendall(head.encode() + (body if whole else body[:-1000]))
    return sock


def held(engine: RunningEngine) -> dict[str, object]:
    """All that a build may have made for good: files of the store, rows of the database."""
    folders = ("layers", "blobs/sha256", "partial", "cache-mounts", "inits")
    found: dict[str, object] = {name: sorted(os.listdir(f"{engine.data_root}/{name}")) for name in folders}
    with closing(sqlite3.connect(f"file:{engine.data_root}/state.db?mode=ro", uri=True)) as database:
        for (table,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%'").fetchall():
            if table != "uses":  # when an image was used last
                found[table] = database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return found


def in_kernel(engine: RunningEngine) -> dict[str, list[str]]:
    """What the kernel has of an engine: mounts below its folders, ports of its bridge, groups below its own."""
    with open("/proc/self/mountinfo", encoding="utf-8") as file:
        mounts = [line.split()[4] for line in file if engine.name in line]
    ports = f"/sys/class/net/{engine.bridge}/brif"
    groups = [folder for root in os.listdir("/sys/fs/cgroup") for folder, _, _ in os.walk(f"/sys/fs/cgroup/{root}{engine.cgroup_parent}")]
    groups += [folder for folder, _, _ in os.walk(f"/sys/fs/cgroup{engine.cgroup_parent}")]
    return {"mounts": mounts, "links": os.listdir(ports) if os.path.isdir(ports) else [], "groups": sorted(groups)}


def settled(engine: RunningEngine, before: dict[str, object], kernel: dict[str, list[str]], processes: int) -> bool:
    """Whether nothing is there that was not there before; processes are counted."""
    return not leftovers(engine) and held(engine) == before and in_kernel(engine) == kernel and len(family(engine.process.pid)) == processes


@pytest.fixture
def quiet(own_engine):
    """(engine, whether it is as it was): a step has been run before, so that its bridge, groups and monitors are there."""
    build(own_engine, {"Dockerfile": "FROM busybox\nRUN echo warm\n"}, t="warm:1")
    eventually(lambda: not leftovers(own_engine))
    blobs = [f"{own_engine.data_root}/blobs/{diff_id.replace(':', '/')}" for diff_id in own_engine.client.get("/images/warm:1/json")["RootFS"]["Layers"]]
    eventually(lambda: not any(map(os.path.exists, blobs)))  # they go a moment after their layers are there
    state = held(own_engine), in_kernel(own_engine), len(family(own_engine.process.pid))
    return own_engine, lambda: settled(own_engine, *state)


def test_while_the_context_is_sent(quiet):
    engine, as_before = quiet
    sock = begin(engine, context({"Dockerfile": "FROM busybox\nCOPY . /x\n", "big": os.urandom(4_000_000)}), whole=False)
    eventually(lambda: leftovers(engine))  # it is being taken in
    sock.close()
    eventually(as_before)


def test_while_files_are_copied(quiet):
    engine, as_before = quiet
    files = {f"d{number % 50}/{number}": "x" for number in range(8_000)}
    sock = begin(engine, context({"Dockerfile": "FROM busybox\nCOPY . /x\n", **files}))
    eventually(lambda: [name for name in os.listdir(f"{engine.data_root}/containers") if os.path.isdir(f"{engine.data_root}/containers/{name}/upper/x/d1")])
    sock.close()
    eventually(as_before)


def test_while_a_program_runs(quiet):
    engine, _ = quiet
    sock = begin(engine, context({"Dockerfile": "FROM busybox\nRUN --mount=target=/ctx --mount=type=tmpfs,target=/t sleep 4721 & sleep 4722\n"}))
    eventually(lambda: processes_with("4721") and processes_with("4722"))
    sock.close()
    eventually(lambda: not processes_with("4721") and not processes_with("4722"))
    eventually(lambda: not leftovers(engine) and not in_kernel(engine)["links"])
    assert in_kernel(engine)["mounts"] == []


def test_while_an_image_is_pushed(quiet):
    """The registry takes the connection and says nothing: the engine hangs up once its client has."""
    engine, _ = quiet
    with socket.create_server(("127.0.0.1", 0)) as server:
        name = f"127.0.0.1:{server.getsockname()[1]}/stuck"
        sock = begin(engine, context({"Dockerfile": "FROM busybox\nENV a=1\n"}), t=f"{name}:1", outputs=json.dumps([{"Type": "registry"}]))
        server.settimeout(60)
        connection, _ = server.accept()
        with connection:
            connection.settimeout(60)
            assert connection.recv(1 << 16)  # a greeting
            sock.close()
            assert connection.recv(1 << 16) == b""
    eventually(lambda: not leftovers(engine))


def test_while_a_result_is_fetched(quiet):
    engine, _ = quiet
    body = context({"Dockerfile": "FROM busybox\nCOPY big /big\n", "big": os.urandom(8_000_000)})
    with engine.client.open("POST", "/build", query={"outputs": json.dumps([{"Type": "oci"}])}, body=body, headers={"Content-Type": "application/x-tar"}) as response:
        told = [json.loads(line) for line in response if line.strip()]
    [parcel] = [message["aux"]["corten.output"] for message in told if "corten.output" in message.get("aux", {})]
    response = engine.client.open("GET", f"/corten/build/outputs/{parcel['ID']}")
    assert len(response.read(1000)) == 1000
    assert leftovers(engine)  # the archive's blobs
    response.close()
    eventually(lambda: not leftovers(engine))


def test_the_docker_cli_interrupted(quiet, docker_cli, tmp_path):
    engine, as_before = quiet
    (tmp_path / "Dockerfile").write_text("FROM busybox\nRUN sleep 4723\n")
    building = subprocess.Popen([docker_cli, "build", str(tmp_path)], env=engine.environment | {"DOCKER_BUILDKIT": "0"}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    eventually(lambda: processes_with("4723"))
    building.send_signal(2)
    building.wait()
    eventually(lambda: not processes_with("4723"))
    eventually(as_before)


def test_an_engine_killed_while_much_goes_on(quiet):
    """A context being sent, files being copied, a program on the network with mounts, all at once; then kill -9."""
    engine, _ = quiet
    before = held(engine)
    files = {f"d{number % 50}/{number}": "x" for number in range(8_000)}
    socks = [
        begin(engine, context({"Dockerfile": "FROM busybox\nCOPY . /x\n", "big": os.urandom(4_000_000)}), whole=False),
        begin(engine, context({"Dockerfile": "FROM busybox\nRUN --mount=type=cache,target=/c --mount=type=tmpfs,target=/t sleep 4724\n"})),
    ]
    eventually(lambda: processes_with("4724"))
    socks.append(begin(engine, context({"Dockerfile": "FROM busybox\nCOPY . /x\n", **files})))
    eventually(lambda: [name for name in os.listdir(f"{engine.data_root}/containers") if os.path.isdir(f"{engine.data_root}/containers/{name}/upper/x/d1")])
    engine.kill()
    for sock in socks:
        sock.close()
    engine.start()
    eventually(lambda: not processes_with("4724") and not leftovers(engine))
    kernel = in_kernel(engine)
    assert kernel["mounts"] == []
    assert kernel["links"] == []
    after = held(engine)
    assert {name: after[name] for name in ("layers", "blobs/sha256", "images", "build_cache")} == {name: before[name] for name in ("layers", "blobs/sha256", "images", "build_cache")}
    assert build(engine, {"Dockerfile": "FROM busybox\nRUN echo warm\n"}).cached == 1
    assert build(engine, {"Dockerfile": "FROM busybox\nCOPY . /x\n", **files}).image


def test_concurrent_builds_share_every_kind_of_step(own_engine):
    """Three builds at once of the same stages: every RUN is run once, and the copies become the same layers."""
    dockerfile = "FROM busybox AS a\nRUN cat /proc/sys/kernel/random/uuid >/a; sleep 1\nFROM busybox\nCOPY d /d\nCOPY --from=a /a /c\nRUN cat /proc/sys/kernel/random/uuid >/b; sleep 1\n"
    files = {"Dockerfile": dockerfile, **{f"d/{number}": "x" * 100 for number in range(500)}}
    results = []
    threads = [threading.Thread(target=lambda: results.append(build(own_engine, files))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({result.image for result in results}) == 1
    assert len(os.listdir(f"{own_engine.data_root}/layers")) == 1 + 4  # busybox, and one of each step


def test_the_cache_survives_a_restart_and_a_reload(own_engine):
    files = {"Dockerfile": "FROM busybox AS a\nRUN echo 1 >/one\nFROM busybox\nCOPY --from=a /one /\nCOPY f /\nRUN --mount=type=cache,target=/c echo x >>/c/x; cat /c/x >/x\n", "f": "f"}
    first = build(own_engine, files)
    own_engine.terminate()
    own_engine.start()
    again = build(own_engine, files)
    assert (again.cached, again.image) == (4, first.image)
    own_engine.kill()
    own_engine.start()
    assert build(own_engine, files).cached == 4
