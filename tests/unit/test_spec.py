"""The vocabulary: references, times, signals, filters, platforms, bodies."""

from __future__ import annotations

import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import CortenError, Invalid, InvalidFilter, InvalidSignal
from corten.spec import digest, filters, image, path_pattern, platform, reference, runtime, signals, timestamps
from corten.spec.bodies import parse_body
from corten.spec.engine import CreateRequest, ExecConfig, PortBinding

A_DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "name", "familiar"),
    [
        ("debian", "docker.io/library/debian", "debian:latest"),
        ("debian:12", "docker.io/library/debian", "debian:12"),
        ("user/app", "docker.io/user/app", "user/app:latest"),
        ("docker.io/debian", "docker.io/library/debian", "debian:latest"),
        ("index.docker.io/library/debian", "docker.io/library/debian", "debian:latest"),
        ("localhost/app", "localhost/app", "localhost/app:latest"),
        ("localhost:5000/a/b:t", "localhost:5000/a/b", "localhost:5000/a/b:t"),
        ("reg.example/x", "reg.example/x", "reg.example/x:latest"),
        (f"debian@{A_DIGEST}", "docker.io/library/debian", f"debian@{A_DIGEST}"),
        (f"reg:5000/x:t@{A_DIGEST}", "reg:5000/x", f"reg:5000/x:t@{A_DIGEST}"),
        ("a__b/e.c-d", "docker.io/a__b/e.c-d", "a__b/e.c-d:latest"),
    ],
)
def test_references(text, name, familiar):
    parsed = reference.parse_reference(text).with_default_tag()
    assert (parsed.name, parsed.familiar) == (name, familiar)


@pytest.mark.parametrize("text", ["", ":tag", "a//b", "-a", "a:" + "t" * 129, "a b", "a@sha256:12", "a/", "a" * 64, "_a", "é", "a/" + "b" * 300])
def test_bad_references(text):
    with pytest.raises(Invalid):
        reference.parse_reference(text)


def test_upper_case_has_its_own_text():
    with pytest.raises(Invalid, match=r"repository name \(library/BAD\) must be lowercase"):
        reference.parse_reference("BAD")


@given(st.text(max_size=80))
def test_reference_parser_raises_nothing_else(text):
    try:
        parsed = reference.parse_reference(text)
    except Invalid:
        return
    assert reference.parse_reference(parsed.familiar) == parsed


@given(st.integers(min_value=0, max_value=4_000_000_000_000_000_000))
def test_times_come_back(moment):
    assert timestamps.parse_rfc3339(timestamps.rfc3339_nano(moment)) == moment
    assert timestamps.parse_rfc3339(timestamps.rfc3339_nano_fixed(moment)) == moment


@pytest.mark.parametrize(
    ("text", "expected"),
    [("1h30m", 5_400_000_000_000), ("1.5s", 1_500_000_000), ("-10ms", -10_000_000), ("0", 0), ("3us", 3_000), ("1h", 3_600_000_000_000)],
)
def test_durations(text, expected):
    assert timestamps.parse_duration(text) == expected


@given(st.text(max_size=20))
def test_moment_parser_raises_nothing_else(text):
    try:
        timestamps.parse_moment(text, now=10**18)
    except Invalid:
        return


def test_moments():
    now = 10**18
    assert timestamps.parse_moment("12.5", now=now) == 12_500_000_000
    assert timestamps.parse_moment("10s", now=now) == now - 10_000_000_000
    assert timestamps.parse_moment("2026-01-01T00:00:00+01:00", now=now) == timestamps.parse_rfc3339("2025-12-31T23:00:00Z")


@pytest.mark.parametrize(("text", "number"), [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("hup", 1)])
def test_signals(text, number):
    assert signals.parse_signal(text) == number


@given(st.text(max_size=12))
def test_signal_parser_raises_nothing_else(text):
    try:
        assert 1 <= signals.parse_signal(text) <= 64
    except InvalidSignal as error:
        assert error.status == 400


def test_filters_take_both_shapes():
    allowed = frozenset({"label"})
    assert filters.parse_filters('{"label":["a=b"]}', allowed) == filters.parse_filters('{"label":{"a=b":true,"c":false}}', allowed)
    with pytest.raises(InvalidFilter, match="invalid filter 'x'"):
        filters.parse_filters('{"x":["y"]}', allowed)
    with pytest.raises(Invalid):
        filters.parse_filters("x", allowed)


def test_labels():
    assert filters.matches_labels(["a", "b=2"], {"a": "", "b": "2"})
    assert not filters.matches_labels(["b=1"], {"b": "2"})


def test_platforms():
    arm = platform.parse_platform("linux/arm64/v8")
    assert platform.matches(platform.Platform("arm64"), arm)
    assert not platform.matches(platform.Platform("amd64"), arm)
    assert not platform.matches(platform.parse_platform("linux/arm/v6"), platform.parse_platform("linux/arm/v7"))
    with pytest.raises(Invalid):
        platform.parse_platform("a/b/c/d")


