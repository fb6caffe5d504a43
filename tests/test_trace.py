"""Attribution against the slow reference, on every real capture, on random traces, and on traces checked by hand."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit.findings.quality import losses
from profiler_kit.load.integers import MISSING
from profiler_kit.trace import Trace, load_trace
from tests.builders import SHARED, TraceBuilder, real_traces
from tests.reference import attribute, host_rows, region_rows, union_ns

GOLDEN = Path(__file__).parent / "golden"
CASES = Path(__file__).parent / "cases" / "traces"


def compare(path: Path) -> Trace:
    """Every GPU event has the reference's path, and every total is the reference's."""
    trace, attributed = load_trace(path), attribute(path)
    events = trace.gpu_events()
    mine = sorted(
        zip(events["start_ns"], events["dur_ns"], events["stream"].astype(object), events["path"], strict=True),
        key=repr,
    )
    theirs = sorted(
        ((e["start"], e["end"] - e["start"], e["args"].get("stream"), path) for e, path in attributed), key=repr
    )
    if all(isinstance(row[2], int) for row in theirs):
        assert mine == theirs
    totals = trace.regions().set_index("path")
    expected = region_rows(attributed)
    found = {
        key: {"sum": row.sum_ns, "self": row.self_sum_ns, "count": row.gpu_events, "busy": row.busy_ns}
        for key, row in zip(totals.index, totals.itertuples(), strict=True)
        if row.gpu_events
    }
    assert found == expected
    conserved(trace)
    return trace


def conserved(trace: Trace) -> None:
    """Sums close and busy stays within sum."""
    events, regions, kernels = trace.gpu_events(), trace.regions(), trace.kernels()
    assert regions["self_sum_ns"].sum() == events["dur_ns"].sum() == kernels["sum_ns"].sum()
    assert kernels["count"].sum() == len(events)
    assert (regions["busy_ns"] <= regions["sum_ns"]).all()
    assert (regions["span_ns"] >= 0).all() and (regions["host_ns"] >= 0).all()
    timeline = trace.summary()["gpu_timeline"]
    parts = timeline["computation_ns"] + timeline["exposed_communication_ns"] + timeline["exposed_memcpy_ns"]
    assert timeline["busy_ns"] == parts
    assert timeline["busy_ns"] + timeline["idle_ns"] == timeline["total_ns"]
    operators = trace.operators()
    assert (operators["self_ns"] >= 0).all()
    spans = operators.assign(end_ns=operators["start_ns"] + operators["dur_ns"]).groupby("thread")
    within = sum(union_ns(list(zip(one["start_ns"], one["end_ns"], strict=True))) for _, one in spans)
    assert operators["self_ns"].sum() == within


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.json.gz")), ids=lambda path: path.name)
def test_golden_captures_equal_the_slow_reference(path: Path) -> None:
    compare(path)


@pytest.mark.skipif(not real_traces(), reason="the real captures are not beside the project")
@pytest.mark.parametrize("path", real_traces(), ids=lambda path: f"{path.parent.name}-{path.name}")
def test_real_captures_equal_the_slow_reference(path: Path) -> None:
    compare(path)


def test_the_hand_checkable_capture_gives_what_a_person_computes() -> None:
    """streams_graph: two kernels launched under `overlap` run at once on streams 14 and 18.

    Durations read off the file (us): stream one 1012.151; stream two 506.875 + 505.531. Stream one runs from
    3549.482 to 4561.633, stream two from 3694.793 to 4201.668 and from 4204.356 to 4709.887, so together they
    cover 3549.482 to 4709.887 = 1160.405.
    """
    regions = load_trace(GOLDEN / "streams_graph.json.gz").regions().set_index("path")
    one, two = regions.loc[[("outer", "overlap", "stream one")]], regions.loc[[("outer", "overlap", "stream two")]]
    assert one["sum_ns"].item() == 1_012_151
    assert two["sum_ns"].item() == 506_875 + 505_531
    assert two["span_ns"].item() == 4_709_887 - 3_694_793
    overlap = regions.loc[[("outer", "overlap")]]
    assert overlap["sum_ns"].item() == 1_012_151 + 506_875 + 505_531
    assert overlap["busy_ns"].item() == 1_160_405
    assert overlap["self_sum_ns"].item() == 0
    # the kernel of `async tail` ran after the region had closed; six kernels of two graph launches follow
    assert regions.loc[[("outer", "async tail")], "gpu_events"].item() == 1
    assert regions.loc[[("graph replay",)], ["gpu_events", "launches"]].to_numpy().tolist() == [[6, 2]]
    assert "(no region)" not in {path[0] for path in regions.index}


def test_a_kernel_belongs_to_the_regions_open_at_its_launch(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("outer", 0, 100)
    trace.region("inner", 10, 20)
    trace.launch(1, 15)
    trace.kernel(1, 500, 7)  # long after both regions closed
    trace.launch(2, 30)  # at inner's end: inner is closed
    trace.kernel(2, 510, 5)
    trace.launch(3, 100)  # at outer's end
    trace.kernel(3, 520, 3)
    trace.kernel(99, 530, 2)  # no such launch
    rows = load_trace(trace.write(tmp_path / "t.json")).regions()
    assert rows[
        ["path", "instances", "gpu_events", "sum_ns", "busy_ns", "span_ns", "self_sum_ns", "host_ns", "launches"]
    ].values.tolist() == [
        [("outer",), 1, 2, 12_000, 12_000, 15_000, 5_000, 100_000, 2],
        [("outer", "inner"), 1, 1, 7_000, 7_000, 7_000, 7_000, 20_000, 1],
        [("(no region)",), 0, 1, 3_000, 3_000, 0, 3_000, 0, 1],
        [("(unlinked)",), 0, 1, 2_000, 2_000, 0, 2_000, 0, 0],
    ]


def test_steps_count_as_one_region(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for step in range(3):
        trace.region(f"ProfilerStep#{step}", 100 * step, 90)
        trace.launch(step + 1, 100 * step + 5)
        trace.kernel(step + 1, 100 * step + 20, 10)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert loaded.regions()["path"].tolist() == [("ProfilerStep",)]
    assert loaded.regions()["instances"].tolist() == [3]
    assert loaded.region_instances()["step"].tolist() == [0, 1, 2]
    assert loaded.regions()["span_ns"].tolist() == [30_000]


def test_the_backward_thread_nests_below_the_thread_that_called_backward(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("ProfilerStep#0", 0, 1000)
    trace.region("forward", 10, 100)
    trace.operator("aten::linear", 20, 50, **{"Sequence number": 5, "Fwd thread id": 0})
    trace.region("backward", 200, 500)
    trace.operator(
        "autograd::engine::evaluate_function: AddmmBackward0", 300, 50, 2, **{"Sequence number": 5, "Fwd thread id": 1}
    )
    trace.launch(1, 310, tid=2)
    trace.kernel(1, 320, 10)
    trace.region("nccl:all_reduce", 360, 20, tid=2)
    trace.launch(2, 365, tid=2)
    trace.kernel(2, 370, 20, name="ncclDevKernel_AllReduce")
    trace.region("worker", 300, 100, tid=3)  # another thread stands for itself
    trace.launch(3, 310, tid=3)
    trace.kernel(3, 400, 5)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    events = loaded.gpu_events()
    assert events["path"].tolist() == [
        ("ProfilerStep", "backward"),
        ("ProfilerStep", "backward", "nccl:all_reduce"),
        ("worker",),
    ]
    assert events["forward_path"].tolist() == [("ProfilerStep", "forward"), (), ()]
    assert loaded.summary()["gpu_timeline"]["communication_ns"] == 20_000


def test_regions_that_overlap_without_nesting_name_only_what_is_open(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("a", 0, 50)
    trace.region("b", 40, 50)  # begins in a, outlives it
    trace.region("c", 45, 40)  # the same, inside b
    for correlation, at in enumerate((42, 47, 60, 87), start=1):
        trace.launch(correlation, at)
        trace.kernel(correlation, 100 + 10 * correlation, 1)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert loaded.gpu_events()["path"].tolist() == [("a", "b"), ("a", "b", "c"), ("b", "c"), ("b",)]
    assert loaded.region_instances()["path"].tolist() == [("a",), ("a", "b"), ("a", "b", "c")]
    conserved(loaded)


@pytest.mark.parametrize(("regions", "budget"), [(1500, 20_000_000), (1500, 3000)])
def test_many_overlapping_regions_name_only_what_is_open(
    regions: int, budget: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asynchronous serving: 8 to 12 regions open at once on one thread; also when the budget runs out."""
    monkeypatch.setattr("profiler_kit.attribute.regions._BUDGET", budget)
    trace = TraceBuilder()
    for number in range(regions):
        trace.region(f"r{number % 10}", number, 7.3 + number % 5)
        trace.launch(number, number + 0.5)
        trace.kernel(number, 2 * number, 1)
    path = trace.write(tmp_path / "t.json")
    loaded = (compare if budget > regions * 100 else load_trace)(path)
    if budget > regions * 100:
        assert losses(loaded) == []
    else:
        assert losses(loaded)[0].sentence.startswith("Regions that overlap in a way that cannot be resolved: ")
        names = dict(zip(loaded.gpu_events()["start_ns"], loaded.gpu_events()["path"], strict=True))
        for event, full in attribute(path):
            opened = iter(full)
            mine = names[event["start"]]
            assert mine == ("(no region)",) or all(name in opened for name in mine)  # nothing that is not open
    conserved(loaded)


