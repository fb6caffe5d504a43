"""Several timelines drawn as one: every span of each part is there, at its time, with its own facts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from profiler_kit.render.span_facts import span_facts
from profiler_kit.timeline.build import build_timeline
from profiler_kit.timeline.index import Timeline
from profiler_kit.timeline.several import Part, common_regions, side_by_side, starts_of
from profiler_kit.timeline.tiles import describe
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder


def _trace(path: Path, first_us: int, kernels: int) -> Trace:
    """A step at `first_us` whose kernels of 1 us begin 10 us later, 2 us apart."""
    trace = TraceBuilder()
    trace.region("ProfilerStep#7", first_us, 5)
    for number in range(kernels):
        trace.launch(number + 1, first_us + 1 + 2 * number, 1)
        trace.kernel(number + 1, first_us + 10 + 2 * number, 1, name=f"k{number % 3}")
    return load_trace(trace.write(path))


def _drawn(trace: Trace) -> Timeline:
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls())
    return build_timeline(*frames, trace.threads)


@pytest.fixture
def traces(tmp_path: Path) -> list[Trace]:
    """The second one has so many kernels that its rows have a mipmap; both hold the same step, elsewhere."""
    return [_trace(tmp_path / "a.json", 100, 3), _trace(tmp_path / "b.json", 5000, 10_000)]


def test_the_same_region_begins_at_one_place_and_each_span_is_what_it_was(traces: list[Trace]) -> None:
    path = common_regions([one.region_instances() for one in traces])[0]
    (first,), (second,) = starts_of([one.region_instances() for one in traces], path)
    assert (path, first, second) == (("ProfilerStep",), 110_000, 5_010_000)
    drawn = [_drawn(one) for one in traces]
    several = side_by_side([Part("A", drawn[0], 0), Part("B", drawn[1], second - first)])
    whole = several.timeline
    assert [one.label for one in whole.tracks if one.kind == "gpu"] == ["A · Stream 7", "B · Stream 7"]
    assert whole.start_ns == drawn[0].start_ns and whole.earlier_ns == 0
    for number, (part, row) in enumerate(several.places):
        mine, own = whole.rows[number], drawn[part].rows[row]
        assert ((own.start - several.parts[part].shift_ns) == mine.start).all() and (mine.dur == own.dur).all()
        label = [[timeline.labels[code] for code in one.code] for timeline, one in ((whole, mine), (drawn[part], own))]
        assert label[0] == label[1]
        begin, end = own.start[0], own.last_ns
        shift = several.parts[part].shift_ns
        bins = [one.bins(int(begin) - by, int(end) - by, 50) for one, by in ((mine, shift), (own, 0))]
        both = zip((whole, drawn[part]), bins, strict=True)
        named = [[timeline.labels[code] for code in of.code] for timeline, of in both]
        assert np.array_equal(bins[0].busy, bins[1].busy) and named[0] == named[1]


def test_what_is_said_of_a_span_of_another_part_has_the_rows_and_times_of_the_whole(traces: list[Trace]) -> None:
    drawn = [_drawn(one) for one in traces]
    several = side_by_side([Part("A", drawn[0], 0), Part("B", drawn[1], 4_900_000)])
    row = several.timeline.rows_of("gpu")[1]
    part, own = several.places[row]
    facts = several.own(span_facts(traces[part], drawn[part], own, 1), part)
    ((launch, kernel),) = facts["arrows"]
    assert (part, facts["start"], facts["row"], facts["before"]["start"]) == (1, 12_000, row, 10_000)
    assert kernel == {"row": row, "start": 12_000, "dur": 1000}
    assert several.timeline.tracks[-1].label == "B · Launches, thread 1" and launch["row"] == len(several.places) - 1


def test_what_begins_before_the_first_part_is_drawn_before_its_zero(traces: list[Trace]) -> None:
    drawn = [_drawn(one) for one in traces]
    several = side_by_side([Part("A", drawn[1], 0), Part("B", drawn[0], 0)])
    assert several.timeline.earlier_ns == 4_900_000
    assert describe(several.timeline)["start"] == -4_900_000
    assert traces[1].zero_ns == drawn[1].start_ns == 5_000_000
