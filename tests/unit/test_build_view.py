"""How a build is shown: BuildKit's own lines from BuildKit's own values (recorded), and pictures for terminals of any size."""

from __future__ import annotations

import io
import json
import os

import msgspec
import pytest

from corten.cli.build_view.live import Line, cells, cut, frame
from corten.cli.build_view.plain import Plain
from corten.cli.build_view.trace import Trace, clean
from corten.spec.build_status import BuildStatus, StatusEntry, StatusLog, StatusVertex
from corten.spec.timestamps import rfc3339_nano

RECORDED = os.path.join(os.path.dirname(os.path.dirname(__file__)), "conformance", "recorded", "build_views.json")
SECOND = 1_000_000_000
BEGAN = 1_700_000_000 * SECOND


def at(seconds: float) -> str:
    return rfc3339_nano(BEGAN + round(seconds * SECOND))


def vertex(digest: str, started: float | None = None, completed: float | None = None, **more: object) -> StatusVertex:
    times = {key: at(time) for key, time in (("started", started), ("completed", completed)) if time is not None}
    return StatusVertex(digest, (), f"[1/2] RUN {digest}", **times, **more)


def log(digest: str, data: bytes, time: float) -> BuildStatus:
    return BuildStatus(logs=(StatusLog(digest, 1, data, at(time)),))


class Told:
    """A Plain with what it has written, and a clock."""

    def __init__(self) -> None:
        self._output = io.StringIO()
        self.plain = Plain(self._output.write)

    def take(self, time: float, *statuses: BuildStatus) -> None:
        for status in statuses:
            self.plain.take(status, BEGAN + round(time * SECOND))

    def lines(self, end: float) -> list[str]:
        self.plain.end(BEGAN + round(end * SECOND))
        return self._output.getvalue().splitlines()


with open(RECORDED, encoding="utf-8") as recorded_file:
    VIEWS = json.load(recorded_file)


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_lines_are_buildkits(name):
    told = Told()
    for status in VIEWS[name]["rawjson"]:
        told.take(0, msgspec.convert(status, BuildStatus))
    assert told.lines(0) == VIEWS[name]["plain"]


@pytest.mark.parametrize("name", sorted(VIEWS))
def test_values_are_read_whole(name):
    for status in VIEWS[name]["rawjson"]:
        read = msgspec.json.decode(msgspec.json.encode(msgspec.convert(status, BuildStatus)))
        for kind, entries in status.items():
            for entry, again in zip(entries, read[kind], strict=True):
                assert {**entry, "name": ""} == {**again, "name": ""} if kind == "statuses" else entry == again, kind


def test_a_vertex_keeps_its_turn_until_another_has_waited():
    told = Told()
    told.take(0, BuildStatus((vertex("a", 0), vertex("b", 0))), log("a", b"a1\n", 0.5))
    told.take(1, log("b", b"b1\n", 1), log("a", b"a2\n", 1))
    told.take(7, log("a", b"a3\n", 7))
    assert told.lines(8) == [
        "#1 [1/2] RUN a", "#1 0.500 a1", "#1 1.000 a2", "#1 7.000 a3", "#1 ...", "", "#2 [1/2] RUN b", "#2 1.000 b1"]  # fmt: skip


def test_lines_in_pieces_are_put_together_unless_something_comes_between():
    told = Told()
    told.take(0, BuildStatus((vertex("a", 0),)), log("a", b"one", 1), log("a", b" line\ntw", 2), log("a", b"o", 3))
    told.take(4, BuildStatus((vertex("b", 0, 4, cached=True),)), log("a", b" more\n", 5), BuildStatus((vertex("a", 0, 6, error="no luck"),)))
    assert told.lines(7) == [
        "#1 [1/2] RUN a", "#1 1.000 one line", "#1 2.000 two", "#1 ...", "", "#2 [1/2] RUN b", "#2 CACHED", "", "#1 [1/2] RUN a", "#1  more",
        "#1 ERROR: no luck", "------", " > [1/2] RUN a:", "1.000 one line", "2.000 two more", "------"]  # fmt: skip


