"""Which secrets open which address."""

from __future__ import annotations

import pytest

from corten.builder.remote_auth import git_authorization, http_authorization

TOKEN = "basic eC1hY2Nlc3MtdG9rZW46dA=="  # x-access-token:t


@pytest.mark.parametrize(
    "url, secrets, wanted",
    [
        ("https://h:8/x", {}, ""),
        ("https://h:8/x", {"HTTP_AUTH_TOKEN_h": b"t\n"}, "Bearer t"),
        ("https://h/x", {"HTTP_AUTH_TOKEN_h": b"t", "HTTP_AUTH_HEADER_h": b"Basic abc"}, "Basic abc"),
        ("https://other/x", {"HTTP_AUTH_TOKEN_h": b"t", "GIT_AUTH_TOKEN": b"t"}, ""),
    ],
)
def test_http(url, secrets, wanted):
    assert http_authorization(url, secrets) == wanted


@pytest.mark.parametrize(
    "url, secrets, wanted",
    [
        ("https://h/r.git", {}, ""),
        ("https://h/r.git", {"GIT_AUTH_TOKEN": b"t"}, TOKEN),
        ("https://u@h:8/r.git", {"GIT_AUTH_TOKEN.h:8": b"t", "GIT_AUTH_HEADER": b"other"}, TOKEN),
        ("https://h/r.git", {"GIT_AUTH_HEADER.h": b"own", "GIT_AUTH_TOKEN.h": b"t"}, "own"),
        ("https://h/r.git", {"GIT_AUTH_TOKEN.other": b"t", "HTTP_AUTH_TOKEN_h": b"t"}, ""),
    ],
)
def test_git(url, secrets, wanted):
    assert git_authorization(url, secrets) == wanted
