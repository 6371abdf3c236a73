"""CDI devices through the real docker CLI: `--device vendor.com/class=name` and `--gpus`, from JSON and YAML specs; what is wrong is named."""

from __future__ import annotations

import json

import pytest

from tests.engines import RunningEngine

CLOCK = {
    "cdiVersion": "0.6.0", "kind": "corten.test/clock",
    "containerEdits": {"env": ["CLOCK=all"], "mounts": [{"hostPath": "MOUNTED", "containerPath": "/opt/clock", "options": ["ro", "rbind"]}]},
    "devices": [
        {"name": "wall", "containerEdits": {"env": ["WALL=yes"], "deviceNodes": [{"path": "/dev/wall", "hostPath": "/dev/zero", "permissions": "r", "fileMode": 292}],
                                            "additionalGids": [4321]}},
        {"name": "loud", "containerEdits": {"hooks": [{"hookName": "createRuntime", "path": "HOOK", "args": ["hook", "createRuntime"]},
                                                      {"hookName": "poststop", "path": "HOOK", "args": ["hook", "poststop"]}]}},
    ],
}  # fmt: skip
GPU = """\
cdiVersion: 0.5.0
kind: nvidia.com/gpu
devices:
- name: "0"
  containerEdits: {env: [GPU_0=yes]}
- name: "1"
  containerEdits: {env: [GPU_1=yes]}
- name: all
  containerEdits:
    env:
    - GPUS=all
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("cdi")


@pytest.fixture(scope="module")
def docker(assets, docker_cli, folder):
    (folder / "mounted").mkdir()
    (folder / "mounted" / "time").write_text("half past\n")
    hook = folder / "hook.sh"
    hook.write_text(f"#!/bin/sh\ncat > {folder}/state\necho $1 >> {folder}/hooks\n")
    hook.chmod(0o755)
    text = json.dumps(CLOCK).replace("MOUNTED", str(folder / "mounted")).replace("HOOK", str(hook))
    (folder / "clock.json").write_text(text)
    (folder / "gpu.yaml").write_text(GPU)
    running = RunningEngine("d", "--cdi-spec-dir", str(folder))
    try:
        running.load(f"{assets}/images/busybox.tar")

        def run(*arguments: str, script: str = "true"):
            return running.docker(docker_cli, "run", "--rm", *arguments, "busybox", "sh", "-c", script, check=False)

        run.engine = running
        yield run
    finally:
        running.stop()


def test_a_device_brings_node_mount_environment_and_group(docker):
    done = docker("--device", "corten.test/clock=wall", script="ls -l /dev/wall; head -c 4 /dev/wall | wc -c; cat /opt/clock/time; touch /opt/clock/x; echo $CLOCK $WALL; id -G")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("cr--r--r--")
    assert lines[1:] == ["4", "half past", "all yes", lines[-1]]
    assert "4321" in lines[-1].split()
    assert done.stderr.count("Read-only file system") == 1


def test_hooks_run_around_the_container(docker, folder):
    (folder / "hooks").unlink(missing_ok=True)
    done = docker("--device", "corten.test/clock=loud", script="echo inside; exit 3")
    assert (done.returncode, done.stdout) == (3, "inside\n"), done.stderr
    assert (folder / "hooks").read_text().split() == ["createRuntime", "poststop"]
    assert json.loads((folder / "state").read_text())["status"] == "stopped"


@pytest.mark.parametrize(("flag", "shown"), [("all", "all  "), ("1", " yes "), ("device=1", "  yes")])
def test_gpus_are_those_of_the_specs(docker, flag, shown):
    assert docker("--gpus", flag, script='echo "$GPUS $GPU_0 $GPU_1"').stdout == f"{shown}\n"


def test_inspect_shows_the_request_and_info_the_folders(docker, folder):
    body = {"Image": "busybox", "HostConfig": {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["corten.test/clock=wall"]}]}}
    container = docker.engine.client.post("/containers/create", body)["Id"]
    assert docker.engine.client.get(f"/containers/{container}/json")["HostConfig"]["DeviceRequests"] == [
        {"Driver": "cdi", "Count": 0, "DeviceIDs": ["corten.test/clock=wall"], "Capabilities": None, "Options": None}
    ]
    docker.engine.remove(container)
    assert docker.engine.client.get("/info")["CDISpecDirs"] == [str(folder)]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("cdiVersion: 0.5.0\nkind: corten.test/bad\ndevices: [\n", "bad.yaml: line 4"),
        ("cdiVersion: 0.5.0\nkind: corten.test/bad\ndevices: 5\n", "bad.yaml: Expected `array`, got `int` - at `$.devices`"),
        ("cdiVersion: 0.5.0\nkind: bad\ndevices: []\n", "bad.yaml: kind: 'bad' is not of the form vendor.com/class"),
        ("cdiVersion: 0.5.0\nkind: corten.test/bad\ndevices: [{name: a, containerEdits: {env: [x]}}]\n", "bad.yaml: devices[0].containerEdits.env[0]: 'x'"),
        ("cdiVersion: 0.5.0\nkind: corten.test/bad\ndevices: [{name: a, containerEdits: {deviceNodes: [{path: /dev/nosuch}]}}]\n", "failed to stat CDI host device '/dev/nosuch'"),
        ("cdiVersion: 0.5.0\nkind: corten.test/bad\ndevices: [{name: b, containerEdits: {env: [a=b]}}]\n", "unresolvable CDI devices corten.test/bad=a"),
    ],
)
def test_what_is_wrong_is_named_with_file_and_key(docker, folder, text, named):
    (folder / "bad.yaml").write_text(text)
    try:
        done = docker("--device", "corten.test/bad=a")
    finally:
        (folder / "bad.yaml").unlink()
    assert done.returncode in (125, 127)  # the CLI makes 127 of "no such file"
    assert "CDI device injection failed" in done.stderr
    assert named in done.stderr
