"""Operators of kernels in replayed CUDA graphs, from a capture or from the same kernels launched one by one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.attribute.captures import _walk
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder

Work = tuple[str, str]  # operator, kernel
LAYER: tuple[Work, ...] = (("aten::addmm", "gemm"), ("aten::gelu", "gelu"), ("aten::add", "add"))
NET = (*LAYER * 3, ("aten::sum", "reduce"))


def replays(trace: TraceBuilder, kernels: Sequence[str], times: int, at: float = 1000, first: int = 500) -> None:
    """Graph launches in the region "replay", with a kernel of 2 us each."""
    for number in range(times):
        begin = at + number * 100
        trace.region("replay", begin, 90)
        trace.launch(first + number, begin + 1, name="cudaGraphLaunch")
        for place, name in enumerate(kernels):
            trace.kernel(first + number, begin + 5 + place * 3, 2, name=name)


def eager(trace: TraceBuilder, work: Sequence[Work], at: float = 0, first: int = 1, rows: int = 4) -> None:
    """Kernels launched by their operators in the region "model"."""
    trace.region("model", at, len(work) * 10)
    for number, (operator, kernel) in enumerate(work):
        begin = at + number * 10
        trace.operator(operator, begin + 1, 8, **{"Input Dims": [[rows, 8], [8, 8]], "Input type": ["float", "float"]})
        trace.launch(first + number, begin + 2)
        trace.kernel(first + number, begin + 6, 1, name=kernel)


def capture(trace: TraceBuilder, work: Sequence[Work], at: float = 0, first: int = 1, rows: int = 4) -> None:
    """The calls of a capture, which run nothing; a kernel that is named as its operator is one of Triton."""
    trace.region("recording", at, len(work) * 10 + 20)
    trace.span("cuda_runtime", "cudaStreamBeginCapture", at, 1, 1, correlation=first)
    for number, (operator, kernel) in enumerate(work):
        begin = at + 5 + number * 10
        trace.operator(operator, begin, 8, **{"Input Dims": [[rows, 8], [8, 8]], "Input type": ["float", "float"]})
        name = "cudaMemcpyAsync" if kernel.startswith("Memcpy") else "cudaLaunchKernel"
        trace.span("cuda_runtime", name, begin + 1, 2, 1, correlation=first + 1 + number)
    trace.span("cuda_runtime", "cudaStreamEndCapture", at + 10 + len(work) * 10, 1, 1, correlation=first + 90)


def written(trace: TraceBuilder, path: Path, captures: Sequence[Path] = ()) -> Trace:
    return load_trace(trace.write(path), captures=captures)


def of_replays(trace: Trace) -> list[tuple[str, str | None]]:
    details = trace.kernel_details()
    mine = details[details["path"] == ("replay",)]
    operators = [None if name != name else str(name) for name in mine["operator"].astype(object)]
    return list(zip(mine["name"].astype(str), operators, strict=True))


def pairs(work: Sequence[Work]) -> list[tuple[str, str | None]]:
    return [(kernel, operator) for operator, kernel in work]


def test_the_same_kernels_launched_one_by_one_in_another_trace(tmp_path: Path) -> None:
    other, trace = TraceBuilder(), TraceBuilder()
    eager(other, (("aten::fill_", "fill"), *NET, ("aten::copy_", "fill")))
    replays(trace, [kernel for _, kernel in NET], 2)
    found = written(trace, tmp_path / "t.json", [other.write(tmp_path / "other.json")])
    assert of_replays(found) == pairs(NET) * 2
    details = found.kernel_details()
    assert details["captured"].all() and set(details["capture_path"]) == {("model",)}
    assert details["operator_event"].isna().all(), "the operators are in another file"
    graph = found.replayed_graphs().to_dict("records")
    assert [(row["launches"], row["gpu_events"], row["matched"], row["how"], row["capture"]) for row in graph] == [
        (2, 10, 1.0, "one by one", "other.json")
    ]
    # every sum is still that of all GPU events, and nothing of the other file counts as a call here
    whole = int(details["dur_ns"].sum())
    work = found.operator_work().set_index("name")
    assert int(work["gpu_ns"].sum()) == whole == int(found.roofline()["gpu_ns"].sum())
    assert work["calls"].sum() == 0 and len(found.operators()) == 0
    assert work.loc["aten::addmm", "gpu_events"] == 6 and "aten::fill_" not in work.index
    tree = found.call_tree()
    assert int(tree[tree["path"].map(len) == 1]["sum_ns"].sum()) == whole
    products = found.roofline().query("operator == 'aten::addmm'").iloc[0]
    assert products["count"] == 6, "three products in two replays"


def test_a_run_folder_keeps_such_a_trace_beside_its_own(tmp_path: Path) -> None:
    other, trace = TraceBuilder(), TraceBuilder()
    eager(other, NET)
    other.write(tmp_path / "graph_trace.json.gz")
    replays(trace, [kernel for _, kernel in NET], 1)
    found = written(trace, tmp_path / "trace.json.gz")
    assert of_replays(found) == pairs(NET)


def test_a_folder_of_traces(tmp_path: Path) -> None:
    folder, other, wrong, trace = tmp_path / "captures", TraceBuilder(), TraceBuilder(), TraceBuilder()
    folder.mkdir()
    eager(wrong, (("aten::mm", "gemm"), ("aten::mul", "mul")))
    wrong.write(folder / "a.json")
    eager(other, NET)
    other.write(folder / "b.json")
    replays(trace, [kernel for _, kernel in NET], 1)
    found = written(trace, tmp_path / "t.json", [folder])
    assert of_replays(found) == pairs(NET) and found.replayed_graphs()["capture"].tolist() == ["b.json"]


def test_a_capture_in_the_trace_itself_by_place(tmp_path: Path) -> None:
    trace = TraceBuilder()
    work = (*NET, ("aten::copy_", "Memcpy DtoD"))
    capture(trace, work)
    replays(trace, [kernel for _, kernel in work], 3)
    for event in trace.events:
        if event["name"].startswith("Memcpy"):
            event["cat"] = "gpu_memcpy"
    found = written(trace, tmp_path / "t.json")
    assert of_replays(found) == pairs(work) * 3
    details = found.kernel_details()
    assert set(details["capture_path"]) == {("recording",)} and details["operator_event"].notna().all()
    calls = found.roofline().set_index("operator")["count"].to_dict()
    assert calls["aten::addmm"] == 9 and calls["aten::sum"] == 3
    assert found.operator_work().set_index("name").loc["aten::addmm", "calls"] == 3


def test_what_other_threads_launch_belongs_to_the_only_open_capture_of_their_process(tmp_path: Path) -> None:
    """The backward pass is launched by a thread of autograd's; where two threads capture, nothing tells whose it is."""
    for captures in (1, 2):
        trace = TraceBuilder()
        capture(trace, NET)
        for event in trace.events:
            event["tid"] = 2 if event["ts"] > 50 and event["name"] != "cudaStreamEndCapture" else 1
        if captures > 1:
            trace.span("cuda_runtime", "cudaStreamBeginCapture", 2, 1, 3, correlation=300)
            trace.span("cuda_runtime", "cudaLaunchKernel", 6, 1, 3, correlation=301)
            trace.span("cuda_runtime", "cudaStreamEndCapture", 200, 1, 3, correlation=302)
        replays(trace, [kernel for _, kernel in NET], 2)
        found = of_replays(written(trace, tmp_path / f"{captures}.json"))
        assert found == (pairs(NET) * 2 if captures == 1 else [(kernel, None) for _, kernel in NET] * 2)


