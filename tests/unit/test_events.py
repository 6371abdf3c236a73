"""Events: which are wanted, how they are written, and that nobody who does not read costs memory."""

from __future__ import annotations

import asyncio

import pytest

from corten.api.events import chosen_form, event_filter, event_view
from corten.engine.events import RING, Event, Events

CONTAINER = Event("container", "exec_create: sh", "abc", {"name": "web", "image": "busybox:1", "l": "v"}, 1_500_000_000)
IMAGE = Event("image", "tag", "sha256:123", {"name": "busybox:1"}, 1)
NETWORK = Event("network", "connect", "n1", {"name": "bridge", "container": "abc", "type": "bridge"}, 1)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, [CONTAINER, IMAGE, NETWORK]),
        ({"type": ["image", "network"]}, [IMAGE, NETWORK]),
        ({"container": ["ab"]}, [CONTAINER]),
        ({"container": ["we"]}, [CONTAINER]),
        ({"container": ["eb"]}, []),
        ({"event": ["exec_create"]}, [CONTAINER]),
        ({"event": ["exec"]}, []),
        ({"event": ["tag", "connect"]}, [IMAGE, NETWORK]),
        ({"label": ["l=v"]}, [CONTAINER]),
        ({"label": ["l", "m"]}, []),
        ({"image": ["busybox"]}, [CONTAINER, IMAGE]),
        ({"image": ["busybox:2"]}, []),
        ({"network": ["bri"], "type": ["network"]}, [NETWORK]),
        ({"scope": ["swarm"]}, []),
        ({"scope": ["local"], "nosuch": ["x"]}, [CONTAINER, IMAGE, NETWORK]),
    ],
)
def test_filters(filters, wanted):
    assert [event for event in (CONTAINER, IMAGE, NETWORK) if event_filter(filters)(event)] == wanted


def test_old_clients_do_not_see_created_images():
    created = Event("image", "create", "sha256:1", {}, 1)
    assert event_filter({})(created)
    assert not event_filter({}, created_images=False)(created)


def test_forms():
    assert chosen_form("") == chosen_form("*/*") == "application/json"
    assert chosen_form("application/json-seq;q=1, application/jsonl") == "application/json-seq"
    assert chosen_form("text/html, application/x-ndjson") == "application/x-ndjson"


def test_the_object():
    assert event_view(CONTAINER) == {
        "status": "exec_create: sh", "id": "abc", "from": "busybox:1", "Type": "container", "Action": "exec_create: sh",
        "Actor": {"ID": "abc", "Attributes": CONTAINER.attributes}, "scope": "local", "time": 1, "timeNano": 1_500_000_000,
    }  # fmt: skip
    assert "status" not in event_view(NETWORK)
    assert "from" not in event_view(IMAGE)


def collect(events: Events, since: int | None, until: int | None) -> list[str]:
    async def run() -> list[str]:
        return [event.action async for event in events.follow(lambda _: True, since, until, lambda: False)]

    return asyncio.run(run())


def test_the_ring_keeps_the_last():
    events = Events()
    for number in range(RING + 10):
        events.emit("container", str(number), "x")
    assert collect(events, 0, 1) == []
    last = events.past(0, 1 << 62)
    assert collect(events, 0, last[-1].time) == [str(number) for number in range(10, RING + 10)]
    assert collect(events, None, last[4].time)[:3] == ["10", "11", "12"]


def test_a_listener_that_does_not_read_is_let_go():
    async def run() -> None:
        events = Events()
        listener = events.follow(lambda _: True, 0, None, lambda: False)
        events.emit("container", "first", "x")
        assert (await anext(listener)).action == "first"
        assert events.listeners == 1
        for _ in range(5000):
            events.emit("container", "more", "x")
        assert events.listeners == 0
        assert len([event async for event in listener]) < 2000

    asyncio.run(run())


def test_a_listener_that_has_gone_is_forgotten(monkeypatch):
    monkeypatch.setattr("corten.engine.events._LOOK", 0.01)

    async def run() -> None:
        events, here = Events(), [True]
        listener = events.follow(lambda _: True, None, None, lambda: not here[0])
        waiting = asyncio.ensure_future(anext(listener, None))
        await asyncio.sleep(0)
        assert events.listeners == 1
        here[0] = False
        assert await waiting is None
        assert events.listeners == 0

    asyncio.run(run())


def test_a_label_may_have_any_name():
    events = Events()
    events.emit("image", "tag", "sha256:1", kind="small", self="x", action="y")
    assert events.past(0, 1 << 63)[-1].attributes == {"kind": "small", "self": "x", "action": "y"}
