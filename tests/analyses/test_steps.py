"""Iterations by hand: what stands out, what differs in it, and steps of LLM serving."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.errors import OptionError
from profiler_kit.findings.work import of_table
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder

LONG = 3


def five_steps(tmp_path: Path, *names: str) -> Trace:
    """Steps of 100 us with `forward` (gemm, 20 us) and `loss` (sum, 10 us after a gap of 5 us).

    Step 3 takes 160 us: its gemm 44 us, its gap 12 us.
    """
    trace, start, correlation = TraceBuilder(), 0.0, 0
    for number, name in enumerate(names or [f"ProfilerStep#{number + 7}" for number in range(5)]):
        long = number == LONG
        gemm, gap = (44, 12) if long else (20, 5)
        trace.region(name, start, 160 if long else 100)
        at = start + 10
        for region, kernel, dur in (("forward", "gemm", gemm), ("loss", "sum", 10)):
            correlation += 1
            trace.region(region, start + 10 * (1 + (region == "loss")), 8)
            trace.launch(correlation, start + 10 * (1 + (region == "loss")) + 1)
            trace.kernel(correlation, at, dur, name=kernel)
            at += dur + gap
        start += 200
    return load_trace(trace.write(tmp_path / "t.json"))


def test_the_long_step_and_what_differs_in_it(tmp_path: Path) -> None:
    trace = five_steps(tmp_path)
    found = trace.steps()
    assert found["step"].tolist() == [7, 8, 9, 10, 11]
    assert found["wall_ns"].tolist() == [100_000] * 3 + [160_000, 100_000]
    assert found["outlier"].tolist() == [False] * 3 + [True, False]
    assert found["busy_ns"].tolist() == [30_000] * 3 + [54_000, 30_000]
    assert found["idle_ns"].tolist() == [5_000] * 3 + [12_000, 5_000]
    long = found.iloc[LONG]
    assert (long["median_share"], long["more_idle_ns"]) == (1.6, 7_000)
    assert (long["region"], long["region_ns"]) == ("forward", 24_000)
    assert (long["kernel"], long["kernel_ns"]) == ("gemm", 24_000)
    assert found["region"].tolist() == ["", "", "", "forward", ""]
    said = of_table(trace.table("steps"))
    assert said is not None
    assert said.sentence == (
        "5 steps, the median takes 100.00 µs; 1 outlier. Longest: step 10, 160.00 µs, with 7.00 µs more of idle GPU "
        "and 24.00 µs more in forward than the median."
    )


def test_any_repeated_region_can_be_the_step(tmp_path: Path) -> None:
    trace = five_steps(tmp_path, *["iteration"] * 5)
    assert trace.steps()["name"].tolist() == ["iteration"] * 5
    assert trace.steps()["step"].tolist() == [0, 1, 2, 3, 4]
    assert trace.steps(region="loss")["wall_ns"].tolist() == [8_000] * 5
    assert trace.steps(region="iteration > loss")["busy_ns"].tolist() == [10_000] * 5
    with pytest.raises(OptionError, match="no region 'nothing', found"):
        trace.steps(region="nothing")


def test_steps_of_serving_are_compared_with_their_kind(tmp_path: Path) -> None:
    names = [f"execute_context_{a}({b})_generation_{c}({d})" for a, b, c, d in
             ((1, 512, 0, 0), (0, 0, 3, 3), (2, 700, 4, 5), (1, 90, 0, 0), (0, 0, 8, 8))]  # fmt: skip
    found = five_steps(tmp_path, *names).steps()
    assert found["kind"].tolist() == ["prefill", "decode", "mixed", "prefill", "decode"]
    assert found["tokens"].tolist() == [512, 3, 705, 90, 8]
    assert found["sequences"].tolist() == [1, 3, 6, 1, 8]
    assert found["median_share"].tolist() == pytest.approx([100 / 130, 1, 1, 160 / 130, 1])


def test_nothing_repeats(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("once", 0, 10)
    trace.launch(1, 1)
    trace.kernel(1, 5, 5)
    assert load_trace(trace.write(tmp_path / "t.json")).steps().empty
