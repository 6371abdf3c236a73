"""Who runs under which AppArmor profile, and where in the plan it is set: decided without a kernel that has it."""

from __future__ import annotations

import msgspec
import pytest

from corten.engine import confinement
from corten.errors import Invalid
from corten.linux import apparmor
from corten.linux.cgroup import Layout
from corten.runtime.plan import make_plan
from corten.spec.apparmor import default_profile
from corten.spec.engine import HostConfig
from corten.spec.runtime import Linux, Mount, Namespace, Process, RuntimeConfig


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        (HostConfig(), "docker-default"),
        (HostConfig(privileged=True), "unconfined"),
        (HostConfig(privileged=True, security_opt=["apparmor=mine"]), "mine"),
        (HostConfig(security_opt=["apparmor:unconfined"]), "unconfined"),
        (HostConfig(security_opt=["no-new-privileges", "apparmor=a//b (c)"]), "a//b (c)"),
    ],
)
def test_dockers_rule(settings, wanted):
    assert confinement.chosen(settings) == wanted


@pytest.mark.parametrize(("enabled", "parser", "reason"), [(False, "", "this kernel has no AppArmor"), (True, "", "apparmor_parser is not installed")])
def test_a_profile_that_cannot_be_enforced_is_refused_with_the_reason(monkeypatch, enabled, parser, reason):
    monkeypatch.setattr(apparmor, "enabled", lambda: enabled)
    monkeypatch.setattr(apparmor, "parser", lambda: parser)
    confinement.supported.cache_clear()
    try:
        with pytest.raises(Invalid, match=f"apparmor=mine: {reason}"):
            confinement.check(HostConfig(security_opt=["apparmor=mine"]))
        confinement.check(HostConfig(security_opt=["apparmor=unconfined"]))
        assert confinement.profile(HostConfig()) == ""
    finally:
        confinement.supported.cache_clear()


def test_loaded_profiles_are_read_by_name():
    text = "docker-default (enforce)\n/usr/bin/man (complain)\nsnap.x (y) (enforce)\na//&b (unconfined)\n"
    assert apparmor.parse_profiles(text) == {"docker-default", "/usr/bin/man", "snap.x (y)", "a//&b"}


def test_the_label_is_set_before_the_hosts_proc_is_out_of_sight():
    config = RuntimeConfig("1.0.2", process=Process(args=["x"], cwd="/"), mounts=[Mount("/proc", "proc", "proc")], linux=Linux(namespaces=[Namespace("mount")]))
    assert "ConfineExec" not in make_plan(config, "/r", (), Layout()).render()
    confined = msgspec.structs.replace(config, process=msgspec.structs.replace(config.process, apparmor_profile="mine"))
    lines = make_plan(confined, "/r", (), Layout()).render().splitlines()
    at = lines.index("ConfineExec(profile='mine')")
    assert lines[at + 1].startswith("PivotRoot")


def test_the_profile_speaks_of_itself():
    text = default_profile("cortest")
    assert text.startswith("profile cortest flags=")
    assert text.count("peer=cortest") == 2
    assert "#include" not in text
    for line in ("deny mount,", "deny /proc/sysrq-trigger rwklx,", "deny /sys/firmware/** rwklx,"):
        assert f"  {line}\n" in text
