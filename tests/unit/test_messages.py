"""What daemon and monitor say to each other across releases: every message still reads what has been said before."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from typing import get_args

import msgspec
import pytest

from corten.errors import MonitorOlder
from corten.runtime import messages
from corten.runtime.link import Link

# Message name -> its packet in hex as each release wrote it, oldest first. Packets are added, never changed.
with open(os.path.join(os.path.dirname(__file__), "monitor_packets.json"), encoding="utf-8") as file:
    SAID: dict[str, list[str]] = json.load(file)
REQUESTS, ANSWERS = get_args(messages.ToMonitor), get_args(messages.FromMonitor)


@pytest.mark.parametrize("kind", REQUESTS + ANSWERS, ids=lambda kind: kind.__name__)
def test_what_an_older_release_says_is_understood(kind):
    decode = messages.decode_for_monitor if kind in REQUESTS else messages.decode_from_monitor
    for packet in map(bytes.fromhex, SAID[kind.__name__]):
        said, read = msgspec.msgpack.decode(packet), decode(packet)
        assert type(read) is kind
        now = msgspec.msgpack.decode(messages.encode(read))
        assert grown(said, now), f"{kind.__name__} has changed where it may only grow at its end"


@pytest.mark.parametrize("kind", REQUESTS + ANSWERS, ids=lambda kind: kind.__name__)
def test_what_this_release_says_is_recorded(kind):
    """A field or message that is new needs a packet of its own in monitor_packets.json."""
    fields = len(msgspec.msgpack.decode(bytes.fromhex(SAID[kind.__name__][-1])))
    assert fields == 1 + len(kind.__struct_fields__)


def grown(old: object, new: object) -> bool:
    """Whether `new` is `old` with nothing but more at the end of its lists."""
    if isinstance(old, list) and isinstance(new, list):
        return len(new) >= len(old) and all(map(grown, old, new))
    return old == new


def test_grown_tells_growth_from_change():
    assert grown(["A", 1, [2]], ["A", 1, [2, 3], 4])
    assert not grown(["A", 1, 2], ["A", 2, 1])
    assert not grown(["A", 1], ["A"])


def test_requests_that_came_later_are_said_to_be_known():
    assert {added.__name__ for added in messages.ADDED} == {kind.__name__ for kind in REQUESTS} - FIRST


FIRST = {"Create", "Start", "Exec", "Attach", "Resize", "Signal", "Freeze", "Discard", "Ping", "Keep", "GiveKept"}


def test_a_request_of_a_later_release_is_answered():
    packet = msgspec.msgpack.encode(["Teleport", 7, "c" * 64])
    with pytest.raises(msgspec.DecodeError) as refused:
        messages.decode_for_monitor(packet)
    answer = messages.not_understood(packet, refused.value)
    assert (answer.operation, answer.operand, answer.serial) == ("understand", "Teleport", 7)
    assert messages.not_understood(b"\xc1", refused.value) is None
    assert messages.not_understood(msgspec.msgpack.encode(["Teleport", "x"]), refused.value) is None
    assert messages.not_understood(msgspec.msgpack.encode({}), refused.value) is None


@pytest.mark.parametrize("packet", SAID["Hello"])
def test_what_a_monitor_does_not_know_is_not_asked_of_it(packet):
    async def ask() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            greeted = asyncio.Event()
            link = Link(ours, messages.decode_from_monitor, lambda _hello: greeted.set(), lambda: None, pings=True)
            theirs.send(bytes.fromhex(packet))
            await greeted.wait()
            link.check_knows(messages.Start(0, "c"))
            if packet == SAID["Hello"][0]:
                with pytest.raises(MonitorOlder, match=r"the process 5 that looks after container c .*: restart the container"):
                    link.check_knows(messages.SetLog(0, "c", messages.LogSettings("none")))
            else:
                link.check_knows(messages.SetLog(0, "c", messages.LogSettings("none")))
            link.close()

    asyncio.run(ask())


def test_what_has_been_said_is_heard_without_waiting_for_the_loop():
    """An exec's end, before a client that has seen its streams end asks for the exit code."""

    async def ask() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            heard: list[object] = []
            link = Link(ours, messages.decode_from_monitor, heard.append, lambda: heard.append("lost"), pings=True)
            for number in range(3):
                theirs.send(messages.encode(messages.Exited("c", f"e{number}", number, False, 0)))
            link.catch_up()
            assert [(notice.exec_id, notice.exit_code) for notice in heard] == [("e0", 0), ("e1", 1), ("e2", 2)]
            link.catch_up()  # nothing more, and it does not wait
            theirs.close()
            link.catch_up()
            assert heard[3:] == ["lost"]

    asyncio.run(ask())
