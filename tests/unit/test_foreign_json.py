"""Documents from elsewhere: whatever is wrong with one is told as that, and never as a fault of the engine's."""

from __future__ import annotations

import base64
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.builder.cache_transfer.documents import read_inline, read_manifest
from corten.errors import ArchiveRefused, CortenError, Invalid
from corten.registry.auth import first_reason, parse_registry_auth
from corten.registry.client import _Tags
from corten.spec.build_extras import decode_extras
from corten.spec.filters import parse_any_filters
from corten.spec.image import OCI_INDEX, OCI_MANIFEST, parse_config, parse_manifest
from corten.spec.platform import decode_platform
from corten.spec.seccomp_profile import parse_profile

DEEP = b'{"x":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
DOCUMENTS = {
    "config": parse_config,
    "manifest": lambda data: parse_manifest(data, OCI_MANIFEST),
    "index": lambda data: parse_manifest(data, OCI_INDEX),
    "of either kind": lambda data: parse_manifest(data, ""),
    "build cache": read_manifest,
}


@pytest.mark.parametrize(("data", "told"), [(DEEP, "nested too deep"), (b'{"x":"\xff"}', "invalid"), (b"<html>", "malformed"),
                                            (b"", "truncated"), (b"[1]", "Expected `object`")])  # fmt: skip
@pytest.mark.parametrize("parse", DOCUMENTS.values(), ids=DOCUMENTS)
def test_whatever_is_wrong_with_a_document_is_one_error(parse, data, told):
    with pytest.raises(ArchiveRefused, match=told):
        parse(data)


@given(st.binary(max_size=60))
def test_any_bytes_are_a_document_or_refused(data):
    for parse in (*DOCUMENTS.values(), lambda data: read_inline(data.decode("utf-8", "surrogateescape"))):
        with contextlib.suppress(ArchiveRefused):
            parse(data)


def test_a_refusal_in_no_form_gives_no_reason():
    assert first_reason(DEEP) == first_reason(b'{"errors":"\xff"}') == first_reason(b"<html>") == first_reason(b'{"errors":[]}') == ""
    assert first_reason(b'{"errors":[{"code":"DENIED","message":"no"}]}') == "denied: no"


@pytest.mark.parametrize("data", [DEEP, b'{"tags":["\xff"]}', b"<html>"])
def test_a_list_of_tags_in_no_form(data):
    with pytest.raises(CortenError, match="list of tags cannot be read"):
        _Tags.parse(data)


def test_what_a_client_sends_is_its_own_mistake():
    for refused in (lambda: parse_registry_auth(base64.b64encode(DEEP).decode()), lambda: decode_extras(base64.urlsafe_b64encode(DEEP).decode()),
                    lambda: parse_any_filters(DEEP.decode()), lambda: decode_platform(DEEP.decode()), lambda: parse_profile(DEEP.decode())):  # fmt: skip
        with pytest.raises(Invalid):
            refused()
