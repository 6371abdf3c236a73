"""Nodes to typed instructions, and these to stages. Frozen; variables are not put in yet. Pure.

Source: Dockerfile reference; BuildKit's frontend/dockerfile/instructions for the texts. Must not know other stages, arguments or images.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from corten.builder.flags import Flags, read_flags
from corten.builder.near_miss import did_you_mean
from corten.builder.parser import Dockerfile, Heredoc, Node, heredoc_word
from corten.builder.run_options import DeviceOptions, mount_origin, read_device
from corten.builder.source import Span, Written, syntax_error
from corten.errors import DockerfileError, Invalid
from corten.spec.engine import Healthcheck
from corten.spec.health_flags import health_settings

MOST_INSTRUCTIONS = 10_000  # nobody has that many; what is kept of each is looked through by the later ones
NETWORKS = ("default", "none", "host")
SECURITY = ("sandbox", "insecure")
_STAGE_NAME = re.compile(r"[a-z][a-z0-9-_.]*")
_ONBUILD = re.compile(r"\s*ONBUILD\s*", re.IGNORECASE)


@dataclass(frozen=True)
class Instruction:
    written: Written

    @property
    def word(self) -> str:
        return self.written.name.upper()

    @property
    def span(self) -> Span:
        return self.written.span


@dataclass(frozen=True)
class Pair:
    """`legacy` is the form `NAME value`."""

    name: str
    value: str
    legacy: bool = False


@dataclass(frozen=True)
class Argument:
    """`value` is None where there is no default; `about` what the comment above says."""

    name: str
    value: str | None = None
    about: str = ""


@dataclass(frozen=True)
class CommandLine:
    """`shell`: one string for the shell; else the words of the JSON form."""

    words: tuple[str, ...]
    shell: bool
    heredocs: tuple[Heredoc, ...] = ()


@dataclass(frozen=True)
class From(Instruction):
    """`stage` is in lower case, empty without AS; `as_written` that and the keyword as they stand there."""

    base: str
    stage: str = ""
    platform: str = ""
    about: str = ""
    as_written: tuple[str, ...] = ()


@dataclass(frozen=True)
class Arg(Instruction):
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Env(Instruction):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Label(Instruction):
    pairs: tuple[Pair, ...]


@dataclass(frozen=True)
class Maintainer(Instruction):
    author: str


@dataclass(frozen=True)
class Run(Instruction):
    """`mounts` as written: their options may have variables. `origins` are the `from` of each, empty without one."""

    command: CommandLine
    mounts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    network: str = "default"
    security: str = "sandbox"
    devices: tuple[DeviceOptions, ...] = ()


@dataclass(frozen=True)
class Cmd(Instruction):
    command: CommandLine


@dataclass(frozen=True)
class Entrypoint(Instruction):
    command: CommandLine


@dataclass(frozen=True)
class Transfer(Instruction):
    """What ADD and COPY have in common. `sources` are paths (and URLs), `heredocs` files whose content is in the Dockerfile."""

    sources: tuple[str, ...]
    heredocs: tuple[Heredoc, ...]
    target: str
    chown: str = ""
    chmod: str = ""
    link: bool = False
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Copy(Transfer):
    """`origin` is `--from`: a stage, its number, an image, a named context; empty: the build's context."""

    origin: str = ""
    parents: bool = False


@dataclass(frozen=True)
class Add(Transfer):
    """`unpack` and `keep_git_dir` are None where nothing is said."""

    checksum: str = ""
    unpack: bool | None = None
    keep_git_dir: bool | None = None


@dataclass(frozen=True)
class Expose(Instruction):
    ports: tuple[str, ...]


@dataclass(frozen=True)
class Volume(Instruction):
    paths: tuple[str, ...]


@dataclass(frozen=True)
class User(Instruction):
    user: str


@dataclass(frozen=True)
class Workdir(Instruction):
    path: str


@dataclass(frozen=True)
class StopSignal(Instruction):
    signal: str


@dataclass(frozen=True)
class Shell(Instruction):
    words: tuple[str, ...]


@dataclass(frozen=True)
class Health(Instruction):
    check: Healthcheck


@dataclass(frozen=True)
class OnBuild(Instruction):
    """`trigger` is kept in the image as text, heredocs included."""

    trigger: str


@dataclass(frozen=True)
class Stage:
    """`index` counts from 0."""

    index: int
    origin: From
    instructions: tuple[Instruction, ...] = ()

    @property
    def name(self) -> str:
        return self.origin.stage


@dataclass(frozen=True)
class Program:
    """A whole Dockerfile: the ARGs before the first FROM, and its stages."""

    arguments: tuple[Arg, ...]
    stages: tuple[Stage, ...]


