"""`corten system`: the engine's disk (what it holds, the collector, fsck) and this machine. Flags and rendering only."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import Any

import click

from corten.cli import tables
from corten.cli.main import Session


def _ago(moment: str) -> str:
    return tables.ago(int(datetime.fromisoformat(moment[:19] + "+00:00").timestamp())) if not moment.startswith("0001") else ""


def _what(row: dict) -> str:  # type: ignore[type-arg]
    return ", ".join(row["Names"]) or tables.short_id(row["Id"])


@click.group()
def command() -> None:
    """Look after the engine."""


@command.command()
@click.option("--layers", is_flag=True, help="A row a layer, with whoever holds it")
@click.pass_obj
def df(session: Session, layers: bool) -> None:
    """Show what is on the disk, what holds it there, and what would go next."""
    found = session.client().get("/corten/disk")
    disk, collector = found["FileSystem"], found["Collector"]
    if layers:
        held = [(tables.short_id(row["DiffID"]), tables.size(row["Size"]),
                 ", ".join(f"{holder['Kind']} {tables.short_id(holder['Id'])}" for holder in row["Holders"])) for row in found["Layers"]]  # fmt: skip
        print(tables.table(("LAYER", "SIZE", "HELD BY"), held))
        return
    ordered = sorted(found["Rows"], key=lambda row: (row["Next"] == 0, row["Next"]))
    rows = [(str(row["Next"] or ""), row["Kind"], _what(row), tables.size(row["Size"]), tables.size(row["Unique"]), _ago(row["LastUsed"]), row["Kept"])
            for row in ordered]  # fmt: skip
    print(tables.table(("NEXT", "KIND", "WHAT", "SIZE", "UNIQUE", "LAST USED", "KEPT"), rows))
    print(f"\nThe store takes {tables.size(disk['Store'])}; of the file system {tables.size(disk['Used'])} of {tables.size(disk['Total'])} are used.")
    if collector["Automatic"]:
        kinds = [f"{kind} (unused for {collector['UnusedFor'][kind]})" if kind in collector["UnusedFor"] else kind for kind in collector["Kinds"]]
        print(f"Above {collector['High']} the collector takes {', '.join(kinds)} until {collector['Low']}.")
    else:
        print("Nothing is collected by itself (daemon.json: corten.gc).")


@command.command()
@click.option("--dry-run", is_flag=True, help="Say what would go, and let it be")
@click.option("--free", default="", help="Bytes to be had more (2GB), or how full the disk may be (70%); else the low watermark")
@click.option("--kinds", default="", help="Of what, in place of what daemon.json says: leftovers,logs,build-cache,containers,volumes,dangling,images")
@click.pass_obj
def gc(session: Session, dry_run: bool, free: str, kinds: str) -> None:
    """Collect what nothing uses, least recently used first."""
    given = {key: value for key, value in (("free", free), ("kinds", kinds)) if value}
    found = session.client().post("/corten/disk/collect", dryRun=int(dry_run), **given)
    rows = [(row["Kind"], _what(row), tables.size(row["Frees"]), _ago(row["LastUsed"])) for row in found["Steps"]]
    if rows:
        print(tables.table(("KIND", "WHAT", "FREES", "LAST USED"), rows))
    print(f"{'Collected' if found['Done'] else 'Would collect'} {tables.size(found['Freed'])}")


@command.command()
@click.option("--repair", is_flag=True, help="Fetch or unpack again what is broken")
@click.pass_obj
def fsck(session: Session, repair: bool) -> None:
    """Hold everything in the store against its digest. Exit code 1 if something is broken and was not repaired."""
    found: dict[str, Any] = {}
    for message in session.client().messages("/corten/disk/check", repair=int(repair), progress=1):
        found = message.get("aux") or found
        if sys.stderr.isatty() and "aux" not in message:
            done = message.get("progressDetail") or {}
            share = f" {100 * done['current'] // done['total']} %" if done.get("total") else ""
            print(f"\r\033[K{message['status']} {message.get('id', '')}{share}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)
    for row in found["Problems"]:
        images = ", ".join(tables.short_id(image) for image in row["Images"])
        print(f"{row['Kind']} {row['Id']}: {row['Problem']}" + (f" (images {images})" if images else "") + (f": {row['How']}" if row["How"] else ""))
    print(f"{found['Blobs']} blobs and {found['Layers']} layers checked, {len(found['Problems'])} broken")
    if not all(row["Repaired"] for row in found["Problems"]):
        raise SystemExit(1)


@command.command()
@click.argument("image")
@click.pass_obj
def pin(session: Session, image: str) -> None:
    """Never collect an image."""
    session.client().post(f"/corten/images/{image}/pin", pinned=1)


@command.command()
@click.argument("image")
@click.pass_obj
def unpin(session: Session, image: str) -> None:
    """Let an image be collected again."""
    session.client().post(f"/corten/images/{image}/pin", pinned=0)


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
