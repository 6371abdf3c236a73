"""What a create request asks to be mounted -> the list of mounts, and each mount -> its entry in the OCI config. Pure.

Owns the syntax of `-v`, `--mount`, `--tmpfs` and `--volumes-from`, who wins at one destination, and Docker 28.5's texts for
everything that is wrong (moby volume/mounts/linux_parser.go, daemon/volumes.go). Making volumes and finding sources is
mounting.py's. The one thing looked at is whether a bind's source is there.
"""

from __future__ import annotations

import dataclasses
import os
import posixpath
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import msgspec

from corten.engine import idmap
from corten.engine.records import ContainerRecord, MountRecord
from corten.errors import CortenError, Invalid
from corten.spec.engine import BindOptions, HostConfig, ImageOptions, MountPoint, TmpfsOptions, VolumeOptions
from corten.spec.runtime import Mount

PROPAGATIONS = ("private", "rprivate", "slave", "rslave", "shared", "rshared")
# Words of a `-v` mode by kind: at most one of each kind.
_MODES: dict[str, str] = {
    **dict.fromkeys(("ro", "rw"), "access"), **dict.fromkeys(("z", "Z"), "label"), **dict.fromkeys(PROPAGATIONS, "propagation"),
    "nocopy": "copy", **dict.fromkeys(("consistent", "cached", "delegated"), "consistency"),
}  # fmt: skip
_TMPFS_DEFAULTS = ("noexec", "nosuid", "nodev", "rprivate")
_TMPFS_VALUES = ("mode", "uid", "gid", "size", "nr_blocks", "nr_inodes", "mpol", "huge")
_TMPFS_FLAGS = (
    "defaults", "ro", "rw", "suid", "nosuid", "dev", "nodev", "exec", "noexec", "sync", "async", "dirsync", "mand", "nomand", "atime",
    "noatime", "diratime", "nodiratime", "bind", "rbind", "relatime", "norelatime", "strictatime", "nostrictatime",
    "unbindable", "runbindable", *PROPAGATIONS,
)  # fmt: skip


class InvalidMount(Invalid):
    template = 'invalid mount config for type "{type}": {reason}'


class OptionElsewhere(Invalid):
    template = '{option} must not be specified on mount type "{type}"'


class InvalidVolumeSpec(Invalid):
    template = "invalid volume specification: '{text}'"


class DuplicateMount(Invalid):
    template = "Duplicate mount point: {destination}"


class MountConflict(CortenError):
    template = "mount options conflict: {reason}"


class InvalidTmpfsOption(CortenError):
    template = 'invalid tmpfs option "{option}"'


@dataclass(frozen=True)
class Wanted:
    """A mount, and for a volume what to make it of if it is not there. `copy`: fill it, if empty, with the image's content."""

    mount: MountRecord
    copy: bool = False
    driver: str = ""
    driver_options: Mapping[str, str] | None = None
    labels: Mapping[str, str] | None = field(default=None)

    def __str__(self) -> str:
        """A line of the printed plan."""
        mount = self.mount
        words = [mount.type, mount.name or mount.source or "new", "->", mount.destination, "rw" if mount.rw else "ro"]
        words += [mount.propagation] if mount.propagation else []
        words += [f"subpath={mount.subpath}"] if mount.subpath else []
        words += [mount.idmap] if mount.idmap else []
        words += ["copy"] if self.copy else []
        return " ".join(words)


def render(plan: Iterable[Wanted]) -> str:
    return "\n".join(map(str, plan))


# --- one mount
def parse_mode(mode: str) -> list[str] | None:
    """The words of a `-v` mode; None if one is unknown or a kind occurs twice."""
    words = mode.split(",") if mode else []
    kinds = ["idmap" if idmap.WORD.fullmatch(word) else _MODES.get(word, "") for word in words]
    return words if all(kinds) and len(set(kinds)) == len(kinds) else None


