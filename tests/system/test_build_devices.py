"""RUN --device: CDI devices of a build step, by name, kind and class; what is missing is an error only where it is required."""

from __future__ import annotations

import json

import pytest

from tests.builds import build
from tests.engines import RunningEngine

SPEC = {
    "cdiVersion": "0.6.0", "kind": "corten.test/dev", "annotations": {},
    "devices": [
        {"name": "a", "containerEdits": {"env": ["A=yes"], "deviceNodes": [{"path": "/dev/a", "hostPath": "/dev/zero", "permissions": "r"}]}},
        {"name": "b", "containerEdits": {"env": ["B=yes"]}, "annotations": {"org.mobyproject.buildkit.device.class": "noisy"}},
    ],
}  # fmt: skip


@pytest.fixture(scope="module")
def engine(assets, tmp_path_factory):
    folder = tmp_path_factory.mktemp("cdi")
    (folder / "dev.json").write_text(json.dumps(SPEC))
    running = RunningEngine("d", "--cdi-spec-dir", str(folder))
    try:
        running.load(f"{assets}/images/busybox.tar")
        yield running
    finally:
        running.stop()


@pytest.mark.parametrize("device, seen", [
    ("corten.test/dev=a", "yes- 4"), ("name=corten.test/dev=b,required", "-yes 0"), ("corten.test/dev", "yes- 4"), ("corten.test/dev=*", "yesyes 4"), ("noisy", "-yes 0"),
    ("corten.test/dev=none", "- 0"), ("corten.test/other", "- 0"), ("name=corten.test/other=x,required=false", "- 0"), ("quiet", "- 0"),
])  # fmt: skip
def test_a_device(engine, device, seen):
    """The last ones: there is none, and it is not required."""
    text = f'FROM busybox\nRUN --device={device} echo "${{A}}-$B" | sed s/yes-yes/yesyes/ >/s; (head -c 4 /dev/a 2>/dev/null || true) | wc -c >>/s; echo $(cat /s)\n'
    built = build(engine, {"Dockerfile": text}, nocache=1)
    assert built.image
    assert f"\n{seen}\n" in built.text


def test_one_that_is_required(engine):
    for name in ("corten.test/dev=none", "corten.test/other=x", "quiet"):
        built = build(engine, {"Dockerfile": f"FROM busybox\nRUN --device=name={name},required true\n"})
        assert built.error == f'required device "{name}" is not registered'
