"""`corten build`: a context and flags to a build request, and what the engine says of it. Flags and rendering only."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable
from io import BufferedReader
from typing import IO, Any, cast

import click
import msgspec

from corten.api.client import Client
from corten.cli.build_folder import FolderChanged, SentFolders
from corten.cli.build_private import agents, known_hosts, secrets
from corten.cli.build_results import FLAGS as RESULT_FLAGS
from corten.cli.build_results import Results
from corten.cli.build_stream import QUIET, build_quietly, build_shown
from corten.cli.build_view.view import MODES
from corten.cli.credentials import all_registries_header
from corten.cli.main import Session
from corten.cli.sizes import parse_bytes
from corten.errors import Invalid
from corten.spec.archive_head import BLOCK, is_archive
from corten.spec.build_extras import HEADER, BuildExtras, encode_extras
from corten.spec.context_listing import KEPT, MESSAGE
from corten.spec.git_address import is_over_ssh
from corten.spec.ignore_file import ignore_file_names

_ATTEMPTS = 3
_LAYOUT = "oci-layout://"
_OUTSIDE = ".dockerfile.corten"  # a Dockerfile that is not in the context is sent under this name


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _pairs(values: tuple[str, ...]) -> str:
    """JSON of `NAME=value`; a bare NAME takes its value from the environment, as in docker build, and is left out if it has none there."""
    found = {name: value if equals else os.environ.get(name) for name, equals, value in (each.partition("=") for each in values)}
    return _json({name: value for name, value in found.items() if value is not None})


def _limits(values: tuple[str, ...]) -> str:
    """`nofile=1024:2048` to Docker's JSON."""
    found = []
    for each in values:
        name, _, numbers = each.partition("=")
        soft, _, hard = numbers.partition(":")
        try:
            found.append({"Name": name, "Soft": int(soft), "Hard": int(hard or soft)})
        except ValueError:
            raise click.BadParameter(f"invalid ulimit {each!r}: want NAME=SOFT[:HARD]") from None
    return _json(found)


# option -> (query key, how its value is written)
_QUERY: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "tag": ("t", list), "build_arg": ("buildargs", _pairs), "label": ("labels", _pairs), "target": ("target", str), "no_cache": ("nocache", int),
    "pull": ("pull", int), "platform": ("platform", str), "network": ("networkmode", str), "add_host": ("extrahosts", ",".join),
    "memory": ("memory", parse_bytes), "memory_swap": ("memswap", lambda text: -1 if text == "-1" else parse_bytes(text)),
    "cpu_shares": ("cpushares", int), "cpu_period": ("cpuperiod", int), "cpu_quota": ("cpuquota", int), "cpuset_cpus": ("cpusetcpus", str),
    "cpuset_mems": ("cpusetmems", str), "shm_size": ("shmsize", parse_bytes), "ulimit": ("ulimits", _limits), "cgroup_parent": ("cgroupparent", str),
    "explain": ("explain", int),
}  # fmt: skip
_CALL_QUERY = ("build_arg", "target", "platform", "pull")


def build_query(options: dict[str, Any], keys: tuple[str, ...] = tuple(_QUERY)) -> dict[str, Any]:
    """Pure. What is not given is left out."""
    return {_QUERY[key][0]: _QUERY[key][1](options[key]) for key in keys if options[key] not in (None, (), False, "")}


def _is_address(path: str) -> bool:
    return path.startswith(("http://", "https://", "git://", "git@", "ssh://", "github.com/"))


def _context(path: str, dockerfile: str, sent: SentFolders) -> tuple[IO[bytes] | None, dict[str, str]]:
    """The body, if there is one, and what the query has to say of the context."""
    if _is_address(path):
        return None, {"remote": path, **({"dockerfile": dockerfile} if dockerfile else {})}
    if path == "-":
        return _from_input(dockerfile)
    name, beside = _dockerfile(path, dockerfile)
    return None, {"context": sent.open(path, name, beside), "dockerfile": name}


def _asked_about(path: str, dockerfile: str) -> tuple[IO[bytes], dict[str, str]]:
    """What `--call` needs of a context: the Dockerfile, and its ignore file."""
    if _is_address(path):
        raise click.UsageError("--call needs a context that is here, not at an address")
    if path == "-":
        return _from_input(dockerfile)
    name, files = _dockerfile(path, dockerfile)
    for each in (name, *ignore_file_names(name)):
        try:
            with open(os.path.join(path, each), "rb") as file:
                files.setdefault(each, file.read())
        except OSError:
            continue  # that there is no such Dockerfile is the engine's to say
    return _tar(files), {"dockerfile": name}


