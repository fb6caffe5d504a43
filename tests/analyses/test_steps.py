"""Iterations by hand: what stands out, what differs in it, and steps of LLM serving."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from profiler_kit.analyses.gpu.serving_labels import Lengths, served
from profiler_kit.analyses.gpu.steps import _served
from profiler_kit.errors import OptionError
from profiler_kit.findings.work import of_table
from profiler_kit.trace import Trace, load_trace
from tests import reference
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


def test_no_step_is_a_multiple_of_a_median_that_took_no_time(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number, dur in enumerate((0, 0, 50)):
        trace.region(f"ProfilerStep#{number}", 100.0 * number, dur)
        trace.launch(number + 1, 100.0 * number)
        trace.kernel(number + 1, 100.0 * number + 10, 5)
    found = load_trace(trace.write(tmp_path / "t.json")).steps()
    assert found["wall_ns"].tolist() == [0, 0, 50_000] and found["median_share"].isna().all()


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


@pytest.mark.parametrize(
    ("name", "kind", "tokens", "sequences", "lengths"),
    [
        ("execute_515_context_1(sq512sk700sqsq262144sqsk358400)_generation_3(sq3sk90sqsq3sqsk90)", "mixed", 515, 4,
         (Lengths(512, 700, 262144, 358400), Lengths(3, 90, 3, 90))),
        ("execute_64_context_0(sq0sk0sqsq0sqsk0)_generation_64(sq64sk131072sqsq64sqsk131072)", "decode", 64, 64,
         (Lengths(), Lengths(64, 131072, 64, 131072))),
        ("execute_context_0(0)_generation_64(64)", "decode", 64, 64, (Lengths(), None)),
        ("context_2(6144)_generation_3(3)", "mixed", 6147, 5, (None, None)),
        ("step[EXTEND bs=2 toks=14721]", "prefill", 14721, 2, (None, Lengths())),
        ("step[DECODE bs=64]", "decode", 64, 64, (Lengths(), None)),
        ("step[MIXED bs=2]", "mixed", None, 2, (None, Lengths())),
        ("step[TARGET_VERIFY bs=4]", "decode", None, 4, (Lengths(), None)),
        ("step[DRAFT_EXTEND_V2 bs=4]", "decode", None, 4, (Lengths(), None)),
        ("step[SPLIT_PREFILL bs=2]", "prefill", None, 2, (None, Lengths())),
        ("step[IDLE bs=0]", "idle", 0, 0, (Lengths(), Lengths())),
        ("execute_context_0(0)_generation_0(0)", "idle", 0, 0, (Lengths(), Lengths())),
        ("step[DECODE bs=64 g_sq=128 g_sqsq=256 g_sqsk=262144 g_sk=131072]", "decode", 128, 64,
         (Lengths(), Lengths(128, 131072, 256, 262144))),
        ("step[MIXED bs=2 c=1 g=1 c_sq=5 c_sk=8 c_sqsq=25 c_sqsk=40 g_sq=1 g_sk=12 g_sqsq=1 g_sqsk=12]", "mixed", 6, 2,
         (Lengths(5, 8, 25, 40), Lengths(1, 12, 1, 12))),
        ("prefill[bs=2 tok=14721 ctx=[7803, 6918]]", "prefill", 14721, 2, (None, Lengths())),
        ("decode[bs=117/128 tok=117 d=117]", "decode", 117, 117, (Lengths(), None)),
        ("decode[bs=32 tok=128 d=32 spec=3 sqsq=512 sqsk=262144 sk=65536]", "decode", 128, 32,
         (Lengths(), Lengths(128, 65536, 512, 262144))),
    ],
)  # fmt: skip
def test_what_the_name_of_a_step_of_serving_says(
    name: str, kind: str, tokens: int | None, sequences: int, lengths: tuple[Lengths | None, Lengths | None]
) -> None:
    found = served(name)
    assert found is not None
    assert (found.kind, _served(name)[1:]) == (kind, (tokens, sequences))
    assert (found.prefill.lengths, found.decode.lengths) == lengths


@pytest.mark.parametrize("name", ["step", "step[x]", "decode", "decode [bs=1]", "execute_context", ""])
def test_other_names_are_no_steps_of_serving(name: str) -> None:
    assert served(name) is None


def test_nothing_repeats(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("once", 0, 10)
    trace.launch(1, 1)
    trace.kernel(1, 5, 5)
    assert load_trace(trace.write(tmp_path / "t.json")).steps().empty


def test_work_of_a_region_that_begins_before_its_step_is_of_the_step(tmp_path: Path) -> None:
    """A batch is fetched from 50 us before each step to 100 us into it; what it launches in the step is the step's."""
    trace, correlation = TraceBuilder(), 0
    for number in range(3):
        at = 1000.0 * number
        trace.region(f"ProfilerStep#{number}", at + 100, 800)
        trace.region("load", at + 50, 150)
        for launched, began, dur in ((60, 70, 20), (150, 160, 50), (400, 420, 60)):
            correlation += 1
            trace.operator("aten::mm", at + launched - 1, 8)
            trace.launch(correlation, at + launched)
            trace.kernel(correlation, at + began, dur)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    found = loaded.steps()
    assert found[["wall_ns", "gpu_events", "busy_ns"]].to_numpy().tolist() == [[800_000, 2, 110_000]] * 3
    regions = loaded.regions().set_index("path")
    assert regions.loc[[("ProfilerStep",)], ["gpu_events", "busy_ns"]].to_numpy().tolist() == [[6, 330_000]]
    assert loaded.roofline_totals("step")["gpu_ns"].tolist() == [110_000] * 3
    # the step is one stretch, so no wall time counts twice
    assert loaded.utilization().set_index("path")["wall_ns"].loc[[("ProfilerStep",)]].tolist() == [2_400_000]
    # both parts of a fetch are one of the steps by that name
    assert loaded.steps(region="load")[["wall_ns", "gpu_events"]].to_numpy().tolist() == [[150_000, 2]] * 3
    side = loaded.side()
    assert side.rounds == 3
    assert side.wall()["round",].samples.tolist() == [800_000] * 3
    assert side.busy()["GPU busy",].samples.tolist() == [110_000] * 3
    assert side.operator_time()["aten::mm",].samples.tolist() == [16_000] * 3


