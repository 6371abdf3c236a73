"""`GET /events`: what happened and happens, filtered, one JSON object after the other in the form that the client accepts.

Source: moby daemon/events (filter.go, events.go) at v28.5.2; the three record forms are those of API 1.52.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web

from corten.api.call import Call
from corten.api.versions import Since
from corten.engine.events import Event, Events
from corten.errors import Invalid
from corten.spec.filters import Filters
from corten.spec.reference import familiar_name
from corten.spec.timestamps import now_ns

_SECOND = 1_000_000_000
# What goes before each object; the first that the client accepts is taken.
_FORMS = {"application/json-seq": b"\x1e", "application/jsonl": b"", "application/x-ndjson": b""}
_PLAIN = "application/json"
# Objects that a filter of their type's name finds by id or name; so does Docker, whatever type the event is of.
_ACTORS = ("config", "container", "daemon", "network", "node", "plugin", "secret", "service", "volume")
_WITH_DETAIL = frozenset({"health_status", "exec_create", "exec_start"})  # actions that say more behind a colon


class EventHandlers:
    def __init__(self, events: Events) -> None:
        self._events = events

    async def events(self, call: Call) -> web.StreamResponse:
        now = now_ns()
        since, until = (call.moment(key, now=now) for key in ("since", "until"))
        if until is not None and until < (since or 0):
            raise Invalid(f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})")
        wanted = event_filter(call.any_filters(), created_images=call.has(Since.IMAGE_CREATE_EVENTS))
        form = chosen_form(call.request.headers.get("Accept", ""))
        before = _FORMS.get(form, b"")
        response = web.StreamResponse(headers={"Content-Type": form})
        await response.prepare(call.request)
        async for event in self._events.follow(wanted, since, until, lambda: call.gone):
            await response.write(before + msgspec.json.encode(event_view(event)) + b"\n")
        await response.write_eof()
        return response


def chosen_form(accept: str) -> str:
    """Pure: the content type for an Accept header; the client's order decides."""
    for part in accept.split(","):
        name = part.partition(";")[0].strip().lower()
        if name in _FORMS:
            return name
    return _PLAIN


def event_view(event: Event) -> dict[str, Any]:
    """Pure. Container and image events carry status, id and from besides."""
    shown: dict[str, Any] = {}
    if event.type in ("container", "image"):
        shown = {"status": event.action, "id": event.id}
        if event.type == "container":
            shown["from"] = event.attributes.get("image", "")
    return shown | {
        "Type": event.type, "Action": event.action, "Actor": {"ID": event.id, "Attributes": event.attributes},
        "scope": "local", "time": event.time // _SECOND, "timeNano": event.time,
    }  # fmt: skip


def event_filter(filters: Filters, *, created_images: bool = True) -> Callable[[Event], bool]:
    """Pure: whether an event is wanted. Keys that Docker does not know are passed over, as there."""
    tests = [_test(key, values) for key, values in filters.items() if values]
    if not created_images:
        tests.append(lambda event: (event.type, event.action) != ("image", "create"))
    return lambda event: all(test(event) for test in tests)


def _test(key: str, values: list[str]) -> Callable[[Event], bool]:
    if key == "type":
        return lambda event: event.type in values
    if key == "scope":
        return lambda _event: "local" in values
    if key == "event":
        if _WITH_DETAIL.intersection(values):
            return lambda event: event.action.startswith(tuple(values))
        return lambda event: event.action in values
    if key == "label":
        return lambda event: all(_has_label(event.attributes, value) for value in values)
    if key == "image":
        return lambda event: any(name in values for name in _image_names(event))
    if key in _ACTORS:
        return lambda event: event.id.startswith(tuple(values)) or event.attributes.get("name", "").startswith(tuple(values))
    return lambda _event: True


def _has_label(attributes: dict[str, str], wanted: str) -> bool:
    key, equals, value = wanted.partition("=")
    return key in attributes and (not equals or attributes[key] == value)


def _image_names(event: Event) -> list[str]:
    """The image of an image or container event: its id and name, with and without a tag."""
    name = event.attributes.get("name" if event.type == "image" else "image", "")
    return [event.id, name, familiar_name(event.id), familiar_name(name)]
