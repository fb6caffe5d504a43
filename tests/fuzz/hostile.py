"""Traces that mean harm: limits of numbers, depth, length, texts and keys, one to four of them in a valid trace."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

EDGES = [1 << 8, 1 << 31, 1 << 32, 1 << 43, (1 << 43) * 1000, 1 << 53, 1 << 62, 1 << 63, 1 << 64, 10**19, 10**30]
BAD_UTF8 = [
    b"\x80", b"\xbf", b"\xc0\x80", b"\xc1\xbf", b"\xc2", b"\xe0\x80\x80", b"\xe0\x9f\xbf", b"\xe2\x82", b"\xed\xa0\x80",
    b"\xed\xbf\xbf", b"\xf0\x80\x80\x80", b"\xf0\x8f\xbf\xbf", b"\xf0\x9f\x98", b"\xf4\x90\x80\x80", b"\xff", b"\xfe",
    b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xc2\xa0", b"\xe2\x82\xac", b"\xed\x9f\xbf", b"\xee\x80\x80",
    b"\xf0\x90\x80\x80", b"\xf4\x8f\xbf\xbf",
]  # fmt: skip
ESCAPES = [
    "\\u0000", "\\uD800", "\\udfff", "\\ud83d\\ude00", "\\ude00\\ud83d", "\\ud83dx", "\\uD83D\\n", "\\ud7ff", "\\ue000",
    "\\uffff", "\\u00g0", "\\u", "\\u123", "\\U0041", "\\a", "\\'", "\\\n", "\\/", "\\b\\f\\r\\t",
]  # fmt: skip
KEYS = [
    "ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args", "stream", "device", "correlation", "External id",
    "external id", "Input Dims", "Input dims", "Collective name", "bytes", "Python id", "labels", "Ev Idx", "grid",
]  # fmt: skip
WORDS = ["NaN", "Infinity", "-Infinity", "nan", "inf", "True", "None", "nulll", "tru", "N/A", "'a'", "--1", "1-"]
JUNK = [
    b"]", b"}", b"}}", b"]]", b"]}", b"}]", b",", b",,", b" xyz", b", xyz", b"//", b"\x00\x00", b"[", b"{", b'"',
    b', "a": 1', b', "a": [{"id": 0, "name": "x"}]', b", 5", b", null", b", []", b", {}", b", inf", b'{"ph": "X"}',
    b'], "b": [', b"}], ", b'}\n{"traceEvents": [',
    b',\n  {\n    "ph": "X", "name": "j", "ts": 1.5, "dur": 2, "pid": 1, "tid": 1\n  }',
]  # fmt: skip
_STRING = re.compile(rb'"[^"\\\n]*"')
_LIST_END = re.compile(rb"(?<=\})\s*\](?=[^\[\]]*(?:\Z|,\s*\"|\}))")
_EVENT_END = re.compile(rb"\}(?=\s*,\s*\{)")
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_AFTER = re.compile(rb"[{,]\s*(?=\")")
_COLON = re.compile(rb'(?<="): ?')


def _number(draw: random.Random) -> str:
    whole = draw.choice(EDGES) + draw.randrange(-2, 3)
    text = draw.choice(("", "-")) + str(max(whole, 0))
    if draw.random() < 0.5:
        places = draw.choice((1, 2, 3, 4, 6, 12, 17, 40))
        text += "." + "".join(draw.choice("0459") for _ in range(places))
    if draw.random() < 0.2:
        text += draw.choice("eE") + draw.choice(("", "+", "-")) + str(draw.choice((0, 1, 5, 99, 100, 308, 309, 400)))
    return text


def _key(key: str, draw: random.Random) -> str:
    """The key, often with one of its letters escaped."""
    if draw.random() < 0.5:
        return key
    at = draw.randrange(len(key))
    return f"{key[:at]}\\u{ord(key[at]):04{draw.choice('xX')}}{key[at + 1 :]}"


def _deep(draw: random.Random) -> str:
    depth = draw.choice((3, 58, 59, 60, 61, 62, 63, 200, 1024, 5000))
    one = draw.choice((("[", "]"), ('{"a":', "}"), ('[{"b":', "}]")))
    closed = depth - draw.choice((0, 0, 0, 1))
    return one[0] * depth + draw.choice(("1", '"x"', "", "null")) + one[1] * closed


def _long(draw: random.Random) -> str:
    size = draw.choice((7, 8, 9, 61, 62, 63, 64, 65, 254, 255, 256, 257, 4096, 70_000))
    return draw.choice(("a", "é", "\\n", " ", "\\u0041")) * size


def _value(draw: random.Random) -> str:
    kind = draw.randrange(6)
    if kind < 2:
        text = _number(draw)
        return f'"{text}"' if kind else text
    return (_deep(draw), f'"{_long(draw)}"', draw.choice(WORDS), f'"a{draw.choice(ESCAPES)}b"')[kind - 2]


def _members(draw: random.Random) -> bytes:
    """A few members: of one key twice, of a key with an escape, of a very long key."""
    found = []
    for _ in range(draw.choice((1, 1, 2, 4))):
        key = draw.choice(KEYS) if draw.random() < 0.8 else _long(draw)
        found += [f'"{_key(key, draw) if len(key) < 99 else key}": {_value(draw)}'] * draw.choice((1, 1, 2))
    return (", ".join(found) + ", ").encode()


def _in_place(pattern: re.Pattern[bytes], data: bytes, new: bytes, draw: random.Random) -> bytes:
    found = pattern.search(data, draw.randrange(len(data)))
    return data if found is None else data[: found.start()] + new + data[found.end() :]


def _inside(data: bytes, new: bytes, draw: random.Random) -> bytes:
    """Put something into a string: at its beginning, its end, or between."""
    found = _STRING.search(data, draw.randrange(len(data)))
    if found is None:
        return data
    at = draw.choice((found.start() + 1, found.end() - 1, draw.randrange(found.start() + 1, found.end())))
    return data[:at] + new + data[at:]


def _more(data: bytes, draw: random.Random) -> bytes:
    found = _AFTER.search(data, draw.randrange(len(data)))
    return data if found is None else data[: found.end()] + _members(draw) + data[found.end() :]


def _ends(data: bytes, draw: random.Random) -> bytes:
    """A mark at the beginning, other line ends, or NULs, and a cut anywhere."""
    data = draw.choice((b"\xef\xbb\xbf", b"\xef\xbb", b"\x00", b"", b"\n\n", b"[")) + data
    data = data.replace(b"\n", draw.choice((b"\n", b"\r\n", b"\r", b"\n\x00", b"\n\xc2\x85", b"\n\x0b")))
    return data[: draw.choice((len(data), draw.randrange(len(data))))]


KINDS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    lambda data, draw: _in_place(_NUMBER, data, _number(draw).encode(), draw),
    lambda data, draw: _in_place(_STRING, data, _value(draw).encode(), draw),
    lambda data, draw: _in_place(_COLON, data, draw.choice((b"", b" ", b"=", b"::", b"\t:\n", b": ,")), draw),
    lambda data, draw: _inside(data, draw.choice(BAD_UTF8), draw),
    lambda data, draw: _inside(data, draw.choice(ESCAPES).encode(), draw),
    _more,
    _more,
    _ends,
)


def hostile(seed: int, corpus: list[bytes]) -> bytes:
    """Text number `seed`."""
    draw = random.Random(f"hostile {seed}")
    data = draw.choice(corpus)
    for _ in range(draw.choice((1, 1, 2, 4))):
        data = draw.choice(KINDS)(data, draw)
    return data


def ended(seed: int, corpus: list[bytes]) -> bytes:
    """Text number `seed`: junk where the list ends, and between events before that."""
    draw = random.Random(f"ended {seed}")
    data = draw.choice(corpus)
    for _ in range(draw.choice((0, 1, 1, 3))):
        data = _at_one(_EVENT_END, data, draw)
    data = _at_one(_LIST_END, data, draw)
    return draw.choice(KINDS)(data, draw) if draw.random() < 0.3 else data


def _at_one(pattern: re.Pattern[bytes], data: bytes, draw: random.Random) -> bytes:
    """Put junk on one or both sides of a match, mostly one of the last; at times without the match."""
    found = list(pattern.finditer(data))
    if not found:
        return data
    one = draw.choice(found[-3:] if draw.random() < 0.7 else found)
    before, after = (b"".join(draw.choices(JUNK, k=draw.choice((0, 1, 1, 2)))) for _ in range(2))
    return data[: one.start()] + before + (one[0] if draw.random() < 0.8 else b"") + after + data[one.end() :]
