"""HTA on our columns: equal to HTA's own parser method by method where that loses nothing, and what is better."""

from __future__ import annotations

import gzip
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from profiler_kit.errors import InputError, TraceFormatError
from profiler_kit.hta import hta_analysis
from profiler_kit.trace import load_trace
from tests.builders import SHARED, TraceBuilder

H200, PEERS = SHARED / "h200", SHARED / "peers" / "hta"
NAMES = (
    *(H200 / f"{name}.json.gz" for name in ("sam_vit_b_cudagraph", "sam_vit_b_stack", "streams_graph")),
    *(PEERS / f"{name}.json.gz" for name in ("ns_resolution", "amd_mi250", "triton_example")),
)
needs_captures = pytest.mark.skipif(not H200.is_dir(), reason="the real captures are not here")
Analysis = Any  # hta.trace_analysis.TraceAnalysis; HTA is not typed


@pytest.fixture(autouse=True)
def quiet_hta() -> Iterator[None]:
    """Without the plotting libraries' and HTA's own warnings and logging; they are not ours."""
    before = logging.getLogger("hta").level
    logging.getLogger("hta").setLevel(logging.CRITICAL)
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)
    logging.getLogger("hta").setLevel(before)


def theirs(files: dict[int, Path], *, nanoseconds: bool = False, **options: Any) -> Analysis:
    """HTA's own TraceAnalysis, with its rounding to microseconds or without."""
    from hta.configs.env_options import HTAEnvOptions
    from hta.trace_analysis import TraceAnalysis

    HTAEnvOptions.instance().set_disable_ns_rounding(nanoseconds)
    try:
        return TraceAnalysis(trace_files={rank: str(path) for rank, path in files.items()}, **options)
    finally:
        HTAEnvOptions.instance().set_disable_ns_rounding(False)


METHODS: dict[str, Callable[[Analysis, int, Path], Any]] = {
    "steps": lambda a, rank, out: a.get_profiler_steps(),
    "temporal": lambda a, rank, out: a.get_temporal_breakdown(visualize=False),
    "kernels": lambda a, rank, out: a.get_gpu_kernel_breakdown(visualize=False, num_kernels=500, duration_ratio=1.0),
    "kernels, default": lambda a, rank, out: a.get_gpu_kernel_breakdown(visualize=False),
    "kernels, annotated": lambda a, rank, out: a.get_gpu_kernels_with_user_annotations(rank),
    "annotations, GPU": lambda a, rank, out: a.get_gpu_user_annotation_breakdown(True, visualize=False),
    "annotations, CPU": lambda a, rank, out: a.get_gpu_user_annotation_breakdown(False, visualize=False),
    "overlap": lambda a, rank, out: a.get_comm_comp_overlap(visualize=False),
    "idle": lambda a, rank, out: a.get_idle_time_breakdown([rank], visualize=False, show_idle_interval_stats=True),
    "launches": lambda a, rank, out: a.get_cuda_kernel_launch_stats([rank], visualize=False),
    "queue": lambda a, rank, out: a.get_queue_length_time_series([rank]),
    "queue, summary": lambda a, rank, out: a.get_queue_length_summary([rank]),
    "queue, full": lambda a, rank, out: a.get_time_spent_blocked_on_full_queue(
        a.get_queue_length_time_series([rank]), 2
    ),
    "bandwidth": lambda a, rank, out: a.get_memory_bw_time_series([rank]),
    "bandwidth, summary": lambda a, rank, out: a.get_memory_bw_summary([rank]),
    "aten": lambda a, rank, out: a.get_aten_op_kernels_and_delay([rank]),
    "sequences": lambda a, rank, out: a.get_frequent_cuda_kernel_sequences("aten::", str(out), 2, rank, 5),
    "stragglers": lambda a, rank, out: a.get_potential_stragglers(),
    "counters": lambda a, rank, out: a.get_cupti_counter_data_with_operators([rank]),
    "critical path": lambda a, rank, out: critical_path(a, rank),
}


def critical_path(analysis: Analysis, rank: int) -> pd.DataFrame:
    known = analysis.t.symbol_table.get_sym_id_map()
    annotation = "ProfilerStep" if analysis.get_profiler_steps() else "timed region"
    annotation = annotation if annotation in known or annotation == "ProfilerStep" else "outer"
    graph, found = analysis.critical_path_analysis(rank, annotation, 0)
    assert found
    columns = ["s_name", "duration", "type", "bound_by", "pid", "tid"]
    path = graph.get_critical_path_breakdown()[columns].fillna("").astype({"pid": str, "tid": str})
    return path.sort_values(columns, ignore_index=True)


