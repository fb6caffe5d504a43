"""Traces that other programs, or older ones, wrote; and spans written as a begin and an end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from profiler_kit import Trace, load_trace
from profiler_kit.findings.doctor import examine
from profiler_kit.findings.quality import flaws, losses, of_flaw
from profiler_kit.findings.time import FORMS, missing_gpu
from profiler_kit.load.trace.dialect import translated
from profiler_kit.load.trace.event_text import scan
from profiler_kit.load.trace.file_facts import read_file_facts
from tests.readers import READERS, reader

CASES = Path(__file__).parents[1] / "cases" / "traces"


def said(trace: Trace) -> list[str]:
    """What doctor says of the file."""
    return [of_flaw(flaw).sentence for flaw in flaws(trace, read_file_facts(trace.path))]


def roles(trace: Trace) -> dict[tuple[str, str], str]:
    found = examine(trace.path, None, trace, read_file_facts(trace.path))
    return {(row["category"], row["phase"]): row["role"] for row in found["categories"]}


def write(path: Path, *events: dict[str, Any]) -> Trace:
    path.write_text(json.dumps(list(events)), encoding="utf-8")
    return load_trace(path)


def span(name: str, start: float, dur: float, **more: Any) -> dict[str, Any]:
    return {"ph": "X", "name": name, "pid": 1, "tid": 1, "ts": start, "dur": dur, **more}


def half(phase: str, start: float, **more: Any) -> dict[str, Any]:
    return {"ph": phase, "pid": 1, "tid": 1, "ts": start, **more}


def test_ascend_work_is_read_from_its_device_process() -> None:
    trace = load_trace(CASES / "ascend_trace_view.json")
    kernels = trace.kernels().set_index("name")
    assert kernels["sum_ns"].to_dict() == {"MatMulV2": 150_500, "hcom_allReduce_": 80_000}
    timeline = trace.summary()["gpu_timeline"]
    assert (timeline["busy_ns"], timeline["total_ns"]) == (230_500, 240_000)
    assert trace.regions()["path"].tolist()[0] == ("ProfilerStep",)
    assert trace.region_instances()["step"].tolist() == [5]
    assert trace.operators()["name"].tolist() == ["aten::mm"]
    event = trace.columns.integers["external_id"][trace.gpu_events()["event"].to_numpy()]
    assert event[0] == trace.columns.integers["external_id"][trace.operators()["event"].iloc[0]]  # by its arrow
    assert "1 of 5 spans have no category and are not read (in 'Python')." in said(trace)
    assert roles(trace)["async_npu", "s"] == "flow"


def test_ascend_waits_and_summaries_are_no_work(tmp_path: Path) -> None:
    names = {1: "Python", 2: "Ascend Hardware", 3: "Overlap Analysis"}
    head = [{"ph": "M", "name": "process_name", "pid": pid, "args": {"name": name}} for pid, name in names.items()]
    trace = write(
        tmp_path / "trace_view.json",
        *(
            span(name, at, 10, pid=2, tid=2)
            for at, name in enumerate(("EVENT_WAIT", "MEMCPY_ASYNC", "Add", "Notify_Wait"))
        ),
        span("Computing", 0, 30, pid=3),
        *head,  # after the events
    )
    assert trace.gpu_events()["name"].tolist() == ["MEMCPY_ASYNC", "Add"]
    assert trace.gpu_events()["category"].tolist() == ["gpu_memcpy", "kernel"]
    assert "1 of 5 spans have no category and are not read (in 'Overlap Analysis')." in said(trace)


def test_the_legacy_autograd_export_has_operators_and_kernels() -> None:
    trace = load_trace(CASES / "legacy_autograd.json")
    operators = trace.operators()
    assert (set(operators["name"]), len(operators), operators["dur_ns"].sum()) == ({"aten::mm"}, 3, 120_000)
    kernels = trace.kernels()
    assert kernels[["name", "count", "sum_ns", "device"]].to_numpy().tolist() == [["volta_sgemm", 3, 300_000, 0]]
    timeline = trace.summary()["gpu_timeline"]
    assert (timeline["busy_ns"], timeline["total_ns"]) == (300_000, 300_000)
    external = trace.columns.integers["external_id"]
    assert external[operators["event"].to_numpy()].tolist() == external[trace.gpu_events()["event"].to_numpy()].tolist()
    assert roles(trace) == {("", "X"): "by process", ("cpu_to_cuda", "s"): "flow", ("cpu_to_cuda", "f"): "flow"}
    again = translated(trace.columns)
    assert again.category.tolist() == trace.columns.category.tolist()
    assert again.integers["external_id"].tolist() == external.tolist()


@pytest.mark.parametrize(
    ("arrow", "host", "device", "kernel"),
    [
        ("cpu_to_cuda", "CPU functions", "CUDA functions", "ncclKernel_AllReduce_RING_LL_Sum_float(ncclWorkElem)"),
        ("async_npu", 1, 2, "hcom_allReduce_"),
    ],
)
def test_an_arrow_joins_a_collective_with_its_operator_too(
    arrow: str, host: int | str, device: int | str, kernel: str, tmp_path: Path
) -> None:
    operator = span("c10d::allreduce_", 10, 20, pid=host, tid=1) | {"cat": "" if host != 1 else "cpu_op"}
    place = {"cat": arrow, "name": arrow, "id": 7}
    trace = write(
        tmp_path / "t.json",
        {"ph": "M", "name": "process_name", "pid": device, "args": {"name": "Ascend Hardware"}},
        operator,
        {"ph": "s", "pid": host, "tid": 1, "ts": 10, **place},
        {"ph": "f", "pid": device, "tid": 3, "ts": 100, "bp": "e", **place},
        span(kernel, 100, 50, pid=device, tid=3),
    )
    assert trace.kernel_details()["operator"].tolist() == ["c10d::allreduce_"]
    assert trace.quality.unlinked_gpu_events == 0
    assert trace.communication()["sum_ns"].tolist() == [50_000]


def test_traces_of_torch_1_8_have_steps_operators_and_shapes() -> None:
    trace = load_trace(CASES / "torch18_steps.json")
    assert trace.region_instances()["step"].tolist() == [10, 11]
    row = trace.regions().set_index("path").loc[[("ProfilerStep",)]]
    assert row[["instances", "gpu_events", "sum_ns"]].to_numpy().tolist() == [[2, 2, 600_000]]
    work = trace.operator_work()
    assert work[["name", "calls", "gpu_events", "gpu_ns"]].to_numpy().tolist() == [["aten::conv2d", 2, 2, 600_000]]
    assert trace.shape_work()["input_dims"].tolist() == ["[[1,3,8,8],[8,3,3,3]]"]
    assert len(trace.linked_gpu_events()) == 2
    assert roles(trace)["ac2g", "s"] == "flow"
    assert not any("unknown" in sentence for sentence in said(trace))


def test_a_launch_without_an_id_goes_with_the_others_of_its_thread(tmp_path: Path) -> None:
    launch = {"cat": "Runtime", "tid": "999"}
    kernel = {"cat": "Kernel", "pid": 0, "tid": "stream 7"}
    trace = write(
        tmp_path / "old.json",
        span("ProfilerStep#1", 0, 100, cat="Operator", args={"External id": 1}),
        span("aten::mm", 10, 20, cat="Operator", args={"External id": 2}),
        span("cudaLaunchKernel", 15, 2, **launch, args={"correlation": 1, "external id": 2}),
        span("cudaMemcpyAsync", 50, 2, **launch, args={"correlation": 2, "external id": 0}),
        span("k", 60, 5, **kernel, args={"correlation": 1, "stream": 7, "device": 0, "external id": 2}),
        span("Memcpy HtoD", 70, 5, **{**kernel, "cat": "Memcpy"}, args={"correlation": 2, "stream": 7, "device": 0}),
    )
    assert trace.gpu_events()["path"].tolist() == [("ProfilerStep",), ("ProfilerStep",)]
    assert trace.kernel_details()["operator"].astype(object).fillna("").tolist() == ["aten::mm", ""]


def test_the_spans_of_jax_are_named_and_not_called_no_gpu(tmp_path: Path) -> None:
    head = [{"ph": "M", "name": "process_name", "pid": 1, "args": {"name": "/device:GPU:0"}}]
    trace = write(tmp_path / "jax.json", *head, span("fusion", 0, 10), span("fusion", 20, 10))
    assert missing_gpu(trace.presence).sentence == (
        "This is a trace of TensorFlow or JAX (XLA). No GPU events were recognised in it, only 2 spans of an "
        "unknown category "
        "(in '/device:GPU:0'), which are not analysed."
    )
    assert "2 of 2 spans have no category and are not read (in '/device:GPU:0')." in said(trace)


def test_a_browsers_trace_is_not_called_no_gpu(tmp_path: Path) -> None:
    trace = write(tmp_path / "chrome.json", span("RunTask", 0, 10, cat="toplevel"))
    assert trace.presence.ran == "not read"
    host = write(tmp_path / "host.json", span("aten::mm", 0, 10, cat="cpu_op"))
    assert missing_gpu(host.presence).sentence == "No GPU in this run."


def test_begins_and_ends_are_spans() -> None:
    trace = load_trace(CASES / "begin_end_mixed.json")
    assert trace.regions()[["path", "instances", "gpu_events", "sum_ns", "host_ns"]].to_numpy().tolist() == [
        [("encoder",), 1, 1, 100_000, 500_000]
    ]
    assert roles(trace)["user_annotation", "B"] == "region"
    assert trace.quality.dropped_events == 0


def test_begins_and_ends_match_by_thread_and_name(tmp_path: Path) -> None:
    region = {"cat": "user_annotation"}
    trace = write(
        tmp_path / "halves.json",
        half("B", 0, name="outer", **region),
        half("B", 1, name="inner", **region),
        half("B", 1, name="elsewhere", **region, tid=2),
        half("E", 2.5),  # the last one opened on its thread
        half("B", 3, name="late category"),
        half("E", 4, name="late category", **region),
        half("B", 5, name="one", **region),
        half("B", 6, name="two", **region),
        half("E", 8, name="one"),
        half("E", 9, name="two"),
        half("E", 20.001, name="outer"),
        half("B", 21, name="never ends", **region),
        half("E", 22, name="never began"),
        half("E", 7, tid=2, name="elsewhere"),  # the file is not sorted
    )
    found = trace.region_instances()
    rows = zip(found["name"], found["start_ns"], found["end_ns"] - found["start_ns"], strict=True)
    assert set(rows) == {
        ("outer", 0, 20_001),
        ("inner", 1000, 1500),
        ("elsewhere", 1000, 6000),
        ("late category", 3000, 1000),
        ("one", 5000, 3000),
        ("two", 6000, 3000),
    }
    assert (trace.quality.dropped_events, trace.unmatched_events) == (2, 2)
    assert "Span begins without an end, or span ends without a begin: 2." in said(trace)
    assert trace.findings()


@pytest.mark.parametrize("name", READERS)
def test_of_begins_and_ends_at_the_same_times_the_first_begin_is_the_outer_one(name: str, tmp_path: Path) -> None:
    region = {"cat": "user_annotation"}
    begins = [half("B", 0, name=one, **region) for one in ("outer", "middle", "inner")]
    ends = [half("E", 9, name=one, **region) for one in ("inner", "middle", "outer")]
    with reader(name):
        trace = write(tmp_path / "halves.json", *begins, *ends)
        assert trace.regions()["path"].tolist() == [("outer",), ("outer", "middle"), ("outer", "middle", "inner")]


@pytest.mark.parametrize("name", READERS)
def test_asynchronous_spans_of_gpu_work_are_read_by_their_id(name: str, tmp_path: Path) -> None:
    """Two kernels at once on one thread, which B and E could not tell apart; the host's own are of no thread."""
    kernel = {"cat": "kernel", "name": "gemm"}
    events = (
        half("b", 0, id=1, **kernel, args={"device": 0, "stream": 7}),
        half("b", 1, id="0x2", **kernel, args={"device": 0, "stream": 8}),
        half("e", 4, id=1, **kernel),
        half("e", 9, id="0x2", cat="kernel"),
        half("b", 9, id=3, **kernel),
        half("b", 1, id=4, name="aten::mm", cat="cpu_op"),
        half("e", 2, id=4, name="aten::mm", cat="cpu_op"),
        half("b", 3, id2={"local": "0x1"}, **kernel),
        half("e", 6, **kernel),
    )
    with reader(name):
        trace = write(tmp_path / "async.json", *events)
        kernels = trace.kernels()[["stream", "sum_ns"]].to_numpy().tolist()
        assert kernels == [[8, 8000], [7, 4000]]
        assert (trace.quality.dropped_events, trace.unmatched_events, trace.summary()["events"]) == (3, 3, 9)
        assert roles(trace)["kernel", "b"] == "gpu" and roles(trace)["cpu_op", "b"] == "ignored"
    assert len(scan(tmp_path / "async.json").spans.number) == 2


