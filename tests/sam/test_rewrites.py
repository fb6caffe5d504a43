"""The rewrites of SAM give what the published model gives, one by one, in pairs and all together."""

from __future__ import annotations

import copy
from itertools import combinations

import pytest
import torch
from segment_anything.modeling import Sam

from profiler_kit.models.sam import forward as sam_forward
from profiler_kit.models.sam.accuracy import mask_iou
from profiler_kit.models.sam.forward import Prediction, SamForward, prepare_batch
from profiler_kit.models.sam.models import load_model
from profiler_kit.models.sam.optimizations import OPTIMIZATIONS, parse_optimizations
from profiler_kit.models.sam.prompts import parse_prompts
from profiler_kit.models.sam.quantize import prune_24, quantize_float8, quantize_int8
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.workload.optimizations import optimized
from profiler_kit.workload.quantize import float8_rows, int8_rows

CPU = torch.device("cpu")
REWRITES = ("nosync", "patch_linear", "sdpa", "rel_pos", "window_pad", "batched_decoder")
CHAINS = [(name,) for name in REWRITES] + list(combinations(REWRITES, 2)) + [REWRITES]


@pytest.fixture(scope="module")
def published() -> Sam:
    return load_model("vit_tiny").model


def rewritten(sam: Sam, *names: str) -> Sam:
    with optimized(copy.deepcopy(sam), parse_optimizations(",".join(names)), CPU) as changed:
        return changed


def answers(sam: Sam, prompts: str = "centers") -> list[Prediction]:
    scenes = generate_scenes(2, height=64, width=96)
    return list(SamForward(sam)(prepare_batch(sam, scenes, parse_prompts(prompts))))


@pytest.mark.parametrize("names", CHAINS, ids="+".join)
def test_exact_rewrites_give_the_published_embedding(published: Sam, names: tuple[str, ...]) -> None:
    """float32 to rounding: 1e-5 of values of size 1. Those that change no arithmetic: bit for bit."""
    torch.manual_seed(len(names))
    images = torch.randn(2, 3, 256, 256)
    changed = rewritten(published, *names)
    with torch.no_grad():
        want, got = published.image_encoder(images), changed.image_encoder(images)
    assert want.abs().mean() > 0.5
    if set(names) <= {"nosync", "batched_decoder"}:
        assert torch.equal(got, want)
    torch.testing.assert_close(got, want, rtol=0, atol=2e-5)
    assert changed.state_dict().keys() == published.state_dict().keys()


