"""Container ids and the names given to containers that got none. Pure but for randomness."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection

from corten.errors import InvalidName

_VALID = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+")
_QUALITIES = (
    "able", "amber", "bold", "brave", "bright", "brisk", "calm", "clear", "crisp", "deep", "eager", "even", "fair",
    "fast", "firm", "fresh", "glad", "grand", "keen", "kind", "light", "lively", "loyal", "mellow", "merry", "neat",
    "noble", "open", "plain", "proud", "quick", "quiet", "ready", "rusty", "sharp", "silent", "smart", "solid",
    "steady", "still", "stout", "sunny", "swift", "tidy", "true", "warm", "weathered", "wide", "wise", "young",
)  # fmt: skip
_THINGS = (
    "anchor", "barge", "beacon", "berth", "bollard", "bow", "bridge", "buoy", "canal", "capstan", "cargo", "coaster",
    "crane", "current", "deck", "dock", "ferry", "fjord", "freighter", "galley", "gantry", "gull", "harbor", "hatch",
    "hawser", "helm", "hull", "jetty", "keel", "ketch", "lagoon", "lighthouse", "lock", "mast", "mooring", "pier",
    "pilot", "port", "quay", "reef", "rigging", "rudder", "schooner", "sextant", "shore", "sloop", "tide", "trawler",
    "tug", "wharf",
)  # fmt: skip


def new_id() -> str:
    """64 hexadecimal digits, as Docker's; never all decimal in the first twelve."""
    while True:
        candidate = secrets.token_hex(32)
        if not candidate[:12].isdigit():
            return candidate


def check_name(name: str) -> str:
    """Return the name without its leading slash. Raises InvalidName."""
    bare = name.removeprefix("/")
    if not _VALID.fullmatch(bare):
        raise InvalidName(name=bare)
    return bare


def random_name(taken: Collection[str]) -> str:
    while True:
        name = f"{secrets.choice(_QUALITIES)}_{secrets.choice(_THINGS)}"
        if name not in taken:
            return name
        name += secrets.token_hex(2)
        if name not in taken:
            return name
