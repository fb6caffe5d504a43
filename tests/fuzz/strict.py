"""What a strict reader finds in a broken trace: bytes in, whole events out. Shares no code with the loader.

zlib inflates byte by byte near damage, the json module parses one event at a time from every `{` of the list. An
event counts when it is valid JSON (numbers finite, UTF-8 whole) and an object with a phase.
"""

from __future__ import annotations

import codecs
import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

Span = tuple[str, int, int]  # name, start_ns, dur_ns
FLOAT_EXACT_NS = 1000 << 43  # a longer duration is read as a float that no longer tells nanoseconds apart


@dataclass(frozen=True)
class Found:
    """What a strict reader keeps.

    spans: the complete events with a usable name and time. loose: complete events with an odd type or no time, which
    a tolerant reader may keep or drop, and ends, of which it may make spans. others: events of other phases, and spans
    that say no start (which are loose too).
    """

    spans: Counter[Span]
    loose: int
    others: int


def strict_events(data: bytes) -> Found:
    """Every whole event after the first opening of a list of events, also beyond the end of that list."""
    text = _plain(data).decode("latin-1")  # one character per byte: nothing fails, offsets stay
    text = text.removeprefix("\xef\xbb\xbf")
    opening = re.compile(r"\s*\[").match(text) or re.compile(r'"traceEvents"\s*:\s*\[').search(text)
    spans: Counter[Span] = Counter()
    loose = others = 0
    at = opening.end() if opening else len(text)
    while (at := text.find("{", at)) >= 0:
        value, end = _object(text, at)
        if value is None or not isinstance(value.get("ph"), str) or not value["ph"]:
            at += 1
            continue
        span = span_of(value) if _is_text(text[at:end]) else None
        if value["ph"] != "X" or "ts" not in value:
            others += 1
            loose += value["ph"] in ("E", "e", "X")  # without a start only GPU work is kept
        elif span is None:
            loose += 1
        else:
            spans[span] += 1
        at = end
    return Found(spans, loose, others)


def _plain(data: bytes) -> bytes:
    """The file as UTF-8, inflated as far as it goes."""
    out = bytearray()
    packed = data
    if not data.startswith(b"\x1f\x8b"):
        out += data
    while packed.startswith(b"\x1f\x8b"):
        member = zlib.decompressobj(31)
        rest = b""
        for at in range(len(packed)):
            try:
                out += member.decompress(packed[at : at + 1])
            except zlib.error:
                break
            if member.eof:
                rest = packed[at + 1 :].lstrip(b"\0")  # padding
                break
        packed = rest
    if out.startswith(b"\x1f\x8b") and out != data:  # packed again
        return _plain(bytes(out))
    if out[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE):
        return bytes(out).decode("utf-16", "replace").encode("utf-8")
    return bytes(out)


def _no(text: str) -> Any:
    raise ValueError(text)


_DECODER = json.JSONDecoder(parse_constant=_no, parse_float=Decimal)


def _object(text: str, at: int) -> tuple[dict[str, Any] | None, int]:
    try:
        _, end = _DECODER.raw_decode(text, at)
        value = _DECODER.decode(text[at:end].encode("latin-1").decode("utf-8", "replace"))
        json.dumps(value, ensure_ascii=False, default=str).encode("utf-8")  # no half of a surrogate pair
    except (ValueError, RecursionError, ArithmeticError):
        return None, at
    return (value, end) if isinstance(value, dict) else (None, at)


def _is_text(piece: str) -> bool:
    """Whether the bytes are UTF-8; where not, a reader may well keep the event if they stand in what it skips."""
    try:
        piece.encode("latin-1").decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def span_of(event: dict[str, Any]) -> Span | None:
    """Name and times of a complete event; None when one of them is missing, of another type or out of range."""
    name = event.get("name", "")
    start, dur = _ns(event.get("ts")), _ns(event.get("dur"))
    if not isinstance(name, str) or start is None or dur is None or dur < 0:
        return None
    return key(name, start, dur)


def key(name: str, start_ns: int, dur_ns: int) -> Span:
    """A span to compare by."""
    return name, start_ns, dur_ns if dur_ns < FLOAT_EXACT_NS else -1


def _ns(value: Any) -> int | None:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    if isinstance(value, Decimal) and (not value.is_finite() or value.adjusted() > 18):  # 1e99999999
        return None
    ns = round(Decimal(value) * 1000)
    return ns if abs(ns) < 1 << 62 else None
