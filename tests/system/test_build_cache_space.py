"""How much of the build cache stays: reserved, most, and free space, of `POST /build/prune` and of daemon.json."""

from __future__ import annotations

from itertools import count

import pytest

from corten.api.client import ApiError
from tests.builds import build
from tests.engines import RunningEngine, eventually
from tests.system.test_build_ssh import nothing_stays  # noqa: F401 - after each test

_NUMBERS = count()


def fill(engine, *sizes: int) -> list[int]:
    """Rows of these sizes, the oldest first: what there is of them."""
    for size in sizes:
        build(engine, {"Dockerfile": f"FROM busybox AS made\nRUN head -c {size} /dev/zero >/x{next(_NUMBERS)}\nFROM scratch\nCOPY --from=made /bin/sh /never\n"})
    return left(engine)


def left(engine) -> list[int]:
    rows = sorted(engine.client.get("/system/df")["BuildCache"], key=lambda row: row["LastUsedAt"])
    return [row["Size"] for row in rows if row["Size"] in (1000, 2000, 3000)]


def total(engine) -> int:
    return sum(row["Size"] for row in engine.client.get("/system/df")["BuildCache"] if not row["Shared"])



ENOUGH, MORE_THAN_THERE_IS = 1, 1 << 61


@pytest.mark.parametrize("parameters, expected", [
    ({"min-free-space": ENOUGH}, [1000, 2000, 3000]),
    ({"min-free-space": MORE_THAN_THERE_IS}, []),
    ({"max-used-space": "-500"}, [2000, 3000]),  # of all that there is: so much less
    ({"max-used-space": "-500", "min-free-space": ENOUGH}, [2000, 3000]),
    ({"max-used-space": 1, "reserved-space": "-500"}, [2000, 3000]),
    ({"min-free-space": MORE_THAN_THERE_IS, "reserved-space": "-500"}, [2000, 3000]),
    ({"min-free-space": MORE_THAN_THERE_IS, "keep-storage": "-500"}, [2000, 3000]),
    ({"min-free-space": MORE_THAN_THERE_IS, "reserved-space": MORE_THAN_THERE_IS}, [1000, 2000, 3000]),
])  # fmt: skip
def test_prune(engine, parameters, expected):
    engine.client.post("/build/prune", all=1)
    assert fill(engine, 1000, 2000, 3000) == [1000, 2000, 3000]
    there = total(engine)
    query = {key: there + int(value) if isinstance(value, str) else value for key, value in parameters.items()}
    pruned = engine.client.post("/build/prune", all=1, **query)
    assert left(engine) == expected
    assert bool(pruned["CachesDeleted"]) == (expected != [1000, 2000, 3000])


def test_less_than_nothing_is_refused(engine):
    with pytest.raises(ApiError, match="can not be less than 0"):
        engine.client.post("/build/prune", **{"min-free-space": -1})


@pytest.mark.parametrize("gc, stays", [
    ('{"defaultMinFreeSpace": "1000000TB"}', False), ('{"defaultMinFreeSpace": "1kB"}', True),
    ('{"defaultMinFreeSpace": "1000000TB", "defaultReservedSpace": "1TB"}', True),
    ('{"policy": [{"filter": ["unused-for=2h"], "minFreeSpace": "1000000TB"}]}', True), ('{"policy": [{"minFreeSpace": "1000000TB"}]}', False),
])  # fmt: skip
def test_settings(assets, tmp_path, gc, stays):
    config = tmp_path / "daemon.json"
    config.write_text(f'{{"builder": {{"gc": {gc}}}}}')
    engine = RunningEngine("g", "--config-file", str(config))
    try:
        engine.load(f"{assets}/images/busybox.tar")
        fill(engine, 1000)
        if stays:
            fill(engine, 2000, 3000)
            assert left(engine) == [1000, 2000, 3000]
        else:
            eventually(lambda: not left(engine))
    finally:
        engine.stop()
