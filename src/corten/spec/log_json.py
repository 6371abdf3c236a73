r"""Docker's json-file format, both ways. Pure.

One object a line: {"log": "...\n", "stream": "stdout", "attrs": {...}, "time": RFC 3339 with nanoseconds}. The records of a run
end alike (stream, attributes, time), so a run is encoded and decoded as one string: the records' borders are one constant.
What is not ASCII is written as it is, not escaped; every JSON reader reads the same. Source: moby daemon/logger/jsonfilelog.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache

import msgspec

from corten.errors import Invalid
from corten.spec.log_lines import Attributes, Run, as_text
from corten.spec.timestamps import parse_rfc3339, rfc3339_nano

_HEAD = b'{"log":"'
_TAIL = b'","stream":"'
_MARK = "\x7f"  # stands for a newline while a run is encoded: JSON needs no escape for it, and text hardly ever has it
_SCALE = [int(10 ** (9 - digits)) for digits in range(10)]  # of a fraction with so many digits, to nanoseconds
_encode = msgspec.json.encode
_text = msgspec.json.Decoder(str).decode


class _Record(msgspec.Struct, frozen=True):
    time: str
    log: str = ""
    stream: str = "stdout"
    attrs: dict[str, str] | None = None


_record = msgspec.json.Decoder(_Record).decode


def encode(run: Run) -> bytes:
    """Its records, each with its newline."""
    attrs = b',"attrs":' + _encode(dict(run.attributes)) if run.attributes else b""
    tail = b'","stream":"%s"%s,"time":"%s"}\n' % (run.stream.encode(), attrs, rfc3339_nano(run.time).encode())
    text = as_text(run.data)
    if not text.endswith("\n"):
        return _HEAD + _encode(text)[1:-1] + tail
    if _MARK in text:
        return b"".join(_HEAD + _encode(line + "\n")[1:-1] + tail for line in text[:-1].split("\n"))
    body = _encode(text[:-1].replace("\n", _MARK))[1:-1]
    tail = b"\\n" + tail
    return _HEAD + body.replace(b"\x7f", tail + _HEAD) + tail


def decode(block: bytes) -> Iterator[Run]:
    """The runs of a block of whole records. What is no record (a torn write after a power cut) is left out."""
    position, size = 0, len(block)
    while position < size:
        end = block.find(b"\n", position) + 1 or size
        record = block[position:end]
        tail = record[record.rfind(_TAIL) :]
        if not block.endswith(tail, end, block.find(b"\n", end) + 1):  # alone: a log that was written slowly has many such
            yield from _decode_each((record,))
            position = end
            continue
        last = _end_of_run(block, end, tail)
        try:
            yield _decode_run(block[position:last], record, tail)
        except (msgspec.MsgspecError, UnicodeError, Invalid):
            yield from _decode_each(block[position:last].splitlines())
        position = last


def whole(block: bytes) -> int:
    """How much of a block is whole records."""
    return block.rfind(b"\n") + 1


def _end_of_run(block: bytes, good: int, tail: bytes) -> int:
    """Where the records that end as the one before `good` end, searched in doubling steps (what is between is proven later)."""
    step = 2 * (len(tail) + len(_HEAD))
    while good < len(block):
        probe = block.rfind(b"\n", good, good + step) + 1 or block.find(b"\n", good) + 1 or len(block)
        if not block.endswith(tail, good, probe):
            found = block.rfind(tail, good, probe)
            return found + len(tail) if found >= 0 else good
        good, step = probe, step * 2
    return good


def _decode_run(records: bytes, first: bytes, tail: bytes) -> Run:
    """Raises unless each record has the tail and one newline at its end."""
    record = _record(first)
    attributes = tuple(sorted(record.attrs.items())) if record.attrs else ()
    moment = _parse_time(record.time)
    border = tail + _HEAD
    body = records[len(_HEAD) : -len(tail)]
    joined = body.replace(border, b"")
    data = _text(b'"' + joined + b'"').encode()
    if not data.endswith(b"\n") or data.count(b"\n") != (len(body) - len(joined)) // len(border) + 1:
        raise Invalid("not one line a record")
    return Run(record.stream, moment, data, attributes)


def _decode_each(records: Iterable[bytes]) -> Iterator[Run]:
    for raw in records:
        try:
            record = _record(raw)
            attributes: Attributes = tuple(sorted(record.attrs.items())) if record.attrs else ()
            yield Run(record.stream, _parse_time(record.time), record.log.encode(), attributes)
        except (msgspec.MsgspecError, UnicodeError, Invalid):
            continue


_second = lru_cache(maxsize=64)(parse_rfc3339)


def _parse_time(text: str) -> int:
    """Most records share their second; only the fraction is parsed anew."""
    fraction = text[20:-1]
    if text[19:20] == "." and text[-1] == "Z" and len(fraction) <= 9 and fraction.isdecimal():
        return _second(text[:19]) + int(fraction) * _SCALE[len(fraction)]
    return parse_rfc3339(text)