def _from_input(dockerfile: str) -> tuple[IO[bytes], dict[str, str]]:
    """A tar, or a Dockerfile without any context."""
    if dockerfile == "-":
        raise click.UsageError("standard input can be the context or the Dockerfile, not both")
    source = cast("BufferedReader", sys.stdin.buffer)
    head = source.peek(BLOCK)
    if is_archive(head):
        return source, {"dockerfile": dockerfile} if dockerfile else {}
    if dockerfile:
        raise click.UsageError("with a Dockerfile on standard input there is no context that --file could be in")
    return _tar({"Dockerfile": source.read()}), {}


def _tar(files: dict[str, bytes]) -> IO[bytes]:
    from corten.cli.build_context import sent_files  # a folder needs no tar

    return sent_files(files)


def _dockerfile(folder: str, given: str) -> tuple[str, dict[str, bytes]]:
    """Its path in the context; one from elsewhere (or standard input) goes along, and is in no image."""
    if not os.path.isdir(folder):
        raise Invalid(f"the build context {folder} is not a folder" + (": did you mean --file?" if os.path.isfile(folder) else ""))
    if given == "-":
        return _OUTSIDE, {_OUTSIDE: sys.stdin.buffer.read()}
    if not given:
        return "Dockerfile", {}
    below = os.path.relpath(os.path.realpath(given), os.path.realpath(folder))
    if not below.startswith(".."):
        return below, {}
    try:
        with open(given, "rb") as file:
            return _OUTSIDE, {_OUTSIDE: file.read()}
    except OSError as error:
        raise Invalid(f"unable to read the Dockerfile {given}: {error.strerror}") from None


def _named(values: tuple[str, ...]) -> tuple[dict[str, str], dict[str, str]]:
    """`--build-context`: addresses by name, and folders by name."""
    addresses, folders = dict[str, str](), dict[str, str]()
    for each in values:
        name, equals, where = each.partition("=")
        if not equals or not name or not where:
            raise click.BadParameter(f"invalid context value: {each}, expected key=value")
        if os.path.isdir(where):
            folders[name] = where
        elif "://" not in where and "@" not in where:
            raise click.BadParameter(f"failed to find the folder {where} of the context {name}")
        else:
            addresses[name] = where
    return addresses, folders


def _private(options: dict[str, Any], addresses: Iterable[str], results: Results, contexts: dict[str, str]) -> BuildExtras:
    """What goes in the header. Who names an address over SSH means the agent that there is, as in docker build."""
    asked = options["ssh"]
    if any(map(is_over_ssh, addresses)) and not any(each.partition("=")[0] == "default" for each in asked):
        asked = (*asked, "default")
    sockets = agents(asked)
    return BuildExtras(
        secrets(options["secret"]), sockets, contexts, tuple(results.cache_to), tuple(results.cache_from), known_hosts() if sockets else ""
    )


def _build(client: Client, body: IO[bytes] | None, query: dict[str, Any], extras: BuildExtras, results: Results, sent: SentFolders,
           progress: str) -> str:  # fmt: skip
    """The image's id. What is said of the build goes to standard error. Raises FolderChanged."""

    def take(aux: dict[str, Any], tell: Callable[[int], None]) -> None:
        if MESSAGE in aux:
            sent.answer(aux[MESSAGE], tell)
        results.take(aux)

    headers = {HEADER: encode_extras(extras), **all_registries_header()}
    if progress not in QUIET:
        return build_shown(client, body, query, headers, take, progress)
    image = build_quietly(client, body, query, headers, take)
    if progress == "quiet" and not results.takes_stdout:
        print(image)
    return image


def _progress(progress: str, quiet: bool) -> str:
    """Raises UsageError for two that contradict each other."""
    if quiet and progress not in ("auto", "quiet"):
        raise click.UsageError(f"--progress={progress} and --quiet cannot be used together")
    return "quiet" if quiet else progress


