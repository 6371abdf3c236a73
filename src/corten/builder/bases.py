"""What stages stand on that is no stage: scratch, images, named contexts. All images of a build are asked for at the same time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from corten.builder import checks
from corten.builder.graph import Copy, File, Image, Scratch, Shown, Vertex
from corten.builder.near_miss import did_you_mean
from corten.builder.options import BuildOptions
from corten.builder.plan import FoundImage, ImageSource
from corten.builder.source import located
from corten.builder.stage import DEFAULT_PATH, Around
from corten.builder.stages import SCRATCH, Node
from corten.errors import CortenError, Invalid
from corten.spec.image import RunConfig
from corten.spec.platform import Platform, matches
from corten.spec.reference import Reference, parse_reference

_EMPTY = RunConfig(env=[f"PATH={DEFAULT_PATH}"], working_dir="/")
_OFTEN_USED = (
    "alpine",
    "busybox",
    "centos",
    "debian",
    "fedora",
    "golang",
    "node",
    "python",
    "ubuntu",
)  # for near misses


@dataclass(frozen=True)
class Base:
    """`tree` is what `--from` copies out of, `chain` what a stage stands on: the same but for a context that is a folder."""

    tree: Vertex
    platform: Platform
    config: RunConfig = _EMPTY
    image: FoundImage | None = None
    chain: Vertex | None = None

    @property
    def ground(self) -> Vertex:
        return self.chain or self.tree


async def find_bases(nodes: Iterable[Node], around: Around, images: ImageSource, known: list[str]) -> dict[Node, Base]:
    """Of nodes that are no stage's child. `known` are the stages' names, for near misses. Raises DockerfileError with the FROM's place."""
    wanted = list(nodes)
    try:
        async with asyncio.TaskGroup() as group:
            once = _Once(images)
            tasks = [group.create_task(_find(node, around, once, known)) for node in wanted]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return {node: task.result() for node, task in zip(wanted, tasks, strict=True)}


class _Once:
    """An ImageSource that asks another for each image once, however many stages want it."""

    def __init__(self, images: ImageSource) -> None:
        self._images = images
        self._turns: defaultdict[tuple[str, Platform], asyncio.Lock] = defaultdict(asyncio.Lock)
        self._found: dict[tuple[str, Platform], FoundImage] = {}

    async def find(self, reference: str, platform: Platform) -> FoundImage:
        key = (reference, platform)
        async with self._turns[key]:
            if key not in self._found:
                self._found[key] = await self._images.find(reference, platform)
            return self._found[key]


async def _find(node: Node, around: Around, images: ImageSource, known: list[str]) -> Base:
    options = around.options
    platform = node.platform or options.target_platform
    context = _context_of(node, options)
    if isinstance(context, Vertex):
        onto = Vertex(File((Copy(1, ("/",), "/", wildcard=False),)), (Vertex(Scratch()), context), Shown(f"[context {node.key}]", node.label))
        return Base(context, platform, chain=onto)
    reference = context if context is not None else node.reference
    if reference == SCRATCH:
        return Base(Vertex(Scratch()), options.target_platform)
    try:
        name = parse_reference(reference).with_default_tag()
    except Invalid as error:
        meant = f" (the stage is called {reference.lower()} here)" if reference.lower() in known else ""
        raise located(Invalid(f'failed to parse stage name "{reference}": {error}{meant}'), node.span, node.reference) from None
    try:
        return await _image(node, name, platform, around, images)
    except CortenError as error:
        meant = did_you_mean(node.reference, [*known, *_OFTEN_USED])
        refused = located(Invalid(f"{node.reference}: {error.message}{meant}"), node.span, node.reference)
        refused.http_status = error.http_status
        raise refused from error


def _context_of(node: Node, options: BuildOptions) -> Vertex | str | None:
    """A named context takes the place of a stage of that name, or of an image as Docker shows it."""
    if node.name and node.name in options.contexts:
        return options.contexts[node.name]
    return options.contexts.get(node.reference) or options.contexts.get(node.key)


async def _image(node: Node, reference: Reference, platform: Platform, around: Around, images: ImageSource) -> Base:
    found = await images.find(reference.familiar, platform)
    own = found.config.platform
    if not matches(platform, own):
        comments = node.origin.written.comments if node.origin else ()
        around.checks.report(checks.INVALID_BASE_IMAGE_PLATFORM, node.span, node.reference, str(platform), str(own), comments=comments)
    if node.platform is None and around.options.platform is None:
        platform = own if own.architecture else platform
    shown = Shown(f"FROM {_in_full(reference)}", node.label, node.span.first, around.options.file, node.span.last)
    tree = Vertex(Image(found.id, found.reference) if found.chain else Scratch(), (), shown)
    return Base(tree, platform, found.config.run, found)


def _in_full(reference: Reference) -> str:
    return reference.name + (f":{reference.tag}" if reference.tag else "") + (f"@{reference.digest}" if reference.digest else "")
