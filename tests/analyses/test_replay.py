"""What a change would give, replayed by hand; unchanged it gives the recorded time on every capture."""

from __future__ import annotations

from pathlib import Path

import pytest

from profiler_kit.errors import OptionError
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder, real_traces


def two_rounds(tmp_path: Path) -> Trace:
    """Twice: launch a (40 us) and b (20 us) at once, wait for both on the host, 10 us of host work. us.

    round 1: launches at 0 and 2, a 5..45, b 46..66, the wait from 4 returns at 70; round 2 the same from 80 on.
    """
    trace = TraceBuilder()
    for number, at in enumerate((0.0, 80.0)):
        trace.region(f"round {number}", at, 70)
        trace.launch(2 * number + 1, at)
        trace.kernel(2 * number + 1, at + 5, 40, name="a")
        trace.launch(2 * number + 2, at + 2)
        trace.kernel(2 * number + 2, at + 46, 20, name="b")
        trace.span("cuda_runtime", "cudaDeviceSynchronize", at + 4, 66)
    return load_trace(trace.write(tmp_path / "t.json"))


def test_without_a_kernel_the_host_goes_on_earlier(tmp_path: Path) -> None:
    """Without b each wait returns 4 us after a: at 49 in place of 70. All later is 21 us earlier, twice."""
    nothing, gone = two_rounds(tmp_path).table("whatif", kernel="b").records()
    assert (nothing["tried"], nothing["span_ns"], nothing["saved_ns"]) == ("nothing", 150_000, 0)
    assert (gone["tried"], gone["name"], gone["span_ns"], gone["saved_ns"]) == ("gone", "b", 108_000, 42_000)


def test_a_region_is_faster_on_the_gpu_and_on_the_host(tmp_path: Path) -> None:
    """round 0 twice as fast: a 20 us, b 10 us, the wait returns at 40; launching is faster too but holds up none."""
    found = two_rounds(tmp_path).what_if(region="round 0")
    assert found["saved_ns"].tolist() == [0, 30_000]


def test_no_gap_above_some_length(tmp_path: Path) -> None:
    """Between b and the next a are 19 us, and 5 before the first; all others are shorter."""
    found = two_rounds(tmp_path).what_if(gap_ns=10_000).set_index("tried")
    assert found.loc["no gap above 10 µs", "saved_ns"] == 9_000


def test_a_kernel_that_is_not_there_saves_nothing_that_could_be_said(tmp_path: Path) -> None:
    with pytest.raises(OptionError) as refused:
        two_rounds(tmp_path).what_if(kernel="flash")
    assert str(refused.value) == (
        f"{tmp_path}/t.json: no kernel whose name holds 'flash', found a, b. "
        "Give a part of such a name: profiler-kit kernels lists them."
    )


def test_what_is_first_on_a_stream_and_gone_leaves_what_has_no_launch_where_it_began(tmp_path: Path) -> None:
    """a from 10 to 15, b from 30 to 35, of which no launch was recorded: without a, b begins its gap of 15 us after."""
    trace = TraceBuilder()
    trace.kernel(1, 10, 5, name="a")
    trace.kernel(2, 30, 5, name="b")
    found = load_trace(trace.write(tmp_path / "t.json"))
    assert {name: int(found.what_if(kernel=name)["saved_ns"][1]) for name in "ab"} == {"a": 5_000, "b": 20_000}


def test_what_a_region_gains_before_the_span_begins_is_no_gain_in_it(tmp_path: Path) -> None:
    """Open from 0, its first call is at 80: of the span of 30 us twice as fast saves at most half."""
    trace = TraceBuilder()
    trace.region("forward", 0, 105)
    trace.launch(1, 80)
    trace.kernel(1, 90, 10)
    trace.launch(2, 100)
    trace.kernel(2, 104, 6)
    rows = load_trace(trace.write(tmp_path / "t.json")).what_if(region="forward", factor=2).set_index("tried")
    assert rows.loc["nothing", "span_ns"] == 30_000
    # the second launch 10 us earlier, at 90, its kernel 4 us later of 3 us; but the first one ends at 95
    assert rows.loc["2 times as fast", "saved_ns"] == 12_000


