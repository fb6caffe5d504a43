"""Operators, shapes and modules with the GPU work they launched: by hand, and nothing lost on any trace."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.analyses.gpu.operators import MODULE_WORK, OPERATOR_KERNELS, OPERATOR_WORK, SHAPE_WORK
from profiler_kit.trace import Trace, load_trace
from tests.builders import SHARED, TraceBuilder, real_traces


def linear_in_linear(tmp_path: Path) -> Path:
    """A linear that calls itself (once), which calls addmm; each launches a kernel. us."""
    trace = TraceBuilder()
    trace.operator("linear", 0, 40, **{"Input Dims": [[8, 4]]})
    trace.launch(1, 1)
    trace.kernel(1, 100, 5, name="copy")
    trace.operator("linear", 5, 30, **{"Input Dims": [[4, 4]]})
    trace.launch(2, 6)
    trace.kernel(2, 110, 7, name="copy")
    trace.operator("addmm", 10, 20)
    trace.launch(3, 12)
    trace.kernel(3, 120, 11, name="gemm")
    trace.operator("linear", 50, 10, **{"Input Dims": [[8, 4]]})
    trace.launch(4, 70)
    trace.kernel(4, 140, 13, name="gemm")  # outside every operator
    trace.kernel(9, 160, 17, name="gemm")  # no launch
    return trace.write(tmp_path / "t.json")


def test_operators_own_what_they_launch_and_what_they_call_launches(tmp_path: Path) -> None:
    work = load_trace(linear_in_linear(tmp_path)).operator_work()
    assert list(work) == list(OPERATOR_WORK.columns)
    assert work.to_numpy().tolist() == [
        ["(unlinked)", 0, 0, 0, 1, 17_000, 1, 17_000],
        ["(no operator)", 0, 0, 0, 1, 13_000, 1, 13_000],
        ["linear", 3, 80_000, 30_000, 2, 12_000, 3, 23_000],
        ["addmm", 1, 20_000, 20_000, 1, 11_000, 1, 11_000],
    ]


def test_each_operator_lists_its_kernels(tmp_path: Path) -> None:
    kernels = load_trace(linear_in_linear(tmp_path)).operator_kernels()
    assert kernels[["operator", "name", "stream", "count", "sum_ns", "min_ns", "max_ns"]].to_numpy().tolist() == [
        ["(unlinked)", "gemm", 7, 1, 17_000, 17_000, 17_000],
        ["(no operator)", "gemm", 7, 1, 13_000, 13_000, 13_000],
        ["linear", "copy", 7, 2, 12_000, 5_000, 7_000],
        ["addmm", "gemm", 7, 1, 11_000, 11_000, 11_000],
    ]
    assert kernels["mean_ns"].tolist() == [17_000, 13_000, 6_000, 11_000]


def test_shapes_set_calls_of_one_operator_apart(tmp_path: Path) -> None:
    path = linear_in_linear(tmp_path)
    shapes = load_trace(path, arguments=["input_dims"]).shape_work()
    assert shapes.to_numpy().tolist() == [
        ["linear", "[[8,4]]", 2, 50_000, 20_000, 1, 5_000, 3, 23_000],
        ["linear", "[[4,4]]", 1, 30_000, 10_000, 1, 7_000, 2, 18_000],
        ["addmm", "", 1, 20_000, 20_000, 1, 11_000, 1, 11_000],
    ]
    pd.testing.assert_frame_equal(load_trace(path).shape_work(), shapes)  # reads the file once more


def test_modules_include_what_they_call(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.span("python_function", "nn.Module: Block_0", 0, 50)
    trace.launch(1, 1)
    trace.kernel(1, 100, 5)
    trace.span("python_function", "nn.Module: Linear_0", 10, 20)
    trace.launch(2, 11)
    trace.kernel(2, 110, 7)
    trace.launch(3, 60)
    trace.kernel(3, 120, 3)
    work = load_trace(trace.write(tmp_path / "t.json")).module_work()
    assert work.to_numpy().tolist() == [
        [("Block_0",), 2, 12_000, 5_000],
        [("Block_0", "Linear_0"), 1, 7_000, 7_000],
        [(), 1, 3_000, 3_000],
    ]


def nothing_is_lost(trace: Trace) -> None:
    events, operators = trace.gpu_events(), trace.operators()
    work, kernels, modules = trace.operator_work(), trace.operator_kernels(), trace.module_work()
    assert work["gpu_ns"].sum() == kernels["sum_ns"].sum() == modules["self_sum_ns"].sum() == events["dur_ns"].sum()
    assert work["gpu_events"].sum() == kernels["count"].sum() == len(events)
    assert work["calls"].sum() == len(operators)
    assert work["self_ns"].sum() == operators["self_ns"].sum()
    assert (work["nested_gpu_ns"] >= work["gpu_ns"]).all()
    assert (work["nested_gpu_ns"] <= events["dur_ns"].sum()).all()
    by_name = kernels.groupby("operator")["sum_ns"].sum()
    own = work.set_index("name")["gpu_ns"]
    assert own[own > 0].to_dict() == by_name[by_name > 0].to_dict()
    if "input_dims" in trace.events:
        shapes = trace.shape_work()
        assert shapes["calls"].sum() == len(operators)
        assert shapes["gpu_ns"].sum() == own.drop(["(no operator)", "(unlinked)"], errors="ignore").sum()


@pytest.mark.skipif(not real_traces(), reason="the real captures are not beside the project")
@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_nothing_is_lost_on_real_captures(path: Path) -> None:
    nothing_is_lost(load_trace(path, arguments=["input_dims"]))


spans = st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 2), st.sampled_from("abc"))
launches = st.tuples(st.integers(0, 80), st.integers(1, 2), st.integers(0, 30), st.sampled_from("xyz"))


@settings(max_examples=40)
@given(st.lists(spans, max_size=10), st.lists(launches, min_size=1, max_size=10))
def test_nothing_is_lost_on_random_traces(
    tmp_path_factory: pytest.TempPathFactory, operators: list, calls: list
) -> None:
    trace = TraceBuilder()
    for number, (start, dur, tid, name) in enumerate(operators):
        trace.operator(name, start, dur, tid, **{"Input Dims": [number % 2]})
    for correlation, (at, tid, dur, name) in enumerate(calls):
        if correlation % 4:
            trace.launch(correlation, at, tid)
        trace.kernel(correlation, 200 + correlation, dur, name=name)
    path = trace.write(tmp_path_factory.mktemp("t") / "t.json")
    nothing_is_lost(load_trace(path, arguments=["input_dims"]))


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.launch(1, 0)
    loaded = load_trace(trace.write(tmp_path / "t.json"), arguments=["input_dims"])
    for frame, schema in (
        (loaded.operator_work(), OPERATOR_WORK),
        (loaded.operator_kernels(), OPERATOR_KERNELS),
        (loaded.module_work(), MODULE_WORK),
        (loaded.shape_work(), SHAPE_WORK),
    ):
        assert frame.empty and list(frame) == list(schema.columns)


@pytest.mark.skipif(not SHARED.joinpath("peers").is_dir(), reason="other projects' results are not beside the project")
@pytest.mark.parametrize("folder", sorted(SHARED.glob("peers/tracelens/*/*")), ids=lambda path: path.name)
def test_the_kernels_of_each_operator_equal_tracelens(folder: Path) -> None:
    """kernel_summary.csv row by row: operator, kernel and stream; sum, count, mean, min and max to the last digit.

    TraceLens adds microseconds as floats in file order; the sums of our integers, as microseconds, agree to 1e-9 us.
    """
    theirs = pd.read_csv(folder / "kernel_summary.csv", keep_default_na=False)
    ours = load_trace(folder / "trace.json.gz").operator_kernels()
    ours = ours[ours["category"] == "kernel"]
    ours = ours.assign(operator=ours["operator"].where(~ours["operator"].str.startswith("("), ""))
    grouped = ours.groupby(["operator", "name", "stream"])
    found = grouped.agg(count=("count", "sum"), sum=("sum_ns", "sum"), min=("min_ns", "min"), max=("max_ns", "max"))
    assert len(found) == len(theirs)
    for row in theirs.to_dict("records"):
        mine = found.loc[row["Parent cpu_op"], row["Kernel name"], row["Kernel stream"]]
        assert mine["count"] == row["Kernel duration (µs)_count"]
        assert mine["sum"] / 1e3 == pytest.approx(row["Kernel duration (µs)_sum"], rel=0, abs=1e-9)
        assert mine["sum"] / mine["count"] / 1e3 == pytest.approx(row["Kernel duration (µs)_mean"], rel=1e-12)
        assert (mine["min"] / 1e3, mine["max"] / 1e3) == (
            row["Kernel duration (µs)_min"],
            row["Kernel duration (µs)_max"],
        )


def test_short_kernels_by_operator_and_shapes(tmp_path: Path) -> None:
    """Of 5, 7, 11, 13 and 17 us: two copies of linear, with other shapes each."""
    trace = load_trace(linear_in_linear(tmp_path))
    short = trace.short_kernels()
    columns = ["operator", "shapes", "name", "count", "sum_ns", "share"]
    assert short[columns].to_numpy().tolist() == [
        ["linear", "[[4,4]]", "copy", 1, 7_000, 7 / 53],
        ["linear", "[[8,4]]", "copy", 1, 5_000, 5 / 53],
    ]
    every = trace.short_kernels(below_ns=100_000)
    assert set(every["operator"]) == {"linear", "addmm", "(no operator)", "(unlinked)"}
    assert int(every["sum_ns"].sum()) == int(trace.gpu_events()["dur_ns"].sum())
