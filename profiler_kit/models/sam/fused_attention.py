"""SAM's encoder attention as one operator, from the output of `qkv` to the input of `proj`.

On a GPU it is a Triton kernel, elsewhere plain torch; torch.compile and AOTInductor know the operator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch.library import triton_op, wrap_triton

from profiler_kit.errors import WorkloadError
from profiler_kit.models.sam.attention import WindowedBlock, cut_windows, encoder_attentions, join_windows
from profiler_kit.models.sam.attention_kernels import global_kernel, relative_kernel, window_kernel

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
_NARROWEST: Final = 16  # the smallest side of a product on tensor cores


@dataclass(frozen=True)
class Launch:
    """How a kernel is launched: queries and keys of one step, warps of a program, steps loaded ahead."""

    block_m: int
    block_n: int
    warps: int
    stages: int


GLOBAL: Launch = Launch(64, 1, 4, 3)  # as fast or faster than eight others on an H200; block_n counts rows of keys
WINDOW: Launch = Launch(128, 32, 8, 3)


class FusedBlock(WindowedBlock):
    """A block whose attention is the operator `fused_attention`."""

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__(published)
        places = window_places(self.window_size).to(self.attn.rel_pos_h)
        self.register_buffer("places_in_window", places, persistent=False)

    def _attend(self, qkv: Tensor) -> Tensor:
        attention = self.attn
        out: Tensor = fused_attention(
            qkv,
            attention.qkv.bias,
            attention.rel_pos_h,
            attention.rel_pos_w,
            cast(Tensor, self.places_in_window),
            attention.num_heads,
            self.window_size,
        )
        return out


@triton_op("profiler_kit::fused_attention", mutates_args={})
def fused_attention(
    qkv: Tensor, fill: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, places: Tensor, heads: int, window: int
) -> Tensor:
    """Attention with decomposed relative position, inside windows of `window` x `window` tokens or over all (0).

    qkv: float[B, H, W, 3 C]. fill: float[3 C], what q, k and v are outside the image. rel_pos_h, rel_pos_w:
    float[2 s - 1, C / heads] for a side of s tokens. places: `window_places` of the window. Returns float[B, H, W, C].
    """
    if qkv.device.type != "cuda":
        return reference_attention(qkv, fill, rel_pos_h, rel_pos_w, heads, window)
    return _launch(qkv, fill, rel_pos_h, rel_pos_w, places, heads, window)


def _launch(
    qkv: Tensor, fill: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, places: Tensor, heads: int, window: int
) -> Tensor:
    count, height, width, channels = qkv.shape
    dim = channels // 3 // heads
    first = 1 << (dim.bit_length() - 1)
    out = qkv.new_empty(count, height, width, channels // 3)
    precision = "ieee" if qkv.dtype is torch.float32 else "tf32"
    parts = {"HEADS": heads, "DIM": dim, "DIM_A": first, "DIM_B": dim - first, "PRECISION": precision}
    scale = dim**-0.5
    if window:
        down, across = -(-height // window), -(-width // window)
        pad = _pad(window)
        steps = -(-window * pad // WINDOW.block_m)
        wrap_triton(window_kernel)[(steps, heads, count * down * across)](
            qkv, fill, rel_pos_h, rel_pos_w, places, out, height, width, across, down * across,
            SIDE=window, PAD=pad, SCALE=scale, BLOCK_M=WINDOW.block_m, BLOCK_N=WINDOW.block_n, **parts,
            num_warps=WINDOW.warps, num_stages=WINDOW.stages,
        )  # fmt: skip
        return out
    area = height * width
    rows, columns = qkv.new_empty(count * heads, height, area), qkv.new_empty(count * heads, area, width)
    wrap_triton(relative_kernel)[(2 * height, count * heads)](
        qkv, rel_pos_h, rel_pos_w, rows, columns, SIDE=height, **parts, num_warps=4
    )
    block = min(GLOBAL.block_m, area)
    wrap_triton(global_kernel)[(area // block, count * heads)](
        qkv, rows, columns, out, SIDE=height, SCALE=scale, BLOCK_M=block, PAIR=GLOBAL.block_n > 1, **parts,
        num_warps=GLOBAL.warps, num_stages=GLOBAL.stages,
    )  # fmt: skip
    return out


def reference_attention(
    qkv: Tensor, fill: Tensor, rel_pos_h: Tensor, rel_pos_w: Tensor, heads: int, window: int
) -> Tensor:
    """The same in plain torch."""
    size = qkv.shape[1:3]
    grid = cut_windows(qkv, window, fill) if window else qkv
    count, height, width, channels = grid.shape
    q, k, v = grid.view(count, height * width, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
    image = q.reshape(count, heads, height, width, -1)
    rows = torch.einsum("bnhwc,hkc->bnhwk", image, rel_pos_h[_offsets(height, qkv.device)]).flatten(2, 3)
    columns = torch.einsum("bnhwc,wkc->bnhwk", image, rel_pos_w[_offsets(width, qkv.device)]).flatten(2, 3)
    mask = (rows[..., :, None] + columns[..., None, :]).flatten(-2)
    found = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    out = found.transpose(1, 2).reshape(count, height, width, channels // 3)
    return join_windows(out, window, (size[0], size[1])).contiguous() if window else out


def use_fused_attention(sam: Sam) -> Sam:
    """Compute the attention of every block of the image encoder with the operator.

    Takes heads of a power of two, or of one and another of 16 or more (80 = 64 + 16), and square images with a power
    of two of tokens a side, as every published SAM has. Raises WorkloadError for other models.
    """
    for attention in encoder_attentions(sam):
        _check_shape(attention.qkv.in_features // attention.num_heads)
    side = sam.image_encoder.pos_embed.shape[1]
    if side & (side - 1):
        raise WorkloadError(
            f"--optimizations fused_attention: found images of {side} tokens a side, expected a power of two. Leave it "
            "out."
        )
    blocks = sam.image_encoder.blocks
    for number, block in enumerate(blocks):
        blocks[number] = FusedBlock(block)
    return sam


def window_places(window: int) -> Tensor:
    """float32[p * p, 2 p]: a one at the row and a one at the column of each token of a window laid out p x p.

    p is the window's side rounded up to a power of two, at least 16; empty for no window (0).
    """
    if window == 0:
        return torch.empty(0, 0)
    ones = torch.eye(_pad(window))
    return torch.cat((ones.repeat_interleave(len(ones), dim=0), ones.repeat(len(ones), 1)), dim=1)


def _check_shape(dim: int) -> None:
    first = 1 << (dim.bit_length() - 1)
    rest = dim - first
    if first < _NARROWEST or (rest and (rest < _NARROWEST or rest & (rest - 1))):
        raise WorkloadError(
            f"--optimizations fused_attention: found heads of {dim} numbers, expected a power of two of at least 16 or "
            "the sum of two. Leave it out."
        )


def _pad(window: int) -> int:
    return max(_NARROWEST, 1 << (window - 1).bit_length())


def _offsets(side: int, device: torch.device) -> Tensor:
    ticks = torch.arange(side, device=device)
    return ticks[:, None] - ticks[None, :] + side - 1
