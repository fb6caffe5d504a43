"""Taking malformed text apart: which events come out, what is counted, and where it stood."""

from __future__ import annotations

import time

import pytest

from profiler_kit.load.trace.decode import Decoders
from profiler_kit.load.trace.repair import MEND_BYTES, MOST_INCIDENTS, Incident, Salvage, closing_bracket, mend

DECODERS = Decoders()


class Saved:
    """What a Salvage makes of a text."""

    def __init__(self, text: str | bytes, *, last: bool = True, offset: int = 0) -> None:
        self.salvage = Salvage(DECODERS)
        data = text.encode() if isinstance(text, str) else text
        self.pieces, self.done = self.salvage.take(data, offset, last=last)
        self.events = DECODERS.loosely(b"[" + b",".join(piece.text for piece in self.pieces) + b"]")

    @property
    def names(self) -> str:
        return " ".join(event.name for event in self.events)

    @property
    def counts(self) -> tuple[int, int, bool]:
        return self.salvage.repaired, self.salvage.dropped, self.salvage.closed


def event(name: str, rest: str = "") -> str:
    return f'{{"ph": "X", "name": "{name}", "ts": 1, "dur": 2{rest}}}'


A, B, C = event("a"), event("b"), event("c")

TEXTS = {  # text: names that come out, then repaired, dropped, closed
    "nothing wrong": (f"{A}, {B}, {C}", "a b c", (0, 0, False)),
    "no comma": (f"{A} {B}\n{C}", "a b c", (0, 0, False)),
    "many commas": (f", {A},,, {B},\n,{C},", "a b c", (0, 0, False)),
    "the end of the list": (f'{A}, {B}]\n, "traceName": "t"}}', "a b", (0, 0, True)),
    "the end of everything": (f"{A}, {B}]}}\n", "a b", (0, 0, True)),
    "the end of a bare list": (f"{A}, {B}]", "a b", (0, 0, True)),
    "a bracket too many in the middle": (f"{A}], {B}", "a b", (1, 0, False)),
    "a brace too many": (f"{A}}}, {B}, {C}", "a b c", (0, 0, False)),
    "junk between": (f"{A}, junk, {B}", "a b", (0, 1, False)),
    "junk in front": (f"junk {A}, {B}", "a b", (0, 1, False)),
    "a hole of zeros": (f"{A}, {chr(0) * 5000}{B}", "a b", (0, 0, False)),
    "an event without its end": (f'{A}, {{"ph": "X", "name": "lost", {B}, {C}', "a b c", (0, 1, False)),
    "an event without its start": (f'{A}, "name": "lost", "ts": 1}}, {B}', "a b", (0, 1, False)),
    "cut off": (f'{A}, {B}, {{"ph": "X", "na', "a b", (0, 0, False)),
    "cut off in the key": (f'{A}, {{"p', "a", (0, 0, False)),
    "an object that looks like an event inside": (
        event("out", ', "args": {"x": [{"name": "in"}, {"name": "in"}]}') + f", {B}",
        "out b",
        (0, 0, False),
    ),
    "one bad among objects inside": (
        event("out", ', "args": {"x": [{"name": "in"}], "y": NaN}') + f", {B}",
        "out b",
        (1, 0, False),
    ),
    "the last event broken, metadata behind it": (
        f'{A}, {event("b", ", x")}], "deviceProperties": [{{"id": 0, "name": "H200"}}]}}',
        "a",
        (0, 1, True),
    ),
    "the last event mended, metadata behind it": (
        f'{A}, {event("b", ",")}], "deviceProperties": [{{"id": 0, "name": "H200"}}]}}',
        "a b",
        (1, 0, True),
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_what_comes_out_of_malformed_text(case: str) -> None:
    text, names, counts = TEXTS[case]
    saved = Saved(text)
    assert (saved.names, saved.counts) == (names, counts)
    assert saved.done <= len(text.encode())


def test_the_last_event_may_hold_objects_and_be_broken() -> None:
    rest = ', "args": {"x": [{"id": 1}], "y": NaN}'
    saved = Saved(f'{A}, {event("b", rest)}], "deviceProperties": [{{"id": 0}}]}}')
    assert (saved.names, saved.counts) == ("a b", (1, 0, True))


def test_the_rest_is_left_behind_the_end_of_the_list() -> None:
    text = f'{A}, {event("b", ",")}], "traceName": "t"}}'
    assert text[Saved(text).done :] == ', "traceName": "t"}'


def test_pieces_say_where_they_stood() -> None:
    text = f"{A}, {B}, {event('x', ',')}, junk, {C}"
    saved = Saved(text, offset=100)
    assert [text[piece.offset - 100 :].startswith(piece.text.decode()[:20]) for piece in saved.pieces] == [True] * 4
    assert [piece.text.decode() for piece in saved.pieces] == [A, B, event("x"), C]


def test_without_more_to_come_the_last_event_is_left() -> None:
    text = f"{A}, junk, {B}, {C}"
    saved = Saved(text, last=False)
    assert saved.names == "a b"
    assert text[saved.done :] == C


def test_text_without_a_start_is_left_while_more_comes() -> None:
    assert Saved('"name": "in the middle"', last=False).done == 0


def test_kineto_separators_are_structural() -> None:
    # a name that holds what looks like the start of another event: two pieces in any layout but Kineto's
    body = '\n    "ph": "X", "name": "a {"name": [ {"traceEvents": [ c",\n    "ts": 1, "dur": 1'
    saved = Saved(f"\n  {{{body}\n  }},\n  {{{body}\n  }}")
    assert [one.name for one in saved.events] == ['a {"name": [ {"traceEvents": [ c'] * 2
    assert saved.counts == (2, 0, False)


def test_incidents_say_where_and_stop_after_a_few() -> None:
    bad = event('x" y')
    saved = Saved(f"{A}, {bad}, ???, {B}", offset=1000)
    assert saved.salvage.incidents == [
        Incident("repaired", 1000 + len(A) + 2, bad),
        Incident("dropped", 1000 + len(A) + len(bad) + 4, "???,"),
    ]
    many = Saved(", ".join([bad] * 100))
    assert many.counts == (100, 0, False)
    assert len(many.salvage.incidents) == MOST_INCIDENTS


MENDED = {
    "quotes in the name": (event('a "b" c'), 'a "b" c'),
    "a quote and a comma in the name": (event('a", b'), 'a", b'),
    "the name last": ('{"ph": "X", "ts": 1, "dur": 1, "name": "a "b""}', 'a "b"'),
    "a backslash": (event("C:\\dir\\new"), "C:\\dir\\new"),
    "a backslash at the end": (event("C:\\"), "C:\\"),
    "a control character": (event("a\x01b"), "a b"),
    "a raw tab": (event("a\tb"), "a b"),
    "half a surrogate pair": (event("a\\ud800b"), "a�b"),
    "the other half": (event("a\\udc00b"), "a�b"),
    "a bad escape": (event("a\\qb"), "a\\qb"),
    "a short escape": (event("a\\u12b"), "a\\u12b"),
    "NaN": (event("n", ', "args": {"x": NaN, "y": [-Infinity, inf]}'), "n"),
    "N/A and None": (event("n", ', "args": {"x": N/A, "y": None, "z": True}'), "n"),
    "trailing commas": (event("n", ', "args": {"x": [1, 2,], "y": 3,},'), "n"),
    "quotes in an argument": (event("n", ', "args": {"x": "say "hi" now", "correlation": 3}'), "n"),
    "a quote and a comma in an argument": (event("n", ', "args": {"x": "say "hi", now", "correlation": 3}'), "n"),
    "what is NaN only in a string": (event("a: NaN, b", ', "args": {"x": "[nan, inf]", "y": NaN}'), "a: NaN, b"),
    "a comma before a bracket in a string": (event("f(a,]", ', "args": {},'), "f(a,]"),
    "everything at once": (event('a "b" \\q\x02', ', "args": {"x": "y "z" w", "n": NaN,},'), 'a "b" \\q '),
}


@pytest.mark.parametrize("case", MENDED)
def test_one_event_is_mended(case: str) -> None:
    text, name = MENDED[case]
    found = mend(text.encode(), DECODERS)
    assert found is not None
    (mended,) = DECODERS.loosely(b"[" + found + b"]")
    assert (mended.ph, mended.name, mended.dur) == ("X", name, mended.dur)
    assert bytes(mended.ts) == b"1"
    if '"correlation": 3' in text:
        assert mended.args.correlation == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"name": "no phase"}',
        '{"ph": "X", "cat": kernel!, "name": "not quoted", "ts": 1, "dur": 1}',
        '{"ph": "X", "name": "n", "ts": 1, "dur"}',
        '{"ph": "X", "name": "n", "ts": 1',
        '{"ph": "X", "name": "n", "ts": 1}, {"ph": "X"}',
    ],
)
def test_what_cannot_be_mended_is_none(text: str) -> None:
    assert mend(text.encode(), DECODERS) is None


