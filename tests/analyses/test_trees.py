"""Trees of calls and of Python functions by hand; nothing lost on any capture."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder, real_traces


def a_step(tmp_path: Path) -> Trace:
    """main > (Linear > linear > addmm > gemm 10 us) and > loss (sum 4 us), in a region; one copy outside all."""
    trace = TraceBuilder()
    trace.region("step", 0, 60)
    trace.span("python_function", "main.py(1): main", 0, 80)
    trace.span("python_function", "nn.Module: Linear_0", 5, 25)
    trace.operator("aten::linear", 10, 15)
    trace.operator("aten::addmm", 11, 10)
    trace.launch(1, 12)
    trace.kernel(1, 20, 10, name="gemm")
    trace.span("python_function", "loss.py(3): loss", 35, 20)
    trace.operator("aten::sum", 40, 10)
    trace.launch(2, 42)
    trace.kernel(2, 50, 4, name="reduce")
    trace.launch(3, 70)
    trace.kernel(3, 75, 2, name="copy")
    return load_trace(trace.write(tmp_path / "t.json"))


def test_gpu_time_by_region_module_operator_and_kernel(tmp_path: Path) -> None:
    tree = a_step(tmp_path).call_tree()
    linear = ("step", "Linear_0", "aten::linear", "aten::addmm", "gemm")
    assert list(zip(tree["path"], tree["kind"], tree["gpu_events"], tree["sum_ns"], strict=True)) == [
        (("step",), "region", 2, 14_000),
        (linear[:2], "module", 1, 10_000),
        (linear[:3], "operator", 1, 10_000),
        (linear[:4], "operator", 1, 10_000),
        (linear, "kernel", 1, 10_000),
        (("step", "aten::sum"), "operator", 1, 4_000),
        (("step", "aten::sum", "reduce"), "kernel", 1, 4_000),
        (("(no region)",), "region", 1, 2_000),
        (("(no region)", "copy"), "kernel", 1, 2_000),
    ]


def test_python_functions_from_the_outside_in_and_from_the_inside_out(tmp_path: Path) -> None:
    trace = a_step(tmp_path)
    main, linear, loss = "main.py(1): main", "nn.Module: Linear_0", "loss.py(3): loss"
    columns = ["calls", "host_ns", "self_ns", "gpu_events", "gpu_ns"]
    tree = trace.python_tree().set_index("path")[columns]
    assert {path: row.tolist() for path, row in zip(tree.index, tree.to_numpy(), strict=True)} == {
        (main,): [1, 80_000, 35_000, 3, 16_000],
        (main, linear): [1, 25_000, 25_000, 1, 10_000],
        (main, loss): [1, 20_000, 20_000, 1, 4_000],
    }
    callers = trace.python_callers()
    assert list(zip(callers["path"], callers["self_ns"], callers["gpu_ns"], strict=True)) == [
        ((main,), 35_000, 2_000),
        ((linear,), 25_000, 10_000),
        ((linear, main), 25_000, 10_000),
        ((loss,), 20_000, 4_000),
        ((loss, main), 20_000, 4_000),
    ]


def test_without_stacks_there_is_no_tree_of_functions(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.launch(1, 1)
    trace.kernel(1, 5, 5)
    found = load_trace(trace.write(tmp_path / "t.json"))
    assert found.python_tree().empty and found.python_callers().empty
    assert found.call_tree()["path"].tolist() == [("(no region)",), ("(no region)", "gemm")]


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_the_outermost_rows_add_up_to_all_gpu_time(path: Path) -> None:
    trace = load_trace(path)
    tree = trace.call_tree()
    assert int(tree["sum_ns"][tree["path"].map(len) == 1].sum()) == int(trace.gpu_events()["dur_ns"].sum())
    assert int(tree["sum_ns"][tree["kind"] == "kernel"].sum()) == int(trace.gpu_events()["dur_ns"].sum())
