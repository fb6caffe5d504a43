"""Kernels and memory in one figure: the share of busy time is exact, and what is drawn is what the files say."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit import join_run, load_snapshot, load_trace
from profiler_kit.analyses.gpu.intervals import covered_between, union
from profiler_kit.render.figures.memory import kernels_and_memory

GOLDEN = Path(__file__).parents[1] / "golden"
SPANS = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 30)), max_size=20)


@given(SPANS, st.integers(1, 12))
def test_what_is_covered_is_what_counting_gives(spans: list[tuple[int, int]], steps: int) -> None:
    start = np.array([a for a, _ in spans], np.int64)
    end = np.array([a + length for a, length in spans], np.int64)
    edges = np.linspace(5, 5 + 6 * steps, steps + 1)
    counted = [
        sum(any(a <= at < b for a, b in zip(start, end, strict=True)) for at in range(int(low), int(high))) / 6
        for low, high in pairwise(edges)
    ]
    assert covered_between(*union(start, end), edges[:-1], edges[1:]) / 6 == pytest.approx(counted)


def test_the_figure_of_a_real_run() -> None:
    joined = join_run(
        load_trace(GOLDEN / "joined_h200.json.gz", cache=False), load_snapshot(GOLDEN / "joined_h200.pickle")
    )
    regions, timeline = joined.regions(), joined.snapshot.timeline()
    figure = kernels_and_memory(joined.trace.gpu_events(), timeline, regions, joined.trace.base_ns)
    busy, reserved, allocated, peak_mark, bands = figure.data
    assert (busy.name, reserved.name, allocated.name) == (
        "GPU busy",
        "Reserved from the driver",
        "Requested by tensors",
    )
    length_ms = (joined.trace.gpu_events().eval("start_ns + dur_ns").max() - regions["start_ns"].min()) / 1e6
    length_ms = max(length_ms, (regions["end_ns"].max() - regions["start_ns"].min()) / 1e6)
    assert figure.layout.xaxis.range == pytest.approx((0, length_ms))
    assert np.mean(busy.y) / 100 * length_ms == pytest.approx(40.484, abs=0.001)  # busy time of the two steps, ms
    assert max(allocated.y) == pytest.approx(2_479_435_016 / (1 << 30))
    assert peak_mark.y[0] == max(allocated.y) and peak_mark.x[0] == allocated.x[int(np.argmax(allocated.y))]
    assert len(bands.x) == len(regions) and len(allocated.x) <= 4_000
    inside = [bands.base[i] for i in range(14) if "image encoder" in bands.hovertemplate[i]]
    peak = allocated.x[int(np.argmax(allocated.y))]
    assert min(inside) < peak < length_ms
    assert joined.region_totals()["peak_bytes"].max() == 2_479_435_016
