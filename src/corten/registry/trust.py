"""The trust check of a pull: finding an image's signatures beside it in its registry, and deciding by the policy's rule.

Signatures are looked for where cosign puts them: the tag `sha256-<hex>.sig`, and the image's referrers (distribution-spec 1.1
"Listing Referrers", with its tag `sha256-<hex>` where a registry has no such list). What a signature is worth, signatures.py
tells. Must not store anything: nothing of a refused image is downloaded.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from corten.errors import CortenError, Forbidden, Invalid
from corten.registry.client import ManifestMissing, Repository
from corten.registry.progress import Emit, Progress
from corten.spec.digest import encoded
from corten.spec.image import Descriptor, Index, Manifest, parse_manifest
from corten.spec.reference import Reference
from corten.spec.trust import Rule, parse_policy, rule_for

if TYPE_CHECKING:
    from corten.registry import signatures

_log = logging.getLogger("corten.registry")
_MOST = 64  # signatures of one image that are looked at
_LIMIT = 1 << 20


class Untrusted(Forbidden):
    template = "{reference} is not trusted: {reason} ({place} asks for it)"


class Trust:
    """The policy file, read anew for every pull: an edit holds at once. Without a path nothing is asked of anybody."""

    def __init__(self, path: str = "") -> None:
        self._path = path

    def rules(self) -> list[Rule]:
        """Reads the policy and every key that it names. Raises Invalid naming the file, the line, and the key."""
        if not self._path:
            return []
        try:
            with open(self._path, "rb") as file:
                rules = parse_policy(file.read(), self._path)
        except OSError as error:
            raise Invalid(f"trust policy {self._path}: {error.strerror}") from None
        for rule in rules:
            _load_signers(rule)
        return rules

    async def rule_for(self, reference: Reference) -> Rule | None:
        return rule_for(await asyncio.to_thread(self.rules), reference) if self._path else None


def _load_signers(rule: Rule) -> list[signatures.Signer]:
    from corten.registry import signatures  # cryptography: only where there is a policy

    found: list[signatures.Signer] = []
    for name in rule.signers:
        try:
            with open(os.path.join(os.path.dirname(rule.policy), name), "rb") as file:
                data = file.read()
            found += [signatures.load_key(name, data)] if name in rule.keys else signatures.load_certificate(name, data)
        except OSError as error:
            raise Invalid(f"trust policy {rule.place}: {name}: {error.strerror}") from None
        except signatures.Unusable as error:
            raise Invalid(f"trust policy {rule.place}: {name}: {error.message}") from None
    return found


async def check(remote: Repository, reference: Reference, digests: Sequence[str], rule: Rule, emit: Emit) -> bool:
    """Whether what `reference` means may be used. `digests`: of what was asked for, then of the platform's manifest in it.

    True if that goes for all that was asked for; False if the platform's manifest alone is vouched for, and what else an index lists is
    not. Raises Untrusted in mode `require`; in mode `warn` says the same and goes on.
    """
    whole = True
    try:
        _check_digests(reference, digests, rule)
        pinned = rule.digests.get(reference.tag)
        whole = digests[0] in ([pinned] if pinned else rule.digests.values()) if rule.digests else True
        if rule.signers:
            signer, subjects = await _signer(remote, reference, digests, rule)
            whole = whole and digests[0] in subjects
            emit(Progress(f"Signature: {digests[0]} is signed by {signer} ({rule.place})"))
    except CortenError as error:
        if rule.mode == "require":
            raise
        _log.warning("%s", error.message)
        emit(Progress(f"Warning: {error.message}"))
    return whole or rule.mode != "require"


def _check_digests(reference: Reference, digests: Sequence[str], rule: Rule) -> None:
    pinned = rule.digests.get(reference.tag)
    if pinned and pinned not in digests:
        raise _untrusted(reference, rule, f"its digest is {digests[0]}, pinned is {pinned}")
    if rule.digests and not pinned and not set(digests) & set(rule.digests.values()):
        raise _untrusted(reference, rule, f"its digest {digests[0]} is none of those that are pinned")
    if rule.digest_only and not reference.digest:
        raise _untrusted(reference, rule, f"it must be asked for by digest, and {reference.familiar_name}@{digests[0]} is what it is now")


def _untrusted(reference: Reference, rule: Rule, reason: str) -> Untrusted:
    return Untrusted(reference=reference.familiar, reason=reason, place=rule.place)


async def _signer(remote: Repository, reference: Reference, digests: Sequence[str], rule: Rule) -> tuple[str, frozenset[str]]:
    """The name of a key or certificate that has signed one of the digests, and all that it has signed there."""
    from corten.registry import signatures  # cryptography: only where there is a policy

    signers, now, against, count = _load_signers(rule), datetime.now(UTC), list[str](), 0
    for digest in dict.fromkeys(digests):
        async for layer, where in _signature_layers(remote, digest):
            count += 1
            if count > _MOST:
                raise _untrusted(reference, rule, f"none of its first {_MOST} signatures is by one of {', '.join(rule.signers)}")
            payload = await remote.document(layer.digest, _LIMIT)
            try:
                signature = signatures.READERS[layer.media_type](payload, layer.annotations or {})
                return signatures.judge(signature, digests, signers, rule.identities, now).name, signature.subjects
            except signatures.Unusable as error:
                against.append(f"the signature in {where}: {error.message}")
    wanted = ", ".join(rule.signers)
    if not against:
        raise _untrusted(reference, rule, f"{remote.host} has no signature of {digests[0]}; wanted is one by {wanted}")
    raise _untrusted(reference, rule, f"no signature of {digests[0]} is by {wanted}; " + "; ".join(against))


async def _signature_layers(remote: Repository, digest: str) -> AsyncIterator[tuple[Descriptor, str]]:
    """Every layer that holds a signature of `digest`, and what to call the place it was found in."""
    from corten.registry import signatures  # cryptography: only where there is a policy

    sources = [f"sha256-{encoded(digest)}.sig"]
    sources += [entry.digest for entry in await _referrers(remote, digest) if entry.artifact_type in signatures.ARTIFACTS]
    for which in sources:
        manifest = await _document(remote, which)
        for layer in manifest.layers if isinstance(manifest, Manifest) else []:
            if layer.media_type in signatures.READERS:
                yield layer, which


async def _referrers(remote: Repository, digest: str) -> list[Descriptor]:
    listed = await remote.referrers(digest)
    index = parse_manifest(listed, "") if listed is not None else await _document(remote, f"sha256-{encoded(digest)}")
    return index.manifests if isinstance(index, Index) else []


async def _document(remote: Repository, which: str) -> Manifest | Index | None:
    try:
        data, media_type, _ = await remote.manifest(which)
    except ManifestMissing:
        return None
    return parse_manifest(data, media_type)
