"""Volume drivers that are other programs: Docker's plugin protocol, JSON over HTTP on a UNIX socket.

A plugin NAME is `NAME.sock` or `NAME/NAME.sock` in the plugins' folder, or a `.spec` or `.json` file with a unix:// address.
Source: Docker Engine 28.5 (docs.docker.com extend/plugin_api, extend/plugins_volume; moby pkg/plugins, volume/drivers).
Calls block, so they run in a thread; what a plugin answers is checked by type and never believed to be a path of ours.
"""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import stat
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from corten.errors import CortenError, KernelRefused, NoVolumePlugin

FOLDER = "/run/docker/plugins"
SPEC_FOLDERS = ("/etc/docker/plugins", "/usr/lib/docker/plugins")
_PROTOCOL = "VolumeDriver"
_HEADERS = {"Accept": "application/vnd.docker.plugins.v1.1+json", "Content-Type": "application/vnd.docker.plugins.v1.1+json"}
_SHORT, _LONG = 60, 120  # seconds; Docker's
_LIMIT = 16 << 20
T = TypeVar("T", bound=msgspec.Struct)


class PluginFailed(CortenError):
    """What the plugin itself says."""


class MountRefused(CortenError):
    template = "error while mounting volume '{path}': {reason}"


class PluginVolume(msgspec.Struct, rename="pascal"):
    name: str = ""
    mountpoint: str = ""
    created_at: str = ""
    status: dict[str, Any] | None = None


