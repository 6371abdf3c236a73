"""The engine's pure halves: states, bundle, ports, options, views, settings, registry challenges, network plans."""

from __future__ import annotations

import base64
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.api import settings, streams, views
from corten.api.json_messages import progress_message
from corten.cli.run import create_request, parse_publish
from corten.engine import bundle, names, options, security_options, states
from corten.engine.records import ContainerRecord, PublishedPort, State, decode_record, encode_record
from corten.errors import CortenError, Invalid, InvalidName
from corten.registry.auth import parse_challenge, parse_registry_auth
from corten.registry.progress import Progress
from corten.spec.engine import Config, HostConfig, PortBinding
from corten.spec.security import DEFAULT_CAPABILITIES, default_seccomp
from corten.store.layout import Layout

HOST = bundle.HostFacts("x86_64", "6.1.0", ("CAP_CHOWN", "CAP_SYS_ADMIN"), cgroup_unified=False, devices={})
AROUND = bundle.Surroundings("rootfs", {"/etc/hosts": "/c/hosts"}, "h", lambda mode, kind: f"/proc/1/ns/{kind}", "/init", "/corten", unshare_network=True)


def record(host: HostConfig | None = None, **config: object) -> ContainerRecord:
    chosen = {"cmd": ["true"], "hostname": "h"} | config
    return ContainerRecord("a" * 64, "name", "2026-01-01T00:00:00Z", "sha256:" + "b" * 64, [], Config(**chosen), host or HostConfig())


def test_every_action_is_decided_in_every_status():
    for action, row in states._TABLE.items():
        assert set(row) == set(states.STATUSES), action


@pytest.mark.parametrize(
    ("action", "status", "http", "text"),
    [
        ("start", "running", 304, None),
        ("start", "paused", 409, "cannot start a paused container, try unpause instead"),
        ("pause", "paused", 409, f"Container {'a' * 64} is already paused"),
        ("unpause", "running", 409, f"Container {'a' * 64} is not paused"),
        ("exec", "exited", 409, f"container {'a' * 64} is not running"),
        ("remove", "running", 409, 'cannot remove container "name": container is running: stop the container before removing or force remove'),
        ("kill", "exited", 409, f"cannot kill container: name: container {'a' * 64} is not running"),
    ],
)
def test_illegal_steps_have_dockers_answer(action, status, http, text):
    with pytest.raises(CortenError) as caught:
        states.check(action, msgspec.structs.replace(record(), state=State(status=status)))
    assert caught.value.status == http
    if text:
        assert caught.value.message == text


def test_records_come_back():
    first = record(HostConfig(memory=5, binds=["/a:/b"], port_bindings={"80/tcp": [PortBinding("", "8080")]}))
    assert decode_record(encode_record(first)) == first


def test_a_row_of_the_first_version_keeps_its_address_and_ports():
    row = msgspec.json.decode(encode_record(record(HostConfig(network_mode="bridge"))))
    del row["endpoints"], row["ports"]
    row |= {"network_id": "n" * 64, "mac_address": "02:42:00:00:00:01", "endpoint": {
        "id": "e" * 64, "address": "172.17.0.2/16", "gateway": "172.17.0.1", "mac": "02:42:00:00:00:01", "veth": "veth1",
        "ports": [{"protocol": "tcp", "container_port": 80, "host_ip": "0.0.0.0", "host_port": 8080}]}}  # fmt: skip
    found = decode_record(msgspec.json.encode(row))
    assert found.gateway.ip == "172.17.0.2"
    assert found.gateway.settings.mac_address == "02:42:00:00:00:01"
    assert found.ports == [PublishedPort("tcp", 80, "0.0.0.0", 8080)]
    assert decode_record(encode_record(found)) == found


