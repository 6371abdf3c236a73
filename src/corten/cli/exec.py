"""`corten exec`: flags to an exec, its streams on this terminal, its exit code as our own. Flags and rendering only."""

from __future__ import annotations

from typing import Any

import click

from corten.cli.main import Session
from corten.cli.streams import relay


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Run in the background")
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open")
@click.option("-t", "--tty", is_flag=True, help="Allocate a terminal")
@click.option("-e", "--env", multiple=True, help="Environment variable NAME=VALUE")
@click.option("-w", "--workdir", default="", help="Working directory")
@click.option("-u", "--user", default="", help="User name or id")
@click.option("--privileged", is_flag=True, help="All capabilities")
@click.argument("container")
@click.argument("arguments", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_obj
def command(session: Session, /, container: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Execute a command in a running container."""
    client = session.client()
    attached = not options["detach"]
    body = {
        "Cmd": list(arguments), "Tty": options["tty"], "AttachStdin": options["interactive"] and attached, "AttachStdout": attached,
        "AttachStderr": attached, "Env": list(options["env"]), "WorkingDir": options["workdir"], "User": options["user"],
        "Privileged": options["privileged"],
    }  # fmt: skip
    exec_id = client.post(f"/containers/{container}/exec", body)["Id"]
    if options["detach"]:
        client.post(f"/exec/{exec_id}/start", {"Detach": True})
        return
    sock = client.hijack(f"/exec/{exec_id}/start", {"Tty": options["tty"]})
    relay(sock, terminal=options["tty"], interactive=options["interactive"],
          resize=lambda height, width: client.post(f"/exec/{exec_id}/resize", h=height, w=width))  # fmt: skip
    raise SystemExit(client.get(f"/exec/{exec_id}/json")["ExitCode"] or 0)
