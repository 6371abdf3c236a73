"""Values of flags and options as Go's strconv and Docker's go-units read them. Pure; the texts are theirs."""

from __future__ import annotations

import re

from corten.errors import Invalid

TRUE, FALSE = frozenset({"1", "t", "T", "TRUE", "true", "True"}), frozenset({"0", "f", "F", "FALSE", "false", "False"})
_SIZE = re.compile(r"([0-9]{1,19}(?:\.[0-9]{0,19})?) ?([kmgtp]?)i?b?", re.IGNORECASE)


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool. Raises Invalid with its text."""
    if text not in TRUE | FALSE:
        raise Invalid(f'strconv.ParseBool: parsing "{text}": invalid syntax')
    return text in TRUE


def parse_size(text: str, *, unit: int = 1000) -> int:
    """Bytes: `20m`, `1.5g`, `512`; powers of 1000 where Docker says human size, of 1024 where it says RAM. Raises Invalid."""
    match = _SIZE.fullmatch(text)
    if not match:
        suffix = re.fullmatch(r"\d+(?:\.\d*)? ?(.+)", text)
        raise Invalid(f"invalid suffix: '{suffix[1].lower()}'" if suffix else f"invalid size: '{text}'")
    return int(float(match[1]) * unit ** " kmgtp".index(match[2].lower() or " "))


def parse_number(text: str) -> int:
    """Raises Invalid with Go's text."""
    if not re.fullmatch(r"[+-]?[0-9]{1,19}", text):
        raise Invalid(f'strconv.Atoi: parsing "{text}": invalid syntax')
    return int(text)


_NAMED = {
    "\\": "\\\\",
    '"': '\\"',
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\n": "\\n",
    "\r": "\\r",
    "\t": "\\t",
    "\v": "\\v",
}


def quote(text: str) -> str:
    """Go's strconv.Quote (`%q`)."""
    return f'"{"".join(_NAMED.get(letter) or (letter if letter.isprintable() else _escaped(ord(letter))) for letter in text)}"'


def quote_rune(code: int) -> str:
    """Go's strconv.QuoteRune (`%q` of a number)."""
    letter = chr(code) if code <= 0x10FFFF else "\ufffd"
    return {"'": "'\\''", '"': "'\"'"}.get(letter) or f"'{quote(letter)[1:-1]}'"


def _escaped(code: int) -> str:
    return f"\\x{code:02x}" if code < 0x80 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
