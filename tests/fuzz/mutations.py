"""Break traces at random: bytes and a seed in, broken bytes out; the same seed always breaks in the same way."""

from __future__ import annotations

import gzip
import random
import re
import zlib
from collections.abc import Callable, Sequence

Mutation = Callable[[bytes, random.Random, Sequence[bytes]], bytes]

STRUCTURE = [
    b'"',
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"\\",
    b"\n",
    b"\x00",
    b"\xff",
    b"\xc3",
    b"\x1f\x8b",
    b"\xef\xbb\xbf",
]
TOKENS = [
    b"NaN", b"-Infinity", b"N/A", b"null", b"true", b'""', b"{}", b"[]", b"-1", b"1e400", b"-0.0", b"9" * 25, b"1e18",
    b"9223372036854775807", b"-9223372036854775808", b"4611686018427387.903", b"0x7f", b"01", b'"X"', b'"M"',
    b'"\\ud800"', b'"\\u0000"', b'"a \\"b\\" c"', b'"traceEvents": [', b"[[[[[[[[", b"{" * 2000, b"[" * 5000,
    b'{"a":' * 3000, b"}, {", b"\n  },\n  {\n", b"]}", b'"ph": "X", ', b'"dur": -5, ', b'"args": {},', b"\r\n",
    b"//", b"'", b"\\u12",
]  # fmt: skip
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?")
_STRING = re.compile(rb'"[^"\\\n]*"')


def mutate(seed: int, corpus: Sequence[bytes]) -> bytes:
    """File number `seed`: one of the corpus, broken one to six times, gzipped (and broken again) in a third."""
    draw = random.Random(seed)
    data = draw.choice(corpus)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        data = draw.choice(MUTATIONS)(data, draw, corpus)
    kind = draw.randrange(9)
    if kind >= 3:
        return data
    packed = gzip.compress(data, compresslevel=draw.choice((0, 1, 6)), mtime=0)
    if kind == 1:
        packed = draw.choice((flip_bits, delete, truncate, junk, splice))(packed, draw, corpus)
    if kind == 2:  # several members, a hole in one of them
        middle = draw.randrange(len(data) + 1)
        parts = [gzip.compress(part, mtime=0) for part in (data[:middle], data[middle:])]
        packed = draw.choice((b"", b"\x00" * 7, b"junk")).join(parts)
    return packed


def _at(data: bytes, draw: random.Random) -> int:
    return draw.randrange(len(data) + 1)


def _span(data: bytes, draw: random.Random) -> tuple[int, int]:
    first = _at(data, draw)
    return first, min(len(data), first + draw.choice((1, 2, 5, 20, 100, 1000, 10_000)))


def flip_bits(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    out = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 8, 64)) if out else 0):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def delete(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    first, last = _span(data, draw)
    return data[:first] + data[last:]


def duplicate(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    first, last = _span(data, draw)
    at = _at(data, draw)
    return data[:at] + data[first:last] * draw.choice((1, 1, 3)) + data[at:]


def truncate(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return data[: _at(data, draw)]


def behead(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return data[min(_at(data, draw), draw.choice((1, 10, 200))) :]


def splice(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    other = draw.choice(corpus)
    return data[: _at(data, draw)] + other[_at(other, draw) :]


def concatenate(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return data + draw.choice((b"", b"\n", b",", b"\x00")) + draw.choice(corpus)


def insert_structure(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    at = _at(data, draw)
    return data[:at] + draw.choice(STRUCTURE) * draw.choice((1, 1, 1, 2, 40)) + data[at:]


def insert_token(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    at = _at(data, draw)
    return data[:at] + draw.choice(TOKENS) + data[at:]


def junk(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    at = _at(data, draw)
    return data[:at] + draw.randbytes(draw.choice((1, 4, 100))) + data[at:]


def _replace_one(pattern: re.Pattern[bytes], data: bytes, draw: random.Random) -> bytes:
    found = pattern.search(data, _at(data, draw))
    return data if found is None else data[: found.start()] + draw.choice(TOKENS) + data[found.end() :]


def odd_number(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return _replace_one(_NUMBER, data, draw)


def odd_string(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return _replace_one(_STRING, data, draw)


def unescaped(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    """A quote, a backslash or a control character inside a string, as torch writes them."""
    found = _STRING.search(data, _at(data, draw))
    if found is None or found.end() - found.start() < 3:
        return data
    at = draw.randrange(found.start() + 1, found.end())
    return data[:at] + draw.choice((b'"', b"\\", b"\x01", b"\t", b'"x"', b"\\d", b'", "')) + data[at:]


def trailing_comma(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    at = data.find(draw.choice((b"}", b"]")), _at(data, draw))
    return data if at < 0 else data[:at] + b"," + data[at:]


def drop_structure(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    at = data.find(draw.choice(STRUCTURE[:8]), _at(data, draw))
    return data if at < 0 else data[:at] + data[at + 1 :]


def swap_structure(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    at = data.find(draw.choice(STRUCTURE[:8]), _at(data, draw))
    return data if at < 0 else data[:at] + draw.choice(STRUCTURE) + data[at + 1 :]


def line_ends(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return data.replace(b"\n", draw.choice((b"\r\n", b"\r", b"", b"\n\n")))


def encode(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    if draw.random() < 0.5:
        return b"\xef\xbb\xbf" + data
    return data.decode("utf-8", "replace").encode(draw.choice(("utf-16", "utf-16-be", "utf-8", "latin-1")), "replace")


def deflate_twice(data: bytes, draw: random.Random, corpus: Sequence[bytes]) -> bytes:
    return draw.choice((gzip.compress(data, mtime=0), zlib.compress(data)))


MUTATIONS: tuple[Mutation, ...] = (
    flip_bits, delete, duplicate, truncate, behead, splice, concatenate, insert_structure, insert_structure,
    insert_token, insert_token, junk, odd_number, odd_number, odd_string, unescaped, unescaped, trailing_comma,
    drop_structure, drop_structure, swap_structure, line_ends, encode, deflate_twice,
)  # fmt: skip
