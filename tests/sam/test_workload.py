"""The workload gives what segment-anything gives, bit for bit, inside the regions that are promised."""

from __future__ import annotations

import gc
from pathlib import Path

import numpy as np
import pytest
import torch

from profiler_kit import load_trace, profiler_runner
from profiler_kit.capture.device import no_garbage_collection
from profiler_kit.capture.phases import Phases, drive
from profiler_kit.models.sam.forward import SamForward, move_batch, prepare_batch
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.optimizations import parse_optimizations
from profiler_kit.models.sam.prompts import PromptChoice, parse_prompts
from profiler_kit.models.sam.scenes import Scene, generate_scenes
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.workload.optimizations import optimized
from profiler_kit.workload.protocol import Bench, make_model

CPU = torch.device("cpu")


def bench(*, count: int, size: int) -> Bench:
    """A vit_tiny on the CPU with batches of `size` of `count` scenes."""
    workload = SamWorkload("vit_tiny", count=count)
    return Bench(workload, make_model(workload, CPU), CPU, size)


def published(
    sam: torch.nn.Module, scenes: tuple[Scene, ...], prompts: str, *, multimask: bool = False
) -> list[dict[str, torch.Tensor]]:
    """What a user of segment-anything would write: Sam.forward on resized images and prompts."""
    from segment_anything.utils.transforms import ResizeLongestSide

    from profiler_kit.models.sam.prompts import make_prompts

    resize = ResizeLongestSide(sam.image_encoder.img_size)
    records = []
    for scene in scenes:
        record = {
            "image": torch.as_tensor(resize.apply_image(scene.image)).permute(2, 0, 1).contiguous(),
            "original_size": scene.size,
        }
        made = make_prompts(scene, parse_prompts(prompts))
        if made.boxes is not None:
            record["boxes"] = torch.as_tensor(resize.apply_boxes(made.boxes, scene.size), dtype=torch.float)
        if made.points is not None:
            points = resize.apply_coords(made.points, scene.size)
            record["point_coords"] = torch.as_tensor(points, dtype=torch.float)[:, None, :]
            record["point_labels"] = torch.ones(len(points), 1, dtype=torch.int)
        records.append(record)
    return sam(records, multimask_output=multimask or prompts != "boxes")


def test_three_masks_of_a_box_when_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """As SamPredictor's multimask_output: with the published decoder, and with all images' prompts in one call."""
    model = load_model("vit_tiny").model
    scenes = generate_scenes(2, height=150, width=310, seed=3)
    want = published(model, scenes, "boxes", multimask=True)
    choice = SamWorkload("vit_tiny", task="boxes", multimask=True).choice
    for names in ("", "batched_decoder"):
        with optimized(model, parse_optimizations(names), torch.device("cpu")) as changed:
            got = SamForward(changed)(prepare_batch(changed, scenes, choice))
        for a, b in zip(want, got, strict=True):
            assert a["masks"].shape[1] == 3 and b.masks.shape == a["masks"].shape
            assert (b.masks != a["masks"]).float().mean() < 1e-4 and torch.allclose(
                b.iou, a["iou_predictions"], atol=1e-5
            )


@pytest.mark.parametrize("prompts", ["centers", "boxes", "grid:3"])
def test_same_masks_as_sam_forward(prompts: str) -> None:
    sam = load_model("vit_tiny").model
    scenes = generate_scenes(2, height=150, width=310, seed=3)  # larger than the model's input, and not square
    want = published(sam, scenes, prompts)
    got = SamForward(sam)(prepare_batch(sam, scenes, parse_prompts(prompts)))
    for scene, a, b in zip(scenes, want, got, strict=True):
        assert torch.equal(a["masks"], b.masks) and torch.equal(a["iou_predictions"], b.iou)
        assert b.masks.dtype is torch.bool and tuple(b.masks.shape[2:]) == scene.size
        masks, score = b.best()
        assert masks.shape == (len(b.iou), *scene.size) and masks.dtype == np.bool_
        assert np.array_equal(score, b.iou.max(dim=1).values.numpy())
        row = int(b.iou[0].argmax())
        assert np.array_equal(masks[0], b.masks[0, row].numpy())


def test_many_prompts_are_decoded_in_parts_with_the_same_result() -> None:
    sam = load_model("vit_tiny").model
    scenes = generate_scenes(1, height=96, width=128)
    (want,) = published(sam, scenes, "grid:9")  # 81 prompts: two calls of the decoder
    (got,) = SamForward(sam)(prepare_batch(sam, scenes, parse_prompts("grid:9")))
    assert got.masks.shape == want["masks"].shape
    assert (got.masks != want["masks"]).float().mean() < 1e-4  # another batch size, another order of summation
    assert torch.allclose(got.iou, want["iou_predictions"], atol=1e-5)


def test_regions_nest_as_promised(tmp_path: Path) -> None:
    made = bench(count=2, size=2)
    with profiler_runner(tmp_path / "trace.json.gz"):
        drive(Phases(CPU).warm_up(made.item, 1), made.run)
    regions = load_trace(tmp_path / "trace.json.gz").regions()
    instances = dict(zip(regions["path"], regions["instances"], strict=True))
    assert instances == {
        ("data transfer",): 1,
        ("timed region",): 1,
        ("timed region", "image encoder"): 1,
        ("timed region", "prompt encoder"): 2,
        ("timed region", "mask decoder"): 2,
        ("timed region", "postprocess"): 2,
    }


def test_batches_go_round_and_a_timed_step_measures() -> None:
    made = bench(count=3, size=1)
    assert [made.item(number).scenes[0].name for number in range(5)] == [f"scene-{n}" for n in (0, 1, 2, 0, 1)]
    assert torch.equal(made.run(made.item(1))[0].masks, made.run(made.item(4))[0].masks)
    phases = Phases(CPU)
    drive(phases.timed(made.item, 2), made.run)
    assert len(phases.latency_ns) == 2 and min(phases.latency_ns) > 0
    assert [scene.name for scene in made.of_size(2).scenes] == ["scene-0", "scene-0"]


def test_garbage_collection_waits_and_comes_back() -> None:
    assert gc.isenabled()
    with pytest.raises(ZeroDivisionError), no_garbage_collection():
        assert not gc.isenabled()
        raise ZeroDivisionError
    assert gc.isenabled()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_the_masks_agree_with_those_of_the_cpu() -> None:
    scenes = generate_scenes(2, height=96, width=128)
    results = []
    for device in (CPU, torch.device("cuda")):
        sam = load_model("vit_tiny", device=device).model
        batch = prepare_batch(sam, scenes, PromptChoice("centers"), pin=device.type == "cuda")
        forward, phases = SamForward(sam), Phases(device)
        drive(phases.timed(lambda _, b=batch, d=device: move_batch(b, d), 1), forward)  # type: ignore[misc]
        assert phases.latency_ns[0] > 0
        results.append([prediction.masks.cpu() for prediction in forward(move_batch(batch, device))])
    for a, b in zip(*results, strict=True):
        assert (a != b).float().mean() < 0.01
