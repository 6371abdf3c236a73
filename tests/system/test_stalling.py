"""A registry that falls silent: told with image and registry, nothing visible stays, and what came is kept for the next try.

The transfer is run here, with less patience than an engine has.
"""

from __future__ import annotations

import asyncio
import json
import os
import stat
import threading

import pytest
from yarl import URL

from corten.errors import ArchiveRefused, RegistryError
from corten.registry import retry
from corten.registry.auth import Credentials
from corten.registry.client import Repository
from corten.registry.hosts import Endpoint
from corten.registry.transfer import pull
from corten.spec.platform import this_platform
from corten.spec.reference import parse_reference
from corten.store.blobs import Blobs
from corten.store.database import Database
from corten.store.images import Images
from corten.store.layers import Layers
from corten.store.layout import Layout
from tests.system.test_bad_registry import LAYER, App, partly


class Store:
    """A store without an engine. Its worker waits for more as the real one does, and gives up when there will be none."""

    def __init__(self, folder: str) -> None:
        self.layout = Layout(f"{folder}/data", f"{folder}/run")
        for path in (f"{folder}/data", f"{folder}/run"):
            os.makedirs(path)
        self.layout.create()
        self.database = Database(self.layout.database)
        self.blobs = Blobs(self.layout)
        self.layers = Layers(self.layout, self.database, self.blobs, self._waiting)
        self.images = Images(self.layout, self.database, self.blobs, self.layers)

    async def _waiting(self, _entry, _argument, fds) -> bytes:
        news = os.dup(next(fd for fd in fds if stat.S_ISFIFO(os.fstat(fd).st_mode)))

        def to_the_end() -> None:
            with os.fdopen(news, "rb", buffering=0) as pipe:
                while pipe.read(1024):
                    continue

        await asyncio.to_thread(to_the_end)
        raise ArchiveRefused("the layer is cut off")

    def pull(self, registry) -> None:
        reference = parse_reference(f"{registry.address}/app:1")

        async def run() -> None:
            endpoint = Endpoint(registry.address, (URL(f"http://{registry.address}"),), tls=False, silence=0.3)
            async with Repository(reference, Credentials(), endpoint) as remote:
                await pull(reference, remote, this_platform(), self.blobs, self.layers, self.images, lambda _progress: None)

        asyncio.run(run())


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(retry, "pause", lambda *_: 0.01)
    made = Store(str(tmp_path))
    yield made
    made.database.close()


@pytest.fixture
def silent():
    """What answers nothing until the test is over."""
    over = threading.Event()
    yield lambda _handler: over.wait(60)
    over.set()


@pytest.mark.parametrize("what", ["manifest", "config"])
def test_a_document_that_does_not_come(store, fake, silent, what):
    registry = fake()
    app = App(registry)
    path = "/v2/app/manifests/1" if what == "manifest" else app.blob(json.loads(app.manifest)["config"])
    registry.faults[path] = silent
    with pytest.raises(RegistryError) as failed:
        store.pull(registry)
    assert failed.value.message.startswith(f'{registry.address}/app:1 from {registry.address}: Get "http://{registry.address}{path}": ')
    assert "Timeout" in failed.value.message
    assert store.images.all() == []
    assert not [left for left in os.listdir(store.layout.temporary) if left.startswith("blob-")]


def test_a_layer_that_stops_in_the_middle_is_kept_as_far_as_it_came(store, fake, silent):
    registry = fake()
    app = App(registry)
    big = registry.put("app", "blobs", os.urandom(400_000), LAYER)
    config = json.loads(app.config_data)
    config["rootfs"]["diff_ids"] = config["rootfs"]["diff_ids"][:1]
    app.config_data = json.dumps(config).encode()
    app.put(layers=[big])
    path = app.blob(big)
    registry.faults[path] = partly(0.5, lambda: silent(None))
    with pytest.raises(RegistryError) as failed:
        store.pull(registry)
    assert failed.value.message.startswith(f'{registry.address}/app:1 from {registry.address}: Get "http://{registry.address}{path}": ')
    assert os.stat(f"{store.layout.root}/partial/{big['digest'][7:]}").st_size == 200_000
    assert store.images.all() == []
    asked = [wanted for (asked, _), wanted in zip(registry.asked, registry.ranges, strict=True) if asked == path]
    assert asked == ["", *["bytes=200000-"] * (retry.ATTEMPTS - 1)]
