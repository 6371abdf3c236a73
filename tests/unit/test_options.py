"""What a request may ask for: runtimes, modes, security options, limits; refusals with Docker's texts."""

from __future__ import annotations

import json
import os
from types import UnionType
from typing import Union, get_args, get_origin

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.api import port_filters, settings
from corten.engine import devices, options, security_options
from corten.engine.admission import Admission
from corten.engine.groups import group_path
from corten.engine.runtimes import Runtimes, RuntimeSetting, parse_flag
from corten.errors import CortenError, Invalid
from corten.linux.cgroup_abilities import FLAGS, Abilities
from corten.spec.bodies import parse_body
from corten.spec.engine import DeviceMapping, HostConfig
from corten.spec.seccomp_profile import parse_profile, translate


def test_runtimes_are_the_settings_and_the_built_in_one():
    runtimes = Runtimes({"sh": RuntimeSetting("/bin/sh", ["-x"])}, "", "/state")
    assert runtimes.command("") == runtimes.command("corten") == runtimes.command("runc") == []
    assert runtimes.command("sh") == ["/bin/sh", "-x", "--root", "/state/sh"]
    assert Runtimes({"sh": RuntimeSetting("/bin/sh")}, "sh", "/state").command("") == ["/bin/sh", "--root", "/state/sh"]
    assert set(runtimes.view("{}")) == {"corten", "runc", "sh"}
    assert Runtimes({"runc": RuntimeSetting("/bin/sh")}, "runc", "/state").command("") == ["/bin/sh", "--root", "/state/runc"]
    with pytest.raises(Invalid, match="unknown or invalid runtime name: x"):
        runtimes.check("x")


@pytest.mark.parametrize(
    ("name", "setting", "default", "text"),
    [
        ("corten", RuntimeSetting("/x"), "", "reserved"),
        ("a", RuntimeSetting(), "", "runtime a: either a runtimeType or a path must be configured"),
        ("a", RuntimeSetting(runtimeType="io.containerd.runsc.v1"), "", "runtime a: runtimeType"),
        ("../a", RuntimeSetting("/x"), "", "invalid runtime name"),
        ("a", RuntimeSetting("/x"), "b", "specified default runtime 'b' does not exist"),
    ],
)
def test_runtimes_that_are_set_wrongly(name, setting, default, text):
    with pytest.raises(Invalid, match=text):
        Runtimes({name: setting}, default, "/state")


def test_runtimes_in_daemon_json(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text('{"runtimes": {"crun": {"path": "/usr/bin/crun", "runtimeArgs": ["--debug"]}}, "default-runtime": "crun"}')
    read = settings.combine(settings.read_config_file(str(path), required=True), {})
    assert read.runtimes == {"crun": RuntimeSetting("/usr/bin/crun", ["--debug"])}
    assert read.default_runtime == "crun"
    assert settings.combine({}, {"runtimes": ("a=/b",)}).runtimes == {"a": RuntimeSetting("/b")}
    path.write_text('{"runtimes": {"crun": {"pat": "/usr/bin/crun"}}}')
    with pytest.raises(Invalid, match=r"runtimes: .*pat.* `\$\[...\]`"):
        settings.read_config_file(str(path), required=True)
    with pytest.raises(Invalid, match="want name=path"):
        parse_flag("crun")


PROFILE = {
    "defaultAction": "SCMP_ACT_ERRNO", "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [{"names": ["read"], "action": "SCMP_ACT_ALLOW"},
                 {"names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_BPF"]}},
                 {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                 {"names": ["future"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "99.0"}},
                 {"name": "old", "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
                 {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}}],
}  # fmt: skip


def test_a_profile_in_dockers_format_is_fitted_to_the_process():
    made = translate(parse_profile(json.dumps(PROFILE)), ["CAP_CHOWN"], "x86_64", "6.1.0-13-amd64")
    assert [rule.names for rule in made.syscalls] == [["read"], ["ptrace"], ["clone"]]
    assert made.architectures == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("{", "line 1"),
        ('{\n "defaultAction": "SCMP_ACT_ALLOW",\n oops}', "line 3"),
        ("{}", "defaultAction"),
        ('{"defaultAction": "ALLOW"}', "defaultAction: unknown action 'ALLOW'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": 5}]}', r"\$.syscalls\[0\].action"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "NO"}]}', r"syscalls\[0\].action: unknown action 'NO'"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"action": "SCMP_ACT_LOG"}]}', r"syscalls\[0\].names"),
        ('{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "action": "SCMP_ACT_LOG", "args": [{"index": 9, "value": 1, "op": "SCMP_CMP_EQ"}]}]}',
         r"syscalls\[0\].args\[0\].index"),
    ],
)  # fmt: skip
def test_a_profile_with_errors_names_line_or_key(text, named):
    with pytest.raises(Invalid, match=f"Decoding seccomp profile failed: .*{named}"):
        parse_profile(text)


