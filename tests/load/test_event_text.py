"""The text of chosen events, read a second time: what stands in the file comes out, event for event."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from profiler_kit.attribute.regions import attribute
from profiler_kit.errors import InputError, TraceFormatError
from profiler_kit.load.trace import split_events
from profiler_kit.load.trace.event_text import Scan, copy_events, microseconds, replaced, scan, shifted
from profiler_kit.trace import load_trace
from tests.builders import TraceBuilder, real_traces


def events_of(path: Path) -> list[dict[str, Any]]:
    data = path.read_bytes()
    value = json.loads(gzip.decompress(data) if path.suffix == ".gz" else data)
    found: list[dict[str, Any]] = value["traceEvents"] if isinstance(value, dict) else value
    return found


def texts(found: Scan, *numbers: int) -> list[dict[str, Any]]:
    return [json.loads(text) for text in copy_events(found, np.array(numbers, dtype=np.int64))]


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_a_scan_of_a_real_trace_equals_loading_it(path: Path) -> None:
    found, loaded, events = scan(path), load_trace(path), events_of(path)
    assert found.total == len(events)
    assert np.array_equal(found.spans.start_ns, loaded.columns.start_ns)
    assert np.array_equal(found.spans.dur_ns, loaded.columns.dur_ns)
    assert [events[number]["name"] for number in found.spans.number.tolist()] == [
        loaded.columns.names[code] for code in loaded.columns.name.tolist()
    ]
    mine = attribute(found.columns)
    instances, gpu = loaded.region_instances(), loaded.gpu_events()
    assert found.columns_span[mine.event].tolist() == gpu["event"].tolist()
    assert [mine.paths[code] for code in mine.path.tolist()] == gpu["path"].tolist()
    assert mine.instances.start_ns.tolist() == instances["start_ns"].tolist()


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_copied_events_are_the_events_of_the_file(path: Path) -> None:
    found, events = scan(path), events_of(path)
    assert texts(found, *range(found.total // 10)) == events[: found.total // 10]
    assert texts(found, *range(3, found.total, 7)) == events[3::7]


def small(tmp_path: Path, count: int = 40) -> Path:
    trace = TraceBuilder()
    for number in range(count):
        trace.operator(f"op {number}", 10 * number, 5, shapes=[number, {"deep": [1, 2]}])
    return trace.write(tmp_path / "small.json")


def test_blocks_of_any_size_give_the_same_events(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = small(tmp_path)
    monkeypatch.setattr(split_events, "BLOCK_BYTES", 600)
    monkeypatch.setattr("profiler_kit.load.trace.decompress.BLOCK_BYTES", 200)
    found = scan(path)
    assert len(found.outcomes) > 5
    assert texts(found, 0, 17, 39) == [events_of(path)[number] for number in (0, 17, 39)]


def test_the_text_is_copied_byte_for_byte(tmp_path: Path) -> None:
    path = tmp_path / "odd.json"
    event = b'{"args" : {"x": 1e5, "y":\t[ 1 ]}, "ph":"X", "name": "\\u00e9", "cat":"cpu_op","ts":1.50,"dur": 2}'
    path.write_bytes(b'{"traceEvents": [' + event + b"]}")
    assert list(copy_events(scan(path), np.array([0]))) == [event]


def test_events_that_had_to_be_mended_come_as_valid_json(tmp_path: Path) -> None:
    path = small(tmp_path, 3)
    broken = path.read_bytes().replace(b'"op 1"', b'"op "1""').replace(b'"name": "op 2"', b'"name": oops')
    path.write_bytes(broken)
    found = scan(path)
    assert found.total == 2
    read = texts(found, 0, 1)
    whole = events_of(small(tmp_path, 3))
    assert read == [whole[0], {**whole[1], "name": 'op "1"'}]


def test_bad_utf8_that_decoding_skips_is_replaced(tmp_path: Path) -> None:
    path = small(tmp_path, 2)
    path.write_bytes(path.read_bytes().replace(b'"deep"', b'"d\xffep"', 1))
    assert texts(scan(path), 0)[0]["args"]["shapes"] == [0, {"d\ufffdep": [1, 2]}]


def test_a_truncated_file_gives_its_whole_events(tmp_path: Path) -> None:
    path = small(tmp_path)
    data = path.read_bytes()
    path.write_bytes(data[: data.index(b'"op 20"')])
    found = scan(path)
    assert found.total == 20
    assert [event["name"] for event in texts(found, 0, 19)] == ["op 0", "op 19"]


def test_what_is_no_span_is_told_apart(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.launch(7, 3)
    trace.events.append({"ph": "i", "name": "mark", "ts": 4.5, "pid": 1, "tid": 1})
    trace.events.append({"ph": "M", "name": "process_name", "pid": 1, "tid": 0, "args": {"name": "python"}})
    trace.events.append({"ph": "X", "name": "negative", "cat": "cpu_op", "ts": 1, "dur": -1, "pid": 1, "tid": 1})
    found = scan(trace.write(tmp_path / "t.json.gz"))
    assert found.total == 5
    assert found.spans.number.tolist() == [0]
    assert (found.flows.number.tolist(), found.flows.id.tolist(), found.flows.time_ns.tolist()) == ([1], [7], [3000])
    assert found.moments.tolist() == [[2, 4500]]
    assert found.metadata_events.tolist() == [3]
    assert found.base_ns == 1_700_000_000_000_000_000


def test_a_file_that_changes_between_the_passes_is_refused(tmp_path: Path) -> None:
    path = small(tmp_path)
    found = scan(path)
    small(tmp_path, 41)
    with pytest.raises(TraceFormatError) as error:
        texts(found, 1)
    assert str(error.value) == f"{path}: the file changed while it was read. Try again."


def test_a_missing_file_and_one_without_events(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file"):
        scan(tmp_path / "none.json")
    empty = tmp_path / "empty.json"
    empty.write_text('{"traceEvents": []}')
    with pytest.raises(TraceFormatError, match="found a trace without a single event"):
        scan(empty)


@pytest.mark.parametrize(("ns", "text"), [(0, b"0.000"), (1_234_567, b"1234.567"), (-1, b"-0.001"), (-2500, b"-2.500")])
def test_microseconds_are_written_as_kineto_does(ns: int, text: bytes) -> None:
    assert microseconds(ns) == text


def test_replaced_values_leave_the_others_as_they_are_written() -> None:
    text = b'{"name": "a \\"tid\\": 3", "tid" : "x", "args": {"tid": 1.50, "ts": 1}, "ts": 5000000.125}'
    moved = replaced(text, {"tid": b"7"})
    assert moved == b'{"name": "a \\"tid\\": 3", "tid": 7, "args": {"tid": 1.50, "ts": 1}, "ts": 5000000.125}'
    assert shifted(text, 4_999_999_000).endswith(b'"ts": 1.125}')
    assert shifted(text, 5_000_001_000) == text
    assert shifted(b'{"ph": "M"}', 10) == b'{"ph": "M"}'
