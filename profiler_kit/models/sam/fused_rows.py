"""Fuse what is between the matrix products of the image encoder's blocks: GELU, sums, norms, rounding."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from profiler_kit.errors import WorkloadError
from profiler_kit.models.sam import row_operators
from profiler_kit.models.sam.attention import EncoderAttention, WindowedBlock
from profiler_kit.workload.optimizations import StandIn
from profiler_kit.workload.quantize import Float8Linear

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
Normed = tuple[Tensor, ...]  # rows ready for a product: (float[M, C],), or (float8[M, C], scales float32[M, 1])


class FusedGelu(torch.nn.Module):
    """torch.nn.GELU as one operator."""

    def forward(self, x: Tensor) -> Tensor:
        """float[...] to the same."""
        out: Tensor = row_operators.gelu(x)
        return out


class RowBlock(StandIn):
    """A block on rows whose sums and norms are one operator each; its last norm is the next block's first.

    Takes the place of a WindowedBlock (or one whose attention is fused) inside a RowEncoder, which knows the norms.
    """

    norm2: torch.nn.LayerNorm
    mlp: torch.nn.Module
    attn: EncoderAttention

    def __init__(self, published: WindowedBlock) -> None:
        super().__init__(published)
        self._attention = published._attend

    def forward(
        self, x: Tensor, normed: Normed, size: tuple[int, int], following: torch.nn.LayerNorm | None, *, rounded: bool
    ) -> tuple[Tensor, Normed]:
        """x: float[M, C], the tokens of B images of `size`. normed: their first norm, made by the block before.

        Returns the tokens after the block and their norm by `following`; without one, only the tokens.
        """
        width = x.shape[-1]
        qkv = multiply(self.attn.qkv, normed, x.dtype).view(-1, *size, 3 * width)
        answer = self._attention(qkv).reshape(-1, width)
        more = multiply(self.attn.proj, rows_of(self.attn.proj, answer), x.dtype)
        x, normed = add_norm(x, more, self.norm2, rounded=isinstance(self.mlp.lin1, Float8Linear))
        hidden = multiply(cast(torch.nn.Module, self.mlp.lin1), normed, x.dtype)
        if isinstance(self.mlp.lin2, Float8Linear):
            ready: Normed = row_operators.round_rows(hidden, True)
        else:
            ready = (cast(torch.nn.Module, self.mlp.act)(hidden),)
        more = multiply(cast(torch.nn.Module, self.mlp.lin2), ready, x.dtype)
        return (x + more, ()) if following is None else add_norm(x, more, following, rounded=rounded)


class RowEncoder(StandIn):
    """The image encoder with RowBlocks: tokens stay rows from the patches to the neck."""

    patch_embed: torch.nn.Module
    pos_embed: torch.nn.Parameter
    blocks: torch.nn.ModuleList
    neck: torch.nn.Module

    def forward(self, images: Tensor) -> Tensor:
        """As the published encoder."""
        x = self.patch_embed(images)
        count, height, width, channels = x.shape
        blocks = [cast(RowBlock, block) for block in self.blocks]
        first = cast(torch.nn.LayerNorm, blocks[0].norm1)
        rounded = isinstance(blocks[0].attn.qkv, Float8Linear)
        rows, normed = add_norm(x.reshape(-1, channels), self.pos_embed.reshape(-1, channels), first, rounded=rounded)
        for block, after in zip(blocks, [*blocks[1:], None], strict=True):
            following = None if after is None else cast(torch.nn.LayerNorm, after.norm1)
            rounded = after is not None and isinstance(after.attn.qkv, Float8Linear)
            rows, normed = block(rows, normed, (height, width), following, rounded=rounded)
        out: Tensor = self.neck(rows.view(count, height, width, channels).permute(0, 3, 1, 2))
        return out


def multiply(linear: torch.nn.Module, normed: Normed, dtype: torch.dtype) -> Tensor:
    """The product of prepared rows: dtype[M, N]."""
    if isinstance(linear, Float8Linear):
        return linear.multiply(normed[0], normed[1], dtype)
    out: Tensor = linear(normed[0])
    return out


def rows_of(linear: torch.nn.Module, x: Tensor) -> Normed:
    """float[M, C] as the product `linear` takes it."""
    return row_operators.round_rows(x, False) if isinstance(linear, Float8Linear) else (x,)


def add_norm(x: Tensor, more: Tensor, by: torch.nn.LayerNorm, *, rounded: bool) -> tuple[Tensor, Normed]:
    """x + more (whose rows may be fewer and repeat), and the norm of that."""
    if rounded:
        total, rows, scale = row_operators.add_norm_float8(x, more, by.weight, by.bias, by.eps)
        return total, (rows, scale)
    total, normed = row_operators.add_norm(x, more, by.weight, by.bias, by.eps)
    return total, (normed,)


def use_fused_rows(sam: Sam) -> Sam:
    """Compute GELU, residual sums, norms and float8 rounding of the image encoder with one operator each.

    Raises WorkloadError for a model whose width is neither a power of two nor a sum of two (all published ones are).
    """
    encoder = sam.image_encoder
    width = encoder.pos_embed.shape[-1]
    if width.bit_count() > 2:
        raise WorkloadError(
            f"--optimizations fused_rows: found tokens of {width} numbers, expected a power of two or the sum of two. "
            "Leave it out."
        )
    for number, block in enumerate(encoder.blocks):
        block.mlp.act = FusedGelu()
        encoder.blocks[number] = RowBlock(block if isinstance(block, WindowedBlock) else WindowedBlock(block))
    sam.image_encoder = RowEncoder(encoder)
    return sam
