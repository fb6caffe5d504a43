"""Run SAM 2 on batches of images as Meta's image predictor does, in named regions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.capture.regions import region
from profiler_kit.models.sam.forward import Batch, Prediction, Query, pinned, whole
from profiler_kit.models.sam.generator import sent
from profiler_kit.models.sam.prompts import PromptChoice, make_prompts
from profiler_kit.models.sam.scenes import Scene
from profiler_kit.models.sam2.models import Maps, Point, Sam2

Tensor = torch.Tensor
Size = tuple[int, int]
MEAN: Final = (0.485, 0.456, 0.406)
DEVIATION: Final = (0.229, 0.224, 0.225)

# The layers people talk about, as of a SAM.
_TIMED: Final = re.compile(
    r"\(model\)|prompt_encoder|postprocess"
    r"|image_encoder(\.project_\w+|\.vision\.neck"
    r"|\.vision\.backbone\.(patch_embed|blocks\.\d+(\.(layer_norm1|attn|layer_norm2|mlp))?))?"
    r"|mask_decoder(\.(upscale_conv\d|output_hypernetworks_mlps\.\d+|iou_prediction_head|pred_obj_score_head"
    r"|transformer(\.(layers\.\d+|final_attn_token_to_image|layer_norm_final_attn))?))?"
)
_BLOCK: Final = re.compile(r"(image_encoder\.vision\.backbone\.blocks\.\d+)(?:\.attn)?")


def prepare_image(image: npt.NDArray[np.uint8], side: int, device: torch.device | None = None) -> Tensor:
    """uint8[H, W, 3] to float32[3, side, side]: resized without keeping the aspect ratio, antialiased, normalised.

    On the host, as Meta's SAM2Transforms does; on `device` where one is given, which rounds otherwise.
    """
    from torchvision.transforms import functional

    at = device or torch.device("cpu")
    pixels = sent(torch.from_numpy(image), at).permute(2, 0, 1).contiguous().float() / 255
    resized: Tensor = functional.resize(pixels, [side, side], antialias=True)
    # not torchvision's normalize, which asks the GPU whether a deviation is zero
    mean, deviation = (sent(torch.tensor(one).view(-1, 1, 1), at) for one in (MEAN, DEVIATION))
    return resized.sub_(mean).div_(deviation)


def place(points: npt.NDArray[np.floating], size: Size, side: int) -> Tensor:
    """Pixels of an image of that size, float[N, 2], x then y, to those of the model's input."""
    return torch.from_numpy(points / np.array([size[1], size[0]]) * side)


def prepare_batch(sam: Sam2, scenes: Sequence[Scene], choice: PromptChoice, *, pin: bool = False) -> Batch:
    """Images and prompts as the model takes them, on the host, before any timing; as `models.sam` prepares them."""
    side = sam.image_size
    images = torch.stack([prepare_image(scene.image, side) for scene in scenes])
    batch = Batch(images, tuple(_query(scene, choice, side) for scene in scenes), tuple(scenes))
    return pinned(batch) if pin else batch


def _query(scene: Scene, choice: PromptChoice, side: int) -> Query:
    prompts = make_prompts(scene, choice)
    points = labels = boxes = None
    if prompts.points is not None:
        points = place(prompts.points, scene.size, side).float()[:, None]
        labels = torch.ones(points.shape[:2], dtype=torch.int32)
    if prompts.boxes is not None:
        boxes = place(prompts.boxes.reshape(-1, 2), scene.size, side).float().reshape(-1, 4)
    return Query(points, labels, boxes, (side, side), scene.size, multimask=boxes is None or choice.multimask)


def ask(
    sam: Sam2 | Sam2Forward, maps: Maps, points: Point | None, boxes: Tensor | None, *, multimask: bool = True
) -> tuple[Tensor, Tensor]:
    """What the model answers to P prompts in one image: logits float[P, C, h, w] and predicted IoU float[P, C].

    maps: what the encoder made of the image, each float[1, C, h, w]. C is 3, or 1 without `multimask`.
    """
    with region("prompt encoder"):
        sparse, dense, position = sam.prompt_encoder(points, boxes)
    with region("mask decoder"):
        *fine, coarse = maps
        logits, iou, _, _ = sam.mask_decoder(
            image_embeddings=coarse,
            image_positional_embeddings=position,
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=multimask,
            high_resolution_features=fine,
        )
    return logits[0], iou[0]


def enlarge(logits: Tensor, size: Size) -> Tensor:
    """float[P, C, h, w] to float[P, C, H, W] in one step."""
    return F.interpolate(logits.float(), size, mode="bilinear", align_corners=False)


class Postprocess(torch.nn.Module):
    """Enlarging and the threshold as a module, so that layer timings see it beside the others."""

    def forward(self, logits: Tensor, query: Query) -> Tensor:
        """float[P, C, h, w] logits to bool[P, C, H, W] masks at the image's own size."""
        return enlarge(logits, query.original_size) > Sam2.mask_threshold


class Sam2Forward(torch.nn.Module):
    """The forward of a SAM 2 on prepared batches: the encoder on the whole batch, prompts and masks image by image."""

    def __init__(self, sam: Sam2) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.postprocess = Postprocess()

    @torch.no_grad()
    def forward(self, batch: Batch) -> list[Prediction]:
        """One Prediction an image, still on the device."""
        with region("image encoder"):
            maps = self.image_encoder(batch.images)
        each = zip(*(one.split(1) for one in maps), strict=True)
        return [self._answer((a, b, c), query) for (a, b, c), query in zip(each, batch.queries, strict=True)]

    def _answer(self, maps: Maps, query: Query) -> Prediction:
        answers = []
        for part in query.parts():
            points = None if part.points is None or part.labels is None else (part.points, part.labels)
            logits, iou = ask(self, maps, points, part.boxes, multimask=part.multimask)
            with region("postprocess"):
                answers.append(Prediction(self.postprocess(logits, part), iou))
        return whole(answers)


def is_timed(name: str, _module: torch.nn.Module) -> bool:
    """Whether the layer of that path in a Sam2Forward is one to time."""
    return _TIMED.fullmatch(name) is not None


def block_label(model: torch.nn.Module) -> Callable[[str, torch.nn.Module], str]:
    """A label for `layer_timer`: "window 8" or "global" for blocks and their attention; "pool" where maps halve."""
    blocks = {name: block for name, block in model.named_modules() if hasattr(block, "query_stride")}

    def label(name: str, _module: torch.nn.Module) -> str:
        match = _BLOCK.fullmatch(name)
        block = blocks.get(match[1]) if match else None
        if block is None or not hasattr(block, "window_size"):
            return ""
        window = f"window {block.window_size}" if block.window_size else "global"
        return f"{window}, pool" if block.query_stride else window

    return label
