"""The drawing index: no time lost, bins equal to a slow count, rows that do not overlap."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.attribute.frames import GPU_EVENTS, LAUNCH_CALLS, OPERATORS, REGION_INSTANCES
from profiler_kit.load.cache import FOLDER_VARIABLE, LIMIT_VARIABLE, NotOurs, read_file, write_file
from profiler_kit.load.trace import cached as traces
from profiler_kit.timeline import cached
from profiler_kit.timeline.build import build_timeline, group_gpu_work, stack_rows
from profiler_kit.timeline.cached import TIMELINES, has_timeline, trace_timeline
from profiler_kit.timeline.counters import counters_of, memory_counters, with_counters
from profiler_kit.timeline.index import Row, Timeline
from profiler_kit.timeline.search import Direction, find_matches, step
from profiler_kit.timeline.tiles import tile
from profiler_kit.trace import Trace, load_trace
from tests.builders import SHARED, TraceBuilder
from tests.serving.samples import two_requests

Spans = st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 300)), min_size=1, max_size=60)


def indexed(path: Path) -> tuple[Trace, Timeline]:
    trace = load_trace(path)
    return trace, build_timeline(
        trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls(), trace.threads
    )


def sorted_spans(spans: list[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    start, dur = (np.array(column, np.int64) for column in zip(*spans, strict=True))
    order = np.lexsort((-dur, start))
    return start[order], dur[order]


@given(Spans)
def test_rows_hold_every_span_once_and_never_overlap(spans: list[tuple[int, int]]) -> None:
    start, dur = sorted_spans(spans)
    row = stack_rows(start, dur)
    for number in range(int(row.max()) + 1):
        mine = row == number
        assert mine.any()
        assert (start[mine][1:] >= (start + dur)[mine][:-1]).all()
    crowd = max(int(((start <= t) & (start + dur > t)).sum()) for t in start)
    assert int(row.max()) + 1 <= max(1, crowd) + int((dur == 0).any())


def test_nested_spans_come_out_by_depth() -> None:
    start, dur = sorted_spans([(0, 100), (10, 50), (20, 10), (70, 20), (200, 5)])
    assert stack_rows(start, dur).tolist() == [0, 1, 2, 1, 0]


@settings(max_examples=60)
@given(Spans, st.integers(-100, 2_000), st.integers(1, 2_500), st.integers(1, 40))
def test_bins_equal_a_slow_count(spans: list[tuple[int, int]], first: int, width: int, count: int) -> None:
    start, dur = sorted_spans(spans)
    alone = stack_rows(start, dur) == 0
    start, dur = start[alone], dur[alone]
    row = Row.of(start, dur, np.arange(start.size), np.arange(start.size))
    bins = row.bins(first, first + width, count)
    edges = first + np.linspace(0, width, count + 1).astype(np.int64)
    for i, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = np.clip(np.minimum(start + dur, high) - np.maximum(start, low), 0, None).sum()
        assert bins.busy[i] == pytest.approx(inside / max(1, high - low))
        assert bins.count[i] == ((start >= low) & (start < high)).sum()
        if bins.busy[i] > 0:
            touching = np.flatnonzero((start < high) & (start + dur > low))
            assert bins.code[i] in touching or dur[bins.code[i]] == 0


def test_the_longest_of_a_bin_is_found_through_the_mipmap() -> None:
    size = 300_000
    start = np.arange(size, dtype=np.int64) * 10
    dur = np.full(size, 3, np.int64)
    dur[123_457] = 9
    row = Row.of(start, dur, np.arange(size), np.arange(size))
    bins = row.bins(0, size * 10, 10)
    assert bins.code[4] == 123_457 and bins.count.sum() == size
    assert (bins.busy * (size * 10 / 10)).sum() == pytest.approx(dur.sum())


def test_tracks_of_a_trace(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.region("step", 0, 100)
    builder.operator("aten::mm", 10, 20)
    builder.operator("aten::inner", 12, 5)
    for number, (start, stream) in enumerate([(30, 7), (35, 7), (30, 8)], 1):
        builder.launch(number, 11)
        builder.kernel(number, start, 10, stream=stream)
    _, timeline = indexed(builder.write(tmp_path / "t.json"))
    assert [(t.label, t.kind, t.rows, t.spans) for t in timeline.tracks] == [
        ("Regions on GPUs", "gpu_region", 1, 1),
        ("Stream 7", "gpu", 2, 2),  # the two overlap
        ("Stream 8", "gpu", 1, 1),
        ("Regions, thread 1", "region", 1, 1),
        ("Operators, thread 1", "operator", 2, 2),  # one inside the other
        ("Launches, thread 1", "launch", 3, 3),  # all at once, which no thread can
    ]
    assert [t.depths for t in timeline.tracks] == [True, False, False, True, True, False]
    assert [timeline.nearest(1, time) for time in (-9, 34_000, 35_000, 99_000)] == [0, 0, 0, 0]
    assert timeline.nearest(99, 0) == -1  # no such row
    *_, inner = timeline.open_at("operator", 0, 13_000)
    assert timeline.labels[timeline.rows[inner[0]].code[inner[1]]][1] == "aten::inner"


def test_counters_are_lanes_as_high_as_their_value(tmp_path: Path) -> None:
    builder = TraceBuilder()
    builder.region("step", 0, 100)
    for number, start in enumerate((40, 60, 80), 1):
        builder.launch(number, 10 * number)
        builder.kernel(number, start, 20)
    builder.kernel(None, 50, 10, name="ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", stream=9)
    trace, timeline = indexed(builder.write(tmp_path / "t.json"))
    memory = pd.DataFrame({"device": [0, 0], "time_us": [0, 50], "allocated_bytes": [1 << 20, 4 << 20]})
    later = memory.assign(time_us=memory["time_us"] + 9_000)
    counters = [*counters_of(trace.queue_length(), trace.gpu_events()), *memory_counters(memory, 0)]
    found = with_counters(timeline, [*counters, *memory_counters(later, 0)])
    lanes = {track.label: track for track in found.tracks if track.kind == "counter"}
    assert {label: track.most for label, track in lanes.items()} == {
        "Queue, stream 7": "3 waiting",
        "Communication": "1 kernels at once",
        "Memory, GPU 0": "4.0 MiB",  # that of a later time is left out
    }

    def shares(label: str) -> list[float]:
        return found.rows[lanes[label].first_row].bins(0, 100_000, 10).busy.round(2).tolist()

    # 1 to 3 launches wait from 10, 20 and 30 us on, one less from 40, 60 and 80
    assert shares("Queue, stream 7") == [0, 0.33, 0.67, 1, 0.67, 0.67, 0.33, 0.33, 0, 0]
    assert shares("Communication") == [0, 0, 0, 0, 0, 1, 0, 0, 0, 0]
    assert shares("Memory, GPU 0") == [0.25] * 5 + [1] * 5
    deep = found.rows[lanes["Queue, stream 7"].first_row].bins(31_000, 32_000, 4)  # inside one level
    assert deep.busy.tolist() == [1] * 4
    assert (found.start_ns, found.end_ns) == (timeline.start_ns, timeline.end_ns)
    assert tile(found, 31_000, 32_000, 100, rows=[lanes["Queue, stream 7"].first_row]).find(b'"busy"') > 0


def test_empty_frames_have_no_tracks() -> None:
    threads = pd.DataFrame(columns=["pid", "tid", "label"])
    frames = (GPU_EVENTS.empty(), REGION_INSTANCES.empty(), OPERATORS.empty(), LAUNCH_CALLS.empty())
    timeline = build_timeline(*frames, threads)
    assert timeline.tracks == () and timeline.end_ns > timeline.start_ns


def test_absolute_times_keep_their_nanoseconds() -> None:
    base = 1_700_000_000_123_456_789
    row = Row.of(np.array([base, base + 10]), np.array([3, 5]), np.array([0, 1]), np.array([0, 1]))
    bins = row.bins(base, base + 20, 20)
    assert bins.busy.sum() == 8 and bins.count.nonzero()[0].tolist() == [0, 10]


@pytest.mark.parametrize("path", sorted(SHARED.glob("h200/*.json.gz")), ids=lambda p: p.name)
def test_real_captures_lose_no_time(path: Path) -> None:
    trace, timeline = indexed(path)
    rows = [
        row for t in timeline.tracks if t.kind == "gpu" for row in timeline.rows[t.first_row : t.first_row + t.rows]
    ]
    assert sum(int(row.dur.sum()) for row in rows) == int(trace.gpu_events()["dur_ns"].sum())
    for row in timeline.rows:
        assert (row.start[1:] >= (row.start + row.dur)[:-1]).all()
    shown = sum(len(timeline.rows[number]) for number in timeline.rows_of("operator"))
    assert shown == len(trace.operators())
    for number in timeline.rows_of("gpu"):
        row = timeline.rows[number]
        assert (trace.gpu_events()["start_ns"].to_numpy()[row.item] == row.start).all()


def crowd(tmp_path: Path) -> tuple[Trace, Timeline]:
    """Three regions of ten kernels each on two streams, launched by two operators on two threads."""
    builder = TraceBuilder()
    for number in range(30):
        region, thread, at = f"part {number % 3}", 1 + number % 2, number * 100.0
        builder.region(region, at, 50, thread)
        builder.operator("aten::mm" if number % 2 else "aten::add", at + 1, 20, thread)
        builder.launch(number + 1, at + 2, thread)
        builder.kernel(number + 1, at + 30, 10 + number, name=f"k{number % 5}", stream=7 + number % 2)
    return indexed(builder.write(tmp_path / "t.json"))


@pytest.mark.parametrize(
    ("by", "labels"),
    [
        ("stream", ["Stream 8", "Stream 7"]),
        ("region", ["part 2", "part 1", "part 0"]),
        ("thread", ["From thread 2", "From thread 1"]),
        ("operator", ["aten::mm", "aten::add"]),
    ],
)
def test_gpu_work_in_other_lanes(tmp_path: Path, by: str, labels: list[str]) -> None:
    trace, timeline = crowd(tmp_path)
    operators = trace.kernel_details()["outer_operator"]
    grouped = group_gpu_work(timeline, trace.gpu_events(), by, trace.threads, operators)  # type: ignore[arg-type]
    assert [t.label for t in grouped.tracks if t.kind == "gpu"] == labels
    assert sum(t.spans for t in grouped.tracks if t.kind == "gpu") == 30
    assert [t.label for t in grouped.tracks if t.kind != "gpu"] == [t.label for t in timeline.tracks if t.kind != "gpu"]
    for track in grouped.tracks:
        for number in range(track.first_row, track.first_row + track.rows):
            assert {grouped.labels[code][0] for code in grouped.rows[number].code} == {track.kind}


@pytest.mark.parametrize("direction", ["next", "previous"])
def test_stepping_through_matches_is_a_walk_in_order(tmp_path: Path, direction: Direction) -> None:
    _, timeline = crowd(tmp_path)
    rows = range(len(timeline.rows))
    matches = find_matches(timeline, "K3")
    slow = sorted(
        (int(start), number, int(index))
        for number, row in enumerate(timeline.rows)
        for index, (start, code) in enumerate(zip(row.start, row.code, strict=True))
        if "k3" in timeline.labels[code][1]
    )
    assert len(slow) == 6 and matches.total(rows) == 6
    wanted = slow if direction == "next" else slow[::-1]
    at = (timeline.start_ns - 1, 0) if direction == "next" else (timeline.end_ns + 1, 0)
    for start, row, index in [*wanted, wanted[0]]:  # after the last one the first
        found = step(timeline, matches, rows, at, direction)
        assert found is not None and (found.row, found.index) == (row, index)
        assert slow[found.number - 1] == (start, row, index)
        at = (start, row)
    assert step(timeline, find_matches(timeline, "nowhere"), rows, at, direction) is None


@settings(max_examples=40)
@given(Spans, st.integers(0, 2_000), st.integers(1, 2_500), st.integers(1, 40))
def test_matches_in_a_view_equal_a_slow_count(spans: list[tuple[int, int]], first: int, width: int, count: int) -> None:
    start, dur = sorted_spans(spans)
    alone = stack_rows(start, dur) == 0
    start, dur = start[alone], dur[alone]
    code = np.arange(start.size) % 2
    row = Row.of(start, dur, code, np.arange(start.size))
    timeline = Timeline(0, 5_000, (), (row,), (("gpu", "yes", ()), ("gpu", "no", ())))
    matches = find_matches(timeline, "yes")
    exact = row.exact(first, first + width)
    assert matches.in_view(0, exact).tolist() == (exact.code == 0).tolist()
    edges = first + np.linspace(0, width, count + 1).astype(np.int64)
    wanted = [bool(((start >= a) & (start < b) & (code == 0)).any()) for a, b in itertools.pairwise(edges)]
    assert matches.in_view(0, row.bins(first, first + width, count)).tolist() == wanted


def test_a_timeline_comes_back_from_its_file(tmp_path: Path) -> None:
    _, timeline = crowd(tmp_path)
    big = Row.of(np.arange(9_000) * 10, np.arange(9_000) % 9, np.zeros(9_000, np.int64), np.arange(9_000))
    timeline = Timeline(timeline.start_ns, timeline.end_ns, timeline.tracks, (*timeline.rows, big), timeline.labels)
    file, stamp = tmp_path / "x.timeline", {"size": 1}
    write_file(file, TIMELINES, stamp, timeline)
    found = read_file(file, TIMELINES, stamp)
    assert (found.tracks, found.labels, found.start_ns) == (timeline.tracks, timeline.labels, timeline.start_ns)
    for mine, theirs in zip(found.rows, timeline.rows, strict=True):
        for name in ("start", "busy", "code", "item", "dur"):
            assert (getattr(mine, name) == getattr(theirs, name)).all()
        assert [level.tolist() for level in mine.levels] == [level.tolist() for level in theirs.levels]
    with pytest.raises(NotOurs):
        read_file(file, TIMELINES, {"size": 2})
    whole = file.read_bytes()
    for damaged in (whole[:-1], whole[:60], whole.replace(b"part 1", b"part 9", 1), b"junk", b""):
        file.write_bytes(damaged)
        with pytest.raises(NotOurs):
            read_file(file, TIMELINES, stamp)


def test_occupancy_is_a_lane_of_what_runs_at_once_and_steps_bear_their_number(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("ProfilerStep#12", 0, 60)
    said = [(10, 40), (15, 35), (20, 50), (40, "lots"), (50, None)]
    for number, (start, percent) in enumerate(said):
        kernel = trace.kernel(None, start, 10, stream=number)
        if percent is not None:
            kernel["args"]["est. achieved occupancy %"] = percent
    loaded = load_trace(trace.write(tmp_path / "t.json"), arguments=("occupancy",))
    frames = (loaded.gpu_events(), loaded.region_instances(), loaded.operators(), loaded.launch_calls())
    assert ("region", "ProfilerStep#12", ("ProfilerStep",), "") in build_timeline(*frames, loaded.threads).labels
    (lane,) = counters_of(loaded.queue_length(), loaded.gpu_events(), loaded.columns.extra["occupancy"])
    value = dict(zip(lane.time_ns.tolist(), lane.value.tolist(), strict=True))  # the last one at a time
    assert (lane.label, lane.most) == ("Estimated occupancy", "85 %")
    assert [value[at * 1000] for at in (10, 15, 20, 25, 30, 40, 50, 60)] == [40, 75, 85, 50, 0, 0, 0, 0]


def test_a_kept_timeline_is_of_its_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The critical path is cut where the server had no request."""
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.delenv(LIMIT_VARIABLE, raising=False)
    monkeypatch.setattr(traces, "SMALLEST_JSON_BYTES", 0)
    monkeypatch.setattr(cached, "SLOW_S", -1.0)
    path = two_requests(tmp_path)
    os.utime(path, (1_700_000_000, 1_700_000_000))  # what was written just now is not kept
    trace_timeline(path, lambda: load_trace(path))
    assert has_timeline(path)
    (tmp_path / "requests.parquet").unlink()
    assert not has_timeline(path)
