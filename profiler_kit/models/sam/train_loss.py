"""The loss of SAM's paper over many images and prompts at once.

Segment Anything (Kirillov et al., 2023), appendix A: focal and dice loss 20 to 1, and the best of three masks counts.
The predicted IoU learns the real one by the absolute error, as in SAM 2 (Ravi et al., 2024): the squared one would give
way to a few bad masks and undervalue all others. At the end of a training logits are SHARPNESS times as steep as the
focal loss alone would make them, and the dice loss sees them so: the edge of a mask hardly moves with the threshold,
which is the stability that mask generators ask for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

if TYPE_CHECKING:
    from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam

FOCAL_WEIGHT: Final = 20.0
SHARPNESS: Final = 8.0
_ALPHA: Final = 0.25  # focal loss: weight of the pixels inside (Lin et al., 2017)
_GAMMA: Final = 2.0


@dataclass(frozen=True, eq=False)
class Task:
    """B images, P prompts each, and what the answers should be.

    images: float[B, 3, S, S], normalised, zero in the padding. points: float32[B * P, 2], x then y, pixels.
    boxes: float32[B * P, 4]. by_box: bool[B * P], whether the prompt is the box and not the point. truth:
    bool[B * P, S, S]. valid: bool[B, S, S], pixels that are not padding. boxed: of how many images, the first ones, the
    prompts are boxes, where they have objects.
    """

    images: torch.Tensor
    points: torch.Tensor
    boxes: torch.Tensor
    by_box: torch.Tensor
    truth: torch.Tensor
    valid: torch.Tensor
    boxed: int

    @property
    def prompts(self) -> int:
        """Of each image."""
        return len(self.points) // len(self.images)


class Losses(NamedTuple):
    """total: the scalar to minimise. best, single, quality: its parts (the best of three masks, the one mask for
    boxes, the absolute error of the predicted IoU). iou: mean real IoU of the mask that the model itself would choose.
    """

    total: torch.Tensor
    best: torch.Tensor
    single: torch.Tensor
    quality: torch.Tensor
    iou: torch.Tensor


# Logits float[B * P, 4, h, w] of the one mask for boxes and the three for points, and the IoU predicted of each.
Answer = Callable[[Any, Task], tuple[torch.Tensor, torch.Tensor]]
# The same, of what an image encoder made of the task's images: its maps, the coarsest last.
Decode = Callable[[Any, Task, Sequence[torch.Tensor]], tuple[torch.Tensor, torch.Tensor]]


def answer(sam: Sam, task: Task) -> tuple[torch.Tensor, torch.Tensor]:
    """A SAM's."""
    return decode_task(sam, task, [sam.image_encoder(task.images)])


