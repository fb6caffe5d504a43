"""Run segment-anything on batches of images exactly as published, in named regions."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.capture.regions import region
from profiler_kit.models.sam.decoder import BatchedMaskDecoder
from profiler_kit.models.sam.prompts import PromptChoice, make_prompts
from profiler_kit.models.sam.scenes import Mask, Scene

if TYPE_CHECKING:
    from segment_anything.modeling import Sam
    from segment_anything.utils.transforms import ResizeLongestSide

PROMPTS_PER_CALL: Final = 64  # as SamAutomaticMaskGenerator does; a prompt's mask does not depend on the others
PROMPTS_TOGETHER: Final = 256  # of all images together in one call of a BatchedMaskDecoder: some 3 GB in bfloat16

# The layers people talk about. Deeper ones (qkv, proj, lin1) would double the hooks for little.
_TIMED: Final = re.compile(
    r"\(model\)|prompt_encoder|postprocess"
    r"|image_encoder(\.patch_embed|\.neck|\.blocks\.\d+(\.(norm1|attn|norm2|mlp))?)?"
    r"|mask_decoder(\.(output_upscaling|output_hypernetworks_mlps\.\d+|iou_prediction_head"
    r"|transformer(\.(layers\.\d+|final_attn_token_to_image|norm_final_attn))?))?"
)
_BLOCK: Final = re.compile(r"(image_encoder\.blocks\.\d+)(?:\.attn)?")


@dataclass(frozen=True, eq=False)
class Query:
    """The prompts of one image in the model's frame (pixels after the resize); points or boxes is None.

    points: float32[P, 1, 2], x then y. labels: int32[P, 1], 1 for foreground. boxes: float32[P, 4]. multimask: three
    masks of each, not one.
    input_size, original_size: (height, width) of the image after and before the resize.
    """

    points: torch.Tensor | None
    labels: torch.Tensor | None
    boxes: torch.Tensor | None
    input_size: tuple[int, int]
    original_size: tuple[int, int]
    multimask: bool = True

    @property
    def count(self) -> int:
        """How many prompts."""
        prompts = self.boxes if self.points is None else self.points
        return 0 if prompts is None else len(prompts)

    def parts(self) -> list[Query]:
        """The same prompts, at most PROMPTS_PER_CALL in each part."""

        def split(tensor: torch.Tensor | None) -> list[torch.Tensor | None]:
            return [None] * count if tensor is None else list(torch.split(tensor, PROMPTS_PER_CALL))

        count = -(-self.count // PROMPTS_PER_CALL)
        columns = zip(split(self.points), split(self.labels), split(self.boxes), strict=True)
        return [replace(self, points=points, labels=labels, boxes=boxes) for points, labels, boxes in columns]


@dataclass(frozen=True, eq=False)
class Batch:
    """Images ready for the encoder and the prompts of each. images: float32[B, 3, S, S], normalised and padded."""

    images: torch.Tensor
    queries: tuple[Query, ...]
    scenes: tuple[Scene, ...]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What SAM answered for one image: for each of P prompts C candidate masks (3 for a point, 1 or 3 for a box).

    masks: bool[P, C, H, W] at the image's own size. iou: float32[P, C], the model's own guess of their quality.
    """

    masks: torch.Tensor
    iou: torch.Tensor

    def best(self) -> tuple[Mask, np.ndarray[tuple[int], np.dtype[np.float32]]]:
        """The candidate with the highest predicted IoU of each prompt: bool[P, H, W], float32[P], on the host."""
        score, chosen = self.iou.max(dim=1)
        masks = self.masks[torch.arange(len(chosen), device=chosen.device), chosen]
        return masks.cpu().numpy(), score.cpu().numpy()


