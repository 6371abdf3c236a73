"""What a build shall give, and what shall be attested of it: `--output`, `--attest`, `--sbom`, `--provenance`, and the API's form of them. Pure.

Types and attributes are named as BuildKit names them (README "Output", docs/attestations). An attribute that is not in the table of its
type is refused, never passed over.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import msgspec

from corten.errors import Invalid, UnsupportedOption
from corten.spec.go_values import parse_bool
from corten.spec.layer_packing import GZIP, PLAIN, ZSTD
from corten.spec.platform import Platform, matches, parse_platform

LOCAL, TAR, OCI, DOCKER, IMAGE, REGISTRY = "local", "tar", "oci", "docker", "image", "registry"
TO_CLIENT = frozenset({LOCAL, TAR, OCI, DOCKER})  # the client is sent a tar; of LOCAL it unpacks it
FILES = frozenset({LOCAL, TAR})
_LEVELS = {GZIP: range(10), ZSTD: range(23)}  # as BuildKit takes them
_ANNOTATION = re.compile(r"annotation(?:-(manifest|index|manifest-descriptor|index-descriptor))?(?:\[([^]]+)\])?\.(.+)")
_BLOBS = ("compression", "compression-level", "force-compression", "oci-mediatypes", "rewrite-timestamp", "annotation", "attestation-inline")
# Layers made here are clamped to SOURCE_DATE_EPOCH whatever rewrite-timestamp says, and images are unpacked in the store always.
_BOOLEANS = ("tar", "force-compression", "oci-mediatypes", "rewrite-timestamp", "platform-split", "push", "store", "unpack")
_ATTRIBUTES = {
    LOCAL: ("dest", "platform-split", "attestation-prefix"),
    TAR: ("dest", "platform-split", "attestation-prefix"),
    OCI: ("dest", "name", "tar", *_BLOBS),
    DOCKER: ("dest", "name", "tar", "compression"),
    IMAGE: ("name", "push", "store", "unpack", *_BLOBS),
    REGISTRY: ("name", "push", "unpack", *_BLOBS),
}


@dataclass(frozen=True)
class Compression:
    """Of layers: GZIP, ZSTD or PLAIN, `level` None for the usual one. `force`: also of those that a base image came with, which else stay as they came."""

    kind: str = GZIP
    level: int | None = None
    force: bool = False


class OutputSpec(msgspec.Struct, frozen=True, rename="pascal"):
    """As `POST /build` has it in `outputs`. Of no attributes Docker's client sends null."""

    type: str
    attrs: dict[str, str] | None = None


@dataclass(frozen=True)
class Annotation:
    """`target`: manifest, index, manifest-descriptor (of it in the index) or index-descriptor (in a layout's index.json); of one platform or of every."""

    target: str
    name: str
    value: str
    platform: Platform | None = None


@dataclass(frozen=True)
class Output:
    """`names` are the attribute's. With annotations of the index or of descriptors in it there is one, also of a single image.

    `push`: to the registries of its names. `store`: under them here.
    """

    type: str
    names: tuple[str, ...] = ()
    push: bool = False
    store: bool = True
    compression: Compression = Compression()
    oci_types: bool = True
    split: bool | None = None
    prefix: str = ""
    annotations: tuple[Annotation, ...] = ()

    def annotations_of(self, target: str, platform: Platform | None = None) -> dict[str, str] | None:
        """By name, None where there are none; one for a platform wins over one for all."""
        meant = [each for each in self.annotations if each.target == target]
        found = {each.name: each.value for each in meant if each.platform is None}
        found |= {each.name: each.value for each in meant if each.platform and platform and matches(each.platform, platform)}
        return dict(sorted(found.items())) or None


