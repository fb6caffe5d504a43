"""Names cut to a width stay apart."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.names import differ_at, fit_names, kernel_names, names_of_sides

GEMM = "sm80_xmma_gemm_f32f32_f32f32_f32_{}_n_tilesize{}_stage3_warpsize2x2x1_ffma_aligna4_alignc4_cublas"
GRAPH = "## Call CompiledFxGraph {} ##"


def test_the_part_that_tells_apart_stays() -> None:
    names = [GEMM.format("tn", "128x128x8"), GEMM.format("tn", "128x64x8"), GEMM.format("nn", "64x64x8"), "softmax"]
    assert differ_at(names) == [50, 50, 33, 1]
    assert fit_names(names, 40) == [
        "sm80_xmma_gemm_f32f32…8x128x8_stage3_wa…",
        "sm80_xmma_gemm_f32f32…8x64x8_stage3_war…",
        "sm80_xmma_gemm_f32f32…2_nn_n_tilesize64…",
        "softmax",
    ]


def test_two_graphs_are_two_names() -> None:
    first, second = fit_names([GRAPH.format("fsijaramtt5bj2z5asen7pkkk"), GRAPH.format("fg5skk4ftawszlr73pevq")], 30)
    assert first != second and "ijaram" in first and "g5skk" in second


def test_kernels_that_differ_in_template_arguments_only_keep_them() -> None:
    assert kernel_names(["void f<A>(P)", "void f<B>(P)", "void g<A>(P)", "void g<A>(P)"]) == [
        "f · A>(P)", "f · B>(P)", "g", "g",
    ]  # fmt: skip


def test_kernels_of_several_runs_share_the_words_they_begin_with() -> None:
    add = "void at::native::elementwise_kernel<128, {}, at::native::CUDAFunctor_add<{}>>(int)"
    floats, halves = add.format(2, "float"), add.format(4, "c10::BFloat16")
    assert names_of_sides([[floats], [halves, floats]]) == "elementwise CUDAFunctor_add f32 [128,2] → bf16 [128,4], …"
    assert names_of_sides([[floats], [floats]]) == names_of_sides([[], [floats]]) == kernel_names([floats])[0]
    assert names_of_sides([["gemm_1"], ["gemm_2"], ["gemm_1"]]) == "gemm_1 → gemm_2"
    assert names_of_sides([["f"], ["f", "g"]]) == "f → f, …"
    assert names_of_sides([[], []]) == ""


@given(st.lists(st.text(alphabet="ab_", min_size=0, max_size=60), max_size=6), st.integers(8, 50))
def test_nothing_is_longer_than_asked(names: list[str], width: int) -> None:
    assert all(len(fitted) <= width for fitted in fit_names(names, width))
    assert [f for f, n in zip(fit_names(names, width), names, strict=True) if len(n) <= width] == [
        n for n in names if len(n) <= width
    ]
