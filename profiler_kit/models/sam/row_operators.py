"""Operators over rows that torch.compile and AOTInductor know: Triton on a GPU, plain torch elsewhere."""

from __future__ import annotations

from typing import Final

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch.library import triton_op, wrap_triton

from profiler_kit.models.sam.row_kernels import gelu_kernel, norm_kernel, round_rows_kernel
from profiler_kit.workload.quantize import FLOAT8, TINY, float8_rows

Tensor = torch.Tensor
_BLOCK: Final = 8192
_LARGEST: Final = torch.finfo(FLOAT8).max


@triton_op("profiler_kit::gelu", mutates_args={})
def gelu(x: Tensor) -> Tensor:
    """torch's GELU with erf; any shape."""
    if x.device.type != "cuda":
        return F.gelu(x)
    x = x.contiguous()
    out, count = torch.empty_like(x), x.numel()
    wrap_triton(gelu_kernel)[(-(-count // _BLOCK),)](x, out, count, BLOCK=_BLOCK, num_warps=8)
    return out


@triton_op("profiler_kit::round_rows", mutates_args={})
def round_rows(x: Tensor, after_gelu: bool) -> tuple[Tensor, Tensor]:
    """float8_rows(x), or of its GELU (to 7e-5): float[M, K] to float8[M, K] and float32[M, 1]."""
    if x.device.type != "cuda":
        return float8_rows(F.gelu(x) if after_gelu else x)
    x = x.contiguous()
    out, scale = torch.empty_like(x, dtype=FLOAT8), torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    width, first, rest, warps = _parts(x)
    wrap_triton(round_rows_kernel)[(len(x),)](
        x, out, scale, GELU=after_gelu, WIDTH=width, WIDTH_A=first, WIDTH_B=rest, LARGEST=_LARGEST, TINY=TINY,
        num_warps=warps,
    )  # fmt: skip
    return out, scale


@triton_op("profiler_kit::add_norm", mutates_args={})
def add_norm(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """x + more and its LayerNorm: two float[M, K] to two. `more` may have fewer rows, which repeat."""
    if x.device.type != "cuda":
        total = _sum(x, more)
        return total, F.layer_norm(total, (x.shape[-1],), weight, bias, eps)
    x, more = x.contiguous(), more.contiguous()
    total, out = torch.empty_like(x), torch.empty_like(x)
    _launch_norm(x, more, weight, bias, total, out, None, eps)
    return total, out


@triton_op("profiler_kit::add_norm_float8", mutates_args={})
def add_norm_float8(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """x + more as add_norm takes it, and float8_rows of its LayerNorm: float[M, K], float8[M, K] and float32[M, 1]."""
    if x.device.type != "cuda":
        total = _sum(x, more)
        return total, *float8_rows(F.layer_norm(total, (x.shape[-1],), weight, bias, eps))
    x, more = x.contiguous(), more.contiguous()
    total, out = torch.empty_like(x), torch.empty_like(x, dtype=FLOAT8)
    scale = torch.empty(len(x), 1, dtype=torch.float32, device=x.device)
    _launch_norm(x, more, weight, bias, total, out, scale, eps)
    return total, out, scale


def _sum(x: Tensor, more: Tensor) -> Tensor:
    return (x.reshape(-1, *more.shape) + more).view_as(x)


def _launch_norm(
    x: Tensor, more: Tensor, weight: Tensor, bias: Tensor, total: Tensor, out: Tensor, scale: Tensor | None, eps: float
) -> None:
    width, first, rest, warps = _parts(x)
    wrap_triton(norm_kernel)[(len(x),)](
        x, more, weight, bias, total, out, weight if scale is None else scale, len(more), EPS=eps,
        ROUND=scale is not None, WIDTH=width, WIDTH_A=first, WIDTH_B=rest, LARGEST=_LARGEST, TINY=TINY, num_warps=warps,
    )  # fmt: skip


def _parts(x: Tensor) -> tuple[int, int, int, int]:
    """The width of a row, its two parts, and how many warps hold it: the fastest on an H200 for 768 to 5120."""
    width = x.shape[-1]
    first = 1 << (width.bit_length() - 1)
    return width, first, width - first, max(1, first // 1024)