def test_default_bundle():
    config = bundle.make_config(record(), HOST, AROUND)
    assert config.process.capabilities.bounding == list(DEFAULT_CAPABILITIES)
    assert {namespace.type for namespace in config.linux.namespaces} == {"mount", "network", "pid", "ipc", "uts"}
    assert config.linux.resources.devices[0].allow is False
    assert "/proc/kcore" in config.linux.masked_paths
    assert config.linux.cgroups_path == "/corten/" + "a" * 64
    assert json.loads(bytes(config.linux.seccomp))["defaultAction"] == "SCMP_ACT_ERRNO"
    assert not config.process.no_new_privileges


def test_privileged_bundle():
    config = bundle.make_config(record(HostConfig(privileged=True)), HOST, AROUND)
    assert config.process.capabilities.bounding == list(HOST.capabilities)
    assert config.linux.masked_paths == []
    assert not bytes(config.linux.seccomp)
    assert config.linux.resources.devices == [bundle.oci.DeviceRule(True, "rwm")]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        (HostConfig(cap_drop=["ALL"]), []),
        (HostConfig(cap_drop=["all"], cap_add=["net_admin"]), ["CAP_NET_ADMIN"]),
        (HostConfig(cap_add=["ALL"], cap_drop=["CAP_CHOWN"]), ["CAP_SYS_ADMIN"]),
    ],
)
def test_capabilities(host, expected):
    assert security_options.wanted_capabilities(host, HOST.capabilities) == expected


def test_unknown_capability_is_named():
    with pytest.raises(Invalid, match='invalid CapAdd: unknown capability: "CAP_NOPE"'):
        security_options.check_security(HostConfig(cap_add=["NOPE"]))


def test_dangerous_calls_are_not_in_the_default_profile():
    allowed = {name for rule in default_seccomp(DEFAULT_CAPABILITIES, "x86_64").syscalls if rule.action == "SCMP_ACT_ALLOW" and not rule.args for name in rule.names}
    dangerous = {"mount", "umount2", "pivot_root", "unshare", "setns", "reboot", "kexec_load", "init_module", "delete_module", "bpf",
                 "perf_event_open", "keyctl", "add_key", "userfaultfd", "open_by_handle_at", "swapon", "iopl", "clone3", "io_uring_setup"}  # fmt: skip
    assert not allowed & dangerous
    assert {"read", "execve", "openat", "chroot"} - allowed <= {"chroot"}


@pytest.mark.parametrize(
    ("host", "text"),
    [
        (HostConfig(memory=1), "Minimum memory limit allowed is 6MB"),
        (HostConfig(port_bindings={"80/tcp": [PortBinding("", "x")]}), 'invalid port specification: "x"'),
        (HostConfig(port_bindings={"99999/tcp": []}), "invalid port specification"),
        (HostConfig(security_opt=["bad"]), "invalid --security-opt"),
        (HostConfig(cpu_period=5, nano_cpus=5), "Conflicting options"),
        (HostConfig(oom_score_adj=2000), "range for oom score adj"),
        (HostConfig(ipc_mode="foo"), "invalid IPC mode: foo"),
        (HostConfig(cgroupns_mode="foo"), "invalid cgroup namespace mode: foo"),
        (HostConfig(uts_mode="container:x"), "invalid UTS mode: container:x"),
        (HostConfig(annotations={"dev.corten.init": "/x"}), "is the engine's own"),
    ],
)
def test_what_cannot_be_is_refused_with_its_key(host, text):
    with pytest.raises(Invalid, match=text):
        options.check_host_config(host)


@given(st.text(max_size=12))
def test_port_parser_raises_nothing_else(text):
    try:
        options.parse_port(text)
    except CortenError as error:
        assert error.status in (400, 501)


def test_names():
    assert names.check_name("/ab.c-d_1") == "ab.c-d_1"
    for bad in ("a", "-ab", "a b", "", "a/b"):
        with pytest.raises(InvalidName):
            names.check_name(bad)
    assert len(names.new_id()) == 64


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (60, "About a minute"), (3000, "50 minutes"), (3600, "About an hour"),
     (7300, "2 hours"), (86400 * 3, "3 days"), (86400 * 20, "2 weeks"), (86400 * 90, "3 months"), (86400 * 800, "2 years")],
)  # fmt: skip
def test_durations_as_docker_words_them(seconds, text):
    assert views.human_duration(seconds) == text


