"""Which launch a GPU event belongs to, in files of several processes, with ids used twice, and without launches."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from profiler_kit import load_trace
from profiler_kit.attribute.processes import rank_mark
from profiler_kit.trace import Trace
from tests import reference
from tests.builders import SHARED, TraceBuilder
from tests.cli.run import profiler_kit
from tests.readers import READERS, reader

CASES = Path(__file__).parent / "cases" / "traces"


def sums(trace: Trace) -> dict[str, int]:
    return {path[-1]: ns for path, ns in zip(trace.regions()["path"], trace.regions()["sum_ns"], strict=True)}


def case(name: str) -> Trace:
    return load_trace(CASES / f"{name}.json")


def test_merged_ranks_keep_their_own_launches_and_gpus() -> None:
    trace = case("merged_ranks")
    assert sums(trace) == {"decode": 600_000, "prefill": 200_000}
    kernels = trace.kernels()[["name", "process", "device", "stream", "sum_ns"]].to_numpy().tolist()
    assert kernels == [["gemm_rank1", "[TP01] 101", 0, 7, 600_000], ["gemm_rank0", "[TP00] 100", 0, 7, 200_000]]
    assert trace.launches()["launches"].tolist() == [4]
    summary = trace.summary()
    busy = [(one["process"], one["device"], one["busy_ns"], one["total_ns"]) for one in summary["devices"]]
    assert busy == [("[TP00] 100", 0, 200_000, 200_000), ("[TP01] 101", 0, 600_000, 600_000)]
    assert summary["quality"]["processes"] == 2
    assert trace.idle().empty and trace.idle(scope="device").empty  # each of them works without a pause
    said = profiler_kit("doctor", CASES / "merged_ranks.json").out
    assert "2 processes in one file: [TP00] 100, [TP01] 101." in said


@pytest.mark.parametrize("name", READERS)
def test_only_an_arrow_of_its_own_process_links(name: str, tmp_path: Path) -> None:
    """Three ranks with the ids 1 and 2; the arrows of rank 1 and one of rank 2 were not recorded."""
    trace = TraceBuilder()
    for rank in range(3):
        first = len(trace.events)
        for id in (1, 2):
            trace.launch(id, 10 * id, tid=7)
            trace.kernel(id, 100 * id, 10 + rank)
        for event in trace.events[first:]:
            event["pid"] = f"[TP0{rank}] {event['pid']}"
    arrows = [event for event in trace.events if event["ph"] == "s"]
    trace.events = [event for event in trace.events if event not in (arrows[2], arrows[3], arrows[5])]
    with reader(name):
        loaded = load_trace(trace.write(tmp_path / "t.json"))
    found = loaded.linked_gpu_events()[["process", "start_ns", "dur_ns"]].to_numpy().tolist()
    assert sorted(found) == [
        ["[TP00] 100", 100_000, 10_000], ["[TP00] 100", 200_000, 10_000], ["[TP02] 100", 100_000, 12_000],
    ]  # fmt: skip
    assert [one["busy_ns"] for one in loaded.summary(linked_only=True)["devices"]] == [20_000, 12_000]


def test_an_id_used_again_belongs_to_the_launch_nearest_before() -> None:
    assert sums(case("correlation_reused")) == {"second": 30_000, "first": 10_000}


def used_twice(*kernels: tuple[float, float, int], id: int = 1) -> TraceBuilder:
    """Regions first (0 to 10) and second (20 to 30) with a launch each of one id; kernels: start, duration, stream."""
    trace = TraceBuilder()
    for number, name in enumerate(("first", "second")):
        trace.region(name, 20 * number, 10)
        trace.launch(id, 20 * number + 1)
    for start, dur, stream in kernels:
        trace.kernel(id, start, dur, stream=stream)
    return trace


@pytest.mark.parametrize(
    ("kernels", "expected", "likely"),
    [
        ([(50, 10, 7), (70, 30, 7)], {"second": 30_000, "first": 10_000}, 0),  # a stream runs its work in order
        ([(25, 10, 7), (70, 30, 7)], {"second": 30_000, "first": 10_000}, 0),  # both launched when the first begins
        ([(50, 10, 7), (55, 30, 9)], {"second": 40_000}, 2),  # two streams: the nearest before each
        ([(50, 10, 7)], {"second": 10_000}, 1),  # one has not run, or not been recorded
        ([(50, 10, 7), (70, 10, 7), (90, 10, 7)], {"second": 30_000}, 3),  # one may be a graph
        ([(10, 5, 7), (50, 10, 7), (70, 10, 7)], {"second": 20_000, "first": 5_000}, 0),  # in time, as ever
        ([(50, 30, 7), (60, 30, 7)], {"(unlinked)": 60_000}, 0),  # on one stream at once: of two processes
    ],
)
def test_two_launches_of_one_id_before_their_kernels(
    tmp_path: Path, kernels: Any, expected: dict[str, int], likely: int
) -> None:
    path = used_twice(*kernels).write(tmp_path / "t.json")
    trace = load_trace(path)
    assert {name: ns for name, ns in sums(trace).items() if ns} == expected
    assert trace.quality.likely_launches == likely
    said = "GPU events have a correlation id that several launches before them share: the nearest one is used"
    assert (said in profiler_kit("doctor", path).out) == (likely > 0)
    assert {k: v["sum"] for (k,), v in reference.region_rows(reference.attribute(path)).items()} == expected


def test_two_gpus_are_said_one_by_one() -> None:
    trace = case("two_gpus_in_turn")
    summary = trace.summary()
    assert [one["busy_ns"] for one in summary["devices"]] == [400_000, 400_000]
    assert summary["gpu_timeline"]["total_ns"] == 800_000
    advice = profiler_kit("advice", CASES / "two_gpus_in_turn.json").out
    assert "2 GPUs were busy 50 % and 50 % of the recorded 800.00 µs, at least one of them 100 %" in advice
    assert "The GPU" not in advice


def test_the_queue_is_the_stream_where_there_is_none() -> None:
    trace = case("xpu_two_queues")
    assert trace.idle()[["stream", "idle_ns"]].to_numpy().tolist() == [[1, 100_000], [2, 40_000]]
    assert json.loads(profiler_kit("doctor", CASES / "xpu_two_queues.json", "--json").out)["contents"]["streams"] == 2


def test_without_launch_calls_the_external_id_links() -> None:
    trace = case("external_id_only")
    assert sums(trace) == {"decoder": 80_000, "encoder": 50_000}
    assert trace.kernel_details()["operator"].tolist() == ["aten::mm", "aten::mm"]
    assert trace.kernel_details()["launch_delay_ns"].isna().all()
    doctor = profiler_kit("doctor", CASES / "external_id_only.json").out
    assert "launches       by External id" in doctor and "before recording" not in doctor


@pytest.mark.parametrize("mark", ["[TP0{}] ", "rank {} ", "[rank{}]:", "r{}-"])
def test_a_merge_keeps_the_queues_that_name_no_stream(mark: str, tmp_path: Path) -> None:
    trace = TraceBuilder()
    for rank in range(2):
        first = len(trace.events)
        for queue in (1, 2):
            trace.launch(queue, queue)
            del trace.kernel(queue, 10, 5, stream=queue)["args"]["stream"]
        for event in trace.events[first:]:
            event["pid"] = mark.format(rank) + str(event["pid"])
    kernels = load_trace(trace.write(tmp_path / "merged.json")).kernels()
    assert sorted(kernels["stream"].tolist()) == [1, 1, 2, 2]


@pytest.mark.parametrize("other", ["another process", "the id 0"])
def test_a_call_that_cannot_be_its_own_does_not_hide_an_operator(other: str, tmp_path: Path) -> None:
    """An id that only another process used, or the id 0 of several calls, names no launch: the External id does."""
    trace = TraceBuilder()
    id = 0 if other == "the id 0" else 5
    for rank, at in enumerate((0, 100)):
        first = len(trace.events)
        trace.region(f"region {rank}", at, 50)
        trace.operator("aten::mm", at + 1, 20, **{"External id": 7 + rank})
        if id == 0 or rank == 0:
            trace.launch(id, at + 2)
        trace.kernel(id, at + 30, 4 + rank)["args"]["External id"] = 7 + rank
        for event in trace.events[first:] if id else ():
            event["pid"] = f"[TP0{rank}] {event['pid']}"
    found = load_trace(trace.write(tmp_path / "some.json"))
    assert sums(found) == {"region 1": 5_000, "region 0": 4_000}
    assert found.links.by_external_id == (1 if id else 2)
    path = found.path
    assert {k: v["sum"] for (k,), v in reference.region_rows(reference.attribute(path)).items()} == sums(found)


@pytest.mark.skipif(not (SHARED / "h200" / "ddp_rank0.json.gz").is_file(), reason="the captures are not here")
def test_two_real_ranks_merged_give_the_sums_of_both(tmp_path: Path) -> None:
    events: list[dict[str, Any]] = []
    alone = []
    for rank in (0, 1):
        file = SHARED / "h200" / f"ddp_rank{rank}.json.gz"
        alone.append(load_trace(file))
        for event in json.loads(gzip.decompress(file.read_bytes()))["traceEvents"]:
            events.append({**event, "pid": f"[TP0{rank}] {event['pid']}"} if "pid" in event else event)
    (tmp_path / "merged.json").write_text(json.dumps({"traceEvents": events}))
    merged = load_trace(tmp_path / "merged.json")
    assert merged.summary(linked_only=True)["gpu_events"] == 776 + 776
    linked = merged.gpu_events().query("launch.notna()")
    assert linked["process"].astype(str).value_counts().tolist() == [776, 776]
    host = merged.threads["pid"].to_numpy()[linked["launch_thread"].to_numpy(int)]
    assert (host == linked["process"].to_numpy(object)).all()
    for column in ("sum_ns", "self_sum_ns", "gpu_events", "launches", "instances"):
        whole: dict[tuple[str, ...], int] = {}
        for trace in alone:
            for path, value in zip(trace.regions()["path"], trace.regions()[column], strict=True):
                whole[path] = whole.get(path, 0) + value
        assert dict(zip(merged.regions()["path"], merged.regions()[column], strict=True)) == whole
    each = [trace.summary()["devices"][0] for trace in alone]
    found = merged.summary()["devices"]
    assert [{**one, "process": ""} for one in found] == [{**one, "process": ""} for one in each]


def two_ranks(host: tuple[Any, Any], gpu: tuple[Any, Any], tids: tuple[int, int] = (1, 1), **more: Any) -> TraceBuilder:
    """One rank after the other, at the same times and with the same ids; kernels of 10 and 30 us."""
    trace = TraceBuilder()
    for rank in (0, 1):
        first = len(trace.events)
        trace.region(f"rank {rank}", 0, 100, tids[rank])
        for number in (1, 2):
            trace.operator("aten::mm", 8 + 10 * number + rank, 6, tids[rank])
            trace.launch(number, 10 + 10 * number + rank, tids[rank])
        for event in trace.events[first:]:
            event["pid"] = host[rank]
        for number in (1, 2):
            kernel = trace.kernel(number, 100 * number + rank, 10 + 20 * rank)
            kernel["pid"] = gpu[rank]
    return trace


@pytest.mark.parametrize(
    ("host", "gpu", "tids"),
    [
        (("[TP0] 7", "[TP1] 7"), ("[TP0] 0", "[TP1] 0"), (1, 1)),
        (("[0] 7", "[1] 7"), ("[0] 0", "[1] 0"), (1, 1)),
        (("rank0/7", "rank1/7"), ("rank0/0", "rank1/0"), (1, 1)),
        (("7 (r0)", "8 (r1)"), ("0 (r0)", "0 (r1)"), (1, 1)),
        (("r0 CPU 7", "r1 CPU 7"), ("r0 GPU 0", "r1 GPU 0"), (1, 1)),
        ((100, 1_000_100), (0, 1_000_000), (1, 2)),  # pids moved by a million
        ((100, 101), (0, 0), (1, 2)),  # the GPUs share a pid
        ((100, 100), (0, 0), (1, 2)),  # containers count pids from 1
    ],
)
def test_ranks_one_after_the_other_are_told_apart(tmp_path: Path, host: Any, gpu: Any, tids: tuple[int, int]) -> None:
    trace = load_trace(two_ranks(host, gpu, tids).write(tmp_path / "t.json"))
    assert sums(trace) == {"rank 1": 60_000, "rank 0": 20_000}
    assert [one["busy_ns"] for one in trace.summary()["devices"]] == [20_000, 60_000]
    assert trace.quality.processes == 2


def test_ranks_that_cannot_be_told_apart_are_said_and_not_guessed(tmp_path: Path) -> None:
    builder = two_ranks((100, 100), (0, 0), (1, 1))
    builder.events.sort(key=lambda event: event["ts"])
    path = builder.write(tmp_path / "t.json")
    trace = load_trace(path)
    assert sums(trace)["(unlinked)"] == 80_000
    assert "have a correlation id that several launches share" in profiler_kit("doctor", path).out


def test_the_external_id_decides_between_processes(tmp_path: Path) -> None:
    builder = two_ranks((100, 101), (0, 0))
    builder.events.sort(key=lambda event: event["ts"])
    for event in builder.events:
        if event.get("cat") in ("kernel", "cuda_runtime"):
            rank = event["args"].get("rank", event["ts"] % 10)  # rank 1 does everything 1 us later
            event["args"]["External id"] = 1000 * int(rank) + event["args"]["correlation"]
    assert sums(load_trace(builder.write(tmp_path / "t.json"))) == {"rank 1": 60_000, "rank 0": 20_000}


def test_launches_and_ids_of_odd_kinds(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number, at in enumerate((0, 1000)):
        trace.region(f"graph {number}", at, 100)
        trace.launch(5, at + 1, name="cudaGraphLaunch")  # the same id twice, each with three kernels
        for kernel in range(3):
            trace.kernel(5, at + 200 + 20 * kernel, 10 + number)
    trace.region("nested", 2000, 100)
    trace.launch(6, 2001, dur=10)
    trace.span("cuda_driver", "cuLaunchKernel", 2003, 2, correlation=6)  # inside the call of the runtime
    trace.kernel(6, 2050, 7)
    trace.region("skewed", 3000, 100)
    trace.launch(8, 3001)
    trace.kernel(8, 3000, 9)  # before its launch, by the clock; no other has the id
    for at in (4000, 4010):
        trace.launch(0, at)  # 0 stands for no id
    trace.kernel(0, 4020, 100)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert sums(loaded) == {
        "(unlinked)": 100_000, "graph 1": 33_000, "graph 0": 30_000, "skewed": 9_000, "nested": 7_000
    }  # fmt: skip
    assert loaded.gpu_events().query("start_ns == 2050000")["launch_start_ns"].tolist() == [2_001_000]


def rank(number: int, *, later: float = 0, name: str = "cudaLaunchKernel", device: int = 0) -> TraceBuilder:
    """Two launches, each in the region of the rank, and their kernels of 10 us more than its number."""
    trace = TraceBuilder(pid=100 + number)
    trace.region(f"r{number}", later, 100)
    for id in (1, 2):
        trace.launch(id, 10 * id + later, name=name)
    for id in (1, 2):
        trace.kernel(id, 20 * id + later, 10 + number, device=device)["pid"] = 0
    return trace


@pytest.mark.parametrize(
    ("ranks", "order", "expected"),
    [
        # a rank's host side and its GPU follow one another
        ((rank(0), rank(1)), None, {"r0": 20_000, "r1": 22_000}),
        # both host sides, then both GPUs: which is whose is not known
        ((rank(0), rank(1)), lambda event: event["cat"] == "kernel", {"(unlinked)": 42_000}),
        ((rank(0, name="cudaGraphLaunch"), rank(1, name="cudaGraphLaunch")), lambda event: event["cat"] == "kernel",
         {"(unlinked)": 42_000}),
        # by time: only the first kernel had one launch before it, which gives nothing to another device,
        ((rank(0), rank(1, later=15, device=1)), lambda event: event["ts"], {"r0": 20_000, "(unlinked)": 22_000}),
        # nor to the same one, where one launch would have two kernels
        ((rank(0), rank(1, later=15)), lambda event: event["ts"], {"r0": 10_000, "(unlinked)": 32_000}),
    ],
)  # fmt: skip
def test_ranks_that_nothing_but_pids_on_the_host_tells_apart(
    ranks: tuple[TraceBuilder, ...], order: Any, expected: dict[str, int], tmp_path: Path
) -> None:
    events = [event for one in ranks for event in one.events]
    whole = TraceBuilder(sorted(events, key=order) if order else events)
    loaded = load_trace(whole.write(tmp_path / "t.json"))
    assert {name: ns for name, ns in sums(loaded).items() if ns} == expected
    assert (loaded.quality.unlinked_gpu_events > 0) == ("(unlinked)" in expected)


def test_an_id_used_again_on_another_thread_makes_no_process(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for tid in (1, 2, 3):
        trace.region(f"u{tid}", 100 * tid, 5, tid)
        trace.launch(5, 100 * tid + 1, tid)
    for tid in (1, 2, 3):
        trace.kernel(5, 100 * tid + 10, tid)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert sums(loaded) == {"u3": 3_000, "u2": 2_000, "u1": 1_000}
    assert loaded.quality.processes == 1


def test_eight_gpus_of_one_process(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("all", 0, 100)
    for device in range(8):
        trace.launch(device + 1, device)
        trace.kernel(device + 1, 100 + 10 * device, 10, device=device)
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert [(one["device"], one["process"]) for one in loaded.summary()["devices"]] == [(n, "100") for n in range(8)]
    assert loaded.quality.processes == 1
    assert "8 GPUs were busy 12 % to 12 %" in str(loaded.findings()[0].sentence)


def test_equal_regions_without_an_id_stand_in_the_order_of_the_file(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("z", 0, 100)["args"]["External id"] = 9
    trace.region("a", 0, 100)
    trace.launch(1, 5)
    trace.kernel(1, 10, 10)
    assert load_trace(trace.write(tmp_path / "t.json")).gpu_events()["path"].tolist() == [("z", "a")]


def test_collectives_and_ambiguous_external_ids_link_nothing(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("step", 0, 100)
    for start, external in ((1, 1), (10, 2), (20, 2), (90, 3)):
        trace.operator("aten::mm", start, 5, **{"External id": external})
    for start, external, name in (
        (30, 1, "ncclDevKernel_AllReduce"),
        (40, 2, "gemm"),
        (50, 3, "gemm"),
        (60, 1, "gemm"),
    ):
        trace.kernel(None, start, 5, name=name)["args"]["External id"] = external
    loaded = load_trace(trace.write(tmp_path / "t.json"))
    assert loaded.gpu_events()["path"].tolist() == [("(unlinked)",)] * 3 + [("step",)]


def test_the_mark_of_a_pid() -> None:
    pids = [5, "[TP00] 100", "[TP00-DP01] 0", "rank 3: 100", "100 [r0]", "Spans", "GPU 0", ""]
    assert [rank_mark(pid) for pid in pids] == [(), ("[TP00]",), ("[TP00", "DP01]"), ("3",), ("[r0]",), (), (), ()]


calls = st.tuples(st.integers(0, 3), st.integers(0, 90), st.integers(1, 2), st.integers(0, 1))
kernels = st.tuples(
    st.integers(0, 3), st.integers(0, 120), st.integers(0, 1), st.integers(0, 3), st.sampled_from([7, 7, 7, 9])
)


@settings(max_examples=150)
@given(st.lists(calls, max_size=8), st.lists(kernels, min_size=1, max_size=8), st.randoms(use_true_random=False))
def test_random_ids_used_again_equal_the_slow_reference(
    tmp_path_factory: pytest.TempPathFactory, called: list[Any], ran: list[Any], order: random.Random
) -> None:
    trace = TraceBuilder()
    for rank in (0, 1):
        trace.pid = f"[r{rank}] 10"  # type: ignore[assignment]
        trace.operator("aten::mm", 2, 30, **{"External id": 1 + rank})
        for start in range(0, 100, 20):
            trace.region(f"{rank} {start}", start, 20)
            trace.region(f"{rank} {start}", start, 20, 2)
    for number, at, tid, rank in called:
        trace.pid = f"[r{rank}] 10"  # type: ignore[assignment]
        trace.launch(number, at, tid)
    for number, at, rank, external, stream in ran:
        event = trace.kernel(number, at, 5, stream=stream)
        event["pid"], event["args"]["External id"] = f"[r{rank}] 0", external
    path = tmp_path_factory.mktemp("t") / "t.json"
    rows = reference.region_rows(reference.attribute(trace.write(path)))
    expected = {where: (row["sum"], row["count"]) for where, row in rows.items()}
    found = load_trace(path).regions()
    mine = zip(found["path"], found["sum_ns"], found["gpu_events"], strict=True)
    assert {where: (ns, count) for where, ns, count in mine if count} == expected
