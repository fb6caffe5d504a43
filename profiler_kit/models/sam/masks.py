"""masks.json: the predicted masks of a batch in COCO's run-length encoding."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from profiler_kit.files import write_json
from profiler_kit.models.sam.accuracy import mask_iou
from profiler_kit.models.sam.forward import Prediction
from profiler_kit.models.sam.prompts import PromptChoice, make_prompts
from profiler_kit.models.sam.scenes import Scene


def write_masks(
    path: Path, scenes: Sequence[Scene], predictions: Sequence[Prediction], choice: PromptChoice
) -> float | None:
    """Write one annotation a prompt, the candidate with the highest predicted IoU; needs pycocotools.

    The file has COCO's `images` (id, file_name, height, width) and `annotations` (image_id, segmentation
    {size: [height, width], counts}, bbox [x, y, width, height], area, score = predicted IoU, and the prompt:
    `point` [x, y] or `box` [x0, y0, x1, y1], inclusive). Where the true mask of the prompt is known, `true_iou`
    is the intersection over union with it.

    Returns the mean of `true_iou`, or None when no true mask is known. Raises ModuleNotFoundError without
    pycocotools.
    """
    import pycocotools.mask

    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    known: list[float] = []
    for number, (scene, prediction) in enumerate(zip(scenes, predictions, strict=True)):
        height, width = scene.size
        images.append({"id": number, "file_name": scene.name, "height": height, "width": width})
        masks, scores = prediction.best()
        prompts = make_prompts(scene, choice)
        true = None if choice.kind == "grid" or choice.falls_back(scene) else mask_iou(masks, scene.masks)
        for row, (mask, score) in enumerate(zip(masks, scores, strict=True)):
            rle = pycocotools.mask.encode(np.asfortranarray(mask.astype(np.uint8)))
            rows = prompts.boxes if prompts.points is None else prompts.points
            annotation = {
                "id": len(annotations),
                "image_id": number,
                "segmentation": {"size": [height, width], "counts": rle["counts"].decode("ascii")},
                "bbox": [float(value) for value in pycocotools.mask.toBbox(rle)],
                "area": int(pycocotools.mask.area(rle)),
                "score": float(score),
                "box" if prompts.points is None else "point": [] if rows is None else rows[row].tolist(),
            }
            if true is not None:
                annotation["true_iou"] = float(true[row])
                known.append(float(true[row]))
            annotations.append(annotation)
    write_json(path, {"images": images, "annotations": annotations})
    return float(np.mean(known)) if known else None
