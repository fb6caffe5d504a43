"""The convolutions of SAM 2's encoder as matrix products, and those that follow one another as one.

Maps stay as the blocks have them, channels last: cuDNN turns a map around before and after a convolution. The two finer
maps come from a projection of a projection, both of single pixels; their product is one of 32 (or 64) channels instead
of 256 and then so many. What is added to patches for their place is the same for every image: it is computed once, and
lies channels last too.
"""

from __future__ import annotations

from types import MethodType
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.models.sam2.models import Maps, Sam2
from profiler_kit.workload.optimizations import StandIn

Tensor = torch.Tensor


class ProductPatches(StandIn):
    """The patch embedding as one product. Rows of a patch are filled up to an even number: products want 16 bytes."""

    projection: torch.nn.Conv2d

    def forward(self, pixel_values: Tensor) -> Tensor:
        """float[B, 3, S, S] to float[B, S / 4, S / 4, C]."""
        conv = self.projection
        side, step, around = conv.kernel_size[0], conv.stride[0], cast("tuple[int, int]", conv.padding)[0]
        odd = side % 2
        x = F.pad(pixel_values.to(conv.weight.dtype), (around, around + odd, around, around))
        patches = x.unfold(2, side, step).unfold(3, side + odd, step).permute(0, 2, 3, 1, 4, 5).flatten(3)
        return F.linear(patches, F.pad(conv.weight, (0, odd)).flatten(1), conv.bias)


class ProductMaps(StandIn):
    """The image encoder, whose neck and the decoder's own projections are products."""

    vision: Any
    no_memory_embedding: Tensor

    def __init__(self, published: Any) -> None:
        super().__init__(published)
        *_, to_middle, to_fine = published.vision.neck.convs
        self.to_fine = _chained(to_fine, published.project_fine)
        self.to_middle = _chained(to_middle, published.project_middle)

    def forward(self, images: Tensor) -> Maps:
        """As the ImageEncoder."""
        neck = self.vision.neck
        fine, middle, coarse, last = self.vision.backbone(images).intermediate_hidden_states
        to_last, to_coarse, *_ = neck.convs
        last, coarse = (_product(conv, x) for conv, x in ((to_last, last), (to_coarse, coarse)))
        coarse = coarse + last.repeat_interleave(2, 1).repeat_interleave(2, 2) + self.no_memory_embedding.view(-1)
        found = (F.linear(fine, *self.to_fine), F.linear(middle, *self.to_middle), coarse)
        a, b, c = (one.permute(0, 3, 1, 2).contiguous() for one in found)
        return a, b, c


def _product(conv: torch.nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of single pixels, channels last."""
    return F.linear(x, conv.weight.flatten(1), conv.bias)


def _chained(first: torch.nn.Conv2d, second: torch.nn.Conv2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of two of them, one after the other; multiplied in float32."""
    assert first.bias is not None
    assert second.bias is not None
    weight, more = first.weight.detach().flatten(1).float(), second.weight.detach().flatten(1).float()
    bias = more @ first.bias.detach().float() + second.bias.detach().float()
    return (more @ weight).to(first.weight.dtype), bias.to(first.bias.dtype)


def _places(backbone: Any, side: int) -> Tensor:
    """float[1, side, side, C]: the backbone's own, computed in float32."""
    whole, window = backbone.pos_embed.detach(), backbone.pos_embed_window.detach().float()
    found: Tensor = F.interpolate(whole.float(), size=(side, side), mode="bicubic")
    found = found + window.repeat(1, 1, *(side // length for length in window.shape[2:]))
    return found.permute(0, 2, 3, 1).to(whole.dtype).contiguous()


def _kept_places(backbone: Any, _size: tuple[int, int]) -> Tensor:
    places: Tensor = backbone.places
    return places


def use_products(sam: Sam2) -> Sam2:
    """Multiply where the encoder convolves."""
    encoder = cast("Any", sam.image_encoder)
    backbone = encoder.vision.backbone
    backbone.patch_embed = ProductPatches(backbone.patch_embed)
    backbone.register_buffer("places", _places(backbone, sam.image_size // 4), persistent=False)
    backbone._get_pos_embed = MethodType(_kept_places, backbone)
    sam.image_encoder = cast("Any", ProductMaps(encoder))
    return sam
