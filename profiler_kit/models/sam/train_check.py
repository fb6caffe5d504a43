"""What a trained model does on scenes it never saw: asked by SamPredictor, and for all masks of an image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from profiler_kit.models.sam.accuracy import PARTNER, mask_iou
from profiler_kit.models.sam.generator import MaskGenerator, Segmenter
from profiler_kit.models.sam.prompts import PromptChoice, make_prompts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    import numpy.typing as npt
    from segment_anything.modeling import Sam

    from profiler_kit.models.sam.scenes import Mask, Scene

    Predict = Callable[[Any, Scene, PromptChoice], Mask]


def evaluate(model: Any, unseen: Mapping[str, Sequence[Scene]], predict: Predict) -> dict[str, dict[str, float]]:
    """IoU with the truth, by shape of the scene and kind of prompt. predict: as `predict_scene`."""
    results = {}
    for shape, scenes in unseen.items():
        for choice in (PromptChoice("centers"), PromptChoice("boxes")):
            iou = scene_ious(model, scenes, choice, predict)
            results[f"{shape}, {choice}"] = {
                "scenes": len(scenes),
                "objects": len(iou),
                "mean_iou": round(float(iou.mean()), 4),
                "median_iou": round(float(np.median(iou)), 4),
                "p10_iou": round(float(np.percentile(iou, 10)), 4),
                "share_below_half": round(float((iou < 0.5).mean()), 4),
            }
    return results


def kept_by_default(
    model: Segmenter, scenes: Sequence[Scene], points_per_side: int = 16, thresholds: Mapping[str, float] | None = None
) -> dict[str, float]:
    """What the generator finds of the objects with segment-anything's thresholds, or others that are given.

    kept: share of the objects that a mask shows (IoU at least PARTNER). mean_iou: of the best mask with each object, 0
    without one; kept_iou: of those kept. masks: in an image.
    """
    generator = MaskGenerator(model, points_per_side=points_per_side, **(thresholds or {}))
    ious: list[float] = []
    count = 0
    for scene in scenes:
        found = [one["segmentation"].ravel() for one in generator.generate(scene.image)]
        count += len(found)
        true = scene.masks.reshape(len(scene.masks), -1).astype(np.float32)
        masks = np.array(found, dtype=np.float32).reshape(-1, true.shape[1])
        common = masks @ true.T
        either = masks.sum(axis=1, keepdims=True) + true.sum(axis=1) - common
        ious += (common / np.maximum(either, 1)).max(axis=0, initial=0.0).tolist()
    iou = np.array(ious)
    kept = iou >= PARTNER
    return {
        "objects": len(iou),
        "kept": round(float(kept.mean()), 4),
        "mean_iou": round(float(iou.mean()), 4),
        "kept_iou": round(float(iou[kept].mean()), 4) if kept.any() else 0.0,
        "masks": round(count / len(scenes), 2),
    }


def predict_scene(sam: Sam, scene: Scene, choice: PromptChoice) -> Mask:
    """bool[P, H, W]: for a point the one of three masks with the highest predicted IoU, for a box its only mask.

    Through SamPredictor.
    """
    from segment_anything import SamPredictor

    predictor = SamPredictor(sam)
    predictor.set_image(scene.image)
    prompts, device = make_prompts(scene, choice), sam.device
    points = labels = boxes = None
    if prompts.points is not None:
        points = torch.from_numpy(predictor.transform.apply_coords(prompts.points, scene.size)).to(device)[:, None]
        labels = torch.ones(points.shape[:2], dtype=torch.int, device=device)
    if prompts.boxes is not None:
        boxes = torch.from_numpy(predictor.transform.apply_boxes(prompts.boxes, scene.size)).to(device)
    masks, quality, _ = predictor.predict_torch(points, labels, boxes, multimask_output=boxes is None)
    chosen = masks[torch.arange(len(masks), device=device), quality.argmax(dim=1)]
    return np.asarray(chosen.cpu().numpy())


def scene_ious(
    model: Any, scenes: Iterable[Scene], choice: PromptChoice, predict: Predict = predict_scene
) -> npt.NDArray[np.float64]:
    """IoU with the truth of every object of the scenes, in their order, float64[objects]."""
    return np.concatenate([mask_iou(predict(model, scene, choice), scene.masks) for scene in scenes])
