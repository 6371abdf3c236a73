"""Restart policies, and what a container that waits for its restart answers; across kill -9 of the engine, too."""

from __future__ import annotations

import json
import os
import time

import pytest

from corten.api.client import ApiError
from tests.engines import PATIENCE

ALWAYS = {"RestartPolicy": {"Name": "always"}}
UNLESS = {"RestartPolicy": {"Name": "unless-stopped"}}


def inspect(engine, container: str) -> dict:
    return engine.client.get(f"/containers/{container}/json")


def status(engine, container: str) -> str:
    return inspect(engine, container)["State"]["Status"]


def until(condition, what: str, seconds: float = 15) -> None:
    end = time.monotonic() + seconds * PATIENCE
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.01)


FAR = 3 if PATIENCE == 1 else 7  # restarts after which the next one is 0.8 s away, and more where everything takes longer


def restarting(engine, container: str, count: int = FAR) -> None:
    """Wait until it waits for a restart that is far enough away to be asked about."""
    until(lambda: status(engine, container) == "restarting" and inspect(engine, container)["RestartCount"] >= count, "never restarting")


def actions(engine, container: str, since: float) -> list[str]:
    filters = f'{{"container":["{container}"],"type":["container"]}}'
    with engine.client.open("GET", "/events", query={"since": since, "until": time.time(), "filters": filters}) as response:
        return [json.loads(line)["Action"] for line in response.read().splitlines()]


def test_on_failure_gives_up_after_its_count(engine):
    since = time.time()
    container = engine.run("sh", "-c", "echo run; exit 3", RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 2})
    until(lambda: status(engine, container) == "exited" and inspect(engine, container)["RestartCount"] == 2, "it does not give up")
    shown = inspect(engine, container)
    assert shown["State"]["ExitCode"] == 3
    assert actions(engine, container, since) == ["create", *["start", "die"] * 3]
    with open(shown["LogPath"], encoding="utf-8") as log:
        assert log.read().count("run") == 3
    engine.client.post(f"/containers/{container}/start")
    assert inspect(engine, container)["RestartCount"] < 2  # a start by hand begins again
    engine.remove(container)


def test_success_is_no_failure(engine):
    container = engine.run("true", RestartPolicy={"Name": "on-failure"})
    assert engine.client.post(f"/containers/{container}/wait")["StatusCode"] == 0
    assert (status(engine, container), inspect(engine, container)["RestartCount"]) == ("exited", 0)
    engine.remove(container)


def test_one_that_waits_for_its_restart(engine):
    container = engine.run("sh", "-c", "exit 3", name="cortest-waits", **ALWAYS)
    restarting(engine, container)
    state = inspect(engine, container)["State"]
    assert (state["Running"], state["Restarting"], state["Pid"], state["ExitCode"]) == (True, True, 0, 3)
    (item,) = engine.client.get("/containers/json", filters='{"status":["restarting"]}')
    assert item["Status"].startswith("Restarting (3) ")
    for path, text in (("pause", "is restarting, wait"), ("unpause", "is not paused"), ("exec", "is restarting, wait"), ("attach", "is restarting, wait")):
        with pytest.raises(ApiError, match=text):
            engine.client.post(f"/containers/{container}/{path}", {"Cmd": ["true"]} if path == "exec" else None)
    with pytest.raises(ApiError, match="container is restarting: stop the container before"):
        engine.client.delete(f"/containers/{container}")
    engine.client.post(f"/containers/{container}/rename", name="cortest-renamed")
    since = time.time()
    engine.client.post("/containers/cortest-renamed/stop")
    assert status(engine, container) == "exited"
    count = inspect(engine, container)["RestartCount"]
    assert actions(engine, container, since) == ["stop"]
    time.sleep(0.1 * 2**FAR + 0.2)  # longer than the delay that was running: nothing may come of it
    assert (status(engine, container), inspect(engine, container)["RestartCount"]) == ("exited", count)
    engine.client.post("/containers/cortest-renamed/start")
    restarting(engine, container)
    engine.client.post("/containers/cortest-renamed/kill")
    assert status(engine, container) == "exited"
    engine.client.post("/containers/cortest-renamed/start")
    restarting(engine, container)
    engine.remove(container)
    with pytest.raises(ApiError, match="No such container"):
        inspect(engine, container)


