"""Numbers as people read them: units that fit, fixed decimals, nothing rounded into a wrong unit."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from profiler_kit.kernel_name import demangled, kernel_dtype, short_kernel
from profiler_kit.text import (
    byte_unit,
    fmt_all_ns,
    fmt_bytes,
    fmt_count,
    fmt_factor,
    fmt_ns,
    fmt_path,
    fmt_percent,
    fmt_rate,
    time_unit,
)
from profiler_kit.timeline.palette import HUES, region_colours


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 ns"),
        (999, "999 ns"),
        (1_000, "1.00 µs"),
        (12_345_678, "12.346 ms"),
        (999_999_600, "1.000 s"),
        (3_600_000_000_000, "3,600.000 s"),
        (-1_500, "-1.50 µs"),
        (None, "–"),
    ],
)
def test_durations(value: int | None, text: str) -> None:
    assert fmt_ns(value) == text


def test_one_unit_for_a_column_lines_up() -> None:
    values = [12_345, 1_234_567_890, 0]
    assert time_unit(values) == "s"
    assert [fmt_ns(v, "ms") for v in values] == ["0.012 ms", "1,234.568 ms", "0.000 ms"]
    assert time_unit([]) == "ns"


def test_a_unit_of_its_own_where_the_common_one_loses_digits() -> None:
    assert fmt_all_ns([20_000_000_000, 300_000_000, 0]) == ["20.000 s", "0.300 s", "0.000 s"]
    assert fmt_all_ns([20_000_000_000, 2_300_000]) == ["20.000 s", "2.300 ms"]
    assert fmt_all_ns([]) == []


@pytest.mark.parametrize(
    ("value", "text"), [(1818.18, "1,818.2"), (92.17, "92.2"), (7.918, "7.92"), (0.0478, "0.0478"), (2e-5, "2.00e-05")]
)
def test_rates(value: float, text: str) -> None:
    assert fmt_rate(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0 B"), (1023, "1,023 B"), (1536, "1.5 KiB"), (5 << 20, "5.0 MiB"), (3 << 30, "3.00 GiB"), (None, "–")],
)
def test_sizes(value: int | None, text: str) -> None:
    assert fmt_bytes(value) == text


def test_sizes_of_a_column() -> None:
    assert byte_unit([1, 2 << 30]) == "GiB"
    assert fmt_bytes(1 << 29, "GiB") == "0.50 GiB"


def test_shares_counts_and_paths() -> None:
    assert fmt_percent(0.6254) == "62.5 %"
    assert fmt_percent(None) == fmt_percent(float("nan")) == "–"
    assert fmt_percent(-0.0001) == "0.0 %"
    assert fmt_count(1234567) == "1,234,567"
    assert fmt_path(("timed region", "image encoder")) == "timed region > image encoder"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("aten::addmm", "addmm"),
        ("sm80_xmma_gemm_f32f32_tn_n", "sm80_xmma_gemm_f32f32_tn_n"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64>(Params)", "cutlass_80_simt_sgemm_128x64"),
        ("void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl<at::native::CUDAFunctor_add<float>",
         "elementwise CUDAFunctor_add f32 [128,2]"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int)",
         "vectorized_layer_norm_kernel f32"),
        ("void at::native::elementwise_kernel<128, 4, at::native::gpu_kernel_impl<at::native::direct_copy_kernel_cuda("
         "at::TensorIteratorBase&)::{lambda()#3}::operator()() const::{lambda(c10::BFloat16)#1}>(at:"
         ":T&)::{lambda(int)#1}>",
         "elementwise direct_copy_kernel_cuda bf16 [128,4]"),
        ("void at::native::vectorized_elementwise_kernel<4, at::native::AUnaryFunctor<long, long, bool, at::native::"
         "(anonymous namespace)::CompareEqFunctor<long> >, std::array<char*, 2ul> >(int, std::array<char*, 2ul>)",
         "vectorized_elementwise AUnary CompareEqFunctor i64,bool [4]"),
        ("void at::native::reduce_kernel<512, 1, at::native::ReduceOp<float, at::native::MeanOps<flo"
         "at, float>, unsigned int> >()",
         "reduce_kernel MeanOps f32 [512,1]"),
        ("void at::native::(anonymous namespace)::CatArrayBatchedCopy<at::native::OpaqueType<4u>, un"
         "signed int, 3, 128, 1>(char*)",
         "CatArrayBatchedCopy 4B [3,128,1]"),
        ("void cudnn::ops::nchwToNhwcKernel<float, float, false, (cudnnKernelDataType_t)0>(P<float>)",
         "nchwToNhwcKernel f32"),
        ("void pytorch_flash::flash_fwd_kernel<pytorch_flash::Flash_fwd_kernel_traits<64, 128, 128, 4, false, false, "
         "cutlass::bfloat16_t, pytorch_flash::Traits<64> >, false, true>(pytorch_flash::P)",
         "flash_fwd_kernel bf16 [64,128,128,4]"),
        ("nvjet_sm90_tst_128x224_64x4_2x1_v_bz_coopA_bias_TNT", "nvjet bf16 TNT 128x224x64 s4 2x1 v coopA bias"),
        ("sm80_xmma_gemm_f32f32_f32f32_f32_tn_n_tilesize128x64x8_stage3_warpsize2x2x1_ffma_aligna4_a"
         "lignc4_execute_kernel"
         "__5x_cublas", "xmma_gemm f32 tn_n 128x64x8 s3 sm80"),
        ("sm90_xmma_fprop_implicit_gemm_f32f32_tf32f32_f32_nhwckrsc_nhwc_tilesize64x256x32_warpgroup"
         "size1x1x1_g1_execute"
         "_segment_k_on_kernel__5x_cudnn", "xmma_fprop_implicit_gemm tf32 nhwckrsc_nhwc 64x256x32 segmentK sm90"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_64x64_8x5_tn_align1>(cutlass_80_simt_sgemm_64x"
         "64_8x5_tn_align1::Params)",
         "cutlass simt_sgemm tn 64x64x8 s5 align1 sm80"),
        ("ampere_bf16_s16816gemm_bf16_128x64_ldg8_relu_f2f_stages_64x4_tn",
         "ampere bf16_s16816gemm_bf16 tn 128x64x64 s4 relu"),
        ("volta_sgemm_128x32_nt", "volta sgemm nt 128x32"),
        ("Cijk_Alik_Bljk_BBS_BH_UserArgs_MT64x16x32_MI16x16x1_SN_LDSB0", "Cijk Alik_Bljk BBS_BH 64x16x32"),
        ("triton_poi_fused_gelu_view_14", "triton_poi_fused_gelu_view_14"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevKernelArgsStorage<4096ul>)",
         "ncclDevKernel_AllReduce_Sum_f32_RING_LL"),
        ("_ZN2at6native29vectorized_elementwise_kernelILi4ENS0_15CUDAFunctor_addIfEESt5arrayIPcLm3EEEEviT0_T1_",
         "vectorized_elementwise CUDAFunctor_add f32 [4]"),
        ("_ZN2at6native12_GLOBAL__N_128vectorized_layer_norm_kernelIffLb0EEEviT0_PKT_",
         "vectorized_layer_norm_kernel f32"),
        ("_Z6vecAddPKfS0_Pfi", "vecAdd"),
        ("_ZN9", "_ZN9"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD (Pageable -> Device)"),
        ("<", "<"),
        ("", ""),
    ],
)  # fmt: skip
def test_kernel_names_keep_what_tells(name: str, short: str) -> None:
    assert short_kernel(name) == short


@pytest.mark.parametrize(
    ("name", "dtype"),
    [
        ("nvjet_sm90_tst_128x224_64x4_2x1_v_bz_coopA_bias_TNT", "bf16"),
        ("volta_sgemm_128x32_nt", "f32"),
        ("ampere_fp16_s16816gemm_fp16_128x64_ldg8_f2f_stages_64x4_tn", "f16"),
        ("void f<c10::Half, float>(int)", "f16"),
        ("ncclDevKernel_AllReduce_Sum_f32_RING_LL(x)", "f32"),
        ("triton_poi_fused_gelu_view_14", ""),
    ],
)
def test_a_name_tells_its_dtype(name: str, dtype: str) -> None:
    assert kernel_dtype(name) == dtype


@given(st.text(alphabet="_ZNIE4fbSLPT0<>(),: x", max_size=40))
def test_any_text_has_a_short_name(text: str) -> None:
    assert short_kernel("_Z" + text)
    assert bool(short_kernel(text)) == bool(text)
    assert isinstance(demangled("_ZN1a" + text), str)


def test_a_region_keeps_its_colour_whatever_else_there_is() -> None:
    few = region_colours(["image encoder", "my region"])
    many = region_colours(["zebra", "my region", "image encoder", "mask decoder"])
    assert few["image encoder"] == many["image encoder"]
    assert region_colours(["a", "b"]) == region_colours(["b", "a"])
    assert len(set(region_colours([f"r{i}" for i in range(len(HUES))]).values())) == len(HUES)
    assert len(set(region_colours([f"r{i}" for i in range(2 * len(HUES))]).values())) == 2 * len(HUES)
    assert len(region_colours([f"r{i}" for i in range(100)])) == 100


def test_a_small_factor_is_not_zero() -> None:
    assert [fmt_factor(value) for value in (0.0, 0.00312, 0.0066, 1.0, 4.919)] == [
        "0.00",
        "0.0031",
        "0.01",
        "1.00",
        "4.92",
    ]
