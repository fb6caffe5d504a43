"""Rewrites of the image encoder that give the published result: patches, attention, windows.

Everything here is plain torch, runs on any device and in any dtype, and compiles. The attention of one block is
a `core`, q, k, v -> output, so that each optimization swaps that function and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.workload.optimizations import StandIn

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
Core = Callable[["EncoderAttention", Tensor, Tensor, Tensor], Tensor]
_WIDE_HEAD: Final = 128  # above this many head dimensions, attention kernels come in steps of 64 instead of 8


class LinearPatchEmbed(StandIn):
    """The patch convolution, whose stride is its kernel size, as a reshape and one matrix product."""

    proj: torch.nn.Conv2d

    def forward(self, images: Tensor) -> Tensor:
        """float[B, 3, S, S] to float[B, S / p, S / p, C]."""
        weight = self.proj.weight
        count, channels, height, width = images.shape
        ph, pw = weight.shape[-2:]
        patches = images.view(count, channels, height // ph, ph, width // pw, pw).permute(0, 2, 4, 1, 3, 5)
        flat = patches.reshape(count, height // ph, width // pw, channels * ph * pw)
        return F.linear(flat, weight.flatten(1), self.proj.bias)


class EncoderAttention(StandIn):
    """The encoder's attention with a replaceable core; the index of the relative positions lives on the device.

    The published module makes that index on the host in every forward, so that each block waits twice for a copy.
    """

    qkv: torch.nn.Linear
    proj: torch.nn.Linear
    rel_pos_h: torch.nn.Parameter
    rel_pos_w: torch.nn.Parameter
    num_heads: int
    scale: float
    offsets_h: Tensor
    offsets_w: Tensor
    places: Tensor

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__(published)
        self.core: Core = published_core
        self.size = (_side(self.rel_pos_h), _side(self.rel_pos_w))
        device = self.rel_pos_h.device
        for name, side in zip(("offsets_h", "offsets_w"), self.size, strict=True):
            ticks = torch.arange(side, device=device)
            self.register_buffer(name, ticks[:, None] - ticks[None, :] + side - 1, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """float[B, H, W, C] to the same: every token attends to all of its image or window."""
        out: Tensor = self.proj(self.attend(self.qkv(x)))
        return out

    def attend(self, qkv: Tensor) -> Tensor:
        """float[B, H, W, 3 C], the output of `qkv`, to float[B, H, W, C], the input of `proj`."""
        count, height, width, _ = qkv.shape
        heads = qkv.view(count, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = heads.unbind(0)
        out = self.core(self, q, k, v)
        return out.transpose(1, 2).reshape(count, height, width, -1)

    def relative(self, q: Tensor) -> tuple[Tensor, Tensor]:
        """q: float[B, n, H * W, d]. The bias of each row and column of keys: [.., H * W, H] and [.., W]."""
        height, width = self.size
        grid = q.reshape(*q.shape[:2], height, width, -1)
        rows = torch.einsum("bnhwc,hkc->bnhwk", grid, self.rel_pos_h[self.offsets_h])
        columns = torch.einsum("bnhwc,wkc->bnhwk", grid, self.rel_pos_w[self.offsets_w])
        return rows.flatten(2, 3), columns.flatten(2, 3)


def published_core(attention: EncoderAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The published arithmetic: scores with both biases in memory, softmax, product. float[B, n, N, d]."""
    height, width = attention.size
    rows, columns = attention.relative(q)
    scores = (q * attention.scale) @ k.transpose(-2, -1)
    grid = scores.view(*scores.shape[:-1], height, width) + rows[..., :, None] + columns[..., None, :]
    out: Tensor = grid.flatten(-2).softmax(dim=-1) @ v
    return out


def sdpa_core(attention: EncoderAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """torch's scaled_dot_product_attention, the sum of both biases as its mask (B * n * N * N values in memory)."""
    rows, columns = attention.relative(q)
    mask = (rows[..., :, None] + columns[..., None, :]).flatten(-2)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=attention.scale)


