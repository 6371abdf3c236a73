"""Compiled filters kept in files: found again by the very profile, and by no other, even one with the same name of file."""

import os

import pytest

from corten.runtime import seccomp_cache

SECTION = b'{"defaultAction":"SCMP_ACT_ALLOW","flags":["SECCOMP_FILTER_FLAG_LOG"]}'
OTHER = b'{"defaultAction":"SCMP_ACT_KILL"}'


@pytest.fixture
def compiled(monkeypatch):
    """What has been compiled, in order; the memory of this process is empty, as after a start."""
    found = []

    def compile_filter(section):
        found.append(section.default_action)
        return section.default_action.encode()

    monkeypatch.setattr(seccomp_cache.seccomp, "compile_filter", compile_filter)
    monkeypatch.setattr(seccomp_cache, "_compiled", {})
    return found


def test_a_profile_is_compiled_once_and_found_in_its_file_after_a_start(tmp_path, compiled, monkeypatch):
    assert seccomp_cache.filter_for(SECTION, str(tmp_path)) == (b"SCMP_ACT_ALLOW", 2)
    monkeypatch.setattr(seccomp_cache, "_compiled", {})
    assert seccomp_cache.filter_for(SECTION, str(tmp_path)) == (b"SCMP_ACT_ALLOW", 2)
    assert compiled == ["SCMP_ACT_ALLOW"]


def test_another_profile_of_the_same_crc_is_not_taken_for_it(tmp_path, compiled, monkeypatch):
    monkeypatch.setattr(seccomp_cache.zlib, "crc32", lambda _data: 7)
    assert seccomp_cache.filter_for(SECTION, str(tmp_path))[0] == b"SCMP_ACT_ALLOW"
    assert seccomp_cache.filter_for(OTHER, str(tmp_path)) == (b"SCMP_ACT_KILL", 0)
    assert os.listdir(tmp_path) == ["00000007"]


def test_a_file_that_is_cut_off_is_made_again(tmp_path, compiled, monkeypatch):
    seccomp_cache.filter_for(SECTION, str(tmp_path))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:20])
    monkeypatch.setattr(seccomp_cache, "_compiled", {})
    assert seccomp_cache.filter_for(SECTION, str(tmp_path))[0] == b"SCMP_ACT_ALLOW"
    assert len(compiled) == 2


def test_without_a_folder_nothing_is_written(tmp_path, compiled, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert seccomp_cache.filter_for(SECTION)[0] == b"SCMP_ACT_ALLOW"
    assert not os.listdir(tmp_path)
