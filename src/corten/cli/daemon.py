"""`corten daemon status`: whether an engine answers, without starting one."""

from __future__ import annotations

import click

from corten.api.client import Client
from corten.cli.main import Session
from corten.errors import Unavailable


@click.group()
def command() -> None:
    """Look at the engine."""


@command.command()
@click.pass_obj
def status(session: Session) -> None:
    """Say whether an engine answers, and what it holds. Exit code 1 if none does."""
    client = Client(session.socket_path)
    try:
        info = client.get("/info")
    except Unavailable:
        print(f"no engine answers at {session.socket_path}; the next command starts one")
        raise SystemExit(1) from None
    print(f"engine     {info['ID']} at {session.socket_path}")
    print(f"data root  {info['DockerRootDir']}")
    print(f"containers {info['Containers']} ({info['ContainersRunning']} running, {info['ContainersPaused']} paused)")
    print(f"images     {info['Images']}")
