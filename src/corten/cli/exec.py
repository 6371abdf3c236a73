"""`corten exec`: flags to an exec, its streams on this terminal, its exit code as our own. Flags and rendering only."""

from __future__ import annotations

from typing import Any

import click

from corten.api.client import Client
from corten.cli.main import Session
from corten.cli.run import run_attached
from corten.cli.streams import relay


@click.command(context_settings={"allow_interspersed_args": False})
@click.option("-d", "--detach", is_flag=True, help="Run in the background")
@click.option("-i", "--interactive", is_flag=True, help="Keep standard input open")
@click.option("-t", "--tty", is_flag=True, help="Allocate a terminal")
@click.option("-e", "--env", multiple=True, help="Environment variable NAME=VALUE")
@click.option("-w", "--workdir", default="", help="Working directory")
@click.option("-u", "--user", default="", help="User name or id")
@click.option("--privileged", is_flag=True, help="All capabilities")
@click.option("--tools", metavar="IMAGE", default="", help="Take the programs from this image; the container's root is at /target. Works without a shell in the container, and on a stopped one")
@click.argument("container")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(session: Session, /, container: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Execute a command in a running container."""
    if not arguments and not options["tools"]:
        raise click.UsageError("Missing argument 'ARGUMENTS...'.")
    client = session.client()
    attached = not options["detach"]
    body = {
        "Cmd": list(arguments), "Tty": options["tty"], "AttachStdin": options["interactive"] and attached, "AttachStdout": attached,
        "AttachStderr": attached, "Env": list(options["env"]), "WorkingDir": options["workdir"], "User": options["user"],
        "Privileged": options["privileged"],
    }  # fmt: skip
    if options["tools"]:
        entered = client.post(f"/corten/containers/{container}/tools", body | {"Image": options["tools"]})
        if entered["ContainerId"]:
            raise SystemExit(_run_helper(client, entered["ContainerId"], options))
        exec_id = entered["ExecId"]
    else:
        exec_id = client.post(f"/containers/{container}/exec", body)["Id"]
    if options["detach"]:
        client.post(f"/exec/{exec_id}/start", {"Detach": True})
        return
    sock = client.hijack(f"/exec/{exec_id}/start", {"Tty": options["tty"]})
    relay(sock, terminal=options["tty"], interactive=options["interactive"],
          resize=lambda height, width: client.post(f"/exec/{exec_id}/resize", h=height, w=width))  # fmt: skip
    raise SystemExit(client.get(f"/exec/{exec_id}/json")["ExitCode"] or 0)


def _run_helper(client: Client, helper: str, options: dict[str, Any]) -> int:
    """The container does not run: the tools look at it from a container of their own, which is removed at its end."""
    if options["detach"]:
        client.post(f"/containers/{helper}/start")
        return 0
    return run_attached(client, helper, {"rm": True, **options})
