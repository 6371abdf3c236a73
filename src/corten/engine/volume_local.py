"""The `local` volume driver: folders of the store, and what `type`, `device` and `o` mount on them.

Owns the check of the options (Docker 28.5's texts: moby volume/local/local_unix.go) and the mount call made of them.
Must not know containers: when to mount and unmount is volumes.py's.
"""

from __future__ import annotations

import asyncio
import re
import shutil
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

from corten.errors import CortenError, Invalid
from corten.linux import syscalls as sys
from corten.linux.mounts import is_mount_point, parse_options, unmount_when_free
from corten.spec.go_values import parse_size
from corten.store.layout import Layout
from corten.store.volumes import VolumeFolders

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_OPTIONS = ("type", "o", "device", "size")
_NEEDS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}
_ADDRESS = re.compile(r"(?:^|,)addr=([^,]*)")
_PASSWORD = re.compile(r"password=[^,]*")


class MountFailed(CortenError):
    template = "error while mounting volume '{path}': failed to mount local volume: {reason}"


class NotResolved(CortenError):
    template = "error while mounting volume '{path}': error resolving passed in network volume address: {reason}"


@dataclass(frozen=True)
class MountCall:
    """The arguments of mount(2), taken out of a volume's options; `propagation` is a call each afterwards."""

    device: str
    type: str
    flags: int
    data: str
    propagation: tuple[int, ...] = ()

    def describe(self, path: str) -> str:
        """For an error's text, which must not show a password."""
        flags = f", flags: {self.flags:#x}" if self.flags else ""
        data = f", data: {_PASSWORD.sub('password=********', self.data)}" if self.data else ""
        return f"mount {self.device}:{path}{flags}{data}"


def check(name: str, options: Mapping[str, str]) -> None:
    """Raises Invalid: Docker's reason, without the `create NAME: ` in front."""
    if len(name.encode()) == 1:
        raise Invalid("volume name is too short, names should be at least two alphanumeric characters")
    if not _NAME.fullmatch(name):
        raise Invalid(
            f'"{name}" includes invalid characters for a local volume name, only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )
    for option in options:
        if option not in _OPTIONS:
            raise Invalid(f'invalid option: "{option}"')
    if options.get("type") == "cifs" and _port_of(options.get("device", "")):
        raise Invalid("port not allowed in CIFS device URL, include 'port' in 'o='")
    if size_of(options) and needs_mount(options):
        raise Invalid("a size limit is for a volume that holds its content itself; give what is mounted its own (o=size=... of a tmpfs)")
    for option, required in _NEEDS.items():
        for other in required:
            if option in options and other not in options:
                raise Invalid(f'missing required option: "{other}"')


def _port_of(device: str) -> bool:
    try:
        return urlsplit(device).port is not None
    except ValueError as error:
        raise Invalid(f'error parsing mount device url: parse "{device}": {error}') from None


def needs_mount(options: Mapping[str, str] | None) -> bool:
    return bool(options and (options.get("device") or options.get("type")))


def size_of(options: Mapping[str, str]) -> int:
    """Bytes; 0 for no limit. Raises Invalid."""
    return parse_size(options["size"], unit=1024) if "size" in options else 0


def mount_call(options: Mapping[str, str]) -> MountCall:
    """Pure but for the name service: an `addr` (nfs) or host (cifs) that is a name is looked up, as mount.nfs would."""
    kind, device, words = options.get("type", ""), options["device"], options.get("o", "")
    if kind in ("nfs", "nfs4", "cifs"):
        named = _ADDRESS.search(words)
        if named and named[1]:
            words = words.replace(f"addr={named[1]}", f"addr={_resolve(named[1])}", 1)
        elif kind == "cifs":
            host = urlsplit(device).hostname or ""
            device = device.replace(host, _resolve(host), 1) if host else device
    parsed = parse_options([word for word in words.split(",") if word])
    return MountCall(device, kind, parsed.flags, parsed.data, parsed.propagation)


def _resolve(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return str(socket.getaddrinfo(host, None)[0][4][0])


class LocalDriver:
    """The driver of every volume that names none. Mounting may take as long as a network does: it runs in a thread."""

    name, scope = "local", "local"

    def __init__(self, layout: Layout, folders: VolumeFolders) -> None:
        self._layout, self._folders = layout, folders

    async def create(self, name: str, options: Mapping[str, str]) -> None:
        check(name, options)
        await asyncio.to_thread(self._folders.create, name, size_of(options)) if size_of(options) else self._folders.create(name)

    async def remove(self, name: str, options: Mapping[str, str]) -> None:
        await self.unmount(name, options, "", last=True)
        if size_of(options):
            await asyncio.to_thread(self._folders.release, name)
        doomed = self._folders.set_aside(name)
        if doomed:
            await asyncio.to_thread(shutil.rmtree, doomed)

    def path(self, name: str) -> str:
        return self._layout.volume_data(name)

    async def mount(self, name: str, options: Mapping[str, str], user: str) -> str:
        """Where the volume's content is. Idempotent. Raises MountFailed, NotResolved."""
        path = self.path(name)
        if size_of(options):
            await asyncio.to_thread(self._folders.attach, name)
        elif needs_mount(options) and not is_mount_point(path):
            await asyncio.to_thread(self._mount, path, options)
        return path

    @staticmethod
    def _mount(path: str, options: Mapping[str, str]) -> None:
        try:
            call = mount_call(options)
        except OSError as error:
            raise NotResolved(path=path, reason=(error.strerror or "").lower()) from None
        rebind = call.flags & sys.MS_BIND and call.flags & ~(sys.MS_BIND | sys.MS_REC)
        try:
            sys.mount(call.device, path, call.type, call.flags, call.data or None)
            if rebind:
                sys.mount(None, path, None, call.flags | sys.MS_REMOUNT)
            for flag in call.propagation:
                sys.mount(None, path, None, flag)
        except OSError as error:
            raise MountFailed(path=path, reason=f"{call.describe(path)}: {(error.strerror or '').lower()}") from None

    async def unmount(self, name: str, options: Mapping[str, str], user: str, *, last: bool) -> None:
        """Idempotent."""
        if last and (needs_mount(options) or size_of(options)) and is_mount_point(self.path(name)):
            await asyncio.to_thread(unmount_when_free, self.path(name))
