"""`corten images`: one row a name of an image. Flags and rendering only."""

from __future__ import annotations

import click

from corten.cli import tables
from corten.cli.main import Session


@click.command()
@click.option("-q", "--quiet", is_flag=True, help="Only ids")
@click.pass_obj
def command(session: Session, quiet: bool) -> None:
    """List images."""
    rows: list[tuple[str, ...]] = []
    for image in session.client().get("/images/json"):
        for name in image["RepoTags"] or ["<none>:<none>"]:
            repository, _, tag = name.rpartition(":")
            rows.append((repository, tag, tables.short_id(image["Id"]), tables.ago(image["Created"]), tables.size(image["Size"])))
    if quiet:
        print("\n".join(dict.fromkeys(row[2] for row in rows)))
    else:
        print(tables.table(("REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"), rows))
