"""Where a build's cache goes to and comes from: `--cache-to`, `--cache-from`, and the API's `cacheto` and `cachefrom`. Pure.

Types and attributes have BuildKit's names (its README, "Export cache") where it has them. An attribute that there is not is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from corten.errors import Invalid, UnsupportedOption
from corten.spec.build_outputs import split_attributes
from corten.spec.go_values import parse_bool

INLINE, REGISTRY, LOCAL, S3 = "inline", "registry", "local", "s3"
_S3 = ("bucket", "region", "prefix", "name", "endpoint_url", "access_key_id", "secret_access_key", "session_token", "use_path_style")
_SHARED = ("mode", "ignore-error", "mounts")
_TO = {INLINE: (), REGISTRY: ("ref", *_SHARED), LOCAL: ("dest", *_SHARED), S3: (*_S3, *_SHARED)}
_FROM = {REGISTRY: ("ref",), S3: _S3}


@dataclass(frozen=True)
class S3Bucket:
    """`prefix` is empty or ends with a slash. Without keys the engine's own environment is asked. `path_style`: the bucket is in the path."""

    bucket: str
    region: str = ""
    prefix: str = ""
    name: str = "buildcache"
    endpoint: str = ""
    key_id: str = ""
    secret: str = ""
    token: str = ""
    path_style: bool = False


@dataclass(frozen=True)
class CachePlace:
    """`all_steps` is mode=max: also steps whose layers the image has not. `mounts`: the folders of cache mounts, too."""

    type: str
    reference: str = ""
    bucket: S3Bucket | None = None
    all_steps: bool = False
    mounts: bool = False
    ignore_errors: bool = False


class ImportedBuildCache(msgspec.Struct, frozen=True, rename="pascal"):
    """The answer to a cache that was sent: how many steps and cache mounts are here now that were not."""

    steps: int
    mounts: int


def parse_cache_to(text: str) -> CachePlace:
    """Raises Invalid, UnsupportedOption."""
    kind, attributes = _typed(text, _TO, "cache-to")
    mode = attributes.get("mode", "min")
    if mode not in ("min", "max"):
        raise Invalid(f"invalid mode {mode!r} of --cache-to: it is min or max")
    mounts = _flag(attributes, "mounts", default=mode == "max")
    return CachePlace(kind, _reference(kind, attributes), _bucket(kind, attributes), mode == "max", mounts, _flag(attributes, "ignore-error"))


def parse_cache_from(text: str) -> CachePlace:
    """Docker's own form, a bare reference, is an image of the store: its inline cache. Raises Invalid, UnsupportedOption."""
    if "=" not in text:
        return CachePlace(INLINE, text)
    if text.startswith("type=local"):
        raise UnsupportedOption(key="cachefrom with type=local (the folder is the client's: send it with POST /corten/build/cache)")
    kind, attributes = _typed(text, _FROM, "cache-from")
    return CachePlace(kind, _reference(kind, attributes), _bucket(kind, attributes))


def _typed(text: str, known: Mapping[str, tuple[str, ...]], flag: str) -> tuple[str, dict[str, str]]:
    attributes = split_attributes(text, flag) if "=" in text else {"type": REGISTRY, "ref": text}
    kind = attributes.pop("type", "")
    if kind not in known:
        raise UnsupportedOption(key=f"the type {kind!r} of --{flag} (there are {', '.join(known)})")
    for key in attributes:
        if key not in known[kind]:
            raise Invalid(f"--{flag} of type {kind} has no attribute {key!r}")
    return kind, attributes


def _reference(kind: str, attributes: Mapping[str, str]) -> str:
    if kind == REGISTRY and not attributes.get("ref"):
        raise Invalid("a cache in a registry needs ref=REPOSITORY[:TAG]")
    return attributes.get("ref", "")


def _bucket(kind: str, attributes: Mapping[str, str]) -> S3Bucket | None:
    if kind != S3:
        return None
    if not attributes.get("bucket"):
        raise Invalid("a cache in S3 needs bucket=NAME")
    prefix = attributes.get("prefix", "").strip("/")
    return S3Bucket(
        attributes["bucket"], attributes.get("region", ""), f"{prefix}/" if prefix else "", attributes.get("name", "buildcache"), attributes.get("endpoint_url", ""),
        attributes.get("access_key_id", ""), attributes.get("secret_access_key", ""), attributes.get("session_token", ""), _flag(attributes, "use_path_style"),
    )  # fmt: skip


def _flag(attributes: Mapping[str, str], key: str, *, default: bool = False) -> bool:
    try:
        return parse_bool(attributes[key]) if key in attributes else default
    except Invalid:
        raise Invalid(f"invalid value {attributes[key]!r} of {key}: it is true or false") from None
