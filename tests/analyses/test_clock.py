"""Matching a trace with a snapshot: regions pair by name and time, and the joined numbers are countable by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.analyses.compare.clock import (
    CLOCK_PAIRS,
    FARTHEST_US,
    match_regions,
    measure,
    region_memory,
    region_memory_totals,
)
from profiler_kit.analyses.memory.leaks import MEMORY_REGION_INSTANCES
from profiler_kit.attribute.frames import GPU_EVENTS, REGION_INSTANCES

BASE_NS = 1_795_000_000_000_000_000
Row = tuple[str, int, int]  # name, start, end in us since the base


def paths(values: list[tuple[str, ...]]) -> pd.Categorical:
    categories = list(dict.fromkeys(values))
    codes = [categories.index(value) for value in values]
    return pd.Categorical.from_codes(codes, pd.Index(categories, tupleize_cols=False))


def opened(rows: list[Row], parents: list[int | None] | None = None) -> pd.DataFrame:
    """REGION_INSTANCES of rows that begin at whole microseconds."""
    nothing = pd.array([None] * len(rows), dtype="Int64")
    return REGION_INSTANCES.check(
        pd.DataFrame(
            {
                "event": np.arange(len(rows)),
                "name": pd.Series([name for name, _, _ in rows], dtype=object),
                "step": nothing,
                "path": paths([(name,) for name, _, _ in rows]),
                "parent": nothing if parents is None else pd.array(parents, dtype="Int64"),
                "thread": np.zeros(len(rows), np.int32),
                "start_ns": np.array([start * 1000 for _, start, _ in rows], np.int64),
                "end_ns": np.array([end * 1000 for _, _, end in rows], np.int64),
                "gpu_start_ns": nothing,
                "gpu_end_ns": nothing,
            }
        )
    )


def spans(rows: list[Row], closed: list[bool] | None = None) -> pd.DataFrame:
    """MEMORY_REGION_SPANS of device 0."""
    base = BASE_NS // 1000
    return pd.DataFrame(
        {
            "device": np.zeros(len(rows), np.int64),
            "path": pd.Series([("top", name) for name, _, _ in rows], dtype=object),
            "start_us": np.array([base + start for _, start, _ in rows], np.int64),
            "end_us": np.array([base + end for _, _, end in rows], np.int64),
            "closed": np.ones(len(rows), np.bool_) if closed is None else np.array(closed),
        }
    )


def test_regions_pair_by_name_and_time_whatever_each_file_lacks() -> None:
    instances = opened([("a", 100, 200), ("b", 110, 150), ("a", 300, 400), ("only here", 310, 320)])
    kept = spans([("a", -9_000, -8_000), ("a", 97, 198), ("b", 109, 150), ("only there", 120, 130), ("a", 303, 390)])
    kept["closed"] = [True, True, True, True, False]
    pairs = match_regions(instances, kept, BASE_NS)
    assert pairs["instance"].tolist() == [0, 1, 2]
    assert pairs["span"].tolist() == [1, 2, 4]
    assert pairs["start_difference_us"].tolist() == [3.0, 1.0, -3.0]
    assert pairs["end_difference_us"].tolist()[:2] == [2.0, 0.0] and pairs["end_difference_us"].isna().tolist()[2]
    clock = measure(pairs)
    assert (clock.readings, clock.offset_us, clock.median_us, clock.max_us) == (5, 1.0, 2.0, 3.0)
    assert clock.p99_us == pytest.approx(3.0)


@settings(max_examples=40)
@given(
    starts=st.lists(st.integers(1, 50), min_size=1, max_size=30, unique=True),
    shift=st.integers(-FARTHEST_US, FARTHEST_US),
    lost=st.sets(st.integers(0, 29)),
)
def test_a_constant_offset_is_found_and_nothing_is_paired_twice(starts: list[int], shift: int, lost: set[int]) -> None:
    rows = [("r", start * 10_000, start * 10_000 + 500) for start in sorted(starts)]
    there = [(name, start - shift, end - shift) for n, (name, start, end) in enumerate(rows) if n not in lost]
    pairs = match_regions(opened(rows), spans(there), BASE_NS)
    assert len(pairs) == len(there) and not pairs["instance"].duplicated().any()
    assert (pairs["start_difference_us"] == shift).all() and (pairs["end_difference_us"] == shift).all()


def test_regions_of_another_time_or_name_do_not_pair() -> None:
    instances = opened([("a", 0, 10)])
    for other in ([("a", FARTHEST_US + 1, FARTHEST_US + 11)], [("b", 0, 10)], []):
        pairs = match_regions(instances, spans(other), BASE_NS)
        assert pairs.empty
        CLOCK_PAIRS.check(pairs)
        with pytest.raises(ValueError, match="no region is in both files"):
            measure(pairs)
    assert match_regions(opened([]), spans([("a", 0, 10)]), BASE_NS).empty


def test_work_and_memory_of_nested_regions() -> None:
    """Outer launches kernel 0 and, through inner, 1 and 2, which overlap on two streams; device 1 is another's."""
    instances = opened([("outer", 0, 100), ("inner", 20, 60)], [None, 0])
    pairs = match_regions(instances, spans([("outer", 1, 100), ("inner", 20, 61)]), BASE_NS)
    empty = pd.array([None] * 4, dtype="Int64")
    events = GPU_EVENTS.check(
        pd.DataFrame(
            {
                "event": np.arange(4),
                "name": pd.Categorical(["k"] * 4),
                "category": pd.Categorical(["kernel"] * 4),
                "process": pd.Categorical(["1"] * 4),
                "communication": pd.Categorical([""] * 4),
                "device": pd.array([0, 0, None, 1], dtype="Int64"),
                "stream": pd.array([7, 7, 8, 7], dtype="Int64"),
                "start_ns": np.array([10, 1_000, 1_500, 10], np.int64),
                "dur_ns": np.array([100, 1_000, 1_000, 5_000], np.int64),
                "launch": empty,
                "launch_start_ns": empty,
                "launch_thread": pd.array([None] * 4, dtype="Int32"),
                "instance": pd.array([0, 1, 1, 1], dtype="Int64"),
                "path": paths([("outer",), ("inner",), ("inner",), ("inner",)]),
                "forward_path": paths([()] * 4),
            }
        )
    )
    held = pd.DataFrame(
        {
            "device": np.zeros(2, np.int64),
            "path": pd.Series([("outer",), ("inner",)], dtype=object),
            "start_us": np.zeros(2, np.int64),
            "end_us": np.zeros(2, np.int64),
            "before_bytes": np.array([5, 8], np.int64),
            "peak_bytes": np.array([90, 70], np.int64),
            "after_bytes": np.array([5, 20], np.int64),
        }
    )
    MEMORY_REGION_INSTANCES.check(held)
    joined = region_memory(pairs, instances, events, held, np.array([100, 60], np.int64))
    assert joined["gpu_events"].tolist() == [3, 2]
    assert joined["sum_ns"].tolist() == [2_100, 2_000]
    assert joined["busy_ns"].tolist() == [1_600, 1_500]
    assert joined["peak_bytes"].tolist() == [90, 70] and joined["allocated_bytes"].tolist() == [100, 60]
    totals = region_memory_totals(pd.concat([joined, joined], ignore_index=True))
    assert totals["path"].tolist() == [("outer",), ("inner",)] and totals["instances"].tolist() == [2, 2]
    assert totals["busy_ns"].tolist() == [3_200, 3_000] and totals["peak_bytes"].tolist() == [90, 70]
    assert totals["net_bytes"].tolist() == [0, 24]
    assert region_memory_totals(joined.iloc[:0]).empty
