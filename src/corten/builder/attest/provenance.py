"""Where an image comes from, as a SLSA provenance v1 predicate. Pure.

Sources: slsa.dev/spec/v1.1/provenance; BuildKit's docs/attestations/slsa-definitions.md, whose keys the request and the metadata have. The
build's definition (mode max) is Corten's graph, hence a build type of its own (docs/build-results.md).
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from corten import __version__
from corten.builder.graph import Exec, Git, Http, Image, Local, Secret, Ssh, Vertex, definition, in_order
from corten.builder.outputs.documents import purl_of
from corten.spec.build_outputs import Attest
from corten.spec.platform import Platform, this_platform
from corten.spec.reference import parse_reference
from corten.spec.timestamps import rfc3339_nano

PREDICATE = "https://slsa.dev/provenance/v1"
BUILD_TYPE = "urn:corten:dockerfile-build:v1"


@dataclass(frozen=True)
class Invocation:
    """One build. Times in nanoseconds. `uri` and `revision` (a commit, a digest) are the context's, if it came from an address."""

    id: str
    started: int
    finished: int
    dockerfile: str
    text: str
    platform: Platform
    target: str = ""
    arguments: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    uri: str = ""
    revision: str = ""


@dataclass(frozen=True)
class Material:
    """Something that came from outside. `digest` is empty where it is not known."""

    uri: str
    digest: Mapping[str, str]


def materials_of(target: Vertex, digests: Mapping[str, str], resolved: Mapping[Vertex, str], platform: Platform) -> list[Material]:
    """Images, git and HTTP sources of a graph, each once. `digests`: image id -> what its registry calls it, else its manifest's digest;
    `resolved`: commit of a Git vertex, digest of an Http vertex, where they have been fetched.
    """
    found: dict[str, Material] = {}
    for vertex in in_order([target]):
        op = vertex.op
        if isinstance(op, Image):
            uri = _image_uri(op.reference, platform)
            digest = digests.get(op.id, op.id)
        elif isinstance(op, Git):
            uri, digest = without_credentials(op.url) + (f"#{op.ref}" if op.ref else ""), resolved.get(vertex, op.checksum)
        elif isinstance(op, Http):
            uri, digest = without_credentials(op.url), resolved.get(vertex, op.checksum)
        else:
            continue
        found[uri] = Material(uri, digest_set(digest))
    return list(found.values())


def digest_set(revision: str) -> dict[str, str]:
    """in-toto's form of a digest or a commit's id."""
    algorithm, colon, value = revision.rpartition(":")
    if not revision:
        return {}
    return {algorithm: value} if colon else {"sha256" if len(value) == 64 else "sha1": value}


def without_credentials(url: str) -> str:
    """User and password stay with who gave them."""
    return re.sub(r"^([A-Za-z][A-Za-z0-9+.-]*://)[^/?#]*@", r"\1", url)


def _image_uri(reference: str, platform: Platform) -> str:
    parsed = parse_reference(reference)
    return purl_of(f"{parsed.familiar_name}:{parsed.tag}" if parsed.tag else parsed.familiar_name, platform)


def predicate(target: Vertex, invocation: Invocation, materials: Sequence[Material], attest: Attest) -> bytes:
    """The predicate as JSON. With mode min there are neither arguments nor labels, Dockerfile, secrets' names or graph in it."""
    detailed = attest.provenance == "max"
    vertices = list(in_order([target]))
    if invocation.uri:
        materials = [Material(without_credentials(invocation.uri), digest_set(invocation.revision)), *materials]
    dependencies = [{"uri": made.uri, **({"digest": dict(made.digest)} if made.digest else {})} for made in materials]
    return msgspec.json.encode(
        {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"configSource": _config_source(invocation), "request": _request(vertices, invocation, detailed=detailed)},
                "internalParameters": {"builderPlatform": str(this_platform()), **({"buildConfig": {"definition": _graph(vertices)}} if detailed else {})},
                "resolvedDependencies": dependencies,
            },
            "runDetails": {
                "builder": {"id": attest.builder_id, "version": {"corten": __version__}},
                "metadata": _metadata(vertices, invocation, materials, attest),
            },
        }
    )


def _config_source(invocation: Invocation) -> dict[str, Any]:
    source: dict[str, Any] = {"path": invocation.dockerfile}
    if invocation.uri:
        source |= {"uri": without_credentials(invocation.uri), "digest": digest_set(invocation.revision)}
    return source


def _request(vertices: Iterable[Vertex], invocation: Invocation, *, detailed: bool) -> dict[str, Any]:
    ops = [vertex.op for vertex in vertices]
    request: dict[str, Any] = {"frontend": "dockerfile.v0", "locals": [{"name": name} for name in dict.fromkeys(op.name for op in ops if isinstance(op, Local))]}
    if not detailed:
        return request
    arguments = {f"build-arg:{name}": value for name, value in sorted(invocation.arguments.items())}
    arguments |= {f"label:{name}": value for name, value in sorted(invocation.labels.items())}
    if invocation.target:
        arguments["target"] = invocation.target
    mounts = [mount for op in ops if isinstance(op, Exec) for mount in op.mounts]
    secrets = {mount.id: not mount.required for mount in mounts if isinstance(mount, Secret)}
    agents = {mount.id: not mount.required for mount in mounts if isinstance(mount, Ssh)}
    request["args"] = arguments | {"platform": str(invocation.platform)}
    request |= {name: [{"id": key, "optional": optional} for key, optional in found.items()] for name, found in (("secrets", secrets), ("ssh", agents)) if found}
    return request


def _graph(vertices: Iterable[Vertex]) -> list[dict[str, Any]]:
    return [
        {"id": vertex.digest, "op": _shown(vertex), "inputs": [needed.digest for needed in vertex.inputs],
         **({"line": vertex.shown.line} if vertex.shown.line else {})}
        for vertex in vertices
    ]  # fmt: skip


def _shown(vertex: Vertex) -> dict[str, Any]:
    shown: dict[str, Any] = msgspec.to_builtins(definition(vertex.op))
    return shown | {"url": without_credentials(shown["url"])} if "url" in shown else shown


def _metadata(vertices: Iterable[Vertex], invocation: Invocation, materials: Iterable[Material], attest: Attest) -> dict[str, Any]:
    detailed = attest.provenance == "max"
    hermetic = all(vertex.op.network == "none" for vertex in vertices if isinstance(vertex.op, Exec))
    metadata: dict[str, Any] = {
        "invocationId": invocation.id, "startedOn": rfc3339_nano(invocation.started), "finishedOn": rfc3339_nano(invocation.finished),
        "buildkit_hermetic": hermetic, "buildkit_reproducible": attest.reproducible,
        "buildkit_completeness": {"request": detailed, "resolvedDependencies": hermetic and all(made.digest for made in materials)},
    }  # fmt: skip
    if detailed:
        data = base64.b64encode(invocation.text.encode("utf-8", "surrogateescape")).decode()
        metadata["buildkit_metadata"] = {"source": {"infos": [{"filename": invocation.dockerfile, "language": "Dockerfile", "data": data}]}}
    return metadata
