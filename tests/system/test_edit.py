"""Containers edited in place: live where it can be, else one stop and start that keeps everything; undone if it fails."""

from __future__ import annotations

import os
import pathlib
import socket

import pytest

from corten.api.client import ApiError, demultiplex
from tests.system.conftest import eventually, free_port


@pytest.fixture(autouse=True)
def nothing_stays(engine):
    yield
    engine.remove_all()


def edit(engine, container, **keys):
    return engine.client.post(f"/corten/containers/{container}/edit", keys)


def shown(engine, container):
    return engine.client.get(f"/containers/{container}/json")


def reaches(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), 5) as caller:
            caller.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return bool(caller.recv(1))
    except OSError:
        return False


def test_live_edits_leave_the_process_alone(engine):
    first, second = free_port(), free_port()
    container = engine.run("httpd", "-f", "-p", "80", "-h", "/etc", PortBindings={"80/tcp": [{"HostPort": str(first)}]})
    before = shown(engine, container)["State"]
    done = edit(engine, container, Labels={"tier": "web"}, RestartPolicy={"Name": "always"}, PortBindings={"80/tcp": [{"HostPort": str(second)}]},
                Healthcheck={"Test": ["CMD", "true"], "Interval": 50_000_000})  # fmt: skip
    assert (done["Done"], {step["How"] for step in done["Steps"]}) == (True, {"live"})
    now = shown(engine, container)
    assert (now["State"]["Pid"], now["State"]["StartedAt"]) == (before["Pid"], before["StartedAt"])
    assert (now["Config"]["Labels"], now["HostConfig"]["RestartPolicy"]["Name"]) == ({"tier": "web"}, "always")
    assert reaches(second)
    assert not reaches(first)
    while shown(engine, container)["State"]["Health"]["Status"] != "healthy":
        continue
    edit(engine, container, PortBindings={}, Healthcheck={"Test": ["NONE"]}, RestartPolicy={"Name": "no"})
    assert not reaches(second)
    assert "Health" not in shown(engine, container)["State"] or shown(engine, container)["State"]["Health"] is None


def test_a_swap_keeps_what_the_container_is(engine, tmp_path):
    image_volume = {"/anonymous": {}}
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], "Env": ["A=1"], "Volumes": image_volume, "HostConfig": {"Binds": ["cortest-edit:/named"]}}
    container = engine.client.post("/containers/create", body, name="edited")["Id"]
    engine.client.post(f"/containers/{container}/start")
    try:
        for path in ("/layer", "/named/kept", "/anonymous/kept"):
            created = engine.client.post(f"/containers/{container}/exec", {"Cmd": ["sh", "-c", f"echo 1 >{path}"]})["Id"]
            engine.client.post(f"/exec/{created}/start", {"Detach": True})
            while engine.client.get(f"/exec/{created}/json")["ExitCode"] is None:
                continue
        plan = engine.client.post(f"/corten/containers/{container}/edit", {"Env": ["A=2"]}, dryRun=1)
        assert (plan["Done"], [(step["Key"], step["How"]) for step in plan["Steps"]]) == (False, [("Env", "swap")])
        before = shown(engine, container)
        command = ["sh", "-c", "echo $A $B; cat /layer /named/kept /anonymous/kept; ls /new; exec sleep 600"]
        edit(engine, container, Env=["A=2", "B=3"], Cmd=command, Binds=["cortest-edit:/named", f"{tmp_path}:/new:ro"], Labels={"l": "1"})
        (tmp_path / "unused").write_text("")
        after = shown(engine, container)
        assert (after["Id"], after["Name"], after["Created"]) == (before["Id"], before["Name"], before["Created"])
        assert after["State"]["Running"]
        assert after["State"]["Pid"] != before["State"]["Pid"]
        old, new = ({mount["Destination"]: mount.get("Name") for mount in view["Mounts"]} for view in (before, after))
        assert (new["/anonymous"], new["/named"], "/new" in new) == (old["/anonymous"], old["/named"], True)
        with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as logs:
            assert logs.read(8 + 4 + 8 + 6)[8:12] == b"2 3\n"
    finally:
        engine.remove_all()
        engine.client.delete("/volumes/cortest-edit")


def test_a_stopped_container_is_edited_and_stays_stopped(engine):
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", "exit 4"]})["Id"]
    edit(engine, container, Cmd=["sh", "-c", "exit 5"], WorkingDir="/tmp")
    assert shown(engine, container)["State"]["Status"] == "created"
    engine.client.post(f"/containers/{container}/start")
    assert engine.client.post(f"/containers/{container}/wait")["StatusCode"] == 5


