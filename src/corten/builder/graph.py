"""The build graph: vertices as frozen values, what each does and on what. Pure: nothing is looked up, nothing runs.

A vertex's digest is that of its definition: canonical JSON of the operation with its inputs' digests. What does not change the
result is outside: how a step is shown, where in the Dockerfile it stands, limits, proxies. It tells equal vertices of one graph (and
of builds at the same time) apart from different ones; whether a result can be used again is decided by content (cache_key.py).

Every vertex has one output, a file tree. Of Image, Exec and File it is a chain of layers; Exec and File put exactly one on the chain of
their input 0. Of Local, Git and Http it is a folder. An operation names its inputs by their index in `Vertex.inputs`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import ClassVar, Literal

import msgspec

from corten.spec.digest import digest_of
from corten.spec.engine import Ulimit


class _Value(msgspec.Struct, frozen=True, omit_defaults=True, tag=True):
    """Base: a default is left out of the JSON, so that a new option changes no digest. `outside` are the fields without influence on the result."""

    outside: ClassVar[tuple[str, ...]] = ()


# --- where files come from
class Scratch(_Value, frozen=True, tag="scratch"):
    """The empty tree: a chain without layers."""


class Image(_Value, frozen=True, tag="image"):
    """An image of the store. `id` is its config's digest, which fixes the platform; `reference` is what the Dockerfile calls it."""

    outside = ("reference",)
    id: str
    reference: str = ""


class Local(_Value, frozen=True, tag="local"):
    """A context that the client has sent: `context` is the main one, any other has the name of a `--build-context`.

    `ignore` are the patterns of its ignore file, in their order: what they match is not there.
    """

    name: str = "context"
    ignore: tuple[str, ...] = ()


class Git(_Value, frozen=True, tag="git"):
    """A commit's files. `ref` is a branch, tag, or commit (empty: the remote's HEAD); `folder` a folder of the repository.

    `checksum` is a commit id, or the beginning of one, that the checkout must have. `submodules`: their files too.
    """

    url: str
    ref: str = ""
    folder: str = ""
    keep_git_dir: bool = False
    checksum: str = ""
    submodules: bool = True


class Http(_Value, frozen=True, tag="http"):
    """A folder with one file, `name`. `checksum` is a digest with its algorithm, empty if none is asked for."""

    url: str
    name: str
    checksum: str = ""
    mode: int = 0o600


# --- RUN
class Bind(_Value, frozen=True, tag="bind"):
    """A path of an input. What is written when it is not `readonly` is thrown away."""

    target: str
    input: int
    source: str = "/"
    readonly: bool = True


Sharing = Literal["shared", "private", "locked"]
SHARING: tuple[Sharing, ...] = ("shared", "private", "locked")


class Cache(_Value, frozen=True, tag="cache"):
    """A folder that outlives the build. It begins as `source` of an input, or (`input` None) empty with this mode and owner."""

    target: str
    id: str
    sharing: Sharing = "shared"
    readonly: bool = False
    input: int | None = None
    source: str = "/"
    mode: int = 0o755
    uid: int = 0
    gid: int = 0


class Tmpfs(_Value, frozen=True, tag="tmpfs"):
    """`size` in bytes; 0 is no limit of its own."""

    target: str
    size: int = 0


class Secret(_Value, frozen=True, tag="secret"):
    """A file at `target`, a variable `env`, or (both given) both. Not `required` and not there: left out."""

    id: str
    target: str = ""
    env: str = ""
    required: bool = False
    mode: int = 0o400
    uid: int = 0
    gid: int = 0


class Ssh(_Value, frozen=True, tag="ssh"):
    """An agent's socket. SSH_AUTH_SOCK names the first one."""

    target: str
    id: str = "default"
    required: bool = False
    mode: int = 0o600
    uid: int = 0
    gid: int = 0


Mount = Bind | Cache | Tmpfs | Secret | Ssh


