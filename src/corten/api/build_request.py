"""`POST /build`: what its parameters ask for, checked, as values. Pure but for the request that it reads.

Source: Docker Engine API 1.51 ("ImageBuild"); moby api/server/router/build at v28.5.2 for texts and for what wins.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from corten.api.build_outputs import names_of
from corten.api.call import Call
from corten.builder.graph import Limits
from corten.builder.hosting import Private
from corten.builder.options import BuildOptions
from corten.errors import Forbidden, Invalid, NotSupported
from corten.registry.auth import Credentials
from corten.spec.build_cache import INLINE, CachePlace, parse_cache_from, parse_cache_to
from corten.spec.build_extras import HEADER, BuildExtras, decode_extras
from corten.spec.build_outputs import IMAGE, Attest, Output, OutputSpec, read_output
from corten.spec.engine import Ulimit
from corten.spec.platform import Platform, parse_platform
from corten.spec.reference import Reference, parse_reference

T = TypeVar("T")


class OutsideContext(Invalid):
    template = "forbidden path outside the build context: {path} ()"


@dataclass(frozen=True)
class BuildRequest:
    """`names` are references in full. `options` lacks the context, which has not been read yet. `platforms` has one at least.

    `folder` is the id of a context that was opened before (build_folders.py).
    """

    options: BuildOptions
    dockerfile: str
    names: tuple[Reference, ...]
    remote: str
    folder: str
    quiet: bool
    no_cache: bool
    pull: bool
    explain: bool
    outputs: tuple[Output, ...]
    attest: Attest
    cache_from: tuple[CachePlace, ...]
    cache_to: tuple[CachePlace, ...]
    platforms: tuple[Platform | None, ...]
    registries: Mapping[str, Credentials]
    extras: BuildExtras

    @property
    def private(self) -> Private:
        return Private(self.extras.secrets, self.extras.agents, self.extras.known_hosts)

    @property
    def inline_cache(self) -> bool:
        """Whether the image shall carry its own cache: BuildKit's build argument counts, too."""
        asked = self.options.arguments.get("BUILDKIT_INLINE_CACHE", "")
        return asked in ("1", "true") or any(place.type == INLINE for place in self.cache_to)

    @property
    def stored_names(self) -> tuple[Reference, ...]:
        """What the image is called in the store."""
        return tuple(dict.fromkeys(name for output in self.outputs if output.type == IMAGE and output.store for name in names_of(output, self.names)))

    @property
    def stored_as_index(self) -> bool:
        """Whether the names stand for an index: of several platforms, or of one and what is attested of it."""
        return len(self.platforms) > 1 or self.attest.is_asked_for

    def check_names(self) -> None:
        """Raises Invalid where the store could not hold what is attested: an index is there by its names."""
        keeps = any(output.type == IMAGE and output.store for output in self.outputs)
        if keeps and self.attest.is_asked_for and not self.stored_names:
            raise Invalid("what is attested of an image is kept in the engine's store under the image's name: give one (-t NAME, or name=NAME of the output)")


def read_request(call: Call) -> BuildRequest:
    """Raises Invalid with Docker's texts, and what Corten does not do is NotSupported."""
    _check_version(call)
    if call.flag("squash"):
        raise Invalid("squash is only supported with experimental mode")
    extras = decode_extras(call.request.headers.get(HEADER, ""))
    cache_from = tuple(map(parse_cache_from, (*(_json(call, "cachefrom", list[str], "cache-from") or ()), *extras.cache_from)))
    cache_to = tuple(map(parse_cache_to, (*(_json(call, "cacheto", list[str], "cache-to") or ()), *extras.cache_to)))
    platforms = tuple(_platform(text) for text in call.text("platform").split(","))
    options = BuildOptions(
        arguments={name: value for name, value in (_json(call, "buildargs", dict[str, str | None], "build args") or {}).items() if value is not None},
        target=call.text("target"), platform=platforms[0], labels=_json(call, "labels", dict[str, str], "labels") or {},
        network=_network(call.text("networkmode")), hosts=_hosts(call.values("extrahosts")), limits=_limits(call),
    )  # fmt: skip
    dockerfile, outputs, attest = call.text("dockerfile") or "Dockerfile", _outputs(call), _json(call, "attest", Attest, "attestations") or Attest()
    attest.check(outputs)
    _check_path(dockerfile)
    request = BuildRequest(
        options, dockerfile, tuple(_name(text) for text in call.values("t") if text), call.text("remote"), call.text("context"), call.flag("q"), call.flag("nocache"),
        call.flag("pull"), call.flag("explain"), outputs, attest, cache_from, cache_to, platforms,
        _registries(call.request.headers.get("X-Registry-Config", "")), extras,
    )  # fmt: skip
    request.check_names()
    return request