def test_times_before_zero_are_times_as_others(tmp_path: Path) -> None:
    """Clocks may count from a moment in the recording: a runs -95..-55, c after a gap of 25 us until -10."""
    trace = TraceBuilder()
    for correlation, (at, start, dur) in enumerate(((-100, -95, 40), (-40, -30, 20)), 1):
        trace.launch(correlation, at)
        trace.kernel(correlation, start, dur)
    found = load_trace(trace.write(tmp_path / "t.json"))
    saved = found.what_if(gap_ns=10_000).set_index("tried")
    assert saved.loc["nothing", ["span_ns", "saved_ns"]].tolist() == [90_000, 0]
    assert saved.loc["no gap above 10 µs", ["span_ns", "saved_ns"]].tolist() == [75_000, 15_000]
    assert int(found.critical_path()["dur_ns"].sum()) == 90_000


def test_the_path_goes_back_through_what_each_thing_waited_for(tmp_path: Path) -> None:
    path = two_rounds(tmp_path).critical_path()
    assert path[["kind", "name", "start_ns", "dur_ns"]].to_numpy().tolist() == [
        ["latency", "(no operator)", 0, 5_000],
        ["GPU", "a", 5_000, 40_000],
        ["latency", "(no operator)", 45_000, 1_000],
        ["GPU", "b", 46_000, 20_000],
        ["wait", "cudaDeviceSynchronize", 66_000, 4_000],
        ["host", "(no operator)", 70_000, 10_000],
        ["latency", "(no operator)", 80_000, 5_000],
        ["GPU", "a", 85_000, 40_000],
        ["latency", "(no operator)", 125_000, 1_000],
        ["GPU", "b", 126_000, 20_000],
        ["wait", "cudaDeviceSynchronize", 146_000, 4_000],
    ]
    totals = two_rounds(tmp_path).critical_totals().set_index(["kind", "name"])["sum_ns"]
    assert totals["GPU", "a"] == 80_000 and int(totals.sum()) == 150_000


