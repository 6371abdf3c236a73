"""`corten hello`: run Corten's own image, show what the program sees, and how long the start took."""

from __future__ import annotations

import os
import time

import click

from corten.api.client import Client, demultiplex, stop_engine
from corten.cli.main import Session

_ROUNDS = 5


def _life(client: Client, image: str) -> tuple[str, str, float]:
    """(container id, output, milliseconds from the start request to the program's first byte)."""
    container = client.post("/containers/create", {"Image": image, "AttachStdout": True, "AttachStderr": True})["Id"]
    try:
        sock = client.hijack(f"/containers/{container}/attach", stream=1, stdout=1, stderr=1)
        begin = time.perf_counter()
        client.post(f"/containers/{container}/start")
        frames = demultiplex(sock.recv)
        first = next(frames, (1, b""))[1]
        elapsed = (time.perf_counter() - begin) * 1000
        output = first + b"".join(data for _, data in frames)
        sock.close()
    finally:
        client.delete(f"/containers/{container}", force=1)
    return container, output.decode(), elapsed


def _facts(output: str) -> dict[str, str]:
    rows = (line.partition(":") for line in output.splitlines()[1:])
    return {key.strip(): value.strip() for key, _, value in rows}


def explain(container: str, output: str) -> list[str]:
    """Pure: the proof in plain words, from what the program printed and what the host knows."""
    facts = _facts(output)
    host_links = sorted(os.listdir("/sys/class/net"))
    return [
        f"Its process id is {facts.get('its process id')}: it sees only its own processes; this command is {os.getpid()} on the host.",
        f"Its host name is {facts.get('its host name')}: the first twelve digits of its id {container[:16]}...; the host is {os.uname().nodename}.",
        f"Its root holds {facts.get('all of its root')}: the image has one file, the rest is made for each container; nothing of the host's root is there.",
        f"Its network has {facts.get('its network links')}: links of its own; the host has {' '.join(host_links)}.",
    ]


@click.command()
@click.pass_obj
def command(session: Session) -> None:
    """Run Corten's own little image and show what it sees."""
    client = session.client()
    try:
        image = client.post("/corten/hello")["Name"]
        container, output, elapsed = _life(client, image)
        print(output)
        for line in explain(container, output):
            print(line)
        again = sorted(_life(client, image)[2] for _ in range(_ROUNDS))
        print(f"\nIt took {elapsed:.1f} ms from the start request to the program's first byte (median of {_ROUNDS} more: {again[_ROUNDS // 2]:.1f} ms).")
    finally:
        if session.started_here:
            stop_engine(session.socket_path)