def test_stop_and_kill_end_it_and_a_foreign_signal_only_with_a_stop_signal(engine):
    plain = engine.run("sh", "-c", "trap : USR1; sleep 600 & wait; exit 4", **ALWAYS)
    named = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", "trap : USR1; sleep 600 & wait; exit 4"],
                                                      "StopSignal": "SIGTERM", "HostConfig": ALWAYS})["Id"]  # fmt: skip
    engine.client.post(f"/containers/{named}/start")
    time.sleep(0.3)  # until the trap is there
    for container in (plain, named):
        engine.client.post(f"/containers/{container}/kill", signal="USR1")
    until(lambda: status(engine, plain) == "exited", "a signal is a stop where no stop signal is named")
    until(lambda: inspect(engine, named)["RestartCount"] == 1, "another signal than the stop signal is no stop")
    engine.client.post(f"/containers/{named}/stop", t=0)
    assert status(engine, named) == "exited"
    for container in (plain, named):
        engine.remove(container)


def test_the_next_engine_restarts_what_its_policy_says(own_engine):
    engine = own_engine
    runs = engine.run("sleep", "600", **ALWAYS)
    pid = inspect(engine, runs)["State"]["Pid"]
    dies = engine.run("sh", "-c", "sleep 1; exit 2", **ALWAYS)
    plain = engine.run("sh", "-c", "sleep 1; exit 2")
    failed = engine.run("sh", "-c", "exit 2", **ALWAYS)
    stopped, stays = engine.run("sleep", "600", **ALWAYS), engine.run("sleep", "600", **UNLESS)
    never = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": ALWAYS})["Id"]
    joined = engine.run("sleep", "600", **ALWAYS, NetworkMode=f"container:{stopped}")
    for container in (stopped, stays, joined):
        engine.client.post(f"/containers/{container}/stop", t=0)
    restarting(engine, failed)
    engine.kill()
    time.sleep(1.2)
    engine.start()
    assert (status(engine, runs), inspect(engine, runs)["State"]["Pid"]) == ("running", pid)
    for container in (dies, stopped, joined):
        until(lambda c=container: status(engine, c) == "running", "it is not restarted")
    assert (status(engine, stays), status(engine, plain), status(engine, never)) == ("exited", "exited", "created")
    restarting(engine, failed, 1)
    assert os.readlink(f"/proc/{inspect(engine, joined)['State']['Pid']}/ns/net") == os.readlink(f"/proc/{inspect(engine, stopped)['State']['Pid']}/ns/net")
    engine.remove(joined)


def test_the_docker_cli(engine, docker_cli):
    container = engine.docker(docker_cli, "run", "-d", "--restart", "on-failure:1", "busybox", "sh", "-c", "sleep 0.3; exit 5").stdout.strip()
    assert engine.docker(docker_cli, "wait", container).stdout.strip() == "5"
    until(lambda: status(engine, container) == "exited", "it does not give up")
    assert engine.docker(docker_cli, "inspect", "--format", "{{.RestartCount}} {{.HostConfig.RestartPolicy.Name}}", container).stdout.strip() == "1 on-failure"
    assert engine.docker(docker_cli, "wait", container).stdout.strip() == "5"
    refused = engine.docker(docker_cli, "run", "--rm", "--restart", "always", "busybox", check=False)
    assert "conflicting options" in refused.stderr
    engine.docker(docker_cli, "rm", container)
    assert engine.docker(docker_cli, "run", "--rm", "busybox", "sh", "-c", "exit 7", check=False).returncode == 7