def test_a_kernel_more_leaves_what_lies_beside_known_names(tmp_path: Path) -> None:
    """Triton's operators are named as their kernels; between two of them the others match only if they are as many."""
    work = (("triton_a", "triton_a"), ("aten::mm", "gemm"), ("triton_b", "triton_b"), ("aten::mm", "gemm"))
    trace = TraceBuilder()
    capture(trace, (*work, ("triton_c", "triton_c")))
    replays(trace, ["triton_a", "gemm", "triton_b", "gemm", "splitK", "triton_c"], 1)
    found = written(trace, tmp_path / "t.json")
    assert of_replays(found) == [*pairs(work[:3]), ("gemm", None), ("splitK", None), ("triton_c", "triton_c")]
    assert found.replayed_graphs()["matched"].tolist() == [4 / 6]


def test_gaps_on_either_side_are_tolerated(tmp_path: Path) -> None:
    other, trace = TraceBuilder(), TraceBuilder()
    eager(other, (*NET[:5], ("aten::zero_", "fill"), *NET[5:]))
    replays(trace, [*[kernel for _, kernel in NET[:2]], "extra", *[kernel for _, kernel in NET[2:]]], 1)
    found = written(trace, tmp_path / "t.json", [other.write(tmp_path / "other.json")])
    assert of_replays(found) == [*pairs(NET[:2]), ("extra", None), *pairs(NET[2:])]


