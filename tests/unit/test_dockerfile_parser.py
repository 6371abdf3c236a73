"""Dockerfile text to nodes: every rule by example, BuildKit's own cases where a tree of it is at hand, and no text that crashes it."""

from __future__ import annotations

import os

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from corten.builder.parser import Heredoc, Node, decode, parse
from corten.builder.source import shown
from corten.errors import DockerfileError, DockerfileSyntax

BUILDKIT = os.environ.get("CORTEN_BUILDKIT_TREE", "")
CASES = os.path.join(BUILDKIT, "frontend", "dockerfile", "parser")
needs_buildkit = pytest.mark.skipif(not BUILDKIT, reason="CORTEN_BUILDKIT_TREE names no tree of BuildKit's source")


def only(text: str) -> Node:
    nodes = parse(text).nodes
    assert len(nodes) == 1
    return nodes[0]


# --- BuildKit's cases
def quoted(word: str) -> str:
    """Go's strconv.Quote, as far as the cases go."""
    named = {"\\": "\\\\", '"': '\\"', "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
    return '"' + "".join(named.get(letter) or (letter if letter.isprintable() else f"\\x{ord(letter):02x}") for letter in word) + '"'


def dump(node: Node) -> str:
    flags = f" [{' '.join(map(quoted, node.flags))}]" if node.flags else ""
    child = [f"({dump(node.child)})"] if node.child else []
    return " ".join([node.name.lower() + flags, *child, *map(quoted, node.args)])


def folders(name: str) -> list[str]:
    return sorted(os.listdir(os.path.join(CASES, name))) if BUILDKIT else ["(none)"]


def read(*path: str) -> str:
    with open(os.path.join(CASES, *path), "rb") as file:
        return decode(file.read())


@needs_buildkit
@pytest.mark.parametrize("name", folders("testfiles"))
def test_buildkit_case(name):
    dockerfile = parse(read("testfiles", name, "Dockerfile"))
    assert "\n".join(f"({dump(node)})" for node in dockerfile.nodes) == read("testfiles", name, "result").strip()


@needs_buildkit
@pytest.mark.parametrize("name", folders("testfiles-negative"))
def test_buildkit_negative_case(name):
    with pytest.raises(DockerfileSyntax):
        parse(read("testfiles-negative", name, "Dockerfile"))


@needs_buildkit
def test_buildkit_line_numbers():
    spans = [(node.span.first, node.span.last) for node in parse(read("testfile-line", "Dockerfile")).nodes]
    assert spans == [(5, 5), (11, 12), (17, 31)]


# --- one line
@pytest.mark.parametrize(
    "line, args, json",
    [
        ('CMD ["a", "b c"]', ("a", "b c"), True),
        ("CMD []", (), True),
        ("CMD", (), False),
        ("CMD ['a']", ("['a']",), False),
        ('CMD ["a" "b"]', ('["a" "b"]',), False),
        ('CMD ["a", "b"', ('["a", "b"',), False),
        ("RUN a   b", ("a   b",), False),
        ('SHELL ["/bin/bash", "-c"]', ("/bin/bash", "-c"), True),
        ("COPY a  b\tc /", ("a", "b", "c", "/"), False),
        ('COPY ["a b", "/"]', ("a b", "/"), True),
        ("VOLUME /a /b", ("/a", "/b"), False),
        ("EXPOSE 80 443/tcp", ("80", "443/tcp"), False),
        ("USER  me:us ", ("me:us",), False),
        ("WORKDIR /a b", ("/a b",), False),
        ("MAINTAINER A <a@b>", ("A <a@b>",), False),
        ("FROM a AS b", ("a", "AS", "b"), False),
        ("ENV a b c", ("a", "b c", ""), False),
        ("ENV a=b c=d", ("a", "b", "=", "c", "d", "="), False),
        ('ENV a="b c" d=e\\ f', ("a", '"b c"', "=", "d", "e\\ f", "="), False),
        ("LABEL a=b=c", ("a", "b=c", "="), False),
        ("ARG a b=1 c='x y'", ("a", "b=1", "c='x y'"), False),
        ("HEALTHCHECK NONE", ("NONE",), False),
        ("HEALTHCHECK CMD a b", ("CMD", "a b"), False),
        ('HEALTHCHECK CMD ["a", "b"]', ("CMD", "a", "b"), True),
        ("ENV", (), False),
        ("NOSUCH a b", (), False),
    ],
)
def test_arguments(line, args, json):
    node = only(line)
    assert (node.args, node.json) == (args, json)


@pytest.mark.parametrize(
    "line, flags, args",
    [
        ("COPY --from=a --link b c", ("--from=a", "--link"), ("b", "c")),
        ("RUN --mount=type=cache,target=/x  make", ("--mount=type=cache,target=/x",), ("make",)),
        ('RUN --a="b c"d e', ("--a=b cd",), ("e",)),
        ("RUN --a='b\\\"c' e", ('--a=b"c',), ("e",)),
        ("RUN --a=b\\ c e", ("--a=b c",), ("e",)),
        ("RUN -- --a", (), ("--a",)),
        ("RUN --a", ("--a",), ()),
        ("RUN - --a", (), ("- --a",)),
        ("COPY --exclude=ä* a b", ("--exclude=ä*",), ("a", "b")),
        ("ONBUILD COPY --from=a b c", (), ()),
    ],
)
def test_flags(line, flags, args):
    node = only(line)
    assert (node.flags, node.args) == (flags, args)


def test_onbuild_has_a_child():
    node = only('ONBUILD RUN ["a", "b"]')
    assert node.child is not None
    assert (node.child.name, node.child.args, node.child.json) == ("RUN", ("a", "b"), True)
    assert only("ONBUILD").child is None


# --- lines
@pytest.mark.parametrize(
    "text, argument",
    [
        ("RUN a \\\n  b", "a   b"),
        ("RUN a \\  \t\nb", "a b"),
        ("RUN a\\\nb", "ab"),
        ("RUN a \\\n# said\n  # more\nb", "a b"),
        ("RUN a \\\n\n\nb", "a b"),
        ("RUN a \\\\\n", "a \\\\"),
        ("RUN a \\", "a"),
        ("RUN a \\\r\nb\r\n", "a b"),
        ("RUN \\\na", "a"),
        ("\n\n  RUN a", "a"),
        ("\ufeffRUN a", "a"),
        ("# escape=`\nRUN a `\nb \\", "a b \\"),
        ("#escape = ` \nRUN a `\nb", "a b"),
        ("# Escape=`\n# syntax=x\nRUN a`\nb", "ab"),
        ("# said\n# escape=`\nRUN a `\n", "a `"),
        ("# no=such\n# escape=`\nRUN a `\n", "a `"),
        ("\n# escape=`\nRUN a `\n", "a `"),
        ("RUN echo # not a comment", "echo # not a comment"),
    ],
)
def test_lines_are_joined(text, argument):
    assert only(text).args == (argument,)


def test_spans_comments_and_empty_continuations():
    text = "# syntax=docker/dockerfile:1\n\n# a is this\nARG a\n# gone\n#\n# b\nRUN x \\\n\n  y\nCMD z"
    dockerfile = parse(text)
    assert [(node.span.first, node.span.last) for node in dockerfile.nodes] == [(4, 4), (8, 10), (11, 11)]
    assert [node.comments for node in dockerfile.nodes] == [("a is this",), ("b",), ()]
    assert dockerfile.empty_continuations == (10,)


def test_directives_are_read():
    text = "#!/usr/bin/env x\n# syntax=docker/dockerfile:1 \n# check=skip=A,B;error=true\nFROM a"
    found = parse(text).directives
    assert {name: (directive.value, directive.line) for name, directive in found.items()} == {
        "syntax": ("docker/dockerfile:1", 2),
        "check": ("skip=A,B;error=true", 3),
    }


# --- heredocs
@pytest.mark.parametrize(
    "text, heredocs",
    [
        ("RUN <<EOF\na\n b\nEOF\n", [("EOF", True, False, "a\n b\n")]),
        ("RUN <<-EOF\n\ta\n\tEOF\n", [("EOF", True, True, "\ta\n")]),
        ("RUN <<'EOF'\n$a\nEOF\n", [("EOF", False, False, "$a\n")]),
        ('RUN <<"E"OF\n$a\nEOF', [("EOF", False, False, "$a\n")]),
        ("RUN python3 <<EOF\nx\nEOF", [("EOF", True, False, "x\n")]),
        ("RUN 3<<EOF cat\nx\nEOF", [("EOF", True, False, "x\n")]),
        ("COPY <<a <<b /\n1\na\n2\nb\n", [("a", True, False, "1\n"), ("b", True, False, "2\n")]),
        ("ADD <<a.txt /\na.txt\n", [("a.txt", True, False, "")]),
        ("COPY << EOF /\nx\nEOF", [("EOF", True, False, "x\n")]),
        ("RUN <<EOF\r\na\r\nEOF\r\n", [("EOF", True, False, "a\r\n")]),
        ("ONBUILD RUN <<EOF\nx\nEOF", [("EOF", True, False, "x\n")]),
        ("RUN <<EOF\n# kept\n\nx\\\nEOF", [("EOF", True, False, "# kept\n\nx\\\n")]),
        ('RUN ["a", "<<EOF"]', []),
        ("RUN echo '<<EOF'", []),
        ("CMD <<EOF", []),
        ("RUN a <<<b", []),
        ("RUN a << b << c", None),
    ],
)
def test_heredocs(text, heredocs):
    if heredocs is None:
        with pytest.raises(DockerfileSyntax, match="unterminated heredoc"):
            parse(text)
        return
    assert only(text).heredocs == tuple(Heredoc(*values) for values in heredocs)


def test_leading_tabs_are_chomped():
    assert only("RUN <<-EOF\n\t\ta\n\t b\n c\nEOF").heredocs[0].text == "a\n b\n c\n"


def test_an_instruction_after_a_heredoc_is_found():
    nodes = parse("RUN <<EOF\nx\nEOF\nCMD y").nodes
    assert [(node.name, node.span.first, node.span.last) for node in nodes] == [("RUN", 1, 3), ("CMD", 4, 4)]


# --- errors
@pytest.mark.parametrize(
    "text, line, reason",
    [
        ("", 1, "file with no instructions"),
        ("# only\n# comments\n", 2, "file with no instructions"),
        ("FROM a\nENV b", 2, "ENV must have two arguments"),
        ("FROM a\nLABEL b=c d", 2, 'Syntax error - can\'t find = in "d". Must be of the form: name=value'),
        ("FROM a\nCMD [1]", 2, "when using JSON array syntax, arrays must be comprised of strings only"),
        ("FROM a\nRUN <<EOF\nb", 2, "unterminated heredoc: want a line 'EOF'"),
        ("# escape=x\nFROM a", 1, "invalid escape token 'x' does not match ` or \\"),
        ("# syntax=a\n# syntax=b\nFROM a", 2, "only one syntax parser directive can be used"),
    ],
)
def test_errors_have_a_line(text, line, reason):
    with pytest.raises(DockerfileSyntax) as caught:
        parse(text)
    assert caught.value.message == f"dockerfile parse error on line {line}: {reason}"


def test_an_error_is_shown_in_its_place():
    source = "FROM a\nRUN b\nENV nothing\nRUN c\nRUN d\nRUN e\n"
    with pytest.raises(DockerfileSyntax) as caught:
        parse(source)
    assert shown(caught.value, source, "Dockerfile").message == (
        "dockerfile parse error on line 3: ENV must have two arguments\nDockerfile:3\n--------------------\n   1 |     FROM a\n   2 |     RUN b\n   3 | >>> ENV nothing\n"
        "     |         ^^^^^^^\n   4 |     RUN c\n   5 |     RUN d\n--------------------"
    )


LINES = st.lists(
    st.sampled_from(
        ["FROM a", "RUN <<EOF", "EOF", "COPY <<-'A B' /x", "A B", "ENV a=b\\", "\\", "# escape=`", "# check=skip=all", "ONBUILD ONBUILD RUN x",
         'CMD ["a"', "CMD " + "[" * 50, 'RUN --mount=type="x', "LABEL 'a=b", "`", "\r", "", "HEALTHCHECK --x CMD", "\ufeff", "<<", "3<<-"]
    )
)  # fmt: skip


@given(st.one_of(st.text(), LINES.map("\n".join), LINES.map("\r\n".join), st.binary().map(decode)))
@example("CMD " + "[" * 100_000)
@example("ONBUILD " * 1000 + "RUN x")
@example("RUN <<" + "${a:-" * 1000)
@example('CMD ["\\ud800"]')
def test_any_text_is_nodes_or_an_error_with_a_line(text):
    try:
        nodes = parse(text).nodes
    except DockerfileError as error:
        assert 1 <= error.line <= error.last_line <= text.count("\n") + 1
        assert shown(error, text, "Dockerfile").message
    else:
        assert nodes
        assert all(1 <= node.span.first <= node.span.last <= text.count("\n") + 1 for node in nodes)
