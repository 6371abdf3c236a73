"""`corten run`: flags to a create request, then attach, start, wait."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import click

from corten.api.client import ApiError, Client
from corten.cli.main import Session
from corten.cli.pull import pull_image
from corten.cli.sizes import parse_bytes
from corten.cli.streams import relay
from corten.errors import CortenError

_ENGINE_REFUSED, _NOT_EXECUTABLE, _NOT_FOUND = 125, 126, 127


class RunFailed(CortenError):
    """As `docker run`: 125 for the engine's refusal, 126 and 127 for a program that cannot be executed."""

    def __init__(self, text: str, cli_exit_code: int) -> None:
        super().__init__(text)
        self.cli_exit_code = cli_exit_code


def parse_publish(text: str) -> tuple[str, dict[str, str]]:
    """`[[IP:]HOST:]CONTAINER[/PROTO]` -> (container port, binding)."""
    address, _, protocol = text.partition("/")
    *front, container = address.rsplit(":", 2)
    host_ip, host_port = ("", front[0]) if len(front) == 1 else (front[0], front[1]) if front else ("", "")
    return f"{container}/{protocol or 'tcp'}", {"HostIp": host_ip, "HostPort": host_port}


def _pairs(values: tuple[str, ...]) -> dict[str, str]:
    return dict(value.partition("=")[::2] for value in values)


# option name -> (HostConfig key, how its value is written)
_HOST_OPTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "rm": ("AutoRemove", bool), "volume": ("Binds", list), "network": ("NetworkMode", str), "memory": ("Memory", parse_bytes),
    "cpus": ("NanoCpus", lambda value: int(value * 1_000_000_000)), "pids_limit": ("PidsLimit", int), "init": ("Init", bool),
    "read_only": ("ReadonlyRootfs", bool), "privileged": ("Privileged", bool), "cap_add": ("CapAdd", list), "cap_drop": ("CapDrop", list),
    "security_opt": ("SecurityOpt", list), "tmpfs": ("Tmpfs", lambda values: dict(value.partition(":")[::2] for value in values)),
    "add_host": ("ExtraHosts", list), "dns": ("Dns", list), "pid": ("PidMode", str), "ipc": ("IpcMode", str), "uts": ("UTSMode", str),
    "sysctl": ("Sysctls", _pairs), "shm_size": ("ShmSize", parse_bytes), "publish_all": ("PublishAllPorts", bool),
    "group_add": ("GroupAdd", list),
}  # fmt: skip
_CONFIG_OPTIONS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "env": ("Env", list), "workdir": ("WorkingDir", str), "user": ("User", str), "hostname": ("Hostname", str),
    "label": ("Labels", _pairs), "stop_signal": ("StopSignal", str), "entrypoint": ("Entrypoint", lambda value: [value]),
}  # fmt: skip


def create_request(image: str, command: tuple[str, ...], options: dict[str, Any]) -> dict[str, Any]:
    """Pure: the body of POST /containers/create."""
    attached = not options["detach"]
    body: dict[str, Any] = {
        "Image": image, "Tty": options["tty"], "OpenStdin": options["interactive"], "StdinOnce": options["interactive"] and attached,
        "AttachStdin": options["interactive"] and attached, "AttachStdout": attached, "AttachStderr": attached,
    }  # fmt: skip
    if command:
        body["Cmd"] = list(command)
    host: dict[str, Any] = {}
    for target, rows in ((host, _HOST_OPTIONS), (body, _CONFIG_OPTIONS)):
        for name, (key, write) in rows.items():
            value = options[name]
            if value not in (None, (), False):
                target[key] = write(value)
    for text in options["publish"]:
        port, binding = parse_publish(text)
        host.setdefault("PortBindings", {}).setdefault(port, []).append(binding)
        body.setdefault("ExposedPorts", {})[port] = {}
    return body | {"HostConfig": host}


def _create(client: Client, name: str, body: dict[str, Any], *, pull: str) -> str:
    if pull == "always":
        pull_image(client, body["Image"], quiet=False)
    try:
        created = client.post("/containers/create", body, **({"name": name} if name else {}))
    except ApiError as error:
        if error.http_status != 404 or pull == "never":
            raise
        print(f"Unable to find image '{body['Image']}' locally", file=sys.stderr)
        pull_image(client, body["Image"], quiet=False)
        created = client.post("/containers/create", body, **({"name": name} if name else {}))
    for warning in created["Warnings"] or []:
        print(f"WARNING: {warning}", file=sys.stderr)
    return str(created["Id"])


