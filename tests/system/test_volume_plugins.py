"""Volume plugins: a small one of the tests' own, spoken to by Docker's protocol over its socket."""

from __future__ import annotations

import http.server
import json
import os
import socketserver
import threading

import pytest

from corten.api.client import ApiError
from tests.engines import RunningEngine


class Plugin(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Keeps volumes as folders, remembers what it was asked, and fails when told to."""

    daemon_threads = True

    def __init__(self, socket_path: str, folder: str) -> None:
        self.folder, self.calls, self.failing = folder, [], set()
        self.volumes: dict[str, dict] = {}
        super().__init__(socket_path, Handler)

    def answer(self, method: str, asked: dict) -> dict:
        self.calls.append((method, asked))
        if method in self.failing:
            return {"Err": f"{method} does not work today"}
        name = asked.get("Name", "")
        path = f"{self.folder}/{name}"
        if method == "Plugin.Activate":
            return {"Implements": ["VolumeDriver"]}
        if method == "VolumeDriver.Capabilities":
            return {"Capabilities": {"Scope": "global"}}
        if method == "VolumeDriver.Create":
            os.makedirs(path, exist_ok=True)
            self.volumes[name] = asked.get("Opts") or {}
            return {}
        if method == "VolumeDriver.List":
            return {"Volumes": [{"Name": each, "Mountpoint": f"{self.folder}/{each}"} for each in self.volumes]}
        if name not in self.volumes:
            return {"Err": f"no volume {name}"}
        if method == "VolumeDriver.Get":
            return {"Volume": {"Name": name, "Mountpoint": path, "Status": {"options": self.volumes[name]}}}
        if method in ("VolumeDriver.Mount", "VolumeDriver.Path"):
            return {"Mountpoint": path}
        if method == "VolumeDriver.Remove":
            del self.volumes[name]
        return {}


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        body = json.dumps(self.server.answer(self.path.strip("/"), asked)).encode()
        self.send_response(500 if b'"Err"' in body else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        """Tests are quiet."""

    def address_string(self) -> str:
        return "engine"


@pytest.fixture(scope="module")
def engine(assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("plugins")
    running = RunningEngine("p", "--plugin-dir", str(folder))
    running.plugins = folder
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


@pytest.fixture
def plugin(engine, tmp_path):
    path = f"{engine.plugins}/shelf.sock"
    server = Plugin(path, str(tmp_path))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        engine.remove_all()
        server.failing.clear()
        for volume in engine.client.get("/volumes")["Volumes"]:
            engine.client.delete(f"/volumes/{volume['Name']}")
        server.shutdown()
        thread.join()
        server.server_close()
        os.unlink(path)


def asked(plugin: Plugin, method: str) -> list[dict]:
    return [arguments for name, arguments in plugin.calls if name == f"VolumeDriver.{method}"]


def test_a_life_with_a_plugin(engine, docker_cli, plugin, tmp_path):
    engine.docker(docker_cli, "volume", "create", "-d", "shelf", "-o", "colour=red", "books")
    assert asked(plugin, "Create") == [{"Name": "books", "Opts": {"colour": "red"}}]
    shown = json.loads(engine.docker(docker_cli, "volume", "inspect", "books").stdout)[0]
    assert (shown["Driver"], shown["Scope"], shown["Status"], shown["Mountpoint"]) == ("shelf", "global", {"options": {"colour": "red"}}, str(tmp_path / "books"))
    boxes = [engine.run("sh", "-c", "echo read >>/data/book; sleep 600", Binds=["books:/data"]) for _ in range(2)]
    assert [arguments["Name"] for arguments in asked(plugin, "Mount")] == ["books", "books"]
    assert sorted(arguments["ID"] for arguments in asked(plugin, "Mount")) == sorted(boxes)
    with pytest.raises(ApiError, match="volume is in use"):
        engine.client.delete("/volumes/books")
    for box in boxes:
        engine.remove(box)
    assert [arguments["ID"] for arguments in asked(plugin, "Unmount")] == boxes
    assert (tmp_path / "book").exists() is False
    assert "read" in (tmp_path / "books/book").read_text()
    engine.docker(docker_cli, "volume", "rm", "books")
    assert asked(plugin, "Remove") == [{"Name": "books"}]
    assert "shelf" in engine.client.get("/info")["Plugins"]["Volume"]


def test_the_image_fills_a_plugins_volume(engine, plugin, tmp_path):
    code, shown = engine.output("true", Mounts=[{"Type": "volume", "Source": "etc", "Target": "/etc", "VolumeOptions": {"DriverConfig": {"Name": "shelf"}}}])
    assert code == 0, shown
    assert {"passwd", "group"} <= set(os.listdir(tmp_path / "etc"))


def test_volume_driver_of_the_host_config(engine, plugin):
    box = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "Volumes": {"/anon": {}}, "HostConfig": {"VolumeDriver": "shelf", "Binds": ["named:/n"]}})["Id"]
    assert {mount["Driver"] for mount in engine.client.get(f"/containers/{box}/json")["Mounts"]} == {"shelf"}
    engine.client.delete(f"/containers/{box}", v=1)
    assert set(plugin.volumes) == {"named"}


def test_volumes_that_only_the_plugin_knows(engine, plugin, tmp_path):
    plugin.answer("VolumeDriver.Create", {"Name": "found"})
    assert [(volume["Name"], volume["Driver"]) for volume in engine.client.get("/volumes")["Volumes"]] == [("found", "shelf")]
    assert engine.client.get("/volumes/found")["Mountpoint"] == str(tmp_path / "found")
    code, shown = engine.output("touch", "/data/x", Binds=["found:/data"])
    assert code == 0, shown
    assert os.listdir(tmp_path / "found") == ["x"]
    with pytest.raises(ApiError, match="driver 'shelf' already has volume 'found'"):
        engine.client.post("/volumes/create", {"Name": "found", "Driver": "local"})


def test_a_plugin_that_fails_is_quoted(engine, plugin):
    plugin.failing = {"VolumeDriver.Create"}
    with pytest.raises(ApiError, match=r"create bad: VolumeDriver.Create: VolumeDriver.Create does not work today"):
        engine.client.post("/volumes/create", {"Name": "bad", "Driver": "shelf"})
    plugin.failing = {"VolumeDriver.Mount"}
    engine.client.post("/volumes/create", {"Name": "unmountable", "Driver": "shelf"})
    box = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": ["unmountable:/data"]}})["Id"]
    with pytest.raises(ApiError, match=r"error while mounting volume '.*': VolumeDriver.Mount: VolumeDriver.Mount does not work today"):
        engine.client.post(f"/containers/{box}/start")
    engine.remove(box)
    plugin.failing = {"VolumeDriver.Remove"}
    with pytest.raises(ApiError, match=r"remove unmountable: VolumeDriver.Remove: VolumeDriver.Remove does not work today"):
        engine.client.delete("/volumes/unmountable")
    engine.client.delete("/volumes/unmountable", force=1)
    plugin.failing = {"VolumeDriver.List"}
    assert engine.client.get("/volumes")["Warnings"] == ["list shelf: VolumeDriver.List: VolumeDriver.List does not work today"]
    plugin.volumes.clear()


def test_a_volume_whose_plugin_has_gone(engine, plugin):
    engine.client.post("/volumes/create", {"Name": "orphan", "Driver": "shelf"})
    os.rename(f"{engine.plugins}/shelf.sock", f"{engine.plugins}/away")
    try:
        assert [(volume["Name"], volume["Scope"]) for volume in engine.client.get("/volumes")["Volumes"]] == [("orphan", "local")]
        with pytest.raises(ApiError, match='plugin "shelf" not found'):
            engine.client.delete("/volumes/orphan")
        engine.client.delete("/volumes/orphan", force=1)
    finally:
        os.rename(f"{engine.plugins}/away", f"{engine.plugins}/shelf.sock")
    plugin.volumes.clear()


def test_volumes_of_a_plugin_outlive_a_crash(engine, plugin, tmp_path):
    box = engine.run("sleep", "600", Mounts=[{"Type": "volume", "Source": "kept", "Target": "/data", "VolumeOptions": {"DriverConfig": {"Name": "shelf"}}}])
    engine.kill()
    engine.start()
    engine.remove(box)
    assert [arguments["ID"] for arguments in asked(plugin, "Unmount")][-1] == box
    assert engine.client.get("/volumes/kept")["Driver"] == "shelf"
