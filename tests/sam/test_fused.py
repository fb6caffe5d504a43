"""The fused operators give what the layers one by one give: in plain torch, in Triton's interpreter, on a GPU."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from segment_anything.modeling import Sam

from profiler_kit.errors import WorkloadError
from profiler_kit.models.sam.accuracy import mask_iou
from profiler_kit.models.sam.compiled import compile_encoder
from profiler_kit.models.sam.forward import Batch, SamForward, move_batch, prepare_batch
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.optimizations import parse_optimizations
from profiler_kit.models.sam.prompts import PromptChoice
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.workload.optimizations import optimized

pytest.importorskip("triton")

from profiler_kit.models.sam import row_operators
from profiler_kit.models.sam.fused_attention import (
    fused_attention,
    reference_attention,
    use_fused_attention,
    window_places,
)
from profiler_kit.models.sam.fused_rows import use_fused_rows
from profiler_kit.models.sam.quantize import quantize_float8, quantize_int8
from profiler_kit.workload.quantize import float8_rows

CPU = torch.device("cpu")
EXACT = "nosync,patch_linear,sdpa,rel_pos,window_pad,batched_decoder"
gpu = pytest.mark.gpu
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.fixture(scope="module")
def published() -> Sam:
    return load_model("vit_tiny").model


def test_the_kernels_in_the_interpreter() -> None:
    """float32 to rounding, at edges of windows and with heads and rows that are no power of two."""
    driver = Path(__file__).with_name("interpreted.py")
    done = subprocess.run([sys.executable, str(driver)], capture_output=True, text=True, check=True)
    errors = json.loads(done.stdout)
    assert len(errors) == 17 and max(errors.values()) < 1e-5, errors


@pytest.mark.parametrize("rows", [False, True], ids=["attention", "attention+rows"])
def test_the_fused_encoder_gives_the_published_embedding(published: Sam, rows: bool) -> None:
    images = torch.randn(2, 3, 256, 256, generator=torch.Generator().manual_seed(1))
    with optimized(copy.deepcopy(published), parse_optimizations(EXACT), CPU) as sam, torch.no_grad():
        sam = use_fused_attention(sam)
        sam = use_fused_rows(sam) if rows else sam
        want = published.image_encoder(images)
        torch.testing.assert_close(sam.image_encoder(images), want, rtol=0, atol=2e-5)
        assert sam.state_dict().keys() == published.state_dict().keys()
        assert sam.image_encoder.img_size == published.image_encoder.img_size
        torch.compiler.reset()
        compile_encoder(sam, backend="eager")
        assert sam.image_encoder.blocks[0]._compiled_call_impl is not None


@pytest.mark.parametrize("quantize", [quantize_int8, quantize_float8])
def test_quantized_products_take_rounded_rows(published: Sam, quantize: object) -> None:
    """The same rounding before and after the rows are fused; bfloat16 sums differ in their last bit."""
    images = torch.randn(1, 3, 256, 256, generator=torch.Generator().manual_seed(2))
    found = []
    for rows in (False, True):
        with optimized(copy.deepcopy(published), parse_optimizations("bf16,window_pad"), CPU) as sam, torch.no_grad():
            sam = quantize(sam)  # type: ignore[operator]
            sam = use_fused_rows(sam) if rows else sam
            found.append(sam.image_encoder(images).float())
    with torch.no_grad():
        want = published.image_encoder(images)
    assert (found[0] - found[1]).abs().mean() < 0.01 * want.abs().mean()
    assert (found[1] - want).abs().mean() < 0.06 * want.abs().mean()


def test_weights_that_were_trained_bear_float8() -> None:
    """vit_small on unseen scenes, products of the blocks rounded as on a GPU, against float32 masks."""
    model = load_model("vit_small").model
    with optimized(copy.deepcopy(model), parse_optimizations("bf16,window_pad"), CPU) as sam, torch.no_grad():
        sam = quantize_float8(sam)
        found = []
        for scene in generate_scenes(2, height=384, width=512, seed=7):
            batch = prepare_batch(model, [scene], PromptChoice("centers"))
            a, b = (SamForward(each)(batch)[0].masks.flatten(0, 1).numpy() for each in (model, sam))
            found.append(mask_iou(a, b))
    assert np.concatenate(found).mean() > 0.99


def test_shapes_the_kernels_do_not_take_are_one_clear_line(published: Sam) -> None:
    sam = copy.deepcopy(published)
    for attention in (block.attn for block in sam.image_encoder.blocks):
        attention.num_heads = 8
    with pytest.raises(WorkloadError) as caught:
        use_fused_attention(sam)
    assert str(caught.value) == (
        "--optimizations fused_attention: found heads of 8 numbers, expected a power of two of at least 16 or the sum "
        "of two. Leave it out."
    )
    sam.image_encoder.pos_embed = torch.nn.Parameter(torch.zeros(1, 16, 16, 7))
    with pytest.raises(WorkloadError) as caught:
        use_fused_rows(sam)
    assert str(caught.value) == (
        "--optimizations fused_rows: found tokens of 7 numbers, expected a power of two or the sum of two. Leave it "
        "out."
    )


@gpu
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("heads", "dim"), [(2, 64), (2, 80), (3, 32)])
@pytest.mark.parametrize("window", [0, 14])
def test_attention_on_a_gpu(heads: int, dim: int, window: int, dtype: torch.dtype) -> None:
    """Relative error of the norm against float32: what the rounding of the operands alone makes."""
    generator = torch.Generator("cuda").manual_seed(3)

    def noise(*shape: int, size: float = 1.0) -> torch.Tensor:
        return (torch.randn(*shape, device="cuda", generator=generator) * size).to(dtype)

    reach = window or 64
    qkv, fill = noise(2, 64, 64, 3 * heads * dim), noise(3 * heads * dim)
    tables = [noise(2 * reach - 1, dim, size=0.3) for _ in range(2)]
    got = fused_attention(qkv, fill, *tables, window_places(window).to(qkv), heads, window)
    want = reference_attention(qkv.float(), fill.float(), *(t.float() for t in tables), heads, window)
    assert got.isfinite().all()
    assert (got.float() - want).norm() / want.norm() < (0.01 if dtype is torch.bfloat16 else 0.002)


@gpu
@needs_gpu
@pytest.mark.parametrize("width", [768, 1280, 3072, 5120])
def test_rows_on_a_gpu(width: int) -> None:
    generator = torch.Generator("cuda").manual_seed(4)
    x, more, weight, bias = (
        torch.randn(*shape, device="cuda", generator=generator).bfloat16()
        for shape in ((500, width), (500, width), (width,), (width,))
    )

    def agree(got: torch.Tensor, want: torch.Tensor, error: float) -> None:
        assert (got.float() - want.float()).norm() / want.float().norm() < error

    normed = torch.nn.functional.layer_norm(x + more, (width,), weight, bias, 1e-6)
    total, out = row_operators.add_norm(x, more, weight, bias, 1e-6)
    assert torch.equal(total, x + more)
    agree(out, normed, 0.003)
    total, out = row_operators.add_norm(x, more[:100], weight, bias, 1e-6)  # rows that repeat
    assert torch.equal(total, x + more[:100].repeat(5, 1))
    agree(out, torch.nn.functional.layer_norm(total, (width,), weight, bias, 1e-6), 0.003)
    agree(row_operators.gelu(x), torch.nn.functional.gelu(x), 0.003)
    total, values, scale = row_operators.add_norm_float8(x, more, weight, bias, 1e-6)
    want, want_scale = float8_rows(normed)
    agree(values.float() * scale, want.float() * want_scale, 0.01)
    for after_gelu in (False, True):
        values, scale = row_operators.round_rows(x, after_gelu)
        want, want_scale = float8_rows(torch.nn.functional.gelu(x.float()) if after_gelu else x)
        agree(values.float() * scale, want.float() * want_scale, 0.005)


def _batch(model: Sam, *, count: int = 2, seed: int = 0) -> Batch:
    scenes = generate_scenes(count, height=192, width=256, seed=seed)
    return move_batch(prepare_batch(model, scenes, PromptChoice("centers")), torch.device("cuda"))


@gpu
@needs_gpu
@pytest.mark.parametrize(
    ("names", "pixels"),
    [
        (f"bf16,{EXACT},fused_attention,fused_rows", 0.01),
        (f"bf16,{EXACT},fused_attention,fused_rows,compile", 0.01),
        (f"bf16,{EXACT},fused_attention,fused_rows,compile_graphs", 0.01),
        (f"bf16,{EXACT},fused_attention,int8,fused_rows", 0.02),
        (f"bf16,{EXACT},fused_attention,fp8,fused_rows", 0.05),
        (f"bf16,{EXACT},fused_attention,fp8,fused_rows,compile_graphs", 0.05),
        (f"bf16,{EXACT},sparse24", 0.5),
        (f"fp16,{EXACT},fused_attention,fused_rows", 0.003),
    ],
    ids=lambda value: value.replace(f"{EXACT},", "") if isinstance(value, str) else "",
)
def test_masks_on_a_gpu(names: str, pixels: float) -> None:
    """vit_small segments, so that few pixels lie at the threshold; pruned without training it only has to run."""
    model = load_model("vit_small", device="cuda").model
    batch = _batch(model)
    want = SamForward(model)(batch)
    torch.compiler.reset()
    with optimized(copy.deepcopy(model), parse_optimizations(names), torch.device("cuda")) as sam:
        forward = SamForward(sam)
        for _ in range(2):
            got = forward(batch)
        other = forward(_batch(model, seed=5))
        again = forward(batch)
    for a, b, c in zip(want, got, again, strict=True):
        assert (a.masks != b.masks).float().mean() < pixels
        assert torch.equal(b.masks, c.masks)
    assert other[0].masks.shape != got[0].masks.shape or not torch.equal(other[0].masks, got[0].masks)


@gpu
@needs_gpu
@pytest.mark.parametrize("names", [f"bf16,{EXACT}", f"bf16,{EXACT},fused_attention,fused_rows,compile_graphs"])
def test_nothing_waits_for_the_gpu_inside_the_forward(names: str) -> None:
    model = load_model("vit_tiny", device="cuda").model
    host = prepare_batch(model, generate_scenes(2, height=192, width=256), PromptChoice("centers"), pin=True)
    torch.compiler.reset()

    def waits(sam: Sam) -> bool:
        forward, device = SamForward(sam), torch.device("cuda")
        forward(move_batch(host, device))
        torch.cuda.synchronize()
        try:
            torch.cuda.set_sync_debug_mode("error")
            forward(move_batch(host, device))
        except RuntimeError:
            return True
        finally:
            torch.cuda.set_sync_debug_mode("default")
        return False

    assert waits(copy.deepcopy(model))  # the published forward does: the check can fail
    with optimized(model, parse_optimizations(names), torch.device("cuda")) as sam:
        assert not waits(sam)


@gpu
@needs_gpu
def test_the_answer_of_a_graph_stays_when_the_next_image_comes() -> None:
    model = load_model("vit_tiny", device="cuda").model
    names = f"bf16,{EXACT},fused_attention,fused_rows,compile_graphs"
    torch.compiler.reset()
    with optimized(model, parse_optimizations(names), torch.device("cuda")) as sam, torch.no_grad():
        first = sam.image_encoder(torch.ones(1, 3, 256, 256, device="cuda"))
        kept = first.clone()
        second = sam.image_encoder(torch.zeros(1, 3, 256, 256, device="cuda"))
        assert torch.equal(first, kept) and not torch.equal(first, second)
        assert sam.image_encoder(torch.zeros(2, 3, 256, 256, device="cuda")).shape[0] == 2
