"""SAM 2's models: published sizes, seeded weights, Meta's checkpoints, and one line for files that do not fit."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch

from profiler_kit.errors import CheckpointError, OptionError, WorkloadError
from profiler_kit.models.checkpoints import POSITION_NOISE
from profiler_kit.models.sam import models as sam1
from profiler_kit.models.sam.scenes import generate_scenes
from profiler_kit.models.sam.train_check import kept_by_default
from profiler_kit.models.sam2 import models
from profiler_kit.models.sam2.decoder import share_decoder
from profiler_kit.models.sam2.gelu import fuse_gelu
from profiler_kit.models.sam2.models import SHAPES, load_model, shipped_checkpoint, to_meta
from profiler_kit.models.sam2.segmenter import DEFAULTS, Sam2Segmenter
from tests.sam2 import needs_transformers

pytestmark = needs_transformers
FILES = "Official files: sam2.1_hiera_tiny.pt, sam2.1_hiera_small.pt, sam2.1_hiera_base_plus.pt, sam2.1_hiera_large.pt."
KIND = f"expected a SAM 2.1 checkpoint (a state dict under 'model', written by torch.save). {FILES}"
# Some of what only video needs, as it is in the official files.
VIDEO = (
    "maskmem_tpos_enc",
    "no_mem_pos_enc",
    "no_obj_ptr",
    "memory_attention.norm.weight",
    "obj_ptr_proj.layers.0.bias",
)


def meta_keys() -> set[str]:
    """The names in Meta's checkpoint of a SAM 2.1 with as many blocks as sam2_nano, written down from Meta's code."""

    def both(*names: str) -> list[str]:
        return [f"{name}.{kind}" for name in names for kind in ("weight", "bias")]

    block = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.layers.0", "mlp.layers.1")
    trunk, decoder = "image_encoder.trunk", "sam_mask_decoder"
    layer = [
        *(
            f"{attention}.{part}_proj"
            for attention in ("self_attn", "cross_attn_token_to_image", "cross_attn_image_to_token")
            for part in ("q", "k", "v", "out")
        ),
        *("norm1", "norm2", "norm3", "norm4", "mlp.layers.0", "mlp.layers.1"),
    ]
    heads = [f"output_hypernetworks_mlps.{token}" for token in range(4)] + [
        "iou_prediction_head",
        "pred_obj_score_head",
    ]
    return {
        *both(*(f"{trunk}.blocks.{number}.{part}" for number in range(10) for part in block)),
        *both(*(f"{trunk}.blocks.{number}.proj" for number in (1, 3, 9)), f"{trunk}.patch_embed.proj"),
        *(f"{trunk}.pos_embed", f"{trunk}.pos_embed_window", "no_mem_embed"),
        *both(*(f"image_encoder.neck.convs.{level}.conv" for level in range(4))),
        *(f"sam_prompt_encoder.point_embeddings.{kind}.weight" for kind in range(4)),
        *(f"sam_prompt_encoder.{name}.weight" for name in ("not_a_point_embed", "no_mask_embed")),
        "sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
        *both(*(f"sam_prompt_encoder.mask_downscaling.{number}" for number in (0, 1, 3, 4, 6))),
        *both(*(f"{decoder}.transformer.layers.{number}.{part}" for number in range(2) for part in layer)),
        *both(*(f"{decoder}.transformer.final_attn_token_to_image.{part}_proj" for part in ("q", "k", "v", "out"))),
        *both(f"{decoder}.transformer.norm_final_attn", f"{decoder}.conv_s0", f"{decoder}.conv_s1"),
        *(f"{decoder}.{token}.weight" for token in ("obj_score_token", "iou_token", "mask_tokens")),
        *both(*(f"{decoder}.output_upscaling.{number}" for number in (0, 1, 3))),
        *both(*(f"{decoder}.{head}.layers.{number}" for head in heads for number in range(3))),
    }


def message(path: Path, name: str = "sam2_nano") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(name, checkpoint=path)
    text = str(caught.value)
    assert "\n" not in text
    return text


@pytest.fixture(scope="module")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file as Meta writes it, from the weights of seed 7."""
    state = to_meta(load_model("sam2_nano", seed=7).model.state_dict())
    path = tmp_path_factory.mktemp("meta") / "nano.pt"
    torch.save({"model": {**state, **{name: torch.zeros(2) for name in VIDEO}}}, path)
    return path


def test_sizes_are_the_published_ones() -> None:
    with torch.device("meta"):
        counts = {
            name: sum(parameter.numel() for parameter in shape.build().parameters()) for name, shape in SHAPES.items()
        }
    assert {name: round(count / 1e6, 1) for name, count in counts.items()} == {
        "sam2_nano": 2.9,
        "sam2_tiny": 31.4,
        "sam2_small": 38.5,
        "sam2_base_plus": 73.3,
        "sam2_large": 216.9,
    }


def test_random_weights_depend_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = load_model("sam2_nano", seed=3)
    before = torch.get_rng_state()
    second, other = (load_model("sam2_nano", seed=seed).model.state_dict() for seed in (3, 4))
    assert torch.equal(torch.get_rng_state(), before)
    state = first.model.state_dict()
    assert first.weights == "random:3" and not first.model.training
    assert all(torch.equal(state[key], second[key]) for key in state)
    key = "image_encoder.vision.backbone.blocks.0.attn.qkv.weight"
    assert not torch.equal(state[key], other[key])
    assert 0.5 < float(state["image_encoder.vision.backbone.pos_embed"].std()) / POSITION_NOISE < 1.5


