"""GELU as operators that torch.compile and AOTInductor know: Triton on a GPU, plain torch elsewhere (SAM -> SAM)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch.library import triton_op, wrap_triton

from profiler_kit.sam.gelu_kernels import gelu_kernel, gelu_rows_kernel
from profiler_kit.sam.quantize import FLOAT8, TINY, Float8Linear, float8_rows

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
_BLOCK: Final = 4096


@triton_op("profiler_kit::gelu", mutates_args={})
def gelu(x: Tensor) -> Tensor:
    """torch's GELU with erf; any shape."""
    if x.device.type != "cuda":
        return F.gelu(x)
    x = x.contiguous()
    out, count = torch.empty_like(x), x.numel()
    wrap_triton(gelu_kernel)[(-(-count // _BLOCK),)](x, out, count, BLOCK=_BLOCK, num_warps=8)
    return out


@triton_op("profiler_kit::gelu_float8_rows", mutates_args={})
def gelu_float8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """float8_rows(gelu(x)): float[M, K] to float8[M, K] and float32[M, 1], one pass over memory."""
    if x.device.type != "cuda":
        return float8_rows(F.gelu(x))
    x = x.contiguous()
    rows, width = x.shape
    out = torch.empty_like(x, dtype=FLOAT8)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    block = 1 << (width - 1).bit_length()
    largest = torch.finfo(FLOAT8).max
    wrap_triton(gelu_rows_kernel)[(rows,)](
        x, out, scale, width, BLOCK=block, LARGEST=largest, TINY=TINY, num_warps=min(16, max(4, block // 512))
    )
    return out, scale


class FusedGelu(torch.nn.Module):
    """torch.nn.GELU as the operator `gelu`."""

    def forward(self, x: Tensor) -> Tensor:
        """float[...] to the same."""
        out: Tensor = gelu(x)
        return out


class Float8Mlp(torch.nn.Module):
    """An MLP in float8 whose GELU and the rounding of its answer are one operator."""

    def __init__(self, lin1: Float8Linear, lin2: Float8Linear) -> None:
        super().__init__()
        self.lin1, self.lin2 = lin1, lin2

    def forward(self, x: Tensor) -> Tensor:
        """bfloat16[..., C] to the same."""
        hidden = self.lin1(x)
        rows, scale = gelu_float8_rows(hidden.flatten(0, -2))
        return self.lin2.multiply(rows, scale, x.dtype).view(x.shape)


def use_fused_gelu(sam: Sam) -> Sam:
    """Compute the GELU of every MLP of the image encoder with one operator; in float8 together with the rounding."""
    for block in sam.image_encoder.blocks:
        lin1, lin2 = block.mlp.lin1, block.mlp.lin2
        if isinstance(lin1, Float8Linear) and isinstance(lin2, Float8Linear):
            block.mlp = Float8Mlp(lin1, lin2)
        else:
            block.mlp.act = FusedGelu()
    return sam
