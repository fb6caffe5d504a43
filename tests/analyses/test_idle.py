"""Idle gaps by cause, and what bounds a region: by hand, conserved on real and random traces, equal to HTA's rule."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.analyses.gpu.idle import IDLE_GAPS, IDLE_TOTALS, idle_totals
from profiler_kit.analyses.gpu.utilization import REGION_UTILIZATION
from profiler_kit.formats.request_file import write_requests
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder, real_traces
from tests.reference import union_ns
from tests.serving.samples import BASE_NS, request, two_requests


def sync(trace: TraceBuilder, start: float, dur: float, tid: int = 1) -> None:
    trace.span("cuda_runtime", "cudaStreamSynchronize", start, dur, tid)


def gaps_of(path: Path, **options: object) -> list[list[object]]:
    gaps = load_trace(path).idle_gaps(**options)  # type: ignore[arg-type]
    return gaps[["device", "stream", "start_ns", "dur_ns", "cause"]].astype(object).to_numpy().tolist()


def five_kernels(tmp_path: Path) -> Path:
    """us, stream 7: 10-20, 22-30 (launched at 5), 50-60 (at 40), 70-80 (at 65, after a wait 55-62), 150-151 (at 66)."""
    trace = TraceBuilder()
    trace.region("work", 0, 100)
    for correlation, (at, start, dur) in enumerate([(1, 10, 10), (5, 22, 8), (40, 50, 10), (65, 70, 10), (66, 150, 1)]):
        trace.launch(correlation, at)
        trace.kernel(correlation, start, dur)
    sync(trace, 55, 7)
    trace.kernel(None, 140, 5, stream=9)
    return trace.write(tmp_path / "t.json")


def test_each_gap_has_its_cause(tmp_path: Path) -> None:
    assert gaps_of(five_kernels(tmp_path)) == [
        [0, 7, 20_000, 2_000, "kernel wait"],
        [0, 7, 30_000, 20_000, "host-bound"],
        [0, 7, 60_000, 10_000, "synchronization-bound"],  # the host waited from 55 to 62 and launched at 65
        [0, 7, 80_000, 70_000, "other"],  # launched at 66, so not the host
    ]


def test_a_device_is_idle_only_where_all_its_streams_are(tmp_path: Path) -> None:
    path = five_kernels(tmp_path)
    assert gaps_of(path, scope="device")[3:] == [
        [0, pd.NA, 80_000, 60_000, "other"],  # ended by the kernel of stream 9, whose launch is not known
        [0, pd.NA, 145_000, 5_000, "kernel wait"],
    ]
    assert gaps_of(path, scope="all", kernel_wait_below_ns=2_000)[0] == [pd.NA, pd.NA, 20_000, 2_000, "other"]


def test_totals_of_a_stream_add_up(tmp_path: Path) -> None:
    totals = load_trace(five_kernels(tmp_path)).idle()
    columns = ["stream", "cause", "gaps", "idle_ns", "longest_ns"]
    assert totals[columns].to_numpy().tolist() == [
        [7, "other", 1, 70_000, 70_000],
        [7, "host-bound", 1, 20_000, 20_000],
        [7, "synchronization-bound", 1, 10_000, 10_000],
        [7, "kernel wait", 1, 2_000, 2_000],
    ]
    assert totals["synchronised_ns"].tolist() == [0, 0, 10_000, 0]
    assert totals["share"].sum() == pytest.approx(1)


def test_the_wall_time_of_a_region_divides_into_what_the_gpu_did(tmp_path: Path) -> None:
    """Region 0-100, its last kernel ends at 151: 0-10 nothing was launched yet; 140-145 is the unlinked kernel's."""
    row = load_trace(five_kernels(tmp_path)).utilization().iloc[0].to_dict()
    assert row.pop("utilization") == pytest.approx(39 / 151)
    assert row == {
        "path": ("work",),
        "instances": 1,
        "gpu_events": 5,
        "wall_ns": 151_000,
        "busy_ns": 39_000,
        "other_ns": 5_000,
        "idle_ns": 107_000,
        "host_ns": 10_000 + 20_000,
        "synchronised_ns": 10_000,
        "kernel_wait_ns": 2_000 + 5_000,
        "other_wait_ns": 60_000,
        "no_request_ns": 0,
        "waiting_ns": 7_000,
        "ahead": 2 / 5,  # the second and the fifth were launched while earlier work was not done
        "verdict": "mixed",
    }