def test_inspect_shows_every_host_config_key():
    shown = views.inspect(record(), Layout("/r", "/e"), ["/r/layers/1"], [], "host", str)
    assert shown["HostConfig"]["CgroupnsMode"] == "host"
    assert "Tmpfs" not in shown["HostConfig"]
    assert shown["HostConfig"]["MaskedPaths"]
    assert shown["Path"] == "true"


def test_detach_key_sequences():
    assert streams.parse_detach_keys("") == b"\x10\x11"
    assert streams.parse_detach_keys("ctrl-a,x,ctrl-@") == b"\x01x\x00"
    with pytest.raises(Invalid):
        streams.parse_detach_keys("ctrl-!!")


def test_progress_messages():
    assert progress_message(Progress("Pull complete", "abc")) == {"status": "Pull complete", "progressDetail": {}, "id": "abc"}
    shown = progress_message(Progress("Downloading", "abc", 500, 1000))
    assert shown["progress"].startswith("[=========================>")
    assert shown["progressDetail"] == {"current": 500, "total": 1000}


def test_settings(tmp_path):
    path = tmp_path / "daemon.json"
    path.write_text('{"data-root": "/x", "hosts": ["unix:///s"]}')
    file = settings.read_config_file(str(path), required=True)
    assert settings.combine(file, {}).data_root == "/x"
    with pytest.raises(Invalid, match="both as a flag and in the configuration file: data_root"):
        settings.combine(file, {"data_root": "/y"})
    path.write_text('{"no-such": 1}')
    with pytest.raises(Invalid, match="no-such"):
        settings.read_config_file(str(path), required=True)
    with pytest.raises(Invalid, match="without TLS"):
        settings.combine({}, {"hosts": ("tcp://0.0.0.0:2375",)})
    assert settings.combine({}, {"hosts": ("tcp://127.0.0.1:1",), "tls": False}).hosts
    with pytest.raises(Invalid, match="storage driver"):
        settings.combine({}, {"storage_driver": "zfs"})


def test_registry_credentials_and_challenges():
    header = base64.urlsafe_b64encode(b'{"username":"u","password":"p"}').decode().rstrip("=")
    assert parse_registry_auth(header).basic == "Basic " + base64.b64encode(b"u:p").decode()
    assert "p" not in repr(parse_registry_auth(header)).replace("username", "").replace("Credentials", "")
    with pytest.raises(Invalid):
        parse_registry_auth("!!!")
    challenge = parse_challenge('Bearer realm="https://a/token",service="s",scope="repository:x:pull"')
    assert (challenge.scheme, challenge.parameters["realm"]) == ("bearer", "https://a/token")


def test_cli_request():
    base = dict.fromkeys(("memory", "cpus", "network", "workdir", "user", "hostname", "entrypoint", "pids_limit", "shm_size", "pid", "ipc", "uts", "stop_signal"))
    base |= dict.fromkeys(("env", "publish", "volume", "tmpfs", "label", "cap_add", "cap_drop", "security_opt", "sysctl", "add_host", "dns", "group_add"), ())
    base |= dict.fromkeys(("detach", "interactive", "tty", "rm", "init", "read_only", "privileged", "publish_all"), False)
    body = create_request("i", ("a", "b"), base | {"publish": ("127.0.0.1:8080:80/udp",), "memory": "1.5g", "tmpfs": ("/t:size=1m",), "cpus": 0.5})
    assert body["Cmd"] == ["a", "b"]
    assert body["HostConfig"] == {"Memory": 1610612736, "NanoCpus": 500000000, "Tmpfs": {"/t": "size=1m"},
                                  "PortBindings": {"80/udp": [{"HostIp": "127.0.0.1", "HostPort": "8080"}]}}  # fmt: skip
    assert parse_publish("80") == ("80/tcp", {"HostIp": "", "HostPort": ""})
