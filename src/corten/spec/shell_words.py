"""Words of a Dockerfile instruction: split, unquoted, variables put in. Pure.

Source: Dockerfile reference, "Environment replacement"; POSIX Shell Command Language 2.6.2 (parameter expansion), without bracket
expressions; BuildKit's frontend/dockerfile/shell for what the reference leaves open.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from corten.errors import Invalid

_NAME = re.compile(r"\d+|[@*#?\-$!]|\w+")
_BLANKS_AFTER_HEREDOC = re.compile(r"[\t\r ]*")
_DEEPEST = 100  # substitutions inside substitutions
_STAR = "*"


@dataclass(frozen=True)
class Expanded:
    """`text` is the whole as one word, `words` the same split at blanks that are not quoted. Names of variables that were asked for."""

    text: str
    words: tuple[str, ...]
    matched: frozenset[str]
    unmatched: frozenset[str]


@dataclass(frozen=True)
class Lexer:
    """How words are read. `keep_unset`: a variable that is not set stays as it is written. `raw_*`: stays in the result."""

    escape: str = "\\"
    quotes: bool = True
    raw_quotes: bool = False
    raw_escapes: bool = False
    keep_unset: bool = False

    def process(self, text: str, variables: Mapping[str, str]) -> Expanded:
        """Raises Invalid with BuildKit's reason."""
        reader = _Reader(self, text, variables, raw_escapes=self.raw_escapes)
        try:
            result, words = reader.until("")
        except Invalid as error:
            raise Invalid(f'failed to process "{text}": {error}') from None
        return Expanded(result, tuple(words), frozenset(reader.matched), frozenset(reader.unmatched))

    def expand(self, text: str, variables: Mapping[str, str]) -> str:
        return self.process(text, variables).text


def expand(word: str, variables: Mapping[str, str]) -> str:
    """With a backslash as the escape. Raises Invalid."""
    return Lexer().expand(word, variables)


def split_words(text: str, escape: str = "\\") -> list[str]:
    """At blanks that are neither quoted nor escaped. Quotes and escapes stay, for expand() to take away."""
    words: list[str] = []
    word: list[str] = []
    quote = ""
    letters = iter(text)
    for letter in letters:
        if not quote and letter.isspace():
            if word:
                words.append("".join(word))
            word = []
            continue
        if letter == escape and quote != "'":
            following = next(letters, "")
            word += [letter, following] if following else []  # an escape at the very end is dropped
            continue
        word.append(letter)
        if letter == quote:
            quote = ""
        elif not quote and letter in "'\"":
            quote = letter
    return [*words, "".join(word)] if word else words


class _Words:
    """Words as they come together: split where text that is not quoted has blanks."""

    def __init__(self) -> None:
        self._done: list[str] = []
        self._word = ""

    def add(self, text: str) -> None:
        for piece in re.split(r"(\s+)", text):
            if not piece.isspace():
                self._word += piece
            elif self._word:
                self._done.append(self._word)
                self._word = ""

    def add_quoted(self, text: str) -> None:
        self._word += text

    def done(self) -> list[str]:
        return [*self._done, self._word] if self._word else self._done


@lru_cache(maxsize=64)
def _nothing_special(special: str) -> re.Pattern[str]:
    return re.compile(f"[^{re.escape(special)}]+")


