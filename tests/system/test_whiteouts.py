"""Whiteouts in layers of any order: what the kernel's overlay shows of the unpacked layers, and what the store itself says, is the model's tree."""

from __future__ import annotations

import io
import os
import random
import shutil
import tarfile

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corten.store import overlay_view
from corten.store.unpack import Unpacker
from tests.layer_trees import Layer, merged, packed, random_layer
from tests.system.test_layers import Overlay, _all


def shown(root: str) -> dict[str, str | None]:
    """The kernel lists a whiteout's name in a folder that only one layer has, with nothing behind it: that is no file (in Docker, too)."""
    found: dict[str, str | None] = {}
    for folder, folders, files in os.walk(root):
        for name in folders:
            found[os.path.relpath(f"{folder}/{name}", root)] = None
        for name in (name for name in files if os.path.lexists(f"{folder}/{name}")):
            with open(f"{folder}/{name}", encoding="utf-8") as file:
                found[os.path.relpath(f"{folder}/{name}", root)] = file.read()
    return found


def unpacked(base: str, layers: list[bytes]) -> list[str]:
    """Their folders, topmost first."""
    folders = []
    for number, data in enumerate(layers):
        os.mkdir(f"{base}/{number}")
        with tarfile.open(fileobj=io.BytesIO(data), mode="r|") as archive:
            Unpacker(f"{base}/{number}").apply(archive)
        folders.insert(0, f"{base}/{number}")
    return folders


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(seed=st.integers(0, 1 << 32), count=st.integers(1, 4))
def test_the_merged_tree_is_the_models(tmp_path_factory, seed, count):
    chance = random.Random(seed)
    layers = [random_layer(chance) for _ in range(count)]
    base = str(tmp_path_factory.mktemp(f"cortest-{os.getpid()}-wh"))
    folders = unpacked(base, [packed(layer, chance) for layer in layers])
    wanted = merged(layers)
    with Overlay(f"{base}/overlay", *folders) as overlay:
        assert shown(overlay.merged) == wanted
    assert {name: node.is_folder for name, node in _all(overlay_view.root(folders))} == {name: content is None for name, content in wanted.items()}
    shutil.rmtree(base)


def test_the_model_by_hand():
    """So that the judge itself has been looked at: a folder closed and filled by one layer, a file in a folder's place and the other way round."""
    first = Layer({"d": None, "d/x": "1", "d/y": "2", "f": "3", "g": None, "g/z": "4"})
    second = Layer({"d": None, "d/n": "5", "g": "6", "f": None}, closed={"d"})
    third = Layer({"d": None}, gone={"d/n", "g"})
    assert merged([first, second]) == {"d": None, "d/n": "5", "g": "6", "f": None}
    assert merged([first, second, third]) == {"d": None, "f": None}
