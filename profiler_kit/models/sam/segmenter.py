"""A SAM as the mask generator asks it: one image at a time, points in pixels of the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.capture.regions import region
from profiler_kit.models.sam.accuracy import encode
from profiler_kit.models.sam.generator import Pixels, Points, Size, Tensor, sent

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


@dataclass(frozen=True, eq=False)
class SamEmbedding:
    """features: float[1, C, h, w]. input_size, size: (height, width) of the image after and before the resize."""

    features: Tensor
    input_size: Size
    size: Size


class PublishedPredictor:
    """What `MaskGenerator.segment` gives, by segment-anything's SamPredictor as published, masks packed on the host."""

    def __init__(self, sam: Sam) -> None:
        from segment_anything import SamPredictor

        self._predictor = SamPredictor(sam)

    def segment(self, image: Pixels, points: Points) -> list[dict[str, Any]]:
        """The mask of each point, and the IoU that the model predicts for it."""
        predictor = self._predictor
        predictor.set_image(image)
        placed = torch.as_tensor(predictor.transform.apply_coords(points, image.shape[:2]), device=predictor.device)
        labels = torch.ones((len(placed), 1), dtype=torch.int, device=predictor.device)
        masks, iou, _ = predictor.predict_torch(placed[:, None], labels, multimask_output=True)
        score, chosen = iou.max(dim=1)
        best = masks[torch.arange(len(chosen), device=chosen.device), chosen].cpu().numpy()
        rles, scores = encode(best), score.tolist()
        return [{"segmentation": rle, "predicted_iou": score} for rle, score in zip(rles, scores, strict=True)]


class SamSegmenter:
    """The published arithmetic of SamPredictor, in named regions.

    on_device: resize images there, in PIL's two steps; more than 95 % of the pixels are those of the host, the others
    one or two values off.
    """

    def __init__(self, sam: Sam, *, on_device: bool = False) -> None:
        from segment_anything.utils.transforms import ResizeLongestSide

        self._sam, self._on_device = sam, on_device
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        self.mask_threshold = float(sam.mask_threshold)

    def embed(self, images: Sequence[Pixels]) -> list[SamEmbedding]:
        """Normalised and padded on the device, all of them encoded together."""
        with region("preprocess"):
            resized = [self._resized(image) for image in images]
            ready = torch.cat([self._sam.preprocess(one) for one in resized])
        with region("image encoder"):
            features = torch.split(self._sam.image_encoder(ready), 1)
        return [
            SamEmbedding(feature, (small.shape[2], small.shape[3]), (image.shape[0], image.shape[1]))
            for feature, small, image in zip(features, resized, images, strict=True)
        ]

    def _resized(self, image: Pixels) -> Tensor:
        """[1, 3, h, w] on the device, its longest side as the model's."""
        if not self._on_device:
            image = self._resize.apply_image(image)
        pixels = torch.as_tensor(image, device=self._sam.device).permute(2, 0, 1)[None]
        if not self._on_device:
            return pixels
        # not by apply_image_torch, which takes the batch and the channels for height and width (segment-anything 1.0)
        size = self._resize.get_preprocess_shape(image.shape[0], image.shape[1], self._resize.target_length)
        return _antialiased(_antialiased(pixels.float(), (image.shape[0], size[1])), size)

    def decode(self, embedding: SamEmbedding, points: Points) -> tuple[Tensor, Tensor]:
        """Three masks for each point."""
        with region("prompt encoder"):
            placed = self._resize.apply_coords(points, embedding.size)[:, None]
            placed = sent(torch.as_tensor(placed), self._sam.device)
            labels = torch.ones(placed.shape[:2], dtype=torch.int, device=placed.device)
            sparse, dense = self._sam.prompt_encoder(points=(placed, labels), boxes=None, masks=None)
            position = self._sam.prompt_encoder.get_dense_pe()
        with region("mask decoder"):
            logits, iou = self._sam.mask_decoder(
                image_embeddings=embedding.features,
                image_pe=position,
                sparse_prompt_embeddings=sparse,
                dense_prompt_embeddings=dense,
                multimask_output=True,
            )
        return logits, iou

    def enlarge(self, logits: Tensor, embedding: SamEmbedding) -> Tensor:
        """As Sam.postprocess_masks, for masks of one image."""
        full: Tensor = self._sam.postprocess_masks(logits[None], embedding.input_size, embedding.size)
        return full[0]


def _antialiased(pixels: Tensor, size: Size) -> Tensor:
    """[1, 3, h, w] resized to whole numbers, as PIL writes them after each of its two steps."""
    return F.interpolate(pixels, size, mode="bilinear", align_corners=False, antialias=True).add(0.5).floor()
