"""The runtime's pure halves: plans, users, logs, detach keys, program look-up. And how the launcher ends."""

from __future__ import annotations

import socket
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.linux.cgroup import Layout
from corten.runtime import init, users
from corten.runtime.clients import DetachKeys
from corten.runtime.launcher import Launcher
from corten.runtime.plan import make_plan
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
    assert names[-3:] == ["Mask", "MakeFolder", "MakeRootReadonly"]
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
        ("", (), (0, 0, (0,), "/root")),
        ("ann", (), (1000, 1001, (1001, 50), "/home/ann")),
        ("1000", (), (1000, 1001, (1001, 50), "/home/ann")),
        ("ann:other", (), (1000, 51, (51,), "/home/ann")),
        ("77:88", ("other",), (77, 88, (88, 51), "/")),
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


def test_a_launcher_ends_when_its_daemon_dies_with_an_answer_unread():
    daemon, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    own.send(b"an answer")
    daemon.close()
    serving = threading.Thread(target=Launcher(own, {}).run, daemon=True)
    serving.start()
    serving.join(10)
    assert not serving.is_alive()
    own.close()
