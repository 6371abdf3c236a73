"""Sizes as flags have them: a number of bytes, or one with a unit."""

from __future__ import annotations

import click

_UNITS = {"b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


def parse_bytes(text: str) -> int:
    number, unit = (text[:-1], text[-1].lower()) if text and text[-1].isalpha() else (text, "b")
    try:
        return int(float(number) * _UNITS[unit])
    except (ValueError, KeyError):
        raise click.BadParameter(f"invalid size: {text!r}") from None
