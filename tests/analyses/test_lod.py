"""The drawing index: no time lost, bins equal to a slow count, rows that do not overlap."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.analyses.lod import Row, Timeline, build_timeline, stack_rows
from profiler_kit.schemas import GPU_EVENTS, OPERATORS, REGION_INSTANCES
from profiler_kit.trace import Trace, load_trace
from tests.builders import SHARED, TraceBuilder

Spans = st.lists(st.tuples(st.integers(0, 2_000), st.integers(0, 300)), min_size=1, max_size=60)


def indexed(path: Path) -> tuple[Trace, Timeline]:
    trace = load_trace(path)
    return trace, build_timeline(trace.gpu_events(), trace.region_instances(), trace.operators(), trace.threads)


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
    row = Row(start, dur, np.arange(start.size, dtype=np.int64), np.full(start.size, np.nan))
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
    row = Row(start, dur, np.arange(size, dtype=np.int64), np.full(size, np.nan))
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
        ("Regions on the GPU", "gpu_region", 1, 1),
        ("Stream 7", "gpu", 2, 2),  # the two overlap
        ("Stream 8", "gpu", 1, 1),
        ("Regions, thread 1", "region", 1, 1),
        ("Operators, thread 1", "operator", 1, 1),  # the outermost only
    ]
    (first,) = [row for row in timeline.rows[1:2]]
    assert first.exact(0, 10**6).delay_ns.tolist() == [19_000.0]


def test_empty_frames_have_no_tracks() -> None:
    threads = pd.DataFrame(columns=["pid", "tid", "label"])
    timeline = build_timeline(GPU_EVENTS.empty(), REGION_INSTANCES.empty(), OPERATORS.empty(), threads)
    assert timeline.tracks == () and timeline.end_ns > timeline.start_ns


def test_absolute_times_keep_their_nanoseconds() -> None:
    base = 1_700_000_000_123_456_789
    row = Row(np.array([base, base + 10]), np.array([3, 5]), np.array([0, 1]), np.full(2, np.nan))
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
        assert (row.start[1:] >= row.end[:-1]).all()
