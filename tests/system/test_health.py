"""Health checks in real containers: results, timeouts, events, pauses, kill -9 of the engine, restarts for being unhealthy."""

from __future__ import annotations

import json
import os
import time

import pytest

from corten.api.client import ApiError

MS = 1_000_000
QUICK = {"Interval": 100 * MS, "Retries": 2}


def made(engine, test: list[str], *, command: tuple[str, ...] = ("sleep", "600"), config: dict | None = None, host: dict | None = None, **check: object) -> str:
    body = {"Image": "busybox", "Cmd": list(command), "Healthcheck": {"Test": test, **QUICK, **check}, "HostConfig": host or {}, **(config or {})}
    container = engine.client.post("/containers/create", body)["Id"]
    engine.client.post(f"/containers/{container}/start")
    return container


def state(engine, container: str) -> dict:
    return engine.client.get(f"/containers/{container}/json")["State"]


def health(engine, container: str) -> dict:
    return state(engine, container)["Health"]


def until(condition, what: str = "it does not become so", seconds: float = 15) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.02)


def becomes(engine, container: str, status: str) -> None:
    until(lambda: health(engine, container)["Status"] == status, f"never {status}: {health(engine, container)}")


def run(engine, container: str, *command: str) -> None:
    exec_id = engine.client.post(f"/containers/{container}/exec", {"Cmd": list(command)})["Id"]
    engine.client.post(f"/exec/{exec_id}/start", {"Detach": True})


def events(engine, container: str, since: float) -> list[dict]:
    filters = json.dumps({"container": [container], "type": ["container"]})
    with engine.client.open("GET", "/events", query={"since": since, "until": time.time(), "filters": filters}) as response:
        return [json.loads(line) for line in response.read().splitlines()]


def test_healthy_and_unhealthy_and_healthy(engine, docker_cli):
    since = time.time()
    container = made(engine, ["CMD-SHELL", "echo said; test ! -e /bad"])
    becomes(engine, container, "healthy")
    first = health(engine, container)["Log"][0]
    assert (first["ExitCode"], first["Output"]) == (0, "said\n")
    assert first["Start"] < first["End"]
    assert "(healthy)" in engine.docker(docker_cli, "ps", "--filter", "health=healthy", "--format", "{{.Status}}", "--filter", f"id={container}").stdout
    run(engine, container, "touch", "/bad")
    becomes(engine, container, "unhealthy")
    assert health(engine, container)["FailingStreak"] >= 2
    assert [item["Id"] for item in engine.client.get("/containers/json", filters='{"health":["unhealthy"]}')] == [container]
    run(engine, container, "rm", "/bad")
    becomes(engine, container, "healthy")
    assert health(engine, container)["FailingStreak"] == 0
    until(lambda: len(health(engine, container)["Log"]) == 5)
    time.sleep(0.3)
    assert len(health(engine, container)["Log"]) == 5
    seen = events(engine, container, since)
    assert [event["Action"] for event in seen if event["Action"].startswith("health")] == [
        "health_status: healthy", "health_status: unhealthy", "health_status: healthy",
    ]  # fmt: skip
    probe = "/bin/sh -c echo said; test ! -e /bad"
    assert [event["Action"] for event in seen if "execID" in event["Actor"]["Attributes"]][:3] == [f"exec_create: {probe}", f"exec_start: {probe}", "exec_die"]
    engine.client.post(f"/containers/{container}/pause")
    assert health(engine, container)["Status"] == "unhealthy"
    paused = health(engine, container)["Log"]
    time.sleep(0.4)
    assert health(engine, container)["Log"] == paused
    engine.client.post(f"/containers/{container}/unpause")
    becomes(engine, container, "healthy")
    engine.client.post(f"/containers/{container}/stop", t=0)
    assert (health(engine, container)["Status"], bool(health(engine, container)["Log"])) == ("unhealthy", True)
    engine.client.post(f"/containers/{container}/start")
    assert health(engine, container)["Status"] == "starting"
    engine.remove(container)