@pytest.mark.parametrize(
    ("kernels", "waits", "verdict"),
    [
        ([(1, 10, 80)], [], "GPU-bound"),  # 10 us until the first kernel, then busy to the end
        ([(i, 10 * i + 4, 3) for i in range(10)], [], "host-bound"),
        ([(i, 10 * i + 4, 3) for i in range(10)], [(10 * i + 3, 5) for i in range(10)], "synchronising"),
        ([], [], "no GPU work"),
    ],
)
def test_the_verdict_names_what_bounds_a_region(
    tmp_path: Path, kernels: list[tuple[int, int, int]], waits: list[tuple[int, int]], verdict: str
) -> None:
    trace = TraceBuilder()
    trace.region("work", 0, 95)
    for correlation, (_, start, dur) in enumerate(kernels):
        trace.launch(correlation, start - 2)
        trace.kernel(correlation, start, dur)
    for start, dur in waits:
        sync(trace, start, dur)
    assert load_trace(trace.write(tmp_path / "t.json")).utilization()["verdict"].tolist() == [verdict]


def test_work_launched_ahead_is_bound_by_the_gpu_even_when_it_waits_for_others(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("before", 0, 5)
    trace.launch(0, 1)
    trace.kernel(0, 10, 50)
    trace.region("tiny kernels", 5, 5)
    for correlation in range(1, 4):
        trace.launch(correlation, 5 + correlation)
        trace.kernel(correlation, 60 + 3 * correlation, 1)  # 1 us of work, 2 us between
    rows = load_trace(trace.write(tmp_path / "t.json")).utilization().set_index("path")
    tiny = rows.loc[[("tiny kernels",)]]
    assert tiny[["busy_ns", "other_ns", "kernel_wait_ns", "ahead"]].to_numpy().tolist() == [[3_000, 50_000, 7_000, 1.0]]
    assert tiny["verdict"].tolist() == ["GPU-bound"]


def conserved(trace: Trace) -> None:
    """Idle and busy time of each stream close; so does the wall time of each region; nothing is negative."""
    events = trace.gpu_events()
    for scope, keys in (("stream", ["device", "stream"]), ("device", ["device"]), ("all", [])):
        gaps = trace.idle_gaps(scope=scope)  # type: ignore[arg-type]
        assert (gaps["dur_ns"] > 0).all()
        idle = gaps.groupby(keys, dropna=False)["dur_ns"].sum() if keys else {(): gaps["dur_ns"].sum()}
        groups = events.groupby(keys, dropna=False) if keys else [((), events)]
        for key, mine in groups:
            start, end = mine["start_ns"], mine["start_ns"] + mine["dur_ns"]
            busy = union_ns(list(zip(start, end, strict=True)))
            if not any(pd.isna(part) for part in key):
                assert busy + idle.get(key[0] if len(key) == 1 else key, 0) == end.max() - start.min()
        assert idle_totals(gaps)["idle_ns"].sum() == gaps["dur_ns"].sum()
    rows = trace.utilization()
    assert (rows["wall_ns"] == rows["busy_ns"] + rows["other_ns"] + rows["idle_ns"]).all()
    causes = ["host_ns", "synchronised_ns", "kernel_wait_ns", "other_wait_ns", "no_request_ns"]
    assert (rows["idle_ns"] == rows[causes].sum(axis=1)).all()
    assert (rows.select_dtypes(np.number) >= 0).all(axis=None)
    assert (rows[["utilization", "ahead"]] <= 1).all(axis=None)


def test_time_without_a_request_is_no_wait_of_the_gpu(tmp_path: Path) -> None:
    trace = load_trace(two_requests(tmp_path))
    gaps = trace.idle_gaps()
    assert gaps[["start_ns", "dur_ns", "cause"]].to_numpy().tolist() == [
        [30_000, 10_000, "synchronization-bound"],
        [40_000, 260_000, "no request"],
        [300_000, 20_000, "host-bound"],
    ]
    conserved(trace)
    row = trace.utilization().iloc[0]
    assert row[["host_ns", "synchronised_ns", "no_request_ns", "idle_ns"]].tolist() == [
        45_000,
        10_000,
        325_000,
        380_000,
    ]
    path = trace.critical_path()
    assert path["dur_ns"].sum() == 320_000
    assert path.loc[path["kind"] == "no request", ["name", "start_ns", "dur_ns"]].to_numpy().tolist() == [
        ["(no request)", 40_000, 260_000]
    ]
    # twice as fast: 5 of the last kernel, half of the 33 in which the host has a request, less 2.5 that it waits more
    assert trace.what_if(region="serve")["saved_ns"].tolist() == [0, 19_000]


@pytest.mark.parametrize("bad", ["elsewhere", "broken"])
def test_requests_of_another_time_or_none_that_can_be_read_change_nothing(tmp_path: Path, bad: str) -> None:
    path = two_requests(tmp_path, base_ns=BASE_NS + (10**12 if bad == "elsewhere" else 0))
    if bad == "broken":
        (tmp_path / "requests.parquet").write_bytes(b"PAR1")
    assert load_trace(path).idle_gaps()["cause"].tolist() == ["synchronization-bound"]


@pytest.mark.skipif(not real_traces(), reason="the real captures are not beside the project")
@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_times_close_on_real_captures(path: Path) -> None:
    trace = load_trace(path)
    conserved(trace)
    events = trace.regions().set_index("path")["gpu_events"]
    rows = trace.utilization().set_index("path")
    assert rows["gpu_events"].to_dict() == {path: events[[path]].item() for path in rows.index}


@settings(max_examples=24)
@given(
    st.lists(st.tuples(st.integers(0, 90), st.integers(1, 30)), min_size=1, max_size=6),
    st.lists(st.tuples(st.integers(0, 60), st.integers(0, 40)), max_size=4),
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 30), st.integers(1, 20)), min_size=1, max_size=8),
)
def test_times_close_around_requests_too(
    tmp_path_factory: pytest.TempPathFactory, requests: list, opened: list, calls: list
) -> None:
    trace = TraceBuilder()
    for start, dur in opened:
        trace.region("a", start, dur)
    for correlation, (at, delay, dur) in enumerate(calls):
        trace.launch(correlation, at)
        trace.kernel(correlation, at + 2 + delay, dur)
    folder = tmp_path_factory.mktemp("t")
    write_requests(folder / "requests.parquet", map(request, itertools.count(), *zip(*requests, strict=True)))
    conserved(load_trace(trace.write(folder / "trace.json.gz")))