def test_digests():
    assert digest.is_digest(A_DIGEST)
    with pytest.raises(Invalid):
        digest.parse_digest("sha256:../../etc/passwd")


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "invalid JSON: got EOF while reading request body"),
        (b'{"Image":"x","Cmd":"x"', "invalid JSON: unexpected EOF"),
        (b'{"Image":5}', "invalid JSON: json: cannot unmarshal number into Go struct field .Image of type string"),
        (b'{"HostConfig":{"Memory":"x"}}', "invalid JSON: json: cannot unmarshal string into Go struct field .HostConfig.Memory of type int64"),
    ],
)
def test_bodies_are_refused_with_dockers_text(body, text):
    with pytest.raises(Invalid) as caught:
        parse_body(body, CreateRequest)
    assert caught.value.message == text


def test_null_means_not_given():
    parsed = parse_body(b'{"Image":"x","Tty":null,"HostConfig":{"Memory":null,"LogConfig":{"Type":null}}}', CreateRequest)
    assert parsed.tty is False
    assert parsed.host_config.memory == 0


@given(st.binary(max_size=60))
def test_body_parser_raises_nothing_else(data):
    try:
        parse_body(data, ExecConfig)
    except Invalid:
        return


_json = st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
    st.sampled_from(["Image", "HostConfig", "Memory", "Cmd", "config", "layers", "digest", "mediaType", "rootfs", "manifests", "size"]), inner, max_size=4), max_leaves=8)  # fmt: skip


@given(_json)
def test_documents_from_outside_are_refused_cleanly(value):
    data = msgspec.json.encode(value)
    for parse in (lambda: parse_body(data, CreateRequest), lambda: image.parse_manifest(data, ""), lambda: image.parse_config(data)):
        try:
            parse()
        except CortenError as error:
            assert error.status == 400


def test_runtime_config_round_trip():
    config = runtime.RuntimeConfig("1.2.0", process=runtime.Process(["sh"], "/"), linux=runtime.Linux(seccomp=msgspec.Raw(b'{"defaultAction":"SCMP_ACT_ALLOW"}')))
    again = runtime.parse_runtime_config(runtime.encode(config))
    assert runtime.parse_seccomp(again.linux.seccomp).default_action == "SCMP_ACT_ALLOW"
    assert b"seccomp" not in runtime.encode(runtime.RuntimeConfig("1.2.0", linux=runtime.Linux()))


def test_bodies_are_read_as_go_reads_them():
    read = parse_body(b'{"image":"busybox","CMD":null,"hostconfig":{"memory":5,"PortBindings":{"80/tcp":[{"hostport":"1"}],"81/tcp":null},'
                      b'"Mounts":[{"type":"bind","target":"/x","bindoptions":null}],"nosuch":1},"Labels":{"Key":"v"}}', CreateRequest)  # fmt: skip
    assert read.image == "busybox"
    assert read.cmd is None
    assert read.host_config.memory == 5
    assert read.host_config.port_bindings == {"80/tcp": [PortBinding("", "1")], "81/tcp": None}
    assert read.host_config.mounts[0].target == "/x"
    assert read.labels == {"Key": "v"}
    assert parse_body(b'{"detachKeys":"ctrl-a"}', ExecConfig).detach_keys == "ctrl-a"
    for data, text in ((b'{"a":', "invalid JSON: unexpected EOF"), (b"{} x", "unexpected content after JSON"),
                       (b"[]", "invalid JSON: json: cannot unmarshal array into Go value of type container.CreateRequest"),
                       (b'{"HostConfig":{"Memory":"x"}}', "Go struct field .HostConfig.Memory of type int64")):  # fmt: skip
        with pytest.raises(Invalid, match=re.escape(text)):
            parse_body(data, CreateRequest)


def test_what_the_image_spec_requires_is_written():
    config = msgspec.json.decode(msgspec.json.encode(image.ImageConfig(architecture="amd64", rootfs=image.RootFS([]))))
    assert config["os"] == "linux"
    entry = msgspec.json.decode(msgspec.json.encode(image.Descriptor("t", "d", 1, platform=platform.Platform("amd64"))))
    assert entry["platform"] == {"architecture": "amd64", "os": "linux"}


@pytest.mark.parametrize(
    ("pattern", "text", "fits"),
    [("*", "box", True), ("*", "team/box", False), ("*/*", "team/box", True), ("b?x:1", "box:1", True), ("[a-c]ox", "box", True), ("[^a-c]ox", "box", False),
     ("b\\*", "b*", True), ("b\\*", "bo", False), ("[]-a]", "", None), ("[", "", None), ("[a", "", None), ("a\\", "", None), ("[z-a]", "b", False), ("[\\]]", "]", True)],
)  # fmt: skip
def test_path_patterns(pattern, text, fits):
    if fits is None:
        with pytest.raises(Invalid, match="syntax error in pattern"):
            path_pattern.path_pattern(pattern)
    else:
        assert bool(path_pattern.path_pattern(pattern).fullmatch(text)) is fits


@given(st.text(alphabet="ab/[]^-\\*?", max_size=12), st.text(alphabet="ab/*", max_size=6))
def test_any_path_pattern_is_one_or_is_refused(pattern, text):
    try:
        found = path_pattern.path_pattern(pattern)
    except Invalid:
        return
    if not set(pattern) & set("[]^-\\*?"):
        assert bool(found.fullmatch(text)) is (pattern == text)
    assert not ("/" in text and "/" not in pattern and "[" not in pattern and found.fullmatch(text))
