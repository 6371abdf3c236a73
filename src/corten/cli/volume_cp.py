"""`corten volume cp`: one path between a volume and this host, without a container. Flags and rendering only."""

from __future__ import annotations

import os
import posixpath
import tempfile

import click

from corten.api.client import ApiError, Client
from corten.cli import host_files
from corten.cli.main import Session
from corten.errors import NotFound

_SPOOL = 64 << 20  # what is copied is kept in memory up to this size, then in a file


@click.command()
@click.argument("source", metavar="VOLUME:PATH|PATH")
@click.argument("target", metavar="PATH|VOLUME:PATH")
@click.pass_obj
def cp(session: Session, source: str, target: str) -> None:
    """Copy a file or folder into or out of a volume. FOLDER/. is what is in it; a target that is a folder gets it inside."""
    here, there = _volume_path(source), _volume_path(target)
    if bool(here) == bool(there):
        raise click.UsageError("one of the two is VOLUME:PATH, the other a path of this host (./a:b for one with a colon)")
    if there:
        _copy_in(session.client(), source, *there)
    elif here:
        _copy_out(session.client(), *here, target)


def _volume_path(text: str) -> tuple[str, str] | None:
    """(volume, path); None for a path of this host, as `docker cp` tells them apart."""
    volume, colon, path = text.partition(":")
    return (volume, path or "/") if colon and not volume.startswith((".", "/")) else None


def _is_folder(client: Client, volume: str, path: str) -> bool:
    try:
        client.open("HEAD", f"/corten/volumes/{volume}/archive", query={"path": posixpath.join(path, ".")}).close()
    except ApiError as error:
        if error.http_status == 404:
            client.get(f"/volumes/{volume}")  # the volume is there: its path is not, or is a file
        elif error.http_status != 500:
            raise
        return False
    return True


def _copy_in(client: Client, source: str, volume: str, path: str) -> None:
    inside = source.endswith("/.") or source == "."
    base = os.path.basename(os.path.abspath(source))
    if not _is_folder(client, volume, path):
        path, base, inside = posixpath.dirname(path.rstrip("/")) or "/", posixpath.basename(path.rstrip("/")), False
    with tempfile.SpooledTemporaryFile(_SPOOL) as file:
        host_files.write_tar(source, "." if inside and os.path.isdir(source) else base, file)
        file.seek(0)
        headers = {"Content-Type": "application/x-tar"}
        client.open("PUT", f"/corten/volumes/{volume}/archive", query={"path": path}, body=file, headers=headers).close()


def _copy_out(client: Client, volume: str, path: str, target: str) -> None:
    folder, name = (target, "") if os.path.isdir(target) else os.path.split(os.path.abspath(target))
    if not os.path.isdir(folder):
        raise NotFound(f"{folder}: no such directory")
    with client.open("GET", f"/corten/volumes/{volume}/archive", query={"path": path}) as response:
        host_files.read_tar(response, folder, posixpath.basename(path.rstrip("/")), name)
