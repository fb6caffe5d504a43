"""Reading malformed text takes work in proportion to it, and can be stopped anywhere in it."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from profiler_kit.errors import TraceFormatError
from profiler_kit.load.trace import decompress, split_events
from profiler_kit.load.trace.chrome import read_chrome_trace
from profiler_kit.load.trace.event_text import scan
from profiler_kit.load.trace.repair import Salvage
from profiler_kit.load.trace.split_events import EventStream
from tests.effort import calls
from tests.readers import READERS, reader

pytestmark = pytest.mark.usefixtures("both_readers")

EVENT = '{"ph":"X","cat":"cpu_op","name":"a","pid":1,"tid":1,"ts":1,"dur":1}'
KINETO = """  {
    "ph": "X", "cat": "cpu_op", "name": "%s", "pid": 1, "tid": 1,
    "ts": %d.125, "dur": 4.250,
    "args": {
      "External id": 1, "Input Dims": [[64, 64], []]
    }
  }"""
PATTERNS = {  # what comes after one valid event, of so many bytes
    "openings after closings": lambda n: '},]{"ph":' * (n // 9) + "]}",
    "openings": lambda n: "," + '{"ph":"X",' * (n // 10) + "]}",
    "openings in a string": lambda n: "," + '{"name":"' * (n // 9) + "]}",
    "brackets": lambda n: "," + "[" * n,
    "braces": lambda n: "," + "{" * n + "]}",
    "closings": lambda n: "}]" * (n // 2),
    "ends of the list": lambda n: (EVENT + "]\n") * (n // 70),
    "deep objects": lambda n: "," + '{"a":' * (n // 10) + "1" + "}" * (n // 10) + "]",
    "a string that does not end": lambda n: ',{"ph":"X","name":"' + "x" * n,
    "quotes": lambda n: ',{"ph":"X","name":"' + '"' * n + '","ts":1,"dur":1}]',
    "quotes doubled": lambda n: "," + EVENT.replace('"', '""') * (n // 90) + "]",
    "backslashes": lambda n: ',{"ph":"X","name":"' + "\\x" * (n // 2) + '","ts":1,"dur":1}]',
    "NUL": lambda n: "\0" * n + "]",
    "NUL in names": lambda n: ("," + EVENT.replace("a", "a\0")) * (n // 70) + "]",
    "no separators": lambda n: EVENT * (n // 70) + "]",
    "repairs": lambda n: ("," + EVENT.replace('"a"', '"a"b"')) * (n // 70) + "]",
    "Kineto's separators": lambda n: '\n  },\n  {\n"ph":' * (n // 15) + "]",
    "phases": lambda n: ',{"ph":"X"' * (n // 10) + "]",
    "whitespace": lambda n: ("}" + " " * 999) * (n // 1000) + "]",
    "of no use": lambda n: ',{"ph":"X","name":"a"}' * (n // 22) + "]",
    "numbers": lambda n: ",1" * (n // 2) + "]",
    "events after the end": lambda n: "]}" + EVENT * (n // 70),
    "brackets after the end": lambda n: '],"x":' + "[" * n,
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_recovery_grows_with_the_text_and_not_faster(pattern: str, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    counts = []
    for size in (30_000, 90_000):
        path.write_text('{"traceEvents":[' + EVENT + PATTERNS[pattern](size))
        counts.append(calls(lambda: read_chrome_trace(path)))
    few, many = counts
    assert many < 3.4 * few + 1000


@pytest.mark.parametrize("size", [25_000, 50_000, 100_000, 200_000])
def test_openings_after_closings_are_dropped_one_by_one(size: int, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("[" + EVENT + PATTERNS["openings after closings"](size))
    quality = read_chrome_trace(path).quality
    assert (quality.events, quality.repaired_events, quality.dropped_events) == (1, 1, size // 9)


BLOCK_BYTES = decompress.BLOCK_BYTES // 4
BAD = {  # an event of Kineto's that is malformed: what to replace, by what, (repaired, dropped)
    "a quote": ('"a"', '"torch/x.py(1): fn {"a": 1}"', (3, 0)),
    "a lone backslash": ('"a"', '"C:\\work"', (3, 0)),
    "bad UTF-8": ('"a"', '"a\udcff"', (3, 0)),
    "NaN": ("4.250", "NaN", (3, 3)),  # mended, but without a duration
    "inf as an argument": ("[[64, 64], []]", "inf", (3, 0)),
    "deep nesting": ("[[64, 64], []]", "[" * 5000 + "]" * 5000, (0, 3)),
    "a string that does not end": ('"a"', '"a', (0, 3)),
    "a closing bracket too many": ("[]]", "[]]]", (0, 3)),
}


@pytest.mark.parametrize("layout", ["kineto", "compact", "indented"])
@pytest.mark.parametrize("case", BAD)
def test_a_malformed_event_costs_the_text_around_it(
    case: str, layout: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three of 3,000: what is taken apart event by event is a small part, and no block is decoded many times."""
    old, new, lost = BAD[case]
    events = [KINETO % ("a", number) for number in range(3_000)]
    for at in (3, 1_500, 2_750):
        events[at] = events[at].replace(old, new)
    between = ",\n"
    if layout == "compact":
        events, between = [" ".join(event.split()) for event in events], ","
    elif layout == "indented":
        events = [event.replace(", ", ",\n    ") for event in events]
    data = ("[\n" + between.join(events) + "\n]").encode("utf-8", "surrogateescape")
    path = tmp_path / "t.json"
    path.write_bytes(data)
    monkeypatch.setattr(decompress, "BLOCK_BYTES", BLOCK_BYTES)
    monkeypatch.setattr(split_events, "BLOCK_BYTES", BLOCK_BYTES)
    looked, decoded = [0], [0]
    take, decode = Salvage.take, EventStream.decode

    def counted_take(self: Salvage, text: bytes, offset: int, *, last: bool) -> object:
        looked[0] += len(text)
        return take(self, text, offset, last=last)

    def counted_decode(self: EventStream, block: bytes | memoryview) -> bool:
        decoded[0] += len(block)
        return decode(self, block)

    monkeypatch.setattr(Salvage, "take", counted_take)
    monkeypatch.setattr(EventStream, "decode", counted_decode)
    quality = read_chrome_trace(path).quality
    assert (quality.repaired_events, quality.dropped_events) == lost
    assert quality.events == 3_000 - (lost[1] if case != "NaN" else 0)
    assert looked[0] < len(data) / 8 + BLOCK_BYTES
    assert decoded[0] < 3 * len(data) + 3 * 20 * BLOCK_BYTES