class _Answer(msgspec.Struct, rename="pascal"):
    err: str = ""
    mountpoint: str = ""
    volume: PluginVolume | None = None
    volumes: list[PluginVolume] | None = None
    capabilities: dict[str, str] | None = None
    implements: list[str] | None = None


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("plugin", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Plugins:
    def __init__(self, folder: str = FOLDER, spec_folders: Iterable[str] = SPEC_FOLDERS) -> None:
        self._folder, self._spec_folders = folder, tuple(spec_folders)
        self._known: dict[str, PluginDriver] = {}

    def names(self) -> list[str]:
        """Of every socket and address file that there is; what they implement is not asked."""
        found: set[str] = set()
        for folder in (self._folder, *self._spec_folders):
            try:
                entries = os.listdir(folder)
            except (FileNotFoundError, NotADirectoryError):
                continue
            found |= {name.rpartition(".")[0] or name for name in entries}
        return sorted(name for name in found if self._address(name))

    def find(self, name: str) -> PluginDriver:
        """Raises NoVolumePlugin."""
        address = self._address(name) if name and "/" not in name and not name.startswith(".") else ""
        if not address:
            raise NoVolumePlugin(driver=name)
        known = self._known.get(name)
        if known is None or known.address != address:
            known = self._known[name] = PluginDriver(name, address)
        return known

    def _address(self, name: str) -> str:
        """The path of its socket; empty if there is none."""
        for path in (f"{self._folder}/{name}.sock", f"{self._folder}/{name}/{name}.sock"):
            if _is_socket(path):
                return path
        for folder in self._spec_folders:
            for path in (f"{folder}/{name}.spec", f"{folder}/{name}/{name}.spec", f"{folder}/{name}.json", f"{folder}/{name}/{name}.json"):
                if os.path.isfile(path):
                    return _read_spec(path)
        return ""


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def _read_spec(path: str) -> str:
    """The socket that an address file names; only unix:// is spoken."""
    with open(path, encoding="utf-8", errors="replace") as file:
        text = file.read(4096)
    if path.endswith(".json"):
        try:
            text = msgspec.json.decode(text, type=dict[str, Any]).get("Addr", "")
        except msgspec.DecodeError:
            return ""
    return str(text).strip().removeprefix("unix://") if str(text).strip().startswith("unix://") else ""


class PluginDriver:
    """One plugin. `path` is what it last said of a volume; `refresh` asks again."""

    def __init__(self, name: str, address: str) -> None:
        self.name, self.address, self.scope = name, address, "local"
        self._active = False
        self._mountpoints: dict[str, str] = {}

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        await self._call("Create", {"Name": name, "Opts": dict(options)}, _LONG)

    async def remove(self, name: str, options: Mapping[str, str]) -> None:
        await self._call("Remove", {"Name": name}, _SHORT)
        self._mountpoints.pop(name, None)

    def path(self, name: str) -> str:
        return self._mountpoints.get(name, "")

    async def mount(self, name: str, options: Mapping[str, str], user: str) -> str:
        answer = await self._call("Mount", {"Name": name, "ID": user}, _LONG)
        if not answer.mountpoint.startswith("/"):
            raise PluginFailed(f"plugin {self.name} mounted volume {name} at {answer.mountpoint!r}, which is no absolute path")
        self._mountpoints[name] = answer.mountpoint
        return answer.mountpoint

    async def unmount(self, name: str, options: Mapping[str, str], user: str, *, last: bool) -> None:
        await self._call("Unmount", {"Name": name, "ID": user}, _SHORT)
        if last:
            self._mountpoints.pop(name, None)

    async def get(self, name: str) -> PluginVolume | None:
        """What the plugin knows of a volume; None if it says that it has none."""
        try:
            found = (await self._call("Get", {"Name": name}, _SHORT)).volume
        except PluginFailed:
            return None
        if found and found.mountpoint:
            self._mountpoints[name] = found.mountpoint
        return found

    async def list(self) -> list[PluginVolume]:
        found = (await self._call("List", {}, _SHORT)).volumes or []
        self._mountpoints |= {volume.name: volume.mountpoint for volume in found if volume.mountpoint}
        return [volume for volume in found if volume.name]

    async def _call(self, method: str, arguments: Mapping[str, Any], timeout: float) -> _Answer:
        if not self._active:
            await self._activate()
        return await asyncio.to_thread(self._post, f"{_PROTOCOL}.{method}", arguments, timeout)

    async def _activate(self) -> None:
        answer = await asyncio.to_thread(self._post, "Plugin.Activate", {}, _SHORT)
        if _PROTOCOL not in (answer.implements or []):
            raise NoVolumePlugin(driver=self.name)
        self._active = True
        try:  # not every plugin has it
            capabilities = (await asyncio.to_thread(self._post, f"{_PROTOCOL}.Capabilities", {}, _SHORT)).capabilities or {}
        except PluginFailed:
            capabilities = {}
        scope = capabilities.get("Scope", "").lower()
        self.scope = scope if scope in ("local", "global") else "local"

    def _post(self, method: str, arguments: Mapping[str, Any], timeout: float) -> _Answer:
        connection = _Connection(self.address, timeout)
        try:
            connection.request("POST", f"/{method}", msgspec.json.encode(arguments), _HEADERS)
            response = connection.getresponse()
            body = response.read(_LIMIT)
        except (OSError, http.client.HTTPException) as error:
            raise KernelRefused(operation=f"Post http://{self.name}/{method}:", operand=self.address, errno=getattr(error, "errno", 0) or 0, reason=str(error)) from None
        finally:
            connection.close()
        return _read(self.name, method, response.status, body)


def _read(plugin: str, method: str, status: int, body: bytes) -> _Answer:
    try:
        answer = msgspec.json.decode(body, type=_Answer) if body.strip() else _Answer()
    except msgspec.DecodeError as error:
        if status == 200:
            raise PluginFailed(f"plugin {plugin}: {method}: it answers what is no answer: {error}") from None
        raise PluginFailed(f"{method}: {body.decode('utf-8', 'replace').strip()}") from None
    if status != 200:
        raise PluginFailed(f"{method}: {answer.err or body.decode('utf-8', 'replace').strip()}")
    if answer.err:
        raise PluginFailed(answer.err)
    return answer