def read_program(dockerfile: Dockerfile) -> Program:
    """Raises DockerfileSyntax; DockerfileError where there is no stage."""
    arguments: list[Arg] = []
    stages: list[tuple[From, list[Instruction]]] = []
    if len(dockerfile.nodes) > MOST_INSTRUCTIONS:
        raise _refusal(f"more than {MOST_INSTRUCTIONS} instructions", dockerfile.nodes[MOST_INSTRUCTIONS])
    for node in dockerfile.nodes:
        instruction = read_instruction(node)
        if isinstance(instruction, From):
            stages.append((instruction, []))
        elif stages:
            stages[-1][1].append(instruction)
        elif isinstance(instruction, Arg):
            arguments.append(instruction)
        else:
            raise _refusal("no build stage in current context: the first instruction must be FROM (or ARG)", node)
    if not stages:
        raise _refusal("dockerfile contains no stages to build", dockerfile.nodes[-1])
    return Program(
        tuple(arguments), tuple(Stage(index, origin, tuple(body)) for index, (origin, body) in enumerate(stages))
    )


def _refusal(reason: str, node: Node) -> DockerfileError:
    return DockerfileError(reason=reason, line=node.span.first, last_line=node.span.last, word=node.name)


def read_instruction(node: Node) -> Instruction:
    """Raises DockerfileSyntax."""
    read = _READERS.get(node.word)
    if not read:
        names = did_you_mean(node.name, _READERS, same_case=False)
        raise syntax_error(f"unknown instruction: {node.name}{names}", node.span, node.name)
    try:
        written = Written(node.name, node.original.strip(), node.span, node.comments)
        return read(written, node, read_flags(node.word, node.flags))
    except Invalid as error:
        wrong = next((flag for flag in node.flags if flag.partition("=")[0] in error.message), "")
        raise syntax_error(error.message, node.span, wrong) from None


def read_trigger(node: Node) -> Instruction:
    """One that an image's ONBUILD has left behind. Raises DockerfileSyntax."""
    if node.word in ("FROM", "MAINTAINER", "ONBUILD"):
        raise syntax_error(f"{node.word} isn't allowed as an ONBUILD trigger", node.span, node.name)
    return read_instruction(node)


# --- one reader an instruction
def _need(node: Node, *, exactly_one: bool = False) -> tuple[str, ...]:
    if exactly_one and len(node.args) != 1:
        raise Invalid(f"{node.word} requires exactly one argument")
    if not node.args:
        raise Invalid(f"{node.word} requires at least one argument")
    return node.args


def _about(node: Node, name: str) -> str:
    """What a comment says of a name: `# NAME description`."""
    return next(
        (comment.removeprefix(f"{name} ") for comment in node.comments if name and comment.startswith(f"{name} ")), ""
    )


def _pairs(node: Node) -> tuple[Pair, ...]:
    args = _need(node)
    triples = zip(args[::3], args[1::3], args[2::3], strict=True)
    found = tuple(Pair(name, value, legacy=not equals) for name, value, equals in triples)
    if not all(pair.name for pair in found):
        raise Invalid(f"{node.word} names can not be blank")
    return found


def _command(node: Node) -> CommandLine:
    words = node.args if node.json or not node.args else (" ".join(node.args),)
    return CommandLine(words, shell=not node.json, heredocs=node.heredocs)


def _from(written: Written, node: Node, flags: Flags) -> From:
    args = node.args
    named = len(args) == 3 and args[1].lower() == "as"
    if not named and len(args) != 1:
        raise Invalid("FROM requires either one or three arguments")
    stage = args[2].lower() if named else ""
    if named and not _STAGE_NAME.fullmatch(stage):
        raise Invalid(f'invalid name for build stage: "{args[2]}", name can\'t start with a number or contain symbols')
    return From(written, args[0], stage, flags.text("platform"), _about(node, stage), args[1:])


def _arg(written: Written, node: Node, _flags: Flags) -> Arg:
    return Arg(written, tuple(_argument(node, word) for word in _need(node)))


def _argument(node: Node, word: str) -> Argument:
    name, equals, value = word.partition("=")
    if equals and not name:
        raise Invalid("ARG names can not be blank")
    return Argument(name, value if equals else None, _about(node, name))


def _run(written: Written, node: Node, flags: Flags) -> Run:
    network, security, mounts = (
        flags.text("network", "default"),
        flags.text("security", "sandbox"),
        flags.texts("mount"),
    )
    if network not in NETWORKS:
        raise Invalid(f'invalid network mode "{network}"{did_you_mean(network, NETWORKS)}')
    if security not in SECURITY:
        raise Invalid(f'security "{security}" is not valid{did_you_mean(security, SECURITY)}')
    origins = tuple(mount_origin(mount) for mount in mounts)
    return Run(
        written, _command(node), mounts, origins, network, security, tuple(map(read_device, flags.texts("device")))
    )


