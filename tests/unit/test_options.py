"""What a request may ask for: runtimes, modes, security options, limits; refusals with Docker's texts."""

from __future__ import annotations

import pytest

from corten.api import settings
from corten.engine.runtimes import Runtimes, RuntimeSetting, parse_flag
from corten.errors import Invalid


def test_runtimes_are_the_settings_and_the_built_in_one():
    runtimes = Runtimes({"sh": RuntimeSetting("/bin/sh", ["-x"])}, "", "/state")
    assert runtimes.command("") == runtimes.command("corten") == []
    assert runtimes.command("sh") == ["/bin/sh", "-x", "--root", "/state/sh"]
    assert Runtimes({"sh": RuntimeSetting("/bin/sh")}, "sh", "/state").command("") == ["/bin/sh", "--root", "/state/sh"]
    assert set(runtimes.view("{}")) == {"corten", "sh"}
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
