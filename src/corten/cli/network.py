"""`corten network`: what the engine wants of the kernel's network. Flags and rendering only."""

from __future__ import annotations

import click

from corten.cli.main import Session


@click.group()
def command() -> None:
    """Look at networks."""


@command.command()
@click.pass_obj
def plan(session: Session) -> None:
    """Print the bridges and the table of rules that there should be, as `nft list table` shows it."""
    with session.client().open("GET", "/corten/networks/plan") as response:
        print(response.read().decode(), end="")
