"""Queue length, launches, communication overlap, copies and kernel sequences: by hand, conserved, in any order."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.analyses.gpu.communication import COMMUNICATION_OVERLAP
from profiler_kit.analyses.gpu.copies import COPIES, COPY_RATE, COPY_TOTALS
from profiler_kit.analyses.gpu.launches import LAUNCH_DETAILS, LAUNCH_TOTALS, QUEUE_LENGTH, QUEUE_TOTALS
from profiler_kit.analyses.gpu.sequences import KERNEL_SEQUENCES
from profiler_kit.errors import OptionError
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder, real_traces


def test_a_queue_grows_with_launches_and_shrinks_when_work_begins(tmp_path: Path) -> None:
    """us: launched at 1, 3, 5 (a graph of two); begun at 5, 9, 11, 20. At 5 one is queued and one leaves: no step."""
    trace = TraceBuilder()
    trace.launch(1, 1)
    trace.launch(2, 3)
    trace.launch(3, 5, name="cudaGraphLaunch")
    for correlation, start in ((1, 5), (2, 9), (3, 11), (3, 20)):
        trace.kernel(correlation, start, 1)
    trace.kernel(8, 30, 1)  # no launch
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    queue = loaded.queue_length()
    assert queue[["time_ns", "length"]].to_numpy().tolist() == [
        [1_000, 1],
        [3_000, 2],
        [5_000, 3],
        [9_000, 2],
        [11_000, 1],
        [20_000, 0],
    ]
    totals = loaded.queue(full_at=3).iloc[0].to_dict()
    mean = (2 * 1 + 2 * 2 + 4 * 3 + 2 * 2 + 9 * 1) / 19
    assert totals.pop("mean_length") == pytest.approx(mean)
    assert totals == {
        "device": 0,
        "process": "100",
        "stream": 7,
        "max_length": 3,
        "total_ns": 19_000,
        "empty_ns": 0,
        "full_ns": 4_000,
    }


def test_a_kernel_before_its_launch_leaves_the_queue_at_once(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.launch(1, 10)
    trace.kernel(1, 5, 1)
    queue = load_trace(trace.write(tmp_path / "t.json")).queue_length()
    assert queue[["time_ns", "length"]].to_numpy().tolist() == [[10_000, 0]]


def test_launches_count_short_kernels_slow_calls_and_late_starts(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.launch(1, 0, dur=5)
    trace.kernel(1, 10, 3)  # shorter than its launch
    trace.launch(2, 20, dur=60)  # slow
    trace.kernel(2, 90, 80)
    trace.launch(3, 100, dur=4, name="cudaGraphLaunch")
    trace.kernel(3, 300, 2)  # 196 us after the call
    trace.kernel(3, 310, 3)
    trace.launch(4, 400)  # launches nothing
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    details = loaded.launch_details()
    assert details[["correlation", "dur_ns", "gpu_events", "gpu_ns", "delay_ns"]].to_numpy().tolist() == [
        [1, 5_000, 1, 3_000, 5_000],
        [2, 60_000, 1, 80_000, 10_000],
        [3, 4_000, 2, 5_000, 196_000],
    ]
    columns = ["name", "launches", "gpu_events", "host_ns", "gpu_ns", "short", "slow", "delayed", "max_delay_ns"]
    assert loaded.launches()[columns].to_numpy().tolist() == [
        ["cudaLaunchKernel", 2, 2, 65_000, 83_000, 1, 1, 0, 10_000],
        ["cudaGraphLaunch", 1, 2, 4_000, 5_000, 0, 0, 1, 196_000],
    ]
    assert loaded.launches(slow_from_ns=4_000, delayed_from_ns=9_999)[["slow", "delayed"]].to_numpy().tolist() == [
        [2, 1],
        [0, 1],
    ]


def test_communication_hides_behind_computation_of_its_own_device(tmp_path: Path) -> None:
    """us, device 0: nccl 0-10 and 8-20, gemm 5-12 and a copy 12-30. Device 1: a gemm all along, no nccl."""
    trace = TraceBuilder()
    trace.kernel(1, 0, 10, name="ncclDevKernel_AllReduce", stream=20)
    trace.kernel(2, 8, 12, name="ncclDevKernel_AllGather", stream=21)
    trace.kernel(3, 5, 7)
    trace.span("gpu_memcpy", "Memcpy DtoD (Device -> Device)", 12, 18, 7, stream=7, device=0)
    trace.kernel(4, 0, 100, device=1)
    overlap = load_trace(trace.write(tmp_path / "t.json")).communication_overlap()
    assert overlap.drop(columns="process").to_numpy().tolist() == [
        [0, 20_000, 7_000, 7_000, 13_000, 0.35],
        [1, 0, 100_000, 0, 0, 0.0],
    ]


def copy(trace: TraceBuilder, name: str, start: float, dur: float, size: int | None) -> None:
    args = {} if size is None else {"bytes": size}
    category = "gpu_memset" if name.startswith("Memset") else "gpu_memcpy"
    trace.span(category, name, start, dur, 7, stream=7, device=0, **args)


def test_copies_have_a_kind_and_a_bandwidth(tmp_path: Path) -> None:
    trace = TraceBuilder()
    copy(trace, "Memcpy HtoD (Pinned -> Device)", 0, 10, 1_000)
    copy(trace, "Memcpy HtoD (Pinned -> Device)", 5, 10, 3_000)
    copy(trace, "Memcpy HtoD (Pageable -> Device)", 40, 10, 500)
    copy(trace, "Memset (Device)", 60, 0, 64)  # took no time
    copy(trace, "CopyHostToDevice", 70, 5, None)
    trace.kernel(1, 0, 100)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert loaded.copies()[["kind", "source", "target", "size_bytes"]].astype(object).to_numpy().tolist() == [
        ["HtoD", "Pinned", "Device", 1_000],
        ["HtoD", "Pinned", "Device", 3_000],
        ["HtoD", "Pageable", "Device", 500],
        ["Memset", "", "Device", 64],
        ["HtoD", "Host", "Device", pd.NA],
    ]
    totals = loaded.copy_totals()
    assert totals["size_bytes"].isna().tolist() == [False, False, True, False]
    sizes = totals["size_bytes"].dropna().tolist()
    assert sizes == [4_000, 500, 64]
    assert totals[["kind", "source", "count", "sum_ns"]].to_numpy().tolist() == [
        ["HtoD", "Pinned", 2, 20_000],
        ["HtoD", "Pageable", 1, 10_000],
        ["HtoD", "Host", 1, 5_000],
        ["Memset", "", 1, 0],
    ]
    assert totals["bytes_per_s"].tolist() == [2e8, 5e7, pd.NA, pd.NA]
    assert totals[["min_bytes_per_s", "max_bytes_per_s"]].iloc[0].tolist() == [1e8, 3e8]
    assert loaded.copy_rate().drop(columns="process").to_numpy().tolist() == [
        [0, "HtoD", 0, 1e8],
        [0, "HtoD", 5_000, 4e8],
        [0, "HtoD", 10_000, 3e8],
        [0, "HtoD", 15_000, 0.0],
        [0, "HtoD", 40_000, 5e7],
        [0, "HtoD", 50_000, 0.0],
    ]


def test_sequences_are_counted_within_one_call_of_an_operator(tmp_path: Path) -> None:
    """Two calls of `mlp` launch gemm, gelu, gemm; one of `norm` launches mean, scale. Launch order, not start order."""
    trace = TraceBuilder()
    correlation = 0
    for call in range(2):
        trace.operator("mlp", 100 * call, 50)
        for number, name in enumerate(("gemm", "gelu", "gemm")):
            correlation += 1
            trace.launch(correlation, 100 * call + 1 + number)
            trace.kernel(correlation, 100 * call + 20 + 10 * number, 8, name=name)
    trace.operator("norm", 300, 50)
    for number, (name, start) in enumerate((("mean", 340), ("scale", 320))):
        correlation += 1
        trace.launch(correlation, 301 + number)
        trace.kernel(correlation, start, 5, name=name, stream=7 + number)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    columns = ["operator", "kernels", "length", "count", "calls", "sum_ns", "gap_ns"]
    assert loaded.kernel_sequences(length=2)[columns].to_numpy().tolist() == [
        ["mlp", ("gelu", "gemm"), 2, 2, 2, 32_000, 4_000],
        ["mlp", ("gemm", "gelu"), 2, 2, 2, 32_000, 4_000],
        ["norm", ("mean", "scale"), 2, 1, 1, 10_000, 0],
    ]
    whole = loaded.kernel_sequences(length=None)
    assert whole[["kernels", "count"]].to_numpy().tolist() == [
        [("gemm", "gelu", "gemm"), 2],
        [("mean", "scale"), 1],
    ]
    assert loaded.kernel_sequences(length=None, operator="nor")["kernels"].tolist() == [("mean", "scale")]
    assert loaded.kernel_sequences(length=4).empty
    with pytest.raises(OptionError) as caught:
        loaded.kernel_sequences(length=1)
    assert str(caught.value) == (
        "sequence length 1: expected 2 or more. --length 0 (None in Python) takes all that one call of an operator "
        "launched."
    )


def conserved(trace: Trace) -> None:
    details, queue, totals = trace.kernel_details(), trace.queue_length(), trace.queue()
    linked = details[details["launch"].notna()]
    assert (queue["length"] >= 0).all()
    if len(queue):
        assert queue.groupby(["device", "stream"], dropna=False)["length"].last().eq(0).all()
        # Little's law: queue length over time holds every event for as long as it waited
        waited = np.maximum(linked["start_ns"] - linked["launch_start_ns"], 0).sum()
        assert totals["mean_length"].mul(totals["total_ns"]).sum() == pytest.approx(int(waited))
    launches = trace.launch_details()
    assert launches["gpu_ns"].sum() == trace.launches()["gpu_ns"].sum() == linked["dur_ns"].sum()
    assert launches["gpu_events"].sum() == len(linked)
    assert (launches["delay_ns"] >= 0).all()
    overlap = trace.communication_overlap()
    assert (overlap["overlap_ns"] + overlap["exposed_ns"] == overlap["communication_ns"]).all()
    assert (overlap["overlap_ns"] <= overlap["computation_ns"]).all() and (overlap.min(numeric_only=True) >= 0).all()
    found, kinds, rate = trace.copies(), trace.copy_totals(), trace.copy_rate()
    assert kinds["count"].sum() == len(found) and kinds["sum_ns"].sum() == found["dur_ns"].sum()
    moved = found[(found["dur_ns"] > 0) & found["size_bytes"].notna()]
    lasted = rate["time_ns"].astype("Int64").groupby([rate["device"], rate["kind"]], dropna=False).diff().shift(-1)
    area = (lasted.fillna(0) * rate["bytes_per_s"]).sum() / 1e9
    assert area == pytest.approx(int(moved["size_bytes"].sum()), rel=1e-9)
    under = details[details["outer_operator_event"].notna()]
    whole = trace.kernel_sequences(length=None)
    assert whole["sum_ns"].sum() == under["dur_ns"].sum()
    assert (whole["length"] * whole["count"]).sum() == len(under)
    pairs = trace.kernel_sequences(length=2)
    assert pairs["count"].sum() == len(under) - under["outer_operator_event"].nunique()
    assert pairs["gap_ns"].sum() == whole["gap_ns"].sum()


@pytest.mark.skipif(not real_traces(), reason="the real captures are not beside the project")
@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_everything_is_counted_on_real_captures(path: Path) -> None:
    conserved(load_trace(path))


work = st.tuples(
    st.integers(0, 80),
    st.integers(1, 2),
    st.integers(-5, 30),
    st.integers(0, 20),
    st.integers(1, 2),
    st.sampled_from(["gemm", "ncclDevKernel", "Memcpy HtoD (Pinned -> Device)", "Memset (Device)"]),
)


@settings(max_examples=24)
@given(
    st.lists(st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 2)), max_size=5),
    st.lists(work, min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_everything_is_counted_on_random_traces_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, operators: list, calls: list, order: random.Random
) -> None:
    trace = TraceBuilder()
    for start, dur, tid in operators:
        trace.operator("op", start, dur, tid)
    for number, (at, tid, delay, dur, stream, name) in enumerate(calls):
        correlation = number - number % 3  # some launches own several events
        if correlation % 4 and correlation == number:
            trace.launch(correlation, at, tid)
        event = trace.kernel(correlation, 10 + at + delay, dur, name=name, stream=stream)
        if name.startswith("Mem"):
            event["cat"] = "gpu_memset" if name.startswith("Memset") else "gpu_memcpy"
            event["args"]["bytes"] = 8 * number
    path = tmp_path_factory.mktemp("t") / "t.json"
    before = load_trace(trace.number().write(path))
    conserved(before)
    order.shuffle(trace.events)
    after = load_trace(trace.write(path))
    for name in ("queue_length", "queue", "launches", "communication_overlap", "copy_totals"):
        assert getattr(before, name)().to_dict("records") == getattr(after, name)().to_dict("records"), name


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("aten::mm", 0, 1)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    for frame, schema in (
        (loaded.queue_length(), QUEUE_LENGTH),
        (loaded.queue(), QUEUE_TOTALS),
        (loaded.launch_details(), LAUNCH_DETAILS),
        (loaded.launches(), LAUNCH_TOTALS),
        (loaded.communication_overlap(), COMMUNICATION_OVERLAP),
        (loaded.copies(), COPIES),
        (loaded.copy_totals(), COPY_TOTALS),
        (loaded.copy_rate(), COPY_RATE),
        (loaded.kernel_sequences(), KERNEL_SEQUENCES),
    ):
        assert frame.empty and list(frame) == list(schema.columns)
