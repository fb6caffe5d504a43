"""masks.json holds the predicted masks: decoded again they are the same pixels."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pycocotools.mask
import pytest
import torch

from profiler_kit.models.sam.forward import Prediction
from profiler_kit.models.sam.masks import write_masks
from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.scenes import generate_scenes


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools.mask.decode
def test_masks_survive_and_are_compared_with_the_true_ones(tmp_path: Path) -> None:
    scenes = generate_scenes(2, height=64, width=80)
    predictions = []
    for scene in scenes:
        right = torch.from_numpy(scene.masks)
        candidates = torch.stack([~right, right], dim=1)
        predictions.append(Prediction(candidates, torch.tensor([[0.2, 0.9]] * len(right))))
    count = [len(scene.masks) for scene in scenes]
    assert write_masks(tmp_path / "masks.json", scenes, predictions, PromptChoice("boxes")) == 1.0
    data = json.loads((tmp_path / "masks.json").read_text())
    assert data["images"][1] == {"id": 1, "file_name": "scene-1", "height": 64, "width": 80}
    assert [a["image_id"] for a in data["annotations"]] == [0] * count[0] + [1] * count[1]
    for annotation, mask in zip(data["annotations"], np.concatenate([s.masks for s in scenes]), strict=True):
        assert np.array_equal(pycocotools.mask.decode(annotation["segmentation"]).astype(np.bool_), mask)
        x0, y0, x1, y1 = annotation["box"]
        assert annotation["bbox"] == [x0, y0, x1 - x0 + 1, y1 - y0 + 1]
        assert annotation["area"] == mask.sum() and annotation["true_iou"] == 1.0
        assert annotation["score"] == pytest.approx(0.9)


def test_a_grid_has_no_true_masks(tmp_path: Path) -> None:
    scenes = generate_scenes(1, height=64, width=80)
    prediction = Prediction(torch.ones(4, 1, 64, 80, dtype=torch.bool), torch.ones(4, 1))
    assert write_masks(tmp_path / "masks.json", scenes, [prediction], PromptChoice("grid", 2)) is None
    annotations = json.loads((tmp_path / "masks.json").read_text())["annotations"]
    assert [a["point"] for a in annotations] == [[20, 16], [60, 16], [20, 48], [60, 48]]
    assert "true_iou" not in annotations[0]