def test_a_graph_of_one_kernel_is_known_where_all_of_its_name_say_the_same(tmp_path: Path) -> None:
    for name, (kernel, operator) in {"one": ("cast", "aten::to"), "two": ("gemm", None)}.items():
        other, trace = TraceBuilder(), TraceBuilder()
        eager(other, (("aten::to", "cast"), ("aten::mm", "gemm"), ("aten::addmm", "gemm"), ("aten::to", "cast")))
        replays(trace, [kernel], 1)
        found = written(trace, tmp_path / f"{name}.json", [other.write(tmp_path / f"{name}-other.json")])
        assert of_replays(found) == [(kernel, operator)]


def test_another_kernel_in_the_same_place_is_of_the_same_operator(tmp_path: Path) -> None:
    """A library may choose another kernel in a capture."""
    other, trace = TraceBuilder(), TraceBuilder()
    eager(other, NET)
    replays(trace, ["gemm_fast" if place == 3 else kernel for place, (_, kernel) in enumerate(NET)], 1)
    found = written(trace, tmp_path / "t.json", [other.write(tmp_path / "other.json")])
    assert [operator for _, operator in of_replays(found)] == [operator for operator, _ in NET]


def test_two_captures_that_fit_say_nothing_unless_they_say_the_same(tmp_path: Path) -> None:
    for rows, expected in ((4, "capture"), (8, "several captures")):
        trace = TraceBuilder()
        capture(trace, NET)
        capture(trace, NET, at=300, first=200, rows=rows)
        replays(trace, [kernel for _, kernel in NET], 1)
        found = written(trace, tmp_path / f"{rows}.json")
        assert found.replayed_graphs()["how"].tolist() == [expected]
        known = [operator for _, operator in of_replays(found)]
        assert known == ([operator for operator, _ in NET] if rows == 4 else [None] * len(NET))


def test_kernels_that_overlap_have_no_order_to_go_by(tmp_path: Path) -> None:
    trace = TraceBuilder()
    capture(trace, NET)
    replays(trace, [kernel for _, kernel in NET], 1)
    for event in trace.events:
        if event["cat"] == "kernel":
            event["dur"] = 8
    assert of_replays(written(trace, tmp_path / "t.json")) == [(kernel, None) for _, kernel in NET]


def test_of_branches_that_overlap_a_name_that_both_have_is_of_neither(tmp_path: Path) -> None:
    """Launched one branch after the other, replayed side by side: which gemm is which, their order does not tell."""
    branches = ((("aten::addmm", "gemm"), ("aten::gelu", "gelu")), (("aten::mm", "gemm"), ("aten::relu", "relu")))
    other, trace = TraceBuilder(), TraceBuilder()
    eager(other, [work for branch in branches for work in branch])
    replays(trace, ["gemm", "gemm", "gelu", "relu"], 2)
    kernels = [event for event in trace.events if event["cat"] == "kernel"]
    for place, event in enumerate(kernels):
        event["args"]["stream"] = 7 + place % 2
        event["dur"] = 5
    found = written(trace, tmp_path / "t.json", [other.write(tmp_path / "other.json")])
    assert of_replays(found) == [("gemm", None), ("gemm", None), ("gelu", "aten::gelu"), ("relu", "aten::relu")] * 2


