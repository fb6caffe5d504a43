"""Region totals of shapes that real traces seldom have; nothing here imports torch."""

from __future__ import annotations

import time
from pathlib import Path

from profiler_kit import load_trace
from tests.builders import TraceBuilder


def test_hundreds_of_nested_regions_take_no_time(tmp_path: Path) -> None:
    depth = 900
    trace = TraceBuilder()
    for level in range(depth):
        trace.region(f"r{level}", level, 2 * (depth - level))
    loaded = load_trace(trace.write(tmp_path / "deep.json"))
    loaded.region_instances()
    since = time.perf_counter()
    totals = loaded.regions()
    assert time.perf_counter() - since < 0.5
    assert [len(path) for path in totals["path"]] == list(range(1, depth + 1))
    assert totals["path"].iloc[-1] == tuple(f"r{level}" for level in range(depth))
