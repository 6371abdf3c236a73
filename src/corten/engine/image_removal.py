"""Removing images by Docker's rules: untagging, what is in use, what only has children, prune."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from corten.engine import states
from corten.engine.containers import Containers
from corten.engine.events import Events
from corten.engine.images import ImageService, familiar, is_id
from corten.errors import CortenError, ImageInUse, ImageInUseById, Invalid, PruneRunning
from corten.spec.digest import encoded
from corten.spec.filters import Filters, matches_labels, one_flag, until_limit
from corten.spec.platform import Platform
from corten.spec.reference import parse_reference
from corten.spec.timestamps import now_ns, parse_rfc3339
from corten.store.images import Image, Images
from corten.store.sweeping import Sweeping

_log = logging.getLogger("corten.engine")


@dataclass(frozen=True)
class PrunedImages:
    """`report` is Docker's list of what was untagged and deleted; `reclaimed` in bytes."""

    report: list[dict[str, str]]
    reclaimed: int


class ImageRemoval:
    def __init__(self, service: ImageService, images: Images, containers: Containers, sweeping: Sweeping, events: Events) -> None:
        self._service, self._images, self._containers, self._sweeping, self._events = service, images, containers, sweeping, events
        self._pruning = False
        self._reclaimed = 0  # bytes of layers removed since the engine's start

    def remove(self, name: str, *, force: bool, keep_parents: bool = False) -> list[dict[str, str]]:
        """Untag, and delete when the last name goes. Returns Docker's list of what was untagged and deleted.

        With a name go all its platforms' images. The id of one that is here only beside another platform's takes that one away.
        """
        image = self._service.find(name)
        by_id = is_id(image, name)
        if by_id:
            self._check_remove_by_id(image, force=force)
            names = [*image.tags, *image.digests] if image.shown else []
        else:
            names = self._names_to_untag(image, name, force=force)
        group = self._service.platforms(image)
        documents = {digest for one in group for digest in (*one.targets, *self._images.kept_beside(one.id))}
        report = [{"Untagged": familiar(full)} for full in names]
        for full in names:
            self._service.emit("untag", image.id, image.id)
            self._images.untag(full)
        for one in group:
            left = self._images.get(one.id)
            by_its_id = by_id and one.id == image.id
            if left and ((by_its_id and not image.shown) or not (left.tags or (left.digests and not by_its_id))):
                report += self._delete(left, force=force, keep_parents=keep_parents)
        self._sweeping.release((), documents)
        return report

    def remove_platforms(self, name: str, platforms: Sequence[Platform], *, force: bool) -> list[dict[str, str]]:
        """Delete what a name means for some platforms; the name stays as long as there is another. Raises WrongPlatform and as remove()."""
        images = [self._service.find(name, platform) for platform in platforms]
        if not force:
            raise Invalid("Content will be removed from all images referencing this variant. Use —-force to force delete.")
        report: list[dict[str, str]] = []
        for image in images:
            self._check_not_running(image)
            names = [familiar(full) for full in (*image.tags, *image.digests)]
            report += self._delete(image, force=True)
            report = [*({"Untagged": full} for full in names if not self._service.meant(full)), *report]
        return report

    def _delete(self, image: Image, *, force: bool = False, keep_parents: bool = False) -> list[dict[str, str]]:
        """Unless something needs it; then the images that it was made from, as far as they are left without a name.

        With `force` stopped containers do not count: they keep its layers.
        """
        users = self._service.users(image)
        if self._service.children(image) or (users and not force) or any(map(states.is_running, users)):
            return []
        held = self._images.remove(image)
        gone = self._sweeping.release(held.layers, held.blobs)
        self._service.emit("delete", image.id, image.id)
        report = [{"Deleted": image.id}, *({"Deleted": row.diff_id} for row in gone)]
        self._reclaimed += sum(row.size for row in gone)
        parent = self._images.get(image.parent) if image.parent and not keep_parents else None
        return report + (self._delete(parent) if parent and not parent.tags and not parent.digests else [])

    def _names_to_untag(self, image: Image, name: str, *, force: bool) -> list[str]:
        reference = parse_reference(name).with_default_tag()
        full = f"{reference.name}@{reference.digest}" if reference.digest else f"{reference.name}:{reference.tag}"
        same_repository = [digest for digest in image.digests if digest.startswith(f"{reference.name}@")]
        other_tags = [tag for tag in image.tags if tag != full]
        last = not other_tags
        if last and not force:
            users = [record for one in self._service.platforms(image) for record in self._service.users(one)]
            if users:
                raise ImageInUse(name=name, container=users[0].short_id, image=encoded(users[0].image)[:12])
        drop_digests = not any(tag.startswith(f"{reference.name}:") for tag in other_tags)
        return [full, *(same_repository if drop_digests and full not in same_repository else [])]

    def _check_not_running(self, image: Image) -> None:
        """Raises ImageInUseById."""
        running = next((record for record in self._service.users(image) if states.is_running(record)), None)
        if running:
            why = f"image is being used by running container {running.short_id}"
            raise ImageInUseById(image=encoded(image.id)[:12], how="cannot be forced", why=why)

    def _check_remove_by_id(self, image: Image, *, force: bool) -> None:
        short = encoded(image.id)[:12]
        users = self._service.users(image)
        self._check_not_running(image)
        if self._service.children(image):
            raise ImageInUseById(image=short, how="cannot be forced", why="image has dependent child images")
        if image.shown and not _is_one_name(image) and not force:
            raise ImageInUseById(image=short, how="must be forced", why="image is referenced in multiple repositories")
        if users and not force:
            raise ImageInUseById(image=short, how="must be forced", why=f"image is being used by stopped container {users[0].short_id}")

    # --- prune
    def prune(self, filters: Filters) -> PrunedImages:
        """Remove images that no container uses: those without a tag, or with `dangling=false` all. Raises Invalid, PruneRunning."""
        dangling, before = one_flag(filters, "dangling"), until_limit(filters.get("until", []), now_ns())
        if self._pruning:
            raise PruneRunning
        self._pruning = True
        at_first = self._reclaimed
        report: list[dict[str, str]] = []
        try:
            for image in self._service.all():
                if self._prunable(image, filters, before, tagged=dangling is False):
                    report += self._prune(image)
        finally:
            self._pruning = False
        reclaimed = self._reclaimed - at_first
        self._events.emit("image", "prune", "", reclaimed=str(reclaimed))
        return PrunedImages(report, reclaimed)

    def _prunable(self, image: Image, filters: Filters, before: int | None, *, tagged: bool) -> bool:
        labels = image.config.run.labels or {}
        if not image.shown or (image.tags and not tagged):
            return False
        if any(self._service.users(one) or self._service.children(one) for one in self._service.platforms(image)):
            return False
        if before is not None and image.config.created and parse_rfc3339(image.config.created) > before:
            return False
        if "label!" in filters and matches_labels(filters["label!"], labels):
            return False
        return matches_labels(filters.get("label", []), labels)

    def _prune(self, image: Image) -> list[dict[str, str]]:
        """Every name goes, and the image with the last one."""
        report: list[dict[str, str]] = []
        for name in (*image.tags, *image.digests) or (image.id,):
            try:
                if self._images.get(image.id):
                    report += self.remove(familiar(name), force=False)
            except CortenError as error:  # somebody has begun to use it, or it went with its last tag
                _log.info("image %s is not pruned: %s", name, error.message)
        return report


def _is_one_name(image: Image) -> bool:
    """At most one tag, and digests of no other repository than its: what `rmi ID` takes away without force (moby isSingleReference)."""
    if len(image.tags) > 1:
        return False
    repositories = {full.partition("@")[0] for full in image.digests} | {tag.rpartition(":")[0] for tag in image.tags}
    return len(repositories) <= 1
