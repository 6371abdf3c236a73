"""Health checks: merged settings, pauses, streaks, texts. Pure."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine import health
from corten.engine.records import Health, Probe
from corten.errors import Invalid
from corten.spec.engine import Config, Healthcheck
from corten.spec.timestamps import duration_text, parse_duration

S = 1_000_000_000


def check(**settings: object) -> health.Check:
    return health.check_of(Config(healthcheck=Healthcheck(test=["CMD", "true"], **settings)))


def probe(code: int) -> Probe:
    return Probe("2026-01-01T00:00:00Z", "2026-01-01T00:00:01Z", code, "said\n")


def test_defaults():
    assert check() == health.Check(("true",), 30 * S, 30 * S, 0, 5 * S, 3)


@pytest.mark.parametrize(
    ("config", "command"),
    [
        (Config(), None),
        (Config(healthcheck=Healthcheck()), None),
        (Config(healthcheck=Healthcheck(["NONE"])), None),
        (Config(healthcheck=Healthcheck(["FOO", "x"])), None),
        (Config(healthcheck=Healthcheck(["CMD", "a", "b"])), ("a", "b")),
        (Config(healthcheck=Healthcheck(["CMD-SHELL", "a b"])), ("/bin/sh", "-c", "a b")),
        (Config(healthcheck=Healthcheck(["CMD-SHELL", "a b"]), shell=["/bin/ash", "-ec"]), ("/bin/ash", "-ec", "a b")),
        (Config(healthcheck=Healthcheck(["CMD"])), ()),
        (Config(healthcheck=Healthcheck(["CMD-SHELL"])), ()),
    ],
)
def test_commands(config, command):
    found = health.check_of(config)
    assert (found and found.command) == command


def test_merged_key_by_key():
    image = Healthcheck(["CMD", "image"], interval=1 * S, retries=7)
    assert health.merged(None, image) == image
    assert health.merged(image, None) == image
    assert health.merged(Healthcheck(timeout=2 * S), image) == Healthcheck(["CMD", "image"], interval=1 * S, timeout=2 * S, retries=7)
    assert health.merged(Healthcheck(["NONE"]), image).test == ["NONE"]


@given(st.lists(st.integers(0, 2), max_size=30), st.integers(1, 4))
def test_streaks(codes, retries):
    chosen, found = check(retries=retries), health.begin(None)
    for number, code in enumerate(codes, 1):
        found = health.after_probe(chosen, found, probe(code), number * 30 * S)
        streak = next((n for n, past in enumerate(reversed(codes[:number])) if past == 0), number)
        assert found.failing_streak == streak
        assert len(found.log) == min(number, 5)
        if code == 0:
            assert found.status == "healthy"
        else:
            assert (found.status == "unhealthy") is (streak >= retries)
    assert [entry.exit_code for entry in found.log] == codes[-5:]


def test_failures_within_the_start_period_do_not_count_until_it_has_been_healthy():
    chosen = check(start_period=10 * S, retries=1)
    found = health.after_probe(chosen, health.begin(None), probe(1), 9 * S)
    assert (found.status, found.failing_streak, len(found.log)) == ("starting", 0, 1)
    assert health.after_probe(chosen, found, probe(1), 10 * S).status == "unhealthy"
    well = health.after_probe(chosen, found, probe(0), 2 * S)
    assert health.after_probe(chosen, well, probe(1), 3 * S).status == "unhealthy"


def test_pauses():
    chosen = check(interval=20 * S, start_period=10 * S, start_interval=1 * S)
    assert health.pause(chosen, Health("starting"), 9 * S) == 1 * S
    assert health.pause(chosen, Health("starting"), 10 * S) == 20 * S
    assert health.pause(chosen, Health("healthy"), 1 * S) == 20 * S


def test_a_new_start_keeps_the_log():
    before = Health("unhealthy", 3, [probe(1)], restarts=2)
    assert health.begin(before) == Health("starting", 0, [probe(1)], restarts=2)


def test_restarts_for_being_unhealthy():
    def delay(label: str, restarts: int) -> int | None:
        return health.restart_delay({health.ON_UNHEALTHY: label}, Health("unhealthy", 3, [], restarts))

    assert [delay("restart", number) for number in range(5)] == [0, 100, 200, 400, 800]
    assert delay("restart", 1000) == 60_000
    assert [delay("restart:2", number) for number in range(4)] == [0, 100, None, None]
    assert health.restart_delay({}, Health("unhealthy")) is None
    assert health.restart_delay(None, Health("unhealthy")) is None
    assert health.after_probe(check(), Health("unhealthy", 3, [], 4), probe(0), 0).restarts == 0
    assert health.reason(Health("unhealthy", 3, [probe(7)])) == "unhealthy, 3 checks failed in a row: exit code 7, said"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        (Config(healthcheck=Healthcheck(interval=5)), "Interval in Healthcheck cannot be less than 1ms"),
        (Config(healthcheck=Healthcheck(start_interval=5)), "StartInterval in Healthcheck cannot be less than 1ms"),
        (Config(healthcheck=Healthcheck(retries=-1)), "Retries in Healthcheck cannot be negative"),
        (Config(labels={health.ON_UNHEALTHY: "reboot"}), "want `restart`"),
        (Config(labels={health.ON_UNHEALTHY: "restart:0"}), "want `restart`"),
    ],
)
def test_settings_that_are_refused(config, text):
    with pytest.raises(Invalid, match=text):
        health.check_settings(config)


@pytest.mark.parametrize(
    ("ns", "text"),
    [(S // 2, "500ms"), (S, "1s"), (3 * S // 2, "1.5s"), (90 * S, "1m30s"), (3600 * S, "1h0m0s"), (1500, "1.5µs"), (1_500_000, "1.5ms"), (7, "7ns")],
)
def test_durations_as_go_prints_them(ns, text):
    assert duration_text(ns) == text


@given(st.integers(1, 10**15))
def test_durations_come_back(ns):
    assert abs(parse_duration(duration_text(ns)) - ns) <= 1
