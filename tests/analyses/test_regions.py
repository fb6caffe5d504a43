"""Region totals of shapes that real traces seldom have; nothing here imports torch."""

from __future__ import annotations

from pathlib import Path

from profiler_kit import Trace, load_trace
from tests.builders import TraceBuilder
from tests.effort import calls


def nested(depth: int, path: Path) -> Trace:
    """A trace of regions one inside the other, whose instances have been found."""
    trace = TraceBuilder()
    for level in range(depth):
        trace.region(f"r{level}", level, 2 * (depth - level))
    loaded = load_trace(trace.write(path))
    loaded.region_instances()
    return loaded


def test_nine_times_the_nested_regions_are_nine_times_the_work_or_less(tmp_path: Path) -> None:
    depth = 900
    few, many = nested(depth // 9, tmp_path / "few.json"), nested(depth, tmp_path / "deep.json")
    assert calls(many.regions) < 9 * calls(few.regions)
    totals = many.regions()
    assert [len(path) for path in totals["path"]] == list(range(1, depth + 1))
    assert totals["path"].iloc[-1] == tuple(f"r{level}" for level in range(depth))