def odd_steps(draw: random.Random) -> TraceBuilder:
    """Steps of two threads that overlap, some of no length; kernels of no length, after their step, without launch."""
    trace, kernels, correlation = TraceBuilder(), list[tuple[float, int, float, int, int]](), 0
    for thread in (1, 2):
        at = draw.randint(-500, 50)
        for number in range(4):
            dur = draw.choice((0, 20, 50, 100))
            trace.region(f"ProfilerStep#{number}", at, dur, thread)
            for _ in range(draw.randint(0, 4)):
                correlation += 1
                launched = at + draw.randint(0, 110) + 0.5
                if draw.random() < 0.9:
                    trace.launch(correlation, launched, thread)
                after, length = draw.choice((1, 4, 40, 200)), draw.choice((0, 0.5, 7, 60))
                kernels.append((launched + after, correlation, length, draw.choice((7, 8)), draw.choice((0, 1))))
            at += max(1, dur + draw.choice((-30, -5, 0, 10)))
    free = dict[tuple[int, int], float]()
    for start, number, length, stream, device in sorted(kernels):
        begin = max(start, free.get((device, stream), start))
        free[device, stream] = begin + length
        trace.kernel(number, begin, length, stream=stream, device=device)
    return trace


def slow_steps(path: Path) -> list[tuple[int, ...]]:
    """Start, host time, GPU events, busy and idle of each step: an event is of the step opened last at its launch."""
    events = json.loads(path.read_text())["traceEvents"]
    steps = [event for event in events if event["name"].startswith("ProfilerStep")]
    calls = {event["args"]["correlation"]: event for event in events if event.get("cat") == "cuda_runtime"}
    inside: list[list[tuple[int, int]]] = [[] for _ in steps]
    for event, _ in reference.attribute(path):
        call = calls.get(event["args"]["correlation"], {"ts": float("inf"), "tid": 0})
        open_then = [
            (step["ts"], -step["dur"], number)
            for number, step in enumerate(steps)
            if step["tid"] == call["tid"] and step["ts"] <= call["ts"] < step["ts"] + step["dur"]
        ]
        if open_then:
            start = reference.ns(event["ts"])
            inside[max(open_then)[2]].append((start, start + reference.ns(event["dur"])))
    rows = []
    for step, spans in zip(steps, inside, strict=True):
        busy, reach = reference.union_ns(spans), [time for span in spans for time in span] or [0]
        rows.append(
            (reference.ns(step["ts"]), reference.ns(step["dur"]), len(spans), busy, max(reach) - min(reach) - busy)
        )
    return sorted(rows)


@pytest.mark.parametrize("seed", range(12))
def test_odd_steps_are_those_of_a_slow_reading(seed: int, tmp_path: Path) -> None:
    path = odd_steps(random.Random(seed)).write(tmp_path / "t.json")
    found = load_trace(path).steps()[["start_ns", "wall_ns", "gpu_events", "busy_ns", "idle_ns"]]
    assert sorted(found.itertuples(index=False, name=None)) == slow_steps(path)
