"""The pure parts of the builder's lower half: what is selected, what a key is made of, what is pruned, who may have what mode."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.cache import REGULAR, CacheRow, PackedIngredients, explain, first_difference, pack
from corten.builder.context_job import complete
from corten.builder.context_shares import large_paths
from corten.builder.entries import FILE, FOLDER, LINK, Entry, digest_of_entry
from corten.builder.file_plan import FilePlan, PutCopy, PutFile, PutFolder, Source, read_plan, write_plan
from corten.builder.graph import (
    Copy,
    Exec,
    File,
    Image,
    Limits,
    Local,
    Scratch,
    Shown,
    Vertex,
    in_order,
    layers_of,
    render,
)
from corten.builder.in_flight import InFlight
from corten.builder.ingredients import key_of, of_exec, of_file
from corten.builder.limits import BuilderSettings, Policy, Space, read_settings
from corten.builder.permissions import BadMode, changed_mode, owner_of
from corten.builder.progress import Difference
from corten.builder.prune import CacheUse, matching, within
from corten.builder.prune import Limits as Keep
from corten.builder.results import MadeLayer
from corten.builder.select import NoSuchSource, select
from corten.builder.trees import ContextTree, TooManyLinks, follow
from corten.errors import Invalid
from corten.spec.ignore_file import Ignore
from corten.spec.wildcards import BadPattern, compiled

PASSWD, GROUP = "root:x:0:0::/:/bin/sh\nbob:x:12:34::/:/bin/sh\n", "team:x:77:\n"


# --- the graph
def test_a_digest_is_of_what_changes_the_result():
    base = Vertex(Image("sha256:1", "debian"))
    step = Vertex(Exec(("make",), limits=Limits(memory=1), proxies=("p=1",)), (base,), Shown("RUN make", "a", 3))
    same = Vertex(Exec(("make",)), (Vertex(Image("sha256:1", "other name")),))
    assert step == same
    assert len({step, same}) == 1
    assert step != Vertex(Exec(("make", "all")), (base,))
    assert step != Vertex(Exec(("make",)), (Vertex(Image("sha256:2")),))


def test_a_graph_is_walked_inputs_first():
    context, base = Vertex(Local()), Vertex(Scratch())
    copied = Vertex(File((Copy(1, ("a",), "/"),)), (base, context))
    run = Vertex(Exec(("x",)), (copied,))
    assert list(in_order([run])) == [base, context, copied, run]
    assert layers_of(run) == [copied, run]
    assert render(run).splitlines()[-1] == '#4 {"args":["x"],"type":"exec"} #3'


# --- selecting
def tree(*paths: str, **links: str) -> ContextTree:
    listed = {path: Entry(path, FILE, 0o644, digest=path) for path in paths} | {path: Entry(path, LINK, link=target) for path, target in links.items()}
    return ContextTree(lambda: complete(listed))


def no_excludes(patterns: tuple[str, ...]):
    return Ignore(patterns).ignores


@pytest.mark.parametrize("sources, options, expected", [
    (("a",), {}, [("a", ["a"])]),
    (("d",), {}, [("", ["", "sub", "sub/x", "y"])]),
    (("d/*",), {}, [("", ["", "x"]), ("y", ["y"])]),
    (("*/y",), {}, [("y", ["y"])]),
    (("l",), {}, [("", ["", "x"])]),
    (("l/x",), {}, [("x", ["x"])]),
    (("d",), {"exclude": ("sub",)}, [("", ["", "y"])]),
    (("d/sub/x",), {"parents": True}, [("", ["", "d", "d/sub", "d/sub/x"])]),
    (("d/./sub/x",), {"parents": True}, [("", ["", "sub", "sub/x"])]),
    (("no*",), {"required": False}, []),
])  # fmt: skip
def test_what_a_copy_takes(sources, options, expected):
    found = select(tree("a", "d/sub/x", "d/y", l="d/sub"), Copy(1, sources, "/t/", **options), no_excludes)
    assert [(group.name, [path for path, _ in group.items]) for group in found] == expected


def test_what_is_not_there_is_named_with_what_may_be_meant():
    with pytest.raises(NoSuchSource, match=r"stat d/Y: file does not exist \(did you mean y\?\)"):
        select(tree("d/y"), Copy(1, ("d/Y",), "/t"), no_excludes)
    hidden = ContextTree(lambda: complete({"secret": Entry("secret", FILE)}), Ignore(("secret",)).ignores)
    with pytest.raises(NoSuchSource, match="the ignore file excludes it"):
        select(hidden, Copy(1, ("secret",), "/t"), no_excludes)


def test_links_are_followed_inside():
    made = tree("etc/f", up="../../../etc", there="/etc", loop="loop")
    assert follow(made, "up/f") == follow(made, "there/f") == "etc/f"
    assert follow(made, "../../etc/f") == "etc/f"
    assert follow(made, "up/nothing") is None
    with pytest.raises(TooManyLinks):
        follow(made, "loop/x")


@pytest.mark.parametrize("pattern, yes, no", [
    ("a*c", ["abc", "ac"], ["a/c", "abcd"]), ("?", ["x"], ["", "xy"]), ("[a-c]x", ["bx"], ["dx"]), ("[^a]x", ["bx"], ["ax"]), (r"\*", ["*"], ["x"]),
])  # fmt: skip
def test_patterns_are_gos(pattern, yes, no):
    assert all(compiled(pattern).fullmatch(text) for text in yes)
    assert not any(compiled(pattern).fullmatch(text) for text in no)


@pytest.mark.parametrize("pattern", ["[", "[]", "[a", "a\\", "[a-", "[-x]"])
def test_bad_patterns(pattern):
    with pytest.raises(BadPattern):
        compiled(pattern)


@given(st.text(max_size=12))
def test_any_pattern_is_read_or_refused(pattern):
    try:
        compiled(pattern)
    except BadPattern:
        return


# --- owners and modes
@pytest.mark.parametrize("text, mode, folder, expected", [
    ("0755", 0o600, False, 0o755), ("", 0o641, False, 0o641), ("u+x", 0o644, False, 0o744), ("go-w", 0o666, False, 0o644), ("a=r", 0o777, False, 0o444),
    ("+X", 0o644, False, 0o644), ("+X", 0o644, True, 0o755), ("u=rwx,go=rx", 0o600, False, 0o755), ("g=u", 0o640, False, 0o660), ("u+s", 0o755, False, 0o4755),
    ("+t", 0o755, True, 0o1755), ("o=", 0o777, False, 0o770),
])  # fmt: skip
def test_modes(text, mode, folder, expected):
    assert changed_mode(text, mode, folder=folder) == expected


@pytest.mark.parametrize("text", ["8", "77777", "u", "x+u", "u+q", ","])
def test_bad_modes(text):
    with pytest.raises(BadMode):
        changed_mode(text, 0, folder=False)


@pytest.mark.parametrize("text, expected", [("", (0, 0)), ("bob", (12, 34)), ("bob:team", (12, 77)), ("5", (5, 5)), ("5:6", (5, 6)), ("12", (12, 12)), ("0:team", (0, 77))])
def test_owners(text, expected):
    assert owner_of(text, PASSWD, GROUP) == expected


# --- keys
def test_times_and_places_make_no_other_key():
    here = Entry("a", FILE, 0o644, 0, 0, 5, 1, "", "d1", 0)
    elsewhere = Entry("a", FILE, 0o644, 0, 0, 5, 99, "", "d1", 700)
    assert digest_of_entry(here) == digest_of_entry(elsewhere)
    assert digest_of_entry(here) != digest_of_entry(Entry("a", FILE, 0o755, digest="d1"))
    assert digest_of_entry(Entry("a", FOLDER)) != digest_of_entry(Entry("a", FILE))


def test_a_key_is_the_digest_of_one_json_document():
    pairs = [("file \u00e9", 'a"b'), ("base", "x")]
    text = json.dumps(["2", pairs], ensure_ascii=False, separators=(",", ":"))
    assert key_of(iter(pairs)) == hashlib.sha256(text.encode()).hexdigest()
    assert key_of([]) == hashlib.sha256(b'["2",[]]').hexdigest()


def test_the_key_of_a_program():
    step = Exec(("make",), env=("A=1", "B=secret"))
    found = of_exec(step, ("sha256:x",), 0, ())
    assert [name for name, _ in found][:1] == ["command"]
    assert "secret" not in str(found)
    assert key_of(found) != key_of(of_exec(Exec(("make",), env=("A=2", "B=secret")), ("sha256:x",), 0, ()))
    assert first_difference(of_exec(Exec(("make",), env=("A=2",)), (), 0, ()), of_exec(Exec(("make",), env=("A=1",)), (), 0, ())).ingredient == "variable A"


def test_a_linked_layer_does_not_depend_on_its_base():
    copied = File((Copy(1, ("a",), "/"),), link=True)
    groups = [select(tree("a"), copied.actions[0], no_excludes)]
    assert key_of(of_file(copied, None, 0, groups, "")) == key_of(of_file(copied, None, 0, groups, ""))
    assert key_of(of_file(copied, ("x",), 0, groups, "")) != key_of(of_file(copied, ("y",), 0, groups, ""))


@pytest.mark.parametrize("now, cached, expected", [
    ([("a", "1"), ("b", "2")], [("a", "1"), ("b", "3")], Difference("b", "2", "3")),
    ([("a", "1"), ("b", "2")], [("a", "1")], Difference("b", "2", "")),
    ([("a", "1")], [("a", "1"), ("c", "4")], Difference("c", "", "4")),
    ([("a", "1")], [("a", "1")], None),
])  # fmt: skip
def test_the_first_difference(now, cached, expected):
    assert first_difference(now, cached) == expected


# --- pruning
def use(key: str, used: int, size: int, **state: bool) -> CacheUse:
    return CacheUse(CacheRow(key, REGULAR, f"RUN {key}", "", 0, used, 1, size=size), state.get("in_use", False), state.get("shared", False), size)


USES = [use("a", 10, 5), use("b", 20, 7), use("c", 30, 9, shared=True), use("d", 40, 1, in_use=True)]


@pytest.mark.parametrize("filters, everything, expected", [
    ({}, False, "ab"), ({}, True, "abc"), ({"id": ["b"]}, False, "b"), ({"description": ["RUN a"]}, True, "a"), ({"type": ["exec.cachemount"]}, True, ""),
    ({"shared": ["true"]}, True, "c"), ({"private": ["1"]}, True, "ab"), ({"inuse": ["true"]}, True, ""),
])  # fmt: skip
def test_what_may_be_pruned(filters, everything, expected):
    assert "".join(one.row.key for one in matching(USES, filters, 100, everything=everything)) == expected


@pytest.mark.parametrize("limits, expected", [(Keep(), "abc"), (Keep(keep=22), ""), (Keep(keep=20), "a"), (Keep(keep=0), "abc"), (Keep(since=15), "a"),
                                              (Keep(keep=0, since=15), "a"), (Keep(keep=22, since=35), ""), (Keep(keep=-5), "abc")])  # fmt: skip
def test_what_must_be_pruned(limits, expected):
    assert "".join(one.row.key for one in within(USES[:3], limits, 21 + 1)) == expected


@pytest.mark.parametrize("space, free, expected", [
    (Space(), 0, None), (Space(reserved=30), 0, 30), (Space(most=40), 0, 40), (Space(reserved=50, most=40), 0, 50),  # what is reserved wins
    (Space(free=10), 10, 100), (Space(free=10), 4, 94), (Space(free=500), 4, 0), (Space(free=500, reserved=7), 4, 7),
    (Space(most=98, free=10), 4, 94), (Space(most=60, free=10), 4, 60), (Space(most=60, free=10), 20, 60),
])  # fmt: skip
def test_what_may_stay_of_a_hundred_bytes(space, free, expected):
    assert (space.keep(100, free) if expected is None else max(0, space.keep(100, free))) == expected


@pytest.mark.parametrize("value, expected", [
    ({}, BuilderSettings()),
    ({"gc": {"enabled": False}}, BuilderSettings(())),
    ({"gc": {"defaultKeepStorage": "20GB"}}, BuilderSettings((Policy(Space(20 << 30)),))),
    ({"gc": {"defaultReservedSpace": "1GB", "defaultKeepStorage": "2GB", "defaultMaxUsedSpace": 3, "defaultMinFreeSpace": "4MB"}},
     BuilderSettings((Policy(Space(1 << 30, 3, 4 << 20)),))),
    ({"gc": {"policy": [{"reservedSpace": "5", "maxUsedSpace": "7kb", "minFreeSpace": 9}]}}, BuilderSettings((Policy(Space(5, 7 << 10, 9)),))),
    ({"gc": {"policy": [{"keepStorage": 5, "filter": ["unused-for=2h"]}, {"all": True, "filter": {"x": 1}}]}}, None),
    ({"gc": {"policy": [{"keepStorage": 5, "filter": ["unused-for=2h", "type==exec.cachemount"]}]}},
     BuilderSettings((Policy(Space(5), 7_200_000_000_000, ("exec.cachemount",)),))),
    ({"entitlements": {"security-insecure": True, "network-host": False}}, BuilderSettings(None, insecure=True, host_network=False)),
    ({"gc": {"keep": 1}}, None), ({"gc": 5}, None), ({"gc": {"defaultKeepStorage": "lots"}}, None),
])  # fmt: skip
def test_settings_of_the_builder(value, expected):
    if expected is None:
        with pytest.raises(Invalid):
            read_settings(value)
    else:
        assert read_settings(value) == expected


# --- steps that two builds want
def test_a_step_is_shared_and_ends_with_the_last_who_wants_it():
    async def story() -> list[str]:
        flight, told = InFlight(), []
        begun, ended = asyncio.Event(), asyncio.Event()

        async def work(tell) -> MadeLayer:
            tell(("stdout", b"begun"))
            begun.set()
            try:
                await asyncio.sleep(60)
            finally:
                ended.set()
            return MadeLayer()

        first = asyncio.ensure_future(flight.share("k", work, lambda message: told.append(f"1{message[1].decode()}")))
        await begun.wait()
        second = asyncio.ensure_future(flight.share("k", work, lambda message: told.append(f"2{message[1].decode()}")))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        assert not ended.is_set()
        second.cancel()
        await asyncio.gather(second, return_exceptions=True)
        assert ended.is_set()
        return told

    assert asyncio.run(story()) == ["1begun", "2begun"]


# --- what makes a context large
def test_the_paths_that_make_a_context_large():
    sizes = {"node_modules/deep/big.bin": 900, "node_modules/small": 20, "src/a": 60, "src/b": 60, "README": 3}
    listed = complete({path: Entry(path, FILE, size=size) for path, size in sizes.items()})
    assert large_paths(listed) == [("node_modules/deep/big.bin", 900), ("src", 120)]
    assert large_paths(complete({})) == []


def test_ingredients_are_packed_and_compared_piece_by_piece():
    many = [(f"file {number}", f"value {number}" * 3) for number in range(30_000)]
    packed = PackedIngredients(pack(iter(many)))
    assert list(packed) == many
    assert list(packed) == many  # as often as one likes
    assert list(PackedIngredients(b"")) == []
    earlier = PackedIngredients(zstandard.compress(msgspec.msgpack.encode(many)))
    assert list(earlier) == many
    now = [*many[:100], ("file 100", "other"), *many[101:]]
    assert explain(now, [PackedIngredients(pack(many[:50])), packed]) == Difference("file 100", "other", many[100][1])
    assert explain(many[:-1], [packed]) == Difference("file 29999", "", many[-1][1])
    assert explain(many, []) is None


def test_a_plan_travels_in_parts():
    items = [(f"f{number}", Entry(f"f{number}", FILE, place=-number)) for number in range(5_000)]
    copy = PutCopy("/t", [Source("", "/o", [("", Entry("", FOLDER)), *items], [-3, -4_000]), Source("one", "", [("one", Entry("one", FILE))])], "5", "u+x", unpack=True)
    actions = [PutFolder("/w", 0o755), copy, PutFile("/x", "", b"x", "")]
    file = io.BytesIO()
    write_plan(file, FilePlan("/r", [], "/u", "/l", 7, ["/o"], unpack=True), actions)
    file.seek(0)
    plan, read = read_plan(file)
    assert (plan.time, plan.origins) == (7, ["/o"])
    first, *parts, last = read
    assert (first, last) == (actions[0], actions[-1])
    assert len(parts) == 4
    assert [item for part in parts for source in part.sources for item in source.items] == [item for source in copy.sources for item in source.items]
    assert [source.linkable for part in parts for source in part.sources] == [[-3], [-4_000], [], []]
    assert {(part.target, part.owner, part.mode, part.unpack) for part in parts} == {("/t", "5", "u+x", True)}
