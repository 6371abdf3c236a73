"""Whose credentials the command line sends along: files as Docker's clients write them, and helpers."""

from __future__ import annotations

import base64
import json
import os

import pytest

from corten.cli.credentials import HelperFailed, all_registries_header, registry_headers
from corten.errors import Invalid


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return lambda document: (tmp_path / "config.json").write_text(document if isinstance(document, str) else json.dumps(document))


@pytest.fixture
def helper(tmp_path):
    def make(name: str, script: str) -> None:
        (tmp_path / f"docker-credential-{name}").write_text(f"#!/bin/sh\nread -r server\n{script}\n")
        (tmp_path / f"docker-credential-{name}").chmod(0o755)

    return make


def sent(image: str) -> dict:
    headers = registry_headers(image)
    return json.loads(base64.urlsafe_b64decode(headers["X-Registry-Auth"])) if headers else {}


def auth(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def test_files(config):
    assert sent("reg.example/a") == {}
    config({"auths": {"reg.example": {"auth": auth("me:se:cret")}, "https://index.docker.io/v1/": {"auth": auth("hub:x")}, "https://old.example/v1/": {"auth": auth("old:y")},
                      "token.example:5000": {"auth": auth("me:"), "identitytoken": "t"}, "empty.example": {}}})  # fmt: skip
    assert sent("reg.example/a:1") == {"username": "me", "password": "se:cret", "serveraddress": "reg.example"}
    assert sent("debian")["username"] == sent("docker.io/team/app")["username"] == "hub"
    assert sent("old.example/a")["password"] == "y"
    assert sent("token.example:5000/a") == {"username": "me", "identitytoken": "t", "serveraddress": "token.example:5000"}
    assert sent("other.example/a") == sent("empty.example/a") == {}


def test_helpers(config, helper):
    helper("one", 'echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"me\\",\\"Secret\\":\\"of $1 $server\\"}"')
    helper("two", 'echo "{\\"ServerURL\\":\\"$server\\",\\"Username\\":\\"<token>\\",\\"Secret\\":\\"identity\\"}"')
    helper("none", "echo credentials not found in native keychain; exit 1")
    config({"auths": {"reg.example": {"auth": auth("not:used")}}, "credsStore": "one", "credHelpers": {"two.example": "two", "none.example": "none"}})
    assert sent("reg.example/a") == {"username": "me", "password": "of get reg.example", "serveraddress": "reg.example"}
    assert sent("debian")["password"] == "of get https://index.docker.io/v1/"
    assert sent("two.example/a") == {"identitytoken": "identity", "serveraddress": "two.example"}
    assert sent("none.example/a") == {}


@pytest.mark.parametrize(("script", "told"), [("echo locked; exit 1", "locked"), ("exit 3", "it ended with 3"), ("echo hello", "malformed"), (None, "No such file")])
def test_a_helper_that_fails_is_named(config, helper, script, told):
    config({"credsStore": "bad"})
    if script:
        helper("bad", script)
    with pytest.raises(HelperFailed, match=f"docker-credential-bad does not give the credentials of reg.example: .*{told}"):
        registry_headers("reg.example/a")


@pytest.mark.parametrize("text", ["{", '{"auths": {"reg.example": {"auth": "é"}}}', '{"auths": 1}'])
def test_a_bad_file_is_named(config, text):
    config(text)
    with pytest.raises(Invalid, match=r"config.json: "):
        registry_headers("reg.example/a")


def sent_with_a_build() -> dict:
    headers = all_registries_header()
    return json.loads(base64.urlsafe_b64decode(headers["X-Registry-Config"])) if headers else {}


def test_a_build_gets_all_that_is_known(config, helper):
    assert sent_with_a_build() == {}
    config({"auths": {"a.example": {"auth": auth("me:a")}, "empty.example": {}}})
    assert sent_with_a_build() == {"a.example": {"username": "me", "password": "a"}}
    helper("all", 'test $1 = list && echo "{\\"one.example\\":\\"me\\"}" || echo "{\\"Username\\":\\"me\\",\\"Secret\\":\\"of $server\\"}"')
    helper("own", 'echo "{\\"Username\\":\\"<token>\\",\\"Secret\\":\\"t\\"}"')
    config({"credsStore": "all", "credHelpers": {"own.example": "own"}})
    assert sent_with_a_build() == {"one.example": {"username": "me", "password": "of one.example"}, "own.example": {"identitytoken": "t"}}
    config({"credsStore": "nosuch"})
    with pytest.raises(HelperFailed, match="docker-credential-nosuch does not give the credentials of all registries"):
        all_registries_header()
