"""URLs of git repositories as ADD and build contexts take them: `URL#ref:folder`, `URL?ref=...&subdir=...`. Pure.

Source: Docker docs, "Build context", "Git repositories", "URL queries"; BuildKit's dfgitutil and gitutil for what counts as one.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NoReturn
from urllib.parse import parse_qsl, unquote, urlsplit

from corten.errors import Invalid
from corten.spec.go_values import parse_bool

_SCHEME = re.compile(r"([a-zA-Z0-9]+)://")
_SCP = re.compile(r"[a-zA-Z0-9-_]+@[a-zA-Z0-9-.]+:[^?#]*")
_TRUE_WITHOUT_VALUE = ("submodules", "keep-git-dir")


@dataclass(frozen=True)
class GitReference:
    """`remote` is for git itself. `checksum`: the commit id, or its beginning. `keep_git_dir` None: nothing is said."""

    remote: str
    ref: str = ""
    folder: str = ""
    checksum: str = ""
    keep_git_dir: bool | None = None
    submodules: bool = True


def parse_git_reference(text: str, *, bare_github: bool = False) -> GitReference | None:
    """None: that is no git repository. `bare_github`: `github.com/user/repo` is one (of contexts only). Raises Invalid for a bad query."""
    if text.startswith(("./", "../")):
        return None
    if bare_github and text.startswith("github.com/"):
        text = f"https://{text}"
    elif not _is_git(text):
        return None
    address, _, fragment = text.partition("#")
    address, _, query = address.partition("?")
    ref, _, folder = unquote(fragment).partition(":")
    return _with_query(GitReference(address, ref, _folder(folder)), query)


def _is_git(text: str) -> bool:
    scheme = _SCHEME.match(text)
    if not scheme:
        return bool(_SCP.match(text))
    if scheme[1].lower() in ("http", "https"):
        return _path(text).endswith(".git")
    return scheme[1].lower() in ("git", "ssh")


def _path(text: str) -> str:
    try:
        return urlsplit(text).path
    except ValueError:
        return ""


def _folder(text: str) -> str:
    return posixpath.normpath(posixpath.join("/", text)).lstrip("/")


def _with_query(found: GitReference, query: str) -> GitReference:
    refs: dict[str, str] = {"ref": found.ref} if found.ref else {}
    for name, value in _pairs(query):
        match name:
            case "ref" | "tag" | "branch":
                if refs.get(name, value) != value:
                    _conflict("ref", refs[name], value)
                refs[name] = _full(name, value)
            case "subdir":
                folder = _folder(value)
                if found.folder not in ("", folder):
                    _conflict("subdir", found.folder, value)
                found = replace(found, folder=folder)
            case "checksum" | "commit":
                found = replace(found, checksum=value)
            case "keep-git-dir":
                found = replace(found, keep_git_dir=_bool(name, value))
            case "submodules":
                found = replace(found, submodules=_bool(name, value))
            case _:
                raise Invalid(
                    f'unexpected query "{name}" of a git repository (there are ref, tag, branch, subdir, checksum, commit, keep-git-dir, submodules)'
                )
    if len(set(refs.values())) > 1:
        _conflict("ref", *list(refs.values())[:2])
    return replace(found, ref=next(iter(refs.values()), ""))


def _pairs(query: str) -> Iterator[tuple[str, str]]:
    seen: set[str] = set()
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name in seen:
            raise Invalid(f'query "{name}" has multiple values')
        if not value and name not in _TRUE_WITHOUT_VALUE:
            raise Invalid(f'query "{name}" has no value')
        seen.add(name)
        yield name, value


def _full(kind: str, name: str) -> str:
    prefix = {"tag": "refs/tags/", "branch": "refs/heads/"}.get(kind, "")
    return name if name.startswith(prefix) else prefix + name


def _conflict(what: str, one: str, other: str) -> NoReturn:
    raise Invalid(f'{what} conflicts: "{one}" vs "{other}"')


def _bool(name: str, value: str) -> bool:
    try:
        return parse_bool(value or "true")
    except Invalid:
        raise Invalid(f'invalid {name} value: "{value}"') from None
