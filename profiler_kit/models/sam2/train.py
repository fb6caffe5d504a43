"""Train the small SAM 2 on generated scenes, as `models.sam.train` trains a SAM and with its options.

    python -m profiler_kit.models.sam2.train --seconds 480 --out sam2_nano_512.pt

Made the weights that ship as `sam2_nano`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.models.sam.forward import Prediction, move_batch
from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.train import Colours, Family, TrainOptions, main
from profiler_kit.models.sam2.forward import DEVIATION, MEAN, Sam2Forward, prepare_batch
from profiler_kit.models.sam2.models import KIND, Maps, Sam2, load_model, shipped_checkpoint, to_meta
from profiler_kit.models.sam2.segmenter import DEFAULTS, Sam2Segmenter

if TYPE_CHECKING:
    from profiler_kit.models.sam.scenes import Mask, Scene
    from profiler_kit.models.sam.train_loss import Task

Tensor = torch.Tensor


def answer(sam: Sam2, task: Task) -> tuple[Tensor, Tensor]:
    """As `train_loss.answer`."""
    return decode_task(sam, task, sam.image_encoder(task.images))


def decode_task(sam: Sam2, task: Task, maps: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """As `train_loss.decode_task`: images whose prompts are boxes apart from the others, as boxes have a token more."""
    points, boxes = task.points.view(-1, task.prompts, 1, 2), task.boxes.view(-1, task.prompts, 4)
    labels = torch.ones(points.shape[:3], dtype=torch.int32, device=points.device)
    parts = []
    for images in (slice(task.boxed), slice(task.boxed, None)):
        by_box = images.start is None
        if by_box and not task.boxed:
            continue
        with torch.autocast(points.device.type, enabled=False):  # bfloat16 cannot tell neighbouring pixels apart
            prompts = (None, None, boxes[images]) if by_box else (points[images], labels[images], None)
            sparse, _ = sam.prompt_encoder.prompts(*prompts, None)
        fine, middle, coarse = (one[images] for one in maps)
        parts.append(decode_many(sam, (fine, middle, coarse), sparse))
    logits, iou = (torch.cat(part) for part in zip(*parts, strict=True))
    return logits, iou


def decode_many(sam: Sam2, maps: Maps, sparse: Tensor) -> tuple[Tensor, Tensor]:
    """The mask decoder's forward before it chooses among its masks: logits[B * P, 4, h, w], predicted IoU[B * P, 4].

    maps: of B images. sparse: float[B, P, tokens, C].
    """
    decoder = sam.mask_decoder
    count, prompts = sparse.shape[:2]
    fine, middle, coarse = maps
    fixed = torch.cat([decoder.obj_score_token.weight, decoder.iou_token.weight, decoder.mask_tokens.weight])
    source = coarse + sam.prompt_encoder.prompts.no_mask_embed.weight.view(1, -1, 1, 1)
    with torch.autocast(sparse.device.type, enabled=False):
        position = sam.prompt_encoder.position()
    states, pixels = decoder.transformer(
        point_embeddings=torch.cat([fixed.expand(count, prompts, -1, -1), sparse], dim=2),
        image_embeddings=source.repeat_interleave(prompts, dim=0),
        image_positional_embeddings=position.expand(count * prompts, -1, -1, -1),
        attention_similarity=None,
    )
    states = states.flatten(0, 1)
    pixels = pixels.flatten(0, 1).transpose(1, 2).reshape(count * prompts, *source.shape[1:])
    pixels = decoder.upscale_conv1(pixels) + middle.repeat_interleave(prompts, dim=0)
    pixels = decoder.upscale_conv2(decoder.activation(decoder.upscale_layer_norm(pixels)))
    pixels = decoder.activation(pixels + fine.repeat_interleave(prompts, dim=0))
    weights = [mlp(states[:, 2 + i]) for i, mlp in enumerate(decoder.output_hypernetworks_mlps)]
    logits = (torch.stack(weights, dim=1) @ pixels.flatten(2)).unflatten(2, pixels.shape[2:])
    return logits, decoder.iou_prediction_head(states[:, 1])


def begin(sam: Sam2) -> None:
    """Random weights of torch's own scale, as segment-anything's modules begin: transformers' are smaller."""
    for module in sam.modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.ConvTranspose2d | torch.nn.Embedding):
            module.reset_parameters()


def predict_scene(sam: Sam2, scene: Scene, choice: PromptChoice) -> Mask:
    """As `train_check.predict_scene`."""
    batch = move_batch(prepare_batch(sam, [scene], choice), sam.device)
    predictions: list[Prediction] = Sam2Forward(sam)(batch)
    return predictions[0].best()[0]


def _colours(_: Sam2) -> Colours:
    return Colours(*(torch.tensor(values).view(3, 1, 1) * 255 for values in (MEAN, DEVIATION)))


SAM2: Final = Family(
    load=load_model,
    begin=begin,
    side=lambda sam: sam.image_size,
    colours=_colours,
    stretched=True,
    answer=answer,
    decode=decode_task,
    shipped=shipped_checkpoint,
    segmenter=Sam2Segmenter,
    thresholds=DEFAULTS,
    predict=predict_scene,
    filed=lambda state: {KIND.inside: to_meta(state)},
)

if __name__ == "__main__":
    main(None, SAM2, TrainOptions(model="sam2_nano", out=Path("sam2_nano_512.pt")))
