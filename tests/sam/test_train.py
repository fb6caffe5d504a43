"""Training: the loss over many images is that of the published modules, and a few steps make it fall."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812 - the usual name

from profiler_kit.models.sam.generator import Pixels, Points
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.scenes import Scene, generate_scenes
from profiler_kit.models.sam.segmenter import SamSegmenter
from profiler_kit.models.sam.train import SAM, SceneStore, draw_task, main, sharpen
from profiler_kit.models.sam.train_check import kept_by_default
from profiler_kit.models.sam.train_data import BACKGROUND, FIRST_SEED, PADDING, fit_sample, make_sample
from profiler_kit.models.sam.train_loss import (
    SHARPNESS,
    decode_many,
    embed_prompts,
    mask_losses,
    task_losses,
    upsample,
)


def test_many_images_at_once_are_decoded_as_segment_anything_does_one_by_one() -> None:
    sam = load_model("vit_tiny").model
    generator = torch.Generator().manual_seed(0)
    points, boxes = torch.rand(6, 2, generator=generator) * 256, torch.rand(6, 4, generator=generator) * 256
    by_box = torch.tensor([True, False, False, True, True, False])
    embeddings = torch.randn(2, 64, 16, 16, generator=generator)
    sparse = embed_prompts(sam.prompt_encoder, points, boxes, by_box)
    logits, quality = decode_many(sam, embeddings, sparse)
    assert logits.shape == (6, 4, 64, 64)
    for i in range(6):
        asked = {"points": None, "boxes": boxes[i : i + 1]}
        if not by_box[i]:
            asked = {"points": (points[i].view(1, 1, 2), torch.ones(1, 1)), "boxes": None}
        one, dense = sam.prompt_encoder(masks=None, **asked)
        torch.testing.assert_close(sparse[i : i + 1], one, rtol=0, atol=1e-6)
        published = sam.mask_decoder.predict_masks(
            embeddings[i // 3][None], sam.prompt_encoder.get_dense_pe(), one, dense
        )
        torch.testing.assert_close((logits[i : i + 1], quality[i : i + 1]), published, rtol=1e-4, atol=1e-5)


def test_upsampling_is_bilinear_interpolation() -> None:
    logits = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    wanted = F.interpolate(logits, (64, 64), mode="bilinear", align_corners=False)
    torch.testing.assert_close(upsample(logits, 64), wanted, rtol=0, atol=1e-5)


def test_losses_and_iou_of_masks_made_by_hand() -> None:
    truth = torch.zeros(1, 4, 4, dtype=torch.bool)
    truth[0, :2] = True
    valid = torch.ones(1, 4, 4, dtype=torch.bool)
    valid[0, 3] = False  # what is predicted there does not count
    right = torch.where(truth, 240.0, -240.0)
    right[0, 3] = 240.0
    half = right.clone()
    half[0, 1] = -240.0  # 4 of 8 pixels
    losses, iou = mask_losses(torch.stack([right, half], dim=1), truth, valid)
    assert iou.tolist() == [[1.0, 0.5]]
    focal = 0.25 * 240 / SHARPNESS * 4 / 12  # four pixels of twelve, at a probability of 0
    dice = 1 - (2 * 4 + 1) / (4 + 8 + 1)
    torch.testing.assert_close(losses, torch.tensor([[0.0, 20 * focal + dice]]), rtol=1e-5, atol=1e-6)


def test_samples_hold_the_scene_resized_and_padded() -> None:
    (scene,) = generate_scenes(1, height=384, width=512, seed=3)
    sample = fit_sample(scene, 256)
    assert (sample.owner[192:] == PADDING).all() and (sample.owner[:192] >= BACKGROUND).all()
    assert not sample.image[192:].any()
    assert sample.objects == len(scene.masks)
    for number, mask in enumerate(scene.masks):
        small = sample.owner[:192] == number
        assert np.count_nonzero(small) * 4 == pytest.approx(np.count_nonzero(mask), rel=0.05)
        x, y = sample.centres[number]
        assert small[y, x]
    stretched = fit_sample(scene, 256, stretched=True)
    assert (stretched.owner >= BACKGROUND).all() and stretched.image.any(axis=(1, 2)).all()
    again, other = make_sample(7, 256), make_sample(8, 256)
    assert np.array_equal(again.image, make_sample(7, 256).image) and not np.array_equal(again.image, other.image)
    assert FIRST_SEED > 1 << 32


def test_prompts_lie_in_what_they_ask_for_and_a_few_steps_make_the_loss_fall() -> None:
    torch.manual_seed(0)
    sam = load_model("vit_tiny").model.requires_grad_(True).train()
    store = SceneStore(3, 256, torch.device("cpu"))
    store.add([make_sample(number, 256) for number in range(4)])
    assert len(store) == 3 and store.seen == 4
    task = draw_task(store, SAM.colours(sam), 3, 2)
    assert (task.boxed, task.prompts) == (1, 2)
    for point, box, truth in zip(task.points, task.boxes, task.truth, strict=True):
        x, y = point.long().tolist()
        assert truth[y, x]
        assert (box >= 0).all() and (box <= 255).all()
    assert not (task.truth.view(3, 2, 256, 256) & ~task.valid[:, None]).any()
    optimizer = torch.optim.AdamW(sam.parameters(), lr=2e-3)
    totals = []
    for _ in range(7):
        losses = task_losses(sam, task)
        losses.total.backward()
        optimizer.step()
        optimizer.zero_grad()
        totals.append(float(losses.total.detach()))
    assert totals[-1] < 0.9 * totals[0]


def test_sharper_logits_are_steeper_and_make_the_same_masks() -> None:
    (scene,) = generate_scenes(1, height=96, width=128, seed=3)
    sam, points = load_model("vit_tiny").model, np.array([[40.0, 30.0]])
    (embedding,) = SamSegmenter(sam).embed([scene.image])
    before, quality = SamSegmenter(sam).decode(embedding, points)
    sharpen(sam, 8)
    after, same = SamSegmenter(sam).decode(embedding, points)
    torch.testing.assert_close(after, before * 8, rtol=1e-4, atol=1e-4)
    assert torch.equal(quality, same)


class _Knows:
    """A segmenter that answers each point with the true mask, moved by some pixels, and the background with nothing."""

    mask_threshold = 0.0

    def __init__(self, scene: Scene, moved: int, iou: float) -> None:
        self.masks, self.iou = torch.from_numpy(np.roll(scene.masks, moved, axis=2)), iou

    def embed(self, images: Sequence[Pixels]) -> list[None]:
        return [None] * len(images)

    def decode(self, _: None, points: Points) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = points.astype(int).T
        at = self.masks[:, y, x]
        mine = self.masks[at.int().argmax(dim=0)] & at.any(dim=0)[:, None, None]
        scores = (at.any(dim=0) * self.iou)[:, None].expand(-1, 3)
        return torch.where(mine, 9.0, -9.0)[:, None].expand(-1, 3, -1, -1), scores

    def enlarge(self, logits: torch.Tensor, _: None) -> torch.Tensor:
        return logits


def test_objects_that_the_generator_finds_by_default_are_counted() -> None:
    (scene,) = generate_scenes(1, height=192, width=256, seed=5)
    right = kept_by_default(_Knows(scene, 0, 0.9), [scene])
    assert right == {"objects": 8, "kept": 1.0, "mean_iou": 1.0, "kept_iou": 1.0, "masks": 8.0}
    moved = kept_by_default(_Knows(scene, 4, 0.9), [scene])
    assert moved["kept"] > 0.8 and 0.5 < moved["mean_iou"] < 1
    assert kept_by_default(_Knows(scene, 0, 0.8), [scene])["kept"] == 0


def test_the_command_writes_weights_that_load_and_a_record(tmp_path: Path) -> None:
    out = tmp_path / "tiny.pt"
    small = "--batch 1 --prompts 1 --steps 1 --first 1 --kept 4 --unseen 1 --workers 1 --no-compile"
    main(["--model", "vit_tiny", "--device", "cpu", *small.split(), "--out", str(out)])
    record = json.loads(out.with_suffix(".json").read_text())
    loaded = load_model("vit_tiny", checkpoint=out)
    assert record["weights"] == loaded.weights and record["steps"] == 1
    assert {row["scenes"] for row in record["unseen"].values()} == {1}
    assert {row["objects"] for row in record["kept_by_default"].values()} == {8}
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["tiny.json", "tiny.pt"]