@pytest.mark.parametrize(
    ("host", "text"),
    [
        ({"Isolation": "hyperv"}, "invalid isolation (hyperv): linux only supports 'default'"),
        ({"PidMode": "container:"}, "invalid PID mode: container:"),
        ({"UTSMode": "private"}, "invalid UTS mode: private"),
        ({"Annotations": {"": "x"}}, "invalid Annotations: the empty string is not permitted as an annotation key"),
        ({"Sysctls": {"kernel.panic": "1"}}, 'sysctl "kernel.panic" is not in a separate kernel namespace'),
        ({"Sysctls": {"net.ipv4.ip_forward": "1"}, "NetworkMode": "host"}, 'sysctl "net.ipv4.ip_forward" not allowed in host network namespace'),
        ({"Sysctls": {"kernel.shmmax": "1"}, "IpcMode": "host"}, 'sysctl "kernel.shmmax" is not allowed in the hosts ipc namespace'),
        ({"Sysctls": {"kernel.hostname": "x"}}, 'sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field'),
        ({"Sysctls": {"kernel.domainname": "x"}, "UTSMode": "host"}, 'sysctl "kernel.domainname" is not in a separate kernel namespace'),
        ({"SecurityOpt": ["foo"]}, 'invalid --security-opt 1: "foo"'),
        ({"SecurityOpt": ["foo=bar"]}, 'invalid --security-opt 2: "foo=bar"'),
        ({"SecurityOpt": ["no-new-privileges=x"]}, 'invalid --security-opt 2: "no-new-privileges=x"'),
        ({"CapDrop": ["NOPE"]}, 'invalid CapDrop: unknown capability: "CAP_NOPE"'),
        ({"ExtraHosts": ["foo"]}, 'bad format for add-host: "foo"'),
        ({"ExtraHosts": ["foo:[::1]"]}, 'invalid IP address in add-host: "[::1]"'),
        ({"Dns": ["x"]}, 'bad nameserver address x: ParseAddr("x"): unable to parse IP'),
        ({"IOMaximumIOps": 5}, "invalid option: QoS maximum IOPs configuration is not supported on linux"),
        ({"CpuShares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
        ({"CpuRealtimePeriod": 1000, "CpuRealtimeRuntime": 100000}, "cpu real-time runtime cannot be higher than cpu real-time period"),
        ({"Ulimits": [{"Name": "foo", "Soft": 1, "Hard": 1}]}, "wrong rlimit value: RLIMIT_FOO"),
        ({"Ulimits": [{"Name": "nofile", "Soft": 5, "Hard": 1}]}, "soft limit must be less than or equal to hard limit: 5 > 1"),
        ({"DeviceCgroupRules": ["foo"]}, "invalid device cgroup rule format: 'foo'"),
        ({"DeviceCgroupRules": ["c 1:99999999999 rwm"]}, "invalid device cgroup rule format"),
    ],
)  # fmt: skip
def test_refusals_have_dockers_texts(host, text):
    with pytest.raises(Invalid) as caught:
        options.check_host_config(msgspec.convert(host, HostConfig))
    assert text in caught.value.message


@pytest.mark.parametrize("host", [{"Isolation": "Default"}, {"UsernsMode": "keep-id"}, {"Cgroup": "x"}, {"CpuCount": -2}, {"SecurityOpt": ["label=type:x", "seccomp:unconfined"]},
                                  {"Sysctls": {"net/ipv4/ip_forward": "1", "fs.mqueue.msg_max": "20"}}, {"ExtraHosts": ["foo:::1", "bar:host-gateway"]}])  # fmt: skip
def test_what_docker_takes_is_taken(host):
    options.check_host_config(msgspec.convert(host, HostConfig))


def test_the_last_security_option_counts():
    host = HostConfig(security_opt=["seccomp=unconfined", "seccomp=builtin", "no-new-privileges:1", "writable-cgroups"])
    assert security_options.seccomp_profile(host) == ""
    assert security_options.no_new_privileges(host)
    assert security_options.writable_cgroups(host)
    assert not security_options.writable_cgroups(HostConfig(privileged=True, security_opt=["writable-cgroups=false"]))


def test_a_folder_stands_for_its_devices():
    there = {"/x/a": os.stat("/dev/null"), "/x/b": os.stat("/dev/zero")}
    host = HostConfig(devices=[DeviceMapping("/x", "/y", "rxz")])
    assert [(device.path, device.minor) for device in devices.make_devices(host, there)] == [("/y/a", 3), ("/y/b", 5)]
    assert [(rule.access, rule.minor) for rule in devices.make_rules(host, there)[1:]] == [("r", 3), ("r", 5)]


def test_a_cgroup_parent_stays_below_the_root():
    assert group_path("../../foo", "id") == "/foo/id"
    assert group_path("foo.slice", "id") == "/foo.slice/id"


def test_port_filters():
    shown = [{"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"}, {"PrivatePort": 53, "Type": "udp"}]
    for key, value, expected in (("publish", "8080", True), ("publish", "80", False), ("expose", "79-81/tcp", True), ("expose", "53", False), ("expose", "53/udp", True)):
        sets = {name: port_filters.parse_ports(name, [value] if name == key else []) for name in ("publish", "expose")}
        assert port_filters.ports_match(shown, sets["publish"], sets["expose"]) is expected, (key, value)
    assert port_filters.wants_tasks({"is-task": ["true"]})
    assert not port_filters.wants_tasks({"is-task": ["0"]})
    for key, value in (("publish", "1:2"), ("expose", "x"), ("expose", "9-8"), ("publish", "99999")):
        with pytest.raises(Invalid, match=key):
            port_filters.parse_ports(key, [value])
    with pytest.raises(Invalid, match="is-task"):
        port_filters.wants_tasks({"is-task": ["perhaps"]})


WORDS = st.sampled_from(["", "host", "none", "private", "shareable", "container:", "container:x", "default", "foo", "a=b", "a:b", "seccomp={", "no-new-privileges:2",
                         "net.x", "kernel.panic", "/dev/null", "c 1:3 rwm", "..", "\0", "1.2.3.4", "size=1g", "0-", "9-1", "é"])  # fmt: skip
NUMBERS = st.one_of(st.integers(-(1 << 63), (1 << 63) - 1), st.sampled_from([-1, 0, 1, 1000]))
ABLE = Abilities(1, "0-1", "0", 2, **dict.fromkeys(FLAGS, True))


def _type(info: msgspec.structs.FieldInfo) -> object:
    """Msgspec has resolved the annotation."""
    return info.type


def _any(kind: object) -> st.SearchStrategy:
    """JSON that fits a type of ours, with values that seldom make sense."""
    if kind in (str, int, bool, float):
        return {str: WORDS, int: NUMBERS, bool: st.booleans(), float: st.floats(allow_nan=False)}[kind]
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return st.one_of([st.none() if one is type(None) else _any(one) for one in arguments])
    if origin is list:
        return st.lists(_any(arguments[0]), max_size=2)
    if origin is dict:
        return st.dictionaries(WORDS, _any(arguments[1]), max_size=2)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return st.fixed_dictionaries({info.encode_name: _any(_type(info)) for info in msgspec.structs.fields(kind) if info.required},
                                     optional={info.encode_name: _any(_type(info)) for info in msgspec.structs.fields(kind) if not info.required})  # fmt: skip
    return st.one_of(WORDS, NUMBERS, st.none())


OWN = {"Runtime": st.just("")}  # the registered ones are another test's


@given(st.fixed_dictionaries({}, optional={info.encode_name: OWN.get(info.encode_name, _any(_type(info))) for info in msgspec.structs.fields(HostConfig)}))
def test_any_host_config_is_taken_or_refused(document):
    try:
        host = parse_body(json.dumps(document).encode(), HostConfig)
        options.check_host_config(host)
        host, warnings = Admission(ABLE, Runtimes({}, "", "/state")).admit(host)
    except CortenError as error:
        assert error.status in (400, 404, 409, 501), error.message
        assert error.message
    else:
        assert all(isinstance(text, str) for text in warnings)
        assert host.runtime == "corten"
