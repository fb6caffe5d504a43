"""Operator, module and delays of each GPU event: by hand, against a slow reference, and in any order of the file."""

from __future__ import annotations

import random
from bisect import bisect
from collections import defaultdict
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.attribute.frames import GPU_EVENTS, KERNEL_DETAILS
from profiler_kit.trace import load_trace
from tests.builders import TraceBuilder, real_traces
from tests.reference import read

ASKED = [
    "operator",
    "outer_operator",
    "module",
    "since_launch_ns",
    "launch_delay_ns",
    "queue_ns",
    "latency_ns",
    "previous_end_ns",
]


def apart(spans: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    """The spans in the order of time, cut wherever none of them is open."""
    groups: list[list[dict[str, Any]]] = []
    reach = 0
    for span in sorted(spans, key=lambda s: s["start"]):
        if not groups or span["start"] >= reach:
            groups.append([])
        groups[-1].append(span)
        reach = max(reach, span["end"])
    return groups


def slow(path: Path) -> list[tuple[Any, ...]]:
    """What ASKED says of each GPU event, one Python loop after the other, from the definitions alone."""
    spans = read(path)
    gpu = [e for e in spans if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")]
    host: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    modules: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    launches: dict[Any, dict[str, Any]] = {}
    for e in spans:
        if e.get("cat") == "cpu_op":
            host[e["pid"], e["tid"]].append(e)
        elif e.get("cat") == "python_function" and e["name"].startswith("nn.Module: "):
            modules[e["pid"], e["tid"]].append(e)
        elif e.get("cat", "").endswith(("_runtime", "_driver")) and "correlation" in e["args"]:
            known = launches.get(e["args"]["correlation"])
            if known is None or e["start"] < known["start"]:
                launches[e["args"]["correlation"]] = e

    def open_at(at: int, groups: list[list[dict[str, Any]]]) -> list[dict[str, Any]]:
        place = bisect(groups, at, key=lambda spans: spans[0]["start"])
        found = [s for s in groups[place - 1] if s["start"] <= at < s["end"]] if place else []
        return sorted(found, key=lambda s: (s["start"], -s["end"], s["args"].get("External id", -1), s["name"]))

    in_host, in_modules = ({thread: apart(spans) for thread, spans in some.items()} for some in (host, modules))
    streams: dict[Any, list[dict[str, Any]]] = defaultdict(list)
    for e in gpu:
        streams[e["args"].get("device"), e["args"].get("stream")].append(e)
    previous: dict[int, int] = {}
    for events in streams.values():
        reach = None
        for e in sorted(events, key=lambda e: (e["start"], e["end"], e["args"].get("correlation", -1))):
            if reach is not None:
                previous[id(e)] = reach
            reach = max(e["end"], reach or e["end"])
    rows = []
    for e in gpu:
        before = previous.get(id(e))
        launch = launches.get(e["args"].get("correlation"))
        if launch is None:
            rows.append((None, None, None, None, None, None, None, before))
            continue
        stack = open_at(launch["start"], in_host.get((launch["pid"], launch["tid"]), []))
        module = open_at(launch["start"], in_modules.get((launch["pid"], launch["tid"]), []))
        delay = max(e["start"] - launch["end"], 0)
        queue = max(min(before, e["start"]) - launch["end"], 0) if before is not None else 0
        rows.append(
            (
                stack[-1]["name"] if stack else None,
                stack[0]["name"] if stack else None,
                module[-1]["name"].removeprefix("nn.Module: ") if module else None,
                max(e["start"] - launch["start"], 0),
                delay,
                queue,
                delay - queue,
                before,
            )
        )
    return sorted(rows, key=repr)


def fast(path: Path) -> list[tuple[Any, ...]]:
    frame = load_trace(path).kernel_details()[ASKED].astype(object)
    rows = frame.where(frame.notna(), None).itertuples(index=False, name=None)
    return sorted(rows, key=repr)


@pytest.mark.skipif(not real_traces(), reason="the real captures are not beside the project")
@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_real_captures_equal_the_slow_reference(path: Path) -> None:
    assert fast(path) == slow(path)
    details = load_trace(path).kernel_details()
    linked = details["launch"].notna()
    assert (details["queue_ns"] + details["latency_ns"] == details["launch_delay_ns"])[linked].all()
    assert details.loc[~linked, ["launch_delay_ns", "operator_event"]].isna().all(axis=None)


def test_a_kernel_knows_its_operators_its_modules_and_what_it_waited_for(tmp_path: Path) -> None:
    """us: the launch of the second kernel returns at 14; the first kernel runs until 40; the second starts at 43."""
    trace = TraceBuilder()
    trace.operator("aten::linear", 0, 30)
    trace.operator("aten::addmm", 5, 20)
    trace.span("python_function", "nn.Module: Block_0", 0, 100)
    trace.span("python_function", "nn.Module: Linear_3", 1, 40)
    trace.span("python_function", "forward.py(12): forward", 2, 30)
    trace.launch(1, 6, dur=3)
    trace.kernel(1, 20, 20)
    trace.launch(2, 12, dur=2)
    trace.kernel(2, 43, 5)
    trace.launch(3, 50, dur=10)
    trace.kernel(3, 55, 5)  # begins before its launch call returns
    trace.kernel(None, 70, 1)
    details = load_trace(trace.write(tmp_path / "t.json")).kernel_details()
    assert (
        list(details) == list(KERNEL_DETAILS.columns)
        and list(GPU_EVENTS.columns) == list(details)[: len(GPU_EVENTS.columns)]
    )
    assert (
        details[["operator", "outer_operator", "module"]].astype(object).iloc[:2].values.tolist()
        == [["aten::addmm", "aten::linear", "Linear_3"]] * 2
    )
    assert details["modules"].tolist() == [("Block_0", "Linear_3")] * 2 + [("Block_0",), ()]
    assert details["operator"].isna().tolist() == [False, False, True, True]
    missing = pd.NA
    expected = {
        "since_launch_ns": [14_000, 31_000, 5_000, missing],
        "launch_delay_ns": [11_000, 29_000, 0, missing],
        "queue_ns": [0, 26_000, 0, missing],
        "latency_ns": [11_000, 3_000, 0, missing],
        "previous_end_ns": [missing, 40_000, 48_000, 60_000],
    }
    for column, values in expected.items():
        pd.testing.assert_series_equal(details[column], pd.Series(values, dtype="Int64", name=column))


def test_a_trace_without_gpu_events_has_no_details(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("aten::linear", 0, 30)
    details = load_trace(trace.write(tmp_path / "t.json")).kernel_details()
    assert details.empty and list(details) == list(KERNEL_DETAILS.columns)


def test_an_event_without_a_stream_has_waited_behind_nothing_known(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.launch(1, 0)
    trace.span("kernel", "gemm", 10, 5, "?", correlation=1)
    details = load_trace(trace.write(tmp_path / "t.json")).kernel_details()
    assert details["launch_delay_ns"].tolist() == [9_000]
    assert details[["queue_ns", "latency_ns", "previous_end_ns"]].isna().all(axis=None)


spans = st.tuples(st.integers(0, 60), st.integers(1, 40), st.integers(1, 2), st.sampled_from("abc"))
launches = st.tuples(
    st.integers(0, 80), st.integers(1, 2), st.integers(0, 120), st.integers(0, 2), st.integers(1, 2), st.integers(0, 1)
)  # kernels so short that none is held to be impossible


@settings(max_examples=150)
@given(
    st.lists(spans, max_size=10),
    st.lists(spans, max_size=6),
    st.lists(launches, min_size=1, max_size=12),
    st.randoms(use_true_random=False),
)
def test_random_traces_equal_the_slow_reference_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, operators: list, modules: list, calls: list, order: random.Random
) -> None:
    trace = TraceBuilder()
    for number, (start, dur, tid, name) in enumerate(operators):
        trace.operator(name, start, dur, tid, **{"External id": number})
    for start, dur, tid, name in modules:
        trace.span("python_function", f"nn.Module: {name}", start, dur, tid)
    for correlation, (at, tid, start, dur, stream, device) in enumerate(calls):
        if correlation % 4:
            trace.launch(correlation, at, tid)
        trace.kernel(correlation, 10 + start, dur, stream=stream, device=device)
    path = tmp_path_factory.mktemp("t") / "t.json"
    expected = slow(trace.number().write(path))
    assert fast(path) == expected
    order.shuffle(trace.events)
    assert fast(trace.write(path)) == expected


SPAN = st.tuples(st.integers(0, 12), st.integers(0, 12), st.integers(1, 2))


@given(spans=st.lists(SPAN, min_size=1, max_size=12))
def test_own_times_add_up_to_the_time_in_operators_where_these_only_overlap(
    spans: list[tuple[int, int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    trace = TraceBuilder()
    for number, (start, dur, tid) in enumerate(spans):
        trace.operator(f"op{number}", start, dur, tid)
    found = load_trace(trace.number().write(tmp_path_factory.mktemp("own") / "t.json")).operators()
    own: dict[str, int] = {f"op{number}": 0 for number in range(len(spans))}
    for tid in (1, 2):
        for moment in range(24):
            # of those open then the one that began last; of these the shortest, then the last of the file
            inside = [
                (start, -dur, number)
                for number, (start, dur, thread) in enumerate(spans)
                if thread == tid and start <= moment < start + dur
            ]
            if inside:
                own[f"op{max(inside)[2]}"] += 1000
    assert dict(zip(found["name"].astype(str), found["self_ns"].tolist(), strict=True)) == own
