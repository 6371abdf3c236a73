"""The corpus of Dockerfiles, converted here, against what the real engine's BuildKit made of it: config, history, findings, outline, targets, refusals."""

from __future__ import annotations

import asyncio
import json
import os
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder import calls
from corten.builder.convert import convert
from corten.builder.graph import Local, Vertex, layers_of
from corten.builder.options import BuildOptions
from corten.builder.plan import FoundImage
from corten.builder.source import shown
from corten.errors import DockerfileError, Invalid
from corten.spec.digest import digest_of
from corten.spec.ignore_file import read_patterns
from corten.spec.image import ImageConfig, RootFS, RunConfig
from corten.spec.platform import Platform
from tests.conformance.corpus import CASES, Case
from tests.conformance.record import RECORDED as FOLDER

with open(os.path.join(FOLDER, "corpus.json"), encoding="utf-8") as recorded:
    RECORDED: dict[str, Any] = json.load(recorded)

BUSYBOX = RunConfig(env=["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], cmd=["sh"])
BUILT = [name for name in CASES if "config" in RECORDED[name]]


class OnlyBusybox:
    async def find(self, reference: str, platform: Platform) -> FoundImage:
        return FoundImage(reference, digest_of(b"busybox"), ImageConfig("amd64", RootFS([digest_of(b"layer")]), config=BUSYBOX))


def options(case: Case) -> BuildOptions:
    context = Vertex(Local(ignore=read_patterns(case.context.get(".dockerignore", ""))))
    return BuildOptions(case.arguments, case.target, build_platform=Platform("amd64"), context=context)


def test_everything_is_recorded():
    assert set(RECORDED) == set(CASES)


@pytest.mark.parametrize("name", BUILT)
def test_config_and_history(name):
    plan = asyncio.run(convert(CASES[name].text, options(CASES[name]), OnlyBusybox()))
    wanted = RECORDED[name]
    assert json.loads(msgspec.json.encode(plan.config)) == wanted["config"]
    assert plan.author == wanted["author"]
    if wanted["history"]:
        assert [(line.created_by, line.vertex is None) for line in plan.history] == [
            (line["created_by"], line.get("empty_layer", False)) for line in wanted["history"]]  # fmt: skip
        assert len(plan.base.chain if plan.base else ()) + len(layers_of(plan.target)) == wanted["layers"]


def as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


NO_SUCH_IMAGE = "files: run bind from"  # a mount's `from` is no stage's number: an image of that name is looked for, and here every image is found


# An expansion that fails tells no undefined variables beside its reason.
@pytest.mark.parametrize("name", [name for name in CASES if name not in ("bad_demand", NO_SUCH_IMAGE)])
def test_check(name):
    found = asyncio.run(calls.check(CASES[name].text, options(CASES[name]), OnlyBusybox())).as_json()
    wanted = RECORDED[name]["check"]
    assert sorted(found["warnings"] or [], key=as_text) == sorted(wanted["warnings"] or [], key=as_text)
    assert ("buildError" in found) == ("buildError" in wanted)
    if "buildError" in wanted and wanted["buildError"]["location"]:
        assert found["buildError"]["location"] == wanted["buildError"]["location"]


@pytest.mark.parametrize("name", [name for name in CASES if RECORDED[name]["outline"]])
def test_outline(name):
    found = asyncio.run(calls.outline(CASES[name].text, options(CASES[name]), OnlyBusybox())).as_json()
    wanted = RECORDED[name]["outline"]
    # Those of one line have no order there.
    assert sorted(found.pop("args", []), key=as_text) == sorted(wanted.get("args", []), key=as_text)
    assert found == {key: value for key, value in wanted.items() if key != "args"}


@pytest.mark.parametrize("name", [name for name in CASES if RECORDED[name]["targets"] and RECORDED[name]["targets"]["targets"]])
def test_targets(name):
    assert [target.as_json() for target in calls.targets(CASES[name].text)] == RECORDED[name]["targets"]["targets"]


SAID_BETTER_HERE = {"bad_expansion", "bad_symbolic_chmod"}
ONLY_WHEN_IT_RUNS = {
    "bad_exit", "bad_missing_source", "bad_secret", "checks_vars", "files: copy link inside", "files: bad target", "files: bad folder on file",
    "files: bad file on folder", "files: bad missing", "files: run bind missing", "files: bad below tar file",
    "files: add tar of a file to a file", NO_SUCH_IMAGE,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in CASES if "refused" in RECORDED[name] and name not in ONLY_WHEN_IT_RUNS | SAID_BETTER_HERE])
def test_refusal(name):
    """With BuildKit's words. Ours may say more behind them, and name the line where BuildKit does that by other means."""
    with pytest.raises(Invalid) as caught:
        asyncio.run(convert(CASES[name].text, options(CASES[name]), OnlyBusybox()))
    reason = caught.value.reason if isinstance(caught.value, DockerfileError) else caught.value.message
    assert reason.startswith(re.sub(r"^dockerfile parse error on line \d+: ", "", RECORDED[name]["refused"]))


DAMAGE = ["", "$", "${", "}", "\\", "\n", '"', "'", "[", "]", "<<E", "\nE\n", "--", "=", "#", "`", ",", "\0", "\x85", "\u2028", "é", '["\\ud800"]', "ONBUILD ", "--mount=", "\\\n", "FROM ", "0", "-1", "99999999999999999999"]


@given(st.sampled_from(sorted(CASES)), st.lists(st.tuples(st.integers(0, 600), st.integers(0, 6), st.sampled_from(DAMAGE)), min_size=1, max_size=5))
def test_a_damaged_dockerfile_is_a_plan_or_is_refused(name, damage):
    """Every case of the corpus with letters taken out and others put in: nothing but an error for the client comes of it, and it can be sent."""
    text = CASES[name].text
    for place, gone, put in damage:
        at = place % (len(text) + 1)
        text = text[:at] + put + text[at + gone :]
    try:
        plan = asyncio.run(convert(text, options(CASES[name]), OnlyBusybox()))
    except Invalid as error:
        told = shown(error, text, "Dockerfile") if isinstance(error, DockerfileError) else error
        assert told.message
        assert msgspec.json.encode(told.message)
    else:
        assert msgspec.json.encode(plan.config)
    assert msgspec.json.encode(asyncio.run(calls.check(text, options(CASES[name]), OnlyBusybox())).as_json())