def test_a_late_start_right_after_an_end_on_another_stream_waited_for_it(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for correlation, (at, start, dur, stream, name) in enumerate(((0, 5, 40, 7, "a"), (2, 46, 20, 8, "c")), 1):
        trace.launch(correlation, at)
        trace.kernel(correlation, start, dur, name=name, stream=stream)
    found = load_trace(trace.write(tmp_path / "t.json")).what_if(kernel="a")
    assert found["saved_ns"].tolist() == [0, 39_000]  # without a, c starts 5 us after its launch began, as a did


def test_a_wait_for_the_device_is_for_all_streams(tmp_path: Path) -> None:
    """a runs 5..105 on one stream, c 7..87 on another, the wait returns at 110: without a at 92, 5 us after c."""
    trace = TraceBuilder()
    for correlation, (at, start, dur, stream, name) in enumerate(((0, 5, 100, 7, "a"), (2, 7, 80, 8, "c")), 1):
        trace.launch(correlation, at)
        trace.kernel(correlation, start, dur, name=name, stream=stream)
    trace.span("cuda_runtime", "cudaDeviceSynchronize", 4, 106)
    found = load_trace(trace.write(tmp_path / "t.json")).what_if(kernel="a")
    assert found["saved_ns"].tolist() == [0, 18_000]


def test_a_recorded_wait_holds_where_another_thing_was_later(tmp_path: Path) -> None:
    """c waits for a of another stream, and started after b of its own. Without b it starts 2 us after a, as d did."""
    trace = TraceBuilder()
    for correlation, (at, start, dur, stream, name) in enumerate(
        ((0, 5, 40, 7, "a"), (2, 7, 59, 8, "b"), (20, 67, 20, 8, "c"), (22, 47, 15, 9, "d")), 1
    ):
        trace.launch(correlation, at)
        trace.kernel(correlation, start, dur, name=name, stream=stream)
    trace.span("cuda_runtime", "cudaEventRecord", 6, 1, correlation=10)
    for correlation, at, stream in ((11, 8, 8), (12, 21, 9)):
        trace.span("cuda_runtime", "cudaStreamWaitEvent", at, 1, correlation=correlation)
        args = {"wait_on_stream": 7, "wait_on_cuda_event_record_corr_id": 10, "correlation": correlation}
        trace.span("cuda_sync", "Stream Wait Event", at, 1, stream, stream=stream, device=0, **args)
    found = load_trace(trace.write(tmp_path / "t.json"))
    path = found.critical_path()
    assert path[path["kind"] == "GPU"]["name"].tolist() == ["b", "c"]
    assert found.what_if(kernel="b")["saved_ns"].tolist() == [0, 20_000]


@pytest.mark.parametrize("recorded", [5, 10])
def test_a_wait_for_what_was_recorded_before_the_trace_is_told_by_the_start(recorded: int, tmp_path: Path) -> None:
    """b starts 1 us after a of another stream; that it waited for it is not said where the call of a is not there."""
    trace = TraceBuilder()
    for correlation, (at, start, dur, stream, name) in enumerate(((0, 5, 40, 7, "a"), (10, 46, 20, 8, "b")), 1):
        trace.launch(correlation, at)
        trace.kernel(correlation, start, dur, name=name, stream=stream)
    trace.span("cuda_runtime", "cudaEventRecord", 5, 1, correlation=5)
    trace.span("cuda_runtime", "cudaStreamWaitEvent", 8, 1, correlation=11)
    args = {"wait_on_stream": 7, "wait_on_cuda_event_record_corr_id": recorded, "correlation": 11}
    trace.span("cuda_sync", "Stream Wait Event", 8, 1, 8, stream=8, device=0, **args)
    path = load_trace(trace.write(tmp_path / "t.json")).critical_path()
    assert path[path["kind"] == "GPU"]["name"].tolist() == ["a", "b"]


def test_several_processes_are_refused(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for pid in (100, 200):
        trace.pid = pid
        trace.launch(1, 0)
        trace.kernel(1, 5, 5, device=pid // 100)
    found = load_trace(trace.write(tmp_path / "t.json"))
    with pytest.raises(OptionError, match="found 2 processes, expected one"):
        found.what_if()


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_unchanged_it_takes_the_recorded_time(path: Path) -> None:
    trace = load_trace(path)
    found = trace.what_if()
    assert found["saved_ns"].iloc[0] == 0
    assert (found["saved_ns"] >= 0).all()
    assert int(trace.critical_path()["dur_ns"].sum()) == int(found["span_ns"].iloc[0])


def kernel_and_copy(tmp_path: Path, call: str, copy: str, returns: float) -> Trace:
    """gemm runs 5..105, a copy 106..108 whose call began at 2; the host launches c at 120, which runs 125..135. us."""
    trace = TraceBuilder()
    trace.launch(1, 0)
    trace.kernel(1, 5, 100, name="gemm")
    trace.launch(2, 2, dur=returns - 2, name=call)
    trace.span("gpu_memcpy", copy, 106, 2, 7, correlation=2, device=0, stream=7)
    trace.launch(3, 120)
    trace.kernel(3, 125, 10, name="c")
    return load_trace(trace.write(tmp_path / "t.json"))


@pytest.mark.parametrize(
    ("call", "copy", "returns", "waits"),
    [
        ("cudaMemcpyAsync", "Memcpy DtoH (Device -> Pageable)", 115, True),
        ("cudaMemcpyAsync", "Memcpy DtoH (Device -> Pageable)", 108, True),  # at its end, as a trace in us may say
        ("cudaMemcpyAsync", "Memcpy HtoD (Pageable -> Device)", 115, True),
        ("cudaMemcpyAsync", "Memcpy HtoD (Pageable -> Device)", 107, False),  # staged, and the host went on
        ("cudaMemcpyAsync", "Memcpy DtoH (Device -> Pinned)", 115, False),  # a slow call, but nothing that waits
        ("cudaMemcpy", "Memcpy DtoH (Device -> Pinned)", 115, True),
        ("cudaMemcpy", "Memcpy DtoD (Device -> Device)", 10, False),  # not synchronous, whatever its name says
        ("hipMemcpyWithStream", "Memcpy DtoH (Device -> Host)", 115, True),
        ("cuMemcpyDtoHAsync_v2", "Memcpy DtoH (Device -> Pageable)", 115, True),
        ("cudaGraphLaunch", "Memcpy DtoH (Device -> Pageable)", 115, False),
    ],
)
def test_a_copy_that_returns_after_its_end_holds_the_host_up(
    tmp_path: Path, call: str, copy: str, returns: float, waits: bool
) -> None:
    """Idle time, region, what-if and critical path tell a copy that waits alike."""
    trace = kernel_and_copy(tmp_path, call, copy, returns)
    assert trace.launch_calls()["waits"].tolist() == [False, waits, False]
    gap = trace.idle_gaps().iloc[-1]
    assert (gap["dur_ns"], gap["cause"]) == (17_000, "synchronization-bound" if waits else "host-bound")
    # without gemm the copy begins 5 us after its launch, at 7, its end is 99 us earlier, and so is the host after it
    assert trace.what_if(kernel="gemm")["saved_ns"].tolist() == [0, 99_000 if waits else 0]
    path = trace.critical_path()
    assert path["dur_ns"].sum() == 135_000
    assert ("gemm" in path["name"].tolist()) == waits
    since = round(returns * 1000) if waits else 0  # how far back the host held c up
    assert path.loc[path["kind"] == "host", "dur_ns"].tolist() == [120_000 - since]
