"""SAM 2's mask decoder for many prompts of one image, with the exact result and a third of the memory traffic.

Published, every prompt gets its own copy of the image's features, and each of five attentions projects all of them.
Here what is the same for all prompts is computed once, and projections are folded into the few tokens of a prompt,
which is the same product in another order: `(x W) k` is `x (W k)`. A transposed convolution of stride 2 is a linear
layer whose outputs lie side by side; they are put in their places at the end, with three values a pixel and not 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.models.sam2.models import Sam2
from profiler_kit.workload.optimizations import StandIn

Tensor = torch.Tensor


class SharedDecoder(StandIn):
    """The mask decoder as published for the single masks of boxes; three masks a prompt are made another way."""

    obj_score_token: torch.nn.Embedding
    iou_token: torch.nn.Embedding
    mask_tokens: torch.nn.Embedding
    transformer: torch.nn.Module
    upscale_conv1: torch.nn.ConvTranspose2d
    upscale_conv2: torch.nn.ConvTranspose2d
    upscale_layer_norm: torch.nn.LayerNorm
    output_hypernetworks_mlps: torch.nn.ModuleList
    iou_prediction_head: torch.nn.Module

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__(published)
        self._published = (published,)  # in a tuple, so that it is not a child

    def forward(
        self,
        image_embeddings: Tensor,
        image_positional_embeddings: Tensor,
        sparse_prompt_embeddings: Tensor,
        dense_prompt_embeddings: Tensor,
        multimask_output: bool,
        high_resolution_features: Sequence[Tensor],
    ) -> tuple[Any, ...]:
        """As published, for one image: logits float[1, P, K, 4 h, 4 w] and IoU float[1, P, K], and no more of three."""
        if not multimask_output:
            published: tuple[Any, ...] = self._published[0].forward(
                image_embeddings=image_embeddings,
                image_positional_embeddings=image_positional_embeddings,
                sparse_prompt_embeddings=sparse_prompt_embeddings,
                dense_prompt_embeddings=dense_prompt_embeddings,
                multimask_output=False,
                high_resolution_features=high_resolution_features,
            )
            return published
        size = image_embeddings.shape[-2:]
        fixed = torch.cat([self.obj_score_token.weight, self.iou_token.weight, self.mask_tokens.weight])
        sparse = sparse_prompt_embeddings[0]
        tokens = torch.cat([fixed.expand(len(sparse), -1, -1), sparse], dim=1)
        image = _cells(image_embeddings + dense_prompt_embeddings)
        queries, keys = self._transform(image, _cells(image_positional_embeddings), tokens)
        masks = self._masks(keys, queries, high_resolution_features, size)
        iou = self.iou_prediction_head(queries[:, 1])
        return masks[None], iou[None, :, 1:], None, None

    def _transform(self, image: Tensor, position: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Sam2TwoWayTransformer.forward. image, position: float[h w, C]; tokens: float[P, n, C].

        Returns the tokens, and the image's features of each prompt, float[P, h w, C].
        """
        queries, keys = tokens, image
        for number, layer in enumerate(cast("Any", self.transformer).layers):
            placed = queries if number == 0 else queries + tokens
            attended, _ = layer.self_attn(query=placed[None], key=placed[None], value=queries[None])
            queries = layer.layer_norm1(attended[0] if number == 0 else queries + attended[0])
            attended = self._to_image(layer.cross_attn_token_to_image, queries + tokens, keys, position)
            queries = layer.layer_norm2(queries + attended)
            queries = layer.layer_norm3(queries + layer.mlp(queries))
            keys = self._updated(layer, keys, position, queries + tokens, queries)
        last = cast("Any", self.transformer)
        attended = self._to_image(last.final_attn_token_to_image, queries + tokens, keys, position)
        return last.layer_norm_final_attn(queries + attended), keys

    def _to_image(self, attention: Any, placed: Tensor, keys: Tensor, position: Tensor) -> Tensor:
        """Tokens attend to the image: float[P, n, C]. placed: queries, float[P, n, C]. keys: float[h w, C] of all
        prompts, or float[P, h w, C].
        """
        heads = attention.num_attention_heads
        q = attention.q_proj(placed).unflatten(-1, (heads, -1))  # float[P, n, heads, d]
        if keys.dim() == 2:  # the tokens of all prompts as one row of queries
            k, v = attention.k_proj(keys + position), attention.v_proj(keys)
            rows, k, v = (
                x.unflatten(-1, (heads, -1)).transpose(0, 1)[None] for x in (q.flatten(0, 1).flatten(1), k, v)
            )
            found = F.scaled_dot_product_attention(rows, k, v, scale=attention.scaling)
            return attention.o_proj(found[0].transpose(0, 1).flatten(1)).view_as(placed)  # type: ignore[no-any-return]  # a module's
        # What the key's bias adds is the same for all cells, and softmax does not see it.
        folded = torch.einsum(
            "pnhd,hdc->phnc", q * attention.scaling, attention.k_proj.weight.unflatten(0, (heads, -1))
        )
        seen = self._seen(folded.flatten(1, 2), keys, position).unflatten(1, (heads, -1))
        weight, bias = (x.unflatten(0, (heads, -1)) for x in (attention.v_proj.weight, attention.v_proj.bias))
        values = torch.einsum("phnc,hdc->pnhd", seen, weight) + bias
        return attention.o_proj(values.flatten(2))  # type: ignore[no-any-return]  # a module's

    def _seen(self, folded: Tensor, keys: Tensor, position: Tensor) -> Tensor:
        """softmax(folded (keys + position)) keys, float[P, heads n, C]; keys: float[P, h w, C]."""
        scores = torch.baddbmm(folded @ position.T, folded, keys.transpose(1, 2))
        return scores.softmax(-1) @ keys

    def _updated(self, layer: Any, keys: Tensor, position: Tensor, placed: Tensor, queries: Tensor) -> Tensor:
        """The image after it has attended to the tokens: float[P, h w, C]. keys: float[h w, C] of all prompts, or
        float[P, h w, C].
        """
        attention = layer.cross_attn_image_to_token
        folded, start, values = folded_tokens(attention, placed, queries)
        if keys.dim() == 2:
            scores = (keys + position) @ folded + start
        else:
            scores = torch.baddbmm(position @ folded + start, keys, folded)
        heads = attention.num_attention_heads
        seen = scores.unflatten(-1, (heads, -1)).softmax(-1).flatten(2)
        return layer.layer_norm4(keys + (seen @ values + attention.o_proj.bias))  # type: ignore[no-any-return]  # a module's

    def _said(self, queries: Tensor) -> list[Tensor]:
        """What the token of each of the three masks says, float[P, C / 8] each."""
        networks = zip(self.output_hypernetworks_mlps, queries[:, 2:6].unbind(1), strict=True)
        return [network(token) for network, token in list(networks)[1:]]

    def _masks(self, keys: Tensor, queries: Tensor, fine: Sequence[Tensor], size: torch.Size) -> Tensor:
        """float[P, 3, 4 h, 4 w]: features enlarged, and their product with what each mask's token says."""
        height, width = size
        outer, inner = (pixels_beside(one[0], size) for one in fine)  # float[h w, 16, C / 8] and [h w, 4, C / 4]
        x = _enlarged(self.upscale_conv1, keys) + inner
        norm = self.upscale_layer_norm
        x = F.gelu(F.layer_norm(x, norm.normalized_shape, norm.weight, norm.bias, norm.eps))
        x = F.gelu(_enlarged(self.upscale_conv2, x).flatten(2, 3) + outer)
        masks = torch.stack([(x * one[:, None, None]).sum(-1) for one in self._said(queries)], dim=1)
        # Of float[P, 3, h w, 16] the sixteen values of a cell: row and column in a 2 x 2 block, then those in that.
        masks = masks.view(*masks.shape[:2], height, width, 2, 2, 2, 2)
        return masks.permute(0, 1, 2, 4, 6, 3, 5, 7).reshape(*masks.shape[:2], 4 * height, 4 * width)


