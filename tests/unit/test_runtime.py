"""The runtime's pure halves: plans, users, logs, detach keys, program look-up."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine import logs
from corten.linux.cgroup import Layout
from corten.runtime import init, users
from corten.runtime.logfile import LINE_LIMIT, LogFile
from corten.runtime.plan import make_plan
from corten.runtime.stdio import DetachKeys
from corten.spec import runtime as oci

V1 = Layout({"memory": "/sys/fs/cgroup/memory", "pids": "/sys/fs/cgroup/pids"})
CONFIG = oci.RuntimeConfig(
    "1.2.0", process=oci.Process(["true"], "/"), root=oci.Root("rootfs", readonly=True), hostname="h",
    mounts=[oci.Mount("/proc", "proc", "proc", ["nosuid"]), oci.Mount("/sys/fs/cgroup", "cgroup", "cgroup", ["ro", "nosuid"])],
    linux=oci.Linux(
        namespaces=[oci.Namespace("mount"), oci.Namespace("pid"), oci.Namespace("uts"), oci.Namespace("cgroup"),
                    oci.Namespace("network", "/proc/7/ns/net")],
        cgroups_path="/x", masked_paths=["/proc/kcore"], readonly_paths=["/proc/sys"], sysctl={"net.ipv4.ip_forward": "1"},
    ),
)  # fmt: skip


def test_plan_reads_in_order():
    lines = make_plan(CONFIG, "/b/rootfs", (), V1).render().splitlines()
    names = [line.split("(")[0] for line in lines]
    assert lines[0] == "clone 0x24020000"  # mount, pid, uts; the cgroup namespace comes late, the network is joined
    assert lines[1] == "JoinNamespaces(targets=(('/proc/7/ns/net', 1073741824),))"
    assert names[2:5] == ["Unshare", "SetPropagation", "MountRoot"]
    assert names.index("PivotRoot") < names.index("SetHostname") < names.index("WriteSysctl") < names.index("MakeReadonly")
    assert names[-2:] == ["Mask", "MakeRootReadonly"]
    assert names.count("MakeDevice") == 6


def test_plan_shows_each_hierarchy_its_mount():
    text = make_plan(CONFIG, "/b/rootfs", (), V1).render()
    for controller in ("memory", "pids"):
        assert f"destination='/sys/fs/cgroup/{controller}', type='cgroup'" in text
    unified = make_plan(CONFIG, "/b/rootfs", (), Layout({}, "/sys/fs/cgroup")).render()
    assert "type='cgroup2'" in unified


def test_plan_enters_a_pid_namespace_before_the_clone():
    linux = oci.Linux(namespaces=[oci.Namespace("mount"), oci.Namespace("pid", "/proc/9/ns/pid")])
    plan = make_plan(oci.RuntimeConfig("1.2.0", process=oci.Process(["x"], "/"), linux=linux), "/r", (), V1)
    assert plan.pid_namespace == "/proc/9/ns/pid"
    assert not plan.clone_flags & 0x20000000


PASSWD = "root:x:0:0:root:/root:/bin/sh\nann:x:1000:1001::/home/ann:/bin/sh\n# comment\nbroken line\n"
GROUP = "root:x:0:\nann:x:1001:\nextra:x:50:ann\nother:x:51:\n"


@pytest.mark.parametrize(
    ("user", "groups", "expected"),
    [
        ("", (), (0, 0, (), "/root")),
        ("ann", (), (1000, 1001, (50,), "/home/ann")),
        ("1000", (), (1000, 1001, (50,), "/home/ann")),
        ("ann:other", (), (1000, 51, (), "/home/ann")),
        ("77:88", ("other",), (77, 88, (51,), "/")),
    ],
)
def test_users(user, groups, expected):
    found = users.resolve(user, groups, PASSWD, GROUP)
    assert (found.uid, found.gid, found.groups, found.home) == expected


@pytest.mark.parametrize(("user", "text"), [("bob", "unable to find user bob: no matching entries in passwd file"), ("0:no", "unable to find group no: no matching entries in group file")])
def test_unknown_users_have_dockers_text(user, text):
    with pytest.raises(users.UnknownUser, match=text):
        users.resolve(user, (), PASSWD, GROUP)


@given(st.text(max_size=12), st.text(max_size=60), st.text(max_size=60))
def test_hostile_passwd_files_raise_nothing_else(user, passwd, group):
    try:
        users.resolve(user, (), passwd, group)
    except users.UnknownUser:
        return


@given(st.lists(st.binary(max_size=6), max_size=12))
def test_detach_keys_lose_nothing(pieces):
    keys, passed, detached = DetachKeys(b"\x10\x11"), b"", False
    for piece in pieces:
        if not detached:
            data, detached = keys.feed(piece)
            passed += data
    everything = b"".join(pieces)
    if detached:
        assert everything.startswith(passed + b"\x10\x11")
    else:
        assert everything.startswith(passed)
        assert everything[len(passed) :] in (b"", b"\x10")


def records(path: str) -> list[dict]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


@given(st.lists(st.binary(max_size=40), max_size=10))
def test_log_keeps_every_byte_that_is_text(tmp_path_factory, pieces):
    path = str(tmp_path_factory.mktemp("log") / "x.log")
    log = LogFile(path, 0, 1)
    for piece in pieces:
        log.write("stdout", piece)
    log.close()
    text = "".join(record["log"] for record in records(path))
    # A line is decoded as a whole: what is no UTF-8 becomes U+FFFD, as in Docker.
    lines = re.findall(rb"[^\n]*\n|[^\n]+", b"".join(pieces))
    assert text == "".join(line.decode("utf-8", "replace") for line in lines)


def test_log_splits_long_lines_and_keeps_partial_ones(tmp_path):
    path = str(tmp_path / "x.log")
    log = LogFile(path, 0, 1)
    log.write("stdout", b"a" * (LINE_LIMIT + 10) + b"\n")
    log.write("stderr", b"no newline")
    log.close()
    found = records(path)
    assert [len(record["log"]) for record in found[:2]] == [LINE_LIMIT, 11]
    assert found[2]["log"] == "no newline"
    assert found[2]["stream"] == "stderr"


def test_log_rotates_and_reads_back_across_files(tmp_path):
    path = str(tmp_path / "x.log")
    log = LogFile(path, 2000, 3)
    for number in range(100):
        log.write("stdout", b"line %03d\n" % number)
    log.close()
    assert sorted(os.listdir(tmp_path)) == ["x.log", "x.log.1", "x.log.2"]
    assert all(os.path.getsize(tmp_path / name) <= 2000 for name in os.listdir(tmp_path))
    everything = [line.data for line in logs.read_stored(path, None)]
    assert everything[-1] == b"line 099\n"
    assert everything == sorted(everything)
    for count in (0, 1, 5, 40, len(everything), 1000):
        assert [line.data for line in logs.read_stored(path, count)] == everything[len(everything) - min(count, len(everything)) :]


def test_a_torn_line_does_not_hide_the_rest(tmp_path):
    path = tmp_path / "x.log"
    good = '{"log":"a\\n","stream":"stdout","time":"2026-01-01T00:00:00Z"}\n'
    path.write_text(good + '{"log":"to' + "\n" + good)
    assert [line.data for line in logs.read_stored(str(path), None)] == [b"a\n", b"a\n"]


def test_programs_are_found_as_runc_finds_them(tmp_path):
    tool = tmp_path / "tool"
    tool.write_text("#!/bin/sh\n")
    environment = {"PATH": str(tmp_path)}
    with pytest.raises(init.ProgramRefused) as refused:
        init.find_program(["tool"], environment)
    assert refused.value.exit_code == 127
    assert str(refused.value) == 'exec: "tool": executable file not found in $PATH'
    with pytest.raises(init.ProgramRefused) as refused:
        init.find_program([str(tool)], environment)
    assert refused.value.exit_code == 126
    tool.chmod(0o755)
    assert init.find_program(["tool"], environment) == str(tool)
    with pytest.raises(init.ProgramRefused, match="no such file or directory"):
        init.find_program(["/nope"], environment)
    with pytest.raises(init.ProgramRefused, match="is a directory"):
        init.find_program([str(tmp_path)], environment)


def test_the_interpreter_itself_is_refused():
    with pytest.raises(init.ProgramRefused, match="permission denied") as refused:
        init.find_program(["/proc/self/exe"], {})
    assert refused.value.exit_code == 126
