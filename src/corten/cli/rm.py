"""`corten rm`: remove containers. Flags and rendering only."""

from __future__ import annotations

import click

from corten.cli.main import Session


@click.command()
@click.argument("containers", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also running ones: they are killed")
@click.pass_obj
def command(session: Session, containers: tuple[str, ...], force: bool) -> None:
    """Remove one or more containers."""
    client = session.client()
    for container in containers:
        client.delete(f"/containers/{container}", force=int(force))
        print(container)
