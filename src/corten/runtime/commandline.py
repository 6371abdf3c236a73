"""`corten-runtime`: the OCI runtime command line, as runc and crun have it. Arguments and messages only."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from typing import Any

from corten import __version__
from corten.errors import CortenError, Invalid, KernelRefused
from corten.runtime import interpreter, oci_queries
from corten.runtime.oci_exec import ExecOptions, exec_process
from corten.runtime.oci_lifecycle import CreateOptions, OciLifecycle
from corten.runtime.oci_state import DEFAULT_ROOT, OciStates
from corten.spec import runtime as oci
from corten.spec.signals import parse_signal
from corten.spec.timestamps import now_ns, rfc3339_nano

# These become a container's first process by forking: they must run from the protected interpreter.
_FORKING = frozenset({"create", "run", "exec"})
Arguments = argparse.Namespace


class _Log:
    """--log FILE in --log-format, and always one line on standard error for an error."""

    def __init__(self, path: str, form: str) -> None:
        self._path, self._form = path, form

    def write(self, level: str, text: str) -> None:
        stamp = rfc3339_nano(now_ns())
        line = json.dumps({"level": level, "msg": text, "time": stamp}) if self._form == "json" else f'time="{stamp}" level={level} msg={json.dumps(text)}'
        if self._path:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(line + "\n")
        if level == "error":
            print(f"corten-runtime: {text}", file=sys.stderr)

    def warn(self, text: str) -> None:
        self.write("warning", text)


def _create_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--bundle", default=".")
    parser.add_argument("--pid-file", default="")
    parser.add_argument("--console-socket", default="")
    parser.add_argument("--preserve-fds", type=int, default=0)
    parser.add_argument("--no-pivot", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("id")


def _create_options(arguments: Arguments) -> CreateOptions:
    if arguments.no_pivot:
        raise Invalid("--no-pivot is not supported: a root that is only chrooted can be left")
    return CreateOptions(arguments.bundle, arguments.pid_file, arguments.console_socket, arguments.preserve_fds)


def _run_arguments(parser: argparse.ArgumentParser) -> None:
    _create_arguments(parser)
    parser.add_argument("-d", "--detach", action="store_true")


def _exec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-p", "--process", default="")
    parser.add_argument("--cwd", default="")
    parser.add_argument("-e", "--env", action="append", default=[])
    parser.add_argument("-t", "--tty", action="store_true")
    parser.add_argument("-u", "--user", default="")
    parser.add_argument("-g", "--additional-gids", action="append", type=int, default=[])
    parser.add_argument("-c", "--cap", action="append", default=[])
    parser.add_argument("--no-new-privs", action="store_true")
    parser.add_argument("-d", "--detach", action="store_true")
    parser.add_argument("--pid-file", default="")
    parser.add_argument("--console-socket", default="")
    parser.add_argument("--preserve-fds", type=int, default=0)
    parser.add_argument("--ignore-paused", action="store_true")
    parser.add_argument("id")
    parser.add_argument("command", nargs=argparse.REMAINDER)


def _exec(states: OciStates, arguments: Arguments, log: _Log) -> int:
    command = arguments.command[1:] if arguments.command[:1] == ["--"] else arguments.command
    options = ExecOptions(
        arguments.process, command, arguments.cwd, arguments.env, arguments.tty, arguments.user, arguments.additional_gids,
        arguments.cap, arguments.no_new_privs, arguments.detach, arguments.pid_file, arguments.console_socket,
        arguments.preserve_fds, arguments.ignore_paused,
    )  # fmt: skip
    return exec_process(states, arguments.id, options, log.warn)


def _update_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-r", "--resources", default="")
    for flag in ("memory", "memory-reservation", "memory-swap", "pids-limit", "cpu-share", "cpu-quota", "cpu-period", "blkio-weight"):
        parser.add_argument(f"--{flag}", type=int, default=None)
    parser.add_argument("--cpuset-cpus", default="")
    parser.add_argument("--cpuset-mems", default="")
    parser.add_argument("id")


def _update(states: OciStates, arguments: Arguments) -> None:
    if arguments.resources:
        resources = oci_queries.parse_resources(arguments.resources)
    else:
        resources = oci.Resources(
            memory=oci.Memory(arguments.memory, arguments.memory_reservation, arguments.memory_swap),
            cpu=oci.Cpu(shares=arguments.cpu_share, quota=arguments.cpu_quota, period=arguments.cpu_period,
                        cpus=arguments.cpuset_cpus, mems=arguments.cpuset_mems),
            pids=oci.Pids(arguments.pids_limit) if arguments.pids_limit else None,
            block_io=oci.BlockIO(arguments.blkio_weight) if arguments.blkio_weight else None,
        )  # fmt: skip
    oci_queries.update(states, arguments.id, resources)


def _only_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id")


def _kill_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-a", "--all", action="store_true")
    parser.add_argument("id")
    parser.add_argument("signal", nargs="?", default="SIGTERM")


def _delete_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true")
    parser.add_argument("id")


def _list_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--format", choices=("table", "json"), default="table")
    parser.add_argument("-q", "--quiet", action="store_true")


def _ps_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-f", "--format", choices=("table", "json"), default="table")
    parser.add_argument("id")
    parser.add_argument("arguments", nargs=argparse.REMAINDER)


def _spec_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-b", "--bundle", default=".")


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    """Features takes none."""


Command = tuple[Callable[[argparse.ArgumentParser], None], Callable[[OciStates, Arguments, _Log], Any], str]
COMMANDS: dict[str, Command] = {
    "create": (_create_arguments, lambda s, a, log: OciLifecycle(s, log.warn).create(a.id, _create_options(a)) and 0, "create a container from a bundle"),
    "start": (_only_id, lambda s, a, log: OciLifecycle(s, log.warn).start(a.id), "run the program of a created container"),
    "run": (_run_arguments, lambda s, a, log: OciLifecycle(s, log.warn).run(a.id, _create_options(a), detach=a.detach), "create and start"),
    "state": (_only_id, lambda s, a, _log: oci_queries.show_state(s, a.id), "print a container's state"),
    "kill": (_kill_arguments, lambda s, a, log: OciLifecycle(s, log.warn).kill(a.id, parse_signal(a.signal), everything=a.all), "send a signal"),
    "delete": (_delete_arguments, lambda s, a, log: OciLifecycle(s, log.warn).delete(a.id, force=a.force), "delete a stopped container"),
    "exec": (_exec_arguments, _exec, "run one more process in a container"),
    "list": (_list_arguments, lambda s, a, _log: oci_queries.show_list(s, form=a.format, quiet=a.quiet), "list the containers"),
    "ps": (_ps_arguments, lambda s, a, _log: oci_queries.show_processes(s, a.id, form=a.format, arguments=a.arguments), "list a container's processes"),
    "pause": (_only_id, lambda s, a, _log: oci_queries.set_frozen(s, a.id, frozen=True), "freeze a container"),
    "resume": (_only_id, lambda s, a, _log: oci_queries.set_frozen(s, a.id, frozen=False), "thaw a container"),
    "update": (_update_arguments, lambda s, a, _log: _update(s, a), "change a container's limits"),
    "features": (_no_arguments, lambda _s, _a, _log: print(json.dumps(oci_queries.features(), indent=2)), "print what this runtime can do"),
    "spec": (_spec_arguments, lambda _s, a, _log: oci_queries.write_spec(a.bundle), "write a config.json to start from"),
}  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("corten-runtime", description="An OCI runtime: the container runtime of Corten.")
    parser.add_argument("-v", "--version", action="version", version=f"corten-runtime version {__version__}\nspec: {oci.OCI_VERSION}")
    parser.add_argument("--root", default=DEFAULT_ROOT)
    parser.add_argument("--log", default="")
    parser.add_argument("--log-format", choices=("text", "json"), default="text")
    parser.add_argument("--debug", action="store_true", help="accepted for other engines; there is nothing more to say")
    parser.add_argument("--systemd-cgroup", action="store_true", help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="verb", required=True, metavar="COMMAND")
    for name, (add, _, text) in COMMANDS.items():
        add(commands.add_parser(name, help=text))
    return parser


def main() -> None:
    """Console script."""
    arguments = _parser().parse_args()
    log = _Log(arguments.log, arguments.log_format)
    try:
        if arguments.systemd_cgroup:
            raise Invalid("--systemd-cgroup is not supported: corten-runtime has the cgroupfs manager")
        if os.geteuid() != 0:
            raise Invalid("corten-runtime needs root for now (docs/compat.md)")
        if arguments.verb in _FORKING:
            interpreter.re_execute_protected(["-m", "corten.runtime.commandline", *sys.argv[1:]])
            interpreter.make_undumpable()
        code = COMMANDS[arguments.verb][1](OciStates(arguments.root), arguments, log)
    except CortenError as error:
        log.write("error", error.message)
        raise SystemExit(1) from None
    except OSError as error:
        refused = KernelRefused(operation=arguments.verb, operand=str(error.filename or ""), errno=error.errno or 0, reason=error.strerror or str(error))
        log.write("error", refused.message)
        raise SystemExit(1) from None
    raise SystemExit(code or 0)


if __name__ == "__main__":
    main()
