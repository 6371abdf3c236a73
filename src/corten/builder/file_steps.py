"""COPY, ADD and WORKDIR: file actions on a stage's tree. Source: Dockerfile reference; BuildKit's convert_copy.go and dispatchWorkdir."""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from corten.builder import checks, graph
from corten.builder.git_reference import GitReference, parse_git_reference
from corten.builder.graph import Action, File, Git, Http, Local, Mkdir, Mkfile, Shown, Vertex
from corten.builder.instructions import Add, Copy, Workdir
from corten.builder.permissions import changed_mode
from corten.builder.stage import StageState
from corten.errors import Invalid
from corten.spec.digest import parse_digest
from corten.spec.ignore_file import Ignore
from corten.spec.paths import clean, joined, target
from corten.spec.shell_words import Lexer
from corten.spec.wildcards import is_pattern

_UNNAMED = "__unnamed__"  # of a URL without a file name, as BuildKit calls it
_CONTENT = Lexer(quotes=False)  # a heredoc's text: only variables mean something in it


def workdir(stage: StageState, instruction: Workdir) -> None:
    """The folder is made, for the user of the stage."""
    path = stage.expand(instruction.path)
    if not stage.workdir_given and not path.startswith("/"):
        stage.report(checks.WORKDIR_RELATIVE_PATH, path)
    stage.workdir_given = True
    folder = joined(stage.folder, path)
    said = path if path.startswith("/") else folder  # as BuildKit keeps it
    stage.set(working_dir=said)
    if folder == "/":
        stage.commit(f"WORKDIR {said}")
        return
    shown = stage.described(instruction.written.text)
    stage.commit_layer(f"WORKDIR {said}", File((Mkdir(folder, 0o755, stage.config.user),)), (), shown)


@dataclass(frozen=True)
class _Ready:
    """A COPY or ADD with its variables put in."""

    instruction: Copy | Add
    sources: tuple[str, ...]
    target: str
    chown: str
    chmod: str
    checksum: str


def copy(stage: StageState, instruction: Copy | Add, context: Vertex) -> None:
    """`context` is the tree that paths are taken from. Raises Invalid."""
    checksum = instruction.checksum if isinstance(instruction, Add) else ""
    ready = _Ready(
        instruction, tuple(map(stage.expand, instruction.sources)), stage.expand(instruction.target), stage.expand(instruction.chown),
        stage.expand(instruction.chmod), stage.expand(checksum),
    )  # fmt: skip
    _check(ready)
    actions = _Actions(stage, ready, context)
    for source in ready.sources:
        actions.add(source)
    for heredoc in instruction.heredocs:
        content = stage.expand_with(_CONTENT, heredoc.text) if heredoc.expand else heredoc.text
        actions.found.append(
            Mkfile(
                actions.target,
                content.encode("utf-8", "surrogateescape"),
                heredoc.name,
                ready.chmod,
                ready.chown,
            )
        )
    shown = stage.described(instruction.written.text)
    stage.commit_layer(_history(ready), File(tuple(actions.found), instruction.link), tuple(actions.trees), shown)


def _check(ready: _Ready) -> None:
    if ready.chmod:
        changed_mode(ready.chmod, 0, folder=False)  # whether it is one
    if ready.checksum:
        if len(ready.sources) != 1:
            raise Invalid("checksum can't be specified for multiple sources")
        if not (parse_git_reference(ready.sources[0]) or _is_url(ready.sources[0])):
            raise Invalid("checksum requires HTTP(S) or Git sources")


def _history(ready: _Ready) -> str:
    instruction = ready.instruction
    flags = ["--parents"] if isinstance(instruction, Copy) and instruction.parents else []
    flags += [f"--chown={ready.chown}"] if ready.chown else []
    flags += [f"--chmod={ready.chmod}"] if ready.chmod else []
    contents = [f"<<{heredoc.name}" for heredoc in instruction.heredocs]
    return " ".join([instruction.word, *flags, *ready.sources, *contents, ready.target, "# buildkit"])


