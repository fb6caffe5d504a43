"""GPU time where no region names the parts of the code: by module, operator or kind of kernel, whichever tells."""

from __future__ import annotations

from pathlib import Path

from profiler_kit.analyses.gpu.grouping import names_parts
from profiler_kit.findings.time import grouped_by, headline
from profiler_kit.run import Run
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder


def loaded(builder: TraceBuilder, tmp_path: Path) -> Trace:
    return load_trace(builder.write(tmp_path / "trace.json"))


def kernels(*durations: float) -> TraceBuilder:
    """A kernel of each duration, launched at 10, 20, 30 us, … and run one after the other."""
    trace, start = TraceBuilder(), 1000.0
    for number, duration in enumerate(durations, 1):
        trace.launch(number, 10 * number)
        trace.kernel(number, start, duration, name=f"gemm_{number}")
        start += duration
    return trace


def said(trace: Trace) -> str:
    found = headline(Run.holding(trace.path, trace))
    assert found is not None
    return found.sentence


def test_a_region_beside_the_steps_names_the_parts(tmp_path: Path) -> None:
    trace = kernels(10)
    trace.region("ProfilerStep#3", 0, 100)
    assert not names_parts(loaded(trace, tmp_path).regions())
    trace.region("mine", 5, 50)
    assert names_parts(loaded(trace, tmp_path).regions()) and grouped_by(loaded(trace, tmp_path)) == "region"


def test_modules_of_one_class_are_added_up_below_the_one_that_holds_them_all(tmp_path: Path) -> None:
    trace = kernels(100, 200, 400, 40)
    trace.span("python_function", "nn.Module: Net_0", 0, 35)
    for number in range(3):
        trace.span("python_function", f"nn.Module: {'Block' if number < 2 else 'Head'}_{number}", 8 + 10 * number, 6)
    found = loaded(trace, tmp_path)
    by, sums = found.work_groups()
    assert by == "module" and list(map(tuple, sums.values.tolist())) == [
        ("Head", 1, 400_000), ("Block × 2", 2, 300_000), ("(outside them)", 1, 40_000),
    ]  # fmt: skip
    assert "54 % of its work came from the module Head." in said(found)


def test_operators_count_where_modules_are_not_known_and_kinds_where_neither_is(tmp_path: Path) -> None:
    trace = kernels(100, 200, 250)
    trace.operator("aten::mm", 8, 5)
    trace.operator("aten::addmm", 18, 5)
    found = loaded(trace, tmp_path)
    by, sums = found.work_groups()
    assert by == "operator" and sums["name"].tolist() == ["(no operator)", "aten::addmm", "aten::mm"]
    assert sums["sum_ns"].sum() == found.gpu_events()["dur_ns"].sum() == 550_000
    assert "36 % of its work came from the operator aten::addmm." in said(found)
    bare = loaded(kernels(100, 200, 300), tmp_path)
    assert bare.work_groups()[0] == "kind" and "100 % of its work is matrix products." in said(bare)
