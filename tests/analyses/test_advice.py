"""Advice finds the one cause a trace was made with, says how much it holds, and stays silent about the rest."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from profiler_kit.analyses.gpu.batch_load import BatchLoad
from profiler_kit.analyses.layers.totals import LAYER_TOTALS
from profiler_kit.findings.advice import Advice, advise_layers
from profiler_kit.render.advice import hint, markdown_list
from profiler_kit.trace import Trace, load_trace
from tests.builders import TraceBuilder, real_traces

US = 1_000


def found(builder: TraceBuilder, folder: Path, load: BatchLoad | None = None) -> list[Advice]:
    return load_trace(builder.write(folder / "trace.json")).advice(load)


def busy_stretch(trace: TraceBuilder, number: int, start: float, dur: float, name: str, launched: float = 1) -> None:
    trace.launch(number, launched)
    trace.kernel(number, start, dur, name=name)


def test_late_launches_are_host_bound_and_name_the_region(tmp_path: Path) -> None:
    trace = TraceBuilder()
    trace.region("step", 0, 1000)
    trace.region("decoder", 100, 800)
    for number in range(8):  # each kernel ends 20 us before the next launch begins
        busy_stretch(trace, number, 110 + 100 * number, 70, f"k{number}", launched=105 + 100 * number)
    advice = found(trace, tmp_path)
    assert [one.kind for one in advice] == ["host-bound"]
    (one,) = advice
    assert (one.gain_ns, one.whole.ns, one.path, one.count) == (7 * 30 * US, 770 * US, ("step", "decoder"), 7)
    said = hint(one)
    assert (said.title, said.gain, said.page, said.region) == (
        "The GPU waits for the host", "210.00 µs of the recording", "regions", "step > decoder",
    )  # fmt: skip
    assert "All of it in decoder." in said.evidence and "CUDA graphs" in said.attempt


def test_few_long_waits_are_not_blamed_on_launches(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 1000, "a", launched=1)
    busy_stretch(trace, 2, 5010, 1000, "b", launched=5000)
    (one, *_) = found(trace, tmp_path)
    assert one.kind == "host-bound" and one.mean_ns == 4000 * US
    assert "ahead of time" in hint(one).attempt and "launching" not in hint(one).evidence


def test_idle_time_is_scaled_to_what_it_is_without_the_profiler(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 600, "a", launched=1)
    busy_stretch(trace, 2, 1010, 600, "b", launched=1000)  # 400 us idle in 1,600
    load = BatchLoad("step", 1, gpu_ns=1200 * US, latency_ns=1300 * US)  # of which 100 us are real
    one = next(one for one in found(trace, tmp_path, load) if one.kind == "host-bound")
    assert one.gain_ns == pytest.approx(100 * US)
    assert one.whole.ns == pytest.approx(1300 * US) and one.whole.unit == "batch"
    assert "scaled to a batch without the profiler" in hint(one).evidence


def test_a_wait_for_the_gpu_names_the_operator_that_waits(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 500, "a", launched=1)
    trace.operator("aten::item", 100, 450)
    trace.operator("aten::_local_scalar_dense", 110, 430)
    trace.span("cuda_runtime", "cudaStreamSynchronize", 120, 400)
    busy_stretch(trace, 2, 700, 500, "b", launched=600)
    advice = found(trace, tmp_path)
    one = next(one for one in advice if one.kind == "synchronising")
    assert (one.gain_ns, one.names, one.value) == (190 * US, ("aten::_local_scalar_dense",), 400 * US)
    assert "aten::_local_scalar_dense" in hint(one).evidence and "In 1 gap " in hint(one).evidence


def test_copies_of_pageable_memory_that_nothing_hides(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 1000, "a", launched=1)
    for number, start in ((2, 500), (3, 1010)):  # the first one hides behind the kernel
        trace.launch(number, 1, name="cudaMemcpyAsync")
        event = trace.kernel(number, start, 200, name="Memcpy HtoD (Pageable -> Device)", stream=8)
        event["cat"] = "gpu_memcpy"
        event["args"]["bytes"] = 1 << 20
    one = next(one for one in found(trace, tmp_path) if one.kind == "exposed copies")
    assert (one.gain_ns, one.count, one.other, one.value) == (200 * US, 2, 2, 2 << 20)
    assert "2 copies of 2.0 MiB, 2 of them from or to pageable memory." in hint(one).evidence


def test_communication_that_nothing_hides(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 600, "a", launched=1)
    trace.launch(2, 2)
    trace.kernel(2, 310, 600, name="ncclDevKernel_AllReduce_Sum_f32_RING_LL()", stream=9)
    one = next(one for one in found(trace, tmp_path) if one.kind == "exposed communication")
    assert (one.gain_ns, one.value) == (300 * US, 600 * US)
    assert "1 collective take" in hint(one).evidence and "50.0 % of that" in hint(one).evidence


def test_chains_of_elementwise_kernels_save_all_but_the_longest(tmp_path: Path) -> None:
    trace = TraceBuilder()
    add = "void at::native::vectorized_elementwise_kernel<4, at::native::CUDAFunctor_add<float>>(int)"
    for number, (start, dur, name) in enumerate(
        [(10, 100, add), (110, 40, add), (150, 60, add), (210, 100, "gemm"), (310, 50, add), (360, 100, "gemm")]
    ):
        busy_stretch(trace, number, start, dur, name, launched=number)
    one = next(one for one in found(trace, tmp_path) if one.kind == "elementwise chains")
    assert (one.gain_ns, one.count, one.of, one.value) == (100 * US, 3, 1, 200 * US)


def test_matrix_products_on_cuda_cores_unless_the_gpu_has_no_other(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 300, "ampere_sgemm_128x64_tn", launched=1)
    busy_stretch(trace, 2, 310, 100, "sm80_xmma_gemm_f32f32_tf32f32_f32_tn_n_tilesize128x128x32", launched=2)
    one = next(one for one in found(trace, tmp_path) if one.kind == "fp32 products")
    assert (one.gain_ns, one.count, one.other) == (150 * US, 1, 0.75)
    old = trace.kineto().replace(
        b'"traceEvents"', b'"deviceProperties": [{"name": "P100", "computeMajor": 6}], "traceEvents"'
    )
    (tmp_path / "old.json").write_bytes(old)
    assert "fp32 products" not in [one.kind for one in load_trace(tmp_path / "old.json").advice()]


def test_one_kernel_that_holds_much(tmp_path: Path) -> None:
    trace = TraceBuilder()
    busy_stretch(trace, 1, 10, 300, "softmax_kernel", launched=1)
    for number in range(2, 9):
        busy_stretch(trace, number, 310 + 100 * (number - 2), 100, f"k{number}", launched=2)
    (one,) = found(trace, tmp_path)
    assert (one.kind, one.gain_ns, one.names) == ("one kernel", 150 * US, ("softmax_kernel",))
    assert hint(one).kernel == "softmax_kernel" and hint(one).title == "One kernel: softmax_kernel"


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
    assert (one.kind, one.gain_ns, one.whole.ns, one.path) == ("one operator", 300 * US, 800 * US, ("encoder",))
    assert hint(one).operator == "aten::addmm"


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
    (one,) = advise_layers(totals)
    assert (one.names, one.gain_ns, one.whole.ns) == (("decoder.loop",), 80e6, 800e6)
    assert hint(one).evidence == "An image takes 10.000 ms at batch 1 and 20.000 ms at batch 8."
    assert advise_layers(LAYER_TOTALS.empty()) == []


@pytest.mark.parametrize("path", real_traces(), ids=lambda path: path.name)
def test_advice_on_real_captures_holds_together(path: Path) -> None:
    trace = load_trace(path)
    check(trace)


@pytest.mark.parametrize("name", ["h200-vit_b-eager-fp32", "h200-vit_b-bf16-compile"])
def test_advice_on_the_samples(name: str) -> None:
    trace = load_trace(Path(__file__).parents[2] / "traces" / name / "trace.json.gz")
    first = check(trace)[0].kind
    assert first == ("fp32 products" if "fp32" in name else "host-bound")


def check(trace: Trace) -> list[Advice]:
    advice = trace.advice()
    assert [one.share for one in advice] == sorted((one.share for one in advice), reverse=True)
    assert len({one.kind for one in advice}) == len(advice)
    known = set(trace.regions()["path"])
    for one in advice:
        assert 0.01 <= one.share <= 1 or one.kind in ("fp32 products", "one kernel", "elementwise chains")
        assert one.inside_ns <= one.gain_ns * 1.000001
        assert one.path == () or one.path in known
    assert all("nan" not in line for line in markdown_list(advice))
    return advice
