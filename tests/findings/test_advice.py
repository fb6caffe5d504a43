"""Advice finds the one cause a trace was made with, says how much it holds, and stays silent about the rest."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pandas as pd
import pytest

from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.finding import Finding, of_kind
from profiler_kit.findings.advice import advice, of_layers
from profiler_kit.run import Run, load_run
from profiler_kit.trace import load_trace
from tests.app.samples import record
from tests.builders import TraceBuilder, real_traces

US = 1_000


def found(builder: TraceBuilder, folder: Path, latency_us: float = 0) -> list[Finding]:
    """latency_us: of a batch without the profiler, where it was timed."""
    trace = load_trace(builder.write(folder / "trace.json"))
    timed = dataclasses.replace(record("a"), latency_ns=(int(latency_us * US),)) if latency_us else None
    return advice(dataclasses.replace(Run.holding(folder, trace), record=timed))


def ns(one: Finding) -> float:
    assert one.gain is not None and one.gain.unit == "ns"
    return one.gain.amount


def of_id(found: list[Finding], name: str) -> list[Finding]:
    return [one for one in found if one.id == name]


def busy_stretch(trace: TraceBuilder, number: int, start: float, dur: float, name: str, launched: float = 1) -> None:
    trace.launch(number, launched)
    trace.kernel(number, start, dur, name=name)


def test_late_launches_are_host_bound_and_name_the_region(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("step", 0, 1000)
    trace.region("decoder", 100, 800)
    for number in range(8):  # each kernel ends 20 us before the next launch begins
        busy_stretch(trace, number, 110 + 100 * number, 70, f"k{number}", launched=105 + 100 * number)
    (one,) = found(trace, tmp_path)
    assert (one.id, one.where, one.page) == ("host-bound", ("step", "decoder"), "regions")
    assert (one.title, str(one.gain)) == (
        "Launch-bound: the GPU waits for launches", "up to 210.00 µs of the recording (27.3 %)",
    )  # fmt: skip
    assert one.sentence == (
        "7 of 7 gaps between GPU events end with a launch that came late, after 30.00 µs on average; half of the "
        "kernels take less than 70.00 µs, and a launch call takes 1.00 µs. In the recording the GPU was idle "
        "this way for 240.00 µs while decoder was open, including before the first GPU event and after the last."
    )
    assert "CUDA graphs" in one.attempt and one.link == {"region": "step > decoder"}


def test_few_long_waits_are_not_blamed_on_launches(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 1000, "a", launched=1)
    busy_stretch(trace, 2, 5010, 1000, "b", launched=5000)
    (one, *_) = found(trace, tmp_path)
    assert (one.id, one.title) == ("host-bound", "Host-bound: the GPU waits for the host")
    assert one.sentence == (
        "1 of 1 gaps between GPU events end with a launch that came late, after 4.000 ms on average."
    )
    assert "ahead of time" in one.attempt and one.link == {}


def test_idle_time_is_scaled_to_what_it_is_without_the_profiler(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("timed region", 0, 1100)
    busy_stretch(trace, 1, 10, 600, "a", launched=1)
    busy_stretch(trace, 2, 1010, 600, "b", launched=1000)  # 400 us idle in 1,600
    (one,) = of_id(found(trace, tmp_path, latency_us=1300), "host-bound")  # of which 100 us are real
    assert ns(one) == pytest.approx(100 * US)
    assert str(one.gain) == "up to 100.00 µs of each batch (7.7 %)"
    assert "(the gain is scaled to a batch without the profiler)" in one.sentence


def test_a_wait_for_the_gpu_names_the_operator_that_waits(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 500, "a", launched=1)
    trace.operator("aten::item", 100, 450)
    trace.operator("aten::_local_scalar_dense", 110, 430)
    trace.span("cuda_runtime", "cudaStreamSynchronize", 120, 400)
    busy_stretch(trace, 2, 700, 500, "b", launched=600)
    (one,) = of_id(found(trace, tmp_path), "synchronization-bound")
    assert ns(one) == 190 * US
    assert one.sentence == (
        "1 gap began while the host was waiting for the GPU. The trace holds 1 call that waits, 400.00 µs in all, "
        "mostly in aten::_local_scalar_dense."
    )


def test_the_call_itself_is_named_where_no_operators_were_recorded(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 500, "a", launched=1)
    trace.span("cuda_runtime", "cudaStreamSynchronize", 20, 500)
    busy_stretch(trace, 2, 700, 500, "b", launched=600)
    (one,) = of_id(found(trace, tmp_path), "synchronization-bound")
    assert one.sentence.endswith("mostly in cudaStreamSynchronize.")


def test_copies_of_pageable_memory_that_nothing_hides(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 1000, "a", launched=1)
    for number, start in ((2, 500), (3, 1010)):  # the first one hides behind the kernel
        trace.launch(number, 1, name="cudaMemcpyAsync")
        event = trace.kernel(number, start, 200, name="Memcpy HtoD (Pageable -> Device)", stream=8)
        event["cat"] = "gpu_memcpy"
        event["args"]["bytes"] = 1 << 20
    (one,) = of_id(found(trace, tmp_path), "exposed-copies")
    assert ns(one) == 200 * US
    assert one.sentence == "2 copies of 2.0 MiB in all, 2 of them from or to pageable memory."


def test_communication_that_nothing_hides(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 600, "a", launched=1)
    trace.launch(2, 2)
    trace.kernel(2, 310, 600, name="ncclDevKernel_AllReduce_Sum_f32_RING_LL()", stream=9)
    (one,) = of_id(found(trace, tmp_path), "exposed-communication")
    assert ns(one) == 300 * US
    assert one.sentence == "1 collective takes 600.00 µs, 50.0 % of it hidden by computation."


def test_chains_of_elementwise_kernels_save_all_but_the_longest(tmp_path: Path) -> None:
    trace = TraceBuilder()
    add = "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>(int)"
    for number, (start, dur, name) in enumerate(
        [(10, 100, add), (110, 40, add), (150, 60, add), (210, 100, "gemm"), (310, 50, add), (360, 100, "gemm")]
    ):
        busy_stretch(trace, number, start, dur, name, launched=number)
    (one,) = of_id(found(trace, tmp_path), "elementwise-chains")
    assert (ns(one), one.names) == (100 * US, (add,))
    assert one.sentence == (
        "3 elementwise kernels in 1 chain take 200.00 µs; fused, each chain would take as long as its longest kernel."
    )


def test_matrix_products_on_cuda_cores_unless_the_gpu_has_no_other(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 300, "ampere_sgemm_128x64_tn", launched=1)
    busy_stretch(trace, 2, 310, 100, "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32", launched=2)
    (one,) = of_id(found(trace, tmp_path), "fp32-matmul")
    assert one.gain is not None and one.gain.basis == "replayed"
    assert str(one.gain) == "up to 299.00 µs of the recording (74.8 %)"  # the span begins with its launch
    assert one.sentence == "1 kernel in fp32 on CUDA cores takes 300.00 µs, 75.0 % of all GPU time."
    old = trace.kineto().replace(
        b'"traceEvents"', b'"deviceProperties": [{"name": "P100", "computeMajor": 6}], "traceEvents"'
    )
    (tmp_path / "old.json").write_bytes(old)
    assert of_id(load_trace(tmp_path / "old.json").findings(), "fp32-matmul") == []


def test_a_kernel_that_holds_much_follows_what_could_give_time_back(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 300, "softmax_kernel", launched=1)
    for number in range(2, 9):
        busy_stretch(trace, number, 350 + 100 * (number - 2), 100, f"k{number}", launched=2 if number > 2 else 320)
    late, one = found(trace, tmp_path)
    assert (late.id, ns(late)) == ("host-bound", 40 * US)
    assert (one.id, one.title, one.link) == (
        "one-kernel", "One kernel: softmax_kernel", {"kernel": "softmax_kernel"},
    )  # fmt: skip
    assert one.sentence == "It ran once and takes 300.00 µs, 30.0 % of all GPU time."
    assert one.gain is not None and (one.gain.basis, one.gain.amount) == ("held", 300 * US)


def test_a_gpu_that_is_busy_with_many_things_gets_no_advice(tmp_path: Path) -> None:
    trace = TraceBuilder()
    for number in range(10):
        busy_stretch(trace, number, 10 + 100 * number, 100, f"k{number}", launched=number * 0.5)
    assert found(trace, tmp_path) == []


def test_a_host_run_names_its_longest_operator(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("encoder", 0, 1000)
    trace.operator("aten::addmm", 10, 600)
    for number in range(10):
        trace.operator(f"aten::op{number}", 620 + 20 * number, 20)
    (one,) = found(trace, tmp_path)
    assert (one.id, one.where, one.link) == ("one-operator", ("encoder",), {"operator": "aten::addmm"})
    assert str(one.gain) == "holds 600.00 µs of the recording (75.0 %)"


def layer(name: str, parent: str, depth: int, batch: int, ns: float, first: float) -> dict[str, object]:
    return {
        "layer": name, "type": "T", "variant": "", "parent": parent, "depth": depth, "batch_size": batch,
        "iterations": 5, "calls": 1, "median_ns": ns, "q1_ns": ns * 0.99, "q3_ns": ns * 1.01, "self_median_ns": ns,
        "per_image_ns": ns / batch, "efficiency": first / (ns / batch), "share": 0.5,
    }  # fmt: skip


def test_the_innermost_layer_that_loses_by_batching_is_named() -> None:
    rows = []
    for batch, inner, outer, whole in ((1, 10e6, 12e6, 100e6), (8, 160e6, 176e6, 800e6)):
        rows += [
            layer("(model)", "", 0, batch, whole, 100e6),
            layer("decoder", "(model)", 1, batch, outer, 12e6),
            layer("decoder.loop", "decoder", 2, batch, inner, 10e6),
        ]
    totals = LAYER_TOTALS.check(pd.DataFrame(rows))
    (one,) = of_layers(totals)
    assert (one.names, str(one.gain)) == (("decoder.loop",), "up to 80.000 ms of a forward (10.0 %)")
    assert one.sentence == "One item takes 10.000 ms at batch 1 and 20.000 ms at batch 8."
    assert of_layers(LAYER_TOTALS.empty()) == []


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: path.name)
def test_advice_on_real_captures_holds_together(path: Path) -> None:
    check(load_run(path))


@pytest.mark.parametrize(
    ("name", "first"), [("h200-vit_b-eager-fp32", "fp32-matmul"), ("h200-vit_b-bf16-compile", "host-bound")]
)
def test_advice_on_the_samples(name: str, first: str) -> None:
    assert check(load_run(Path(__file__).parents[2] / "traces" / name / "trace.json.gz"))[0].id == first


def check(run: Run) -> list[Finding]:
    assert run.trace is not None
    found = of_kind(run.findings, "advice")
    assert len({one.id for one in run.findings}) == len(run.findings)
    known = {(), *run.trace.regions()["path"]}
    for one in found:
        assert one.gain is not None and one.gain.share >= 0.01
        assert one.gain.share <= 1 or one.id in ("fp32-matmul", "one-kernel", "elementwise-chains")
        assert one.where in known
    bounds = [one.gain.share for one in found if one.gain and not one.id.startswith("one-")]
    assert bounds == sorted(bounds, reverse=True)
    assert not any("nan" in one.line for one in run.findings)
    return found


def test_a_blank_name_is_said_to_be_none(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region(" ", 0, 100)
    busy_stretch(trace, 1, 10, 80, "")
    said = [one.sentence for one in load_trace(trace.write(tmp_path / "t.json")).findings()]
    assert any("(no name)" in sentence for sentence in said)
