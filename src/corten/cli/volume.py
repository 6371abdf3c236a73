"""`corten volume`: what Corten has with volumes beside Docker's own commands. Flags and rendering only."""

from __future__ import annotations

import shutil
from typing import BinaryIO

import click

from corten.cli import tables
from corten.cli.credentials import registry_headers
from corten.cli.main import Session
from corten.cli.messages import print_messages
from corten.cli.volume_cp import cp


@click.group()
def command() -> None:
    """Rename, clone, snapshot, copy and move volumes."""


command.add_command(cp)


@command.command()
@click.argument("volume")
@click.argument("new")
@click.pass_obj
def rename(session: Session, volume: str, new: str) -> None:
    """Give a volume another name; containers follow."""
    session.client().post(f"/corten/volumes/{volume}/rename", name=new)
    print(new)


@command.command()
@click.argument("volume")
@click.argument("new")
@click.pass_obj
def clone(session: Session, volume: str, new: str) -> None:
    """Make a new volume with the content and the labels of another."""
    print(print_messages(session.client().messages(f"/corten/volumes/{volume}/clone", name=new, progress=1))["Name"])


@command.command()
@click.argument("volume")
@click.option("--name", default="", help="Of the snapshot; without it VOLUME and the time")
@click.option("--keep", type=click.IntRange(0), default=0, help="Remove all but the newest N snapshots that nobody uses")
@click.pass_obj
def snapshot(session: Session, volume: str, name: str, keep: int) -> None:
    """Clone a volume as a snapshot of it."""
    found = session.client().messages(f"/corten/volumes/{volume}/snapshot", name=name, keep=keep, progress=1)
    print(print_messages(found)["Name"])


@command.command()
@click.argument("volume")
@click.option("-o", "--output", type=click.File("wb", lazy=True), default="-", help="File to write; without it standard output")
@click.pass_obj
def save(session: Session, volume: str, output: BinaryIO) -> None:
    """Write a volume's content as a tar."""
    if output.isatty():
        raise click.UsageError("a tar on a terminal helps nobody: use -o FILE or redirect")
    with session.client().open("GET", f"/corten/volumes/{volume}/tar") as response:
        shutil.copyfileobj(response, output)


@command.command()
@click.argument("new")
@click.option("-i", "--input", "source", type=click.File("rb"), default="-", help="File to read; without it standard input")
@click.pass_obj
def load(session: Session, new: str, source: BinaryIO) -> None:
    """Make a new volume from a tar, packed or not."""
    headers = {"Content-Type": "application/x-tar"}
    session.client().open("POST", "/corten/volumes/load", query={"name": new}, body=source, headers=headers).close()
    print(new)


@command.command()
@click.argument("volume")
@click.argument("reference")
@click.pass_obj
def push(session: Session, volume: str, reference: str) -> None:
    """Send a volume to a registry, as an OCI artifact."""
    path = f"/corten/volumes/{volume}/push"
    sent = print_messages(session.client().messages(path, headers=registry_headers(reference), reference=reference))
    print(f"{reference}@{sent['Digest']}")


@command.command()
@click.argument("reference")
@click.argument("new")
@click.pass_obj
def pull(session: Session, reference: str, new: str) -> None:
    """Make a new volume of what a registry has."""
    found = session.client().messages("/corten/volumes/pull", headers=registry_headers(reference), reference=reference, name=new)
    print(print_messages(found)["Name"])


@command.command()
@click.argument("volume")
@click.pass_obj
def history(session: Session, volume: str) -> None:
    """Show which containers have used a volume, and how it has grown."""
    found = session.client().get(f"/corten/volumes/{volume}/history")
    rows = [(use["Name"].lstrip("/"), tables.short_id(use["Image"]), use["Destination"], "rw" if use["RW"] else "ro", use["From"], use["To"] or "now") for use in found["Uses"]]
    print(tables.table(("CONTAINER", "IMAGE", "DESTINATION", "MODE", "FROM", "TO"), rows))
    print("\n" + tables.table(("MEASURED", "SIZE"), [(size["At"], tables.size(size["Size"])) for size in found["Sizes"]]))
