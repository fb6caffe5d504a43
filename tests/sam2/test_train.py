"""Training of SAM 2: what the loss sees is what the model answers, and a few steps make it fall."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.train import SceneStore, draw_task, sharpen
from profiler_kit.models.sam.train_data import make_sample
from profiler_kit.models.sam.train_loss import task_losses
from profiler_kit.models.sam2.forward import ask
from profiler_kit.models.sam2.models import Sam2, load_model
from profiler_kit.models.sam2.train import SAM2
from tests.sam2 import needs_transformers

pytestmark = needs_transformers

SIDE = 64


@pytest.fixture(scope="module")
def sam() -> Sam2:
    sam = load_model("sam2_nano", seed=1, side=SIDE).model
    SAM2.begin(sam)
    return sam


@pytest.fixture(scope="module")
def store() -> SceneStore:
    store = SceneStore(3, SIDE, torch.device("cpu"))
    store.add([make_sample(number, SIDE, stretched=True) for number in range(3)])
    return store


def test_many_images_at_once_are_answered_as_one_by_one(sam: Sam2, store: SceneStore) -> None:
    task = draw_task(store, SAM2.colours(sam), 5, 2)
    assert (task.boxed, task.prompts) == (1, 2) and task.valid.all()
    with torch.no_grad():
        logits, iou = SAM2.answer(sam, task)
        maps = sam.image_encoder(task.images)
        for prompt in range(10):
            a, b, c = (one[prompt // 2 : prompt // 2 + 1] for one in maps)
            here = slice(prompt, prompt + 1)
            point = None if prompt < 2 else (task.points[here, None], torch.ones(1, 1, dtype=torch.int32))
            box = task.boxes[here] if prompt < 2 else None
            wanted = ask(sam, (a, b, c), point, box)
            torch.testing.assert_close((logits[here, 1:], iou[here, 1:]), wanted, rtol=1e-4, atol=1e-5)


def test_a_few_steps_make_the_loss_fall(store: SceneStore) -> None:
    torch.manual_seed(0)
    sam = load_model("sam2_nano", seed=1, side=SIDE).model.requires_grad_(True).train()
    SAM2.begin(sam)
    task = draw_task(store, SAM2.colours(sam), 3, 1)
    optimizer = torch.optim.AdamW(sam.parameters(), lr=2e-3)
    totals = []
    for _ in range(5):
        losses = task_losses(sam, task, SAM2.answer, 1.0)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.9 * totals[0]


def test_steeper_logits_make_the_same_masks_and_the_file_is_one_as_metas(sam: Sam2, tmp_path: Path) -> None:
    (scene,) = generate_scenes(1, height=48, width=64, seed=3)
    before = SAM2.predict(sam, scene, PromptChoice("boxes"))
    assert before.shape == scene.masks.shape
    sharpen(sam, 8)
    assert (SAM2.predict(sam, scene, PromptChoice("boxes")) == before).mean() > 0.99
    path = tmp_path / "nano.pt"
    torch.save(SAM2.filed({key: value.half() for key, value in sam.state_dict().items()}), path)
    again = load_model("sam2_nano", checkpoint=path).model.state_dict()
    assert all(torch.equal(again[key], value.half().float()) for key, value in sam.state_dict().items())
