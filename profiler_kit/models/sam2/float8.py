"""The widest products of SAM 2's blocks in float8, with scales that need no look at the data.

Float8 keeps its precision over five decades, so that a scale has to hold the largest value and no more: what a norm
gives is bounded by its own weights, and what GELU gives is clipped where float8 ends. Nothing is searched, so that
rounding is part of the norm or of GELU.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch

from profiler_kit.models.sam2.models import Sam2
from profiler_kit.workload.quantize import FLOAT8

Tensor = torch.Tensor
_LARGEST: Final = torch.finfo(FLOAT8).max


class BoundedFloat8Linear(torch.nn.Module):
    """A linear layer in float8 (e4m3), one scale for its weights and one for its input, float32 each.

    bound: no input is larger; what is gets clipped.
    """

    def __init__(self, linear: torch.nn.Linear, bound: float) -> None:
        super().__init__()
        weight = linear.weight.detach().float()
        scale = weight.abs().max() / _LARGEST
        self.register_buffer("weight", (weight / scale).to(FLOAT8))
        self.register_buffer("scale", scale)
        self.register_buffer("input_scale", weight.new_tensor(bound / _LARGEST))
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """bfloat16[..., K] to bfloat16[..., N]. On a CPU float32 multiplies the rounded values."""
        weight, scale = cast("Tensor", self.weight), cast("Tensor", self.scale)
        input_scale = cast("Tensor", self.input_scale)
        rows = (x.flatten(0, -2) / input_scale).clamp(-_LARGEST, _LARGEST).to(FLOAT8)
        if rows.is_cuda:
            out = torch._scaled_mm(
                rows,
                weight.t(),
                scale_a=input_scale,
                scale_b=scale,
                bias=self.bias,
                out_dtype=x.dtype,
                use_fast_accum=True,
            )
        else:
            out = ((rows.float() @ weight.float().t()) * input_scale * scale + self.bias).to(x.dtype)
        return out.view(*x.shape[:-1], -1)


def use_float8(sam: Sam2) -> Sam2:
    """Multiply in float8 what follows the norms and the GELU of each block: `qkv` and the MLP."""
    for block in cast("Any", sam.image_encoder.vision.backbone).blocks:
        block.attn.qkv = BoundedFloat8Linear(block.attn.qkv, _bound(block.layer_norm1))
        block.mlp.proj_in = BoundedFloat8Linear(block.mlp.proj_in, _bound(block.layer_norm2))
        block.mlp.proj_out = BoundedFloat8Linear(block.mlp.proj_out, _LARGEST)
    return sam


def _bound(norm: torch.nn.LayerNorm) -> float:
    """No value that the norm gives is larger: of n numbers with a mean square of 1 none is above the root of n."""
    root: float = norm.normalized_shape[0] ** 0.5
    return root * float(norm.weight.detach().abs().max()) + float(norm.bias.detach().abs().max())
