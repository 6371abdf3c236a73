"""A monitor's containers between their set-up and their program: a start that comes early is held, and told of a set-up that fails."""

from __future__ import annotations

import socket

import pytest

from corten.runtime import messages
from corten.runtime.live import LiveContainer, LiveProcess
from corten.runtime.reactor import Reactor
from corten.runtime.sandbox import Child
from corten.runtime.shard import Shard
from corten.spec.runtime import RuntimeConfig

FAILED = messages.Failure("mount", "/proc", 2, "no such file or directory")


class Session:
    def abandon_clients(self) -> None: ...

    def close(self) -> None: ...


class Process(LiveProcess):
    """Of a child that is this test itself: there is nothing to reap or close."""

    def reap(self) -> int:
        return 1

    def close_handles(self) -> None: ...

    def kill(self) -> None: ...


@pytest.fixture
def channels():
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    theirs.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def set_up(channel: socket.socket, run_dir: str) -> tuple[Shard, Process, list[messages.FromMonitor]]:
    """A container that is being made, asked for with serial 7; what its monitor says."""
    said: list[messages.FromMonitor] = []
    shard = Shard(Reactor(), "", said.append)
    process = Process(Child(1, -1, channel), Session(), said.append, 7, 1, -1)
    shard._containers["c"] = LiveContainer("c", RuntimeConfig("1.0.2"), None, run_dir, process, channel)
    shard.watch("c", "", process)
    return shard, process, said


def test_a_start_that_comes_early_is_held(channels, tmp_path):
    ours, theirs = channels
    shard, process, said = set_up(ours, str(tmp_path))
    shard.start_once_ready(messages.StartOnceReady(8, "c"), [], said.append)
    with pytest.raises(BlockingIOError):
        theirs.recv(100)
    theirs.send(messages.encode(messages.Ready(["careful"])))
    shard._child_speaks("c", "", process)
    assert said == [messages.Created(7, 1, ["careful"])]
    assert theirs.recv(100) == messages.encode(messages.Proceed())
    assert (process.proceeding, process.serial) == (True, 8)


def test_a_start_that_comes_later_is_not(channels, tmp_path):
    ours, theirs = channels
    shard, process, said = set_up(ours, str(tmp_path))
    theirs.send(messages.encode(messages.Ready([])))
    shard._child_speaks("c", "", process)
    shard.start_once_ready(messages.StartOnceReady(8, "c"), [], said.append)
    assert theirs.recv(100) == messages.encode(messages.Proceed())


def test_a_set_up_that_fails_answers_both(channels, tmp_path):
    ours, theirs = channels
    shard, process, said = set_up(ours, str(tmp_path))
    shard.start_once_ready(messages.StartOnceReady(8, "c"), [], said.append)
    theirs.send(messages.encode(FAILED))
    shard._child_speaks("c", "", process)
    assert [(answer.text, answer.serial) for answer in said] == [(FAILED.text, 7), (FAILED.text, 8)]
    assert not shard


def test_what_is_discarded_answers_the_start(channels, tmp_path):
    ours, _ = channels
    shard, _, said = set_up(ours, str(tmp_path))
    shard.start_once_ready(messages.StartOnceReady(8, "c"), [], said.append)
    shard.discard(messages.Discard(9, "c"), [], said.append)
    assert [answer.serial for answer in said] == [8, 9]
    assert not shard
