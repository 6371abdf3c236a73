"""Health checks: what is configured, when to probe, and what a probe's result means. Pure; probing.py runs them.

Source: Docker Engine 28.5 (moby daemon/health.go): defaults, start period and interval, streaks, the last five results.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from msgspec.structs import replace

from corten.engine.records import ContainerRecord, Health, Probe
from corten.engine.restarts import FIRST_DELAY, LONGEST_DELAY
from corten.errors import Invalid
from corten.spec.engine import Config, Healthcheck
from corten.spec.timestamps import duration_text

ON_UNHEALTHY = "dev.corten.on-unhealthy"
OUTPUT_LIMIT = 4096
_KEPT = 5
_FILTERS = ("none", "starting", "healthy", "unhealthy")
_SECOND = 1_000_000_000
_SHORTEST = 1_000_000
_SHELL = ("/bin/sh", "-c")
_INTERVAL, _TIMEOUT, _START_INTERVAL, _RETRIES = 30 * _SECOND, 30 * _SECOND, 5 * _SECOND, 3
_DURATIONS = (("interval", "Interval"), ("timeout", "Timeout"), ("start_period", "StartPeriod"), ("start_interval", "StartInterval"))
_RESTART = re.compile(r"restart(?::([1-9][0-9]{0,8}))?")


@dataclass(frozen=True)
class Check:
    """A check with its defaults filled in. Times are nanoseconds."""

    command: tuple[str, ...]
    interval: int
    timeout: int
    start_period: int
    start_interval: int
    retries: int


def check_of(config: Config) -> Check | None:
    """None if there is none, if it is NONE, or of a kind that nobody knows."""
    asked = config.healthcheck
    if asked is None or not asked.test or asked.test[0] not in ("CMD", "CMD-SHELL"):
        return None
    shell = (config.shell or _SHELL) if asked.test[0] == "CMD-SHELL" and len(asked.test) > 1 else ()
    return Check(
        (*shell, *asked.test[1:]), asked.interval or _INTERVAL, asked.timeout or _TIMEOUT, asked.start_period,
        asked.start_interval or _START_INTERVAL, asked.retries or _RETRIES,
    )  # fmt: skip


def merged(own: Healthcheck | None, image: Healthcheck | None) -> Healthcheck | None:
    """The request's over the image's, key by key."""
    if own is None or image is None:
        return own or image
    keys = ("test", *(name for name, _ in _DURATIONS), "retries")
    return replace(own, **{key: getattr(own, key) or getattr(image, key) for key in keys})


def check_settings(config: Config) -> None:
    """Raises Invalid with Docker's texts, and for a value of Corten's own label that means nothing."""
    asked = config.healthcheck or Healthcheck()
    for field, name in _DURATIONS:
        value = getattr(asked, field)
        if value and value < _SHORTEST:
            raise Invalid(f"{name} in Healthcheck cannot be less than 1ms")
    if asked.retries < 0:
        raise Invalid("Retries in Healthcheck cannot be negative")
    wanted = (config.labels or {}).get(ON_UNHEALTHY)
    if wanted is not None and not _RESTART.fullmatch(wanted):
        raise Invalid(f"label {ON_UNHEALTHY}={wanted}: want `restart`, or `restart:5` for five times in a row at most")


# --- from probe to probe
def begin(before: Health | None) -> Health:
    """As a start finds it: the results of the last run are still shown."""
    return replace(before or Health(), status="starting", failing_streak=0)


def unwatched(health: Health) -> Health:
    """Paused or ended: nobody knows, and Docker says unhealthy."""
    return replace(health, status="unhealthy")


def pause(check: Check, health: Health, since_start: int) -> int:
    """Nanoseconds until the next probe."""
    starting = since_start < check.start_period and health.status == "starting"
    return check.start_interval if starting else check.interval


def after_probe(check: Check, health: Health, probe: Probe, since_start: int) -> Health:
    """`since_start` is when the probe began. A failure within the start period counts only once it has been healthy."""
    log = [*health.log[-(_KEPT - 1) :], probe]
    if probe.exit_code == 0:
        return replace(health, status="healthy", failing_streak=0, log=log, restarts=0)
    if health.status == "starting" and since_start < check.start_period:
        return replace(health, log=log)
    streak = health.failing_streak + 1
    return replace(health, status="unhealthy" if streak >= check.retries else health.status, failing_streak=streak, log=log)


def output_text(output: bytes, *, cut: bool) -> str:
    return output.decode("utf-8", "replace") + ("..." if cut else "")


def timeout_text(check: Check, output: str) -> str:
    return f"Health check exceeded timeout ({duration_text(check.timeout)})" + (f": {output}" if output else "")


def health_matches(record: ContainerRecord, wanted: str) -> bool:
    """The list's filter; a container without a check is `none`. Raises Invalid."""
    if wanted not in _FILTERS:
        raise Invalid(f"invalid filter 'health={wanted}': invalid value for health ({wanted}): must be one of {', '.join(_FILTERS)}")
    return wanted == (record.state.health.status if record.state.health else "none")


# --- Corten's own: an unhealthy container is restarted
def restart_delay(labels: dict[str, str] | None, health: Health) -> int | None:
    """Milliseconds to wait before the restart that the label asks for; None for none (any more).

    At once the first time, then as long as a restart policy would wait, until it has been healthy again.
    """
    wanted = _RESTART.fullmatch((labels or {}).get(ON_UNHEALTHY, ""))
    if not wanted or (wanted[1] and health.restarts >= int(wanted[1])):
        return None
    if not health.restarts:
        return 0
    return min(FIRST_DELAY << min(health.restarts - 1, 20), LONGEST_DELAY)


def reason(health: Health) -> str:
    last = health.log[-1] if health.log else None
    words = f": exit code {last.exit_code}, {' '.join(last.output.split())[:200] or 'no output'}" if last else ""
    return f"unhealthy, {health.failing_streak} checks failed in a row{words}"