@dataclass
class _Reader:
    """One pass over a text. `at` is the next character."""

    lexer: Lexer
    text: str
    variables: Mapping[str, str]
    raw_escapes: bool
    at: int = 0
    depth: int = 0
    matched: set[str] = field(default_factory=set)
    unmatched: set[str] = field(default_factory=set)

    @property
    def peek(self) -> str:
        """Empty at the end."""
        return self.text[self.at : self.at + 1]

    def next(self) -> str:
        letter = self.peek
        self.at += 1
        return letter

    def until(self, stop: str, *, raw_escapes: bool | None = None) -> tuple[str, list[str]]:
        """Up to and without the character `stop`, which is taken; empty: up to the end."""
        outer, self.raw_escapes = self.raw_escapes, self.raw_escapes if raw_escapes is None else raw_escapes
        quotes = "'\"" if self.lexer.quotes else ""
        plain = _nothing_special("$<" + quotes + self.lexer.escape + stop)
        out: list[str] = []
        words = _Words()
        while letter := self.peek:
            if run := plain.match(self.text, self.at):
                self.at = run.end()
                out.append(run[0])
                words.add(run[0])
            elif letter == stop:
                self.at += 1
                self.raw_escapes = outer
                return "".join(out), words.done()
            elif letter == "$":
                out.append(self._dollar())
                words.add(out[-1])
            else:
                out.append(self._quoted(letter, quotes))
                words.add_quoted(out[-1])
        if stop:
            raise Invalid(f"unexpected end of statement while looking for matching {stop}")
        return "".join(out), words.done()

    def _quoted(self, letter: str, quotes: str) -> str:
        if letter == "<":
            return self._possible_heredoc()
        if letter in quotes:
            return self._single_quote() if letter == "'" else self._double_quote()
        self.at += 1
        return (letter if self.raw_escapes else "") + self.next()

    def _possible_heredoc(self) -> str:
        """`<< NAME` is one word."""
        if not self.text.startswith("<<", self.at):
            return self.next()
        blanks = _BLANKS_AFTER_HEREDOC.match(self.text, self.at + 2)
        start, self.at = self.at, blanks.end() if blanks else self.at + 2
        return self.text[start : self.at]

    def _single_quote(self) -> str:
        end = self.text.find("'", self.at + 1)
        if end < 0:
            self.at = len(self.text)
            raise Invalid("unexpected end of statement while looking for matching single-quote")
        start, self.at = self.at, end + 1
        return self.text[start : end + 1] if self.lexer.raw_quotes else self.text[start + 1 : end]

    def _double_quote(self) -> str:
        """Only `$`, `"` and the escape itself can be escaped; before anything else the escape stays."""
        raw = '"' if self.lexer.raw_quotes else ""
        out = [raw]
        self.at += 1
        while letter := self.peek:
            if letter == "$":
                out.append(self._dollar())
                continue
            self.at += 1
            if letter == '"':
                return "".join([*out, raw])
            if letter != self.lexer.escape:
                out.append(letter)
            elif self.peek:
                kept = letter if self.raw_escapes or self.peek not in ('"', "$", self.lexer.escape) else ""
                out.append(kept + (self.next() if self.peek in ('"', "$", self.lexer.escape) else ""))
        raise Invalid("unexpected end of statement while looking for matching double-quote")

    def _dollar(self) -> str:
        self.at += 1
        if self.peek != "{":
            name = self._name()
            return self._value(name, f"${name}") if name else "$"
        self.at += 1
        if self.peek in ("{", "}", ":"):
            raise Invalid("syntax error: missing '}'" if not self.peek else "syntax error: bad substitution")
        name = self._name()
        self.depth += 1
        if self.depth > _DEEPEST:
            raise Invalid(f"substitutions are nested more than {_DEEPEST} deep")
        value = self._substitution(name)
        self.depth -= 1
        return value

    def _name(self) -> str:
        found = _NAME.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""

    def _lookup(self, name: str) -> str | None:
        value = self.variables.get(name)
        (self.unmatched if value is None else self.matched).add(name)
        return value

    def _value(self, name: str, written: str) -> str:
        value = self._lookup(name)
        return (written if self.lexer.keep_unset else "") if value is None else value

    def _substitution(self, name: str) -> str:
        """What follows `${NAME`."""
        operator = self.next()
        if operator == "}":
            return self._value(name, f"${{{name}}}")
        if operator == "/":
            return self._replace(name)
        if operator == ":":
            operator += self.next()
        if not operator:
            raise Invalid("syntax error: missing '}'")
        if operator not in _OPERATORS:
            raise Invalid(f"unsupported modifier ({operator}) in substitution")
        pattern = operator in "#%"
        word = self._operand("}", raw_escapes=pattern)
        value = self._lookup(name)
        if value is None and self.lexer.keep_unset:
            return f"${{{name}{operator}{word}}}"
        if pattern:
            return _trim(value or "", operator, word)
        return _choose(name, value, operator, word)

    def _operand(self, stop: str, *, raw_escapes: bool) -> str:
        try:
            return self.until(stop, raw_escapes=raw_escapes)[0]
        except Invalid:
            if self.peek:
                raise
            raise Invalid(f"syntax error: missing '{stop}'" + (" in ${}" if stop == "/" else "")) from None

    def _replace(self, name: str) -> str:
        every = self.peek == "/"
        self.at += every
        pattern, replacement = self._operand("/", raw_escapes=True), self._operand("}", raw_escapes=True)
        value = self._lookup(name)
        if value is None:
            return f"${{{name}/{pattern}/{replacement}}}" if self.lexer.keep_unset else ""
        found = _glob(_tokens(pattern), greedy=True)
        if not every:
            first = found.search(value)
            return value[: first.start()] + replacement + value[first.end() :] if first else value
        out, end, last = "", 0, -1
        for match in found.finditer(value):
            if not match.start() == match.end() == last:  # an empty match right behind a match is none
                out += value[end : match.start()] + replacement
                end = last = match.end()
        return out + value[end:]


