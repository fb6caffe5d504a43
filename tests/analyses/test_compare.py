"""Comparing two traces: matching, rounds, noise, and the numbers on the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from profiler_kit.analyses.compare.kernel_keys import host_key, kernel_kind
from profiler_kit.analyses.compare.measurements import Measured, Side, measured
from profiler_kit.analyses.compare.traces import Change, Comparison, compare
from profiler_kit.kernel_name import kernel_key
from profiler_kit.render.icicle import boxes
from profiler_kit.render.layout import layout
from profiler_kit.tables import diff, every_table
from profiler_kit.trace import load_trace
from tests.builders import TraceBuilder, real_traces

RUNS = Path(__file__).parents[2] / "traces"


def side(path: Path) -> Side:
    return load_trace(path).side()


def steps(
    folder: Path, name: str, gemm: list[float], *, relu: bool = False, outer: str = "ProfilerStep#{}", scale: float = 1
) -> Side:
    """One step per entry of `gemm`: region encoder with a kernel of that length (us) beside a fixed memset."""
    trace = TraceBuilder()
    correlation = 0
    for number, length in enumerate(gemm):
        at = 10_000.0 * number
        trace.region(outer.format(number), at, 5000 * scale)
        trace.region("encoder", at + 100, 400)
        trace.operator("aten::mm", at + 110, 50)
        trace.launch(correlation := correlation + 1, at + 120)
        trace.kernel(correlation, at + 1000, length, name="gemm")
        if relu:
            trace.launch(correlation := correlation + 1, at + 130)
            trace.kernel(correlation, at + 4000, 7, name=f"triton_poi_fused_relu_{number}")
        trace.launch(correlation := correlation + 1, at + 600)
        trace.kernel(correlation, at + 4500, 10, name="fill")
    trace.launch(correlation := correlation + 1, 10_000.0 * len(gemm))
    trace.kernel(correlation, 10_000.0 * len(gemm), 900, name="gemm")  # after the last step
    return side(trace.write(folder / f"{name}.json"))


def row(found: Comparison, kind: str, *path: str, metric: str = "gpu") -> Change:
    (one,) = [r for r in found.changes if (r.kind, r.path, r.metric) == (kind, path, metric)]
    return one


def test_values_are_per_step_whatever_their_number(tmp_path: Path) -> None:
    found = compare(
        steps(tmp_path, "a", [1000, 1002, 1001, 999, 1000]), steps(tmp_path, "b", [1101, 1100, 1099] * 3, relu=True)
    )
    assert (found.round, found.rounds, found.metric) == ("ProfilerStep", (5, 9), "gpu")
    encoder = row(found, "region", "ProfilerStep", "encoder")
    assert encoder.a is not None and encoder.b is not None
    assert (encoder.a.value_ns, encoder.b.value_ns) == (1_000_000, 1_107_000)
    assert (encoder.a.count, encoder.b.count, encoder.b.calls) == (1, 1, 9)
    assert encoder.a.sum_ns == 5_002_000 and encoder.a.mean_ns == 1_000_400
    assert encoder.status == "slower" and encoder.change == pytest.approx(0.107)
    gemm = row(found, "kernel", "gemm")  # what ran after the last step is left out
    assert gemm.a is not None and gemm.a.calls == 5 and gemm.delta_ns == 100_000
    relu = row(found, "kernel", "triton_poi_fused_relu")
    assert (relu.status, relu.a, relu.change) == ("added", None, None)
    assert relu.b is not None and relu.b.value_ns == 7000
    assert row(found, "kernel", "fill").status == "same"
    assert row(found, "operator", "aten::mm", metric="host").status == "same"
    assert row(found, "total", "GPU busy").delta_ns == 107_000
    assert [r.path for r in found.of("region", "gpu")] == [("ProfilerStep",), ("ProfilerStep", "encoder")]
    back = compare(steps(tmp_path, "b", [1100] * 3, relu=True), steps(tmp_path, "a", [1000] * 3))
    assert row(back, "kernel", "triton_poi_fused_relu").status == "removed"
    assert row(back, "region", "ProfilerStep", "encoder").status == "faster"


def test_a_repeated_outermost_region_takes_the_place_of_steps(tmp_path: Path) -> None:
    a = steps(tmp_path, "a", [1000, 1001, 1002], outer="forward")
    found = compare(a, steps(tmp_path, "b", [1200, 1201, 1202, 1203], outer="forward"))
    assert (found.round, found.rounds) == ("forward", (3, 4))
    assert row(found, "region", "forward", "encoder").delta_ns == 200_500
    mixed = compare(a, side_with_steps_around(tmp_path))
    assert mixed.round == "forward"
    assert row(mixed, "region", "forward", "encoder").status == "same"


def side_with_steps_around(folder: Path) -> Side:
    trace = TraceBuilder()
    for number in range(3):
        at = 10_000.0 * number
        trace.region(f"ProfilerStep#{number}", at - 5, 6000)
        trace.region("forward", at, 5000)
        trace.region("encoder", at + 100, 400)
        trace.launch(number, at + 120)
        trace.kernel(number, at + 1000, 1001, name="gemm")
    return side(trace.write(folder / "around.json"))


def test_without_rounds_regions_are_compared_per_instance(tmp_path: Path) -> None:
    def one(name: str, lengths: list[float]) -> Side:
        trace = TraceBuilder()
        trace.region("all", 0, 100_000)
        for number, length in enumerate(lengths):
            trace.region("block", 1000 * number, 500)
            trace.launch(number, 1000 * number + 1)
            trace.kernel(number, 1000 * number + 10, length)
        return side(trace.write(tmp_path / f"{name}.json"))

    found = compare(one("a", [100, 101, 100]), one("b", [100, 101, 100, 101, 100, 101]))
    assert found.round is None
    block = row(found, "region", "all", "block")
    assert block.status == "same" and block.a is not None and block.a.value_ns == 100_000
    gemm = row(found, "kernel", "gemm")  # in all: twice as often
    assert gemm.a is not None and gemm.b is not None
    assert (gemm.a.value_ns, gemm.b.value_ns) == (301_000, 603_000) and gemm.status == "slower"
    assert row(found, "total", "GPU busy").noise_ns is None


def test_a_region_that_runs_in_some_steps_only_counts_its_share(tmp_path: Path) -> None:
    def some(name: str, wanted: set[int]) -> Side:
        trace = TraceBuilder()
        for number in range(4):
            at = 10_000.0 * number
            trace.region(f"ProfilerStep#{number}", at, 5000)
            if number in wanted:
                trace.region("log", at + 10, 100)
                trace.launch(number, at + 20)
                trace.kernel(number, at + 200, 40)
        return side(trace.write(tmp_path / f"{name}.json"))

    found = compare(some("a", {0}), some("b", {0, 2}))
    log = row(found, "region", "ProfilerStep", "log")
    assert log.a is not None and log.b is not None
    assert (log.a.value_ns, log.b.value_ns) == (10_000, 20_000)
    assert (log.a.count, log.b.count) == (0.25, 0.5)


def test_the_noise_is_that_of_notched_box_plots() -> None:
    a, b = measured([100, 110, 120, 130]), measured([125, 130, 135])
    assert a.notch_ns == pytest.approx(1.57 * 15 / 2)  # quartiles 107.5 and 122.5
    assert b.notch_ns == pytest.approx(1.57 * 10 / np.sqrt(3))  # too few for quartiles: the range
    change = Change("region", ("x",), "gpu", a, b)
    assert change.noise_ns == pytest.approx(a.notch_ns + b.notch_ns)  # type: ignore[operator]
    assert (change.delta_ns, change.status) == (15, "same")
    assert Change("region", ("x",), "gpu", a, measured([150, 151, 152])).status == "slower"
    once = Change("region", ("x",), "gpu", measured([100]), measured([101]))
    assert (once.noise_ns, once.status) == (None, "slower")
    half = Change("region", ("x",), "gpu", measured([100]), b)
    assert half.noise_ns == pytest.approx(2 * b.notch_ns)  # type: ignore[operator]
    assert measured([100, 200], 4).value_ns == 37.5


def test_a_threshold_asks_totals_and_regions_beyond_noise_and_one_percent(tmp_path: Path) -> None:
    a = steps(tmp_path, "a", [1000, 1001, 1002])
    assert compare(a, steps(tmp_path, "b", [1040, 1041, 1042])).worst(0.05) is None
    worst = compare(a, steps(tmp_path, "b", [1100, 1101, 1102])).worst(0.05)
    assert worst is not None and worst.path == ("ProfilerStep", "encoder")
    noisy = compare(a, steps(tmp_path, "b", [900, 1100, 1900]))
    assert noisy.worst(0.05) is None  # the range of three is 1000 us
    small = steps(tmp_path, "s", [40, 40, 40])
    assert compare(small, steps(tmp_path, "t", [80, 80, 80])).worst(0.05) is not None
    same = compare(a, a)
    assert same.worst(0.0) is None and {r.status for r in same.changes} == {"same"}


def test_what_takes_less_than_one_percent_fails_no_threshold(tmp_path: Path) -> None:
    def tiny(name: str, length: float) -> Side:
        trace = TraceBuilder()
        for number in range(3):
            at = 10_000.0 * number
            trace.region(f"ProfilerStep#{number}", at, 5000)
            trace.region("tiny", at + 10, 50)
            trace.launch(10 * number, at + 20)
            trace.kernel(10 * number, at + 200, length)
            trace.launch(10 * number + 1, at + 100)
            trace.kernel(10 * number + 1, at + 1000, 3000)
        return side(trace.write(tmp_path / f"{name}.json"))

    found = compare(tiny("a", 4), tiny("b", 40))
    assert row(found, "region", "ProfilerStep", "tiny").status == "slower"
    assert found.worst(0.05) is None
    assert found.worst(0.01) is not None  # GPU busy and the step, by 1.2 %


def test_without_a_gpu_host_time_is_compared(tmp_path: Path) -> None:
    def cpu(name: str, length: float) -> Side:
        trace = TraceBuilder()
        for number in range(3):
            trace.region(f"ProfilerStep#{number}", 1000 * number, 10 + length)
            trace.operator("aten::mm", 1000 * number + 1, length)
        return side(trace.write(tmp_path / f"{name}.json"))

    found = compare(cpu("a", 100), cpu("b", 200))
    assert found.metric == "host" and found.of("region", "gpu") == []
    assert row(found, "operator", "aten::mm", metric="host").delta_ns == 100_000
    worst = found.worst(0.05)
    assert worst is not None and worst.change == pytest.approx(100 / 110)
    none = compare(cpu("a", 100), steps(tmp_path, "g", [100, 100, 100]))
    assert none.metric == "host" and row(none, "kernel", "gemm").status == "added"


def test_every_pair_of_real_captures_can_be_compared() -> None:
    sides = {path: side(path) for path in real_traces()}
    for a in sides.values():
        found = compare(a, a)
        assert {r.status for r in found.changes} <= {"same"}
        for b in sides.values():
            for r in compare(a, b).changes:
                values = [one.value_ns for one in (r.a, r.b) if one is not None]
                assert values and min(values) >= 0 and np.isfinite(values).all()


@pytest.mark.skipif(not real_traces(), reason="needs the real captures")
def test_kernels_of_all_steps_add_up_to_what_ran_inside_them() -> None:
    path = next(p for p in real_traces() if p.name == "ddp_rank0.json.gz")
    trace = load_trace(path)
    one = side(path)
    events = trace.gpu_events()
    inside = np.array([p[:1] == ("ProfilerStep",) for p in events["path"].cat.categories])[events["path"].cat.codes]
    expected = int(events["dur_ns"][inside].sum())
    for key in (kernel_key, kernel_kind):
        rows: list[Measured] = list(one.events_by(key).values())
        assert sum(r.sum_ns for r in rows) == expected
    busy = one.region_busy()
    totals = trace.regions().set_index("path")["busy_ns"]
    assert busy["ProfilerStep", "backward"].sum_ns == totals[("ProfilerStep", "backward")]
    assert busy[("ProfilerStep",)].sum_ns == totals[("ProfilerStep",)]


def test_the_two_sample_runs_say_the_right_thing() -> None:
    found = compare(*(side(RUNS / f"h200-vit_b-{name}" / "trace.json.gz") for name in ("eager-fp32", "bf16-compile")))
    encoder = row(found, "region", "ProfilerStep", "timed region", "image encoder")
    assert encoder.status == "faster" and encoder.change == pytest.approx(-0.80, abs=0.01)
    names = [r.path[0] for r in found.of("work")[:3]]
    assert names == ["matrix product", "elementwise", "copy"]
    assert found.worst(0.05) is None


@pytest.mark.parametrize(
    ("name", "key", "kind"),
    [
        (
            "void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl_nocast<at::native::CUDAFunctor_add"
            "<float> >(at::TensorIteratorBase&, at::native::CUDAFunctor_add<float> const&)::{lambda(int)#1}>(int, int)",
            "elementwise CUDAFunctor_add",
            "elementwise",
        ),
        (
            "void at::native::vectorized_elementwise_kernel<8, at::native::CUDAFunctor_add<c10::BFloat16>, "
            "std::array<char*, 3ul> >(int, at::native::CUDAFunctor_add<c10::BFloat16>, std::array<char*, 3ul>)",
            "vectorized_elementwise CUDAFunctor_add",
            "elementwise",
        ),
        (
            "void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float, false>(int, float)",
            "vectorized_layer_norm_kernel",
            "softmax and norms",
        ),
        (
            "void cutlass::Kernel2<cutlass_80_simt_sgemm_128x128_8x4_tt_align1>(cutlass_80_simt::Params)",
            "cutlass_80_simt_sgemm_128x128_8x4_tt_align1",
            "matrix products",
        ),
        ("triton_poi_fused_gelu_view_14", "triton_poi_fused_gelu_view", "compiled (Triton)"),
        ("nvjet_sm90_tst_256x128_64x4_TNT", "nvjet_sm90_tst_256x128_64x4_TNT", "matrix products"),
        ("ncclDevKernel_AllReduce_RING_LL(A<4096ul>)", "ncclDevKernel_AllReduce_RING_LL", "communication"),
        ("Memcpy HtoD (Pinned -> Device)", "Memcpy HtoD (Pinned -> Device)", "memory copies"),
        ("implicit_convolve_sgemm<__nv_bfloat16, 1024>(int)", "implicit_convolve_sgemm", "convolutions"),
        ("void pytorch_flash::flash_fwd_kernel<Traits<64> >(Params)", "flash_fwd_kernel", "attention"),
        ("gemm", "gemm", "matrix products"),
        ("<", "<", "other"),
        ("", "", "other"),
    ],
)  # fmt: skip
def test_kernels_are_matched_without_what_the_element_type_changes(name: str, key: str, kind: str) -> None:
    assert (kernel_key(name), kernel_kind(name)) == (key, kind)


def test_a_diff_names_kernels_as_the_tables_of_both_traces_do(tmp_path: Path) -> None:
    """One kernel in two element types: one row with both names; one that only a side has: its short name."""
    add = "void at::native::elementwise_kernel<{}, at::native::CUDAFunctor_add<{}>>(int)"
    gemm = "sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize128x128x8_stage3_warpsize2x2x1_ffma_aligna4_alignc4_cublas"
    sides = {}
    for letter, names in {"A": (add.format(4, "float"), gemm), "B": (add.format(8, "c10::BFloat16"),)}.items():
        trace = TraceBuilder()
        trace.region("forward", 0, 1000)
        for number, name in enumerate(names):
            trace.launch(number + 1, 10.0 * number)
            trace.kernel(number + 1, 100.0 * number, 60 - number, name=name)
        sides[letter] = load_trace(trace.write(tmp_path / f"{letter}.json"))
    found = compare(sides["A"].side(), sides["B"].side())
    short = {letter: layout(every_table()["kernels"].of_source(side))[0].cells for letter, side in sides.items()}
    assert short["B"] == ["elementwise CUDAFunctor_add bf16 [8]"]
    both = "elementwise CUDAFunctor_add f32 [4] → bf16 [8]"
    assert set(layout(diff.KERNELS.of_source({"B": found}))[0].cells) == {short["A"][1], both}
    tree = diff.TREE.of_source(sides)
    assert set(layout(tree)[0].cells) == {"forward", short["A"][1], both} == {box.name for box in boxes(tree)}


def test_what_compilation_makes_up_is_left_out() -> None:
    assert host_key("## Call CompiledFxGraph fsijaramtt5bj2z5asen7pkkkwggv4ew77m6e6hu23lldtgfgewp ##") == (
        "## Call CompiledFxGraph ##"
    )
    assert host_key("Torch-Compiled Region: 1/0") == "Torch-Compiled Region"
    assert host_key("image encoder") == "image encoder"


def test_operators_are_of_the_round_of_their_own_thread(tmp_path: Path) -> None:
    """Two ranks in one file: their steps overlap, and each one's operators count in its own."""
    trace = TraceBuilder()
    for rank in (0, 1):
        for number in range(2):
            at = 1000.0 * number + 10 * rank
            trace.region(f"ProfilerStep#{number}", at, 900, tid=rank)
            trace.operator("aten::mm", at + 100, 50 + 10 * rank + number, tid=rank)
    found = load_trace(trace.write(tmp_path / "t.json")).side().operator_time()["aten::mm",]
    assert sorted(found.samples.tolist()) == [50_000, 51_000, 60_000, 61_000]
    assert (found.value_ns, found.count) == (55_500, 1)


def test_without_rounds_the_sum_of_the_calls_is_compared(tmp_path: Path) -> None:
    """Most calls of a kernel take no time on a coarse clock; three of 1, 3 and 9 us have no median that divides 13."""
    trace = TraceBuilder()
    for name, lengths in (("coarse", (0, 0, 100)), ("odd", (1, 3, 9))):
        for number, length in enumerate(lengths):
            trace.kernel(None, 1000.0 * number + 500 * (name == "odd"), length, name=name)
    kernels = load_trace(trace.write(tmp_path / "t.json")).side().events_by(kernel_key)
    assert {path: one.value_ns for path, one in kernels.items()} == {("coarse",): 100_000, ("odd",): 13_000}
