"""JSON that came from elsewhere, typed: whatever is wrong with it is one error. Pure.

msgspec tells of bytes that are no UTF-8 and of a nesting too deep for the stack by Python's own errors: both are the sender's mistake.
"""

from __future__ import annotations

from typing import TypeVar

import msgspec

T = TypeVar("T")


def decode(data: bytes | str, kind: type[T]) -> T:
    """Raises msgspec.DecodeError; msgspec.ValidationError, which is one, names the key."""
    try:
        return msgspec.json.decode(data, type=kind)
    except UnicodeError as error:
        raise msgspec.DecodeError(f"JSON is not UTF-8: {error}") from None
    except RecursionError:
        raise msgspec.DecodeError("JSON is nested too deep") from None
