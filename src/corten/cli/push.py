"""`corten push`: upload an image, a line for each step. Flags and rendering only."""

from __future__ import annotations

from typing import Any

import click

from corten.cli.credentials import registry_headers
from corten.cli.main import Session
from corten.cli.messages import print_messages
from corten.spec.reference import parse_reference


@click.command()
@click.argument("image")
@click.option("-a", "--all-tags", is_flag=True, help="Every tag of the repository")
@click.option("-q", "--quiet", is_flag=True, help="Say nothing but the name")
@click.pass_obj
def command(session: Session, image: str, all_tags: bool, quiet: bool) -> None:
    """Upload an image to a registry."""
    reference = parse_reference(image)
    if all_tags and reference.tag:
        raise click.UsageError("tag can't be used with --all-tags/-a")
    tag: dict[str, Any] = {} if all_tags else {"tag": reference.with_default_tag().tag}
    path = f"/images/{reference.familiar_name}/push"
    print_messages(session.client().messages(path, headers=registry_headers(image), **tag), quiet=quiet)
    print(image)
