"""The decoder that shares what is the same for all prompts gives what the published one gives."""

from __future__ import annotations

import copy

import pytest
import torch

from profiler_kit.models.sam2.decoder import share_decoder
from profiler_kit.models.sam2.forward import ask
from profiler_kit.models.sam2.models import Sam2, load_model
from profiler_kit.models.sam2.optimizations import OPTIMIZATIONS
from profiler_kit.models.sam2.train import begin
from profiler_kit.workload.optimizations import optimized, parse_optimizations
from tests.sam2 import needs_transformers

pytestmark = needs_transformers

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


@pytest.mark.parametrize(("count", "each", "calls"), [(64, 1, 5), (64, 9, 1), (3, 1, 0)])
def test_the_fused_decoder_answers_as_the_shared_one(
    count: int, each: int, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For many points it calls its operators; few are answered as before, and so are maps of no whole blocks.

    Of several points a prompt only the masks are made by one, as it does not see the tokens.
    """
    pytest.importorskip("triton")
    from profiler_kit.models.sam2 import fused_decoder

    sam = load_model("sam2_nano", seed=1, side=128).model
    begin(sam)
    shared = share_decoder(sam)
    fused = fused_decoder.fuse_decoder(copy.deepcopy(shared))
    generator = torch.Generator().manual_seed(0)
    sizes = ((16, 32, 32), (32, 16, 16), (128, 8, 8))
    a, b, c = (torch.randn(1, *shape, generator=generator) for shape in sizes)
    points = (torch.rand(count, each, 2, generator=generator) * 128, torch.ones(count, each, dtype=torch.int32))
    called = []
    for name in ("seen", "updated", "masks"):
        operator = getattr(fused_decoder, name)
        monkeypatch.setattr(fused_decoder, name, lambda *given, of=operator: (called.append(of), of(*given))[1])
    with torch.no_grad():
        found = ask(fused, (a, b, c), points, None)
        assert len(called) == calls
        torch.testing.assert_close(found, ask(shared, (a, b, c), points, None), rtol=1e-4, atol=1e-5)
    assert fused.state_dict().keys() == shared.state_dict().keys()
    odd = share_decoder(load_model("sam2_nano", seed=1, side=96).model)
    assert not isinstance(fused_decoder.fuse_decoder(odd).mask_decoder, fused_decoder.FusedDecoder)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernels_on_a_gpu(dtype: torch.dtype) -> None:
    """Relative error of the norm against float32 of the same operands: what rounding what lies between makes."""
    pytest.importorskip("triton")
    from profiler_kit.models.sam2 import fused_decoder as fused

    def drawn(*shape: int) -> torch.Tensor:
        scale = shape[0] ** -0.5 if len(shape) == 2 else 1
        return (torch.randn(shape, generator=generator) * scale).to("cuda", dtype)

    generator = torch.Generator().manual_seed(0)
    keys, shared, position = drawn(70, 256, 256), drawn(256, 256) * 16, drawn(256, 256) * 16
    tokens = drawn(70, 64, 256) / 16, drawn(70, 1, 64), drawn(70, 64, 256)
    norm = drawn(256) + 1, drawn(256), drawn(256)
    weights = (drawn(256, 256), drawn(64), drawn(256, 4, 64), drawn(64) + 1, drawn(64), drawn(64, 128), drawn(32))
    cases = [
        (fused.seen, (tokens[0], keys, position), ()),
        *(
            (fused.updated, (of, position, tokens[0].transpose(1, 2), *tokens[1:], *norm), (1e-5, 8))
            for of in (keys, shared)
        ),
        (fused.masks, (keys, *weights, drawn(256, 16, 32), drawn(70, 3, 32)), (16, 1e-6)),
    ]
    for operator, given, rest in cases:
        got, want = operator(*given, *rest).float().cpu(), operator(*(one.float().cpu() for one in given), *rest)
        assert (got - want).norm() / want.norm() < (0.02 if dtype is torch.bfloat16 else 0.004), operator


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