@pytest.mark.parametrize("name", READERS)
def test_a_device_or_stream_of_minus_one_is_none(name: str, tmp_path: Path) -> None:
    args = [{"device": -1, "stream": 7}, {"device": 0, "stream": -1}, {"device": 0, "stream": 0}]
    with reader(name):
        trace = write(
            tmp_path / "none.json",
            *(span("gemm", at, 1, cat="kernel", pid=-1, tid=-1, args=one) for at, one in enumerate(args)),
        )
        where = trace.gpu_events()[["device", "stream"]].astype(object).fillna("none").to_numpy().tolist()
    assert where == [["none", 7], [0, "none"], [0, 0]]


def test_an_end_adds_its_arguments(tmp_path: Path) -> None:
    trace = write(
        tmp_path / "args.json",
        half("B", 0, name="cudaLaunchKernel", cat="cuda_runtime", args={"correlation": 3}),
        half("E", 2, args={"External id": 8}),
        half("E", 3),
    )
    assert trace.launch_calls()["correlation"].tolist() == [3]
    assert trace.columns.integers["external_id"].tolist() == [8]
    assert trace.unmatched_events == 1


def test_asynchronous_spans_are_said_to_be_ignored(tmp_path: Path) -> None:
    spans = [half(phase, at, name="request", cat="user_annotation", id=1) for phase, at in (("b", 0), ("e", 9))]
    trace = write(tmp_path / "async.json", *spans, span("aten::mm", 0, 10, cat="cpu_op"))
    assert roles(trace)["user_annotation", "b"] == "ignored"
    assert trace.region_instances().empty