@pytest.mark.parametrize("prompts", ["centers", "boxes", "grid:3"])
def test_one_call_of_the_decoder_gives_the_published_masks(
    published: Sam, prompts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """grid:3 has nine prompts an image: with these limits three parts each, and no more than two parts in a call."""
    if prompts == "grid:3":
        monkeypatch.setattr(sam_forward, "PROMPTS_PER_CALL", 4)
        monkeypatch.setattr(sam_forward, "PROMPTS_TOGETHER", 8)
    for names in (("batched_decoder",), ("nosync", "batched_decoder")):
        for want, got in zip(answers(published, prompts), answers(rewritten(published, *names), prompts), strict=True):
            assert got.masks.shape == want.masks.shape
            assert (got.masks != want.masks).float().mean() < 1e-4
            torch.testing.assert_close(got.iou, want.iou, rtol=0, atol=2e-5)


def test_images_of_several_sizes_and_kinds_of_prompt_keep_their_own_masks(published: Sam) -> None:
    changed = rewritten(published, "nosync", "batched_decoder")
    parts = [
        prepare_batch(published, generate_scenes(1, height=height, width=128, seed=height), parse_prompts(prompts))
        for height, prompts in ((64, "centers"), (64, "centers"), (48, "centers"), (64, "boxes"), (48, "grid:2"))
    ]
    batch = type(parts[0])(
        torch.cat([part.images for part in parts]),
        tuple(query for part in parts for query in part.queries),
        tuple(scene for part in parts for scene in part.scenes),
    )
    for want, got in zip(SamForward(published)(batch), SamForward(changed)(batch), strict=True):
        assert got.masks.shape == want.masks.shape
        assert (got.masks != want.masks).float().mean() < 1e-4


@pytest.mark.parametrize("labels", [[1, 1], [1, 0], [0, -1]])
def test_prompts_without_waiting_are_the_published_ones_bit_for_bit(published: Sam, labels: list[int]) -> None:
    encoder, changed = published.prompt_encoder, rewritten(published, "nosync").prompt_encoder
    points = (torch.rand(5, 2, 2) * 255, torch.tensor([labels] * 5, dtype=torch.int32))
    boxes = torch.rand(5, 4) * 255
    masks = torch.randn(5, 1, 64, 64)
    for given in (
        {"points": points, "boxes": None, "masks": None},
        {"points": points, "boxes": boxes, "masks": masks},
        {"points": None, "boxes": boxes, "masks": None},
        {"points": None, "boxes": None, "masks": masks},
        {"points": None, "boxes": None, "masks": None},
    ):
        for got, want in zip(changed(**given), encoder(**given), strict=True):
            assert torch.equal(got, want)
    for _ in range(2):
        assert torch.equal(changed.get_dense_pe(), encoder.get_dense_pe())
    with torch.no_grad():
        changed.pe_layer.positional_encoding_gaussian_matrix.mul_(2)
    assert not torch.equal(changed.get_dense_pe(), encoder.get_dense_pe())  # what was kept is made anew


def test_the_decoder_takes_a_mask_for_each_prompt(published: Sam) -> None:
    changed = rewritten(published, "batched_decoder")
    images, position = torch.randn(2, 64, 16, 16), published.prompt_encoder.get_dense_pe()
    sparse, dense = torch.randn(5, 2, 64), torch.randn(5, 64, 16, 16)
    with torch.no_grad():
        got = changed.mask_decoder(images, position, sparse, dense, True, prompts_per_image=[2, 3])
        for rows, image in ((slice(0, 2), images[:1]), (slice(2, 5), images[1:])):
            want = published.mask_decoder(image, position, sparse[rows], dense[rows], True)
            for a, b in zip(got, want, strict=True):
                torch.testing.assert_close(a[rows], b, rtol=0, atol=2e-5)


def test_reduced_precision_before_and_after_the_rewrites_is_the_same(published: Sam) -> None:
    first, last = rewritten(published, "bf16", *REWRITES), rewritten(published, *REWRITES, "bf16")
    for a, b, c in zip(answers(first), answers(last), answers(published), strict=True):
        assert torch.equal(a.masks, b.masks) and a.iou.dtype is torch.float32
        assert (a.masks != c.masks).float().mean() < 0.01


def test_quantized_products_keep_the_masks_of_a_model_that_segments() -> None:
    """Mean IoU with the float32 masks of vit_small, every candidate: 0.99 is what fp8 and int8 have to keep.

    fp8 is checked as the CPU emulates it: values rounded as on a GPU, multiplied in float32.
    """
    model = load_model("vit_small").model
    batch = prepare_batch(model, generate_scenes(1, height=384, width=512, seed=78), parse_prompts("centers"))
    (want,) = SamForward(model)(batch)
    for change in (quantize_int8, quantize_float8):
        (got,) = SamForward(change(rewritten(model, "bf16", "window_pad")))(batch)
        kept = mask_iou(got.masks.flatten(0, 1).numpy(), want.masks.flatten(0, 1).numpy()).mean()
        assert 0.99 < kept < 1.0


def test_rows_are_rounded_to_the_nearest_representable_value() -> None:
    x = torch.cat((torch.randn(7, 64) * torch.logspace(-6, 4, 7)[:, None], torch.zeros(1, 64)))
    for rows, error in ((int8_rows, 0.5 / 127), (float8_rows, 2.0**-4)):
        values, scale = rows(x)
        assert scale.shape == (8, 1) and scale.dtype is torch.float32
        back = values.float() * scale
        assert ((back - x).abs().amax(1) <= error * x.abs().amax(1) * 1.001).all()
        assert torch.equal(back[-1], x[-1])


def test_two_of_four_neighbours_stay() -> None:
    weight = torch.tensor([[1.0, -4.0, 2.0, 3.0, 0.5, 0.1, -0.2, 0.3]])
    assert prune_24(weight).tolist() == [[0.0, -4.0, 0.0, 3.0, 0.5, 0.0, 0.0, pytest.approx(0.3)]]


def test_what_is_exact_says_so() -> None:
    assert {name for name, optimization in OPTIMIZATIONS.items() if not optimization.exact} == {
        "tf32", "bf16", "fp16", "int8", "fp8", "sparse24",
    }  # fmt: skip
