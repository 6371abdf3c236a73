"""`corten pull`: download an image, a line for each step. Flags and rendering only."""

from __future__ import annotations

import sys

import click

from corten.api.client import Client
from corten.cli.main import Session


def pull_image(client: Client, image: str, *, quiet: bool) -> None:
    """Pull, with one line a layer's step on standard error."""
    last: dict[str, str] = {}
    for message in client.messages("/images/create", fromImage=image if ":" in image.rsplit("/", 1)[-1] or "@" in image else f"{image}:latest"):
        identifier, status = message.get("id", ""), message.get("status", "")
        if quiet or last.get(identifier) == status:
            continue
        last[identifier] = status
        print(f"{identifier}: {status}" if identifier else status, file=sys.stderr)


@click.command()
@click.argument("image")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the name")
@click.pass_obj
def command(session: Session, image: str, quiet: bool) -> None:
    """Download an image from a registry."""
    pull_image(session.client(), image, quiet=quiet)
    print(image)