regions = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(1, 2), st.sampled_from("abc"))
launches = st.tuples(
    st.integers(0, 80), st.integers(1, 2), st.integers(0, 60), st.integers(0, 30), st.integers(1, 2), st.integers(0, 1)
)


@settings(max_examples=24)
@given(
    st.lists(regions, max_size=8),
    st.lists(launches, min_size=1, max_size=12),
    st.lists(st.tuples(st.integers(0, 90), st.integers(0, 20), st.integers(1, 2)), max_size=4),
    st.randoms(use_true_random=False),
)
def test_times_close_on_random_traces_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, opened: list, calls: list, waits: list, order: random.Random
) -> None:
    trace = TraceBuilder()
    for start, dur, tid, name in opened:
        trace.region(name, start, dur, tid)
    for correlation, (at, tid, delay, dur, stream, device) in enumerate(calls):
        if correlation % 4:
            trace.launch(correlation, at, tid)
        trace.kernel(correlation, 10 + at + delay, dur, stream=stream, device=device)
    for start, dur, tid in waits:
        sync(trace, start, dur, tid)
    path = tmp_path_factory.mktemp("t") / "t.json"
    before = load_trace(trace.number().write(path))
    conserved(before)
    order.shuffle(trace.events)
    after = load_trace(trace.write(path))
    assert before.idle().to_dict("records") == after.idle().to_dict("records")
    assert before.utilization().to_dict("records") == after.utilization().to_dict("records")


def test_nothing_in_nothing_out(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("aten::mm", 0, 1)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert list(loaded.idle_gaps()) == list(IDLE_GAPS.columns) and loaded.idle_gaps().empty
    assert list(loaded.idle()) == list(IDLE_TOTALS.columns) and loaded.idle().empty
    assert list(loaded.utilization()) == list(REGION_UTILIZATION.columns) and loaded.utilization().empty
