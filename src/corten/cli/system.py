"""`corten system`: the engine and this machine. Flags and rendering only."""

from __future__ import annotations

import click

from corten.cli.main import Session


@click.group()
def command() -> None:
    """Look after the engine."""


@command.command()
@click.pass_obj
def teardown(session: Session) -> None:
    """Take away what the engine has made of this host's network: its links, its table of rules, sysctls that it set.

    No container may run. Networks stay known, and are made again when a container needs them.
    """
    done = session.client().post("/corten/system/teardown")
    for link in done["Links"]:
        print(f"removed link {link}")
    print(f"removed table {done['Table']}")
    for name, value in done["Sysctls"].items():
        print(f"set {name} back to {value}")
