"""Expansion as the shell does it: every operator by example, BuildKit's tables where a tree of it is at hand, and no text that crashes it."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corten.errors import Invalid
from corten.spec.shell_words import Lexer, expand, split_words

BUILDKIT = os.environ.get("CORTEN_BUILDKIT_TREE", "")
SHELL = os.path.join(BUILDKIT, "frontend", "dockerfile", "shell")
needs_buildkit = pytest.mark.skipif(not BUILDKIT, reason="CORTEN_BUILDKIT_TREE names no tree of BuildKit's source")
HOME = {"PWD": "/home", "SHELL": "bash", "KOREAN": "한국어", "NULL": ""}


def table(name: str) -> list[str]:
    if not BUILDKIT:
        return []
    with open(os.path.join(SHELL, name), encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if line.strip() and not line.startswith("#")]


@needs_buildkit
@pytest.mark.parametrize("row", [row for row in table("envVarTest") if not row.startswith("W")])
def test_buildkit_variable(row):
    _, source, wanted = (cell.strip() for cell in row.split("|"))
    if wanted == "error":
        with pytest.raises(Invalid):
            expand(source, HOME)
    else:
        assert expand(source, HOME) == wanted


def words_table() -> list[tuple[str, str, dict[str, str]]]:
    """(source, wanted, variables) of every row; those that set a variable hold for the rows after them."""
    variables: dict[str, str] = {}
    rows = []
    for row in table("wordsTest"):
        if row.startswith("ENV "):
            name, _, value = row.removeprefix("ENV ").lstrip().partition("=")
            variables = {**variables, name: value}
        else:
            source, wanted = row.split("|")
            rows.append((source.strip(), wanted.lstrip(), variables))
    return rows


@needs_buildkit
@pytest.mark.parametrize(("source", "wanted", "variables"), words_table())
def test_buildkit_words(source, wanted, variables):
    if wanted == "error":
        with pytest.raises(Invalid):
            Lexer().process(source, variables)
    else:
        assert list(Lexer().process(source, variables).words) == wanted.split(",")


@needs_buildkit
def test_buildkit_tables_are_whole():
    """The two files have 268 lines: comments, blanks and settings are no cases, and two rows are for Windows alone."""
    assert len(table("envVarTest")) >= 230
    assert len(words_table()) >= 24



VARIABLES = {"a": "one", "empty": "", "path": "/x/y/z.tar.gz", "star": "a*b", "q": "a?b", "slash": "a/b", "space": "x  y", "안": "k"}


@pytest.mark.parametrize(
    "source, wanted",
    [
        ("$a", "one"), ("${a}", "one"), ("$a.b", "one.b"), ("${a}b", "oneb"), ("$nosuch.", "."), ("$", "$"), ("a$", "a$"), ("$.", "$."),
        ("$안", "k"), ("$1x", "x"), ("$$a", "a"), ("\\$a", "$a"), ("\\\\$a", "\\one"), ("'$a'", "$a"), ('"$a"', "one"), ('"\\$a"', "$a"),
        ('"\\n"', "\\n"), ("\\n", "n"), ("'a'b\"c\"", "abc"), ('"it\'s"', "it's"), ("a\\", "a"),
        # defaults
        ("${no:-w}", "w"), ("${no-w}", "w"), ("${empty:-w}", "w"), ("${empty-w}", ""), ("${a:-w}", "one"), ("${no:-$a}", "one"),
        ("${no:-${nono:-'x y'}}", "x y"), ('${no:-"$a"}', "one"), ("${no:-}", ""), ("${no:-\\}}", "}"), ("${no:-a b}", "a b"),
        # alternatives
        ("${a:+w}", "w"), ("${a+w}", "w"), ("${empty:+w}", ""), ("${empty+w}", "w"), ("${no:+w}", ""), ("${no+w}", ""),
        # demanded
        ("${a:?w}", "one"), ("${a?w}", "one"), ("${empty?w}", ""),
        # off the front and off the end
        ("${path#*/}", "x/y/z.tar.gz"), ("${path##*/}", "z.tar.gz"), ("${path%.*}", "/x/y/z.tar"), ("${path%%.*}", "/x/y/z"),
        ("${path%/*}", "/x/y"), ("${path%%/*}", ""), ("${path#x}", "/x/y/z.tar.gz"), ("${path#/?/}", "y/z.tar.gz"), ("${no#x}", ""),
        ("${star#a\\*}", "b"), ("${star%\\*b}", "a"), ("${q#a\\?}", "b"), ("${slash%/*}", "a"), ("${path#}", "/x/y/z.tar.gz"), ("${a##*}", ""),
        ("${a%%*}", ""), ("${a#*}", "one"), ("${a%*}", "one"), ("${path##*.}", "gz"), ("${path#*.}", "tar.gz"), ("${a#$a}", ""),
        # replaced
        ("${path/x/w}", "/w/y/z.tar.gz"), ("${path/./_}", "/x/y/z_tar.gz"), ("${path//./_}", "/x/y/z_tar_gz"), ("${path//\\//:}", ":x:y:z.tar.gz"),
        ("${a/?/_}", "_ne"), ("${a//?/_}", "___"), ("${a/*/_}", "_"), ("${a//*/_}", "_"), ("${a/n*/_}", "o_"), ("${a/x/_}", "one"),
        ("${a/n/}", "oe"), ("${star//\\*/-}", "a-b"), ("${a//e/\\}}", "on\\}"), ("${no/a/b}", ""), ("${a///-}", "-o-n-e-"),
    ],
)  # fmt: skip
def test_expansion(source, wanted):
    assert expand(source, VARIABLES) == wanted


@pytest.mark.parametrize(
    "source, reason",
    [
        ("'a", "unexpected end of statement while looking for matching single-quote"),
        ('"a', "unexpected end of statement while looking for matching double-quote"),
        ("${", "syntax error: missing '}'"), ("${a", "syntax error: missing '}'"), ("${a:-b", "syntax error: missing '}'"),
        ("${}", "syntax error: bad substitution"), ("${{a}", "syntax error: bad substitution"), ("${:-a}", "syntax error: bad substitution"),
        ("${a:=b}", "unsupported modifier (:=) in substitution"), ("${a.}", "unsupported modifier (.) in substitution"),
        ("${a:#b}", "unsupported modifier (:#) in substitution"), ("${a^}", "unsupported modifier (^) in substitution"),
        ("${no:?}", "no: is not allowed to be unset"), ("${empty:?}", "empty: is not allowed to be empty"), ("${no?say $a}", "no: say one"),
        ("${a/b}", "syntax error: missing '/' in ${}"), ("${a/b/c", "syntax error: missing '}'"),
        ("${a#\\x}", "invalid pattern (\\x) in substitution: invalid escape '\\x'"),
        ("${no:-'a}", "syntax error: missing '}'"),
    ],
)  # fmt: skip
def test_refusal(source, reason):
    with pytest.raises(Invalid) as caught:
        expand(source, VARIABLES)
    assert caught.value.message == f'failed to process "{source}": {reason}'


@pytest.mark.parametrize(
    "lexer, source, wanted",
    [
        (Lexer("`"), "`$a \\$a", "$a \\one"),
        (Lexer(quotes=False), "'$a' \"$a\"", "'one' \"one\""),
        (Lexer(raw_quotes=True), "'$a' \"$a\"", "'$a' \"one\""),
        (Lexer(raw_escapes=True), "\\$a", "\\$a"),
        (Lexer(keep_unset=True), "$no ${no} ${no:-w} ${no/a/b} $a", "$no ${no} ${no:-w} ${no/a/b} one"),
        (Lexer(), "<<  EOF", "<<  EOF"),
    ],
)
def test_settings(lexer, source, wanted):
    assert lexer.expand(source, VARIABLES) == wanted


def test_words_and_names():
    found = Lexer().process('a$space "$space"b \'\' c\\ d $no${a}', VARIABLES)
    assert found.words == ("ax", "y", "x  yb", "c d", "one")
    assert (found.matched, found.unmatched) == ({"space", "a"}, {"no"})
    assert Lexer().process("a${no:-b}c d", {}).words == ("abc", "d")


@pytest.mark.parametrize(
    "text, words",
    [("a b", ["a", "b"]), (" a\tb ", ["a", "b"]), ("a\\ b", ["a\\ b"]), ("'a b' \"c d\"", ["'a b'", '"c d"']), ("a\\", ["a"]), ("", []),
     ("'a\\' b", ["'a\\'", "b"]), ('"a\\" b"', ['"a\\" b"']), ("àöû ß", ["àöû", "ß"])],
)  # fmt: skip
def test_split_words(text, words):
    assert split_words(text) == words


@given(st.text(st.sampled_from("$${}a:-+?#%/*\\'\"<`1_ .\n")), st.booleans(), st.booleans())
@example("${a:-" * 5000, False, False)
@example("${path##" + "*a" * 3000 + "}", False, False)
def test_any_text_is_expanded_or_refused(text, raw, keep):
    lexer = Lexer(raw_quotes=raw, keep_unset=keep)
    try:
        lexer.process(text, {"a": "a" * 3000, "path": "a" * 3000})
    except Invalid as error:
        assert error.message
