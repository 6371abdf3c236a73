"""COPY, ADD, WORKDIR and heredocs as a step: what they take is selected, the key made of it, and a worker puts it into place."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from corten.builder import ingredients
from corten.builder.file_job import FILE_JOB, CannotCopy
from corten.builder.file_plan import Action, FilePlan, PutCopy, PutFile, PutFolder, Source, write_plan
from corten.builder.graph import Copy, File, Mkdir, Mkfile
from corten.builder.in_flight import ended
from corten.builder.packed import gone_through
from corten.builder.permissions import owner_of
from corten.builder.results import MadeLayer, Result
from corten.builder.select import Excludes, Group, select
from corten.builder.trees import ChainTree, Tree
from corten.builder.workshop import Workshop
from corten.errors import ArchiveRefused, CortenError, Invalid, KernelRefused
from corten.runtime.users import UnknownUser

_LIMIT = 1 << 24  # bytes of a passwd file


class CannotPutFile(Invalid):
    template = "{reason}"


@dataclass(frozen=True)
class FileWork:
    """A File vertex with all that it takes looked up. `groups` go with the copies among its actions, in their order."""

    op: File
    base: Result
    inputs: Sequence[Result]
    groups: Sequence[Sequence[Group]]
    time: int
    passwd: str
    group: str

    @property
    def below(self) -> tuple[str, ...]:
        """The chain that the worker's root stands on."""
        return () if self.op.link else self.base.chain

    @cached_property
    def ingredients(self) -> ingredients.Ingredients:
        """Raises UnknownUser."""
        owners = ""
        if self.op.link:
            named = (action.owner for action in self.op.actions)
            owners = " ".join("{}:{}".format(*owner_of(text, self.passwd, self.group)) for text in named if text)
        base = None if self.op.link else self.base.chain
        return ingredients.of_file(self.op, base, self.time, self.groups, owners)


def look(op: File, inputs: Sequence[Result], time: int, trees: Sequence[Tree], excludes: Callable[[tuple[str, ...]], Excludes]) -> FileWork:
    """Select and digest what the step takes of the inputs' trees. For threads: it reads files. Raises what select.py raises, CannotPutFile."""
    groups = [select(trees[action.input], action, excludes) for action in op.actions if isinstance(action, Copy)]
    names = op.link and any(action.owner for action in op.actions)
    base = trees[0] if names and isinstance(trees[0], ChainTree) else None
    passwd, group = (base.read(path, _LIMIT).decode("utf-8", "replace") if base else "" for path in ("etc/passwd", "etc/group"))
    gone_through(sum(len(group.items) for taken in groups for group in taken))
    try:
        work = FileWork(op, inputs[0], inputs, groups, time, passwd, group)
        _ = work.ingredients  # an unknown owner is found here
    except UnknownUser as error:
        raise CannotPutFile(reason=str(error)) from None
    return work


async def make(work: FileWork, workshop: Workshop) -> MadeLayer:
    """Carry the step out. Raises CannotPutFile, ArchiveRefused; nothing is left then."""
    async with workshop.snapshot() as step:
        below = workshop.folders(work.below)
        origins = {input_.folder.context.folder for input_ in work.inputs if input_.folder}
        unpacks = any(isinstance(action, Copy) and action.unpack for action in work.op.actions)
        plan = FilePlan(
            workshop.root(step), workshop.mounts(step, below), workshop.upper(step), workshop.layout.layers, work.time, sorted(origins),
            unpacks, work.passwd, work.group,
        )  # fmt: skip
        await _run(plan, _actions(work), f"{workshop.home(step)}/plan", workshop)
        return await workshop.seal(step, below, work.time)


async def put_into(folder: str, source: Source, workshop: Workshop) -> None:
    """Copy entries of layers into an empty folder, as they are."""
    plan = FilePlan(folder, [], folder, workshop.layout.layers, 1 << 62, [])
    await _run(plan, [PutCopy("/", [source])], f"{folder}.plan", workshop)


async def _run(plan: FilePlan, actions: Iterable[Action], path: str, workshop: Workshop) -> None:
    with open(path, "xb") as file:
        await asyncio.to_thread(write_plan, file, plan, actions)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        working = asyncio.ensure_future(workshop.run_job(FILE_JOB, b"", (fd,)))
        await ended(working)  # a cancelled build's too: the folder that it writes into is removed next
        working.result()
    except KernelRefused as error:
        raise _translate(error) from None
    finally:
        os.close(fd)
        os.unlink(path)


def _translate(error: KernelRefused) -> CortenError:
    known: dict[str, type[CortenError]] = {CannotCopy.__name__: CannotPutFile, ArchiveRefused.__name__: ArchiveRefused, "BadMode": CannotPutFile}
    kind = known.get(error.operand)
    if kind is None:
        return error
    return kind(error.reason) if kind is ArchiveRefused else kind(reason=error.reason)


def _actions(work: FileWork) -> Iterator[Action]:
    groups = iter(work.groups)
    for action in work.op.actions:
        if isinstance(action, Copy):
            sources = [_source(group, work.inputs[action.input]) for group in next(groups)]
            yield PutCopy(action.target, sources, action.owner, action.mode, action.unpack)
        elif isinstance(action, Mkdir):
            yield PutFolder(action.path, action.mode, action.owner)
        elif isinstance(action, Mkfile):
            yield PutFile(action.path, action.name, action.data, action.mode, action.owner)


def _source(group: Group, input_: Result) -> Source:
    if input_.folder is None:
        return Source(group.name, "", group.items)
    context = input_.folder.context
    return Source(group.name, context.folder, group.items, context.claim(entry for _, entry in group.items))
