"""A SAM 2 as the mask generator asks it; with it, the generator gives the masks of Meta's for SAM 2."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from profiler_kit.capture.regions import region
from profiler_kit.models.sam.generator import Pixels, Points, Size, Tensor, sent
from profiler_kit.models.sam2.forward import ask, enlarge, place, prepare_image
from profiler_kit.models.sam2.models import Maps, Sam2

DEFAULTS: Final = {"pred_iou_thresh": 0.8}  # where Meta's generator for SAM 2 has other ones than that for SAM


@dataclass(frozen=True, eq=False)
class Sam2Embedding:
    """maps: what the encoder made of one image. size: (height, width) of the image."""

    maps: Maps
    size: Size


class Sam2Segmenter:
    """The arithmetic of Meta's SAM2ImagePredictor, in named regions.

    on_device: resize images there, where antialiasing rounds otherwise than on the host.
    """

    def __init__(self, sam: Sam2, *, on_device: bool = False) -> None:
        self._sam, self._on_device = sam, on_device
        self.mask_threshold = sam.mask_threshold

    def embed(self, images: Sequence[Pixels]) -> list[Sam2Embedding]:
        """All of them encoded together."""
        device = self._sam.device
        with region("preprocess"):
            at = device if self._on_device else None
            ready = torch.stack([prepare_image(image, self._sam.image_size, at) for image in images]).to(device)
        with region("image encoder"):
            maps = self._sam.image_encoder(ready)
        each = zip(*(one.split(1) for one in maps), strict=True)
        return [
            Sam2Embedding((a, b, c), (image.shape[0], image.shape[1]))
            for (a, b, c), image in zip(each, images, strict=True)
        ]

    def decode(self, embedding: Sam2Embedding, points: Points) -> tuple[Tensor, Tensor]:
        """Three masks for each point."""
        placed = sent(place(points, embedding.size, self._sam.image_size), self._sam.device)[:, None]
        labels = torch.ones(placed.shape[:2], dtype=torch.int32, device=placed.device)
        return ask(self._sam, embedding.maps, (placed, labels), None)

    def enlarge(self, logits: Tensor, embedding: Sam2Embedding) -> Tensor:
        """In one step, from logits that are not clamped."""
        return enlarge(logits[None], embedding.size)[0]
