"""`corten version`: client and engine, side by side. Flags and rendering only."""

from __future__ import annotations

import platform

import click

from corten import __version__
from corten.cli.main import Session


@click.command()
@click.pass_obj
def command(session: Session) -> None:
    """Show the versions of client and engine."""
    engine = session.client().get("/version")
    own = next((part["Version"] for part in engine["Components"] if part["Name"] == "corten"), "another engine")
    print(f"Client: corten {__version__}, Python {platform.python_version()}")
    print(f"Engine: corten {own}, Docker API {engine['ApiVersion']} (from {engine['MinAPIVersion']}), kernel {engine['KernelVersion']}")
