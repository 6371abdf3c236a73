"""What the collector plans, as a table and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Invalid
from corten.store.collection import KINDS, Contents, Disk, Item, Mark, parse_mark, plan, unique

SIZES = {name: 10**number for number, name in enumerate("abcdef")}
ITEMS = st.lists(
    st.builds(
        Item, st.sampled_from(KINDS), st.uuids().map(str), used=st.integers(0, 5), content=st.frozensets(st.sampled_from("abcdef"), max_size=4),
        kept=st.sampled_from(["", "", "pinned"]),
    ),
    max_size=8,
)  # fmt: skip


def held(items: list[Item], contents: Contents) -> int:
    names = {each for item in items for each in item.content} | {each for each, count in contents.others.items() if count}
    return sum(contents.sizes[each] for each in names)


@given(items=ITEMS, kinds=st.permutations(KINDS).map(lambda kinds: kinds[:3]), need=st.integers(0, 200_000), others=st.dictionaries(st.sampled_from("abc"), st.integers(1, 2)))
def test_enough_goes_and_nothing_more(items, kinds, need, others):
    contents = Contents(SIZES, others)
    steps = plan(items, contents, kinds, need)
    taken = [step.item for step in steps]
    left = [item for item in items if item not in taken]
    assert not any(item.kept or item.kind not in kinds for item in taken)
    assert [(kinds.index(item.kind), item.used) for item in taken] == sorted((kinds.index(item.kind), item.used) for item in taken)
    freed = held(items, contents) - held(left, contents)
    assert sum(step.frees for step in steps) == freed
    if freed < need:
        assert all(item.kept or item.kind not in kinds for item in left)
    for item in taken:
        assert held(items, contents) - held([*left, item], contents) < need


def test_what_only_one_holds():
    items = [Item("images", "1", content=frozenset("ab")), Item("images", "2", content=frozenset("bc"))]
    assert unique(items, Contents(SIZES, {"c": 1})) == {"1": SIZES["a"], "2": 0}


@pytest.mark.parametrize(("text", "excess"), [("50%", 300), ("80%", 0), ("100", 400), ("0.4kB", 100), ("1GB", 0)])
def test_marks(text, excess):
    assert parse_mark(text).excess(Disk(1000, 800, 500)) == excess


@pytest.mark.parametrize("text", ["", "x", "101%", "-1", "5X", "1.2.3GB"])
def test_bad_marks(text):
    with pytest.raises(Invalid):
        parse_mark(text)


def test_marks_are_shown_as_they_were_given():
    assert str(parse_mark("85%")) == "85%"
    assert str(Mark(20_000_000_000, percent=False)) == "20000000000"
