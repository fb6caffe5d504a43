"""Attention inside windows as one operator, convolutions as products, products in float8: against published maps."""

from __future__ import annotations

import copy

import pytest
import torch

pytest.importorskip("triton")

from profiler_kit.models.sam2.float8 import use_float8
from profiler_kit.models.sam2.models import Sam2, load_model
from profiler_kit.models.sam2.products import use_products
from profiler_kit.models.sam2.windows import (
    WindowBlock,
    reference_attention,
    use_window_attention,
    window_attention,
)
from profiler_kit.workload.optimizations import cast_model
from tests.sam2 import needs_transformers

pytestmark = needs_transformers


@pytest.fixture(scope="module")
def sam() -> Sam2:
    return load_model("sam2_nano").model


def images() -> torch.Tensor:
    return torch.randn(1, 3, 512, 512, generator=torch.Generator().manual_seed(0))


def test_the_encoder_gives_the_published_maps(sam: Sam2) -> None:
    """Blocks that attend to all of the map stay."""
    other = use_window_attention(copy.deepcopy(sam))
    kinds = [isinstance(block, WindowBlock) for block in other.image_encoder.vision.backbone.blocks]
    assert kinds == [True, True, True, True, False, True, False, True, False, True]
    assert other.state_dict().keys() == sam.state_dict().keys()
    with torch.no_grad():
        torch.testing.assert_close(other.image_encoder(images()), sam.image_encoder(images()), rtol=0, atol=1e-5)


def test_windows_that_reach_over_the_edge_stay_as_published() -> None:
    """Stage 3 of SAM 2 tiny: 14 x 14 tokens on a map of 8 x 8; stage 4: 7 x 7 on 4 x 4."""
    tiny = use_window_attention(load_model("sam2_tiny", seed=0, side=128).model)
    kinds = [isinstance(block, WindowBlock) for block in tiny.image_encoder.vision.backbone.blocks]
    assert kinds == [True, True, True, True] + [False] * 8


def test_products_give_the_published_maps(sam: Sam2) -> None:
    """And the same weights are under the same names; in bfloat16 they are as far from float32 as the convolutions."""
    other = use_products(copy.deepcopy(sam))
    assert other.state_dict().keys() == sam.state_dict().keys()
    half = cast_model(copy.deepcopy(sam), torch.bfloat16)
    half_products = use_products(copy.deepcopy(half))
    with torch.no_grad():
        want = sam.image_encoder(images())
        for part, mine in zip(want, other.image_encoder(images()), strict=True):
            torch.testing.assert_close(mine, part, rtol=0, atol=1e-4)
        errors = [
            [float((mine.float() - part).norm() / part.norm()) for mine, part in zip(found, want, strict=True)]
            for found in (half.image_encoder(images().bfloat16()), half_products.image_encoder(images().bfloat16()))
        ]
    assert all(mine < 1.1 * published for published, mine in zip(*errors, strict=True))


def test_float8_needs_no_look_at_the_data(sam: Sam2) -> None:
    """Weights that were trained bear it: 3 % of the norm of the maps, where bfloat16 alone makes 0.7 %."""
    half = copy.deepcopy(sam).bfloat16()
    other = use_float8(copy.deepcopy(half))
    with torch.no_grad():
        wanted, found = half.image_encoder(images().bfloat16()), other.image_encoder(images().bfloat16())
        none = other.image_encoder(torch.zeros(1, 3, 512, 512, dtype=torch.bfloat16))
    for want, got in zip(wanted, found, strict=True):
        assert (got.float() - want.float()).norm() < 0.05 * want.float().norm()
    assert all(bool(part.isfinite().all()) for part in none)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("side", "window"), [(32, 16), (32, 8), (32, 4), (8, 4)])
def test_windows_on_a_gpu(side: int, window: int, stride: int, dtype: torch.dtype) -> None:
    """Relative error of the norm against float32: what the rounding of the operands alone makes."""
    qkv = torch.randn(2, side, side, 3 * 144, generator=torch.Generator().manual_seed(1)).to("cuda", dtype)
    got, want = window_attention(qkv, 2, window, stride).float(), reference_attention(qkv.float(), 2, window, stride)
    assert (got - want).norm() / want.norm() < (0.01 if dtype is torch.bfloat16 else 0.002)