def read_output(spec: OutputSpec) -> Output:
    """Raises Invalid for a type or attribute that there is not, UnsupportedOption for what is not done here."""
    known = _ATTRIBUTES.get(spec.type)
    if known is None:
        raise Invalid(f"unsupported output type {spec.type!r} (there are {', '.join(sorted(_ATTRIBUTES))})")
    attributes = dict(spec.attrs or {})
    for key, value in attributes.items():
        if key not in known and not ("annotation" in known and _ANNOTATION.fullmatch(key)):
            raise Invalid(f"the output type {spec.type} has no attribute {key!r}")
        _check_value(spec.type, key, value)
    return Output(
        spec.type, tuple(name for name in attributes.get("name", "").split(",") if name), push=spec.type == REGISTRY or _flag(attributes, "push"),
        store=spec.type == IMAGE and _flag(attributes, "store", default=True), compression=_compression(spec.type, attributes),
        oci_types=_flag(attributes, "oci-mediatypes", default=True), split=_flag(attributes, "platform-split") if "platform-split" in attributes else None,
        prefix=attributes.get("attestation-prefix", ""), annotations=tuple(_annotations(spec.type, attributes)),
    )  # fmt: skip


def _check_value(kind: str, key: str, value: str) -> None:
    if key == "compression" and value not in ((PLAIN,) if kind == DOCKER else (GZIP, ZSTD, PLAIN)):
        raise UnsupportedOption(key=f"compression={value} of the output type {kind}")
    if key == "attestation-inline" and value != "true":
        raise UnsupportedOption(key=f"{key}={value} of an output (only true)")
    if key in _BOOLEANS:
        _flag({key: value}, key)


def _compression(kind: str, attributes: Mapping[str, str]) -> Compression:
    packing, level = attributes.get("compression", PLAIN if kind == DOCKER else GZIP), attributes.get("compression-level", "")
    if not level:
        return Compression(packing, force=_flag(attributes, "force-compression"))
    levels = _LEVELS.get(packing, range(0))
    if not level.isdecimal() or int(level) not in levels:
        there = f"there are {levels[0]} to {levels[-1]}" if levels else "it has none"
        raise Invalid(f"invalid compression-level {level!r} of {packing}: {there}")
    return Compression(packing, int(level), force=_flag(attributes, "force-compression"))


def _flag(attributes: Mapping[str, str], key: str, *, default: bool = False) -> bool:
    if key not in attributes:
        return default
    try:
        return parse_bool(attributes[key] or "true")
    except Invalid:
        raise Invalid(f"invalid value {attributes[key]!r} of the output's attribute {key}: it is true or false") from None


def _annotations(kind: str, attributes: Mapping[str, str]) -> Iterator[Annotation]:
    for key, value in sorted(attributes.items()):
        found = _ANNOTATION.fullmatch(key)
        if not found:
            continue
        target, platform = found[1] or "manifest", parse_platform(found[2]) if found[2] else None
        if platform and target.startswith("index"):
            raise Invalid(f"the annotation {key!r} is of an index, which has no platform")
        if target == "index-descriptor" and kind != OCI:
            raise UnsupportedOption(key=f"the annotation {key!r} of the output type {kind} (only a layout, type=oci, describes its index)")
        yield Annotation(target, found[3], value, platform)


def parse_output(text: str) -> tuple[OutputSpec, str]:
    """`--output`: `type=oci,dest=x.tar`, a folder, or `-`. The destination stays with the client: `-` is standard output."""
    fields = _fields(text)
    if len(fields) == 1 and "=" not in fields[0]:
        return (OutputSpec(TAR), "-") if fields[0] == "-" else (OutputSpec(LOCAL), fields[0])
    attributes = _pairs(fields, "output")
    kind, destination = attributes.pop("type", ""), attributes.pop("dest", "")
    if not kind:
        raise Invalid(f"type is required for output {text!r}")
    if kind == LOCAL and not destination:
        raise Invalid("the output type local needs a folder: dest=FOLDER")
    if is_folder(OutputSpec(kind, attributes)) and destination in ("", "-"):
        raise Invalid(f"the output type {kind} with tar=false needs a folder: dest=FOLDER")
    return OutputSpec(kind, attributes), destination or ("-" if kind in TO_CLIENT else "")


def is_folder(spec: OutputSpec) -> bool:
    """An archive that the client unpacks: `tar=false`."""
    return spec.type in (OCI, DOCKER) and not _flag(spec.attrs or {}, "tar", default=True)


def split_attributes(text: str, what: str) -> dict[str, str]:
    """`key=value,key=value`, with quotes as in CSV. Raises Invalid."""
    return _pairs(_fields(text), what)