def decode_task(sam: Sam, task: Task, maps: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """A SAM's."""
    return decode_many(sam, maps[-1], embed_prompts(sam.prompt_encoder, task.points, task.boxes, task.by_box))


def task_losses(model: Any, task: Task, answer: Answer = answer, sharpness: torch.Tensor | float = SHARPNESS) -> Losses:
    """Run the model on the task; differentiable. sharpness: how steep logits are to be."""
    logits, predicted = answer(model, task)
    with torch.autocast(task.images.device.type, dtype=torch.bfloat16, enabled=torch.is_autocast_enabled()):
        full = upsample(logits, task.images.shape[-1])
    losses, iou = mask_losses(full, task.truth, task.valid, sharpness)
    best, single = losses[:, 1:].min(dim=1).values.mean(), losses[:, 0].mean()
    quality = F.l1_loss(predicted.float(), iou)
    chosen = predicted[:, 1:].argmax(dim=1, keepdim=True)
    return Losses(best + single + quality, best, single, quality, iou[:, 1:].gather(1, chosen).mean())


def embed_prompts(
    encoder: PromptEncoder, points: torch.Tensor, boxes: torch.Tensor, by_box: torch.Tensor
) -> torch.Tensor:
    """PromptEncoder's embedding of one point, or of one box, for each prompt: float32[N, 2, C].

    The same numbers, without its boolean indexing, for which a GPU would be waited for.
    """
    with torch.autocast(points.device.type, enabled=False):  # bfloat16 cannot tell neighbouring pixels apart
        corners = torch.cat([points[:, None], boxes.view(-1, 2, 2)], dim=1) + 0.5
        place = encoder.pe_layer.forward_with_coords(corners, encoder.input_image_size)
    _, point, first, last = (embedding.weight for embedding in encoder.point_embeddings)
    nothing = encoder.not_a_point_embed.weight.expand(len(points), -1)
    by_point = torch.stack([place[:, 0] + point, nothing], dim=1)
    return torch.where(by_box[:, None, None], torch.stack([place[:, 1] + first, place[:, 2] + last], dim=1), by_point)


def decode_many(sam: Sam, embeddings: torch.Tensor, sparse: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """MaskDecoder.predict_masks for several images: logits[N, 4, h, w] and predicted IoU[N, 4].

    embeddings: [B, C, grid, grid]; sparse: [N, 2, C], N / B prompts for each image, image by image.
    """
    decoder: MaskDecoder = sam.mask_decoder
    count = len(sparse)
    output = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
    tokens = torch.cat([output.expand(count, -1, -1), sparse], dim=1)
    with torch.autocast(sparse.device.type, enabled=False):
        position = sam.prompt_encoder.get_dense_pe()
    source = embeddings.repeat_interleave(count // len(embeddings), dim=0)
    source = source + sam.prompt_encoder.no_mask_embed.weight.view(1, -1, 1, 1)
    states, pixels = decoder.transformer(source, position.expand(count, -1, -1, -1), tokens)
    upscaled = decoder.output_upscaling(pixels.transpose(1, 2).reshape(source.shape))
    weights = [mlp(states[:, 1 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    logits = (torch.stack(weights, dim=1) @ upscaled.flatten(2)).unflatten(2, upscaled.shape[2:])
    return logits, decoder.iou_prediction_head(states[:, 0])


def upsample(logits: torch.Tensor, side: int) -> torch.Tensor:
    """F.interpolate(bilinear, align_corners=False) of square maps to [N, C, side, side], as two matrix products.

    The backward pass of interpolate adds atomically, a quarter of a billion times here; that of a product does not.
    """
    small = logits.shape[-1]
    place = ((torch.arange(side, device=logits.device) + 0.5) * (small / side) - 0.5).clamp(0, small - 1)
    weights = (1 - (place[:, None] - torch.arange(small, device=logits.device)).abs()).clamp_min(0)
    weights = weights.to(logits.dtype)
    return weights @ logits @ weights.T


def mask_losses(
    logits: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor, sharpness: torch.Tensor | float = SHARPNESS
) -> tuple[torch.Tensor, torch.Tensor]:
    """20 focal + dice of each mask, float32[N, K], and its real IoU at the threshold 0, float32[N, K].

    logits: [N, K, S, S]. truth: bool[N, S, S]. valid: bool[B, S, S], N / B masks for each; other pixels do not count.
    """
    counted = valid.repeat_interleave(len(truth) // len(valid), dim=0)[:, None]
    x, target, weight = logits.float(), truth[:, None].float(), counted.float()
    flat = x / sharpness
    likely = torch.sigmoid(flat)
    entropy = F.softplus(flat) - flat * target
    right = likely * target + (1 - likely) * (1 - target)
    balance = _ALPHA * target + (1 - _ALPHA) * (1 - target)
    pixels = (2, 3)
    focal = (balance * (1 - right) ** _GAMMA * entropy * weight).sum(pixels) / weight.sum(pixels)
    inside = torch.sigmoid(x)
    common = (inside * target * weight).sum(pixels)
    dice = 1 - (2 * common + 1) / (((inside + target) * weight).sum(pixels) + 1)
    with torch.no_grad():
        cut = (logits > 0) & counted
        union = (cut | truth[:, None]).sum(pixels)
        iou = (cut & truth[:, None]).sum(pixels) / union.clamp_min(1)
    return FOCAL_WEIGHT * focal + dice, iou.float()