def prepare_batch(sam: Sam, scenes: Sequence[Scene], choice: PromptChoice, *, pin: bool = False) -> Batch:
    """Resize, normalise and pad the images on the host, and bring the prompts into the model's frame.

    The same arithmetic as ResizeLongestSide and Sam.preprocess, before any timing: what is timed gets ready
    tensors, and float32 pixels cross the bus. `pin` puts all of it into page-locked memory for the copy.
    """
    from segment_anything.utils.transforms import ResizeLongestSide

    side = sam.image_encoder.img_size
    mean, deviation = sam.pixel_mean.cpu(), sam.pixel_std.cpu()
    resize = ResizeLongestSide(side)
    images, queries = [], []
    for scene in scenes:
        pixels = torch.from_numpy(resize.apply_image(scene.image)).permute(2, 0, 1).float()
        height, width = pixels.shape[-2:]
        images.append(F.pad((pixels - mean) / deviation, (0, side - width, 0, side - height)))
        queries.append(_query(scene, choice, resize, (height, width)))
    batch = Batch(torch.stack(images), tuple(queries), tuple(scenes))
    return pinned(batch) if pin else batch


class Postprocess(torch.nn.Module):
    """Sam.postprocess_masks and the threshold as a module, so that layer timings see it beside SAM's own."""

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self._sam = (sam,)  # in a tuple, so that it is not a child and no layer is found twice

    def forward(self, low_resolution: torch.Tensor, query: Query) -> torch.Tensor:
        """float[P, C, h, w] logits to bool[P, C, H, W] masks at the image's own size."""
        (sam,) = self._sam
        full = sam.postprocess_masks(low_resolution, query.input_size, query.original_size)
        return torch.gt(full, sam.mask_threshold)


class SamForward(torch.nn.Module):
    """The published forward of a SAM on prepared batches; its layers keep SAM's own names, plus `postprocess`.

    As Sam.forward: the encoder runs on the whole batch, prompts and masks image by image. Images with more than
    PROMPTS_PER_CALL prompts are decoded in several calls. Three masks for each point, one for each box, all
    brought to the size of the image and cut at the threshold.
    """

    def __init__(self, sam: Sam) -> None:
        super().__init__()
        self.image_encoder = sam.image_encoder
        self.prompt_encoder = sam.prompt_encoder
        self.mask_decoder = sam.mask_decoder
        self.postprocess = Postprocess(sam)

    @torch.no_grad()
    def forward(self, batch: Batch) -> list[Prediction]:
        """One Prediction an image, still on the device."""
        with region("image encoder"):
            embeddings = self.image_encoder(batch.images)
        if isinstance(self.mask_decoder, BatchedMaskDecoder):
            return self._answer_together(embeddings, batch.queries)
        return [self._answer(e, query) for e, query in zip(embeddings, batch.queries, strict=True)]

    def _answer(self, embedding: torch.Tensor, query: Query) -> Prediction:
        masks, scores = [], []
        for part in query.parts():
            with region("prompt encoder"):
                points = None if part.points is None else (part.points, part.labels)
                sparse, dense = self.prompt_encoder(points=points, boxes=part.boxes, masks=None)
                position = self.prompt_encoder.get_dense_pe()
            with region("mask decoder"):
                low_resolution, iou = self.mask_decoder(
                    image_embeddings=embedding.unsqueeze(0),
                    image_pe=position,
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=part.multimask,
                )
            with region("postprocess"):
                masks.append(self.postprocess(low_resolution, part))
            scores.append(iou)
        return whole([Prediction(mask, score) for mask, score in zip(masks, scores, strict=True)])

    def _answer_together(self, embeddings: torch.Tensor, queries: Sequence[Query]) -> list[Prediction]:
        """The prompts of all images in as few calls of the decoder as PROMPTS_TOGETHER allows."""
        found: list[list[Prediction]] = [[] for _ in queries]
        for group in _groups(queries):
            images, parts = zip(*group, strict=True)
            chosen = (
                embeddings if images == tuple(range(len(embeddings))) else torch.stack([embeddings[i] for i in images])
            )
            counts = [part.count for part in parts]
            points, labels, boxes = (_joined(parts, name) for name in ("points", "labels", "boxes"))
            with region("prompt encoder"):
                sparse, dense = self.prompt_encoder(
                    points=None if points is None else (points, labels), boxes=boxes, masks=None
                )
                position = self.prompt_encoder.get_dense_pe()
            with region("mask decoder"):
                low_resolution, iou = self.mask_decoder(
                    image_embeddings=chosen,
                    image_pe=position,
                    sparse_prompt_embeddings=sparse,
                    dense_prompt_embeddings=dense,
                    multimask_output=parts[0].multimask,
                    prompts_per_image=counts,
                )
            with region("postprocess"):
                masks = self._postprocess_parts(low_resolution.split(counts), parts)
            for image, mask, score in zip(images, masks, iou.split(counts), strict=True):
                found[image].append(Prediction(mask, score))
        return [whole(answers) for answers in found]

    def _postprocess_parts(self, low_resolution: Sequence[torch.Tensor], parts: Sequence[Query]) -> list[torch.Tensor]:
        """Masks of each part; neighbours of one size go through in one call."""
        masks: list[torch.Tensor] = []
        for _, same in groupby(range(len(parts)), lambda i: (parts[i].input_size, parts[i].original_size)):
            run = list(same)
            together = torch.cat([low_resolution[i] for i in run]) if len(run) > 1 else low_resolution[run[0]]
            masks += self.postprocess(together, parts[run[0]]).split([parts[i].count for i in run])
        return masks


