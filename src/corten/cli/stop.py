"""`corten stop`: ask containers to end, then make them. Flags and rendering only."""

from __future__ import annotations

import click

from corten.cli.main import Session


@click.command()
@click.argument("containers", nargs=-1, required=True)
@click.option("-t", "--time", "seconds", type=int, help="Seconds to wait before killing")
@click.option("-s", "--signal", default="", help="Signal to send first")
@click.pass_obj
def command(session: Session, containers: tuple[str, ...], seconds: int | None, signal: str) -> None:
    """Stop one or more running containers."""
    client = session.client()
    query = ({} if seconds is None else {"t": seconds}) | ({"signal": signal} if signal else {})
    for container in containers:
        client.post(f"/containers/{container}/stop", **query)
        print(container)
