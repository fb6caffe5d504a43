"""Quantize or prune the products of the image encoder's blocks (SAM -> SAM); these change the result a little.

Weights: symmetric, one scale for each output channel, rounded once. Activations: symmetric, one scale for each row
(token), found in each forward; under torch.compile that search fuses with the normalisation or activation before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import torch

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
FLOAT8: Final = torch.float8_e4m3fn
TINY: Final = 1e-12  # the scale of a row of zeros
_PRODUCTS: Final = ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2")


class Int8Linear(torch.nn.Module):
    """A linear layer in int8 with int32 sums: weight int8[N, K], scale float32[N], input of any float dtype."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        quantized, scale = int8_rows(linear.weight.detach())
        self.register_buffer("weight", quantized)
        self.register_buffer("scale", scale.squeeze(1))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """float[..., K] to float[..., N] of the same dtype."""
        weight, scale = cast(Tensor, self.weight), cast(Tensor, self.scale)
        rows, row_scale = int8_rows(x.flatten(0, -2))
        out = torch._int_mm(rows, weight.t()) * row_scale * scale
        out = out if self.bias is None else out + self.bias
        return out.to(x.dtype).view(*x.shape[:-1], -1)


class Float8Linear(torch.nn.Module):
    """A linear layer in float8 (e4m3) with row-wise scales: weight[N, K], scale float32[1, N], input bfloat16."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        quantized, scale = float8_rows(linear.weight.detach())
        self.register_buffer("weight", quantized)
        self.register_buffer("scale", scale.t().contiguous())
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """bfloat16[..., K] to bfloat16[..., N]."""
        rows, row_scale = float8_rows(x.flatten(0, -2))
        return self.multiply(rows, row_scale, x.dtype).view(*x.shape[:-1], -1)

    def multiply(self, rows: Tensor, row_scale: Tensor, dtype: torch.dtype) -> Tensor:
        """float8[M, K] with scales float32[M, 1] to dtype[M, N]. On a CPU float32 multiplies the rounded values."""
        weight, scale = cast(Tensor, self.weight), cast(Tensor, self.scale)
        if rows.is_cuda:
            return torch._scaled_mm(
                rows,
                weight.t(),
                scale_a=row_scale,
                scale_b=scale,
                bias=self.bias,
                out_dtype=dtype,
                use_fast_accum=True,
            )
        out = (rows.float() @ weight.float().t()) * row_scale * scale
        return (out if self.bias is None else out + self.bias).to(dtype)


def int8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """float[M, K] to int8[M, K] and float32[M, 1] scales whose product is closest to it."""
    scale = x.abs().amax(dim=1, keepdim=True).float().clamp(min=TINY) / 127
    return (x.float() / scale).round().clamp(-127, 127).to(torch.int8), scale


def float8_rows(x: Tensor) -> tuple[Tensor, Tensor]:
    """float[M, K] to float8_e4m3fn[M, K] and float32[M, 1] scales whose product is closest to it."""
    largest = torch.finfo(FLOAT8).max
    scale = x.abs().amax(dim=1, keepdim=True).float().clamp(min=TINY) / largest
    return (x.float() / scale).clamp(-largest, largest).to(FLOAT8), scale


def prune_24(weight: Tensor) -> Tensor:
    """float[N, K] with the two smaller of every four neighbours in a row set to zero (the 2:4 pattern)."""
    groups = weight.reshape(-1, 4)
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.abs().topk(2, dim=1).indices, True)
    return torch.where(keep, groups, 0).view_as(weight)


def quantize_int8(sam: Sam) -> Sam:
    """All four products of every block in int8."""
    return _replace(sam, _PRODUCTS, Int8Linear)


def quantize_float8(sam: Sam) -> Sam:
    """All four products of every block in float8 with row-wise scales."""
    return _replace(sam, _PRODUCTS, Float8Linear)


def sparsify_24(sam: Sam) -> Sam:
    """Both products of every MLP (two thirds of all) pruned to 2:4 by size, without fine-tuning, and run sparse."""

    def sparse(linear: torch.nn.Linear) -> torch.nn.Linear:
        pruned = torch.sparse.to_sparse_semi_structured(prune_24(linear.weight.detach()))
        linear.weight = torch.nn.Parameter(pruned, requires_grad=False)
        return linear

    return _replace(sam, ("mlp.lin1", "mlp.lin2"), sparse)


def _replace(sam: Sam, names: tuple[str, ...], change: Callable[[torch.nn.Linear], torch.nn.Module]) -> Sam:
    for block in sam.image_encoder.blocks:
        for name in names:
            home, _, leaf = name.rpartition(".")
            owner = block.get_submodule(home)
            setattr(owner, leaf, change(getattr(owner, leaf)))
    return sam