def _check_version(call: Call) -> None:
    version = call.text("version")
    if version == "2":
        raise NotSupported("BuildKit's own protocol is not served by Corten yet: build with DOCKER_BUILDKIT=0 (the language is BuildKit's either way)")
    if version not in ("", "1"):
        raise Invalid(f'invalid version "{version}"')


def _outputs(call: Call) -> tuple[Output, ...]:
    """What Docker's client calls `moby`, or nothing at all, is the image in the store. What is wrong in an output is told before anything is built."""
    specs = [spec for spec in _json(call, "outputs", list[OutputSpec], "outputs") or [] if spec.type != "moby"]
    outputs = tuple(read_output(spec) for spec in specs) or (Output(IMAGE),)
    for output in outputs:
        names_of(output, ())
    return outputs


def _platform(text: str) -> Platform | None:
    if not text:
        return None
    try:
        return parse_platform(text) if "/" in text or text in ("amd64", "arm64", "386", "arm") else _unknown_platform(text)
    except Invalid:
        return _unknown_platform(text)


def _unknown_platform(text: str) -> Platform:
    raise Invalid(f'"{text}": unknown operating system or architecture: invalid argument')


def _json(call: Call, key: str, kind: type[T], called: str) -> T | None:
    text = call.text(key)
    if not text:
        return None
    try:
        return msgspec.json.decode(text, type=kind | None)
    except (msgspec.MsgspecError, UnicodeEncodeError) as error:
        first = text.lstrip()[:1]
        reason = f"invalid character {first!r} looking for beginning of value" if first not in '{["tfn-0123456789' else str(error)
        raise Invalid(f"error reading {called}: {reason}") from None


def _network(mode: str) -> str:
    return "default" if mode in ("", "bridge", "default") else mode


def _hosts(texts: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The classic front's clients repeat the parameter, BuildKit's put commas between."""
    found: list[tuple[str, str]] = []
    for entry in filter(None, ",".join(texts).split(",")):
        name, separator, address = entry.partition("=" if "=" in entry else ":")
        if not separator or not name or not address:
            raise Invalid(f'bad format for add-host: "{entry}"')
        found.append((name, address))
    return tuple(found)


def _limits(call: Call) -> Limits:
    def number(key: str) -> int:
        return call.number(key) or 0

    return Limits(
        memory=number("memory"), memory_swap=number("memswap"), cpu_shares=number("cpushares"), cpu_period=number("cpuperiod"),
        cpu_quota=number("cpuquota"), cpuset_cpus=call.text("cpusetcpus"), cpuset_mems=call.text("cpusetmems"), shm_size=number("shmsize"),
        ulimits=tuple(_json(call, "ulimits", list[Ulimit], "ulimit settings") or ()), cgroup_parent=call.text("cgroupparent"),
    )  # fmt: skip


def _name(text: str) -> Reference:
    found = parse_reference(text)
    if found.digest:
        raise Forbidden("build tag cannot contain a digest")
    return found.with_default_tag()


def _check_path(path: str) -> None:
    depth = 0
    for part in path.lstrip("/").split("/"):
        depth += -1 if part == ".." else part not in ("", ".")
        if depth < 0:
            raise OutsideContext(path=path)


def _registries(header: str) -> dict[str, Credentials]:
    """X-Registry-Config: base64url of JSON, host to credentials. As in Docker, one that cannot be read is none."""
    try:
        plain = header.translate(str.maketrans("-_", "+/")).rstrip("=")
        data = base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
        return msgspec.json.decode(data, type=dict[str, Credentials]) if data.strip() else {}
    except (binascii.Error, ValueError, msgspec.MsgspecError):
        return {}