def test_huge_malformed_events_are_not_mended() -> None:
    assert mend(event("n", f', "x": "{"y" * MEND_BYTES}",').encode(), DECODERS) is None


DEEP = 200_000
HOSTILE = {
    "brackets that open": '{"ph": "X", "args": ' + "[" * DEEP,
    "objects that open": '{"a":' * DEEP,
    "starts that follow each other": '{"ph":' * DEEP,
    "brackets that close": "}]" * DEEP,
    "an open string of escaped quotes": '{"ph": "X", "name": "' + '\\"' * DEEP,
    "quotes": '{"ph": "X", "name": "' + '"' * DEEP,
    "backslashes": '{"ph": "X", "name": "' + "\\" * DEEP,
    "white space": '{"ph": "X", "name": "a"' + " " * DEEP + "x" + " " * DEEP,
    "names": '{"ph": "X", ' + '"name": "' * DEEP,
    "ends that are none": event("a", ', "x": [{}], "y": !')[:-1] * 10_000,
    "commas": event("a", "," * DEEP),
    "zeros": "\0" * 5 * DEEP,
}


@pytest.mark.parametrize("case", HOSTILE)
def test_time_is_linear_and_nothing_recurses(case: str) -> None:
    text = HOSTILE[case]
    started = time.process_time()
    saved = Saved(text + ", " + A)
    assert time.process_time() - started < 5
    assert saved.names.split()[-1:] in (["a"], [])
    assert saved.done == len(text) + 2 + len(A)


def test_brackets_inside_strings_close_nothing() -> None:
    assert closing_bracket(b'{"a": "]}\\"}", "b": [1, {"c": 2}]} rest') == len(b'{"a": "]}\\"}", "b": [1, {"c": 2}]')
    assert closing_bracket(b'{"a": "}') == -1
    assert closing_bracket(b"") == -1
