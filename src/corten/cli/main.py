"""`corten`: the command line. Commands are files of this package, imported when they are used."""

from __future__ import annotations

import importlib
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from corten import __version__
from corten.errors import CortenError
from corten.utf8 import speak_utf8

if TYPE_CHECKING:
    from corten.api.client import Client

# command -> (module, help). A group names its commands in its own module.
COMMANDS = {
    "run": ("run", "Create and run a new container from an image"),
    "exec": ("exec", "Execute a command in a running container"),
    "ps": ("ps", "List containers"),
    "logs": ("logs", "Fetch the logs of a container"),
    "stop": ("stop", "Stop one or more running containers"),
    "rm": ("rm", "Remove one or more containers"),
    "pull": ("pull", "Download an image from a registry"),
    "push": ("push", "Upload an image to a registry"),
    "build": ("build", "Build an image from a Dockerfile"),
    "images": ("images", "List images"),
    "rmi": ("rmi", "Remove one or more images"),
    "network": ("network", "Look at networks"),
    "volume": ("volume", "Rename, clone, snapshot, copy and move volumes"),
    "system": ("system", "Look after the engine"),
    "version": ("version", "Show the versions of client and engine"),
    "daemon": ("daemon", "Look at the engine"),
    "hello": ("hello", "Run Corten's own little image and show what it sees"),
}


@dataclass
class Session:
    """Which engine the commands talk to; started on first use if none answers."""

    socket_path: str
    engine_arguments: list[str] = field(default_factory=list)
    started_here: bool = False

    def client(self) -> Client:
        from corten.api.client import Client, start_engine  # not for --version and --help

        client = Client(self.socket_path)
        if not client.answers():
            start_engine(self.socket_path, self.engine_arguments)
            self.started_here = True
        return client


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"corten.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="%(prog)s %(version)s")
@click.option("-H", "--host", envvar=["CORTEN_HOST", "DOCKER_HOST"], help="Engine to talk to: unix://PATH")
@click.option("--data-root", help="Use (and start) an engine of its own with this folder")
@click.pass_context
def corten(ctx: click.Context, host: str | None, data_root: str | None) -> None:
    """Corten: build, ship and run containers."""
    from corten.api.client import DEFAULT_SOCKET, own_engine  # not for --version and --help

    if data_root:
        ctx.obj = Session(*own_engine(data_root))
        return
    if host and not host.startswith("unix://"):
        raise click.UsageError(f"host {host!r}: this client speaks to unix://PATH only")
    ctx.obj = Session(host.removeprefix("unix://") if host else DEFAULT_SOCKET)


def main() -> None:
    """Console script. An error of the engine is one line on standard error and exit code 1 (125 for `run`)."""
    speak_utf8()
    try:
        corten(prog_name="corten", standalone_mode=True)
    except CortenError as error:
        print(f"corten: {error.message}", file=sys.stderr)
        raise SystemExit(getattr(error, "cli_exit_code", 1)) from None


if __name__ == "__main__":
    main()
