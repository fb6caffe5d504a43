"""The shipped weights segment scenes they never saw, asked as users ask: through SamPredictor."""

from __future__ import annotations

import numpy as np
import pytest
from segment_anything.modeling import Sam

from profiler_kit.models.sam.decoder import batch_decoder
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.prompts import PromptChoice, parse_prompts
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.segmenter import SamSegmenter
from profiler_kit.models.sam.train_check import kept_by_default, predict_scene, scene_ious
from profiler_kit.models.sam.train_data import FIRST_SEED


@pytest.fixture(scope="module")
def small() -> Sam:
    return load_model("vit_small").model


@pytest.mark.parametrize(("prompts", "count"), [("centers", 1), ("boxes", 1)])
def test_small_reaches_the_accuracy_it_was_trained_for(small: Sam, prompts: str, count: int) -> None:
    seed = 20_001
    assert seed < FIRST_SEED  # from there on scenes were trained on
    scenes = generate_scenes(count, height=384, width=512, seed=seed)
    iou = scene_ious(small, scenes, parse_prompts(prompts))
    assert len(iou) == sum(len(scene.masks) for scene in scenes) == 8 * count
    assert iou.mean() >= 0.85


def test_small_finds_most_objects_with_the_default_thresholds() -> None:
    sam = batch_decoder(load_model("vit_small").model)  # which takes two thirds of the time
    found = kept_by_default(SamSegmenter(sam), generate_scenes(1, height=384, width=512, seed=20_002), 10)
    assert found["objects"] == 8
    assert found["kept"] >= 0.8 and found["kept_iou"] >= 0.8


def test_a_mask_for_each_prompt_at_the_size_of_the_image() -> None:
    (scene,) = generate_scenes(1, height=96, width=64, seed=1)
    masks = predict_scene(load_model("vit_tiny").model, scene, PromptChoice("grid", 3))
    assert masks.shape == (9, 96, 64) and masks.dtype == np.bool_
