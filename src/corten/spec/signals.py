"""Signal names and numbers as Docker accepts them (`SIGTERM`, `term`, `15`, `SIGRTMIN+3`). Pure.

Source: moby/sys/signal (signal.ParseSignal); Docker Engine 28.5.
"""

from __future__ import annotations

import signal

from corten.errors import InvalidSignal

_RT_MIN, _RT_MAX = 34, 64  # as glibc and moby number them
_BY_NAME = {name.removeprefix("SIG"): int(number) for name, number in signal.Signals.__members__.items()}


def _by_name() -> dict[str, int]:
    table = {name: number for name, number in _BY_NAME.items() if not name.startswith("RTM")}
    for number in range(_RT_MIN, _RT_MAX + 1):
        low, high = number - _RT_MIN, _RT_MAX - number
        table["RTMIN" if low == 0 else f"RTMIN+{low}"] = number
        table["RTMAX" if high == 0 else f"RTMAX-{high}"] = number
    return table


SIGNALS = _by_name()


def parse_signal(text: str) -> int:
    """Return the number. Raises InvalidSignal with Docker's text (`invalid signal: X`)."""
    if text.isascii() and text.isdigit():
        number = int(text)
        if 1 <= number <= _RT_MAX:
            return number
        raise InvalidSignal(name=text)
    number = SIGNALS.get(text.upper().removeprefix("SIG"), 0)
    if not number:
        raise InvalidSignal(name=text)
    return number


def signal_name(number: int) -> str:
    """`SIGTERM` for 15; the number where there is no name."""
    for name, value in SIGNALS.items():
        if value == number:
            return "SIG" + name
    return str(number)