class _Actions:
    """What one COPY or ADD does, source by source, and the trees that it takes from: inputs 1, 2, ... of its vertex."""

    def __init__(self, stage: StageState, ready: _Ready, context: Vertex) -> None:
        self._stage, self._ready, self._context = stage, ready, context
        self.target = target(stage.folder, ready.target)
        self.found: list[Action] = []
        self.trees: list[Vertex] = []

    def _copy(
        self, tree: Vertex, source: str, *, wildcard: bool = False, unpack: bool = False, required: bool = True
    ) -> None:
        """One action a source: what it matches lands as if it were copied alone."""
        if tree not in self.trees:
            self.trees.append(tree)
        instruction = self._ready.instruction
        parents = isinstance(instruction, Copy) and instruction.parents
        action = graph.Copy(
            self.trees.index(tree) + 1, (source,), self.target, self._ready.chown, self._ready.chmod, wildcard, parents,
            instruction.exclude, unpack, required,
        )  # fmt: skip
        self.found.append(action)

    def add(self, source: str) -> None:
        git = parse_git_reference(source)
        if git:
            self._add_git(source, git)
        elif _is_url(source):
            self._add_url(source)
        else:
            self._add_path(source)

    def _add_only(self, what: str) -> Add:
        instruction = self._ready.instruction
        if not isinstance(instruction, Add):
            raise Invalid(f"source can't be a {what} for COPY")
        return instruction

    def _add_git(self, source: str, found: GitReference) -> None:
        add = self._add_only("git ref")
        keep, checksum = add.keep_git_dir, self._ready.checksum
        if None not in (keep, found.keep_git_dir) and keep != found.keep_git_dir:
            raise Invalid("inconsistent keep-git-dir configuration")
        if checksum and found.checksum and checksum != found.checksum:
            raise Invalid(f'checksum mismatch "{checksum}" != "{found.checksum}"')
        keep = found.keep_git_dir if found.keep_git_dir is not None else keep
        operation = Git(
            found.remote, found.ref, found.folder, keep or False, found.checksum or checksum, found.submodules
        )
        self._copy(Vertex(operation, (), self._shown(source)), "/")

    def _add_url(self, source: str) -> None:
        add = self._add_only("URL")
        checksum = parse_digest(self._ready.checksum) if self._ready.checksum else ""
        name = _file_name(source)
        self._copy(
            Vertex(Http(source, name, checksum), (), self._shown(source)), f"/{name}", unpack=add.unpack or False
        )

    def _add_path(self, source: str) -> None:
        self._check_ignored(source)
        instruction = self._ready.instruction
        unpack = (instruction.unpack is not False) if isinstance(instruction, Add) else False
        if isinstance(instruction, Copy) and instruction.parents:
            before, pivot, after = source.partition("/./")
            source = (
                f"{joined('/', before)}/./{joined('/', after).lstrip('/')}".replace("//", "/")
                if pivot
                else joined("/", source)
            )
        else:
            source = joined("/", source)
        # A pattern may match nothing: `COPY a b* .` is how files are written that may be missing.
        self._copy(self._context, source, wildcard=True, unpack=unpack, required=not is_pattern(source))

    def _shown(self, source: str) -> Shown:
        return self._stage.placed(f"{self._ready.instruction.word} {source}")

    def _check_ignored(self, source: str) -> None:
        """Only without exceptions in the ignore file: with them a folder may be left out and something in it not."""
        ignore = self._context.op.ignore if isinstance(self._context.op, Local) else ()
        rules = Ignore(ignore)
        if not ignore or rules.has_exceptions:
            return
        path = clean(source).lstrip("/") or "."
        if rules.ignores(path) if path != "." else not {"*", "**", "**/*"}.isdisjoint(ignore):
            self._stage.report(checks.COPY_IGNORED_FILE, self._ready.instruction.word.capitalize(), path)


def _is_url(source: str) -> bool:
    return source.startswith(("http://", "https://")) and parse_git_reference(source) is None


def _file_name(url: str) -> str:
    try:
        path = unquote(urlsplit(url).path)
    except ValueError as error:
        raise Invalid(f"{url} is no URL: {error}") from None
    return posixpath.basename(path) or _UNNAMED
