"""What is in an image, layer by layer, and what two images have differently."""

from __future__ import annotations

import tarfile

import pytest

from corten.api.client import ApiError
from tests.images import derived, entry, layer


@pytest.fixture
def grown(engine, assets, tmp_path):
    """Of busybox and one layer: a file changed, one added, one removed, a folder replaced, a folder emptied."""
    passwd = b"root:x:0:0::/:/bin/sh\n"
    added = layer([
        entry("etc", kind=tarfile.DIRTYPE), entry("etc/passwd", passwd), entry("etc/new", b"0123456789"), entry("etc/link", kind=tarfile.LNKTYPE, linkname="etc/new"),
        entry("var", kind=tarfile.DIRTYPE), entry("var/www", kind=tarfile.DIRTYPE), entry("var/www/.wh.index.html"),
        entry("home", b"a file now"), entry("root", kind=tarfile.DIRTYPE, mode=0o700), entry("root/.wh..wh..opq"),
    ])  # fmt: skip
    derived(f"{assets}/images/busybox.tar", f"{tmp_path}/grown.tar", "grown:1", added, Env=["A=b"])
    engine.load(f"{tmp_path}/grown.tar")
    yield "grown:1"
    engine.client.delete("/images/grown:1", force=1)


def test_layers_say_what_they_do(engine, grown):
    base, top = engine.client.get(f"/images/{grown}/layers", paths=1)
    assert base["DiffID"] == engine.client.get("/images/busybox/json")["RootFS"]["Layers"][0]
    assert (base["Changed"], base["Removed"]) == (0, 0)
    assert "/bin/busybox" in base["Paths"]["Added"]
    assert top["Paths"]["Added"] == ["/etc/link", "/etc/new", "/home"]
    assert top["Paths"]["Changed"] == ["/etc/passwd"]
    assert top["Paths"]["Removed"] == ["/var/www/index.html"]
    assert (top["Added"], top["Changed"], top["Removed"], top["Wasted"]) == (3, 1, 1, 0)
    assert top["Size"] == len(b"root:x:0:0::/:/bin/sh\n") + 10 + len(b"a file now")
    hidden = engine.output("sh", "-c", "cat /etc/passwd /var/www/index.html | wc -c")[1]
    assert base["Wasted"] == int(hidden)
    assert "Paths" not in engine.client.get(f"/images/{grown}/layers")[0]


def test_what_two_images_have_differently(engine, grown):
    found = engine.client.get("/images/diff", a="busybox", b=grown)
    changes = {change["Path"]: change["Kind"] for change in found["Changes"]}
    assert changes == {"/etc/passwd": 0, "/etc/new": 1, "/etc/link": 1, "/home": 0, "/var/www/index.html": 2}
    assert found["Config"] == {"Env": {"A": engine.client.get("/images/busybox/json")["Config"]["Env"], "B": ["A=b"]}}
    back = engine.client.get("/images/diff", a=grown, b="busybox")
    assert {change["Path"]: change["Kind"] for change in back["Changes"]} == {path: {0: 0, 1: 2, 2: 1}[kind] for path, kind in changes.items()}
    assert engine.client.get("/images/diff", a=grown, b=grown)["Changes"] == []


def test_refusals(engine):
    with pytest.raises(ApiError, match="want two images"):
        engine.client.get("/images/diff", a="busybox")
    with pytest.raises(ApiError, match="No such image: nosuch"):
        engine.client.get("/images/nosuch/layers")
