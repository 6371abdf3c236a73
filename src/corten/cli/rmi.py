"""`corten rmi`: remove images and show what went. Flags and rendering only."""

from __future__ import annotations

import click

from corten.cli.main import Session


@click.command()
@click.argument("images", nargs=-1, required=True)
@click.option("-f", "--force", is_flag=True, help="Also if a stopped container uses it")
@click.pass_obj
def command(session: Session, images: tuple[str, ...], force: bool) -> None:
    """Remove one or more images."""
    client = session.client()
    for image in images:
        for row in client.delete(f"/images/{image}", force=int(force)):
            for what, name in row.items():
                print(f"{what}: {name}")