def outcome(analysis: Analysis, method: str, rank: int, out: Path) -> Any:
    """What a method returns, or the exception it raises."""
    out.mkdir(exist_ok=True)
    try:
        return METHODS[method](analysis, rank, out)
    except Exception as error:
        return error


def assert_same(ours: Any, hta: Any, tolerance: float, where: str) -> None:
    """Equal values, event numbers included."""
    assert type(ours) is type(hta), f"{where}: {ours!r} / {hta!r}"
    if isinstance(ours, BaseException):
        return
    if isinstance(ours, dict):
        assert ours.keys() == hta.keys()
        for key in ours:
            assert_same(ours[key], hta[key], tolerance, f"{where}[{key}]")
    elif isinstance(ours, list | tuple):
        assert len(ours) == len(hta)
        for number, (a, b) in enumerate(zip(ours, hta, strict=True)):
            assert_same(a, b, tolerance, f"{where}[{number}]")
    elif isinstance(ours, pd.DataFrame):
        assert len(ours) == len(hta), where
        for column in ours.columns:
            if column in ("iteration", "end") or (
                column in ("name", "cat", "user_annotation") and "s_name" in ours.columns
            ):
                continue
            a, b = ours[column].to_numpy(), hta[column].to_numpy()
            if a.dtype.kind in "if":
                same = np.isclose(a.astype(float), b.astype(float), rtol=1e-9, atol=tolerance, equal_nan=True)
            else:
                same = pd.Series(a).fillna("").to_numpy() == pd.Series(b).fillna("").to_numpy()
            assert same.all(), f"{where}.{column}: {a[~same][:3]} / {b[~same][:3]}"
    else:
        assert ours == hta or (ours != ours and hta != hta), where


@pytest.fixture(scope="module", params=NAMES, ids=lambda path: path.name.partition(".")[0])
def rounded(request: pytest.FixtureRequest) -> tuple[Path, Analysis, Analysis]:
    """A trace, its analysis by us with HTA's rounding, and by HTA."""
    path: Path = request.param
    if not path.exists():
        pytest.skip("the real captures are not here")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return path, hta_analysis({0: path}, whole_microseconds=True), theirs({0: path})


SLOW = ("ns_resolution.json.gz", "sam_vit_b_cudagraph.json.gz")
# Where HTA takes operators of Triton kernels, which name a stream, for kernels: they count as GPU time there.
TRITON = ("temporal", "kernels", "kernels, default", "critical path")


@pytest.mark.parametrize("method", METHODS)
def test_rounded_as_hta_does_everything_is_equal(
    method: str, rounded: tuple[Path, Analysis, Analysis], tmp_path: Path
) -> None:
    path, ours, hta = rounded
    if path.name in SLOW and method == "aten":
        pytest.skip("HTA takes seconds; its other methods read the same columns")
    if path.name.startswith("triton") and method in TRITON:
        pytest.skip("HTA takes a host operator for a kernel here: test_a_triton_operator_is_no_kernel")
    assert_same(outcome(ours, method, 0, tmp_path), outcome(hta, method, 0, tmp_path), 0.0, method)


@needs_captures
def test_ranks_together_are_equal(tmp_path: Path) -> None:
    files = {rank: H200 / f"ddp_rank{rank}.json.gz" for rank in (0, 1)}
    ours, hta = hta_analysis(files, whole_microseconds=True), theirs(files)
    assert ours.t.min_ts == hta.t.min_ts
    for method in METHODS:
        for rank in files:
            if method != "stragglers":  # HTA knows no ncclDevKernel
                assert_same(outcome(ours, method, rank, tmp_path), outcome(hta, method, rank, tmp_path), 0.0, method)


# Frames of events with HTA's float times: 2**-10 us apart at today's magnitude. Sums of rounded values keep 0.01.
EXACT = [name for name in METHODS if name not in ("idle", "critical path", "queue, full", "aten")]


@needs_captures
@pytest.mark.parametrize("name", ["ddp_rank0", "sam_vit_b_stack", "streams_graph"])
def test_nanoseconds_are_hta_without_its_rounding(name: str, tmp_path: Path) -> None:
    path = H200 / f"{name}.json.gz"
    ours, hta = hta_analysis(path), theirs({0: path}, nanoseconds=True)
    for method in EXACT:
        expected, found = outcome(hta, method, 0, tmp_path), outcome(ours, method, 0, tmp_path)
        assert_same(found, expected, 0.003, method)
    (idle, _), (hta_idle, _) = outcome(ours, "idle", 0, tmp_path), outcome(hta, "idle", 0, tmp_path)
    assert idle["idle_time"].sum() == pytest.approx(hta_idle["idle_time"].sum(), abs=0.05)