def is_timed(name: str, _module: torch.nn.Module) -> bool:
    """Whether the layer of that path in a SamForward is one to time."""
    return _TIMED.fullmatch(name) is not None


def block_label(model: torch.nn.Module) -> Callable[[str, torch.nn.Module], str]:
    """A label for `layer_timer`: "window 14" or "global" for the encoder's blocks and their attention, else ""."""
    windows = {name: block.window_size for name, block in model.named_modules() if hasattr(block, "window_size")}

    def label(name: str, _module: torch.nn.Module) -> str:
        block = _BLOCK.fullmatch(name)
        window = windows.get(block[1]) if block else None
        if window is None:
            return ""
        return f"window {window}" if window else "global"

    return label


def move_batch(batch: Batch, device: torch.device) -> Batch:
    """The batch with all its tensors on the device; copies from page-locked memory do not block the host."""
    return _each_tensor(batch, lambda tensor: tensor.to(device, non_blocking=True))


def pinned(batch: Batch) -> Batch:
    """The batch in page-locked memory."""
    return _each_tensor(batch, torch.Tensor.pin_memory)


def _groups(queries: Sequence[Query]) -> Iterator[list[tuple[int, Query]]]:
    """(image, some of its prompts) in runs of one kind of prompt and, as far as parts allow, PROMPTS_TOGETHER."""
    group: list[tuple[int, Query]] = []
    for image, query in enumerate(queries):
        for part in query.parts():
            full = sum(other.count for _, other in group) + part.count > PROMPTS_TOGETHER
            if group and (full or (part.boxes is None) != (group[0][1].boxes is None)):
                yield group
                group = []
            group.append((image, part))
    if group:
        yield group


def _joined(parts: Sequence[Query], name: Literal["points", "labels", "boxes"]) -> torch.Tensor | None:
    tensors = [tensor for part in parts if (tensor := getattr(part, name)) is not None]
    return torch.cat(tensors) if tensors else None


def whole(answers: Sequence[Prediction]) -> Prediction:
    """One image's answers as one."""
    if len(answers) == 1:
        return answers[0]
    return Prediction(torch.cat([a.masks for a in answers]), torch.cat([a.iou for a in answers]))


def _each_tensor(batch: Batch, change: Callable[[torch.Tensor], torch.Tensor]) -> Batch:
    def maybe(tensor: torch.Tensor | None) -> torch.Tensor | None:
        return None if tensor is None else change(tensor)

    queries = (
        replace(query, points=maybe(query.points), labels=maybe(query.labels), boxes=maybe(query.boxes))
        for query in batch.queries
    )
    return replace(batch, images=change(batch.images), queries=tuple(queries))


def _query(scene: Scene, choice: PromptChoice, resize: ResizeLongestSide, input_size: tuple[int, int]) -> Query:
    prompts = make_prompts(scene, choice)
    points = labels = boxes = None
    if prompts.points is not None:
        placed = resize.apply_coords(prompts.points[:, None, :], scene.size)
        points = torch.from_numpy(placed.astype(np.float32))
        labels = torch.ones(points.shape[:2], dtype=torch.int32)
    if prompts.boxes is not None:
        boxes = torch.from_numpy(resize.apply_boxes(prompts.boxes, scene.size).astype(np.float32))
    return Query(points, labels, boxes, input_size, scene.size, multimask=boxes is None or choice.multimask)