@pytest.mark.parametrize("indent", [None, 1])
def test_shapes_are_one_key_however_they_are_written(tmp_path: Path, indent: int | None) -> None:
    trace = load_trace(CASES / "odd_shapes.json")
    events = json.loads((CASES / "odd_shapes.json").read_text(encoding="utf-8"))["traceEvents"]
    path = tmp_path / "t.json"
    path.write_text(json.dumps(events, indent=indent), encoding="utf-8")
    for one in (trace, load_trace(path, arguments=["input_dims"])):
        rows = one.table("shape_work").records()
        assert [(row["input_dims"], row["calls"]) for row in rows] == [
            ([[2, 3]], 2),
            ([[[2, 3], [4, 3]], []], 1),
            ([None, [None, 3]], 1),
        ]
        assert one.shape_work()["input_dims"].tolist() == ["[[2,3]]", "[[[2,3],[4,3]],[]]", "[null,[null,3]]"]


@pytest.mark.parametrize(
    ("categories", "form"),
    [
        (("Operator", "CudaRuntime", "Kernel"), "Paddle"),
        (("Session", "Node", "Kernel"), "ONNX Runtime"),
        (("Operator", "Runtime", "Kernel"), "Kineto as in torch 1.8 to 1.12"),
    ],
)
def test_who_else_calls_kernels_kernel_is_named(categories: tuple[str, ...], form: str, tmp_path: Path) -> None:
    events = [span(f"a {at}", 10 * at, 5, cat=category) for at, category in enumerate(categories)]
    trace = write(tmp_path / "t.json", *(event | {"args": {"stream": 7}} for event in events))
    assert FORMS[trace.columns.form] == form
    assert trace.kernels()["sum_ns"].tolist() == [5_000]


