"""What a volume driver promises, whoever it is: the local one (volume_local.py) and plugins (volume_plugins.py)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

ANONYMOUS = "com.docker.volume.anonymous"  # Docker's label of a volume that got no name
SNAPSHOT_OF = "dev.corten.snapshot.of"  # Corten's: the volume that a snapshot is one of
LOCAL = "local"


class VolumeDriver(Protocol):
    """What keeps the content. `create` and `mount` are idempotent; every failure is a CortenError or an OSError.

    `user` is whoever has it mounted; `last` says that nobody has after this.
    """

    name: str
    scope: str

    async def create(self, name: str, options: Mapping[str, str]) -> None: ...

    async def remove(self, name: str, options: Mapping[str, str]) -> None: ...

    def path(self, name: str) -> str: ...

    async def mount(self, name: str, options: Mapping[str, str], user: str) -> str: ...

    async def unmount(self, name: str, options: Mapping[str, str], user: str, *, last: bool) -> None: ...
