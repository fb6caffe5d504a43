"""SAM 2 as a workload: forward, optimizations, capture, ladder and study, with the small model at 128 pixels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from profiler_kit.cli.workloads import choose_workload
from profiler_kit.errors import OptionError
from profiler_kit.formats.run_record import read_record
from profiler_kit.models.sam.workload import SamWorkload
from profiler_kit.models.sam2 import models
from profiler_kit.models.sam2.float8 import BoundedFloat8Linear
from profiler_kit.models.sam2.workload import Sam2Workload
from profiler_kit.workload.capture import CaptureOptions, capture_run
from profiler_kit.workload.optimizations import optimized, parse_optimizations
from profiler_kit.workload.protocol import Bench, load_workload, make_model
from profiler_kit.workload.row import RowPlan, run_row
from tests.sam2 import needs_transformers

pytestmark = needs_transformers
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _random_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "_SHIPPED", {})  # trained at 512 pixels


def workload(**change: object) -> Sam2Workload:
    return Sam2Workload(**{"name": "sam2_nano", "side": 128, **change})  # type: ignore[arg-type]


def bench(text: str = "", size: int = 2, **change: object) -> Bench:
    chosen = workload(**change)
    model = make_model(chosen, CPU)
    with optimized(model, parse_optimizations(text, chosen.optimizations), CPU) as sam:
        made = Bench(chosen, sam, CPU, size)
        made.kept = sam  # type: ignore[attr-defined]  # a bench holds its model weakly
        return made


@pytest.mark.parametrize(("prompts", "candidates"), [("centers", 3), ("boxes", 1), ("grid:9", 3)])
def test_masks_of_each_prompt(prompts: str, candidates: int) -> None:
    made = bench(prompts=prompts)
    predictions = made.run(made.item(0))
    for scene, query, prediction in zip(made.item(0).scenes, made.item(0).queries, predictions, strict=True):
        assert prediction.masks.shape == (query.count, candidates, *scene.size)
        assert prediction.iou.shape == (query.count, candidates)
    alone = made.run(made.of_size(1))
    assert torch.allclose(alone[0].iou, predictions[0].iou, atol=1e-5)


@pytest.mark.parametrize("text", ["bf16", "fp16"])
def test_reduced_precision_is_near(text: str) -> None:
    plain, other = bench(prompts="grid:2"), bench(text, prompts="grid:2")
    assert other.dtype == ("float16" if text == "fp16" else "bfloat16")
    for a, b in zip(plain.run(plain.item(0)), other.run(other.item(0)), strict=True):
        assert b.iou.dtype == torch.float32
        assert torch.allclose(a.iou, b.iou, atol=0.03)


def test_products_in_float8_are_near() -> None:
    plain, other = bench(prompts="grid:2"), bench("bf16", prompts="grid:2")
    other.workload.optimizations["fp8"].apply(other.kept)  # type: ignore[attr-defined]  # which asks for a GPU
    names = [name for name, part in other.program.named_modules() if isinstance(part, BoundedFloat8Linear)]
    assert names and all(name.startswith("image_encoder.vision.backbone.blocks.") for name in names)
    for a, b in zip(plain.run(plain.item(0)), other.run(other.item(0)), strict=True):
        assert torch.allclose(a.iou, b.iou, atol=0.05)


def test_encoder_and_decoder_compile_without_a_break() -> None:
    made = bench(prompts="grid:2")
    plain = made.run(made.item(0))
    program = made.program
    for part in (program.image_encoder, program.mask_decoder):
        part.compile(backend="eager", fullgraph=True, dynamic=False)
    for a, b in zip(plain, made.run(made.item(0)), strict=True):
        assert torch.allclose(a.iou, b.iou, atol=1e-6)


def test_layers_are_named_and_told_apart() -> None:
    made = bench(prompts="grid:1", size=1)
    select, label = made.workload.layers(made.program)
    assert select is not None and label is not None
    variants = {name: label(name, part) for name, part in made.program.named_modules() if select(name, part)}
    block = "image_encoder.vision.backbone.blocks"
    assert variants[f"{block}.0"] == "window 8" and variants[f"{block}.1.attn"] == "window 8, pool"
    assert variants[f"{block}.6"] == "global" and variants[f"{block}.6.mlp"] == ""
    assert set(made.workload.components(made.program)) <= set(variants)


def test_a_captured_run(tmp_path: Path) -> None:
    options = CaptureOptions(device="cpu", warmup=0, iterations=1, trace_batches=1, out=tmp_path / "run")
    folder = capture_run(workload(prompts="grid:2"), options)
    record = read_record(folder)
    assert (record.model, record.weights) == ("sam2_nano", "random:0")
    assert record.workload["spec"] == "profiler_kit.models.sam2.workload:Sam2Workload"
    from profiler_kit import load_trace

    regions = {path[-1] for path in load_trace(folder / "trace.json.gz").regions()["path"]}
    assert {"image encoder", "prompt encoder", "mask decoder", "postprocess"} <= regions


@pytest.mark.parametrize("task", ["points", "amg", "single-point", "multi-point"])
def test_rows_of_a_ladder(tmp_path: Path, task: str) -> None:
    chosen = workload(task=task, points_per_side=2, count=1, pred_iou_thresh=0.0, stability_score_thresh=0.0)
    rows = []
    for name, optimizations in (("baseline", ""), ("other", "bf16" if task == "points" else "device_resize")):
        folder = tmp_path / "rows" / name
        folder.mkdir(parents=True)
        plan = RowPlan(
            technique=name,
            optimizations=optimizations,
            workload=chosen.spec,
            options=dict(chosen.options),
            folder=str(folder),
            device="cpu",
            batch_size=1,
            warmup=0,
            iterations=1,
        )
        rows.append(chosen.compare(run_row(plan), folder, tmp_path / "rows" / "baseline"))
    assert all(row.status == "ok" and row.agreement is not None for row in rows)
    assert rows[1].masks == (1 if task == "single-point" else rows[0].masks)
    if task != "points":
        assert rows[1].agreement.miou == 1.0  # on a CPU resizing there is the same


def test_another_side_is_another_workload_of_the_same_weights() -> None:
    usual, wide = (load_workload(one.spec, one.options) for one in (workload(), workload().at_image_size(160)))
    states = [make_model(one, CPU).state_dict() for one in (usual, wide)]
    assert (usual.image_size, wide.image_size) == (128, 160)
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])


def test_the_model_chooses_the_family() -> None:
    assert type(choose_workload(None, seed=0, model="sam2_tiny")) is Sam2Workload
    assert type(choose_workload(None, seed=0, model="vit_tiny")) is SamWorkload
    with pytest.raises(OptionError):
        choose_workload(None, seed=0, model="sam2_x").check(1)


def test_default_rows_can_be_read() -> None:
    for task in ("points", "amg", "single-point"):
        chosen = workload(task=task)
        for device in (CPU, torch.device("cuda")):
            for row in chosen.ladder(device):
                assert len(parse_optimizations(str(row), chosen.optimizations)) == len(row.optimizations)


def test_scores_are_those_of_the_true_masks() -> None:
    made = bench(prompts="centers", size=1)
    best, scores = made.run(made.item(0))[0].best()
    assert best.dtype == np.bool_ and len(best) == len(scores) == len(made.item(0).scenes[0].masks)