def _exit_code(error: ApiError) -> int:
    if "executable file not found" in error.message or "no such file or directory" in error.message:
        return _NOT_FOUND
    return _NOT_EXECUTABLE if "permission denied" in error.message or "is a directory" in error.message else _ENGINE_REFUSED


def run_attached(client: Client, container: str, options: dict[str, Any]) -> int:
    """Attach, start, relay to the end; the exit code."""
    terminal, interactive = options["tty"], options["interactive"]
    sock = client.hijack(f"/containers/{container}/attach", stream=1, stdout=1, stderr=1, **({"stdin": 1} if interactive else {}))
    waiting = client.open("POST", f"/containers/{container}/wait", query={"condition": "removed" if options["rm"] else "next-exit"})
    try:
        client.post(f"/containers/{container}/start")
    except ApiError as error:
        raise RunFailed(error.message, _exit_code(error)) from None
    relay(sock, terminal=terminal, interactive=interactive,
          resize=lambda height, width: client.post(f"/containers/{container}/resize", h=height, w=width))  # fmt: skip
    import msgspec

    return int(msgspec.json.decode(waiting.read())["StatusCode"])


_FLAGS = [
    click.option("-d", "--detach", is_flag=True, help="Run in the background and print the id"),
    click.option("-i", "--interactive", is_flag=True, help="Keep standard input open"),
    click.option("-t", "--tty", is_flag=True, help="Allocate a terminal"),
    click.option("--rm", is_flag=True, help="Remove the container when it ends"),
    click.option("--name", default="", help="Name of the container"),
    click.option("-e", "--env", multiple=True, help="Environment variable NAME=VALUE"),
    click.option("-p", "--publish", multiple=True, help="[[IP:]HOST:]CONTAINER[/PROTO]"),
    click.option("-P", "--publish-all", is_flag=True, help="Publish all exposed ports"),
    click.option("-v", "--volume", multiple=True, help="Bind or volume: [/HOST|NAME:]/CONTAINER[:ro]"),
    click.option("--tmpfs", multiple=True, help="tmpfs at PATH[:OPTIONS]"),
    click.option("-w", "--workdir", help="Working directory"),
    click.option("-u", "--user", help="User name or id, with :group"),
    click.option("--group-add", multiple=True, help="Additional group"),
    click.option("--entrypoint", help="Program instead of the image's entrypoint"),
    click.option("-h", "--hostname", help="Host name"),
    click.option("--network", help="bridge, host, none, container:ID"),
    click.option("--add-host", multiple=True, help="NAME:IP for /etc/hosts"),
    click.option("--dns", multiple=True, help="DNS server"),
    click.option("-m", "--memory", help="Memory limit, such as 512m"),
    click.option("--cpus", type=float, help="Number of CPUs"),
    click.option("--pids-limit", type=int, help="Limit of processes"),
    click.option("--shm-size", help="Size of /dev/shm"),
    click.option("--init", is_flag=True, help="Run a reaper as process 1"),
    click.option("--read-only", is_flag=True, help="Read-only root"),
    click.option("--privileged", is_flag=True, help="All that the host has"),
    click.option("--cap-add", multiple=True, help="Add a capability"),
    click.option("--cap-drop", multiple=True, help="Drop a capability"),
    click.option("--security-opt", multiple=True, help="seccomp=..., no-new-privileges"),
    click.option("--sysctl", multiple=True, help="NAME=VALUE"),
    click.option("--pid", help="PID namespace: host, container:ID"),
    click.option("--ipc", help="IPC namespace: host, none, container:ID"),
    click.option("--uts", help="UTS namespace: host"),
    click.option("-l", "--label", multiple=True, help="Label NAME=VALUE"),
    click.option("--stop-signal", help="Signal that stops the container"),
    click.option("--pull", type=click.Choice(["always", "missing", "never"]), default="missing", show_default=True),
]


def _options(function: Any) -> Any:
    for option in reversed(_FLAGS):
        function = option(function)
    return function


@click.command(context_settings={"ignore_unknown_options": False, "allow_interspersed_args": False, "help_option_names": ["--help"]})
@_options
@click.argument("image")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def command(session: Session, /, image: str, arguments: tuple[str, ...], **options: Any) -> None:
    """Create and run a new container from an image."""
    client = session.client()
    body = create_request(image, arguments, options)
    try:
        container = _create(client, options["name"], body, pull=options["pull"])
        if options["detach"]:
            client.post(f"/containers/{container}/start")
            print(container)
            return
        code = run_attached(client, container, options)
    except ApiError as error:
        raise RunFailed(error.message, _exit_code(error)) from None
    raise SystemExit(code)
