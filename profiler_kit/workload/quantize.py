"""Linear layers in int8 and float8; these change the result a little.

Weights: symmetric, one scale for each output channel, rounded once. Activations: symmetric, one scale for each row
(token), found in each forward; under torch.compile that search fuses with the normalisation or activation before it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.errors import WorkloadError

Tensor = torch.Tensor
FLOAT8: Final = torch.float8_e4m3fn
TINY: Final = 1e-12  # the scale of a row of zeros
_MULTIPLE: Final = 16  # the width of a layer must be a multiple, for both kinds of tensor core products
_ROWS: Final = 32  # torch._int_mm on a GPU takes more than 16


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
        count = len(rows)
        if rows.is_cuda and count < _ROWS:
            rows = F.pad(rows, (0, 0, 0, _ROWS - count))
        out = torch._int_mm(rows, weight.t())[:count] * row_scale * scale
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


def quantize_linears(model: torch.nn.Module, kind: Callable[[torch.nn.Linear], torch.nn.Module]) -> torch.nn.Module:
    """Replace by a layer of that kind every nn.Linear whose widths are multiples of 16.

    Subclasses stay: nn.MultiheadAttention reads the weights of its own. Raises WorkloadError when there is none.
    """
    found = [
        (owner, name, layer)
        for owner in model.modules()
        for name, layer in owner.named_children()
        if type(layer) is torch.nn.Linear and layer.in_features % _MULTIPLE == 0 and layer.out_features % _MULTIPLE == 0
    ]
    if not found:
        raise WorkloadError(
            f"{type(model).__name__}: nothing to quantize, expected an nn.Linear whose widths are multiples of "
            f"{_MULTIPLE}. Leave int8 and fp8 out."
        )
    for owner, name, layer in found:
        setattr(owner, name, kind(layer))
    return model
