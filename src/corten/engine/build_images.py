"""The images that a build names: the store's, or pulled with what the client knows of the registries.

What builder.plan.ImageSource asks for, without knowing the builder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from corten.engine.image_transfers import ImageTransfers
from corten.engine.images import ImageService
from corten.errors import NoSuchImage, WrongPlatform
from corten.registry.auth import Credentials
from corten.registry.progress import Progress, Pushed
from corten.spec.platform import Platform
from corten.spec.reference import Reference, parse_reference
from corten.store.images import Image
from corten.store.locks import NamedLocks

DOCKER_HUB_KEYS = ("https://index.docker.io/v1/", "index.docker.io", "docker.io")


def credentials_for(reference: Reference, config: Mapping[str, Credentials]) -> Credentials:
    """Pure: of X-Registry-Config, whose keys are hosts or, for Docker Hub, an address."""
    keys = DOCKER_HUB_KEYS if reference.domain == "docker.io" else (reference.domain, f"https://{reference.domain}", f"https://{reference.domain}/v1/")
    return next((config[key] for key in keys if key in config), Credentials())


class BuildImages:
    """Of all builds."""

    def __init__(self, service: ImageService, transfers: ImageTransfers) -> None:
        self._service, self._transfers = service, transfers
        self._locks = NamedLocks()

    async def get(self, name: str, platform: Platform | None, config: Mapping[str, Credentials], *, pull: bool,
                  emit: Callable[[Progress | Pushed], None]) -> Image:  # fmt: skip
        """The image; pulled if it is not there for the platform, or if `pull` says so. Raises what the registry refuses, WrongPlatform."""
        async with self._locks[f"{name} {platform}"]:
            found = self._here(name, platform)
            if found is None or pull:
                reference = parse_reference(name)
                async for progress in self._transfers.pull(reference, credentials_for(reference, config), platform):
                    emit(progress)
                found = self._service.find(name, platform)
        return found

    def _here(self, name: str, platform: Platform | None) -> Image | None:
        try:
            return self._service.find(name, platform)
        except (NoSuchImage, WrongPlatform):
            return None

    def tagged(self, image_id: str, names: list[str]) -> None:
        """Tell the listeners of a new image and its names (familiar)."""
        for name in names:
            self._service.emit("tag", image_id, name)
