"""What a trace lacks, told from its frames: one tiny trace per finding, and none where nothing is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.analyses.gpu.quality import Flaw, Recorded, find_flaws, overlaps_on_streams
from profiler_kit.load.trace.file_facts import read_file_facts
from profiler_kit.trace import load_trace
from tests.builders import TraceBuilder, real_traces
from tests.cli.run import profiler_kit


def complete() -> TraceBuilder:
    """A trace that lacks nothing: two steps, each with a region, an operator with shapes, a launch and a kernel."""
    trace = TraceBuilder()
    for step in range(2):
        at = 100 * step
        trace.region(f"ProfilerStep#{step}", at, 90)
        trace.region("encoder", at + 1, 80)
        trace.span("python_function", "nn.Module: Linear_0", at + 2, 70)
        trace.operator("aten::mm", at + 3, 60, **{"Input Dims": [[1, 2]]})
        trace.launch(step, at + 4)
        trace.kernel(step, at + 20, 30)
    trace.events.append({"ph": "i", "cat": "cpu_instant_event", "name": "[memory]", "pid": 1, "tid": 1, "ts": 5})
    return trace


def findings(trace: TraceBuilder, tmp_path: Path, **metadata: Any) -> list[Flaw]:
    return findings_of(trace.write(tmp_path / "t.json"), metadata)


def findings_of(path: Path, metadata: dict[str, Any] | None = None) -> list[Flaw]:
    trace, facts = load_trace(path, cache=False), read_file_facts(path)
    quality = trace.quality
    recorded = Recorded(
        truncated=quality.truncated,
        repaired_events=quality.repaired_events,
        dropped_events=quality.dropped_events,
        damaged_compression=facts.damaged_compression,
        counts=facts.counts,
        has_shapes=facts.has_shapes,
        has_stacks=facts.has_stacks,
        metadata={**trace.metadata, **(metadata or {})},
    )
    return find_flaws(
        recorded, trace.columns, trace.links, trace.gpu_events(), trace.region_instances(), trace.left_out()
    )


def without(trace: TraceBuilder, *categories: str) -> TraceBuilder:
    trace.events = [event for event in trace.events if event["cat"] not in categories]
    return trace


def renamed(trace: TraceBuilder, old: str, new: str) -> TraceBuilder:
    trace.events = json.loads(json.dumps(trace.events).replace(old, new))
    return trace


def test_a_complete_trace_has_no_findings(tmp_path: Path) -> None:
    assert findings(complete(), tmp_path) == []


def early(trace: TraceBuilder) -> TraceBuilder:
    trace.launch(9, 60)
    trace.kernel(9, 57.5, 1, stream=8)
    return trace


def overlapping(trace: TraceBuilder) -> TraceBuilder:
    trace.launch(9, 10)
    trace.kernel(9, 45, 20)  # the first one runs until 50
    return trace


def taking_turns(trace: TraceBuilder) -> TraceBuilder:
    """Two tasks of asyncio on one thread: each region is open while the other runs."""
    trace.region("task a", 300, 100)
    trace.region("task b", 350, 100)
    trace.region("inside b", 410, 20)
    trace.region("whole us", 500, 10)
    trace.region("one us longer", 505, 6)
    return trace


def unlinked(trace: TraceBuilder) -> TraceBuilder:
    trace.kernel(77, 60, 1)
    return trace


def outside(trace: TraceBuilder) -> TraceBuilder:
    trace.launch(9, 95)
    trace.kernel(9, 96, 1)
    return trace


def late_step(trace: TraceBuilder) -> TraceBuilder:
    trace.region("ProfilerStep#5", 300, 10)
    return trace


def unknown(trace: TraceBuilder) -> TraceBuilder:
    trace.span("quantum_op", "q", 1, 1)
    trace.span("quantum_op", "q", 2, 1)
    trace.span("abacus", "q", 2, 1)
    return trace


MISSING = {  # trace: the findings it must have
    "GPU": (lambda: without(complete(), "kernel", "cuda_runtime", "ac2g"), [Flaw("no GPU activity", 0)]),
    "GPU events": (lambda: without(complete(), "kernel"), [Flaw("GPU work without events", 2)]),
    "host": (
        lambda: without(complete(), "cpu_op", "cuda_runtime", "ac2g"),
        [Flaw("no host activity", 0, 2)],
    ),
    "launches": (lambda: unlinked(complete()), [Flaw("unlinked", 1, 3)]),
    "regions": (lambda: without(complete(), "user_annotation"), [Flaw("no regions", 0), Flaw("no steps", 0)]),
    "regions but steps": (lambda: renamed(complete(), '"encoder"', '"ProfilerStep#1"'), [Flaw("steps only", 4)]),
    "a region around some": (lambda: outside(complete()), [Flaw("outside regions", 1, 3)]),
    "steps": (lambda: renamed(complete(), "ProfilerStep#", "step "), [Flaw("no steps", 0)]),
    "some steps": (lambda: late_step(complete()), [Flaw("steps missing", 3, 3, ("2",))]),
    "shapes": (lambda: renamed(complete(), "Input Dims", "x"), [Flaw("no shapes", 0, 2)]),
    "stacks": (
        lambda: without(complete(), "python_function"),
        [Flaw("no stacks", 0), Flaw("no modules", 0)],
    ),
    "modules": (lambda: renamed(complete(), "nn.Module: ", "f.py(1): "), [Flaw("no modules", 0)]),
    "memory": (lambda: without(complete(), "cpu_instant_event"), [Flaw("no memory", 0)]),
    "the rank": (lambda: renamed(complete(), "gemm", "ncclKernel_AllReduce"), [Flaw("no rank", 1)]),
    "one clock": (lambda: early(complete()), [Flaw("early starts", 1, 3, (), 2500)]),
    "nesting": (
        lambda: taking_turns(complete()),
        [Flaw("interleaved regions", 1, 9, ("'task a' and 'task b'",), 50_000)],
    ),
    "order": (lambda: overlapping(complete()), [Flaw("stream overlap", 1, 3, (), 5000)]),
    "known categories": (lambda: unknown(complete()), [Flaw("unknown categories", 3, 0, ("quantum_op", "abacus"))]),
}


@pytest.mark.parametrize("case", MISSING)
def test_what_is_missing_is_found_and_nothing_else(case: str, tmp_path: Path) -> None:
    trace, wanted = MISSING[case]
    assert findings(trace(), tmp_path) == wanted


def test_regions_that_take_turns_are_named(tmp_path: Path) -> None:
    done = profiler_kit("doctor", taking_turns(complete()).write(tmp_path / "t.json"))
    said = " ".join(done.out.split())
    assert (
        "1 of 9 regions begin inside another region of their thread and end up to 50.00 µs after it, as regions of "
        "asyncio tasks do: 'task a' and 'task b'"
    ) in said
    assert "neither contains the other" in said


def test_metadata_answers_what_the_events_do_not(tmp_path: Path) -> None:
    trace = renamed(complete(), "gemm", "ncclKernel_AllReduce")
    assert findings(trace, tmp_path, distributedInfo={"rank": 0}) == []
    assert findings(complete(), tmp_path, baseTimeNanoseconds=None) == [Flaw("no base time", 0)]
    assert findings(renamed(complete(), "nn.Module: ", "f.py: "), tmp_path, with_modules=1) == []


def test_losses_come_first_and_say_so(tmp_path: Path) -> None:
    trace = without(complete(), "cpu_instant_event")
    trace.region("bad", 1, -1)
    data = trace.kineto().replace(b'"encoder"', b'"enc"oder"')
    path = tmp_path / "t.json"
    path.write_bytes(data[: data.rindex(b'"dur"')])  # within the last event
    found = findings_of(path)
    assert [(finding.key, finding.severity) for finding in found] == [
        ("truncated", "lost"),
        ("repaired", "lost"),
        ("no memory", "missing"),
    ]
    assert found[1].count == 2
    path.write_bytes(data)
    assert [finding.key for finding in findings_of(path)] == ["dropped", "repaired", "no memory"]


@given(st.lists(st.tuples(st.integers(0, 1), st.integers(0, 2), st.integers(0, 30), st.integers(0, 9)), max_size=12))
def test_overlap_is_what_a_plain_loop_finds(rows: list[tuple[int, int, int, int]]) -> None:
    device, stream, start, dur = np.array(rows, dtype=np.int64).reshape(-1, 4).T
    found = overlaps_on_streams(device, stream, start, start + dur)
    order = sorted(range(len(rows)), key=lambda n: (rows[n][2], rows[n][2] + rows[n][3]))
    for place, n in enumerate(order):
        reach = max((rows[m][2] + rows[m][3] for m in order[:place] if rows[m][:2] == rows[n][:2]), default=0)
        assert found[n] == max(reach - rows[n][2], 0)


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_real_captures_lose_nothing(path: Path) -> None:
    found = findings_of(path)
    assert [finding.key for finding in found if finding.severity == "lost"] == []
    assert all(
        0 <= finding.count <= (finding.of or finding.count) or finding.key == "steps missing" for finding in found
    )