def parse_bind(text: str, volume_driver: str) -> Wanted:
    """`[SOURCE:]TARGET[:MODE]`. A source that is no absolute path names a volume. Raises Invalid."""
    source, target, mode = "", "", ""
    parts = text.split(":")
    if not parts[0] or len(parts) > 3 or (len(parts) == 2 and parse_mode(parts[1]) is not None):
        raise InvalidVolumeSpec(text=text)
    if len(parts) == 1:
        target = parts[0]
    else:
        source, target, mode = [*parts, ""][:3]
    words = parse_mode(mode)
    if words is None:
        raise Invalid(f"invalid mode: {mode}")
    propagation = next((word for word in words if word in PROPAGATIONS), "")
    is_bind = source.startswith("/")
    spec = MountPoint(
        type="bind" if is_bind else "volume", source=source, target=target, read_only="ro" in words,
        bind_options=BindOptions(propagation=propagation, create_mountpoint=True) if is_bind or propagation else None,
        volume_options=VolumeOptions(no_copy="nocopy" in words) if "nocopy" in words else None,
        consistency=next((word for word in words if word.startswith("idmap")), ""),
    )  # fmt: skip
    try:
        wanted = parse_mount(spec)
    except InvalidMount as error:
        raise Invalid(f"{InvalidVolumeSpec(text=text).message}: {error.message}") from None
    mount = msgspec.structs.replace(wanted.mount, mode=mode or wanted.mount.mode)
    return Wanted(mount, wanted.copy, "" if is_bind else volume_driver)


def parse_mount(spec: MountPoint) -> Wanted:
    """An entry of HostConfig.Mounts. Raises InvalidMount, OptionElsewhere."""

    def refuse(reason: str) -> InvalidMount:
        return InvalidMount(type=spec.type, reason=reason)

    if not spec.target:
        raise refuse("field Target must not be empty")
    reason = wrong_target(spec.target)
    if reason:
        raise refuse(reason)
    parse = _TYPES.get(spec.type)
    if parse is None:
        raise refuse("mount type unknown")
    reason = parse.check(spec) or _check_idmap(spec)
    if reason:
        raise refuse(reason)
    wanted = parse.make(spec, posixpath.normpath("/" + spec.target.lstrip("/")))
    option = spec.consistency if spec.consistency.startswith("idmap") else ""
    return dataclasses.replace(wanted, mount=msgspec.structs.replace(wanted.mount, idmap=option)) if option else wanted


def _check_idmap(spec: MountPoint) -> str:
    """Corten's own option travels where Docker's clients let any word through: as a mode of `-v`, as `consistency=` of `--mount`."""
    if not spec.consistency.startswith("idmap"):
        return ""
    if spec.type not in ("bind", "volume"):
        return "idmap is for binds and volumes"
    return "" if idmap.WORD.fullmatch(spec.consistency) else f"invalid option {spec.consistency}: want idmap or idmap=UID[.GID]"


def wrong_target(target: str) -> str:
    """Why nothing can be mounted there; empty if something can."""
    if posixpath.normpath(target) in ("/", "//"):
        return "invalid specification: destination can't be '/'"
    return "" if target.startswith("/") else f"invalid mount path: '{target}' mount path must be absolute"


def _local(subpath: str) -> bool:
    """Whether a path stays below where it starts, by its words alone (Go's filepath.IsLocal)."""
    return not subpath.startswith("/") and not posixpath.normpath(subpath).startswith("..")


def _check_bind(spec: MountPoint) -> str:
    if not spec.source:
        return "field Source must not be empty"
    if spec.bind_options and spec.bind_options.propagation not in ("", *PROPAGATIONS):
        return f"invalid propagation mode: {spec.bind_options.propagation}"
    if spec.volume_options is not None:
        return "field VolumeOptions must not be specified"
    if spec.image_options is not None:
        return "field ImageOptions must not be specified"
    if not spec.source.startswith("/"):
        return f"invalid mount path: '{spec.source}' mount path must be absolute"
    return "" if spec.bind_options and spec.bind_options.create_mountpoint else _check_source(spec.source)


def _check_source(source: str) -> str:
    try:
        os.stat(source)
    except FileNotFoundError:
        return f"bind source path does not exist: {source}"
    except OSError as error:
        return f"stat {source}: {(error.strerror or '').lower()}"
    return ""


def _make_bind(spec: MountPoint, destination: str) -> Wanted:
    options = spec.bind_options or BindOptions()
    return Wanted(MountRecord(
        "bind", destination, source=posixpath.normpath(spec.source), rw=not spec.read_only, propagation=options.propagation,
        create_source=options.create_mountpoint, non_recursive=options.non_recursive,
        read_only_non_recursive=options.read_only_non_recursive, read_only_force_recursive=options.read_only_force_recursive,
    ))  # fmt: skip


def _check_volume(spec: MountPoint) -> str:
    if spec.bind_options is not None:
        return "field BindOptions must not be specified"
    if spec.image_options is not None:
        return "field ImageOptions must not be specified"
    subpath = spec.volume_options.subpath if spec.volume_options else ""
    if subpath and not spec.source:
        return "must not set Subpath when using anonymous volumes"
    if not _local(subpath):
        return "subpath must be a relative path within the volume"
    return "must not set ReadOnly mode when using anonymous volumes" if spec.read_only and not spec.source else ""