@pytest.mark.parametrize(
    ("test", "settings", "code", "output"),
    [
        (["CMD", "nosuch"], {}, -1, 'OCI runtime exec failed: exec failed: unable to start container process: exec: "nosuch": executable file not found in $PATH'),
        (["CMD-SHELL", "echo part; sleep 77"], {"Timeout": 300 * MS}, -1, "Health check exceeded timeout (300ms): part\n"),
        (["CMD", "sleep", "77"], {"Timeout": 300 * MS}, -1, "Health check exceeded timeout (300ms)"),
        (["CMD-SHELL", "head -c 100000 /dev/zero | tr '\\0' a"], {}, 0, "a" * 4096 + "..."),
        (["CMD-SHELL", "echo out; echo err >&2; exit 3"], {}, 3, "out\nerr\n"),
        (["CMD-SHELL", "printf '\\377'"], {}, 0, "\N{REPLACEMENT CHARACTER}"),
    ],
)
def test_results(engine, test, settings, code, output):
    container = made(engine, test, Interval=200 * MS, **settings)
    until(lambda: health(engine, container)["Log"])
    entry = health(engine, container)["Log"][0]
    assert (entry["ExitCode"], entry["Output"]) == (code, output)
    if "sleep 77" in " ".join(test):  # what it has started is killed with it: at most the probe that runs now is there
        until(lambda: len(health(engine, container)["Log"]) >= 2)
        rows = engine.client.get(f"/containers/{container}/top")["Processes"]
        assert sum("sleep 77" in row[-1] and "echo" not in row[-1] for row in rows) <= 1
    engine.remove(container)


def test_the_probe_runs_as_the_containers_user_in_its_folder(engine):
    container = made(engine, ["CMD-SHELL", "id -u; pwd; echo $GREETING"], config={"User": "7", "WorkingDir": "/tmp", "Env": ["GREETING=hi"]})
    until(lambda: health(engine, container)["Log"])
    assert health(engine, container)["Log"][0]["Output"] == "7\n/tmp\nhi\n"
    engine.remove(container)


def test_none_and_no_check_show_nothing(engine):
    for test in (["NONE"], ["FOO", "x"], []):
        container = made(engine, test)
        assert "Health" not in state(engine, container)
        engine.remove(container)
    with pytest.raises(ApiError, match="Interval in Healthcheck cannot be less than 1ms"):
        made(engine, ["CMD", "true"], Interval=5)


def test_the_docker_cli(engine, docker_cli):
    options = ("--health-cmd", "test -e /ready", "--health-interval", "5s", "--health-start-period", "20s", "--health-start-interval", "100ms",
               "--health-retries", "1", "--health-timeout", "2s")  # fmt: skip
    container = engine.docker(docker_cli, "run", "-d", *options, "busybox", "sleep", "600").stdout.strip()
    until(lambda: len(health(engine, container)["Log"]) >= 2)
    assert (health(engine, container)["Status"], health(engine, container)["FailingStreak"]) == ("starting", 0)
    assert "(health: starting)" in engine.docker(docker_cli, "ps", "-f", f"id={container}", "--format", "{{.Status}}").stdout
    run(engine, container, "touch", "/ready")
    becomes(engine, container, "healthy")
    none = engine.docker(docker_cli, "run", "-d", "--no-healthcheck", "busybox", "sleep", "600").stdout.strip()
    assert "Health" not in state(engine, none)
    for each in (container, none):
        engine.remove(each)


def test_the_next_engine_goes_on(own_engine):
    engine = own_engine
    container = made(engine, ["CMD-SHELL", "test ! -e /bad"])
    becomes(engine, container, "healthy")
    engine.kill()
    engine.start()
    assert health(engine, container)["Status"] == "healthy"
    assert health(engine, container)["Log"]
    run(engine, container, "touch", "/bad")
    becomes(engine, container, "unhealthy")


