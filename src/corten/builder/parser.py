"""Dockerfile text to nodes: lines joined, comments and directives taken out, flags and words split, heredocs attached. Pure.

Source: Dockerfile reference, "Format", "Escape", "Here-Documents"; BuildKit's frontend/dockerfile/parser for what it leaves open. Must
not know what an instruction means: an unknown one is a node like any other.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from corten.builder.directives import BOM, Directive, DirectiveReader, read_directives
from corten.builder.source import Span, located, syntax_error
from corten.errors import Invalid
from corten.spec.shell_words import Lexer, split_words

_BLANKS = re.compile(r"[\t\v\f\r ]+")
_HEREDOC = re.compile(r"([0-9]*)<<(-?)\s*([^<]*)")
_LEADING_TABS = re.compile(r"^\t+", re.MULTILINE)
_TAKES_HEREDOCS = ("add", "copy", "run")
_DEEPEST_ONBUILD = 8  # ONBUILD of ONBUILD is refused later, and must not be a recursion without end here

# A heredoc's word is read twice, with its quotes and without: a word that differs was quoted, and its content is not expanded.
_WORD, _WORD_AS_WRITTEN = Lexer(keep_unset=True), Lexer(keep_unset=True, raw_quotes=True)
_WORDS_OF_LINE = Lexer(keep_unset=True, raw_quotes=True, raw_escapes=True)


@dataclass(frozen=True)
class Heredoc:
    """`content` is as written, line ends included; `chomp` (`<<-`) asks for its leading tabs to be taken off."""

    name: str
    expand: bool
    chomp: bool
    content: str = ""

    @property
    def text(self) -> str:
        return _LEADING_TABS.sub("", self.content) if self.chomp else self.content


@dataclass(frozen=True)
class Node:
    """One instruction. `name` as written; `args` as the instruction's own rule splits them; `original` the joined line.

    Of ENV and LABEL `args` are triples: name, value, and `=` or nothing. Of ONBUILD there is a `child` instead. `comments` are those
    right above it, without `#`.
    """

    name: str
    args: tuple[str, ...]
    span: Span
    flags: tuple[str, ...] = ()
    json: bool = False
    original: str = ""
    heredocs: tuple[Heredoc, ...] = ()
    comments: tuple[str, ...] = ()
    child: Node | None = None

    @property
    def word(self) -> str:
        return self.name.upper()


@dataclass(frozen=True)
class Dockerfile:
    """`empty_continuations` are the last lines of instructions that have an empty line inside."""

    nodes: tuple[Node, ...]
    escape: str
    directives: dict[str, Directive]
    empty_continuations: tuple[int, ...]
    source: str


def decode(data: bytes) -> str:
    """What is not UTF-8 (old files have Latin-1 in comments and MAINTAINER) becomes U+FFFD, as in what Docker stores."""
    return data.decode("utf-8", "replace")


def parse(source: str) -> Dockerfile:
    """Raises DockerfileSyntax."""
    reader = _Reader(source)
    nodes = tuple(reader.nodes())
    if not nodes:
        last = source.count("\n") + (not source.endswith("\n"))
        raise syntax_error("file with no instructions", Span(max(1, last), max(1, last)))
    return Dockerfile(nodes, reader.escape, read_directives(source), tuple(reader.empty_continuations), source)


class _Reader:
    """The lines of one file and what they have said so far."""

    def __init__(self, source: str) -> None:
        self._lines = _lines(source.removeprefix(BOM))
        self._at = 0
        self._directives = DirectiveReader()
        self.empty_continuations: list[int] = []
        self._set_escape("\\")

    def _set_escape(self, escape: str) -> None:
        """At the end of a line it continues it, unless another one stands before it."""
        self.escape = escape
        self._continued = re.compile(rf"(^|[^{re.escape(escape)}]){re.escape(escape)}[ \t]*\Z")

    def _next(self) -> str:
        self._at += 1
        return self._lines[self._at - 1]

    def nodes(self) -> list[Node]:
        found: list[Node] = []
        comments: list[str] = []
        while self._at < len(self._lines):
            line = self._next().rstrip("\r\n").lstrip()
            if line.startswith("#"):
                if not self._directive(line):
                    comment = line[1:].strip()
                    comments = [*comments, comment] if comment else []
                continue
            self._directives.take(line, self._at)
            first = self._at
            line, ends = self._cut(line)
            if ends and not line:
                continue
            text = line if ends else self._joined(line)
            node = parse_line(text, self.escape, Span(first, self._at), tuple(comments))
            found.append(self._with_heredocs(node, first) if "<<" in text else node)
            comments = []
        return found

    def _directive(self, line: str) -> bool:
        if not self._directives.take(line, self._at):
            return False
        escape = self._directives.found.get("escape")
        if escape and escape.line == self._at:
            if escape.value not in ("\\", "`"):
                reason = f"invalid escape token '{escape.value}' does not match ` or \\"
                raise syntax_error(reason, Span(self._at, self._at), escape.value)
            self._set_escape(escape.value)
        return True

    def _cut(self, line: str) -> tuple[str, bool]:
        """Without the escape that continues it, and whether it ends here."""
        continued = self._continued.search(line)
        return (line[: continued.end(1)], False) if continued else (line, True)

    def _joined(self, line: str) -> str:
        """With the lines that continue it. Comments between them are left out; empty lines too, which will be an error one day."""
        parts, ends, empty = [line], False, False
        while not ends and self._at < len(self._lines):
            line = self._next().rstrip("\r\n")
            if line.lstrip().startswith("#"):
                continue
            if not line.strip():
                empty = True
                continue
            line, ends = self._cut(line)
            parts.append(line)
        if empty:
            self.empty_continuations.append(self._at)
        return "".join(parts)

    def _with_heredocs(self, node: Node, first: int) -> Node:
        inner = node.child or node
        if inner.name.lower() not in _TAKES_HEREDOCS or inner.json:
            return node
        filled = tuple(self._fill(heredoc, first) for heredoc in _heredocs_of(node.original, node.span))
        return replace(node, heredocs=filled, span=Span(first, self._at))

    def _fill(self, heredoc: Heredoc, first: int) -> Heredoc:
        content: list[str] = []
        while self._at < len(self._lines):
            line = self._next()
            end = line.rstrip("\r\n")
            if (end.lstrip("\t") if heredoc.chomp else end) == heredoc.name:
                return replace(heredoc, content="".join(content))
            content.append(line)
        raise syntax_error(
            f"unterminated heredoc: want a line {heredoc.name!r}", Span(first, self._at), f"<<{heredoc.name}"
        )


def _lines(text: str) -> list[str]:
    """With their ends. Only a line feed ends one."""
    lines = text.split("\n")
    return [line + "\n" for line in lines[:-1]] + ([lines[-1]] if lines[-1] else [])


# --- one line
def parse_line(line: str, escape: str, span: Span, comments: tuple[str, ...] = (), depth: int = 0) -> Node:
    """An instruction without its heredocs' content. Raises DockerfileSyntax."""
    name, *rest = _BLANKS.split(line.strip(), maxsplit=1)
    flags, text = _split_flags(rest[0], escape) if rest else ([], "")
    text, word = text.strip(), name.lower()
    args: list[str] = []
    json, child = False, None
    if word != "onbuild":
        try:
            args, json = _RULES.get(word, _ignored)(text, escape)
        except Invalid as error:
            raise syntax_error(error.message.format(name=name.upper()), span, text) from None
    elif text:
        if depth > _DEEPEST_ONBUILD:
            raise syntax_error("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed", span, name)
        child = parse_line(text, escape, span, depth=depth + 1)
    return Node(name, tuple(args), span, tuple(flags), json, line, (), comments, child)


