"""Retries, where to ask, what a packed layer is called and made of, and manifests as they are written."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import ssl
import threading

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Invalid, RegistryError
from corten.registry import retry
from corten.registry.hosts import RegistryHosts
from corten.registry.search import split_term
from corten.spec.image import (
    DOCKER_LAYER,
    OCI_CONFIG,
    OCI_LAYER,
    Descriptor,
    Index,
    Manifest,
    is_compressed,
    packed_type,
)
from corten.store.packing import pack


def packed(data: bytes, workers: int = 0) -> tuple[bytes, str, int]:
    source, feed = os.pipe()
    drain, target = os.pipe()
    got = bytearray()

    def read() -> None:
        while piece := os.read(drain, 1 << 16):
            got.extend(piece)

    def write() -> None:
        view = memoryview(data)
        while view:
            view = view[os.write(feed, view[:7919]) :]
        os.close(feed)

    threads = [threading.Thread(target=work) for work in (read, write)]
    for thread in threads:
        thread.start()
    result = pack(source, target, workers)
    os.close(target)
    for thread in threads:
        thread.join()
    os.close(source)
    os.close(drain)
    return bytes(got), result.digest, result.size


@given(st.binary(max_size=60_000))
def test_packing_is_gzip_the_same_every_time_and_knows_its_digest(data):
    first, digest, size = packed(data)
    assert gzip.decompress(first) == data
    assert (digest, size) == ("sha256:" + hashlib.sha256(first).hexdigest(), len(first))
    assert packed(data)[0] == first


def test_packing_does_not_depend_on_who_does_it():
    data = bytes(range(256)) * 20_000 + os.urandom(1 << 20)
    first = packed(data, 1)
    assert packed(data, 3) == packed(data, 2) == first
    assert gzip.decompress(first[0]) == data


def test_packed_types():
    assert (packed_type(OCI_LAYER), packed_type(DOCKER_LAYER)) == (OCI_LAYER + "+gzip", DOCKER_LAYER + ".gzip")
    assert not is_compressed(OCI_LAYER)
    assert not is_compressed(DOCKER_LAYER)
    assert all(is_compressed(kind) for kind in (OCI_LAYER + "+gzip", OCI_LAYER + "+zstd", DOCKER_LAYER + ".gzip"))


def test_documents_say_their_schema_version():
    manifest = Manifest(Descriptor(OCI_CONFIG, "sha256:" + "0" * 64, 1), [])
    for document in (manifest, Index([])):
        assert json.loads(msgspec.json.encode(document))["schemaVersion"] == 2


def test_pauses():
    assert [retry.pause(attempt) for attempt in (1, 2, 3)] == [0.5, 1.0, 2.0]
    assert retry.pause(1, "7") == 7
    assert retry.pause(1, "100000") == 60
    assert retry.pause(1, "Thu, 01 Jan 1970 00:01:40 GMT", now=90) == 10
    assert retry.pause(1, "soon") == 0.5


@given(st.integers(1, 50), st.text(max_size=40), st.floats(0, 4e9))
def test_a_pause_is_never_long_nor_an_error(attempt, header, now):
    assert 0 <= retry.pause(attempt, header, now) <= 60


# --- where to ask
def bases(endpoint) -> list[str]:
    return [str(base) for base in endpoint.bases]


def test_who_may_do_without_tls():
    hosts = RegistryHosts(["reg.example:5000", "10.1.0.0/16"], folders=())
    for host in ("localhost", "localhost:5000", "127.0.0.1:5000", "[::1]:5000", "reg.example:5000", "10.1.2.3", "10.1.2.3:81"):
        assert bases(hosts.origin(host)) == [f"https://{host}", f"http://{host}"], host
        assert hosts.origin(host).tls is False
    for host in ("example.com", "reg.example", "reg.example:5001", "10.2.0.1", "docker.io"):
        assert len(hosts.origin(host).bases) == 1, host
        assert hosts.origin(host).tls is True
    assert bases(hosts.origin("docker.io")) == ["https://registry-1.docker.io"]


def test_mirrors_come_first_and_know_whose_content_is_meant():
    hosts = RegistryHosts(mirrors={"docker.io": ["http://127.0.0.1:5000/"], "*": ["https://all.example/proxy/"]}, folders=())
    hub, everything, origin = hosts.endpoints("docker.io")
    assert (bases(hub), hub.namespace, hub.is_mirror) == (["http://127.0.0.1:5000/"], "docker.io", True)
    assert (bases(everything), everything.namespace) == (["https://all.example/proxy"], "docker.io")
    assert not origin.is_mirror
    assert [endpoint.namespace for endpoint in hosts.endpoints("quay.io")] == ["quay.io", ""]


@pytest.mark.parametrize("wrong", ["10.0.0.0/99", "http://x", "", "a/b"])
def test_bad_insecure_registries(wrong):
    with pytest.raises(Invalid, match="insecure registry"):
        RegistryHosts([wrong])


@pytest.mark.parametrize("wrong", ["reg.example", "ftp://x", "https://x?y=1", "https://user@x", "https://"])
def test_bad_mirrors(wrong):
    with pytest.raises(Invalid, match="invalid mirror"):
        RegistryHosts(mirrors={"docker.io": [wrong]})


def test_certificates_of_a_host_s_folder(tmp_path):
    (tmp_path / "reg.example:5000").mkdir()
    (tmp_path / "reg.example:5000" / "ca.crt").write_text("no certificate")
    hosts = RegistryHosts(folders=[str(tmp_path)])
    assert hosts.origin("other.example").tls is True
    with pytest.raises(RegistryError, match=r"ca\.crt of the registry reg\.example:5000"):
        hosts.origin("reg.example:5000")
    (tmp_path / "reg.example:5000" / "ca.crt").unlink()
    assert isinstance(hosts.origin("reg.example:5000").tls, ssl.SSLContext)


@given(st.text(max_size=40))
def test_any_search_term_is_split_or_refused(term):
    try:
        registry, rest = split_term(term)
    except Invalid:
        assert term.startswith(("http://", "https://"))
        return
    assert registry in ("", term.partition("/")[0])
    assert term.endswith(rest)