def test_a_transfer_is_told_when_it_has_moved():
    def moved(time: float, current: int, completed: str = "") -> BuildStatus:
        return BuildStatus(statuses=(StatusEntry("abc", "a", current, at(time), 1_000_000, at(0), completed),))

    told = Told()
    told.take(0, BuildStatus((vertex("a", 0),)), moved(0, 10))
    for time, current in ((1, 1_000), (1.1, 10_000), (1.2, 200_000), (1.3, 210_000)):
        told.take(time, moved(time, current))
    told.take(2, moved(2, 1_000_000, at(2)), BuildStatus((vertex("a", 0, 2, error="rpc error: context canceled"),)))
    assert told.lines(3) == [
        "#1 [1/2] RUN a", "#1 abc 1.00kB / 1.00MB 1.0s", "#1 abc 200.00kB / 1.00MB 1.2s", "#1 abc 1.00MB / 1.00MB 2.0s done", "#1 CANCELED"]  # fmt: skip


# --- pictures
def picture(statuses: list[BuildStatus], now: float, width: int, height: int, *, last: bool = False) -> list[str]:
    trace = Trace()
    for status in statuses:
        trace.take(status)
    return [line.text(width) for line in frame(trace, BEGAN + round(now * SECOND), height, last=last)]


def test_a_picture():
    done = BuildStatus((vertex("a", 0, 1.26), vertex("b", 1), vertex("c", 0, 0.01, cached=True), vertex("d"), vertex("e", 0, 1, error="bad")))
    entry = BuildStatus(statuses=(StatusEntry("layer", "b", 1_500_000, at(2), 2_000_000, at(1.5)),))
    rows = picture([done, entry, log("b", b"x\rover\n\x1b[31mred\x1b[0m\tz\n", 2)], 3, 44, 20)
    assert rows == [
        "[+] Building 3.0s (3/5)",
        " => [1/2] RUN a                         1.3s",
        " => [1/2] RUN b                         2.0s",
        " => => # over",
        " => => # red    z",
        " => => layer 1.50MB / 2.00MB            1.5s",
        " => CACHED [1/2] RUN c                  0.0s",
        " => ERROR [1/2] RUN e                   1.0s",
    ]


def test_what_runs_is_shown_before_what_has_ended():
    statuses = [BuildStatus((vertex("first", 0), *(vertex(f"done{number}", 0, 1) for number in range(30)), vertex("second", 0))), log("first", b"said\n", 1)]
    rows = picture(statuses, 2, 60, 6)
    assert [row.split()[-2] for row in rows[1:]] == ["first", "done28", "done29", "second"]
    assert len(picture(statuses, 2, 60, 40)) == 1 + 32 + 1  # with what the first has said
    assert picture(statuses, 2, 60, 3)[1:] == [" => [1/2] RUN second                                    2.0s"]
    assert len(picture(statuses, 2, 60, 3, last=True)) == 33


@pytest.mark.parametrize("height", range(1, 12))
@pytest.mark.parametrize("width", [1, 2, 7, 8, 20, 200])
def test_a_picture_fits(width, height):
    long = BuildStatus(tuple(StatusVertex(f"{number}", (), "名前\n" * 50, at(0)) for number in range(8)))
    said = [log(f"{number}", "ünï日本\x1b]0;title\x07cödé\n".encode() * 20, 1) for number in range(8)]
    rows = picture([long, *said], 2, width, height)
    assert len(rows) < max(2, height)
    assert all(cells(row) <= width and row.isprintable() for row in rows[1:])


def test_width_and_cutting():
    assert cells("a日é́") == 4
    assert cut("日本語", 5) == "日本"
    assert Line("日本語日本語", " 1.0s").text(12) == "日本語  1.0s"
    assert clean("10%\r20%\r\n".rstrip("\n")) == "20%"
    assert clean("\x1b[1;31mbold\x1b[0m\x1b]8;;http://x\x1b\\link\x1b]8;;\x1b\\ \x07\x9b") == "boldlink "