def test_what_fails_is_undone(engine):
    taken = free_port()
    with socket.socket() as holder:
        holder.bind(("0.0.0.0", taken))
        holder.listen()
        container = engine.run("sleep", "600")
        before = shown(engine, container)
        with pytest.raises(ApiError) as refused:
            edit(engine, container, PortBindings={"80/tcp": [{"HostPort": str(taken)}]}, Labels={"new": "1"})
        assert "address already in use" in refused.value.message
        assert shown(engine, container)["Config"]["Labels"] == before["Config"]["Labels"]
        assert shown(engine, container)["State"]["Pid"] == before["State"]["Pid"]
    with pytest.raises(ApiError) as refused:
        edit(engine, container, Cmd=["nosuchprogram"], Env=["NEW=1"])
    assert "executable file not found" in refused.value.message
    assert refused.value.message.endswith("the edit is undone, the container runs as before")
    after = shown(engine, container)
    assert (after["State"]["Running"], after["Config"]["Cmd"], after["Config"]["Env"]) == (True, ["sleep", "600"], before["Config"]["Env"])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"RestartPolicy": {"Name": "sometimes"}}, "restart policy"), ({"WorkingDir": "relative"}, "absolute path"), ({"Env": 5}, "Env"),
        ({"PortBindings": {"x": []}}, "x"), ({"LogConfig": {"Type": "nosuch"}}, "nosuch"), ({"Healthcheck": {"Interval": 5}}, "Interval"),
        ({"Binds": ["relative:path:oops:x"]}, "volume"),
    ],
)  # fmt: skip
def test_bad_values_name_themselves(engine, body, text):
    container = engine.run("sleep", "600")
    before = shown(engine, container)["State"]["Pid"]
    with pytest.raises(ApiError) as refused:
        edit(engine, container, **body)
    assert refused.value.http_status in (400, 500)
    assert text.lower() in refused.value.message.lower()
    now = shown(engine, container)["State"]
    assert now["Running"]
    if "Binds" not in body:
        assert now["Pid"] == before


def logged(engine, container) -> list[str]:
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1}) as logs:
        return b"".join(data for _, data in demultiplex(logs.read)).decode().split()


def test_a_log_goes_elsewhere_while_the_container_runs(engine):
    """Every line is in exactly one of the logs, in order; the process notices nothing."""
    counting = ["sh", "-c", "n=0; while :; do n=$((n+1)); echo $n; sleep 0.01; done"]
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": counting, "Labels": {"tier": "a"}})["Id"]
    engine.client.post(f"/containers/{container}/start")
    before = shown(engine, container)["State"]
    eventually(lambda: logged(engine, container))
    found = []
    for kind, options in (("local", {}), ("none", {}), ("json-file", {"max-size": "1k", "max-file": "2", "labels": "tier"})):
        done = edit(engine, container, LogConfig={"Type": kind, "Config": options})
        assert [(step["Key"], step["How"]) for step in done["Steps"]] == [("LogConfig", "live")]
        if kind != "none":
            eventually(lambda: len(logged(engine, container)) > 3)
            found += [logged(engine, container)]
    edit(engine, container, Labels={"tier": "b"})
    lines = f"{engine.data_root}/containers/{container}/{container}-json.log"
    eventually(lambda: '"tier":"b"' in pathlib.Path(lines).read_text())
    assert os.stat(lines).st_size <= 1024
    state = shown(engine, container)["State"]
    assert (state["Pid"], state["StartedAt"]) == (before["Pid"], before["StartedAt"])
    local, json_file = (list(map(int, part)) for part in found)
    assert local == list(range(local[0], local[0] + len(local)))
    assert local[0] > 1
    assert json_file == sorted(set(json_file) - set(local))
    with pytest.raises(ApiError) as refused:
        edit(engine, container, LogConfig={"Type": "fluentd", "Config": {"fluentd-address": f"127.0.0.1:{free_port()}"}})
    assert "connection refused" in refused.value.message
    assert shown(engine, container)["HostConfig"]["LogConfig"]["Type"] == "json-file"


def test_a_follower_goes_on_when_only_the_options_change(engine):
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "echo first; read go; echo second"], "OpenStdin": True}
    container = engine.client.post("/containers/create", body)["Id"]
    engine.client.post(f"/containers/{container}/start")
    with engine.client.open("GET", f"/containers/{container}/logs", query={"stdout": 1, "follow": 1}) as logs:
        assert logs.read(14)[8:] == b"first\n"
        edit(engine, container, LogConfig={"Type": "json-file", "Config": {"max-size": "5m"}})
        with engine.client.hijack(f"/containers/{container}/attach", stdin=1, stream=1) as stream:
            stream.sendall(b"go\n")
        assert logs.read(15)[8:] == b"second\n"
