"""`corten pull`: download an image, a line for each step. Flags and rendering only."""

from __future__ import annotations

import click

from corten.api.client import Client
from corten.cli.credentials import registry_headers
from corten.cli.main import Session
from corten.cli.messages import print_messages


def pull_image(client: Client, image: str, *, quiet: bool) -> None:
    """Pull, as whom `docker login` has made us known to the registry."""
    named = image if ":" in image.rsplit("/", 1)[-1] or "@" in image else f"{image}:latest"
    print_messages(client.messages("/images/create", headers=registry_headers(image), fromImage=named), quiet=quiet)


@click.command()
@click.argument("image")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the name")
@click.pass_obj
def command(session: Session, image: str, quiet: bool) -> None:
    """Download an image from a registry."""
    pull_image(session.client(), image, quiet=quiet)
    print(image)
