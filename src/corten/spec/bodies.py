"""Request bodies as Go's JSON decoder takes them: keys in any case, null for anything. Pure.

Source: Go encoding/json (object keys match in any case, null leaves the zero value); moby api/server/httputils ReadJSON (its texts).
"""

from __future__ import annotations

import re
import types
from collections.abc import Callable, Hashable
from functools import cache, partial
from typing import Any, TypeVar, Union, cast, get_args, get_origin, get_type_hints

import msgspec

from corten.errors import Invalid

T = TypeVar("T")
Change = Callable[[Any], Any]


def parse_body(data: bytes, kind: type[T], edit: Callable[[Any], None] | None = None) -> T:
    """Decode a request body. Raises Invalid; the text names the key, as Docker's does. `edit` may change it in place before it is typed."""
    if not data.strip():
        raise Invalid("invalid JSON: got EOF while reading request body")
    try:
        value = msgspec.json.decode(data)
        change = _change(cast("Hashable", kind))
        if change:
            value = change(value)
        if edit:
            edit(value)
        return msgspec.convert(value, type=kind)
    except msgspec.ValidationError as error:
        raise Invalid(_go_text(str(error), kind.__name__)) from None
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise _malformed(error) from None


# --- keys and nulls
@cache
def _change(kind: Any) -> Change | None:
    """What makes a decoded value one that msgspec takes for `kind`; None if there is no object with named keys in it."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        keys = {info.encode_name.lower(): (info.encode_name, _change(hints[info.name])) for info in msgspec.structs.fields(kind)}
        return lambda value: _object(value, keys)
    origin, inner = get_origin(kind), get_args(kind)
    if origin in (list, dict) and (item := _change(inner[-1])):
        return partial(_items, item)
    if origin in (Union, types.UnionType):
        return next((found for found in map(_change, inner) if found), None)
    return None


def _items(change: Change, value: Any) -> Any:
    if isinstance(value, list):
        return [change(item) for item in value]
    return {key: change(item) for key, item in value.items()} if isinstance(value, dict) else value


def _object(value: Any, keys: dict[str, tuple[str, Change | None]]) -> Any:
    if not isinstance(value, dict):
        return value
    found: dict[str, Any] = {}
    for key, item in value.items():
        known = keys.get(key.lower())
        if known and item is not None:  # a key that nobody knows is nobody's; null leaves the default
            name, change = known
            found[name] = change(item) if change else item
    return found


# --- what is wrong, in Go's words
_GO_NAMES = {"int": "number", "float": "number", "str": "string", "bool": "bool", "array": "array", "object": "object", "null": "null"}
_GO_TYPES = {"int": "int64", "str": "string", "bool": "bool", "array": "slice", "object": "map", "float": "float64"}
# What Go calls the type of a whole body.
_GO_BODIES = {
    "CreateRequest": "container.CreateRequest", "VolumeRequest": "volume.CreateOptions", "ExecConfig": "container.ExecOptions",
    "ExecStart": "container.ExecStartOptions", "UpdateRequest": "container.UpdateConfig", "Credentials": "registry.AuthConfig",
    "NetworkCreate": "network.CreateRequest", "Config": "container.CreateRequest",
}  # fmt: skip
_GO_STRUCTS = {"NetworkCreate": "CreateRequest"}  # of which Go names the struct before a field
_MESSAGE = re.compile(r"Expected `([^`]+)`, got `([^`]+)`(?: - at `\$\.?(.*)`)?")


def _malformed(error: Exception) -> Invalid:
    text = str(error)
    if "trailing characters" in text:
        return Invalid("unexpected content after JSON")
    return Invalid(f"invalid JSON: {'unexpected EOF' if 'truncated' in text else text}")


def _go_text(text: str, body: str) -> str:
    match = _MESSAGE.search(text)
    if not match:
        return f"invalid JSON: {text}"
    expected, got, path = match.groups()
    if not path and body in _GO_BODIES:
        return f"invalid JSON: json: cannot unmarshal {_GO_NAMES.get(got, got)} into Go value of type {_GO_BODIES[body]}"
    wanted = _GO_TYPES.get(expected.split(" | ")[0], expected)
    return f"invalid JSON: json: cannot unmarshal {_GO_NAMES.get(got, got)} into Go struct field {_GO_STRUCTS.get(body, '')}.{path or ''} of type {wanted}"