def test_without_being_told_a_short_graph_is_no_copy_of_what_ran_before(tmp_path: Path) -> None:
    short, long = TraceBuilder(), TraceBuilder()
    for trace, work in ((short, LAYER), (long, NET)):
        eager(trace, work)
        replays(trace, [kernel for _, kernel in work], 1)
    assert of_replays(written(short, tmp_path / "short.json")) == [(kernel, None) for _, kernel in LAYER]
    assert of_replays(written(long, tmp_path / "long.json")) == pairs(NET)


def test_a_trace_that_only_replays_says_what_to_record(tmp_path: Path) -> None:
    trace = TraceBuilder()
    replays(trace, ["a", "b", "a"], 1)
    replays(trace, ["a", "c"], 2, at=2000, first=600)
    found = written(trace, tmp_path / "t.json")
    assert found.replayed_graphs()[["launches", "gpu_events", "how"]].to_numpy().tolist() == [
        [1, 3, "not found"],
        [2, 2, "not found"],
    ]
    finding = next(one for one in found.findings() if one.id == "graphs")
    assert finding.sentence == (
        "3 replays of 2 CUDA graphs take 100 % of the GPU time, 14.00 µs; the operators are known of none of it."
    )
    assert finding.attempt.startswith("--captures PATH")


def golden(name: str) -> Trace:
    return load_trace(Path(__file__).parents[1] / "golden" / f"graph_capture_{name}_h200.json.gz")


def test_a_real_capture_says_operator_module_and_shapes_of_each_replayed_kernel() -> None:
    trace = golden("eager")
    details = trace.kernel_details().query("captured")
    expected: list[tuple[str, str]] = []
    for number in range(6):
        expected += [("aten::addmm", f"Linear_{number}"), ("aten::gelu", f"GELU_{number}")]
        expected += [("aten::native_layer_norm", f"LayerNorm_{number}"), ("aten::add", "Net_0")]
    expected += [("aten::_softmax", "Net_0"), ("aten::sum", "Net_0")]
    assert list(zip(details["operator"], details["module"], strict=True)) == expected * 3
    assert set(details["capture_path"]) == {("capture",)} and set(details["path"]) == {("replay",)}
    products = trace.roofline().query("operator == 'aten::addmm'").iloc[0]
    # three replays of six products of 256 x 512 by 512 x 512, with a bias
    assert (products["count"], products["flops"]) == (18, 18 * (2 * 256 * 512 * 512 + 256 * 512))


def test_a_real_capture_of_a_step_of_training() -> None:
    """Its backward pass was launched by a thread of autograd's. A net of six layers; the input needs no gradient."""
    trace = golden("training")
    assert trace.replayed_graphs()[["launches", "gpu_events", "matched"]].to_numpy().tolist() == [[3, 144, 1]]
    details = trace.kernel_details().query("captured")
    assert len(details) == 3 * 144 and details["operator"].notna().all()
    calls = details.drop_duplicates(["launch", "operator_event"])
    calls = calls.assign(phase=[path[1] for path in calls["capture_path"]])
    count = calls.groupby(["phase", "operator"], observed=True).size().to_dict()
    assert count["forward", "aten::addmm"] == count["backward", "aten::native_layer_norm_backward"] == 3 * 6
    assert count["backward", "aten::mm"] == 3 * (6 + 5) and count["backward", "aten::_softmax_backward_data"] == 3
    optimizer = {name for phase, name in count if phase == "optimizer"}
    assert "aten::_foreach_addcdiv_" in optimizer and all("_foreach_" in name for name in optimizer - {"aten::div_"})
    products = trace.roofline().query("operator == 'aten::mm'")
    assert int(products["flops"].sum()) == 3 * 11 * 2 * 256 * 512 * 512


def test_a_real_capture_of_torch_compile() -> None:
    details = golden("reduce_overhead").kernel_details().query("captured")
    assert len(details) == 4 * 14
    for name, operator in zip(details["name"].astype(str), details["operator"].astype(str), strict=True):
        assert operator == ("aten::addmm" if name.startswith("nvjet") else name)