def rel_pos_core(attention: EncoderAttention, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """scaled_dot_product_attention without a mask: the relative position travels in extra head dimensions.

    q' = [scale q, rows, columns] and k' = [k, which row, which column] (ones in two places) have exactly the biased
    score as their product. Padded with zeros to a head size that attention kernels take.
    """
    rows, columns = attention.relative(q)
    size, extra = q.shape[-1], rows.shape[-1] + columns.shape[-1]
    step = 64 if size + extra > _WIDE_HEAD else 8
    spare = -(size + extra) % step
    wide_q = F.pad(torch.cat((q * attention.scale, rows, columns), dim=-1), (0, spare))
    places = attention.places.to(k.dtype).expand(*k.shape[:2], -1, -1)
    wide_k = F.pad(torch.cat((k, places), dim=-1), (0, spare))
    wide_v = F.pad(v, (0, extra + spare))
    return F.scaled_dot_product_attention(wide_q, wide_k, wide_v, scale=1.0)[..., :size]


class WindowedBlock(StandIn):
    """A block that cuts windows after `qkv` and joins them before `proj`, so that both work on real tokens only.

    The published block pads 64 x 64 tokens to 70 x 70 first: a fifth more rows in both products. What it pads is
    zero, so q, k and v there are the bias of `qkv`; here that bias is what is padded.
    """

    norm1: torch.nn.Module
    norm2: torch.nn.Module
    mlp: torch.nn.Module
    attn: EncoderAttention
    window_size: int

    def forward(self, x: Tensor) -> Tensor:
        """float[B, H, W, C] to the same."""
        qkv = self.attn.qkv(self.norm1(x))
        x = x + self.attn.proj(self._attend(qkv))
        return x + cast(Tensor, self.mlp(self.norm2(x)))

    def _attend(self, qkv: Tensor) -> Tensor:
        if self.window_size == 0:
            return self.attn.attend(qkv)
        height, width = qkv.shape[1:3]
        windows = cut_windows(qkv, self.window_size, self.attn.qkv.bias)
        return join_windows(self.attn.attend(windows), self.window_size, (height, width))


def cut_windows(x: Tensor, side: int, fill: Tensor) -> Tensor:
    """float[B, H, W, C] to float[B * windows, side, side, C], padded with `fill` (float[C]) below and on the right."""
    count, height, width, channels = x.shape
    below, right = -height % side, -width % side
    if right:
        x = torch.cat((x, fill.to(x.dtype).expand(count, height, right, channels)), dim=2)
    if below:
        x = torch.cat((x, fill.to(x.dtype).expand(count, below, width + right, channels)), dim=1)
    grid = x.view(count, (height + below) // side, side, (width + right) // side, side, channels)
    return grid.transpose(2, 3).reshape(-1, side, side, channels)


def join_windows(windows: Tensor, side: int, size: tuple[int, int]) -> Tensor:
    """The inverse of `cut_windows`: float[B, H, W, C] of (H, W) = `size`, without the padding."""
    height, width = size
    down, across = -(-height // side), -(-width // side)
    grid = windows.view(-1, down, across, side, side, windows.shape[-1]).transpose(2, 3)
    return grid.reshape(-1, down * side, across * side, windows.shape[-1])[:, :height, :width]


def use_linear_patches(sam: Sam) -> Sam:
    """Embed the patches with one matrix product."""
    sam.image_encoder.patch_embed = LinearPatchEmbed(sam.image_encoder.patch_embed)
    return sam


def use_core(sam: Sam, core: Core) -> Sam:
    """Compute the attention of every block of the image encoder with `core`."""
    for attention in encoder_attentions(sam):
        attention.core = core
    return sam


def use_sdpa(sam: Sam) -> Sam:
    """Attention through scaled_dot_product_attention, the relative position as its mask."""
    return use_core(sam, sdpa_core)


def use_rel_pos(sam: Sam) -> Sam:
    """Attention through scaled_dot_product_attention, the relative position as extra head dimensions."""
    for attention in encoder_attentions(sam):
        if "places" not in attention._buffers:
            attention.register_buffer("places", _places(*attention.size).to(attention.rel_pos_h), persistent=False)
    return use_core(sam, rel_pos_core)


def use_window_pad(sam: Sam) -> Sam:
    """Cut windows after qkv and join them before proj."""
    encoder_attentions(sam)
    blocks = sam.image_encoder.blocks
    for number, block in enumerate(blocks):
        blocks[number] = WindowedBlock(block)
    return sam


def encoder_attentions(sam: Sam) -> list[EncoderAttention]:
    """The attention of each block of the image encoder, made an EncoderAttention (published core) where needed."""
    found = []
    for block in sam.image_encoder.blocks:
        if not isinstance(block.attn, EncoderAttention):
            block.attn = EncoderAttention(block.attn)
        found.append(block.attn)
    return found


def _side(table: Tensor) -> int:
    """Tokens along one side, from a table of the relative positions -(side - 1) to side - 1."""
    return (len(table) + 1) // 2


def _places(height: int, width: int) -> Tensor:
    """float[H * W, H + W]: a one at the row and a one at the column of each token."""
    rows = torch.eye(height).repeat_interleave(width, dim=0)
    return torch.cat((rows, torch.eye(width).repeat(height, 1)), dim=1)
