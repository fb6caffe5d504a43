"""torch.compile in a trace: regions and recompiles, graph breaks, Triton kernels and their source."""

from __future__ import annotations

from pathlib import Path

from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder

GOLDEN = Path(__file__).parents[1] / "golden"


def a_step(tmp_path: Path) -> Trace:
    """forward compiled, then once more for another shape; behind a break at line 7 the rest, with a Triton kernel."""
    trace = TraceBuilder()
    for number, (region, start) in enumerate(
        (("0/0", 0), ("0/1", 100), ("0/1", 200), ("1/0", 300), ("12/3 but no", 400)), 1
    ):
        trace.operator(f"Torch-Compiled Region: {region}", start, 50)
        trace.operator("triton_poi_fused_add_0", start + 10, 20, kernel_file="/c/ab/cab.py", kernel_backend="triton")
        trace.launch(number, start + 15)
        trace.kernel(number, start + 40, 10, name="triton_poi_fused_add_0")
    trace.span("python_function", "model.py(7): torch_dynamo_resume_in_forward_at_7", 290, 80)
    trace.span("python_function", "model.py(9): torch_dynamo_resume_in_forward_at_9", 372, 5)
    trace.span("python_function", "model.py(9): torch_dynamo_resume_in_forward_at_9", 380, 5)
    trace.operator("mine", 500, 50)
    trace.launch(9, 510)
    trace.kernel(9, 520, 100, name="triton_mine")
    return load_trace(trace.write(tmp_path / "t.json"))


def test_what_was_compiled_and_recompiled(tmp_path: Path) -> None:
    found = a_step(tmp_path).compiled_regions()
    assert found.to_numpy().tolist() == [
        [0, 0, 1, 50_000, 1, 10_000, 50_000, 0],
        [0, 1, 2, 100_000, 2, 20_000, 100_000, 0],
        [1, 0, 1, 50_000, 1, 10_000, 50_000, 0],
    ]


def test_time_inside_is_told_apart_in_a_real_recording_of_recompiling() -> None:
    """Three parts of a function between two breaks, each inside the one before, compiled anew for two other shapes."""
    found = load_trace(GOLDEN / "compiled_recompiles_h200.json.gz").compiled_regions().set_index(["frame", "recompile"])
    assert found["calls"].to_dict() == {(f, r): 3 if r == 1 else 2 for f in range(3) for r in (1, 2)}
    assert (found["compile_ns"] > 50e6).all() and (found["own_ns"] < 5e6).all()
    for number in (1, 2):
        for frame in (0, 1):
            outer, inner = found.loc[(frame, number)], found.loc[(frame + 1, number)]
            assert outer["own_ns"] == outer["host_ns"] - inner["host_ns"] - inner["compile_ns"]
        assert inner["own_ns"] == inner["host_ns"]


def test_a_real_recording_of_graph_breaks() -> None:
    trace = load_trace(GOLDEN / "compiled_breaks_h200.json.gz")
    found = trace.graph_breaks()
    # the line after torch._dynamo.graph_break(), and that of .item(), both of make_captures.py
    assert found[["file", "function", "line", "calls"]].to_numpy().tolist() == [
        ["make_captures.py", "forward", 184, 3],
        ["make_captures.py", "forward", 186, 3],
    ]
    regions = trace.compiled_regions()
    assert regions["calls"].sum() == 9 and not regions["compile_ns"].any()
    outermost = regions[regions["frame"] == 0]
    assert outermost["gpu_events"].sum() == len(trace.gpu_events())
    assert trace.triton_kernels()["called_from"].str.endswith(": call").all()


def test_where_the_graph_broke(tmp_path: Path) -> None:
    found = a_step(tmp_path).graph_breaks()
    assert found.to_numpy().tolist() == [["model.py", "forward", 7, 1, 80_000], ["model.py", "forward", 9, 2, 10_000]]


def test_triton_kernels_and_their_source(tmp_path: Path) -> None:
    found = a_step(tmp_path).triton_kernels()
    assert found.to_numpy().tolist() == [
        ["triton_mine", "", "", 1, 100_000],
        ["triton_poi_fused_add_0", "/c/ab/cab.py", "", 5, 50_000],
    ]
    called = load_trace(GOLDEN / "graph_capture_reduce_overhead_h200.json.gz").triton_kernels()
    assert len(called) == 5 and called["file"].str.startswith("/tmp/torchinductor_root/").all()


def test_a_trace_without_any_of_it(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("aten::mm", 0, 10)
    trace.launch(1, 2)
    trace.kernel(1, 20, 5)
    found = load_trace(trace.write(tmp_path / "t.json"))
    assert found.compiled_regions().empty and found.graph_breaks().empty and found.triton_kernels().empty