def _make_volume(spec: MountPoint, destination: str) -> Wanted:
    options = spec.volume_options or VolumeOptions()
    driver = options.driver_config
    mount = MountRecord(
        "volume", destination, name=spec.source, mode="z", rw=not spec.read_only, named=bool(spec.source), subpath=options.subpath
    )
    return Wanted(mount, not options.no_copy, driver.name if driver else "", driver.options if driver else None, options.labels)


def _check_tmpfs(spec: MountPoint) -> str:
    if spec.image_options is not None:
        return "field ImageOptions must not be specified"
    if spec.source:
        return "field Source must not be specified"
    for option in (spec.tmpfs_options and spec.tmpfs_options.options) or []:
        if not 1 <= len(option) <= 2:
            return "invalid option array length"
        if option[0] not in ("exec", "noexec"):
            return f"invalid option: {option[0]}"
    return ""


def _make_tmpfs(spec: MountPoint, destination: str) -> Wanted:
    options = spec.tmpfs_options or TmpfsOptions()
    words = ["ro"] if spec.read_only else []
    words += [f"mode={options.mode:o}"] if options.mode else []
    words += [f"size={options.size_bytes}"] if options.size_bytes else []
    words += ["=".join(option) for option in options.options or []]
    return Wanted(MountRecord("tmpfs", destination, rw=not spec.read_only, options=",".join(words)))


def _check_image(spec: MountPoint) -> str:
    if not spec.source:
        return "field Source must not be empty"
    return "" if _local((spec.image_options or ImageOptions()).subpath) else "subpath must be a relative path within the volume"


def _make_image(spec: MountPoint, destination: str) -> Wanted:
    subpath = (spec.image_options or ImageOptions()).subpath
    return Wanted(MountRecord("image", destination, name=spec.source, rw=False, propagation="rprivate", subpath=subpath))


@dataclass(frozen=True)
class _Type:
    check: Callable[[MountPoint], str]
    make: Callable[[MountPoint, str], Wanted]


_TYPES = {
    "bind": _Type(_check_bind, _make_bind), "volume": _Type(_check_volume, _make_volume),
    "tmpfs": _Type(_check_tmpfs, _make_tmpfs), "image": _Type(_check_image, _make_image),
}  # fmt: skip


def parse_volumes_from(text: str) -> tuple[str, bool]:
    """`CONTAINER[:MODE]` -> (container, whether its mounts keep what access they have). Raises Invalid."""
    if not text:
        raise Invalid("volumes-from specification cannot be an empty string")
    container, _, mode = text.partition(":")
    words = parse_mode(mode)
    if words is None or any(_MODES.get(word) in ("propagation", "copy", None) for word in words):
        raise Invalid(f"invalid mode: {mode}")
    if not container:
        raise Invalid('invalid name or ID supplied: ""')
    return container, "ro" not in words


# --- all mounts of a container
def check(host: HostConfig) -> None:
    """What needs no other container to be told wrong. Raises Invalid."""
    for mount in host.mounts or []:
        for option, kind, given in (("BindOptions", "bind", mount.bind_options), ("VolumeOptions", "volume", mount.volume_options),
                                    ("TmpfsOptions", "tmpfs", mount.tmpfs_options)):  # fmt: skip
            if given is not None and mount.type and mount.type != kind:
                raise OptionElsewhere(option=option, type=mount.type)
        parse_mount(mount)
    for target in host.tmpfs or {}:
        reason = wrong_target(target)
        if reason:
            raise Invalid(reason)


_IGNORED_DRIVER = (
    "WARNING: the container-wide volume-driver configuration is ignored for volumes specified via 'mount'. "
    "Use '--mount type=volume,volume-driver=...' instead"
)


def warnings(host: HostConfig) -> list[str]:
    """Pure. What is asked for and means nothing: `--volume-driver` beside `--mount type=volume`."""
    named = [spec.volume_options and spec.volume_options.driver_config and spec.volume_options.driver_config.name
             for spec in host.mounts or [] if spec.type == "volume"]  # fmt: skip
    if not host.volume_driver or all(named):
        return []
    return [_IGNORED_DRIVER]


