"""The decoder that shares what is the same for all prompts gives what the published one gives."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("transformers")

from profiler_kit.models.sam2.decoder import share_decoder
from profiler_kit.models.sam2.forward import ask
from profiler_kit.models.sam2.models import Sam2, load_model
from profiler_kit.models.sam2.optimizations import OPTIMIZATIONS
from profiler_kit.models.sam2.train import begin
from profiler_kit.workload.optimizations import optimized, parse_optimizations

MAPS = ((16, 24, 24), (32, 12, 12), (128, 6, 6))


@pytest.fixture(scope="module")
def sam() -> Sam2:
    sam = load_model("sam2_nano", seed=1, side=96).model
    begin(sam)
    return sam


def maps() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    a, b, c = (torch.randn(1, *shape, generator=generator) for shape in MAPS)
    return a, b, c


@pytest.mark.parametrize(("count", "boxes", "multimask"), [(1, 0, True), (7, 0, True), (0, 3, True), (0, 3, False)])
def test_answers_are_the_published_ones(sam: Sam2, count: int, boxes: int, multimask: bool) -> None:
    points = (torch.rand(count, 1, 2) * 96, torch.ones(count, 1, dtype=torch.int32)) if count else None
    box = torch.rand(boxes, 4) * 96 if boxes else None
    shared = share_decoder(copy.deepcopy(sam))
    with torch.no_grad():
        wanted = ask(sam, maps(), points, box, multimask=multimask)
        found = ask(shared, maps(), points, box, multimask=multimask)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert set(shared.state_dict()) == set(sam.state_dict())


def test_in_bfloat16_it_is_as_near_as_the_published_decoder_is(sam: Sam2) -> None:
    points = (torch.rand(5, 1, 2, generator=torch.Generator().manual_seed(1)) * 96, torch.ones(5, 1, dtype=torch.int32))
    with torch.no_grad():
        exact, _ = ask(sam, maps(), points, None)
        errors = []
        for names in ("bf16", "bf16,shared_decoder"):
            chosen = parse_optimizations(names, OPTIMIZATIONS)
            with optimized(copy.deepcopy(sam), chosen, torch.device("cpu")) as other:
                logits, iou = ask(other, maps(), points, None)
            assert logits.dtype == iou.dtype == torch.float32
            errors.append(float((logits - exact).abs().mean()))
    assert errors[1] < 1.5 * errors[0]
