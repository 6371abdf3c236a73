"""`GET /openapi.json`: the table of routes as an OpenAPI 3.1 document. Made from the types that the handlers use; holds none itself.

Says what the newest API version has. What Docker writes as Go's zero values (null for an empty list or map) the types say too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import msgspec

from corten import __version__
from corten.api.route import Route, Stream
from corten.engine.system import API_VERSION
from corten.spec.answers import Message
from corten.spec.filters import Filters

_REFERENCE = "#/components/schemas/{name}"
_SCALARS = {bool: {"type": "boolean"}, int: {"type": "integer"}, str: {"type": "string"}, list[str]: {"type": "array", "items": {"type": "string"}}}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """Pure: one path item per path, one operation per method."""
    types = list(dict.fromkeys(kind for row in routes for kind in (row.body, row.answer) if kind is not None and not isinstance(kind, Stream)))
    schemas, components = msgspec.json.schema_components([*types, Message], ref_template=_REFERENCE)
    by_type = dict(zip([*types, Message], schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for row in routes:
        for method in row.methods:
            paths.setdefault(row.path, {})[method.lower()] = _operation(row, method, by_type)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Corten Engine API", "version": API_VERSION, "description": f"The Docker Engine API {API_VERSION} as Corten {__version__} serves it."},
        "servers": [{"url": "/"}, {"url": f"/v{API_VERSION}"}],
        "paths": paths,
        "components": {"schemas": components},
    }


def _operation(row: Route, method: str, by_type: dict[Any, Any]) -> dict[str, Any]:
    parameters = [{"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}} for name in re.findall(r"\{(\w+)\}", row.path)]
    operation: dict[str, Any] = {
        "operationId": re.sub(r"\W+", "_", f"{method}{row.path}").strip("_"),
        "parameters": parameters + [_parameter(name, kind) for name, kind in row.query.items()],
        "responses": {
            str(row.status): {"description": "done", **_content(row.answer if method != "HEAD" else None, by_type)},
            "default": {"description": "refused", **_content(Message if method != "HEAD" else None, by_type)},
        },
    }
    if row.body is not None:
        operation["requestBody"] = {"required": False, **_content(row.body, by_type)}
    return operation


def _parameter(name: str, kind: Any) -> dict[str, Any]:
    if kind == Filters:
        schema = {"type": "object", "additionalProperties": _SCALARS[list[str]]}
        return {"name": name, "in": "query", "content": {"application/json": {"schema": schema}}}
    return {"name": name, "in": "query", "schema": _SCALARS[kind]}


def _content(kind: Any, by_type: dict[Any, Any]) -> dict[str, Any]:
    if kind is None:
        return {}
    if isinstance(kind, Stream):
        return {"content": {kind.content_type: {"schema": {"type": "string", "format": "binary"}}}}
    return {"content": {"application/json": {"schema": by_type[kind]}}}