def _fields(text: str) -> list[str]:
    try:
        return next(csv.reader([text], strict=True), [])
    except csv.Error as error:
        raise Invalid(f"{text!r} is no list of fields: {error}") from None


def _pairs(fields: Sequence[str], what: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for field in fields:
        key, separator, value = field.partition("=")
        if not separator:
            raise Invalid(f"invalid {what} {field!r}: it is key=value")
        found[key.strip().lower() if "." not in key else key.strip()] = value
    return found


# --- attestations
class Attest(msgspec.Struct, frozen=True, omit_defaults=True, rename="pascal", forbid_unknown_fields=True):
    """As Corten's parameter `attest` of `POST /build` has it. `provenance` is the mode (min, max) or empty: none."""

    sbom: bool = False
    provenance: str = ""
    builder_id: str = ""
    reproducible: bool = False

    @property
    def is_asked_for(self) -> bool:
        return self.sbom or bool(self.provenance)

    def check(self, outputs: Sequence[Output]) -> None:
        """Raises Invalid for a mode that there is not, UnsupportedOption where an output has no place for an attestation."""
        if self.provenance not in ("", "min", "max"):
            raise Invalid(f"invalid mode {self.provenance!r} of the provenance: it is min or max")
        for output in outputs if self.is_asked_for else ():
            if output.type == DOCKER:
                raise UnsupportedOption(key="an attestation in the output type docker (its archives have no place for one: use type=oci)")
            if not output.oci_types:
                raise UnsupportedOption(key="an attestation with oci-mediatypes=false")


def parse_attest(text: str, before: Attest) -> Attest:
    """`--attest type=sbom` or `type=provenance,mode=max`; what earlier flags have said is `before`."""
    attributes = _pairs(_fields(text), "attestation")
    kind = attributes.pop("type", "")
    if kind == "sbom":
        return _with_sbom(attributes, before)
    if kind == "provenance":
        return _with_provenance(attributes, before)
    raise Invalid(f"unsupported attestation type {kind!r} (there are sbom and provenance)")


def parse_sbom(text: str, before: Attest) -> Attest:
    """`--sbom`, `--sbom=false`."""
    return _with_sbom({"disabled": str(not _truth(text, "sbom")).lower()} if _is_truth(text) else _pairs(_fields(text), "sbom"), before)


def parse_provenance(text: str, before: Attest) -> Attest:
    """`--provenance=true`, `false`, or `mode=max,builder-id=...`."""
    return _with_provenance({"disabled": str(not _truth(text, "provenance")).lower()} if _is_truth(text) else _pairs(_fields(text), "provenance"), before)


def _is_truth(text: str) -> bool:
    return "=" not in text


def _truth(text: str, flag: str) -> bool:
    try:
        return parse_bool(text or "true")
    except Invalid:
        raise Invalid(f"invalid value {text!r} of --{flag}: it is true, false, or key=value") from None


def _with_sbom(attributes: dict[str, str], before: Attest) -> Attest:
    disabled = _truth(attributes.pop("disabled", "false"), "sbom")
    if "generator" in attributes:
        raise UnsupportedOption(key="a generator of the SBOM (Corten reads the package databases itself)")
    _none_left(attributes, "sbom")
    return msgspec.structs.replace(before, sbom=not disabled)


def _with_provenance(attributes: dict[str, str], before: Attest) -> Attest:
    mode = attributes.pop("mode", "min")
    if mode not in ("min", "max"):
        raise Invalid(f"invalid mode {mode!r} of the provenance: it is min or max")
    if attributes.pop("version", "v1") != "v1":
        raise UnsupportedOption(key="a version of the provenance other than v1")
    if _truth(attributes.pop("disabled", "false"), "provenance"):
        mode = ""
    found = msgspec.structs.replace(
        before, provenance=mode, builder_id=attributes.pop("builder-id", ""), reproducible=_truth(attributes.pop("reproducible", "false"), "provenance")
    )
    _none_left(attributes, "provenance")
    return found


def _none_left(attributes: Mapping[str, str], what: str) -> None:
    if attributes:
        raise Invalid(f"the attestation {what} has no parameter {next(iter(attributes))!r}")
