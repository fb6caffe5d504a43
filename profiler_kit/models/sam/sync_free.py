"""Take the hidden waits out of a SAM's forward, with the published result bit for bit.

Where the published code waits for the GPU: each block's attention copies an index of relative positions from
ordinary host memory, twice; the prompt encoder picks points by a boolean mask, three times a call, whose number of
hits the host must know.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from profiler_kit.models.sam.attention import encoder_attentions
from profiler_kit.workload.optimizations import StandIn

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
Points = tuple[Tensor, Tensor]


class SyncFreePromptEncoder(StandIn):
    """The prompt encoder with `where` in place of boolean masks; the dense position encoding is computed once."""

    embed_dim: int
    input_image_size: tuple[int, int]
    image_embedding_size: tuple[int, int]
    pe_layer: torch.nn.Module
    point_embeddings: torch.nn.ModuleList
    not_a_point_embed: torch.nn.Embedding
    no_mask_embed: torch.nn.Embedding
    mask_downscaling: torch.nn.Module

    def __init__(self, published: torch.nn.Module) -> None:
        super().__init__(published)
        self._dense: tuple[Tensor, int, Tensor] | None = None

    def get_dense_pe(self) -> Tensor:
        """float32[1, C, h, w], the position encoding of the image's own grid; made anew when the matrix changes."""
        matrix = self.pe_layer.positional_encoding_gaussian_matrix
        assert isinstance(matrix, Tensor)
        if self._dense is None or self._dense[0] is not matrix or self._dense[1] != matrix._version:
            self._dense = (matrix, matrix._version, self.pe_layer(self.image_embedding_size).unsqueeze(0))
        return self._dense[2]

    def forward(self, points: Points | None, boxes: Tensor | None, masks: Tensor | None) -> tuple[Tensor, Tensor]:
        """As published: (sparse float32[P, tokens, C], dense float32[P, C, h, w]) of P prompts."""
        parts = []
        if points is not None:
            parts.append(self._points(*points, pad=boxes is None))
        if boxes is not None:
            parts.append(self._boxes(boxes))
        given = parts[0] if parts else masks
        count = 1 if given is None else len(given)
        no_mask = self.no_mask_embed.weight
        sparse = torch.cat(parts, dim=1) if parts else no_mask.new_empty(count, 0, self.embed_dim)
        if masks is not None:
            return sparse, self.mask_downscaling(masks)
        return sparse, no_mask.reshape(1, -1, 1, 1).expand(count, -1, *self.image_embedding_size)

    def _points(self, points: Tensor, labels: Tensor, *, pad: bool) -> Tensor:
        points = points + 0.5  # to the centre of the pixel
        if pad:
            points = torch.cat((points, points.new_zeros(len(points), 1, 2)), dim=1)
            labels = torch.cat((labels, labels.new_full((len(labels), 1), -1)), dim=1)
        found = self._encode(points)
        kind = labels[..., None]
        off, on = self._kinds()[:2]
        found = torch.where(kind == -1, self.not_a_point_embed.weight, found)
        found = torch.where(kind == 0, found + off, found)
        return torch.where(kind == 1, found + on, found)

    def _boxes(self, boxes: Tensor) -> Tensor:
        return self._encode((boxes + 0.5).reshape(-1, 2, 2)) + torch.cat(self._kinds()[2:4])

    def _kinds(self) -> list[Tensor]:
        """What is added for a point off and on the object, and for a box's first and last corner: float32[1, C]."""
        return [cast(torch.nn.Embedding, embedding).weight for embedding in self.point_embeddings]

    def _encode(self, coordinates: Tensor) -> Tensor:
        encoded: Tensor = self.pe_layer.forward_with_coords(coordinates, self.input_image_size)  # type: ignore[operator]  # SAM's
        return encoded


def remove_synchronisation(sam: Sam) -> Sam:
    """Keep the index of relative positions on the device and encode prompts without asking the host."""
    encoder_attentions(sam)
    if not isinstance(sam.prompt_encoder, SyncFreePromptEncoder):
        sam.prompt_encoder = SyncFreePromptEncoder(sam.prompt_encoder)
    return sam
