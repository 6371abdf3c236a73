"""What the collector plans, as a table and as properties."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Invalid
from corten.store.collection import KINDS, Contents, Disk, Item, Mark, parse_mark, plan, unique

SIZES = {name: 10**number for number, name in enumerate("abcdef")}
OWN = {"x": 3, "y": 50_000, "z": 700}
ITEMS = st.lists(
    st.builds(
        Item, st.sampled_from(KINDS), st.uuids().map(str), used=st.integers(0, 5), content=st.frozensets(st.sampled_from("abcdef"), max_size=4),
        kept=st.sampled_from(["", "", "pinned"]), own=st.sets(st.sampled_from(["x", "y", "z"])).map(lambda keys: tuple((key, OWN[key]) for key in keys)),
    ),
    max_size=8,
)  # fmt: skip


def held(items: list[Item], contents: Contents) -> int:
    names = {each for item in items for each in item.content} | {each for each, count in contents.others.items() if count}
    return sum(contents.sizes[each] for each in names)


def freed(items: list[Item], left: list[Item], contents: Contents) -> int:
    own = {key for item in items if item not in left for key, _ in item.own}
    return held(items, contents) - held(left, contents) + sum(OWN[key] for key in own)


@given(items=ITEMS, kinds=st.permutations(KINDS).map(lambda kinds: kinds[:3]), need=st.integers(0, 200_000), others=st.dictionaries(st.sampled_from("abc"), st.integers(1, 2)))
def test_enough_goes_and_nothing_more(items, kinds, need, others):
    contents = Contents(SIZES, others)
    steps = plan(items, contents, kinds, need)
    taken = [step.item for step in steps]
    left = [item for item in items if item not in taken]
    assert not any(item.kept or item.kind not in kinds for item in taken)
    order = [(item.kind != "leftovers", item.used, KINDS.index(item.kind)) for item in taken]
    assert order == sorted(order)
    got = freed(items, left, contents)
    assert sum(step.frees for step in steps) == got
    if got < need:
        assert all(item.kept or item.kind not in kinds for item in left)
    for item in taken:
        assert freed(items, [*left, item], contents) < need


def test_what_is_waited_for_goes_first_and_stays_gone():
    """An image that a stopped container uses, an image that a running one does, and a volume."""
    items = [
        Item("containers", "stopped", used=2, content=frozenset("a"), own=(("w", 1),)),
        Item("containers", "running", used=9, content=frozenset("c"), kept="it runs"),
        Item("volumes", "v", used=2, kept="in use", until=frozenset({"stopped"}), own=(("v", 10),)),
        Item("images", "1", used=3, content=frozenset("ab"), kept="in use", until=frozenset({"stopped"})),
        Item("images", "2", used=1, content=frozenset("c"), kept="in use", until=frozenset({"running"})),
    ]
    contents = Contents(SIZES)

    def names(kinds: tuple[str, ...], need: int) -> list[tuple[str, int]]:
        return [(step.item.id, step.frees) for step in plan(items, contents, kinds, need)]

    assert names(KINDS, 10**9) == [("stopped", 1), ("v", 10), ("1", SIZES["a"] + SIZES["b"])]
    assert names(KINDS, 12) == [("stopped", 1), ("1", SIZES["a"] + SIZES["b"])]  # without its container's going the image could not
    assert names(("images", "volumes"), 10**9) == []


def test_a_log_goes_with_its_container_or_before_it():
    log = Item("logs", "l", used=1, own=(("log", 5),))
    container = Item("containers", "c", used=2, own=(("w", 7), ("log", 5)))
    assert [step.frees for step in plan([log, container], Contents({}), KINDS, 99)] == [5, 7]
    assert [(step.item.id, step.frees) for step in plan([log, container], Contents({}), KINDS, 12)] == [("c", 12)]
    assert [(step.item.id, step.frees) for step in plan([log, container], Contents({}), KINDS, 6)] == [("c", 12)]
    assert [(step.item.id, step.frees) for step in plan([log, container], Contents({}), ("containers",), 12)] == [("c", 12)]


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
