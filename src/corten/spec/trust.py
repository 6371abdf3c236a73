"""The trust policy: which repositories' images must be signed by whom, or be what digest. Pure: text -> rules -> the rule of a reference.

Reading the file and its keys is registry/trust.py's, checking signatures registry/signatures.py's. The format is docs/trust.md's.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any, Literal

import msgspec

from corten.errors import Invalid
from corten.spec.digest import is_digest
from corten.spec.reference import Reference


class Rule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="kebab"):
    """One entry of the file. `keys` and `certificates` are names of files; `digests` maps a tag to what it must be.

    All that a rule lists must hold; of keys and certificates together, one. `line` and `policy` say where it is written.
    """

    repositories: list[str]
    mode: Literal["require", "warn", "off"]
    keys: list[str] = []
    certificates: list[str] = []
    identities: list[str] = []
    digests: dict[str, str] = {}
    digest_only: bool = False
    line: int = 0
    policy: str = ""

    def covers(self, reference: Reference) -> bool:
        """By the repository's full name or the one that Docker shows; `*` stands for slashes, too."""
        return any(fnmatchcase(name, pattern) for pattern in self.repositories for name in (reference.name, reference.familiar_name))

    @property
    def signers(self) -> list[str]:
        return [*self.keys, *self.certificates]

    @property
    def place(self) -> str:
        return f"{self.policy} line {self.line}"


def rule_for(rules: list[Rule], reference: Reference) -> Rule | None:
    """The first that covers the reference; None where nothing is asked of it."""
    found = next((rule for rule in rules if rule.covers(reference)), None)
    return found if found and found.mode != "off" else None


def parse_policy(text: bytes, path: str) -> list[Rule]:
    """`path` is for messages. Raises Invalid naming file, line and key."""
    import yaml  # only where there is a policy

    try:
        root, entries = yaml.compose(text, Loader=yaml.SafeLoader), yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise Invalid(f"trust policy {path}: {error}") from None
    if not isinstance(root, yaml.SequenceNode):
        raise Invalid(f"trust policy {path}: want a list of rules, each with repositories and a mode (docs/trust.md)")
    return [_rule(entry, node.start_mark.line + 1, path) for entry, node in zip(entries, root.value, strict=True)]


def _rule(entry: Any, line: int, path: str) -> Rule:
    where = f"trust policy {path} line {line}"
    if not isinstance(entry, dict):
        raise Invalid(f"{where}: want a rule with repositories and a mode")
    if entry.keys() & {"line", "policy"}:
        raise Invalid(f"{where}: Object contains unknown field `{min(entry.keys() & {'line', 'policy'})}`")
    if entry.get("mode") is False:  # what YAML makes of the word off
        entry = entry | {"mode": "off"}
    if isinstance(entry.get("repositories"), str):
        entry = entry | {"repositories": [entry["repositories"]]}
    try:
        rule = msgspec.convert(entry | {"line": line, "policy": path}, Rule)
    except msgspec.ValidationError as error:
        raise Invalid(f"{where}: {error}") from None
    _check(rule, where)
    return rule


def _check(rule: Rule, where: str) -> None:
    if rule.mode != "off" and not (rule.signers or rule.digests or rule.digest_only):
        raise Invalid(f"{where}: mode {rule.mode} without keys, certificates, digests or digest-only: say what is asked for")
    if rule.identities and not rule.certificates:
        raise Invalid(f"{where}: identities are those of certificates, and none is listed")
    for tag, digest in rule.digests.items():
        if not is_digest(digest):
            raise Invalid(f"{where}: digests: {tag}: {digest!r} is no digest: want sha256: and 64 lower-case hexadecimal digits")
