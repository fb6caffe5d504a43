"""Loading chrome traces: exact times, every layout, and what is kept of broken files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.errors import InputError, TraceFormatError
from profiler_kit.load.integers import MISSING
from profiler_kit.load.trace import chrome
from profiler_kit.load.trace.chrome import read_chrome_trace
from profiler_kit.load.trace.column_builder import text_to_ns, to_ns
from tests.builders import TraceBuilder

pytestmark = pytest.mark.usefixtures("both_readers")

RECORD = "Record one with profiler_runner, or with torch.profiler's export_chrome_trace."


@given(st.integers(0, 2**43 * 1000 - 1))
def test_nanoseconds_survive_json_below_2_to_the_43_us(ns: int) -> None:
    text = f"{ns // 1000}.{ns % 1000:03d}"
    assert to_ns(np.array([float(text)]))[0] == ns
    assert text_to_ns(text.encode()) == ns


@given(st.integers(2**43 * 1000, 2**61))
def test_nanoseconds_survive_json_above_as_text(ns: int) -> None:
    assert text_to_ns(f"{ns // 1000}.{ns % 1000:03d}".encode()) == ns


@pytest.mark.parametrize(
    "text", [b"", b'"abc"', b"null", b"1e400", b"1e999999", b"1e999999999", b"NaN", b"[1]", b"9e30"]
)
def test_text_that_is_no_time_is_none(text: bytes) -> None:
    assert text_to_ns(text) is None


def small_trace() -> TraceBuilder:
    trace = TraceBuilder()
    for number in range(40):
        trace.region(f"region {number % 3}", 100 * number, 90)
        trace.operator("aten::mm", 100 * number + 1, 20, **{"External id": number, "Input Dims": [[1, 2], [3]]})
        trace.launch(number, 100 * number + 2)
        trace.kernel(number, 100 * number + 30, 5.125)
    return trace


def table(path: Path) -> dict[str, Any]:
    columns = read_chrome_trace(path).columns
    return {
        "name": [columns.names[code] for code in columns.name],
        "start": columns.start_ns.tolist(),
        "dur": columns.dur_ns.tolist(),
        **{key: values.tolist() for key, values in columns.integers.items()},
    }


LAYOUTS = {
    "kineto": lambda trace: trace.kineto(),
    "compact": lambda trace: json.dumps({"traceEvents": trace.events}, separators=(",", ":")).encode(),
    "indented": lambda trace: json.dumps(
        {"a": [{}, {}], "traceEvents": trace.events, "z": [{}, {}]}, indent=4
    ).encode(),
    "list": lambda trace: json.dumps(trace.events).encode(),
    "byte order mark": lambda trace: b"\xef\xbb\xbf" + trace.kineto(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("packed", [False, True])
def test_every_layout_gives_the_same_columns_in_blocks_of_any_size(
    layout: str, packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trace = small_trace()
    expected = table(trace.write(tmp_path / "reference.json"))
    data = LAYOUTS[layout](trace)
    path = tmp_path / "t.json"
    path.write_bytes(gzip.compress(data) if packed else data)
    for size in (64, 1000, 5000, 1 << 22):
        monkeypatch.setattr("profiler_kit.load.trace.decompress.BLOCK_BYTES", size)
        monkeypatch.setattr("profiler_kit.load.trace.split_events.BLOCK_BYTES", size)
        loaded = read_chrome_trace(path)
        assert table(path) == expected
        assert loaded.quality == chrome.LoadQuality(len(trace.events), False, 0, 0)


def test_metadata_before_and_after_the_events_is_kept(tmp_path: Path) -> None:
    metadata = read_chrome_trace(small_trace().write(tmp_path / "t.json.gz")).metadata
    assert metadata == {"schemaVersion": 1, "baseTimeNanoseconds": 1700000000000000000, "traceName": "trace.json"}


@settings(max_examples=60)
@given(data=st.data(), layout=st.sampled_from(sorted(LAYOUTS)), packed=st.booleans())
def test_a_file_cut_anywhere_gives_its_whole_events_or_one_line(
    data: st.DataObject, layout: str, packed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    trace = small_trace()
    whole = LAYOUTS[layout](trace)
    whole = gzip.compress(whole, mtime=0) if packed else whole
    cut = data.draw(st.integers(1, len(whole) - 1))
    path = tmp_path_factory.mktemp("cut") / "t.json"
    path.write_bytes(whole[:cut])
    try:
        loaded = read_chrome_trace(path)
    except TraceFormatError as error:
        assert str(path) in str(error)
        return
    assert loaded.quality.repaired_events == loaded.quality.dropped_events == 0
    kept = loaded.quality.events
    expected = [int(e["ts"]) * 1000 for e in trace.events[:kept] if e["ph"] == "X"]
    assert loaded.columns.start_ns.tolist() == expected
    if not packed:
        ends, closing = ends_of_events(whole.decode())
        assert kept == sum(end <= cut for end in ends)
        assert loaded.quality.truncated == (cut <= closing)


def ends_of_events(text: str) -> tuple[list[int], int]:
    """Byte offsets at which each event of a whole file ends, and of the bracket that closes the list."""
    at = text.index("[", text.find('"traceEvents"') + 1)
    ends = []
    while text[at] != "]":
        start = text.index("{", at)
        ends.append(json.JSONDecoder().raw_decode(text, start)[1])
        at = ends[-1] + len(text[ends[-1] :]) - len(text[ends[-1] :].lstrip())
    extra = len(text.encode()) - len(text)  # of the byte order mark
    return [end + extra for end in ends], at + extra


def kineto_with(*events: str) -> bytes:
    good = '"ph": "X", "cat": "cpu_op", "name": "good", "pid": 1, "tid": 1,\n    "ts": 5.000, "dur": 1.000'
    return (
        '{\n  "traceEvents": [\n  {\n    ' + "\n  },\n  {\n    ".join([good, *events, good]) + "\n  }\n  ]\n}\n"
    ).encode()


def broken(name: str, rest: str = "") -> str:
    return f'"ph": "X", "cat": "cpu_op", "name": "{name}", "pid": 1, "tid": 1,\n    "ts": 6.000, "dur": 1.000{rest}'


BROKEN = {  # the event's text, and the name it must have
    "quotes in the name": (broken('a "b" c'), 'a "b" c'),
    "a backslash": (broken("C:\\dir"), "C:\\dir"),
    "a control character": (broken("a\x01b"), "a b"),
    "NaN": (broken("n", ', "args": {"x": NaN, "y": N/A}'), "n"),
    "a trailing comma": (broken("n", ', "args": {"x": 1,},'), "n"),
    "quotes in an argument": (broken("n", ', "args": {"x": "say "hi" now", "correlation": 3}'), "n"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_malformed_events_that_occur_are_mended(case: str, tmp_path: Path) -> None:
    text, name = BROKEN[case]
    path = tmp_path / "t.json"
    path.write_bytes(kineto_with(text))
    loaded = read_chrome_trace(path)
    assert [loaded.columns.names[code] for code in loaded.columns.name] == ["good", name, "good"]
    assert loaded.columns.start_ns.tolist() == [5000, 6000, 5000]
    assert loaded.quality == chrome.LoadQuality(3, False, 1, 0)


def test_bad_utf8_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(kineto_with(broken("n")).replace(b'"n"', b'"\xff"'))
    assert read_chrome_trace(path).quality == chrome.LoadQuality(3, False, 1, 0)


def test_events_beyond_repair_are_counted_and_the_rest_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_bytes(kineto_with('"ph": "X", "cat": !!!', BROKEN["NaN"][0]))
    loaded = read_chrome_trace(path)
    assert len(loaded.columns) == 3
    assert loaded.quality == chrome.LoadQuality(3, False, 1, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [("dur", -1.0), ("dur", None), ("dur", "x"), ("ts", "x"), ("ts", None), ("ts", 1e30), ("dur", 1e30)],
)
def test_events_without_a_usable_time_are_dropped(field: str, value: object, tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("good", 1, 2)
    trace.region("bad", 3, 4)[field] = value
    loaded = read_chrome_trace(trace.write(tmp_path / "t.json"))
    assert loaded.columns.start_ns.tolist() == [1000]
    assert loaded.quality == chrome.LoadQuality(2, False, 0, 1, useless_events=1)


def test_odd_types_are_kept_where_they_can_be(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.kernel(1, 1, 2, stream="0x0")  # ROCm
    trace.span("kernel", "k", 3.5, 2, "", correlation="7", stream=None, device=[1])
    trace.span("Kernel", "old", "1700000000000001.250", "2.5", "Spans", correlation=2**70)
    columns = read_chrome_trace(trace.write(tmp_path / "t.json")).columns
    assert columns.integers["stream"].tolist() == [0, MISSING, MISSING]
    assert columns.integers["correlation"].tolist() == [1, 7, MISSING]
    assert columns.start_ns.tolist() == [1000, 3500, 1700000000000001250]
    assert [columns.categories[code] for code in columns.category] == ["kernel", "kernel", "kernel"]


def test_old_absolute_times_keep_their_decimals(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    events = "".join(
        f'{{"ph":"X","cat":"cpu_op","name":"n","pid":1,"tid":1,"ts":1700000000{n:06d}.{n:03d},"dur":0.{n:03d}}},'
        for n in range(500)
    )
    path.write_text('{"traceEvents":[' + events[:-1] + "]}")
    columns = read_chrome_trace(path).columns
    assert columns.start_ns.tolist() == [(1700000000 * 10**6 + n) * 1000 + n for n in range(500)]
    assert columns.dur_ns.tolist() == list(range(500))


def test_a_flipped_byte_in_the_gzip_data_loses_only_what_follows(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number in range(20_000):
        trace.region(f"region {number * 7919 % 1000}", number, 0.5)
    packed = bytearray(gzip.compress(trace.kineto()))
    packed[len(packed) // 2] ^= 0xFF
    path = tmp_path / "t.json.gz"
    path.write_bytes(packed)
    loaded = read_chrome_trace(path)
    assert loaded.quality.truncated
    assert loaded.quality.events > 5_000
    assert loaded.columns.start_ns[:5_000].tolist() == [number * 1000 for number in range(5_000)]


BAD = {
    "empty list": (b"[]", "a trace without a single event (nothing ran while it was recorded)"),
    "no events": (b'{"traceEvents": []}', "a trace without a single event (nothing ran while it was recorded)"),
    "cut": (b'{"traceEvents": [{"ph": "X", "na', "a trace that is cut off before its first whole event"),
    "numbers": (b"[1, 2, 3]", "a list of 3 values that are not trace events"),
    "no spans": (b'[{"ph": "B", "ts": 1}]', "1 events but none with a duration (phase X)"),
    "object": (b'{"b": 1, "a": 2}', "a JSON object with the keys ['a', 'b']"),
    "string": (b'"hello"', "a JSON str"),
    "text": (b"hello world\n", "text that is not JSON, or cut off before its events (it starts with 'hello world\\n')"),
    "gzip head": (b"\x1f\x8b\x08", "packed data that are empty or cannot be unpacked"),
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_no_trace_is_named(case: str, tmp_path: Path) -> None:
    data, found = BAD[case]
    path = tmp_path / "t.json"
    path.write_bytes(data)
    with pytest.raises(TraceFormatError) as raised:
        read_chrome_trace(path)
    assert str(raised.value).startswith(f"{path}: found {found}, expected a chrome trace")
    assert str(raised.value).endswith(RECORD)


def test_missing_and_empty_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        read_chrome_trace(tmp_path / "no.json")
    assert str(raised.value) == f"{tmp_path / 'no.json'}: no such file, expected a chrome trace. {RECORD}"
    (tmp_path / "empty.json").touch()
    with pytest.raises(InputError) as raised:
        read_chrome_trace(tmp_path / "empty.json")
    assert (
        str(raised.value)
        == f"{tmp_path / 'empty.json'}: the file is empty (0 bytes), expected a chrome trace. {RECORD}"
    )