class Limits(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a RUN step may take, as Docker counts it (HostConfig's keys); 0 and empty are no limit. `shm_size` and memory in bytes."""

    memory: int = 0
    memory_swap: int = 0
    cpu_shares: int = 0
    cpu_period: int = 0
    cpu_quota: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    shm_size: int = 0
    ulimits: tuple[Ulimit, ...] = ()
    cgroup_parent: str = ""


class Device(msgspec.Struct, frozen=True, omit_defaults=True):
    """A CDI name, kind or class. One that is not `required` is left out where there is none."""

    name: str
    required: bool = False


class Exec(_Value, frozen=True, tag="exec"):
    """Run `args` in the tree of input 0; what it changes there is its layer.

    `env` is complete (`NAME=value`, build arguments included); `proxies` are more of the kind that neither cache nor history sees.
    `user` is as USER has it (name or number, group after a colon). `network`: default, none, host. `hosts`: (name, address).
    """

    outside = ("limits", "proxies")
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: str = ""
    mounts: tuple[Mount, ...] = ()
    network: str = "default"
    security: Literal["sandbox", "insecure"] = "sandbox"
    hosts: tuple[tuple[str, str], ...] = ()
    hostname: str = ""
    devices: tuple[Device, ...] = ()
    limits: Limits = Limits()
    proxies: tuple[str, ...] = ()


# --- COPY, ADD, WORKDIR
class Copy(_Value, frozen=True, tag="copy"):
    """Paths of an input (never the base) to `target`, which is absolute; a slash at its end says that it is a folder.

    `sources` are patterns of Go's filepath.Match where `wildcard`, else plain paths; of a folder its content is copied. `exclude` are
    patterns as in an ignore file. `owner` is `user[:group]`, names looked up in input 0; empty is 0:0. `mode` is octal or symbolic, empty
    keeps the files'. `parents` keeps a source's folders below the target, from its `./` on. `unpack`: an archive's content instead of the archive.
    `required`: a pattern that matches nothing is an error, as a plain path always is.
    """

    input: int
    sources: tuple[str, ...]
    target: str
    owner: str = ""
    mode: str = ""
    wildcard: bool = True
    parents: bool = False
    exclude: tuple[str, ...] = ()
    unpack: bool = False
    required: bool = True


class Mkdir(_Value, frozen=True, tag="mkdir"):
    """A folder and what is missing above it. One that is there stays as it is."""

    path: str
    mode: int = 0o755
    owner: str = ""


class Mkfile(_Value, frozen=True, tag="mkfile"):
    """A file of these bytes (a heredoc): at `path`, or in it as `name` when it ends with a slash or is a folder."""

    path: str
    data: bytes
    name: str = ""
    mode: str = ""  # empty: 0644
    owner: str = ""


Action = Copy | Mkdir | Mkfile


class File(_Value, frozen=True, tag="file"):
    """Actions, one after the other, on the tree of input 0; together they make one layer.

    `link`: the layer is made without looking at what is below (but for the names of owners), and fits on any other base as well.
    """

    actions: tuple[Action, ...]
    link: bool = False


Operation = Scratch | Image | Local | Git | Http | Exec | File
LAYERED = (Exec, File)


@dataclass(frozen=True)
class Shown:
    """How a step is called where progress, errors and the cache name it. `line` and `last_line` are the instruction's first and last in
    its file, from 1; 0: it stands in none.
    """

    text: str = ""
    stage: str = ""
    line: int = 0
    file: str = "Dockerfile"
    last_line: int = 0


@dataclass(frozen=True)
class Vertex:
    """`inputs[0]` is what Exec and File stand on. Equal are those of the same digest."""

    op: Operation
    inputs: tuple[Vertex, ...] = ()
    shown: Shown = field(default=Shown(), compare=False)

    @cached_property
    def digest(self) -> str:
        return digest_of(
            msgspec.json.encode([definition(self.op), [vertex.digest for vertex in self.inputs]], order="sorted")
        )

    def __hash__(self) -> int:
        return hash(self.digest)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vertex) and self.digest == other.digest


def definition(op: Operation) -> Operation:
    """The operation without what does not change its result."""
    defaults = {info.name: info.default for info in msgspec.structs.fields(op) if info.name in op.outside}
    return msgspec.structs.replace(op, **defaults) if defaults else op


def in_order(targets: list[Vertex]) -> Iterator[Vertex]:
    """Everything the targets need, each vertex once, after all of its inputs."""
    seen: set[Vertex] = set()
    stack = [(vertex, False) for vertex in reversed(targets)]
    while stack:
        vertex, inputs_done = stack.pop()
        if vertex in seen:
            continue
        if inputs_done:
            seen.add(vertex)
            yield vertex
        else:
            stack.append((vertex, True))
            stack += [(needed, False) for needed in reversed(vertex.inputs)]


def layers_of(vertex: Vertex) -> list[Vertex]:
    """The vertices that have put a layer on this one's chain, lowest first."""
    found: list[Vertex] = []
    while isinstance(vertex.op, LAYERED):
        found.append(vertex)
        vertex = vertex.inputs[0]
    return found[::-1]


def render(target: Vertex) -> str:
    """One vertex a line, for tests and eyes: number, operation, the numbers of its inputs."""
    numbers: dict[Vertex, int] = {}
    lines: list[str] = []
    for vertex in in_order([target]):
        numbers[vertex] = len(numbers) + 1
        inputs = " ".join(f"#{numbers[needed]}" for needed in vertex.inputs)
        lines.append(f"#{numbers[vertex]} {msgspec.json.encode(vertex.op, order='sorted').decode()} {inputs}".rstrip())
    return "\n".join(lines)
