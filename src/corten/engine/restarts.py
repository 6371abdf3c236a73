"""Whether a container that has ended is started again, and after how long. Pure.

Source: Docker Engine 28.5's restart manager (moby daemon/internal/restartmanager): 100 ms, doubled each time up to a minute,
from the beginning again after a run of ten seconds.
"""

from __future__ import annotations

from msgspec.structs import replace

from corten.engine.records import Restarts
from corten.errors import Invalid
from corten.spec.engine import RestartPolicy

FIRST_DELAY, LONGEST_DELAY = 100, 60_000  # milliseconds
_SETTLED = 10.0  # seconds of running after which the back-off is forgotten
_POLICIES = ("no", "always", "on-failure", "unless-stopped")


def after_exit(policy: RestartPolicy, past: Restarts, exit_code: int, ran: float) -> Restarts | None:
    """What to remember when it is started again after `delay` milliseconds; None if it stays ended. `ran` is in seconds."""
    if past.cancelled or not _wanted(policy, past, exit_code):
        return None
    delay = FIRST_DELAY if ran >= _SETTLED or not past.delay else min(past.delay * 2, LONGEST_DELAY)
    return replace(past, count=past.count + 1, delay=delay)


def after_engine_start(policy: RestartPolicy, past: Restarts, exit_code: int, *, started_before: bool) -> bool:
    """Whether a new engine starts it: `always` also what was stopped by hand, `unless-stopped` not."""
    return started_before and _wanted(policy, past, exit_code)


def _wanted(policy: RestartPolicy, past: Restarts, exit_code: int) -> bool:
    if policy.name == "on-failure":
        return exit_code != 0 and (policy.maximum_retry_count == 0 or past.count < policy.maximum_retry_count)
    return policy.name == "always" or (policy.name == "unless-stopped" and not past.by_hand)


def on_signal(past: Restarts, number: int, stop_signal: int | None) -> Restarts:
    """A client's signal counts as a stop, unless the container names its stop signal and this is another one."""
    ends = number == 9 or stop_signal in (None, number)
    return replace(past, by_hand=True, cancelled=past.cancelled or ends)


def check_policy(policy: RestartPolicy) -> None:
    """Raises Invalid with Docker's text."""
    retries = policy.maximum_retry_count
    if policy.name and policy.name not in _POLICIES:
        raise Invalid(
            f"invalid restart policy: unknown policy '{policy.name}'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'"
        )
    if policy.name == "on-failure":
        if retries < 0:
            raise Invalid("invalid restart policy: maximum retry count cannot be negative")
    elif retries:
        negative = " and cannot be negative" if retries < 0 else ""
        raise Invalid(f"invalid restart policy: maximum retry count can only be used with 'on-failure'{negative}")