def test_nano_has_its_own_weights_unless_a_seed_or_a_checkpoint_is_given() -> None:
    shipped, other = shipped_checkpoint("sam2_nano"), sam1.shipped_checkpoint("vit_small")
    assert shipped is not None and other is not None
    assert shipped.stat().st_size + other.stat().st_size < 12_000_000
    assert {tensor.dtype for tensor in torch.load(shipped, weights_only=True)["model"].values()} == {torch.float16}
    assert all(shipped_checkpoint(name) is None for name in SHAPES if name != "sam2_nano")
    assert load_model("sam2_nano").weights == "checkpoint:" + hashlib.sha256(shipped.read_bytes()).hexdigest()
    assert load_model("sam2_nano", seed=0).weights == "random:0"


def test_nano_finds_most_objects_with_the_default_thresholds() -> None:
    sam = share_decoder(load_model("sam2_nano").model)
    scenes = generate_scenes(1, height=384, width=512, seed=20_002)
    found = kept_by_default(Sam2Segmenter(sam), scenes, 10, DEFAULTS)
    assert found["objects"] == 8
    assert found["kept"] >= 0.8 and found["kept_iou"] >= 0.8


def test_what_the_parts_give() -> None:
    sam = load_model("sam2_nano", side=128).model
    with torch.no_grad():
        maps = sam.image_encoder(torch.zeros(2, 3, 128, 128))
        sparse, dense, position = sam.prompt_encoder((torch.ones(5, 1, 2), torch.ones(5, 1, dtype=torch.int32)), None)
        boxed, _, _ = sam.prompt_encoder(None, torch.ones(3, 4))
    assert [tuple(one.shape) for one in maps] == [(2, 16, 32, 32), (2, 32, 16, 16), (2, 128, 8, 8)]
    assert sparse.shape == (1, 5, 2, 128) and boxed.shape == (1, 3, 3, 128)
    assert dense.shape == position.shape == (1, 128, 8, 8)


def test_names_are_metas_and_a_checkpoint_comes_back_as_it_was(official: Path) -> None:
    loaded = load_model("sam2_nano", checkpoint=official, seed=1)
    assert loaded.weights == "checkpoint:" + hashlib.sha256(official.read_bytes()).hexdigest()
    wanted = load_model("sam2_nano", seed=7).model.state_dict()
    assert all(torch.equal(wanted[key], tensor) for key, tensor in loaded.model.state_dict().items())
    assert set(to_meta(wanted)) == meta_keys()


def test_the_side_changes_no_weight(official: Path) -> None:
    small, usual = (load_model("sam2_nano", checkpoint=official, side=side).model for side in (128, 0))
    assert small.image_size == 128 and usual.image_size == 512
    assert all(torch.equal(a, b) for a, b in zip(small.parameters(), usual.parameters(), strict=True))


def test_a_model_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError) as caught:
        load_model("sam2_huge")
    names = "sam2_nano, sam2_tiny, sam2_small, sam2_base_plus, sam2_large"
    assert str(caught.value) == f"--model sam2_huge: no such model, expected one of {names}."
    monkeypatch.setattr(models, "find_spec", lambda _name: None)
    with pytest.raises(WorkloadError) as missing:
        load_model("sam2_tiny")
    assert str(missing.value) == (
        "--model sam2_tiny: needs transformers, which is not installed. Try: pip install 'profiler-kit[sam2]'"
    )


def test_checkpoints_that_do_not_fit(official: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.pt"
    state = torch.load(official, weights_only=True)["model"]
    total = len(meta_keys())
    assert message(official, "sam2_tiny") == (
        f"{official}: holds sam2_nano: 10 blocks, the first of width 32, expected sam2_tiny. Try --model sam2_nano."
    )
    key = "sam_prompt_encoder.point_embeddings.2.weight"
    torch.save({"model": {name: value for name, value in state.items() if name != key}}, path)
    assert message(path) == f"{path}: tensor {key} is missing, expected all {total} of sam2_nano. {FILES}"
    torch.save({"model": {**state, key: torch.zeros(1, 3)}}, path)
    assert message(path) == f"{path}: {key} has shape (1, 3), expected (1, 128) of sam2_nano. {FILES}"
    torch.save({"model": {**state, "text_encoder.weight": torch.zeros(1)}}, path)
    assert message(path) == f"{path}: holds text_encoder.weight, which sam2_nano has not. {FILES}"
    first = "image_encoder.trunk.patch_embed.proj.weight"
    torch.save({"model": {**state, first: torch.zeros(50, 3, 7, 7)}}, path)
    assert message(path) == (
        f"{path}: holds an unknown SAM 2: 10 blocks, the first of width 50, expected sam2_nano. {FILES}"
    )
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    assert message(path) == (
        f"{path}: no {first} among its 1 tensors (the first is a), expected the weights of sam2_nano. {FILES}"
    )
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 768)}, path)
    assert message(path) == f"{path}: holds a dict of image_encoder.pos_embed without 'model', {KIND}"
    torch.save({"model": {"epoch": 3}}, path)
    assert message(path) == f"{path}: holds a dict of epoch, not tensors by parameter name, {KIND}"
    torch.save([1], path)
    assert message(path) == f"{path}: holds list, {KIND}"
    path.write_text("not a checkpoint\n")
    assert message(path) == f"{path}: not written by torch.save, {KIND}"
    assert message(tmp_path / "none.pt").startswith(f"{tmp_path / 'none.pt'}: no such file, {KIND}")


def test_gelu_inside_the_products_of_the_encoder() -> None:
    sam = load_model("sam2_nano", seed=0, side=64).model
    keys, images = set(sam.state_dict()), torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        wanted = sam.image_encoder(images)
        fused = fuse_gelu(sam)
        found = fused.image_encoder(images)
        traced = torch.export.export(fused.image_encoder, (images,)).graph
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
    assert set(fused.state_dict()) == keys
    assert sum("linear_gelu" in str(node.target) for node in traced.nodes) == 10
