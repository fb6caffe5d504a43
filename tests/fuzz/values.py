"""Write traces anew with odd values in valid places: numbers, texts, keys, spaces, where two readers may differ."""

from __future__ import annotations

import random
import re

NUMBERS = [
    "0", "-0", "-0.0", "0.5", "1.0005", "2.0015", "3.00049999", "-1", "-0.0005", "7.", ".7", "01", "1e3", "1E-3",
    "1e400", "1e99", "1e100", "-", "+1", "0x7", "NaN", "8796093022207.999", "8796093022208", "8796093022208.001",
    "8796093022207.9999", "4611686018427387.903", "4611686018427387.904", "4611686018427388", "9007199254740993.5",
    "1712195495519689.047", "1712195495519689.0475", "1712195495519689.04750000001", "82384.24500000001",
    "123456789.1230000001", "9" * 17, "9" * 18, "9" * 19, "9" * 20, "9" * 40, "9" * 400, "0." + "3" * 30, "1.5",
    "9223372036854775807", "9223372036854775808", "-9223372036854775808", "-9223372036854775809",
    "18446744073709551615", "18446744073709551616", "12345.67",
]  # fmt: skip
TEXTS = [
    '""', '"7"', '"-7"', '"007"', '"0x1f"', '"0X1F"', '"0x"', '"0xfffffffffffffff"', '"0xffffffffffffffff"', '" 7 "',
    '"1_0"', '"7.5"', '"1e3"', '"a\\u0041"', '"aA"', '"\\/"', '"/"', '"\\ud83d\\ude00"', '"\U0001f600"', '"\\ud83d"',
    '"\\ude00\\ud83d"', '"\\u00"', '"\\x41"', '"\\"', '"\\\\"', '"\\\\\\""', '"\x7f"', '"\t"', '"\x00"', '"é"',
    '"\\u00e9"', '"日本語 kernel"', '"\udcff"', '"\\u0000"', '"12345678"', '"1234567\\n"', '"123456\\\\"',
    '"a quote \\" in the middle of a long name"', '"X"', '"s"', '"f"', '"ac2g"', '"fwdbwd"', '"thread_name"', '"B"',
    '"\\u0058"', '"async_gpu"', '"forward_backward"', '"cpu_to_cuda"', '"b"', '"E"', '"ac2\\u0067"',
    '"python_function"',
]  # fmt: skip
OTHERS = [
    "null", "true", "false", "nul", "[]", "{}", "[1, 2]", "[1 2]", "[1,]", '{"a": 1,}', '{"a"}', '[{"b": [null, "x"]}]',
    "[" * 70 + "]" * 70, "",
]  # fmt: skip
KEYS = [
    "ph", "cat", "name", "pid", "tid", "ts", "dur", "id", "args", "n\\u0061me", "stream", "correlation", "External id",
    "device", "bytes", "Python id", "labels", "Input Dims", "args\\u0020", "\udcff", "é", "", "Sequence number", "x",
    "external id", "Input dims", "Collective name",
]  # fmt: skip
_TOKEN = re.compile(
    rb'(?P<key>"[^"\\\n]*")(?=\s*:)|(?P<text>"[^"\\\n]*")|(?P<number>-?\d+(?:\.\d+)?)|(?P<space>(?<=[,:{}\[\]])\s+)'
)
_LINE = re.compile(rb"\n\s*")


def rewritten(seed: int, corpus: list[bytes]) -> bytes:
    """Text number `seed`: one of the corpus, in a third in another layout, with one to five values replaced."""
    draw = random.Random(f"values {seed}")
    data = draw.choice(corpus)
    if draw.random() < 0.3:  # another layout
        data = _LINE.sub(draw.choice((b"", b" ", b"\n", b"\r\n\t")), data)
    for _ in range(draw.choice((1, 1, 2, 3, 5))):
        found = _TOKEN.search(data, draw.randrange(len(data)))
        if found is None:
            continue
        data = data[: found.start()] + _instead(found, draw) + data[found.end() :]
    return data


def _instead(found: re.Match[bytes], draw: random.Random) -> bytes:
    if found["key"]:
        key = f'"{draw.choice(KEYS)}"' if draw.random() < 0.6 else found["key"].decode("utf-8", "surrogateescape")
        twice = f"{key}: {_value(draw)}, " if draw.random() < 0.5 else ""
        return (twice + key).encode("utf-8", "surrogateescape")
    if found["space"]:
        return draw.choice((b"", b" ", b"\n", b"\t\r\n ", b",", b"\x00", b"\x0b", b"\xc2\xa0"))
    return _value(draw).encode("utf-8", "surrogateescape")


def _value(draw: random.Random) -> str:
    return draw.choice(draw.choice((NUMBERS, NUMBERS, TEXTS, TEXTS, OTHERS)))