@needs_captures
@pytest.mark.parametrize(
    ("name", "raises"),
    [
        ("ddp_rank0", {"kernels, annotated", "sequences"}),
        ("sam_vit_b_cudagraph", {"temporal", "kernels, annotated"}),
        ("sam_vit_b_stack", {"kernels, annotated", "sequences"}),
    ],
)
def test_what_hta_raises_on_works(name: str, raises: set[str], tmp_path: Path) -> None:
    path = H200 / f"{name}.json.gz"
    ours, hta = hta_analysis(path), theirs({0: path})
    for method in ("temporal", "kernels, annotated", "sequences"):
        if method == "sequences" and path.name in SLOW:
            continue
        assert isinstance(outcome(hta, method, 0, tmp_path), Exception) == (method in raises)
        assert isinstance(outcome(ours, method, 0, tmp_path), pd.DataFrame)


@needs_captures
def test_no_event_is_left_without_its_duration() -> None:
    path = PEERS / "ns_resolution.json.gz"
    hta, ours = theirs({0: path}).t.traces[0], hta_analysis(path).t.traces[0]
    assert (len(hta), (hta["dur"] == 0).sum(), (hta["dur"] < 0).sum()) == (36_209, 9_999, 4_065)
    assert (len(ours), (ours["dur"] == 0).sum(), (ours["dur"] < 0).sum()) == (36_209, 0, 0)


@needs_captures
def test_start_and_duration_are_the_end_to_the_last_bit() -> None:
    frame = hta_analysis(H200 / "sam_vit_b_eager.json.gz").t.traces[0]
    assert (frame["ts"] + frame["dur"] == frame["end"]).all()
    assert set(np.unique(np.rint(frame["ts"] * 1000) - frame["ts"] * 1000 > 1e-3)) == {False}


@needs_captures
def test_a_triton_operator_is_no_kernel() -> None:
    path = PEERS / "triton_example.json.gz"
    kernel_time = [
        a.get_temporal_breakdown(visualize=False)["kernel_time(us)"][0]
        for a in (theirs({0: path}, nanoseconds=True), hta_analysis(path))
    ]
    assert kernel_time == pytest.approx([95.812, 1.76], abs=0.001)  # the operator 94.052 us, the kernel 1.76 us


@needs_captures
def test_stream_0_of_rocm_has_steps() -> None:
    path = PEERS / "amd_mi250.json.gz"
    for analysis, known in ((theirs({0: path}), 0), (hta_analysis(path), 16)):
        frame = analysis.t.traces[0]
        assert int(frame.loc[frame["stream"] == 0, "iteration"].notna().sum()) == known


@needs_captures
def test_the_overlay_marks_the_events_of_the_critical_path(tmp_path: Path) -> None:
    analysis = hta_analysis(H200 / "ddp_rank0.json.gz")
    graph, _ = analysis.critical_path_analysis(0, "ProfilerStep", 0)
    overlaid = analysis.overlay_critical_path_analysis(0, graph, str(tmp_path))
    events = json.loads(gzip.decompress(Path(overlaid).read_bytes()))["traceEvents"]
    marked = sorted(e["name"] for e in events if e["ph"] == "X" and e.get("args", {}).get("critical") == 1)
    names, frame = analysis.t.symbol_table.get_sym_table(), analysis.t.traces[0]
    assert marked == sorted(names[frame.loc[number, "name"]] for number in graph.critical_path_events_set)
    assert len(marked) > 100


def test_the_gpu_part_of_the_critical_path_is_that_of_ours() -> None:
    """The same kernels and the same delays; on the host ours goes on to the first call, HTA's to its ProfilerStep."""
    file = Path(__file__).parent / "golden" / "ddp" / "ddp_rank0.json.gz"
    analysis = hta_analysis(file, include_last_profiler_step=True)
    graph, _ = analysis.critical_path_analysis(0, "ProfilerStep", 0)
    theirs = graph.get_critical_path_breakdown()
    sums = theirs.groupby("bound_by")["duration"].sum()
    path = load_trace(file).critical_path()
    ours = path.groupby("kind")["dur_ns"].sum() / 1e3
    assert ours["GPU"] == pytest.approx(sums["gpu_compute_bound"], abs=1e-3)
    delays = sums["gpu_kernel_kernel_overhead"] + sums["gpu_kernel_launch_overhead"]
    assert ours["latency"] == pytest.approx(delays, abs=1e-3)
    kernels_us = theirs.loc[theirs["bound_by"] == "gpu_compute_bound", "duration"]
    assert sorted(path.loc[path["kind"] == "GPU", "dur_ns"]) == sorted(round(us * 1000) for us in kernels_us)