def test_a_real_capture_of_torch_compile_with_a_backward_pass() -> None:
    trace = golden("reduce_training")
    assert trace.replayed_graphs()[["launches", "gpu_events", "matched"]].to_numpy().tolist() == [
        [4, 14, 1],
        [4, 57, 1],
    ]
    details = trace.kernel_details().query("captured")
    fused = details[details["name"].str.startswith("triton_")]
    assert len(fused) > len(details) / 2 and (fused["operator"].astype(str) == fused["name"].astype(str)).all()


def test_a_real_capture_on_two_streams_is_not_guessed_at() -> None:
    trace = golden("forked")
    graphs = trace.replayed_graphs()
    assert graphs["launches"].tolist() == [1, 2] and graphs["matched"].tolist() == [0, 0]
    assert not trace.kernel_details()["captured"].any()


RUNS: dict[str, tuple[list[tuple[int, int, float]], int]] = {  # replays, kernels, known of each graph; GPU events
    "graphed": ([(2, 43, 1.0)], 90),
    "reduce": ([(2, 42, 1.0), (2, 1, 1.0)], 88),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_captured_by_this_product_knows_the_operators_of_its_replays(name: str) -> None:
    """A transformer of four layers, as one graph of ours and as those that torch.compile recorded."""
    graphs, events = RUNS[name]
    trace = load_trace(Path(__file__).parents[1] / "golden" / f"graph_run_{name}" / "trace.json.gz")
    found = trace.replayed_graphs()
    assert list(found[["launches", "gpu_events", "matched"]].itertuples(index=False, name=None)) == graphs
    assert set(found["how"]) == {"one by one"} and set(found["capture"]) == {"graph_trace.json.gz"}
    details = trace.kernel_details()
    assert len(details) == events and details["operator"].notna().all()
    replayed = details[details["captured"]]
    assert len(replayed) == sum(launches * kernels for launches, kernels, _ in graphs)
    assert replayed["module"].notna().all()
    roofline = trace.roofline()
    assert roofline["gpu_ns"].sum() == details["dur_ns"].sum()
    products = roofline[roofline["category"] == "matrix product"]
    layer = 2 * 512 * 128 * (384 + 128 + 512 + 512) + 512 * (384 + 128 + 512 + 128)  # 8 x 64 tokens of 128
    head = 2 * 512 * 128 * 1000 + 512 * 1000
    assert int(products["flops"].sum()) == 2 * (4 * layer + head)
    assert not roofline["operator"].str.startswith("Torch-Compiled").any()  # what it calls instead
    attention = roofline[roofline["category"] == "attention"]
    assert int(attention["count"].sum()) == 2 * 4
    assert int(attention["flops"].sum()) == 2 * 4 * (4 * 8 * 4 * 64 * 64 * 32)


@pytest.mark.parametrize("missing", [0, 1, 5, 47])
def test_the_walk_goes_on_behind_a_gap(missing: int) -> None:
    a = np.arange(100)
    b = np.concatenate((a[:40], a[40 + missing :], a[:30]))
    first, second = _walk(a, b, 0)
    assert (a[first] == b[second]).all() and len(first) == 100 - missing


@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30))
def test_the_walk_leaves_out_as_few_as_can_be(a: list[int], b: list[int]) -> None:
    first, second = _walk(np.array(a, dtype=np.int64), np.array(b, dtype=np.int64), 0)
    assert (np.diff(first) > 0).all() and (np.diff(second) > 0).all()
    assert [a[at] for at in first] == [b[at] for at in second]
    # independently: the fewest left out of a and of b, as far as a goes on in it
    least = np.zeros((len(a) + 1, len(b) + 1), dtype=np.int64)
    least[:, 0], least[0, :] = np.arange(len(a) + 1), np.arange(len(b) + 1)
    for i, one in enumerate(a, 1):
        for j, other in enumerate(b, 1):
            least[i, j] = min(least[i - 1, j], least[i, j - 1]) + 1
            if one == other:
                least[i, j] = min(least[i, j], least[i - 1, j - 1])
    last = int(second[-1]) + 1 if len(second) else 0
    assert len(a) + last - 2 * len(first) == least[-1, :].min()