def _split_flags(text: str, escape: str) -> tuple[list[str], str]:
    """Words that begin with `--`, unquoted, up to the first that does not or is `--` itself; and the rest."""
    flags: list[str] = []
    at = 0
    while True:
        at += len(text[at:]) - len(text[at:].lstrip())
        if not text.startswith("--", at):
            return flags, text[at:]
        word, at, quoted = _flag(text, at, escape)
        if word == "--" and not quoted:
            return flags, text[at:]
        flags.append(word)


def _flag(text: str, at: int, escape: str) -> tuple[str, int, bool]:
    """The word at `at` without its quotes and escapes, where it ends, and whether it had quotes."""
    word, quote, quoted = "", "", False
    while at < len(text) and (quote or not text[at].isspace()):
        letter = text[at]
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote, quoted = letter, True
        elif letter == escape:
            at += 1
            word += text[at : at + 1]
        else:
            word += letter
        at += 1
    return word, at, quoted


Parsed = tuple[list[str], bool]  # words, and whether they came as JSON


def _ignored(_text: str, _escape: str) -> Parsed:
    return [], False


def _whole(text: str, _escape: str) -> Parsed:
    return [text] if text else [], False


def _by_blanks(text: str, _escape: str) -> Parsed:
    return _BLANKS.split(text) if text else [], False


