"""`corten network`: what the engine wants of the kernel's network, and what there is. Flags and rendering only."""

from __future__ import annotations

import json

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


@command.command()
@click.option("--map", "as_map", is_flag=True, help="Networks, containers, ports and rules, as data for a picture; of all without a name")
@click.argument("names", metavar="[NETWORK]...", nargs=-1)
@click.pass_obj
def inspect(session: Session, names: tuple[str, ...], *, as_map: bool) -> None:
    """Print all about one or more networks, as JSON."""
    if as_map:
        shown = session.client().get("/corten/networks/map", **({"network": list(names)} if names else {}))
    elif names:
        shown = [session.client().get(f"/networks/{name}") for name in names]
    else:
        raise click.UsageError("name a network, or ask for the --map of all")
    print(json.dumps(shown, indent=4))


@command.command()
@click.argument("source")
@click.argument("destination", metavar="DESTINATION:PORT[/udp]")
@click.option("--wait", type=int, default=10, show_default=True, help="Seconds to wait for a packet of a source outside")
@click.pass_obj
def trace(session: Session, source: str, destination: str, *, wait: int) -> None:
    """Say where a packet goes, and who drops it. Exit code 1 if it does not arrive.

    SOURCE is a container, `host`, or an address outside: then one is waited for. DESTINATION is a container or an address.
    """
    place, _, protocol = destination.partition("/")
    target, _, port = place.rpartition(":")
    if not target or not port.isdigit():
        raise click.UsageError(f"{destination!r}: want a container or an address, and a port: web:80, [fd00::2]:53/udp")
    asked = {"source": source, "target": target.strip("[]"), "port": port, "protocol": protocol or "tcp", "wait": wait}
    found = session.client().post("/corten/networks/trace", **asked)
    for step in found["Steps"]:
        print(f"{step['Verdict']:8} {step['Owner']}: {step['Where']}" + (f": {step['Rule']}" if step["Rule"] else ""))
    print(found["Conclusion"])
    if found["Outcome"] not in ("connected", "sent", "seen") or found["DroppedBy"]:
        raise SystemExit(1)
