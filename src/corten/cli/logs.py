"""`corten logs`: what a container has written, in its own streams. Flags and rendering only."""

from __future__ import annotations

import sys

import click

from corten.cli.main import Session
from corten.cli.streams import write_frames


@click.command()
@click.argument("container")
@click.option("-f", "--follow", is_flag=True, help="Go on as it is written")
@click.option("-n", "--tail", default="all", help="Number of lines from the end")
@click.option("-t", "--timestamps", is_flag=True, help="Show the time of each line")
@click.option("--since", default="", help="RFC 3339, Unix seconds, or 10m")
@click.option("--until", default="", help="RFC 3339, Unix seconds, or 10m")
@click.option("--details", is_flag=True, help="Show the attributes that the log options pick")
@click.pass_obj
def command(session: Session, container: str, follow: bool, tail: str, timestamps: bool, since: str, until: str, details: bool) -> None:
    """Fetch the logs of a container."""
    client = session.client()
    terminal = client.get(f"/containers/{container}/json")["Config"]["Tty"]
    query = {"stdout": 1, "stderr": 1, "follow": int(follow), "tail": tail, "timestamps": int(timestamps), "since": since, "until": until, "details": int(details)}
    with client.open("GET", f"/containers/{container}/logs", query=query) as response:
        if not terminal:
            write_frames(response.read1 if follow else response.read)
            return
        while data := response.read1():
            sys.stdout.buffer.write(data)
            sys.stdout.flush()
