"""SAM 2's shared mask decoder for many prompts, whose memory traffic is the image's features of each prompt alone.

Three Triton kernels take the place of some twenty: tokens attend to the image, the image to tokens with the norm behind
it, and the masks with all that enlarges them. What lies between has the size of scores or of pixels with 32 channels,
and is never written. On a GPU they are kernels, elsewhere plain torch; torch.compile knows the operators.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from torch.library import triton_op, wrap_triton

from profiler_kit.models.sam.fused_attention import Launch
from profiler_kit.models.sam2.decoder import SharedDecoder, folded_tokens, pixel_weight, pixels_beside
from profiler_kit.models.sam2.decoder_kernels import masks_kernel, to_image_kernel, to_tokens_kernel
from profiler_kit.models.sam2.models import Sam2

Tensor = torch.Tensor
MANY: Final = 64  # prompts, from which on a program for each fills a GPU
ROWS: Final = 64  # tokens of a point, in eight heads
_STEPS: Final = 4  # blocks of cells that a program takes one after the other
_PROMPTS: Final = 16  # that a program of the masks takes one after the other
# No steps ahead: Triton 3.6 loads the next keys over those that a product still reads, where sums read them too.
TO_IMAGE: Launch = Launch(0, 64, 4, 1)
TO_TOKENS: Launch = Launch(64, 0, 4, 1)
MASKS: Launch = Launch(64, 0, 4, 1)


class FusedDecoder(SharedDecoder):
    """A shared decoder that calls the kernels where there are many prompts with as many tokens as a point has."""

    def _seen(self, folded: Tensor, keys: Tensor, position: Tensor) -> Tensor:
        return seen(folded, keys, position) if _fits(folded) else super()._seen(folded, keys, position)

    def _updated(self, layer: Any, keys: Tensor, position: Tensor, placed: Tensor, queries: Tensor) -> Tensor:
        attention, norm = layer.cross_attn_image_to_token, layer.layer_norm4
        folded, start, values = folded_tokens(attention, placed, queries)
        if not _fits(values):
            return super()._updated(layer, keys, position, placed, queries)
        heads = attention.num_attention_heads
        bias = attention.o_proj.bias
        found: Tensor = updated(keys, position, folded, start, values, bias, norm.weight, norm.bias, norm.eps, heads)
        return found

    def _masks(self, keys: Tensor, queries: Tensor, fine: Sequence[Tensor], size: torch.Size) -> Tensor:
        if not _many(keys):
            return super()._masks(keys, queries, fine, size)
        said = torch.stack(self._said(queries), dim=1)
        outer, inner = (pixels_beside(one[0], size) for one in fine)
        first, second, norm = self.upscale_conv1, self.upscale_conv2, self.upscale_layer_norm
        found: Tensor = masks(
            *(keys, pixel_weight(first), first.bias, inner, norm.weight, norm.bias),
            *(pixel_weight(second), second.bias, outer, said),
            *(size[1], norm.eps),
        )
        return found


def _many(each: Tensor) -> bool:
    """each: of every prompt. In float32 what a program holds has no room on a GPU."""
    return len(each) >= MANY and not (each.is_cuda and each.dtype is torch.float32)


def _fits(tokens: Tensor) -> bool:
    """tokens: float[P, heads n, C]. Triton counts in powers of two, and what a program holds grows with the rows."""
    return _many(tokens) and tokens.shape[1] == ROWS


def _precision(x: Tensor) -> str:
    return "ieee" if x.dtype is torch.float32 else "tf32"


@triton_op("profiler_kit::decoder_seen", mutates_args={})
def seen(folded: Tensor, keys: Tensor, position: Tensor) -> Tensor:
    """softmax(folded (keys + position)) keys, float[P, R, C]. folded: float[P, R, C]; keys: float[P, h w, C]."""
    if keys.device.type != "cuda":
        return ((folded @ (keys + position).transpose(1, 2)).softmax(-1) @ keys).contiguous()
    return launch_seen(folded, keys, position)


def launch_seen(folded: Tensor, keys: Tensor, position: Tensor) -> Tensor:
    """The same as a kernel."""
    count, rows, width = folded.shape
    out = folded.new_empty(folded.shape)
    wrap_triton(to_image_kernel)[(count,)](
        folded.contiguous(), keys.contiguous(), position.contiguous(), out, keys.shape[1], keys.shape[1] * width,
        ROWS=rows, WIDTH=width, BLOCK=TO_IMAGE.block_n, PRECISION=_precision(keys),
        num_warps=TO_IMAGE.warps, num_stages=TO_IMAGE.stages,
    )  # fmt: skip
    return out


@triton_op("profiler_kit::decoder_updated", mutates_args={})
def updated(
    keys: Tensor, position: Tensor, folded: Tensor, start: Tensor, values: Tensor, bias: Tensor, norm: Tensor,
    norm_bias: Tensor, eps: float, heads: int,
) -> Tensor:  # fmt: skip
    """The norm of keys + softmax((keys + position) folded + start) values + bias, float[P, h w, C].

    keys: float[h w, C] of all prompts, or float[P, h w, C]. folded: float[P, C, heads n], start: float[P, 1, heads n],
    values: float[P, heads n, C].
    """
    if keys.device.type != "cuda":
        scores = (keys + position) @ folded + start
        found = keys + scores.unflatten(-1, (heads, -1)).softmax(-1).flatten(2) @ values + bias
        return F.layer_norm(found, norm.shape, norm, norm_bias, eps)
    return launch_updated(keys, position, folded, start, values, bias, norm, norm_bias, eps, heads)


def launch_updated(
    keys: Tensor, position: Tensor, folded: Tensor, start: Tensor, values: Tensor, bias: Tensor, norm: Tensor,
    norm_bias: Tensor, eps: float, heads: int,
) -> Tensor:  # fmt: skip
    """The same as a kernel."""
    (count, rows, width), cells = values.shape, keys.shape[-2]
    out, block = keys.new_empty(count, cells, width), TO_TOKENS.block_m
    steps = _STEPS if cells % (block * _STEPS) == 0 else 1
    wrap_triton(to_tokens_kernel)[(count, cells // block // steps)](
        keys.contiguous(), position.contiguous(), folded.contiguous(), start.contiguous(), values.contiguous(),
        bias, norm, norm_bias, out, cells, cells * width if keys.dim() == 3 else 0,
        EPS=eps, HEADS=heads, TOKENS=rows // heads, WIDTH=width, BLOCK=block, STEPS=steps, PRECISION=_precision(keys),
        num_warps=TO_TOKENS.warps, num_stages=TO_TOKENS.stages,
    )  # fmt: skip
    return out


@triton_op("profiler_kit::decoder_masks", mutates_args={})
def masks(
    keys: Tensor, first: Tensor, first_bias: Tensor, inner: Tensor, norm: Tensor, norm_bias: Tensor, second: Tensor,
    second_bias: Tensor, outer: Tensor, said: Tensor, across: int, eps: float,
) -> Tensor:  # fmt: skip
    """float32[P, K, 4 h, 4 w]: the features enlarged twice, and their product with what each mask's token says.

    keys: float[P, h w, C]; first: float[C, 4 D], second: float[D, 4 E], each the four pixels side by side; inner:
    float[h w, 4, D]; outer: float[h w, 16, E]; said: float[P, K, E]. across: w.
    """
    if keys.device.type != "cuda":
        x = F.layer_norm((keys @ first).unflatten(-1, (4, -1)) + first_bias + inner, norm.shape, norm, norm_bias, eps)
        x = F.gelu((F.gelu(x) @ second).unflatten(-1, (4, -1)).flatten(2, 3) + second_bias + outer)
        found: Tensor = torch.einsum("pcse,pme->pmcs", x, said).float()
        found = found.view(*said.shape[:2], -1, across, 2, 2, 2, 2)
        return found.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*said.shape[:2], -1, 4 * across)
    return launch_masks(keys, first, first_bias, inner, norm, norm_bias, second, second_bias, outer, said, across, eps)


def launch_masks(
    keys: Tensor, first: Tensor, first_bias: Tensor, inner: Tensor, norm: Tensor, norm_bias: Tensor, second: Tensor,
    second_bias: Tensor, outer: Tensor, said: Tensor, across: int, eps: float,
) -> Tensor:  # fmt: skip
    """The same as a kernel."""
    (prompts, cells, width), count = keys.shape, said.shape[1]
    block = MASKS.block_m if inner.shape[2] >= 64 else MASKS.block_m // 2
    out = keys.new_empty(prompts, count, 4 * (cells // across), 4 * across, dtype=torch.float32)
    wrap_triton(masks_kernel)[(4 * cells // block, -(-prompts // _PROMPTS))](
        keys.contiguous(), first.contiguous(), (inner + first_bias).contiguous(), norm, norm_bias, second.contiguous(),
        (outer + second_bias).contiguous(), said.contiguous(), out, prompts, cells, across,
        EPS=eps, WIDTH=width, MIDDLE=inner.shape[2], NARROW=outer.shape[2], MASKS=count, BLOCK=block, EACH=_PROMPTS,
        PRECISION=_precision(keys), num_warps=MASKS.warps, num_stages=MASKS.stages,
    )  # fmt: skip
    return out


def fuse_decoder(sam: Sam2) -> Sam2:
    """Let the shared decoder call the kernels; as it is where a map is not made of whole blocks of cells."""
    cells = (sam.image_size // 16) ** 2
    if cells % max(TO_IMAGE.block_n, TO_TOKENS.block_m, MASKS.block_m) == 0:
        sam.mask_decoder = FusedDecoder(sam.mask_decoder)
    return sam
