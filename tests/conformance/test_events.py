"""The same steps give the same events, with the same attributes, as they gave in the real engine."""

from __future__ import annotations

import json

import pytest

from tests.conformance.sequences import RECORDED, SEQUENCES, counted, ordered, record_stream
from tests.conformance.test_conformance import socket_path  # noqa: F401  (a fixture)

with open(RECORDED, encoding="utf-8") as recorded:
    STREAMS = json.load(recorded)


def test_every_sequence_is_recorded():
    assert set(STREAMS) == set(SEQUENCES)


@pytest.mark.parametrize("name", SEQUENCES)
def test_events_as_docker_tells_them(socket_path, name):  # noqa: F811
    stream = record_stream(socket_path, name)
    assert ordered(stream) == ordered(STREAMS[name])
    assert counted(stream) == counted(STREAMS[name])
