"""Renaming a volume, with the containers that mount it. The rows change in one transaction; the folder follows, after a crash too."""

from __future__ import annotations

from msgspec.structs import replace

from corten.engine import volume_local
from corten.engine.containers import Containers
from corten.engine.records import ContainerRecord
from corten.engine.volume_drivers import LOCAL
from corten.engine.volumes import Volumes
from corten.errors import Conflict, Invalid
from corten.store.database import Database


class Renaming:
    def __init__(self, database: Database, volumes: Volumes, containers: Containers) -> None:
        self._database, self._volumes, self._containers = database, volumes, containers

    async def rename(self, name: str, new: str) -> None:
        """Running containers keep what they have mounted. Raises NoSuchVolume, Invalid, Conflict."""
        try:
            volume_local.check(new, {})
        except Invalid as error:
            raise Invalid(f"rename {name}: {error.message}") from None
        async with self._volumes.alone(name, new):
            record = self._volumes.find(name)
            if record.driver != LOCAL:
                raise Invalid(f"rename {name}: its driver {record.driver} knows no renaming")
            if any(other.name == new for other in self._volumes.all()):
                raise Conflict(f"rename {name}: there is a volume {new}")
            with self._database.transaction():
                self._volumes.change_name(record, new)
                for container in self._containers.all():
                    if any(mount.type == "volume" and mount.name == name for mount in container.mounts):
                        self._containers.save(followed(container, name, new))
            self._volumes.finish_rename(new)
        self._volumes.emit("rename", new, oldName=name)


def followed(container: ContainerRecord, name: str, new: str) -> ContainerRecord:
    """Pure: the container with the volume under its new name, also in what its creator asked for."""
    host = container.host_config
    binds = [new + text.removeprefix(name) if text.startswith(f"{name}:") else text for text in host.binds or []]
    specs = [replace(spec, source=new) if spec.type == "volume" and spec.source == name else spec for spec in host.mounts or []]
    mounts = [replace(mount, name=new) if mount.type == "volume" and mount.name == name else mount for mount in container.mounts]
    host = replace(host, binds=binds if host.binds else host.binds, mounts=specs if host.mounts else host.mounts)
    return replace(container, host_config=host, mounts=mounts)