_OPERATORS = ("-", ":-", "+", ":+", "?", ":?", "#", "%")


def _choose(name: str, value: str | None, operator: str, word: str) -> str:
    """`-`, `+` and `?`; with a colon in front an empty value counts as none."""
    there = bool(value) if operator.startswith(":") else value is not None
    if operator.endswith("-"):
        return value or "" if there else word
    if operator.endswith("+"):
        return word if there else ""
    if there:
        return value or ""
    raise Invalid(f"{name}: {word or 'is not allowed to be ' + ('unset' if value is None else 'empty')}")


def _trim(value: str, operator: str, word: str) -> str:
    """`#` takes the shortest match off the front, `##` the longest; `%` and `%%` off the end."""
    greedy = word.startswith(operator)
    tokens = _tokens(word[1:] if greedy else word)
    if operator == "#":
        match = _glob(tokens, greedy=greedy).match(value)
        return value[match.end() :] if match else value
    # A regular expression finds the leftmost match only, so the end is looked for backwards.
    match = _glob(tokens[::-1], greedy=greedy).match(value[::-1])
    return value[: len(value) - match.end()] if match else value


def _tokens(pattern: str) -> list[str]:
    """The pattern as regular expressions of one character each, and stars."""
    found: list[str] = []
    letters = iter(pattern)
    for letter in letters:
        if letter != "\\":
            found.append({_STAR: _STAR, "?": "."}.get(letter, re.escape(letter)))
            continue
        following = next(letters, "")
        if not following or following not in "*?\\/}":  # `\}` and `\/` only keep these from ending the pattern
            raise Invalid(f"invalid pattern ({pattern}) in substitution: invalid escape '\\{following}'")
        found.append(re.escape(following))
    return found


def _glob(tokens: list[str], *, greedy: bool) -> re.Pattern[str]:
    """Each star but the last takes as little as it can and gives nothing back, so that no pattern takes more than linear time."""
    pieces = [""]
    for token in tokens:
        if token == _STAR:
            pieces.append("")
        else:
            pieces[-1] += token
    if len(pieces) == 1:
        return re.compile(pieces[0])
    middle = "".join(f"(?>.*?{piece})" for piece in pieces[1:-1])
    return re.compile(f"{pieces[0]}{middle}.*{'' if greedy else '?'}{pieces[-1]}")
