"""Sequences of requests whose events are compared: which actions, in which order, with which attributes.

`python -m tests.conformance.sequences` asks the real engine at CORTEN_REFERENCE_SOCKET and writes event_streams.json.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

from corten.api.client import ApiError, Client

RECORDED = os.path.join(os.path.dirname(__file__), "event_streams.json")
NAME = "conf-seq"
Step = tuple[str, ...]
# What is shown by value; of all other attributes, only that they are there.
_SHOWN = ("signal", "exitCode", "oldName", "height", "width", "type")
# Docker itself reports these now before, now after the container's own events around them.
_UNORDERED = ("stop", "unpause", "connect", "disconnect", "exec_die")

SLEEPER: dict[str, Any] = {"Cmd": ["sleep", "600"]}
FAILS: dict[str, Any] = {"Cmd": ["sh", "-c", "exit 3"]}
START, REMOVE = ("POST", "start"), ("DELETE", "?force=1")

# name -> (creation, steps); a step is method and path below the container, or UNTIL and a status, or EXEC and a command
SEQUENCES: dict[str, tuple[dict[str, Any], list[Step]]] = {
    "stop": (SLEEPER, [START, ("POST", "stop?t=0"), REMOVE]),
    "kill": (SLEEPER, [START, ("POST", "kill"), REMOVE]),
    "signal": (SLEEPER, [START, ("POST", "kill?signal=HUP"), REMOVE]),
    "restart": (SLEEPER, [START, ("POST", "restart?t=0"), REMOVE]),
    "restart stopped": (SLEEPER, [("POST", "restart?t=0"), REMOVE]),
    "pause": (SLEEPER, [START, ("POST", "pause"), ("POST", "unpause"), ("POST", "kill"), REMOVE]),
    "stop paused": (SLEEPER, [START, ("POST", "pause"), ("POST", "stop?t=0"), REMOVE]),
    "signal paused": (SLEEPER, [START, ("POST", "pause"), ("POST", "kill?signal=CHLD"), ("UNTIL", "running"), REMOVE]),
    "queries": (SLEEPER | {"Tty": True}, [START, ("GET", "top"), ("POST", "resize?h=3&w=4"), ("POST", "rename?name=conf-seq2"), REMOVE]),
    "update": (SLEEPER, [START, ("POST", "update", '{"CpuShares":512}'), REMOVE]),
    "ends": ({"Cmd": ["true"]}, [START, ("UNTIL", "exited"), REMOVE]),
    "auto remove": ({"Cmd": ["true"], "HostConfig": {"AutoRemove": True}}, [START, ("UNTIL", "gone")]),
    "on failure": (FAILS | {"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 2}}}, [START, ("UNTIL", "exited"), REMOVE]),
    "exec": (SLEEPER, [START, ("EXEC", "true"), ("EXEC", "sh", "-c", "exit 3"), REMOVE]),
    "removed running": (SLEEPER, [START, REMOVE]),
}


class _Recorder:
    def __init__(self, socket_path: str) -> None:
        self.client = Client(socket_path)

    def run(self, creation: dict[str, Any], steps: list[Step]) -> list[dict[str, Any]]:
        since = time.time()
        container = self.client.post("/containers/create", {"Image": "busybox", "Labels": {"conf": "1"}, **creation}, name=NAME)["Id"]
        try:
            for step in steps:
                self._step(container, step)
        finally:
            if self._status(container) != "gone":
                self.client.delete(f"/containers/{container}", force=1)
        return self._events(container, since)

    def _status(self, container: str) -> str:
        try:
            return self.client.get(f"/containers/{container}/json")["State"]["Status"]
        except ApiError:
            return "gone"

    def _step(self, container: str, step: Step) -> None:
        if step[0] == "UNTIL":
            self._until(lambda: self._status(container) == step[1])
            return
        if step[0] == "EXEC":
            exec_id = self.client.post(f"/containers/{container}/exec", {"Cmd": list(step[1:])})["Id"]
            self.client.post(f"/exec/{exec_id}/start", {"Detach": True})
            self._until(lambda: not self.client.get(f"/exec/{exec_id}/json")["Running"])
            return
        path, _, query = step[1].partition("?")
        body = json.loads(step[2]) if len(step) > 2 else None
        parameters = dict(pair.split("=") for pair in query.split("&") if pair)
        self.client.call(step[0], f"/containers/{container}/{path}".rstrip("/"), query=parameters, body=body)

    @staticmethod
    def _until(condition: Any) -> None:
        end = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < end
            time.sleep(0.02)

    def _events(self, container: str, since: float) -> list[dict[str, Any]]:
        def ended() -> bool:
            found[:] = [event for event in self._read(since) if container in (event["Actor"]["ID"], event["Actor"]["Attributes"].get("container"))]
            return any(event["Action"] == "destroy" for event in found)

        found: list[dict[str, Any]] = []
        self._until(ended)
        return [_shown(event) for event in found]

    def _read(self, since: float) -> list[dict[str, Any]]:
        with self.client.open("GET", "/events", query={"since": f"{since:.6f}", "until": f"{time.time():.6f}"}) as response:
            return [json.loads(line) for line in response.read().splitlines()]


def _shown(event: dict[str, Any]) -> dict[str, Any]:
    attributes = event["Actor"]["Attributes"]
    return {"event": f"{event['Type']} {event['Action']}", "attributes": {key: attributes[key] if key in _SHOWN else "" for key in sorted(attributes)}}


def record_stream(socket_path: str, name: str) -> list[dict[str, Any]]:
    return _Recorder(socket_path).run(*SEQUENCES[name])


def ordered(stream: list[dict[str, Any]]) -> list[str]:
    """The events whose order means something."""
    return [event["event"] for event in stream if event["event"].split()[1] not in _UNORDERED]


def counted(stream: list[dict[str, Any]]) -> list[str]:
    return sorted(json.dumps(event, sort_keys=True) for event in stream)


def main() -> None:
    socket_path = os.environ["CORTEN_REFERENCE_SOCKET"]
    with open(RECORDED, "w", encoding="utf-8") as file:
        json.dump({name: record_stream(socket_path, name) for name in SEQUENCES}, file, indent=1, sort_keys=True)
        file.write("\n")
    print(f"recorded the events of {len(SEQUENCES)} sequences", file=sys.stderr)


if __name__ == "__main__":
    main()
