"""SAM 2's attention inside windows as one operator, straight from the output of `qkv` to the input of `proj`.

Published, every block copies its map into windows, pads the heads for the kernel it calls, and copies the answer back.
Here a program reads its window where the linear layer left it and writes where the next one reads: windows and heads
exist in registers only. On a GPU it is a Triton kernel, elsewhere plain torch; torch.compile knows the operator.
"""

from __future__ import annotations

from typing import Any, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
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
    proj: torch.nn.Module  # of blocks that halve the map
    attn: Any
    window_size: int
    query_stride: Any

    def forward(self, hidden_states: Tensor, **_: object) -> Tensor:
        """float[B, H, W, C] to the same, or to float[B, H / 2, W / 2, 2 C]."""
        normed = self.layer_norm1(hidden_states)
        stride = 1
        if self.query_stride:
            stride = self.query_stride[0]
            hidden_states = F.max_pool2d(self.proj(normed).permute(0, 3, 1, 2), stride).permute(0, 2, 3, 1)
        attended = window_attention(self.attn.qkv(normed), self.attn.num_attention_heads, self.window_size, stride)
        hidden_states = hidden_states + self.attn.proj(attended)
        return hidden_states + cast("Tensor", self.mlp(self.layer_norm2(hidden_states)))


@triton_op("profiler_kit::window_attention", mutates_args={})
def window_attention(qkv: Tensor, heads: int, window: int, stride: int) -> Tensor:
    """float[B, H, W, 3 C] to float[B, H, W, C]; windows of `window` x `window` tokens fill the map.

    stride: 2 where a query is the largest of 2 x 2 tokens, so that the answer is half as high and wide; else 1.
    """
    if qkv.device.type == "cuda":
        return _launch(qkv, heads, window, stride)
    return reference_attention(qkv, heads, window, stride)


def _launch(qkv: Tensor, heads: int, window: int, stride: int) -> Tensor:
    count, height, width, channels = qkv.shape
    dim = channels // 3 // heads
    first = 1 << (dim.bit_length() - 1)
    rest = dim - first
    area = (window // stride) ** 2
    most = WINDOWS.block_m if stride == 1 else _NARROWEST
    group = max(1, min(most // area, width // window))
    while width // window % group:
        group -= 1
    block = min(WINDOWS.block_m, group * area)
    out = qkv.new_empty(count, height // stride, width // stride, channels // 3)
    reach = group * window * window
    groups = height * width // reach
    wrap_triton(window_kernel)[(count * groups * heads * (group * area // block),)](
        qkv.contiguous(), out, width, width // (window * group), groups, reach,
        SIDE=window, GROUP=group, STRIDE=stride, HEADS=heads, DIM=dim, DIM_A=first,
        DIM_B=max(_NARROWEST, 1 << (rest - 1).bit_length()) if rest else 0,
        SCALE=dim**-0.5, BLOCK_M=block, BLOCK_N=min(WINDOWS.block_n, reach),
        PRECISION="ieee" if qkv.dtype is torch.float32 else "tf32",
        num_warps=WINDOWS.warps if block > _NARROWEST else 2, num_stages=WINDOWS.stages,
    )  # fmt: skip
    return out


def reference_attention(qkv: Tensor, heads: int, window: int, stride: int) -> Tensor:
    """The same in plain torch."""
    height, width = qkv.shape[1:3]
    grid = cut_windows(qkv, window, qkv.new_empty(0))
    q, k, v = grid.view(len(grid), window, window, 3, -1).unbind(3)
    q = F.max_pool2d(q.permute(0, 3, 1, 2), stride).permute(0, 2, 3, 1)
    q, k, v = (one.flatten(1, 2).unflatten(2, (heads, -1)).transpose(1, 2) for one in (q, k, v))
    found = F.scaled_dot_product_attention(q, k, v)
    side = window // stride
    out = found.transpose(1, 2).reshape(len(grid), side, side, -1)
    return join_windows(out, side, (height // stride, width // stride)).contiguous()


def use_window_attention(sam: Sam2) -> Sam2:
    """Let every block whose windows fill its map attend with the operator; others stay as published.

    Those are the blocks that attend to the whole image, or whose windows reach over its edge.
    """
    backbone = cast("Any", sam.image_encoder.vision.backbone)
    side = sam.image_size // 4
    for number, block in enumerate(backbone.blocks):
        window = block.window_size
        if window and side % window == 0 and window & (window - 1) == 0:
            backbone.blocks[number] = WindowBlock(block)
        side //= 2 if block.query_stride else 1
    return sam