def _by_words(text: str, escape: str) -> Parsed:
    return split_words(text, escape), False


def _json_words(text: str) -> list[str] | None:
    """None: that is not a JSON array. Raises Invalid for an array of anything but strings."""
    if not text.startswith("["):
        return None
    try:
        words = msgspec.json.decode(text, type=list[object])
    except (msgspec.DecodeError, RecursionError, UnicodeEncodeError):
        return None
    if not all(isinstance(word, str) for word in words):
        raise Invalid("when using JSON array syntax, arrays must be comprised of strings only")
    return [str(word) for word in words]


def _json_or_whole(text: str, escape: str) -> Parsed:
    words = _json_words(text)
    return _whole(text, escape) if words is None else (words, True)


def _json_or_blanks(text: str, escape: str) -> Parsed:
    words = _json_words(text)
    return _by_blanks(text, escape) if words is None else (words, True)


def _pairs(text: str, escape: str) -> Parsed:
    """`NAME=value ...`, or the old form `NAME value`, as triples."""
    words = split_words(text, escape)
    if not words:
        return [], False
    if "=" not in words[0]:
        parts = _BLANKS.split(text, maxsplit=1)
        if len(parts) < 2:
            raise Invalid("{name} must have two arguments")
        return [*parts, ""], False
    triples: list[str] = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            quoted = msgspec.json.encode(word).decode().replace("{", "{{").replace("}", "}}")
            raise Invalid(f"Syntax error - can't find = in {quoted}. Must be of the form: name=value")
        triples += [name, value, "="]
    return triples, False


def _health(text: str, escape: str) -> Parsed:
    """The type, and its command."""
    if not text:
        return [], False
    kind, *rest = text.split(None, 1)
    words, json = _json_or_whole(rest[0] if rest else "", escape)
    return [kind, *words], json


_RULES: dict[str, Callable[[str, str], Parsed]] = {
    "add": _json_or_blanks, "arg": _by_words, "cmd": _json_or_whole, "copy": _json_or_blanks, "entrypoint": _json_or_whole,
    "env": _pairs, "expose": _by_blanks, "from": _by_blanks, "healthcheck": _health, "label": _pairs, "maintainer": _whole,
    "run": _json_or_whole, "shell": _json_or_whole, "stopsignal": _whole, "user": _whole, "volume": _json_or_blanks, "workdir": _whole,
}  # fmt: skip


# --- heredocs
def heredoc_word(word: str) -> Heredoc | None:
    """`<<EOF`, `3<<-"EOF"`: the heredoc that a word announces, if it does. Raises Invalid for quotes that do not end."""
    match = _HEREDOC.fullmatch(word)
    if not match or not match[3]:
        return None
    words, written = _WORD.process(match[3], {}).words, _WORD_AS_WRITTEN.process(match[3], {}).words
    if len(words) != 1 or len(written) != 1:
        return None
    return Heredoc(words[0], expand=_quotes(words[0]) == _quotes(written[0]), chomp=bool(match[2]))


def _quotes(word: str) -> int:
    return word.count("'") + word.count('"')


def _heredocs_of(line: str, span: Span) -> list[Heredoc]:
    try:
        words = _WORDS_OF_LINE.process(line, {}).words
    except Invalid:
        return []  # quotes or braces that only the shell can make sense of
    try:
        return [found for found in map(heredoc_word, words) if found]
    except Invalid as error:
        raise located(error, span) from None
