"""Decode the prompts of many images in one call of the mask decoder, with the exact result.

A prompt's mask depends on its image and itself alone, so the prompts of all images form one batch, image after
image: nothing is padded. What is the same for all prompts of an image is computed once: its tokens enter the first
transformer layer unchanged, and their projections there are shared.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.workload.optimizations import StandIn

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor


class DecoderAttention(StandIn):
    """The decoder's attention through scaled_dot_product_attention."""

    q_proj: torch.nn.Linear
    k_proj: torch.nn.Linear
    v_proj: torch.nn.Linear
    out_proj: torch.nn.Linear
    num_heads: int

    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """As published: q float[P, n, C], k and v float[P, m, C] to float[P, n, C]."""
        return self.attend(self.q_proj(q), self.k_proj(k), self.v_proj(v))

    def attend(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """The same from projected q, k and v."""
        q, k, v = (x.view(*x.shape[:2], self.num_heads, -1).transpose(1, 2) for x in (q, k, v))
        out: Tensor = self.out_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        return out


class BatchedMaskDecoder(StandIn):
    """The mask decoder for the prompts of one image, as published, or of many (`prompts_per_image`)."""

    iou_token: torch.nn.Embedding
    mask_tokens: torch.nn.Embedding
    num_mask_tokens: int
    transformer: torch.nn.Module
    output_upscaling: torch.nn.Module
    output_hypernetworks_mlps: torch.nn.ModuleList
    iou_prediction_head: torch.nn.Module

    def forward(
        self,
        image_embeddings: Tensor,
        image_pe: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        prompts_per_image: Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As published, for B images of which image i has `prompts_per_image[i]` of the P prompts, in order.

        image_embeddings: float[B, C, h, w]. image_pe: float[1, C, h, w]. sparse: float[P, tokens, C]. dense:
        float[P, C, h, w]. Returns masks float[P, K, 4 h, 4 w] (logits) and iou float[P, K]; K is 3 with
        `multimask_output`, else 1. Without `prompts_per_image` all prompts belong to the one image.
        """
        counts = [len(sparse_prompt_embeddings)] if prompts_per_image is None else list(prompts_per_image)
        masks, iou = self._predict(
            image_embeddings, image_pe, sparse_prompt_embeddings, dense_prompt_embeddings, counts
        )
        chosen = slice(1, None) if multimask_output else slice(0, 1)
        return masks[:, chosen], iou[:, chosen]

    def _predict(
        self, images: Tensor, position: Tensor, sparse: Tensor, dense: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        size = images.shape[-2:]
        fixed = torch.cat((self.iou_token.weight, self.mask_tokens.weight))
        tokens = torch.cat((fixed.expand(len(sparse), -1, -1), sparse), dim=1)
        if dense.stride(0) == 0:  # one mask prompt for all: the images stay as they are until prompts are mixed in
            keys = images + dense[:1]
        else:
            keys = _each_prompt(images, counts) + dense
            counts = [1] * len(sparse)
        queries, keys = self._transform(keys.flatten(2).transpose(1, 2), _tokens(position), tokens, counts)
        source = keys.transpose(1, 2).reshape(len(keys), -1, *size)
        upscaled = self.output_upscaling(source)
        networks = zip(self.output_hypernetworks_mlps, queries[:, 1 : 1 + self.num_mask_tokens].unbind(1), strict=True)
        weights = torch.stack([network(query) for network, query in networks], dim=1)
        masks = (weights @ upscaled.flatten(2)).view(*weights.shape[:2], *upscaled.shape[-2:])
        return masks, self.iou_prediction_head(queries[:, 0])

    def _transform(
        self, keys: Tensor, position: Tensor, tokens: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """TwoWayTransformer.forward, whose first layer gets keys of images (float[B, h w, C]), not of prompts."""
        queries = tokens
        for number, layer in enumerate(self.transformer.layers):  # type: ignore[arg-type]  # a ModuleList
            if number == 0:
                queries, keys = self._first_layer(layer, keys, position, tokens, counts)
            else:
                queries, keys = layer(queries=queries, keys=keys, query_pe=tokens, key_pe=position)
        final = cast(DecoderAttention, self.transformer.final_attn_token_to_image)
        queries = queries + final(q=queries + tokens, k=keys + position, v=keys)
        return cast(torch.nn.Module, self.transformer.norm_final_attn)(queries), keys

    def _first_layer(
        self, layer: torch.nn.Module, keys: Tensor, position: Tensor, tokens: Tensor, counts: Sequence[int]
    ) -> tuple[Tensor, Tensor]:
        """TwoWayAttentionBlock.forward of the layer whose queries carry no position yet."""
        queries = layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))  # type: ignore[operator]  # SAM's layers
        to_image = cast(DecoderAttention, layer.cross_attn_token_to_image)
        to_tokens = cast(DecoderAttention, layer.cross_attn_image_to_token)
        placed = keys + position
        image_k, image_v = (_each_prompt(x, counts) for x in (to_image.k_proj(placed), to_image.v_proj(keys)))
        queries = queries + to_image.attend(to_image.q_proj(queries + tokens), image_k, image_v)
        queries = layer.norm2(queries)  # type: ignore[operator]  # SAM's layers
        queries = layer.norm3(queries + layer.mlp(queries))  # type: ignore[operator]  # SAM's layers
        image_q = _each_prompt(to_tokens.q_proj(placed), counts)
        answer = to_tokens.attend(image_q, to_tokens.k_proj(queries + tokens), to_tokens.v_proj(queries))
        return queries, layer.norm4(_each_prompt(keys, counts) + answer)  # type: ignore[operator]  # SAM's layers


def batch_decoder(sam: Sam) -> Sam:
    """Let the mask decoder take the prompts of many images at once; SamForward then calls it once a batch."""
    if isinstance(sam.mask_decoder, BatchedMaskDecoder):
        return sam
    transformer = sam.mask_decoder.transformer
    for module in [*transformer.layers, transformer]:
        for name, child in list(module.named_children()):
            if name == "self_attn" or ("_attn_" in name and hasattr(child, "q_proj")):
                setattr(module, name, DecoderAttention(child))
    sam.mask_decoder = BatchedMaskDecoder(sam.mask_decoder)
    return sam


def _each_prompt(images: Tensor, counts: Sequence[int]) -> Tensor:
    """Row i of `images`, `counts[i]` times over: a view where there is one image, else one copy, and no waiting."""
    parts = [image.expand(count, *image.shape) for image, count in zip(images, counts, strict=True)]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _tokens(position: Tensor) -> Tensor:
    """float[1, C, h, w] to float[1, h w, C]."""
    return position.flatten(2).transpose(1, 2)
