"""Corten's own: what the disk holds and why, the collector, fsck, pins (docs/own-api.md)."""

from __future__ import annotations

from aiohttp import web

from corten.api.call import Call, empty, json_response
from corten.api.json_messages import JsonMessages
from corten.engine.collecting import Collecting, Survey
from corten.engine.images import ImageService
from corten.engine.repairing import Repairing
from corten.errors import Invalid
from corten.registry.auth import Credentials, parse_registry_auth
from corten.registry.progress import Emit, stream
from corten.spec import disk_answers as answers
from corten.spec.timestamps import ZERO, duration_text, rfc3339_nano
from corten.store.collection import Item, check_kinds, layer_key, parse_mark, plan, unique

_LINES = ("application/jsonl", "application/x-ndjson")


class DiskHandlers:
    def __init__(self, collecting: Collecting, repairing: Repairing, images: ImageService) -> None:
        self._collecting, self._repairing, self._images = collecting, repairing, images

    async def usage(self, call: Call) -> web.Response:
        """Every row with what it alone holds, and its place among what would go next if everything that may go had to."""
        marks = self._collecting.watermarks
        survey = await self._collecting.survey()
        alone = unique(survey.items, survey.contents)
        order = {step.item.id: number for number, step in enumerate(plan(survey.items, survey.contents, marks.kinds, survey.disk.total), 1)}
        ages = {kind: duration_text(age) for kind, age in marks.unused_for.items()}
        return json_response(answers.DiskDetail(
            answers.FileSystem(survey.disk.total, survey.disk.used, survey.disk.store),
            answers.CollectorState(self._collecting.automatic, str(marks.high), str(marks.low), list(marks.kinds), ages),
            [answers.DiskRow(*_head(item), survey.contents.size(item), alone[item.id], "" if item.id in order else item.kept, order.get(item.id, 0))
             for item in survey.items],
            _layers(survey),
        ))  # fmt: skip

    async def collect(self, call: Call) -> web.Response:
        """`free`: bytes to be had more, or `80%`: how full the disk may be; without it the low watermark. `kinds`: in place of the settings'."""
        kinds = [kind for kind in call.text("kinds").split(",") if kind]
        check_kinds(kinds)
        need = await self._need(call.text("free"))
        steps = await (self._collecting.plan(need, kinds) if call.flag("dryRun") else self._collecting.collect(need, kinds))
        shown = [answers.CollectStep(*_head(step.item), step.frees) for step in steps]
        return json_response(answers.Collected(not call.flag("dryRun"), sum(step.frees for step in steps), shown))

    async def _need(self, text: str) -> int | None:
        if not text:
            return None
        mark = parse_mark(text)
        return mark.excess((await self._collecting.survey(())).disk) if mark.percent else round(mark.amount)

    async def check(self, call: Call) -> web.StreamResponse:
        """The answer at the end; to who asks for `progress`, or accepts JSON lines, a stream of messages, whose last has it as `aux`."""
        credentials = parse_registry_auth(call.request.headers.get("X-Registry-Auth", ""))
        lines = next((form for form in _LINES if form in call.request.headers.get("Accept", "")), "")
        if not lines and not call.flag("progress"):
            return json_response(await self._check(credentials, lambda _progress: None, repair=call.flag("repair")))
        messages = JsonMessages(call.request, lines or "application/json")
        found: list[answers.StoreChecked] = []

        async def work(emit: Emit) -> None:
            found.append(await self._check(credentials, emit, repair=call.flag("repair")))

        async with messages.reporting():
            await messages.relay(stream(work))
            await messages.send({"aux": found[0]})
        return await messages.end()

    async def _check(self, credentials: Credentials, emit: Emit, *, repair: bool) -> answers.StoreChecked:
        checked = await self._repairing.check(emit)
        outcomes = {id(outcome.problem): outcome for outcome in await self._repairing.repair(checked.problems, credentials, emit)} if repair else {}
        rows = []
        for problem in checked.problems:
            outcome = outcomes.get(id(problem))
            rows.append(answers.StoreProblem(problem.kind, problem.id, problem.text, list(problem.images),
                                             outcome.repaired if outcome else False, outcome.how if outcome else ""))  # fmt: skip
        return answers.StoreChecked(checked.blobs, checked.layers, rows)

    async def pin(self, call: Call) -> web.Response:
        """With `pinned=0` it may be collected again."""
        if not call.given("pinned"):
            raise Invalid("want pinned=1 or pinned=0")
        self._images.pin(call.parameters["name"], pinned=call.flag("pinned"))
        return empty()


def _head(item: Item) -> tuple[str, str, list[str], str]:
    return item.kind, item.id, list(item.names), rfc3339_nano(item.used) if item.used else ZERO


def _layers(survey: Survey) -> list[answers.HeldLayer]:
    """Every layer with whoever holds it."""
    holders: dict[str, list[answers.Holder]] = {}
    for hold in survey.holds:
        for diff_id in hold.layers:
            holders.setdefault(diff_id, []).append(answers.Holder(hold.kind, hold.id))
    return [answers.HeldLayer(diff_id, survey.contents.sizes.get(layer_key(diff_id), 0), found) for diff_id, found in sorted(holders.items())]
