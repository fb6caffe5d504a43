"""What the timeline says of a span: a kernel with its operator, module, Python stack and roofline."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.analyses.gpu.roofline import ARGUMENTS
from profiler_kit.render.span_facts import span_facts
from profiler_kit.timeline.build import build_timeline
from profiler_kit.timeline.index import Timeline
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder

STACK = ["<built-in function linear>", "torch/nn/functional.py(9): f", "nn.Module: Linear_0", "m.py(5): step"]


def recorded(path: Path, *arguments: str, copied: bool = False) -> tuple[Trace, Timeline]:
    """A matrix product in a region, in four Python functions, whose kernel takes 100 us."""
    builder = TraceBuilder()
    builder.region("step", 0, 100)
    for number, name in enumerate(reversed(STACK)):
        name = name.replace(" linear", " linear of object at 0x7f2d0dd532a0") if copied else name
        builder.span("python_function", name, 1 + number, 80 - 2 * number)
    builder.span("python_function", "m.py(30): later", 90, 5)
    shapes = {"Input Dims": [[1024, 1024], [1024, 1024]], "Input type": ["float", "float"]}
    builder.operator("aten::mm", 10, 20, **shapes)
    builder.launch(1, 11)
    builder.kernel(1, 200, 100)
    trace = load_trace(builder.write(path / "t.json"), arguments=arguments)
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls())
    return trace, build_timeline(*frames, trace.threads, trace.python_calls())


def facts_of(trace: Trace, timeline: Timeline, kind: str, index: int = 0, row: int = 0) -> dict[str, object]:
    first = next(track.first_row for track in timeline.tracks if track.kind == kind)
    return span_facts(trace, timeline, first + row, index)


def test_a_kernel_knows_its_stack_module_and_roofline(tmp_path: Path) -> None:
    trace, timeline = recorded(tmp_path, *ARGUMENTS)
    found = facts_of(trace, timeline, "gpu")
    assert (found["stack"], found["site"]) == (STACK, 3)  # the innermost outside torch
    facts = dict(found["facts"])  # type: ignore[call-overload]
    assert facts["Module"] == "Linear_0"
    # 2 · 1024³ FLOPs and 3 · 4 MiB in 100 us, on a GPU that the file does not name
    assert facts["Roofline"] == "aten::mm in 100.00 µs: 21.5 TFLOP/s, 0.126 TB/s"


@pytest.mark.parametrize("kind", ["operator", "launch"])
def test_a_call_knows_its_stack(tmp_path: Path, kind: str) -> None:
    assert facts_of(*recorded(tmp_path), kind)["stack"] == STACK


def test_the_stack_is_a_lane(tmp_path: Path) -> None:
    trace, timeline = recorded(tmp_path)
    (lane,) = (track for track in timeline.tracks if track.kind == "python")
    assert (lane.label, lane.rows, lane.spans, lane.depths) == ("Python, thread 1", 4, 5, True)
    found = facts_of(trace, timeline, "python", row=1)
    assert (found["name"], found["path"], found["stack"]) == (STACK[2], ["step"], STACK[2:])
    assert facts_of(trace, timeline, "python", 1)["stack"] == ["m.py(30): later"]
    assert facts_of(trace, timeline, "region")["stack"] == []  # opened before


def test_the_critical_path_is_a_lane_that_points_at_gpu_work(tmp_path: Path) -> None:
    trace, _ = recorded(tmp_path)
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators(), trace.launch_calls())
    timeline = build_timeline(*frames, trace.threads, critical=trace.critical_path_known())
    lane = timeline.tracks[0]
    assert (lane.label, lane.kind, lane.rows) == ("Critical path", "critical", 1)
    path = trace.critical_path()
    assert timeline.rows[0].start.tolist() == path["start_ns"].tolist()
    assert int(timeline.rows[0].busy[-1]) == path["dur_ns"].sum()
    found = facts_of(trace, timeline, "critical", len(path) - 1)
    assert (found["name"], found["path"]) == ("gemm", ["GPU"])
    assert found["facts"] == [("On the path", "the GPU runs it")]
    gpu = next(track.first_row for track in timeline.tracks if track.kind == "gpu")
    assert [to["row"] for _, to in found["arrows"]] == [gpu]  # type: ignore[attr-defined]


def test_a_trace_read_without_arguments_says_so(tmp_path: Path) -> None:
    facts = dict(facts_of(*recorded(tmp_path), "gpu")["facts"])  # type: ignore[call-overload]
    assert "Roofline" not in facts
    assert facts["Shapes, launch configuration, roofline"].startswith("not read for a trace this large")


def test_addresses_of_objects_make_no_names(tmp_path: Path) -> None:
    trace, _ = recorded(tmp_path, copied=True)
    assert "<built-in function linear of object>" in set(trace.python_calls()["name"])
