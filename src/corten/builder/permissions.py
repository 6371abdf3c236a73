"""Owners and modes as COPY, ADD and RUN --mount have them: `user[:group]` and octal or symbolic modes. Pure.

Sources: BuildKit's file op (a number without a group is the group too, a name has its own); chmod(1) for symbolic modes.
"""

from __future__ import annotations

import re
import stat
from functools import lru_cache

from corten.errors import Invalid
from corten.runtime import users

_OCTAL = re.compile(r"[0-7]+")
_CLAUSE = re.compile(r"([ugoa]*)((?:[+\-=](?:[ugo]|[rwxXst]*))+)")
_ACTION = re.compile(r"([+\-=])([ugo]|[rwxXst]*)")
_WHO = {"u": 0o4700, "g": 0o2070, "o": 0o1007}
_BITS = {"r": 0o444, "w": 0o222, "x": 0o111}
_SHIFT = {"u": 6, "g": 3, "o": 0}


class BadMode(Invalid):
    template = "invalid chmod parameter: '{mode}'. it should be octal string and between 0 and 07777, or symbolic as in chmod(1)"


def owner_of(text: str, passwd: str, group: str) -> tuple[int, int]:
    """(uid, gid); empty text is 0:0. Raises users.UnknownUser."""
    if not text:
        return 0, 0
    account = users.resolve(text, (), passwd, group)
    user, colon, _ = text.partition(":")
    return account.uid, account.uid if user.isdecimal() and not colon else account.gid


def new_folder_mode(text: str) -> int:
    """Of a folder that a copy makes to have a place for what it copies: an octal mode is its, too, a symbolic one changes what is copied alone."""
    return changed_mode(text, 0o755, folder=True) if _OCTAL.fullmatch(text) else 0o755


@lru_cache(maxsize=4096)
def changed_mode(text: str, mode: int, *, folder: bool) -> int:
    """The mode that `text` makes of an entry's. Raises BadMode."""
    if not text:
        return mode
    if _OCTAL.fullmatch(text):
        if int(text, 8) > 0o7777:
            raise BadMode(mode=text)
        return int(text, 8)
    for clause in text.split(","):
        found = _CLAUSE.fullmatch(clause)
        if not found:
            raise BadMode(mode=text)
        for sign, what in _ACTION.findall(found[2]):
            mode = _apply(mode, found[1] or "a", sign, what, folder=folder)
    return mode


def _apply(mode: int, who: str, sign: str, what: str, *, folder: bool) -> int:
    mask = 0o7777 if "a" in who else sum(_WHO[letter] for letter in set(who))
    bits = _bits(mode, mask, what, folder=folder)
    if sign == "+":
        return mode | bits
    if sign == "-":
        return mode & ~bits
    kept = mode & (stat.S_ISUID | stat.S_ISGID) if folder else 0  # chmod(1): a folder keeps them unless they are named
    return mode & ~(mask & 0o1777) & (0o7777 if folder else ~(mask & 0o6000)) | bits | kept


def _bits(mode: int, mask: int, what: str, *, folder: bool) -> int:
    if what in _SHIFT and len(what) == 1:
        copied = mode >> _SHIFT[what] & 7
        return (copied | copied << 3 | copied << 6) & mask
    bits = 0
    for letter in what:
        if letter in _BITS:
            bits |= _BITS[letter] & mask
        elif letter == "X":
            bits |= 0o111 & mask if folder or mode & 0o111 else 0
        elif letter == "s":
            bits |= mask & 0o6000
        else:
            bits |= stat.S_ISVTX & mask or (stat.S_ISVTX if mask & 0o7 else 0)
    return bits