def _sources(node: Node) -> tuple[tuple[str, ...], tuple[Heredoc, ...], str]:
    """Paths, heredocs, target."""
    if len(node.args) < 2:
        raise Invalid(
            f"{node.word} requires at least two arguments, but only one was provided. Destination could not be determined"
        )
    *words, target = node.args
    if not node.json and heredoc_word(target):
        raise Invalid(f"{node.word} cannot accept a heredoc as a destination")
    contents = {heredoc.name: heredoc for heredoc in node.heredocs}
    paths: list[str] = []
    heredocs: list[Heredoc] = []
    for word in words:
        announced = None if node.json else heredoc_word(word)
        if announced and announced.name in contents:
            heredocs.append(contents[announced.name])
        else:
            paths.append(word)
    return tuple(paths), tuple(heredocs), target


def _copy(written: Written, node: Node, flags: Flags) -> Copy:
    return Copy(
        written, *_sources(node), flags.text("chown"), flags.text("chmod"), flags.given("link") or False, flags.texts("exclude"),
        origin=flags.text("from"), parents=flags.given("parents") or False,
    )  # fmt: skip


def _add(written: Written, node: Node, flags: Flags) -> Add:
    return Add(
        written, *_sources(node), flags.text("chown"), flags.text("chmod"), flags.given("link") or False, flags.texts("exclude"),
        checksum=flags.text("checksum"), unpack=flags.given("unpack"), keep_git_dir=flags.given("keep-git-dir"),
    )  # fmt: skip


def _volume(written: Written, node: Node, _flags: Flags) -> Volume:
    paths = tuple(path.strip() for path in _need(node))
    if not all(paths):
        raise Invalid("VOLUME specified can not be an empty string")
    return Volume(written, paths)


def _shell(written: Written, node: Node, _flags: Flags) -> Shell:
    words = _need(node)
    if not node.json:
        raise Invalid(f"SHELL requires the arguments to be in JSON form{_json_hint(node)}")
    return Shell(written, words)


def _json_hint(node: Node) -> str:
    """What may be wrong with something that looks like JSON."""
    text = " ".join(node.args)
    if text.startswith("["):
        return f": {text} is no JSON array of strings" + (" (strings have double quotes)" if "'" in text else "")
    return ""


def _health(written: Written, node: Node, flags: Flags) -> Health:
    kind, *words = _need(node)
    if kind.upper() == "NONE":
        if words:
            raise Invalid("HEALTHCHECK NONE takes no arguments")
        return Health(written, Healthcheck(["NONE"]))
    if kind.upper() != "CMD":
        raise Invalid(f'Unknown type "{kind.upper()}" in HEALTHCHECK (try CMD)')
    if not words:
        raise Invalid("Missing command after HEALTHCHECK CMD")
    test = ["CMD", *words] if node.json else ["CMD-SHELL", " ".join(words)]
    return Health(
        written, Healthcheck(test, **health_settings({name: values[0] for name, values in flags.values.items()}))
    )


def _on_build(written: Written, node: Node, _flags: Flags) -> OnBuild:
    if not node.child:
        raise Invalid("ONBUILD requires at least one argument")
    word = node.child.word
    if word == "ONBUILD":
        raise Invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")
    if word in ("MAINTAINER", "FROM"):
        raise Invalid(f"{word} isn't allowed as an ONBUILD trigger")
    trigger = _ONBUILD.sub("", node.original, count=1)
    return OnBuild(written, "\n".join([trigger, *(heredoc.content + heredoc.name for heredoc in node.heredocs)]))


_READERS: dict[str, Callable[[Written, Node, Flags], Instruction]] = {
    "FROM": _from,
    "ARG": _arg,
    "RUN": _run,
    "COPY": _copy,
    "ADD": _add,
    "VOLUME": _volume,
    "SHELL": _shell,
    "HEALTHCHECK": _health,
    "ONBUILD": _on_build,
    "ENV": lambda written, node, _: Env(written, _pairs(node)),
    "LABEL": lambda written, node, _: Label(written, _pairs(node)),
    "MAINTAINER": lambda written, node, _: Maintainer(written, _need(node, exactly_one=True)[0]),
    "CMD": lambda written, node, _: Cmd(written, _command(node)),
    "ENTRYPOINT": lambda written, node, _: Entrypoint(written, _command(node)),
    "EXPOSE": lambda written, node, _: Expose(written, tuple(sorted(_need(node)))),
    "USER": lambda written, node, _: User(written, _need(node, exactly_one=True)[0]),
    "WORKDIR": lambda written, node, _: Workdir(written, _need(node, exactly_one=True)[0]),
    "STOPSIGNAL": lambda written, node, _: StopSignal(written, _need(node, exactly_one=True)[0]),
}
INSTRUCTIONS = tuple(_READERS)