def steps(count: int, first: int = 0) -> TraceBuilder:
    trace = TraceBuilder()
    for number in range(count):
        start = first + 100 * number
        trace.region(f"ProfilerStep#{number + 1}", start, 90)
        trace.operator("aten::mm", start + 10, 20)
        trace.launch(number + 1, start + 15)
        trace.kernel(number + 1, start + 60, 70, name="gemm")
    return trace


def test_events_have_the_numbers_of_hta_their_places_in_the_file(tmp_path: Path) -> None:
    usual, odd, launch_first = steps(2), steps(2), TraceBuilder()
    odd.events.insert(3, {"ph": "M", "name": "process_name", "pid": 100, "args": {"name": '"ph": "X"'}})
    odd.events += [
        {"ph": phase, "cat": "cpu_op", "name": "late", "pid": 100, "tid": 2, "ts": ts}
        for phase, ts in (("B", 1), ("E", 9))
    ]
    launch_first.launch(1, 5)
    launch_first.kernel(1, 20, 10)
    for number, (trace, shift) in enumerate(((usual, 0), (odd, 0), (launch_first, 1))):
        path = trace.write(tmp_path / f"{number}.json")
        analysis = hta_analysis(path)
        names, frame = analysis.t.symbol_table.get_sym_table(), analysis.t.traces[0]
        assert len(frame) and (frame["index"] == frame.index).all()
        raw = analysis.t.get_raw_trace_for_one_rank(0)["traceEvents"]
        for at, name in zip(frame["index"], frame["name"], strict=True):
            assert trace.events[at - shift]["name"] == raw[at]["name"] == names[name]
        partners = frame[frame["index_correlation"] > 0]
        assert len(partners) and (frame.loc[partners["index_correlation"], "index_correlation"] == partners.index).all()


def test_a_step_is_the_hosts_step_and_not_its_echo_on_the_gpu(tmp_path: Path) -> None:
    trace = steps(3)
    trace.span("gpu_user_annotation", "ProfilerStep#1", 60, 70, 7)["args"] = {"stream": 7, "External id": 1}
    path = trace.write(tmp_path / "t.json")
    results = []
    for analysis in (
        theirs({0: path}, include_last_profiler_step=True),
        hta_analysis(path, include_last_profiler_step=True),
    ):
        frame, names = analysis.t.traces[0], analysis.t.symbol_table.get_sym_table()
        frame = frame[[names[code] == "aten::mm" for code in frame["name"]]]
        results.append(frame.sort_values("ts")["iteration"].tolist())
    assert results == [[1, 1, 3], [1, 2, 3]]  # the second operator, at 110 us, lies in the echo of step 1


def test_the_last_step_goes_unless_asked_for(tmp_path: Path) -> None:
    trace = steps(3, first=10_000)
    trace.operator("aten::after", 10_400, 5)
    path = trace.write(tmp_path / "t.json")

    def operators(analysis: Analysis) -> list[str]:
        frame, names = analysis.t.traces[0], analysis.t.symbol_table.get_sym_table()
        return [name for name in (names[code] for code in frame["name"]) if name.startswith("aten")]

    assert operators(hta_analysis(path)) == operators(theirs({0: path})) == ["aten::mm"] * 2
    assert operators(hta_analysis(path, include_last_profiler_step=True)) == ["aten::mm"] * 3
    assert operators(theirs({0: path}, include_last_profiler_step=True)) == ["aten::mm"] * 3 + ["aten::after"]


@pytest.mark.parametrize("kernel", ["ncclKernel_AllReduce", "ncclDevKernel_AllReduce_Sum_f32_RING_LL"])
def test_stragglers_are_found_also_by_the_names_nccl_uses_now(kernel: str, tmp_path: Path) -> None:
    for rank, late in ((0, 0), (1, 30)):
        trace = TraceBuilder()
        for number in range(3):
            start = 200 * number
            trace.region(f"ProfilerStep#{number + 1}", start, 190)
            trace.launch(number + 1, start + 15)
            trace.kernel(number + 1, start + 60 + late, 70 - late, name=kernel)
        info = b'"schemaVersion": 1, "distributedInfo": {"rank": %d}' % rank
        (tmp_path / f"rank{rank}.json").write_bytes(trace.kineto().replace(b'"schemaVersion": 1', info))
    ours, hta = hta_analysis(tmp_path), theirs({rank: tmp_path / f"rank{rank}.json" for rank in (0, 1)})
    assert ours.t.get_ranks() == [0, 1]
    assert ours.get_potential_stragglers(num_candidates=1) == [1]
    if "Dev" in kernel:
        with pytest.raises(ValueError, match="empty sequence"):
            hta.get_potential_stragglers(num_candidates=1)
    else:
        assert hta.get_potential_stragglers(num_candidates=1) == [1]
    assert kernel in set(ours.get_gpu_kernel_breakdown(visualize=False)[1]["name"])