def test_work_on_a_stream_that_no_sum_has_is_said_beside_every_number(tmp_path: Path) -> None:
    kernel = span("gemm", 0, 5, cat="kernel", args={"stream": 7, "device": 0})
    copies = [span("copy", 10 * at, 5, cat="foo_memcpy", args={"stream": 7}) for at in (1, 2)]
    elsewhere = span("waiting", 40, 5, cat="bar")
    trace = write(tmp_path / "t.json", kernel, *copies, elsewhere)
    assert losses(trace)[0].sentence == "Events of unknown categories: 2 ('foo_memcpy')."
    assert "unknown categories" not in " ".join(one.sentence for one in losses(write(tmp_path / "u.json", kernel)))


@pytest.mark.parametrize(("begins", "ends"), [(16, "0x10"), ("0x10", "16"), ("0x1F", "0x1f"), ("a", "a")])
def test_an_asynchronous_id_is_one_however_it_is_written(tmp_path: Path, begins: int | str, ends: int | str) -> None:
    work = {"cat": "kernel", "name": "k", "pid": 0, "tid": 7}
    begin = {**work, "ph": "b", "ts": 5, "id": begins, "args": {"stream": 7}}
    trace = write(tmp_path / "t.json", begin, {**work, "ph": "e", "ts": 9, "id": ends})
    assert trace.gpu_events()["dur_ns"].tolist() == [4000]
    assert trace.unmatched_events == 0
