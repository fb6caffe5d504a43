"""Ask a SAM about a scene as its users do, through SamPredictor (model, scene, prompts -> one mask a prompt)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from profiler_kit.models.sam.metrics import mask_iou
from profiler_kit.models.sam.prompts import PromptChoice, make_prompts

if TYPE_CHECKING:
    from collections.abc import Iterable

    import numpy.typing as npt
    from segment_anything.modeling import Sam

    from profiler_kit.models.sam.scenes import Mask, Scene


def predict_scene(sam: Sam, scene: Scene, choice: PromptChoice) -> Mask:
    """bool[P, H, W]: for a point the one of three masks with the highest predicted IoU, for a box its only mask."""
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


def scene_ious(sam: Sam, scenes: Iterable[Scene], choice: PromptChoice) -> npt.NDArray[np.float64]:
    """IoU with the truth of every object of the scenes, in their order, float64[objects]."""
    return np.concatenate([mask_iou(predict_scene(sam, scene, choice), scene.masks) for scene in scenes])
