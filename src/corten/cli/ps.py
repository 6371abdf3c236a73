"""`corten ps`: one row a container. Flags and rendering only."""

from __future__ import annotations

import click

from corten.cli import tables
from corten.cli.main import Session


def port_text(port: dict[str, object]) -> str:
    inside = f"{port['PrivatePort']}/{port['Type']}"
    return f"{port['IP']}:{port['PublicPort']}->{inside}" if "PublicPort" in port else inside


@click.command()
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that do not run")
@click.option("-q", "--quiet", is_flag=True, help="Only ids")
@click.pass_obj
def command(session: Session, everything: bool, quiet: bool) -> None:
    """List containers."""
    found = session.client().get("/containers/json", all=int(everything))
    if quiet:
        for item in found:
            print(item["Id"][:12])
        return
    rows = [
        (item["Id"][:12], item["Image"], item["Command"], tables.ago(item["Created"]), item["Status"],
         ", ".join(port_text(port) for port in item["Ports"]), ",".join(name.lstrip("/") for name in item["Names"]))
        for item in found
    ]  # fmt: skip
    print(tables.table(("CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"), rows))
