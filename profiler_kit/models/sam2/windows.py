"""SAM 2's attention inside windows as one operator, straight from the output of `qkv` to the input of `proj`.

Published, every block copies its map into windows, pads the heads for the kernel it calls, and copies the answer back.
Here a program reads its window where the linear layer left it and writes where the next one reads: windows and heads
exist in registers only. On a GPU it is a Triton kernel, elsewhere plain torch; torch.compile knows the operator.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody knows it by
from torch.library import triton_op, wrap_triton

from profiler_kit.models.sam.attention import cut_windows, join_windows
from profiler_kit.models.sam.fused_attention import Launch
from profiler_kit.models.sam2.models import Sam2
from profiler_kit.models.sam2.window_kernels import window_kernel
from profiler_kit.workload.optimizations import StandIn

Tensor = torch.Tensor
_NARROWEST: Final = 16  # the smallest side of a product on tensor cores
WINDOWS: Launch = Launch(64, 64, 4, 2)  # as fast or faster than five others in every stage on an H200


class WindowBlock(StandIn):
    """A block whose attention is the operator `window_attention`."""

    layer_norm1: torch.nn.Module
    layer_norm2: torch.nn.Module
    mlp: torch.nn.Module
    attn: Any
    window_size: int

    def forward(self, hidden_states: Tensor, **_: object) -> Tensor:
        """float[B, H, W, C] to the same."""
        qkv = self.attn.qkv(self.layer_norm1(hidden_states))
        attended = window_attention(qkv, self.attn.num_attention_heads, self.window_size)
        hidden_states = hidden_states + self.attn.proj(attended)
        return hidden_states + cast("Tensor", self.mlp(self.layer_norm2(hidden_states)))


@triton_op("profiler_kit::window_attention", mutates_args={})
def window_attention(qkv: Tensor, heads: int, window: int) -> Tensor:
    """float[B, H, W, 3 C] to float[B, H, W, C]; windows of `window` x `window` tokens fill the map."""
    return _launch(qkv, heads, window) if qkv.device.type == "cuda" else reference_attention(qkv, heads, window)


def _launch(qkv: Tensor, heads: int, window: int) -> Tensor:
    count, height, width, channels = qkv.shape
    dim = channels // 3 // heads
    first = 1 << (dim.bit_length() - 1)
    rest = dim - first
    area = window * window
    group = max(1, min(WINDOWS.block_m // area, width // window))
    while width // window % group:
        group -= 1
    block = min(WINDOWS.block_m, group * area)
    out = qkv.new_empty(count, height, width, channels // 3)
    groups = height * width // (group * area)
    wrap_triton(window_kernel)[(count * groups * heads * (group * area // block),)](
        qkv.contiguous(), out, width, width // (window * group), groups, group * area,
        SIDE=window, GROUP=group, HEADS=heads, DIM=dim, DIM_A=first,
        DIM_B=max(_NARROWEST, 1 << (rest - 1).bit_length()) if rest else 0,
        SCALE=dim**-0.5, BLOCK_M=block, BLOCK_N=min(WINDOWS.block_n, block),
        PRECISION="ieee" if qkv.dtype is torch.float32 else "tf32",
        num_warps=WINDOWS.warps, num_stages=WINDOWS.stages,
    )  # fmt: skip
    return out


def reference_attention(qkv: Tensor, heads: int, window: int) -> Tensor:
    """The same in plain torch."""
    height, width = qkv.shape[1:3]
    grid = cut_windows(qkv, window, qkv.new_empty(0))
    q, k, v = grid.view(len(grid), window * window, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    found = F.scaled_dot_product_attention(q, k, v)
    out = found.transpose(1, 2).reshape(len(grid), window, window, -1)
    return join_windows(out, window, (height, width)).contiguous()


def use_window_attention(sam: Sam2) -> Sam2:
    """Let every block whose windows fill its map attend with the operator; others stay as published.

    Those are the blocks that attend to the whole image, that halve the map, or whose windows reach over its edge.
    """
    backbone = cast("Any", sam.image_encoder.vision.backbone)
    side = sam.image_size // 4
    for number, block in enumerate(backbone.blocks):
        side //= 2 if block.query_stride else 1
        window = block.window_size
        if window and not block.query_stride and side % window == 0 and window & (window - 1) == 0:
            backbone.blocks[number] = WindowBlock(block)
    return sam