def test_ranks_with_different_base_times_stand_on_one_clock(tmp_path: Path) -> None:
    for rank in (0, 1):
        text = (
            steps(1)
            .kineto()
            .replace(b'"baseTimeNanoseconds": 17', b'"distributedInfo": {"rank": %d}, "baseTimeNanoseconds": 17' % rank)
        )
        (tmp_path / f"{rank}.json").write_bytes(
            text.replace(b"1700000000000000000", b"17000000000000%05d" % (rank * 5000))
        )
    analysis = hta_analysis([tmp_path / "0.json", tmp_path / "1.json"])
    first = {rank: frame["ts"].min() for rank, frame in analysis.t.traces.items()}
    assert first == {0: 0, 1: 5}
    assert analysis.t.get_trace_start_unixtime_ns(1) == 1_700_000_000_000_000_000


def test_malformed_and_truncated_traces_are_loaded(tmp_path: Path) -> None:
    text = steps(3).kineto()
    path = tmp_path / "t.json"
    path.write_bytes(text[: text.index(b'"ProfilerStep#3"')].replace(b'"gemm"', b'"ge"mm"', 1))
    with pytest.raises(json.JSONDecodeError):
        theirs({0: path})
    kernels = hta_analysis(path, include_last_profiler_step=True).get_gpu_kernel_breakdown(visualize=False)[1]
    assert sorted(kernels["name"]) == ['ge"mm', "gemm"]


def test_arguments_no_method_reads_come_when_asked_for(tmp_path: Path) -> None:
    trace = steps(1)
    trace.operator("aten::add", 5, 1, **{"Input Dims": [[2, 3], []]})
    path = trace.write(tmp_path / "t.json")
    assert "input_dims" not in hta_analysis(path).t.traces[0].columns
    frame, hta = hta_analysis(path, all_columns=True).t.traces[0], theirs({0: path}).t.traces[0]
    assert set(frame.columns) == set(hta.columns)
    for column in ("input_dims", "input_type", "group_size", "collective_name", "in_split_size"):
        assert frame[column].tolist() == hta[column].tolist()


def test_a_folder_is_not_refused_for_what_is_no_rank(tmp_path: Path) -> None:
    for name in ("rank0.json", "rank1.json", "rank1b.json"):
        steps(1).write(tmp_path / name)
    (tmp_path / "rank2.json").write_text("junk")
    with pytest.warns(UserWarning, match="^left out: ") as said:
        analysis = hta_analysis(tmp_path)
    assert analysis.t.get_ranks() == [0, 1]
    lines = [str(one.message) for one in said if str(one.message).startswith("left out: ")]
    assert [line.split(": ")[1] for line in lines] == [str(tmp_path / "rank1b.json"), str(tmp_path / "rank2.json")]
    assert f"says it is rank 1, and so does {tmp_path / 'rank1.json'}" in lines[0]


def test_what_cannot_be_loaded_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        hta_analysis(tmp_path)
    assert str(error.value) == (
        f"{tmp_path}: found no trace, expected one file per rank that ends in "
        ".json, .json.gz, .json.zst, .json.xz, .json.bz2. Record one on each rank: "
        'profiler_runner(f"job/rank{rank}.json.gz")'
    )
    first, second = (steps(1).write(tmp_path / name) for name in ("rank0.json", "rank-0.json"))
    with pytest.raises(InputError) as error:
        hta_analysis([first, second])
    assert str(error.value) == (
        f"{second}: says it is rank 0, and so does {first}, expected one trace per rank. "
        "Leave one out, or give a dict {rank: path}."
    )
    assert hta_analysis({0: first, 3: second}).t.get_ranks() == [0, 3]
    junk = tmp_path / "junk.json"
    junk.write_text("junk")
    with pytest.raises(TraceFormatError, match="text that is not JSON"):
        hta_analysis(junk)