spans = st.tuples(st.integers(0, 60), st.integers(0, 40), st.integers(1, 3), st.sampled_from("abc"))
launches = st.tuples(st.integers(0, 100), st.integers(1, 3), st.integers(0, 100), st.integers(0, 30), st.integers(0, 1))


@settings(max_examples=150)
@given(st.lists(spans, max_size=12), st.lists(launches, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_random_traces_equal_the_slow_reference_in_any_order(
    tmp_path_factory: pytest.TempPathFactory, regions: list, calls: list, order: random.Random
) -> None:
    trace = TraceBuilder()
    for start, dur, tid, name in regions:
        trace.region(name, start, dur, tid)
    for correlation, (at, tid, start, dur, device) in enumerate(calls):
        if correlation % 5:
            trace.launch(correlation, at, tid)
        trace.kernel(correlation, start, dur, device=device)
    path = tmp_path_factory.mktemp("t") / "t.json"
    before = compare(trace.number().write(path)).regions()
    order.shuffle(trace.events)
    after = load_trace(trace.write(path)).regions()
    assert before.to_dict("records") == after.to_dict("records")


straddling = st.tuples(
    st.integers(0, 40), st.integers(0, 30), st.sampled_from(["ProfilerStep#1", "ProfilerStep#2", "a", "b", "c", "d"])
)


@settings(max_examples=150)
@given(st.lists(straddling, min_size=2, max_size=14), st.lists(st.integers(0, 70), max_size=8))
def test_a_row_holds_instances_events_and_host_time_of_the_same_regions(
    tmp_path_factory: pytest.TempPathFactory, regions: list, calls: list
) -> None:
    trace = TraceBuilder()
    for start, dur, name in regions:
        trace.region(name, start, dur)
    for correlation, at in enumerate(calls):
        trace.launch(correlation, at)
        trace.kernel(correlation, 100 + 10 * correlation, 3)
    path = trace.write(tmp_path_factory.mktemp("t") / "t.json")
    rows = (compare if calls else load_trace)(path).regions()
    found = {
        tuple(row.path): (row.instances, row.host_ns)
        for row in rows.itertuples()
        if row.path not in (("(no region)",), ("(unlinked)",))
    }
    assert found == host_rows(path)
    assert rows["host_ns"].sum() == sum(dur for _, dur, _ in regions) * 1000  # no time is lost, none counts twice
    assert (rows["instances"] > 0).equals(~rows["path"].isin([("(no region)",), ("(unlinked)",)]))


def test_steps_that_training_batches_straddle_are_one_row() -> None:
    """Lightning's batches begin in one step and end in the next; a kernel counts in every region open at its launch."""
    trace = load_trace(CASES / "lightning_intersecting.json")
    step, batch = ("ProfilerStep",), "[pl][profile]run_training_batch"
    rows = trace.regions().set_index("path")[["instances", "gpu_events", "host_ns", "span_ns"]]
    assert {path: tuple(row) for path, row in zip(rows.index, rows.to_numpy().tolist(), strict=True)} == {
        step: (4, 12, 4_000_000, 3_240_000),
        (*step, batch): (4, 11, 3_700_000, 2_240_000),
        (batch,): (1, 0, 300_000, 0),  # the last batch ends after the last step
    }
    assert trace.kernels(region="ProfilerStep")["count"].sum() == 12
    assert trace.kernels(region=batch)["count"].sum() == 11
    used = trace.utilization().set_index("path")
    assert used["instances"].to_dict() == rows["instances"].to_dict()
    assert used["gpu_events"].to_dict() == rows["gpu_events"].to_dict()
    assert trace.region_instances()["name"].value_counts().to_dict() == {"ProfilerStep": 4, batch: 4}


def test_of_two_names_that_straddle_the_one_opened_first_stays_outside(tmp_path: Path) -> None:
    """An epoch that begins within a step and holds later ones; an inner region keeps its place in it."""
    trace = TraceBuilder()
    for number in range(3):
        trace.region(f"ProfilerStep#{number}", 100 * number, 100)
    trace.region("epoch", 50, 200)
    trace.region("forward", 60, 20)  # in the epoch, in step 0
    trace.region("load", 300, 40)
    trace.region("train", 320, 40)  # begins in load, outlives it
    trace.region("train", 380, 40)
    trace.region("load", 400, 40)  # begins in train, outlives it: load was opened first
    for correlation, at in enumerate((70, 150, 220, 280, 330, 350, 410, 430)):
        trace.launch(correlation, at)
        trace.kernel(correlation, 1000 + 10 * correlation, 1)
    path = trace.write(tmp_path / "t.json")
    loaded = compare(path)
    assert loaded.gpu_events()["path"].tolist() == [
        ("ProfilerStep", "epoch", "forward"),
        ("ProfilerStep", "epoch"),
        ("ProfilerStep", "epoch"),
        ("ProfilerStep",),
        ("load", "train"),
        ("train",),
        ("load", "train"),
        ("load",),
    ]
    rows = loaded.regions().set_index("path")
    assert rows["instances"].to_dict() == {
        ("ProfilerStep",): 3,
        ("ProfilerStep", "epoch"): 1,
        ("ProfilerStep", "epoch", "forward"): 1,
        ("load",): 2,
        ("load", "train"): 2,
        ("train",): 2,
    }
    assert rows.loc[[("ProfilerStep",)], "host_ns"].item() == 300_000
    assert rows.loc[[("train",)], "host_ns"].item() == 40_000


def test_huge_time_ranges_do_not_overflow(tmp_path: Path) -> None:
    """An old file with absolute times and one event at 0: threads x range would not fit 64 bits."""
    trace = TraceBuilder()
    late = 1_700_000_000_000_000
    for tid in range(1, 12):
        trace.region(f"r{tid}", late, 10, tid)
        trace.launch(tid, late + 1, tid)
        trace.kernel(tid, late + 20 * tid, 3)
    trace.region("early", 0, 1, 1)
    compare(trace.write(tmp_path / "t.json"))


@pytest.mark.skipif(not SHARED.joinpath("peers").is_dir(), reason="other projects' results are not beside the project")
@pytest.mark.parametrize("folder", sorted(SHARED.glob("peers/tracelens/*/*")), ids=lambda path: path.name)
def test_the_timeline_and_the_kernels_equal_tracelens(folder: Path) -> None:
    """gpu_timeline.csv keeps only linked events; kernel_summary.csv keeps all kernels, by name and stream.

    TraceLens adds up floats of some 4e12 us, whose last bit is 1 ns: each event may be off by that.
    """
    trace = load_trace(folder / "trace.json.gz")
    ours = trace.summary(linked_only=True)["gpu_timeline"]
    ours_events = len(trace.linked_gpu_events())
    theirs = pd.read_csv(folder / "gpu_timeline.csv").set_index("type")["time ms"]
    pairs = {
        "computation_time": "computation_ns",
        "exposed_comm_time": "exposed_communication_ns",
        "exposed_memcpy_time": "exposed_memcpy_ns",
        "busy_time": "busy_ns",
        "idle_time": "idle_ns",
        "total_time": "total_ns",
        "total_comm_time": "communication_ns",
        "total_memcpy_time": "memcpy_ns",
    }
    for their_name, our_name in pairs.items():
        assert ours[our_name] / 1e6 == pytest.approx(theirs[their_name], rel=1e-6, abs=1e-6 * max(1, ours_events))  # type: ignore[literal-required]
    summary = pd.read_csv(folder / "kernel_summary.csv")
    column = "Kernel duration (µs)_sum"
    wanted = summary.groupby(["Kernel name", "Kernel stream"])[[column, "Kernel duration (µs)_count"]].sum()
    kernels = trace.kernels()
    kernels = kernels[kernels["category"] == "kernel"].groupby(["name", "stream"])[["sum_ns", "count"]].sum()
    assert len(kernels) == len(wanted)
    for key, row in wanted.iterrows():
        found = kernels.loc[key]
        assert found["sum_ns"] / 1e3 == pytest.approx(row[column], rel=1e-6)
        assert found["count"] == row["Kernel duration (µs)_count"]


def test_summary_has_the_keys_of_the_contract() -> None:
    summary = load_trace(GOLDEN / "streams_graph.json.gz").summary()
    assert json.loads(json.dumps(summary)) == summary
    assert list(summary) == ["trace", "events", "gpu_events", "gpu_timeline", "devices", "quality"]
    assert (summary["events"], summary["gpu_events"]) == (137, 11)


def test_several_threads_and_backward_give_the_same_whatever_the_order_of_the_file(tmp_path: Path) -> None:
    """Two forward threads, two backward threads, ties everywhere: votes are equal, spans coincide, ids repeat."""
    trace = TraceBuilder()
    for tid in (1, 2):
        trace.region(f"step {tid}", 0, 1000, tid)
        trace.region("inside", 0, 1000, tid)  # the same span: the External id decides
        for number in range(4):  # both threads count from 0, so both hold every number
            trace.operator("aten::linear", 10 + 20 * number, 10, tid, **{"Sequence number": number})
    for tid in (11, 12):
        for number in range(4):
            name = "autograd::engine::evaluate_function: AddmmBackward0"
            trace.operator(name, 100 + 50 * number, 40, tid, **{"Sequence number": number, "Fwd thread id": 1})
            trace.launch(100 * tid + number, 110 + 50 * number, tid)
            trace.kernel(100 * tid + number, 120 + 50 * number, 10, stream=tid)
    trace.launch(1, 500, 1)
    trace.launch(1, 500, 2)  # one id launched twice at once: the thread decides
    trace.kernel(1, 510, 10)
    trace.events.append(
        {"ph": "s", "cat": "fwdbwd", "name": "fwdbwd", "id": 7, "pid": trace.pid, "tid": 2, "ts": 30, "bp": "e"}
    )
    trace.events.append(
        {"ph": "f", "cat": "fwdbwd", "name": "fwdbwd", "id": 7, "pid": trace.pid, "tid": 12, "ts": 150, "bp": "e"}
    )
    before = load_trace(trace.number().write(tmp_path / "t.json")).gpu_events()
    paths = dict(zip(zip(before["start_ns"], before["stream"], strict=True), before["path"], strict=True))
    assert paths[120_000, 11] == ("step 1", "inside")  # equal votes: the lower thread id
    assert paths[120_000, 12] == ("step 2", "inside")  # the flow votes
    assert before["forward_path"].map(len).eq(2).sum() == 8
    rows = _as_rows(before)
    for seed in range(20):
        random.Random(seed).shuffle(trace.events)
        assert _as_rows(load_trace(trace.write(tmp_path / "t.json")).gpu_events()) == rows


backward_operators = st.tuples(
    st.integers(0, 100), st.integers(1, 30), st.integers(10, 12), st.integers(-1, 3), st.integers(0, 2)
)
forward_operators = st.tuples(st.integers(0, 100), st.integers(1, 30), st.integers(1, 3), st.integers(0, 3))


@settings(max_examples=100)
@given(
    st.lists(spans, max_size=8),
    st.lists(forward_operators, max_size=8),
    st.lists(backward_operators, min_size=1, max_size=8),
    st.lists(st.tuples(st.integers(0, 130), st.sampled_from([1, 2, 10, 11, 12])), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=4),
    st.randoms(use_true_random=False),
)
def test_random_backward_threads_give_the_same_in_any_order(
    tmp_path_factory: pytest.TempPathFactory,
    regions: list,
    forward: list,
    backward: list,
    calls: list,
    flows: list,
    order: random.Random,
) -> None:
    trace = TraceBuilder()
    for start, dur, tid, name in regions:
        trace.region(name, start, dur, tid)
    for start, dur, tid, number in forward:
        trace.operator("aten::mm", start, dur, tid, **{"Sequence number": number})
    for start, dur, tid, number, tag in backward:
        name = "autograd::engine::evaluate_function: MmBackward0"
        trace.operator(name, start, dur, tid, **{"Sequence number": number, "Fwd thread id": tag})
    for flow, (begin, end) in enumerate(flows):
        if begin < len(forward) and end < len(backward):
            for phase, (at, _, tid, *_) in (("s", forward[begin]), ("f", backward[end])):
                event = {"ph": phase, "cat": "fwdbwd", "name": "fwdbwd", "id": flow, "pid": trace.pid}
                trace.events.append({**event, "tid": tid, "ts": at})
    for correlation, (at, tid) in enumerate(calls):
        trace.launch(correlation, at, tid)
        trace.kernel(correlation, 200 + 3 * correlation, 2)
    path = tmp_path_factory.mktemp("t") / "t.json"
    before = load_trace(trace.number().write(path))
    rows, totals = _as_rows(before.gpu_events()), before.regions().to_dict("records")
    conserved(before)
    order.shuffle(trace.events)
    after = load_trace(trace.write(path))
    assert _as_rows(after.gpu_events()) == rows
    assert after.regions().to_dict("records") == totals


def _as_rows(events: pd.DataFrame) -> list[tuple[object, ...]]:
    """What the order of the file may not change."""
    columns = ["start_ns", "dur_ns", "stream", "path", "forward_path", "launch_start_ns"]
    return sorted(events[columns].astype(object).itertuples(index=False, name=None), key=repr)


def test_arguments_asked_for_are_columns(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.operator("aten::mm", 1, 2, **{"Input Dims": [[2, 3], [3, 4]]})
    trace.operator("aten::t", 3, 2)
    path = trace.write(tmp_path / "t.json")
    assert "input_dims" not in load_trace(path).events.columns
    assert load_trace(path, arguments=["input_dims"]).events["input_dims"].tolist() == ["[[2,3],[3,4]]", ""]


def test_what_is_written_to_operators_changes_no_other_answer(tmp_path: Path) -> None:
    made = TraceBuilder()
    made.operator("aten::mm", 0, 20)
    made.launch(3, 5)
    made.kernel(3, 30, 5)
    path = made.write(tmp_path / "t.json")
    trace = load_trace(path)
    operators = trace.operators()
    operators["event"] += 1
    assert trace._nested_operators.event.tolist() == load_trace(path)._nested_operators.event.tolist()


def test_the_frame_of_events_is_a_view_of_the_columns(tmp_path: Path) -> None:
    made = TraceBuilder()
    made.operator("aten::mm", 0, 20)
    made.launch(3, 5)
    made.kernel(3, 30, 5)
    trace = load_trace(made.write(tmp_path / "t.json"))
    events, columns = trace.events, trace.columns
    assert np.shares_memory(events["start_ns"].to_numpy(), columns.start_ns)
    assert np.shares_memory(events["correlation"].array._data, columns.integers["correlation"])
    assert events["correlation"].isna().tolist() == (columns.integers["correlation"] == MISSING).tolist()
    assert events["python_id"].isna().all() and events["python_id"].fillna(3).eq(3).all()