_FLAGS = [
    click.option("-f", "--file", "dockerfile", default="", help="The Dockerfile (default: Dockerfile in the context; - is standard input)"),
    click.option("-t", "--tag", multiple=True, help="Name of the image: NAME[:TAG]"),
    click.option("--build-arg", multiple=True, help="Build argument NAME=VALUE"),
    click.option("--label", multiple=True, help="Label of the image NAME=VALUE"),
    click.option("--target", default="", help="Stage to build"),
    click.option("--no-cache", is_flag=True, help="Carry out every step anew"),
    click.option("--pull", is_flag=True, help="Ask the registry for newer base images"),
    click.option("-q", "--quiet", is_flag=True, help="Print nothing but the image's id"),
    click.option("--platform", default="", help="Platform of the image, such as linux/arm64"),
    click.option("--network", default="", help="Network of RUN: default, none, host, or a network's name"),
    click.option("--add-host", multiple=True, help="NAME:IP for /etc/hosts of RUN"),
    click.option("-m", "--memory", default="", help="Memory limit of RUN"),
    click.option("--memory-swap", default="", help="Limit of memory and swap together; -1 for none"),
    click.option("-c", "--cpu-shares", type=int, help="CPU shares of RUN"),
    click.option("--cpu-period", type=int, help="CFS period in microseconds"),
    click.option("--cpu-quota", type=int, help="CFS quota in microseconds"),
    click.option("--cpuset-cpus", default="", help="CPUs that RUN may use"),
    click.option("--cpuset-mems", default="", help="Memory nodes that RUN may use"),
    click.option("--shm-size", default="", help="Size of /dev/shm of RUN"),
    click.option("--ulimit", multiple=True, help="Limit of RUN: NAME=SOFT[:HARD]"),
    click.option("--cgroup-parent", default="", help="Control group above those of RUN"),
    click.option("--iidfile", type=click.Path(dir_okay=False), help="Write the image's id into a file"),
    click.option("--build-context", multiple=True, help="Named context: NAME=FOLDER, NAME=docker-image://IMAGE, NAME=oci-layout://FOLDER[:TAG|@DIGEST], NAME=ADDRESS"),
    click.option("--secret", multiple=True, help="Secret of RUN --mount=type=secret: id=NAME,src=FILE or id=NAME,env=VARIABLE"),
    click.option("--ssh", multiple=True, help="Agent of RUN --mount=type=ssh: default, or NAME=SOCKET"),
    click.option("--progress", type=click.Choice(MODES), default="auto", show_default=True, envvar="BUILDKIT_PROGRESS",
                 help="How the build is shown: a live picture on a terminal, else lines; rawjson as BuildKit's; quiet prints the image's id; none nothing"),
    click.option("--explain", is_flag=True, help="Say of every step that was not in the cache what is different"),
    click.option("--check", is_flag=True, help="Build nothing; show what build checks find (as --call=check)"),
    click.option("--call", "method", type=click.Choice(["build", "check", "outline", "targets"]), default="build", show_default=True, help="What to ask of the Dockerfile"),
    *RESULT_FLAGS,
]  # fmt: skip


def _options(function: Any) -> Any:
    for option in reversed(_FLAGS):
        function = option(function)
    return function


@click.command()
@_options
@click.argument("path")
@click.pass_obj
def command(session: Session, /, path: str, dockerfile: str, iidfile: str | None, check: bool, method: str, progress: str, quiet: bool, **options: Any) -> None:
    """Build an image from a Dockerfile and a context: a folder, an address, or - for standard input."""
    method, progress = "check" if check else method, _progress(progress, quiet)
    if method != "build":
        raise SystemExit(_call(session.client(), path, dockerfile, method, options))
    addresses, folders = _named(options["build_context"])
    client, results = session.client(), Results(options)
    addresses = {name: _layout(client, there, options["platform"]) if there.startswith(_LAYOUT) else there for name, there in addresses.items()}
    extras = _private(options, (path, *addresses.values()), results, addresses)
    results.send_caches(client)

    def build() -> str:
        with SentFolders(client) as sent:
            opened = {name: KEPT + sent.open(folder, dockerfile or "Dockerfile", always=False) for name, folder in folders.items()}
            body, where = _context(path, dockerfile, sent)
            query = {**where, **build_query(options), **results.query}
            return _build(client, body, query, msgspec.structs.replace(extras, contexts=addresses | opened), results, sent, progress)

    image = _again_if_changed(build, _ATTEMPTS if path != "-" and dockerfile != "-" else 1)
    results.receive(client)
    if iidfile:
        with open(iidfile, "w", encoding="ascii") as file:
            file.write(image)


def _layout(client: Client, address: str, platform: str) -> str:
    from corten.cli.oci_layout import sent_layout  # few builds have one

    return sent_layout(client, address, platform)


def _again_if_changed(build: Callable[[], str], attempts: int) -> str:
    """A file that is written to while it is read is read again, with all else that may have changed. Nothing has been built by then."""
    for left in reversed(range(attempts)):
        try:
            return build()
        except FolderChanged as error:
            if not left:
                raise
            print(f"{error.message}; reading it again", file=sys.stderr)
    raise AssertionError(attempts)


def _call(client: Client, path: str, dockerfile: str, method: str, options: dict[str, Any]) -> int:
    """The exit code."""
    from corten.cli.build_calls import SHOWN  # not for builds

    body, where = _asked_about(path, dockerfile)
    query = {"method": method, **where, **build_query(options, _CALL_QUERY)}
    with client.open("POST", "/corten/build/call", query=query, body=body, headers=all_registries_header()) as response:
        found = msgspec.json.decode(response.read())
    return SHOWN[method](found, dockerfile or "Dockerfile")
