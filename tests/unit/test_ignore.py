"""Ignore files: tables of what Docker documents, and any patterns on any paths against a plain reading of moby's matcher."""

from __future__ import annotations

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corten.errors import Invalid
from corten.spec.ignore_file import Ignore, ignore_file_names, read_patterns


@pytest.mark.parametrize(
    "text, patterns",
    [
        ("a\n", ("a",)),
        ("\ufeffa\r\n b \n\n#c\n d#", ("a", "b", "d#")),
        (" #not a comment", ("#not a comment",)),
        ("/a\n//b\n./c\nd/\ne//f\ng/../h\n/", ("a", "b", "c", "d", "e/f", "h", "/")),
        ("!a\n! /b\n!", ("!a", "!b", "!")),
        ("../a\n/../b", ("../a", "b")),
        ("**/x/\n*.o", ("**/x", "*.o")),
    ],
)
def test_ignore_file(text, patterns):
    assert read_patterns(text) == patterns


def test_the_dockerfiles_own_ignore_file_wins():
    assert ignore_file_names("build/Dockerfile.dev") == ("build/Dockerfile.dev.dockerignore", ".dockerignore")


@pytest.mark.parametrize(
    "patterns, ignored, kept",
    [
        ("", "", "a a/b"),
        ("a", "a a/b a/b/c", "b ab b/a"),
        ("*", "a .b a/b", ""),
        ("**", "a a/b", ""),
        ("*/a", "x/a x/a/b", "a x/y/a"),
        ("*/*/a", "x/y/a", "x/a"),
        ("a?", "ab ac/d", "a abc a/"),
        ("**/a", "a x/a x/y/a x/a/y", "ba xa"),
        ("**a", "a ba x/ba", "ab"),
        ("a/**", "a/b a/b/c", "a b"),
        ("a/**/b", "a/b a/x/b a/x/y/b", "ab a/bc b"),
        ("**/*.go", "a.go x/a.go x/y/z.go", "a.goo go"),
        ("*.md !README.md", "a.md", "README.md x/a.md"),
        ("*.md !README*.md README-secret.md", "a.md README-secret.md", "README.md README-x.md"),
        ("*.md README-secret.md !README*.md", "a.md", "README-secret.md"),
        ("a !a/b", "a a/c", "a/b a/b/c"),
        ("a !a/b a/b/c", "a/b/c a/b/c/d", "a/b a/b/d"),
        ("!a", "", "a b"),
        ("[a-c]x", "ax bx", "dx x"),
        ("[^a-c]x", "dx", "ax"),
        (r"a\*", "a*", "ab"),
        (r"\!a", "!a", "a"),
        ("a.b", "a.b", "axb"),
        ("a/ ", "a a/b", "b"),
        ("{a} $a (a) a+", "{a} $a (a) a+", "a aa"),
    ],
)
def test_patterns(patterns, ignored, kept):
    rules = Ignore(patterns.split(" "))
    assert [path for path in ignored.split() if not rules.ignores(path)] == []
    assert [path for path in kept.split() if rules.ignores(path)] == []


@pytest.mark.parametrize("pattern", ["[", "[a", "[]a]", "a\\", "[a-", "[-a]", "!"])
def test_malformed(pattern):
    with pytest.raises(Invalid):
        Ignore([pattern])


def test_exceptions_are_told():
    assert Ignore(["a", "!b"]).has_exceptions
    assert not Ignore(["a", "b"]).has_exceptions


# --- against a plain reading of moby/patternmatcher
def plain_expression(pattern: str) -> str:
    """Character by character, as its Pattern.compile has it, for a pattern that it takes for a regular expression."""
    out, at = "", 0
    while at < len(pattern):
        if pattern.startswith("**", at):
            at += 2
            at += pattern.startswith("/", at)
            out += ".*" if at >= len(pattern) else "(.*/)?"
            continue
        letter = pattern[at]
        at += 1
        if letter == "*":
            out += "[^/]*"
        elif letter == "?":
            out += "[^/]"
        else:
            out += re.escape(letter)
    return out


def plain_match(pattern: str, path: str) -> bool:
    if "*" not in pattern and "?" not in pattern:
        return pattern == path
    if pattern.startswith("**") and "*" not in pattern[2:] and "?" not in pattern[2:]:
        return path.endswith(pattern[2:]) or (pattern[2:3] == "/" and path == pattern[3:])
    return re.fullmatch(plain_expression(pattern), path, re.DOTALL) is not None


def plain_ignores(patterns: list[str], path: str) -> bool:
    parts = path.split("/")
    paths = ["/".join(parts[: count + 1]) for count in range(len(parts))]
    ignored = False
    for pattern in patterns:
        exception = pattern.startswith("!")
        if exception == ignored and any(plain_match(pattern.removeprefix("!"), each) for each in paths):
            ignored = not exception
    return ignored


COMPONENT = st.sampled_from(["a", "b", "ab", "*", "**", "a*", "*b", "?", "a?b", "**a", "a**", "a.b", "*a*b*", "**b**"])
PATTERN = st.builds(lambda exception, parts: exception + "/".join(parts), st.sampled_from(["", "", "!"]), st.lists(COMPONENT, min_size=1, max_size=4))
PATH = st.lists(st.sampled_from(["a", "b", "ab", "aab", "ba", "c", "a.b", "axb", "abab"]), min_size=1, max_size=5).map("/".join)


@given(st.lists(PATTERN, max_size=5), st.lists(PATH, min_size=1, max_size=8))
@example(["**/a/**/b"], ["a/a/b", "a/b/b/a", "x/a/c/b/d"])
@example(["*a*b"], ["aab", "abab/b"])
def test_as_moby_matches(patterns, paths):
    rules = Ignore(patterns)
    for path in paths:
        assert rules.ignores(path) == plain_ignores(patterns, path), (patterns, path)


@given(st.lists(st.text(st.sampled_from("ab*?[]^-\\!/. é{}()"), max_size=8), max_size=4), PATH)
def test_any_patterns_are_rules_or_refused(patterns, path):
    try:
        assert Ignore(patterns).ignores(path) in (True, False)
    except Invalid as error:
        assert error.message


@pytest.mark.parametrize("pattern", ["*a" * 60 + "b", "**/a/" * 60 + "b", "*/" * 100 + "b", "[^b]*" * 50 + "c"])
def test_no_pattern_takes_for_ever(pattern):
    """With what an ordinary regular expression would try for years."""
    assert not Ignore([pattern]).ignores("a" * 250 + "/" + "a/" * 900 + "a" * 250)