def test_unhealthy_means_restarted(engine):
    since = time.time()
    label = {"Labels": {"dev.corten.on-unhealthy": "restart:2"}, "StopSignal": "SIGKILL"}
    container = made(engine, ["CMD-SHELL", "echo not well; exit 7"], config=label)
    pid = state(engine, container)["Pid"]
    until(lambda: health(engine, container).get("LastRestart", {}).get("InARow") == 2, "not restarted twice")
    becomes(engine, container, "unhealthy")
    time.sleep(0.5)
    found = state(engine, container)
    assert found["Running"]
    assert found["Pid"] != pid
    assert found["Health"]["LastRestart"]["InARow"] == 2  # and that was all
    assert found["Health"]["LastRestart"]["Reason"] == "unhealthy, 2 checks failed in a row: exit code 7, not well"
    seen = [event for event in events(engine, container, since) if event["Action"] in ("health_restart", "restart")]
    assert [event["Action"] for event in seen] == ["health_restart", "restart"] * 2
    assert "exit code 7" in seen[0]["Actor"]["Attributes"]["reason"]
    engine.remove(container)
    with pytest.raises(ApiError, match="want `restart`"):
        made(engine, ["CMD", "true"], config={"Labels": {"dev.corten.on-unhealthy": "explode"}})


def test_a_pause_and_another_engine_do_not_hide_that_it_is_unhealthy(own_engine):
    engine = own_engine
    label = {"Labels": {"dev.corten.on-unhealthy": "restart:1"}, "StopSignal": "SIGKILL"}
    container = made(engine, ["CMD-SHELL", "test ! -e /tmp/bad"], config=label, host={"Tmpfs": {"/tmp": ""}})
    becomes(engine, container, "healthy")
    engine.client.post(f"/containers/{container}/pause")
    engine.client.post(f"/containers/{container}/unpause")  # unhealthy until the next probe, and no failure so far
    becomes(engine, container, "healthy")
    assert "LastRestart" not in health(engine, container)
    run(engine, container, "touch", "/tmp/bad")
    engine.kill()
    engine.start()
    until(lambda: health(engine, container).get("LastRestart", {}).get("InARow") == 1, "not restarted")
    becomes(engine, container, "healthy")  # the restart has emptied /tmp


def test_an_images_check_is_inherited_and_merged(engine):
    container = engine.run("true")
    engine.client.post("/commit", container=container, repo="cortest-checked", changes='HEALTHCHECK --interval=100ms --retries=7 CMD ["echo", "from the image"]')
    body = {"Image": "cortest-checked", "Cmd": ["sleep", "600"]}
    checked = engine.client.post("/containers/create", body)["Id"]
    changed = engine.client.post("/containers/create", body | {"Healthcheck": {"Retries": 2}})["Id"]
    without = engine.client.post("/containers/create", body | {"Healthcheck": {"Test": ["NONE"]}})["Id"]
    for each in (checked, without):
        engine.client.post(f"/containers/{each}/start")
    becomes(engine, checked, "healthy")
    assert health(engine, checked)["Log"][0]["Output"] == "from the image\n"
    assert "Health" not in state(engine, without)
    config = engine.client.get(f"/containers/{changed}/json")["Config"]["Healthcheck"]
    assert config == {"Test": ["CMD", "echo", "from the image"], "Interval": 100 * MS, "Retries": 2}
    for each in (container, checked, changed, without):
        engine.remove(each)
    engine.client.delete("/images/cortest-checked")


def test_probes_leave_nothing_behind(own_engine):
    engine = own_engine
    container = made(engine, ["CMD", "true"], Interval=20 * MS)
    until(lambda: len(health(engine, container)["Log"]) == 5)

    def counts() -> list[int]:
        return [len(os.listdir(f"/proc/{engine.process.pid}/fd")), len(os.listdir(f"{engine.exec_root}/containers/{container}"))]

    before = counts()
    last = health(engine, container)["Log"][-1]["Start"]
    until(lambda: health(engine, container)["Log"][0]["Start"] > last)
    engine.client.post(f"/containers/{container}/pause")
    until(lambda: counts() <= [before[0] + 2, before[1]])
    assert "never retrieved" not in engine.log()
    assert "Traceback" not in engine.log() + engine.monitor_log()


def test_a_container_ends_whatever_its_probe_is_doing(own_engine):
    """A child that is killed half way to its program has to be reaped, or the container's first process never ends."""
    engine = own_engine
    for number in range(25):
        container = made(engine, ["CMD", "true"], Interval=5 * MS)
        until(lambda c=container: health(engine, c)["Log"])
        time.sleep(number / 500)
        engine.client.post(f"/containers/{container}/pause")
        engine.remove(container)
    assert "Traceback" not in engine.log() + engine.monitor_log()