@pytest.mark.parametrize("pattern", PATTERNS)
def test_recovery_can_be_stopped_anywhere(pattern: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a clock by which it is always time to report, reports are at most so many calls apart."""
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents":[' + EVENT + PATTERNS[pattern](100_000))
    clock = iter(range(1 << 40))
    monkeypatch.setattr(decompress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    called = widest = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal called
        called += event in ("call", "c_call")

    def report(done: float, total: float, note: str = "") -> None:
        nonlocal called, widest
        called, widest = 0, max(widest, called)

    sys.setprofile(count)
    with contextlib.suppress(TraceFormatError):
        read_chrome_trace(path, report=report)
    sys.setprofile(None)
    assert max(widest, called) < 50_000


def test_what_stops_a_load_ends_recovery(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "t.json"
    path.write_text("[" + EVENT + PATTERNS["openings after closings"](100_000))
    clock = iter(range(1 << 40))
    monkeypatch.setattr(decompress, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    seen: list[float] = []

    def report(done: float, total: float, note: str = "") -> None:
        seen.append(done)
        if len(seen) == 100:  # the file is one block, read long since
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        read_chrome_trace(path, report=report)
    assert len(seen) == 100


@pytest.mark.parametrize(
    ("junk", "repaired", "dropped"),
    [
        *((" xyz", 0, 1), ("}", 0, 0), ("]", 1, 0), ("]\n]", 2, 0), (", inf}", 0, 1)),
        *(("]}", 1, 0), ("],", 1, 0), ("]},", 1, 0), ("]} ]}", 2, 0), ("]}}", 1, 0), ("\n  ]\n}\n", 1, 0)),
    ],
)
def test_junk_where_the_list_ends_costs_no_metadata(junk: str, repaired: int, dropped: int, tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents": [' + f"{EVENT}, {EVENT}{junk}\n], " + '"baseTimeNanoseconds": 5}')
    trace = read_chrome_trace(path)
    quality = trace.quality
    assert trace.metadata == {"baseTimeNanoseconds": 5}
    assert (quality.events, quality.truncated) == (2, False)
    assert (quality.repaired_events, quality.dropped_events) == (repaired, dropped)


def with_junk(junk: str, at: int, folder: Path, monkeypatch: pytest.MonkeyPatch, *, compact: bool = False) -> Path:
    """A file of 300 events with that text behind one of them, read in blocks of some thirty."""
    for module in ("decompress", "split_events"):
        monkeypatch.setattr(f"profiler_kit.load.trace.{module}.BLOCK_BYTES", 8000)
    events = [KINETO % ("a", number) for number in range(300)]
    if compact:
        events = [" ".join(event.split()) for event in events]
    events[at] += junk
    path = folder / "t.json"
    path.write_text('{"traceEvents": [\n' + ",\n".join(events) + '\n  ],\n  "baseTimeNanoseconds": 5\n}\n')
    return path


@pytest.mark.parametrize("layout", ["kineto", "compact"])
@pytest.mark.parametrize("junk", ["]", "]}", "\n  ]\n}", "]}}", "}]", "]]}"])
@pytest.mark.parametrize("at", [0, 150, 298])
def test_a_stray_end_among_events_costs_neither_events_nor_metadata(
    junk: str, layout: str, at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_junk(junk, at, tmp_path, monkeypatch, compact=layout == "compact")
    trace = read_chrome_trace(path)
    assert trace.metadata == {"baseTimeNanoseconds": 5}
    quality = trace.quality
    assert (quality.events, quality.dropped_events, quality.truncated) == (300, 0, False)
    assert {one.kind for one in quality.incidents} == {"closed early"}
    assert len(scan(path).spans.number) == 300


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("keys", ['"x": 1', '"x": "a]",\n "y": [1, 2]', '"x": {"a": "b"}, "y": null'])
@pytest.mark.parametrize("at", [0, 150, 298])
def test_keys_among_events_cost_no_events(
    keys: str, at: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = with_junk("], " + keys, at, tmp_path, monkeypatch)
    with reader(name):
        trace = read_chrome_trace(path)
    assert trace.metadata == {"baseTimeNanoseconds": 5}
    assert (trace.quality.events, trace.quality.repaired_events, trace.quality.dropped_events) == (300, 1, 1)
    assert [one.kind for one in trace.quality.incidents] == ["closed early", "dropped"]
    assert len(scan(path).spans.number) == 300


INNER = EVENT[:-1] + ',"args":{"x":[1,{"ph":"X"}]}}'


@pytest.mark.parametrize(
    ("text", "rows", "repaired"),
    [
        (f"{EVENT},{INNER},", 2, 0),  # cut off
        (",".join((INNER, EVENT.replace('"a"', '"q"b"'), INNER, EVENT)) + "]}", 4, 1),
        (EVENT.replace("cpu_op", "Memset").replace('"dur":1', '"dur":-1') + "]}", 1, 0),
        (EVENT.replace('"a"', "null") + "," + EVENT.replace('"a"', '"\udce9"') + "]}", 2, 1),  # a bad byte
    ],
)
def test_both_readers_take_what_is_odd_but_valid_beside_what_is_not(
    text: str, rows: int, repaired: int, tmp_path: Path
) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(('{"traceEvents":[' + text).encode(errors="surrogateescape"))
    quality = read_chrome_trace(path).quality
    assert (quality.events, quality.repaired_events, quality.dropped_events) == (rows, repaired, 0)


def test_of_several_traces_in_a_list_the_first_is_read_and_the_others_are_said_to_be_left_out(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    one = '{"name": "of rank 0", "traceEvents": [' + f"{EVENT}, {EVENT}" + "]}"
    path.write_text('{"traces": [' + f"{one}, {one}" + '], "rank": 1}')
    quality = read_chrome_trace(path).quality
    assert (quality.events, quality.repaired_events, quality.dropped_events) == (2, 0, 2)
    assert [one.kind for one in quality.incidents] == ["after the end"]


@pytest.mark.parametrize("layout", ["kineto", "compact"])
@pytest.mark.parametrize("at", [0, 20, 28])
def test_an_event_whose_bracket_never_closes_does_not_hold_those_after_it(at: int, layout: str, tmp_path: Path) -> None:
    """All that follows would be valid JSON inside it, up to the end of the file."""
    events = [KINETO % ("a", number) for number in range(30)]
    events[at] = events[at].partition('"args"')[0] + '"x": [{"y": 1\n  }'
    if layout == "compact":
        events = [" ".join(event.split()) for event in events]
    path = tmp_path / "t.json"
    path.write_text('{"traceEvents": [\n' + ",\n".join(events) + '\n  ],\n  "baseTimeNanoseconds": 5\n}\n')
    trace = read_chrome_trace(path)
    quality = trace.quality
    assert (quality.events, quality.dropped_events, quality.truncated) == (29, 1, False)
    assert trace.metadata == {"baseTimeNanoseconds": 5}
