"""References against the grammar of the distribution project, written here as its own expressions and rules (reference/regexp.go, normalize.go)."""

from __future__ import annotations

import re

from hypothesis import given, settings
from hypothesis import strategies as st

from corten.errors import Invalid
from corten.spec.reference import parse_reference

_LABEL = "(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_DOMAIN = rf"(?:{_LABEL}(?:\.{_LABEL})*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(rf"({_DOMAIN})/({_PART}(?:/{_PART})*)(?::([0-9A-Za-z_][0-9A-Za-z_.-]{{0,127}}))?(?:@(sha256:[a-f0-9]{{64}}))?", re.ASCII)
DIGEST = "sha256:" + "0123456789abcdef" * 4
MOST = 255  # letters of a name


def expected(text: str) -> tuple[str, str, str, str] | None:
    """(domain, path, tag, digest), or None for what is no reference."""
    if re.fullmatch("[a-f0-9]{64}", text):
        return None
    first, slash, rest = text.partition("/")
    if not slash or (not set(first) & set(".:") and first != "localhost" and first == first.lower()):
        first, rest = "docker.io", text
    if first == "index.docker.io":
        first = "docker.io"
    if first == "docker.io" and "/" not in rest:
        rest = f"library/{rest}"
    found = _REFERENCE.fullmatch(f"{first}/{rest}")
    if not found or len(found[2]) > MOST:
        return None
    return found[1], found[2], found[3] or "", found[4] or ""


WORDS = st.sampled_from(["a", "b0", "A", "0", ".", "_", "__", "-", "--", "/", ":", "@", "localhost", "docker.io", "index.docker.io", "library", "reg.x", "5000",
                         "[::1]", DIGEST, "@" + DIGEST, "@sha256:" + "A" * 64, "@sha512:" + "0" * 64, "@md5:" + "0" * 32, "é", " ", "\n", "f" * 64, "t" * 128])  # fmt: skip


def compare(text: str) -> None:
    try:
        parsed = parse_reference(text)
    except Invalid:
        assert expected(text) is None, text
        return
    assert (parsed.domain, parsed.path, parsed.tag, parsed.digest) == expected(text), text


@settings(max_examples=2000)
@given(st.lists(WORDS, min_size=1, max_size=9).map("".join))
def test_what_is_a_reference_and_what_its_parts_are(text):
    compare(text)


@given(st.text(alphabet="abA0._-/:@", max_size=12))
def test_short_texts(text):
    compare(text)


@given(st.from_regex(_REFERENCE, fullmatch=True).filter(str.isascii))
def test_every_reference_of_the_grammar(text):
    compare(text)
