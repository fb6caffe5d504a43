"""Two trees of calls by hand: where they begin to differ, and the time of each side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from profiler_kit.trace import load_trace
from tests.builders import TraceBuilder
from tests.cli.run import profiler_kit


def a_trace(path: Path, steps: int, kernels: dict[str, tuple[str, ...]]) -> Path:
    """Steps with operators that launch kernels of 10 us each."""
    trace, correlation = TraceBuilder(), 0
    for step in range(steps):
        trace.region(f"ProfilerStep#{step}", 1000 * step, 900)
        for number, (operator, names) in enumerate(kernels.items()):
            at = 1000 * step + 100 * number
            trace.operator(operator, at, 90)
            for name in names:
                correlation += 1
                trace.launch(correlation, at + 1)
                trace.kernel(correlation, at + 10, 10, name=name)
    return trace.write(path)


def test_the_lowest_call_in_which_two_trees_begin_to_differ(tmp_path: Path) -> None:
    a = a_trace(tmp_path / "a.json", 2, {"aten::mm": ("gemm<float>",), "aten::add": ("add",), "aten::mul": ("mul",)})
    b = a_trace(tmp_path / "b.json", 1, {"aten::mm": ("gemm<half>", "reduce"), "aten::add": ("add",)})
    done = profiler_kit("diff", a, b, "--tree", "--json")
    rows = {tuple(row["path"]): row for row in json.loads(done.out)}
    step = ("ProfilerStep",)
    assert {path: (row["a_ns"], row["b_ns"], row["status"], row["differs"]) for path, row in rows.items()} == {
        step: (30_000, 30_000, "both", False),
        (*step, "aten::mm"): (10_000, 20_000, "both", True),
        (*step, "aten::mm", "gemm"): (10_000, 10_000, "both", False),
        (*step, "aten::mm", "reduce"): (None, 10_000, "only in B", False),
        (*step, "aten::add"): (10_000, 10_000, "both", False),
        (*step, "aten::add", "add"): (10_000, 10_000, "both", False),
        (*step, "aten::mul"): (10_000, None, "only in A", False),
        (*step, "aten::mul", "mul"): (10_000, None, "only in A", False),
    }
    assert rows[*step, "aten::mm"]["more_ns"] == 10_000
    shown = profiler_kit("diff", a, b, "--tree").out
    assert "differs here" in shown and "aten::mul" in shown
    assert "2 of 8 rows" in profiler_kit("diff", a, b, "--tree", "--top", "2").out


@pytest.mark.parametrize("other", [("--fail-above", "5%"), ("--markdown",)])
def test_a_tree_has_no_threshold_and_no_markdown(other: tuple[str, ...], tmp_path: Path) -> None:
    a = a_trace(tmp_path / "a.json", 1, {"aten::mm": ("gemm",)})
    done = profiler_kit("diff", a, a, "--tree", *other)
    assert (done.code, done.out) == (1, "")
    assert done.err == (
        f"profiler-kit: --tree {other[0]}: these exclude each other, expected one of them. Leave one out.\n"
    )


def test_a_trace_beside_itself_differs_nowhere(tmp_path: Path) -> None:
    a = a_trace(tmp_path / "a.json", 2, {"aten::mm": ("gemm",)})
    rows = json.loads(profiler_kit("diff", a, a, "--tree", "--json").out)
    assert len(rows) == len(load_trace(a).call_tree())
    assert not any(row["differs"] or row["more_ns"] for row in rows)
