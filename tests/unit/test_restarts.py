"""The restart decision: its laws, for any policy and past."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine.records import Restarts
from corten.engine.restarts import FIRST_DELAY, LONGEST_DELAY, after_engine_start, after_exit, check_policy, on_signal
from corten.errors import Invalid
from corten.spec.engine import RestartPolicy

POLICIES = st.builds(RestartPolicy, st.sampled_from(["no", "always", "unless-stopped"])) | st.builds(
    RestartPolicy, st.just("on-failure"), st.integers(0, 5)
)
PASTS = st.builds(Restarts, st.integers(0, 9), st.sampled_from([0, 100, 200, 51_200, 60_000]), st.booleans(), st.booleans())
CODES = st.integers(0, 255)
RUNS = st.floats(0, 100)


@given(POLICIES, PASTS, CODES, RUNS)
def test_the_laws(policy, past, code, ran):
    again = after_exit(policy, past, code, ran)
    if policy.name == "no" or past.cancelled:
        assert again is None
        return
    if again is None:
        assert policy.name != "always"
        assert policy.name != "unless-stopped" or past.by_hand
        assert policy.name != "on-failure" or code == 0 or past.count >= policy.maximum_retry_count > 0
        return
    assert again.count == past.count + 1
    assert FIRST_DELAY <= again.delay <= LONGEST_DELAY
    if ran >= 10:
        assert again.delay == FIRST_DELAY
    assert (again.by_hand, again.cancelled) == (past.by_hand, False)


@given(st.integers(1, 30), RUNS.filter(lambda ran: ran < 10))
def test_the_delay_doubles_to_a_minute(times, ran):
    past, delays = Restarts(), []
    for _ in range(times):
        past = after_exit(RestartPolicy("always"), past, 1, ran)
        delays.append(past.delay)
    assert delays == [min(100 * 2**number, 60_000) for number in range(times)]


@given(st.integers(1, 5), st.integers(1, 255))
def test_on_failure_restarts_exactly_so_often(most, code):
    policy, past, restarts = RestartPolicy("on-failure", most), Restarts(), 0
    while (again := after_exit(policy, past, code, 0)) is not None:
        past, restarts = again, restarts + 1
    assert restarts == most


@given(POLICIES, PASTS, CODES)
def test_a_new_engine_starts_nothing_that_never_ran(policy, past, code):
    assert not after_engine_start(policy, past, code, started_before=False)
    if policy.name == "always":
        assert after_engine_start(policy, past, code, started_before=True)
    if policy.name == "unless-stopped":
        assert after_engine_start(policy, past, code, started_before=True) is not past.by_hand


@pytest.mark.parametrize(
    ("number", "stop_signal", "cancelled"), [(9, None, True), (1, None, True), (1, 15, False), (15, 15, True), (9, 15, True)]
)
def test_which_signals_are_a_stop(number, stop_signal, cancelled):
    assert on_signal(Restarts(count=2), number, stop_signal) == Restarts(count=2, by_hand=True, cancelled=cancelled)


@pytest.mark.parametrize(
    ("policy", "text"),
    [
        (RestartPolicy("nope"), "unknown policy 'nope'"),
        (RestartPolicy("always", 2), "can only be used with 'on-failure'$"),
        (RestartPolicy("no", -1), "and cannot be negative$"),
        (RestartPolicy("on-failure", -1), "maximum retry count cannot be negative"),
    ],
)
def test_policies_that_are_refused(policy, text):
    with pytest.raises(Invalid, match=text):
        check_policy(policy)
