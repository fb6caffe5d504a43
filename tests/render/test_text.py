"""Numbers as people read them: units that fit, fixed decimals, nothing rounded into a wrong unit."""

from __future__ import annotations

import pytest

from profiler_kit.names import short_kernel
from profiler_kit.text import (
    byte_unit,
    fmt_all_ns,
    fmt_bytes,
    fmt_count,
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
    assert fmt_percent(None) == "–"
    assert fmt_count(1234567) == "1,234,567"
    assert fmt_path(("timed region", "image encoder")) == "timed region > image encoder"


@pytest.mark.parametrize(
    ("name", "short"),
    [
        ("aten::addmm", "addmm"),
        ("sm80_xmma_gemm_f32f32_tn_n", "sm80_xmma_gemm_f32f32_tn_n"),
        ("void cutlass::Kernel2<cutlass_80_simt_sgemm_128x64>(Params)", "cutlass_80_simt_sgemm_128x64"),
        ("void at::native::elementwise_kernel<128, 2, at::native::gpu_kernel_impl<at::native::CUDAFunctor_add<float>",
         "elementwise_kernel CUDAFunctor_add"),
        ("void at::native::(anonymous namespace)::vectorized_layer_norm_kernel<float, float>(int)",
         "vectorized_layer_norm_kernel"),
        ("Memcpy HtoD (Pageable -> Device)", "Memcpy HtoD"),
        ("<", "<"),
        ("", ""),
    ],
)  # fmt: skip
def test_kernel_names_keep_what_tells(name: str, short: str) -> None:
    assert short_kernel(name) == short


def test_a_region_keeps_its_colour_whatever_else_there_is() -> None:
    few = region_colours(["image encoder", "my region"])
    many = region_colours(["zebra", "my region", "image encoder", "mask decoder"])
    assert few["image encoder"] == many["image encoder"]
    assert region_colours(["a", "b"]) == region_colours(["b", "a"])
    assert len(set(region_colours([f"r{i}" for i in range(len(HUES))]).values())) == len(HUES)
    assert len(region_colours([f"r{i}" for i in range(100)])) == 100
