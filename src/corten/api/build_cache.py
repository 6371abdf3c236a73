"""The build cache through the API: `POST /build/prune`, and its rows in `GET /system/df`."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from corten.api.call import Call, json_response
from corten.builder.prune import FILTERS, CacheUse, Pruning, read_space
from corten.spec.filters import Filters
from corten.spec.timestamps import rfc3339_nano

PRUNE_QUERY: dict[str, Any] = {"all": bool, "filters": Filters, "keep-storage": int, "reserved-space": int, "max-used-space": int, "min-free-space": int}


class BuildCacheHandlers:
    def __init__(self, pruning: Pruning) -> None:
        self._pruning = pruning

    async def prune(self, call: Call) -> web.Response:
        space = read_space(call.number("reserved-space") or call.number("keep-storage"), call.number("max-used-space"), call.number("min-free-space"))
        pruned = await self._pruning.prune(call.filters(*FILTERS), space, everything=call.flag("all"))
        return json_response({"CachesDeleted": pruned.keys or None, "SpaceReclaimed": pruned.reclaimed})

    async def rows(self) -> list[dict[str, Any]]:
        return [_row(use) for use in await self._pruning.uses()]


def _row(use: CacheUse) -> dict[str, Any]:
    row = use.row
    return {
        "ID": row.key, **({"Parents": list(use.parents)} if use.parents else {}), "Type": row.kind, "Description": row.description,
        "InUse": use.in_use, "Shared": use.shared, "Size": use.size, "CreatedAt": rfc3339_nano(row.created),
        "LastUsedAt": rfc3339_nano(row.used), "UsageCount": row.uses,
    }  # fmt: skip
