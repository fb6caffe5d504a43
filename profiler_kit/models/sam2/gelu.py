"""GELU inside the matrix product before it, which otherwise writes and reads the widest tensor of a block once more."""

from __future__ import annotations

from typing import Any, cast

import torch

from profiler_kit.models.sam2.models import Sam2
from profiler_kit.workload.optimizations import StandIn

Tensor = torch.Tensor


@torch.library.custom_op("profiler_kit::linear_gelu", mutates_args=())
def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU(x W + b), float[..., K] to float[..., N]. On a GPU cuBLAS does both, with GELU's tanh form (5e-4 off).

    An operator of our own: torch.compile would take torch's apart again.
    """
    rows: Tensor = torch._addmm_activation(bias, x.flatten(0, -2), weight.t(), use_gelu=True)
    return rows.view(*x.shape[:-1], -1)


@linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty((*x.shape[:-1], len(weight)))


class LinearGelu(StandIn):
    """A linear layer and the GELU behind it."""

    weight: Tensor
    bias: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """float[..., K] to float[..., N]."""
        return cast("Tensor", linear_gelu(x, self.weight, self.bias))


def fuse_gelu(sam: Sam2) -> Sam2:
    """Let the first product of each block's MLP give its GELU."""
    for block in cast("Any", sam.image_encoder.vision.backbone).blocks:
        block.mlp.proj_in, block.mlp.activation = LinearGelu(block.mlp.proj_in), torch.nn.Identity()
    return sam