def test_restart_by_hand_does_not_remove(engine):
    container = engine.run("sleep", "600", AutoRemove=True)
    first = inspect(engine, container)["State"]["Pid"]
    engine.client.post(f"/containers/{container}/restart", t=0)
    assert inspect(engine, container)["State"]["Pid"] != first
    engine.client.post(f"/containers/{container}/kill")
    until(lambda: container not in [item["Id"] for item in engine.client.get("/containers/json", all=1)], "not removed")


def test_an_auto_removal_that_fails_is_shown_and_holds_nobody_up(engine):
    import subprocess

    container = engine.run("sleep", "600", AutoRemove=True)
    folder = f"{engine.data_root}/containers/{container}"
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        engine.client.post(f"/containers/{container}/kill")
        assert status(engine, container) == "dead"
    finally:
        subprocess.run(["umount", folder], check=True)
    engine.remove(container)


def test_a_restart_whose_start_fails_removes_after_all(engine):
    body = {"Image": "busybox", "Cmd": ["/prog", "600"], "HostConfig": {"AutoRemove": True}}
    container = engine.client.post("/containers/create", body)["Id"]
    upper = f"{engine.data_root}/containers/{container}/upper"
    with open(f"{upper}/prog", "w", encoding="utf-8") as script:
        script.write("#!/bin/sh\nrm /prog\nexec sleep $1\n")
    os.chmod(f"{upper}/prog", 0o755)
    engine.client.post(f"/containers/{container}/start")
    until(lambda: not os.path.exists(f"{upper}/prog") or os.stat(f"{upper}/prog").st_mode & 0o170000 == 0o020000, "the script has not run")
    with pytest.raises(ApiError, match="Cannot restart container"):
        engine.client.post(f"/containers/{container}/restart", t=0)
    with pytest.raises(ApiError, match="No such container"):
        inspect(engine, container)


def test_one_that_cannot_be_removed_is_dead_and_can_be_removed_later(engine):
    import subprocess

    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["true"]})["Id"]
    folder = f"{engine.data_root}/containers/{container}"
    subprocess.run(["mount", "--bind", folder, folder], check=True)
    try:
        with pytest.raises(ApiError, match="unable to remove filesystem"):
            engine.client.delete(f"/containers/{container}")
        assert status(engine, container) == "dead"
        with pytest.raises(ApiError, match="marked for removal and cannot be started"):
            engine.client.post(f"/containers/{container}/start")
    finally:
        subprocess.run(["umount", folder], check=True)
    engine.client.delete(f"/containers/{container}")
    assert not os.path.exists(folder)
    with pytest.raises(ApiError, match="No such container"):
        inspect(engine, container)


def test_waits(engine):
    import threading

    def wait(container: str, condition: str) -> threading.Thread:
        def work() -> None:
            answers[condition] = engine.client.post(f"/containers/{container}/wait", condition=condition)

        thread = threading.Thread(target=work)
        thread.start()
        return thread

    answers: dict[str, dict] = {}
    container = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["sh", "-c", "exit 6"], "HostConfig": {"AutoRemove": True}})["Id"]
    threads = [wait(container, condition) for condition in ("next-exit", "removed")]
    time.sleep(0.3)
    engine.client.post(f"/containers/{container}/start")
    for thread in threads:
        thread.join(10)
    assert answers == {"next-exit": {"StatusCode": 6}, "removed": {"StatusCode": 6}}
    bad = engine.client.post("/containers/create", {"Image": "busybox", "Cmd": ["nosuch"]})["Id"]
    with pytest.raises(ApiError, match="not found"):
        engine.client.post(f"/containers/{bad}/start")
    answer = engine.client.post(f"/containers/{bad}/wait")
    assert answer["StatusCode"] == 127
    assert "executable file not found" in answer["Error"]["Message"]
    thread = wait(bad, "removed")
    time.sleep(0.3)
    engine.client.delete(f"/containers/{bad}")
    thread.join(10)
    assert answers["removed"] == {"StatusCode": 127}