def plan(host: HostConfig, volumes: Iterable[str], data_root: str, find: Callable[[str], ContainerRecord]) -> list[Wanted]:
    """What is mounted where: mounts of other containers, binds, `Mounts`, and a new volume for each of `volumes` left over.

    A later kind wins over mounts of other containers; two of the request's own at one destination are refused.
    Raises Invalid, DuplicateMount, and what `find` raises.
    """
    chosen: dict[str, Wanted] = {}
    for text in host.volumes_from or []:
        container, writable = parse_volumes_from(text)
        for mount in _mounts_of(find, container):
            chosen[mount.destination] = Wanted(msgspec.structs.replace(mount, rw=mount.rw and writable, mode=""))
    tmpfs = {posixpath.normpath(target) for target in host.tmpfs or {}}
    taken: set[str] = set()
    for text in host.binds or []:
        wanted = _inside_root(parse_bind(text, host.volume_driver), data_root)
        if wanted.mount.destination in tmpfs:
            raise DuplicateMount(destination=wanted.mount.destination)
        _take(chosen, taken, wanted, "")
    for spec in host.mounts or []:
        _take(chosen, taken, _inside_root(parse_mount(spec), data_root), spec.target)
    for path in volumes:
        destination = posixpath.normpath("/" + path.lstrip("/"))
        if destination == "/":
            raise Invalid("invalid specification: destination can't be '/'")
        if destination not in chosen and destination not in tmpfs:
            chosen[destination] = Wanted(MountRecord("volume", destination), copy=True, driver=host.volume_driver)
    return list(chosen.values())


def _mounts_of(find: Callable[[str], ContainerRecord], container: str) -> list[MountRecord]:
    try:
        return find(container).mounts
    except CortenError as error:
        raise Invalid(error.message) from None


def _take(chosen: dict[str, Wanted], taken: set[str], wanted: Wanted, called: str) -> None:
    destination = wanted.mount.destination
    if destination in taken:
        raise DuplicateMount(destination=called or destination)
    taken.add(destination)
    chosen[destination] = wanted


def _inside_root(wanted: Wanted, data_root: str) -> Wanted:
    """A bind's propagation: rprivate, but rslave where the engine's own mounts are seen, which would else be held for ever."""
    mount = wanted.mount
    if mount.type != "bind":
        return wanted
    sees_root = mount.source.startswith(data_root) or data_root.startswith(mount.source)
    if sees_root and mount.propagation not in ("", "rslave", "rshared"):
        raise Invalid(
            'invalid mount config: must use either propagation mode "rslave" or "rshared" when mount source is within the daemon root, '
            f'daemon root: "{data_root}", bind mount source: "{mount.source}", propagation: "{mount.propagation}"'
        )
    propagation = mount.propagation or ("rslave" if sees_root else "rprivate")
    return dataclasses.replace(wanted, mount=msgspec.structs.replace(mount, propagation=propagation))


# --- into the OCI config
def oci_mount(mount: MountRecord, source: str) -> Mount:
    """`source` is where its content is now. Raises MountConflict, InvalidTmpfsOption."""
    if mount.type == "tmpfs":
        return tmpfs(mount.destination, mount.options)
    flags = ["bind" if mount.non_recursive else "rbind"]
    if mount.rw and mount.read_only_non_recursive:
        raise MountConflict(reason="!ReadOnly && BindOptions.ReadOnlyNonRecursive")
    if mount.rw and mount.read_only_force_recursive:
        raise MountConflict(reason="!ReadOnly && BindOptions.ReadOnlyForceRecursive")
    if mount.read_only_non_recursive and mount.read_only_force_recursive:
        raise MountConflict(reason="ReadOnlyNonRecursive && BindOptions.ReadOnlyForceRecursive")
    if not mount.rw:
        flags.append("ro" if mount.read_only_non_recursive else "rro")
    return Mount(mount.destination, "bind", source, [*flags, *([mount.propagation] if mount.propagation else [])])


def tmpfs(destination: str, options: str) -> Mount:
    """Docker's defaults, and over them what is asked for: of contradicting words and of values for one key the last holds."""
    merged: dict[str, str] = {}
    for word in [*_TMPFS_DEFAULTS, *filter(None, options.split(","))]:
        key, equals, _ = word.partition("=")
        if (equals and key not in _TMPFS_VALUES) or (not equals and word not in _TMPFS_FLAGS):
            raise InvalidTmpfsOption(option=key)
        kind = "propagation" if word in PROPAGATIONS else key.removeprefix("no") if not equals else key
        kind = {"ro": "access", "rw": "access", "async": "sync"}.get(kind, kind)
        merged.pop(kind, None)
        merged[kind] = word
    return Mount(posixpath.normpath(destination), "tmpfs", "tmpfs", list(merged.values()))


def in_order(mounts: Iterable[Mount]) -> list[Mount]:
    """A mount before those inside it."""
    return sorted(mounts, key=lambda mount: posixpath.normpath(mount.destination).count("/"))
