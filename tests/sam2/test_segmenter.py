"""All masks of an image by SAM 2: those of a plain loop over points, image by image, written down here."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.models.sam.generator import MaskGenerator
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam2.models import Sam2, load_model
from profiler_kit.models.sam2.segmenter import DEFAULTS, Sam2Segmenter
from tests.sam2 import needs_transformers

pytestmark = needs_transformers
Mask = npt.NDArray[np.bool_]


@pytest.fixture(scope="module")
def sam() -> Sam2:
    """Random weights, stretched until the masks of points differ."""
    sam = load_model("sam2_nano", seed=5, side=128).model
    with torch.no_grad():
        for name, parameter in sam.mask_decoder.named_parameters():
            if "_proj" in name:
                parameter.mul_(8)
            elif "mlps" in name:
                parameter.mul_(16)
            elif "iou_prediction" in name:
                parameter.mul_(4)
        sam.prompt_encoder.prompts.point_embed.weight.mul_(30)
    return sam


def image(height: int, width: int) -> npt.NDArray[np.uint8]:
    return generate_scenes(1, height=height, width=width, seed=3)[0].image


def by_hand(sam: Sam2, picture: npt.NDArray[np.uint8], points: npt.NDArray[np.float64]) -> list[dict[str, Any]]:
    """All answers, one point at a time: enlarged mask, predicted IoU, stability, box."""
    height, width = picture.shape[:2]
    side = sam.image_size
    pixels = torch.tensor(picture.transpose(2, 0, 1).copy()).float().div(255)[None]
    pixels = F.interpolate(pixels, (side, side), mode="bilinear", antialias=True, align_corners=False)[0]
    mean, deviation = (torch.tensor(x)[:, None, None] for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
    found = []
    with torch.no_grad():
        fine, middle, coarse = sam.image_encoder(((pixels - mean) / deviation)[None])
        for x, y in points.tolist():
            placed = torch.tensor([[[x / width * side, y / height * side]]])
            sparse, dense, position = sam.prompt_encoder((placed, torch.ones(1, 1, dtype=torch.int32)), None)
            logits, iou, _, _ = sam.mask_decoder(
                coarse, position, sparse, dense, multimask_output=True, high_resolution_features=[fine, middle]
            )
            full = F.interpolate(logits[0], (height, width), mode="bilinear", align_corners=False)[0]
            for mask, score in zip(full, iou[0, 0].tolist(), strict=True):
                inside = (mask > 0).numpy()
                rows, columns = np.flatnonzero(inside.any(1)), np.flatnonzero(inside.any(0))
                box = [columns[0], rows[0], columns[-1], rows[-1]] if len(rows) else [0, 0, 0, 0]
                stability = int((mask > 1).sum()) / max(int((mask > -1).sum()), 1)
                found.append({"mask": inside, "iou": score, "stability": stability, "box": box, "point": [x, y]})
    return found


def without_duplicates(answers: list[dict[str, Any]], threshold: float) -> list[dict[str, Any]]:
    def overlap(a: list[int], b: list[int]) -> float:
        sides = [min(a[i + 2], b[i + 2]) - max(a[i], b[i]) for i in (0, 1)]
        common = max(sides[0], 0) * max(sides[1], 0)
        areas = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (a, b))
        return common / max(areas - common, 1)

    kept: list[dict[str, Any]] = []
    for one in sorted(answers, key=lambda answer: -answer["iou"]):
        if all(overlap(one["box"], other["box"]) <= threshold for other in kept):
            kept.append(one)
    return kept


@pytest.mark.parametrize(("size", "nms", "batch"), [((60, 100), 1.0, 5), ((96, 64), 0.98, 64)])
def test_masks_are_those_of_a_plain_loop(sam: Sam2, size: tuple[int, int], nms: float, batch: int) -> None:
    picture = image(*size)
    generator = MaskGenerator(
        Sam2Segmenter(sam),
        points_per_side=4,
        points_per_batch=batch,
        pred_iou_thresh=0.5,
        stability_score_thresh=0.3,
        box_nms_thresh=nms,
    )
    points = generator.options.grid(0) * np.array([size[1], size[0]])
    answers = by_hand(sam, picture, points)
    good = [one for one in answers if one["iou"] > 0.5 and one["stability"] >= 0.3]
    wanted = without_duplicates(good, nms)
    found = generator.generate(picture)
    assert len(answers) > len(good) >= len(wanted) > 1 and len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert np.mean(one["segmentation"] != other["mask"]) < 1e-3  # the last digit of a logit
        assert one["point_coords"] == [other["point"]]
        assert one["predicted_iou"] == pytest.approx(other["iou"], abs=1e-5)
        assert one["stability_score"] == pytest.approx(other["stability"], abs=2e-3)


@pytest.mark.parametrize("nms", [1.0, 0.98])
def test_answers_are_kept_as_by_transformers_own_pipeline(sam: Sam2, nms: float) -> None:
    """What transformers' mask generation does with the model's answers: enlarge, filter, encode, leave duplicates out.

    Meta's generator, which it was taken from, is in no package registry.
    """
    from transformers.models.sam2.image_processing_sam2 import Sam2ImageProcessor

    size, theirs = (60, 100), Sam2ImageProcessor()
    segmenter, picture = Sam2Segmenter(sam), image(*size)
    least = {"pred_iou_thresh": 0.5, "stability_score_thresh": 0.3}
    ours = MaskGenerator(segmenter, points_per_side=4, box_nms_thresh=nms, output_mode="uncompressed_rle", **least)
    with torch.no_grad():
        logits, iou = segmenter.decode(segmenter.embed([picture])[0], ours.options.grid(0) * np.array([100, 60]))
    (full,) = theirs.post_process_masks([logits], [size], binarize=False)
    rles, scores, boxes = theirs.filter_masks(full, iou, size, [0, 0, size[1], size[0]], **least)
    _, scores, rles, boxes = theirs.post_process_for_mask_generation(rles, scores, boxes, nms)
    found = ours.generate(picture)
    assert len(found) > 1 and [one["segmentation"] for one in found] == rles
    assert [one["predicted_iou"] for one in found] == scores.tolist()
    assert [[x, y, x + w, y + h] for x, y, w, h in (one["bbox"] for one in found)] == boxes.tolist()


def test_images_of_several_sizes_at_once_and_crops(sam: Sam2) -> None:
    ours = MaskGenerator(Sam2Segmenter(sam), points_per_side=2, **{**DEFAULTS, "pred_iou_thresh": 0.1}, crop_n_layers=1)
    pictures = [image(64, 80), image(70, 40)]
    for found, picture in zip(ours.generate_batch(pictures), pictures, strict=True):
        assert len(found) == len(ours.generate(picture))


def test_resizing_on_the_device_gives_the_same_on_a_cpu(sam: Sam2) -> None:
    picture = image(64, 90)
    host, device = (Sam2Segmenter(sam, on_device=on_device).embed([picture])[0] for on_device in (False, True))
    assert all(torch.equal(a, b) for a, b in zip(host.maps, device.maps, strict=True))


def test_defaults_are_those_of_metas_generator_for_sam_2(sam: Sam2) -> None:
    assert MaskGenerator(Sam2Segmenter(sam), **DEFAULTS).options.pred_iou_thresh == 0.8