def share_decoder(sam: Sam2) -> Sam2:
    """Let the mask decoder compute once what all prompts of an image share."""
    sam.mask_decoder = SharedDecoder(sam.mask_decoder)
    return sam


def folded_tokens(attention: Any, placed: Tensor, queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The image's projections folded into the tokens: keys float[P, C, heads n], what is added to the scores float[P,
    1, heads n], values float[P, heads n, C].
    """
    heads = attention.num_attention_heads
    k, v = (x.unflatten(-1, (heads, -1)) for x in (attention.k_proj(placed), attention.v_proj(queries)))
    weight, bias = (x.unflatten(0, (heads, -1)) for x in (attention.q_proj.weight, attention.q_proj.bias))
    k = k * attention.scaling
    folded = torch.einsum("hdc,pnhd->pchn", weight, k).flatten(2)
    start = torch.einsum("hd,pnhd->phn", bias, k).flatten(1)[:, None]
    values = torch.einsum("pnhd,chd->phnc", v, attention.o_proj.weight.unflatten(1, (heads, -1))).flatten(1, 2)
    return folded, start, values


def _cells(maps: Tensor) -> Tensor:
    """float[1, C, h, w] to float[h w, C]."""
    return maps[0].flatten(1).T


def _enlarged(convolution: torch.nn.ConvTranspose2d, x: Tensor) -> Tensor:
    """float[..., C] to float[..., 4, D]: the 2 x 2 pixels that a transposed convolution of stride 2 makes of one."""
    pixels: Tensor = (x @ pixel_weight(convolution)).unflatten(-1, (4, -1)) + cast("Tensor", convolution.bias)
    return pixels


def pixel_weight(convolution: torch.nn.ConvTranspose2d) -> Tensor:
    """The weight of a transposed convolution of stride 2 as that of a linear layer: float[C, 4 D]."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1)


def pixels_beside(fine: Tensor, size: torch.Size) -> Tensor:
    """float[D, s h, s w] to float[h w, s s, D], in the order in which `_enlarged` puts pixels."""
    depth, height, width = fine.shape[0], *size
    if fine.shape[1] == 2 * height:
        return fine.view(depth, height, 2, width, 2).permute(1, 3, 2, 4, 0).reshape(height * width, 4, depth)
    blocks = fine.view(depth, height, 2, 2, width, 2, 2).permute(1, 4, 2, 5, 3, 6, 0)
    return blocks.reshape(height * width, 16, depth)
