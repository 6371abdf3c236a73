"""RUN: what is executed, in which tree, with which mounts. Source: Dockerfile reference, "RUN"; BuildKit's dispatchRun and convert_runmount.go."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence

from corten.builder import graph
from corten.builder.config_steps import with_shell
from corten.builder.graph import Cache, Device, Exec, File, Mkfile, Mount, Scratch, Secret, Shown, Ssh, Tmpfs, Vertex
from corten.builder.instructions import CommandLine, Run
from corten.builder.parser import heredoc_word
from corten.builder.run_options import MountOptions, read_mount
from corten.builder.stage import Asked, StageState
from corten.builder.stages import Node
from corten.errors import Invalid
from corten.spec.paths import clean, joined

_SCRIPTS = "/dev/pipes/"  # where a heredoc with an interpreter line is put
_NAMESPACE = "BUILDKIT_CACHE_MOUNT_NS"
_HOSTNAME = "BUILDKIT_SANDBOX_HOSTNAME"

SourceOf = Callable[[StageState, Node], Vertex]


def run(stage: StageState, instruction: Run, sources: Sequence[Node | None], tree_of: SourceOf) -> None:
    """`sources` belong to the mounts. Raises Invalid."""
    options = stage.around.options
    mounts = _Mounts(stage)
    command, script = _command(instruction.command)
    if script:
        mounts.add_script(script)
    asked = [read_mount(text, stage.expand) for text in instruction.mounts]
    for mount, source in zip(asked, sources, strict=True):
        mounts.add(mount, source, tree_of)
    words = with_shell(stage, command)
    operation = Exec(
        tuple(words), tuple(f"{name}={value}" for name, value in stage.variables.items()), stage.folder, stage.config.user, tuple(mounts.found),
        instruction.network if instruction.network != "default" else options.network, "insecure" if instruction.security == "insecure" else "sandbox", options.hosts,
        options.arguments.get(_HOSTNAME, ""), (*options.devices, *(Device(each.name, each.required) for each in instruction.devices)),
        options.limits, stage.around.proxies,
    )  # fmt: skip
    masked = {mount.env or mount.id: "****" for mount in asked if mount.type == "secret" and mount.env is not None}
    shown = stage.described(instruction.written.text + _summary(instruction), masked, quotes=True)
    stage.commit_layer(f"RUN {_with_arguments(stage, words)} # buildkit", operation, tuple(mounts.trees), shown)


def _command(command: CommandLine) -> tuple[CommandLine, tuple[str, str] | None]:
    """The command with its heredocs, and (name, content) of a script that is to be executed itself.

    A heredoc alone is the script; without an interpreter line its text is the shell's command. Others the shell gets as they stand there.
    """
    if not command.heredocs:
        return command, None
    first = command.heredocs[0]
    if not heredoc_word(command.words[0]):
        return CommandLine(
            ("\n".join([command.words[0], *(each.content + each.name for each in command.heredocs)]),), shell=True
        ), None
    if first.text.startswith("#!"):
        return CommandLine((_SCRIPTS + first.name,), shell=True), (first.name, first.text)
    return CommandLine((first.text,), shell=True), None


def _summary(instruction: Run) -> str:
    if not instruction.command.heredocs or not heredoc_word(instruction.command.words[0]):
        return ""
    first, *more = instruction.command.heredocs[0].content.strip().replace("\r\n", "\n").split("\n")
    return f" ({first}{'...' if more else ''})"


def _with_arguments(stage: StageState, words: list[str]) -> str:
    """As the history has it: the build arguments that were declared before, counted, then the words."""
    seen = [f"{name}={stage.variables.get(name, value or '')}" for name, value in stage.arguments.items()]
    return " ".join([*([f"|{len(seen)}", *seen] if seen else []), *words])


class _Mounts:
    """The mounts of one RUN and the trees that they need: inputs 1, 2, ... of its vertex."""

    def __init__(self, stage: StageState) -> None:
        self._stage = stage
        self.found: list[Mount] = []
        self.trees: list[Vertex] = []
        self._agents = 0

    def _input(self, tree: Vertex) -> int:
        if tree not in self.trees:
            self.trees.append(tree)
        return self.trees.index(tree) + 1

    def add_script(self, script: tuple[str, str]) -> None:
        name, text = script
        file = Mkfile("/", text.encode(), name, "0755")
        tree = Vertex(
            File((file,)), (Vertex(Scratch()),), Shown("[internal] preparing inline document", self._stage.label)
        )
        self.found.append(graph.Bind(_SCRIPTS.rstrip("/"), self._input(tree)))

    def add(self, mount: MountOptions, source: Node | None, tree_of: SourceOf) -> None:
        if mount.type == "secret":
            self.found.append(self._secret(mount))
        elif mount.type == "ssh":
            self.found.append(self._agent(mount))
        elif mount.type == "tmpfs":
            self.found.append(Tmpfs(self._target(mount), mount.size))
        elif mount.type == "cache":
            self.found.append(self._cache(mount, tree_of(self._stage, source) if source else None))
        else:
            tree = tree_of(self._stage, source) if source else self._stage.around.options.context
            self.found.append(graph.Bind(self._target(mount), self._input(tree), _source(mount), mount.readonly))

    def _target(self, mount: MountOptions) -> str:
        target = joined(self._stage.folder, mount.target)
        if target == "/":
            raise Invalid(
                f'invalid mount target "{mount.target or "/"}": a {mount.type} mount needs a target= that is not the root'
            )
        return target

    def _cache(self, mount: MountOptions, tree: Vertex | None) -> Cache:
        namespace = self._stage.around.options.arguments.get(_NAMESPACE, "")
        name = mount.id or clean(mount.target)
        return Cache(
            self._target(mount), f"{namespace}/{name}" if namespace else name, _sharing(mount), mount.readonly,
            self._input(tree) if tree else None, _source(mount), 0o755 if mount.mode is None else mount.mode, mount.uid or 0, mount.gid or 0,
        )  # fmt: skip

    def _secret(self, mount: MountOptions) -> Secret:
        """Without a target it is a file in /run/secrets, unless it is a variable."""
        name = mount.source or mount.id or posixpath.basename(mount.target)
        target = mount.target or (f"/run/secrets/{posixpath.basename(name)}" if mount.env is None else "")
        self._note(self._stage.secrets, name, mount)
        return Secret(
            name, joined(self._stage.folder, target) if target else "", "" if mount.env is None else mount.env or name, mount.required,
            0o400 if mount.mode is None else mount.mode, mount.uid or 0, mount.gid or 0,
        )  # fmt: skip

    def _agent(self, mount: MountOptions) -> Ssh:
        target = joined(self._stage.folder, mount.target) if mount.target else f"/run/buildkit/ssh_agent.{self._agents}"
        self._agents += 1
        name = mount.id or "default"
        self._note(self._stage.agents, name, mount)
        return Ssh(
            target, name, mount.required, 0o600 if mount.mode is None else mount.mode, mount.uid or 0, mount.gid or 0
        )

    def _note(self, asked: dict[str, Asked], name: str, mount: MountOptions) -> None:
        if self._stage.current:
            asked.setdefault(name, Asked(name, self._stage.current.span, mount.required))


def _source(mount: MountOptions) -> str:
    return joined("/", mount.source)


def _sharing(mount: MountOptions) -> graph.Sharing:
    return next((known for known in graph.SHARING if known == mount.sharing), "shared")
