"""Models: seeded, independent of global state; checkpoints that do not fit are named in one line."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import pytest
import torch

from profiler_kit.errors import CheckpointError, OptionError
from profiler_kit.models.checkpoints import POSITION_NOISE, packed, unpacked
from profiler_kit.models.sam.models import load_model, model_names, shipped_checkpoint

FILES = "Official files: sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth, sam_vit_h_4b8939.pth."


class Hostile:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must never be printed",)


def message(path: Path, name: str = "vit_tiny") -> str:
    with pytest.raises(CheckpointError) as caught:
        load_model(name, checkpoint=path)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_random_weights_depend_on_the_seed_alone_and_leave_the_global_state() -> None:
    torch.manual_seed(1)
    first = load_model("vit_tiny", seed=3).model.state_dict()
    torch.manual_seed(2)
    before = torch.get_rng_state()
    second = load_model("vit_tiny", seed=3).model.state_dict()
    other = load_model("vit_tiny", seed=4).model.state_dict()
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(
        first["image_encoder.blocks.0.mlp.lin1.weight"], other["image_encoder.blocks.0.mlp.lin1.weight"]
    )


def test_tiny_is_small_has_both_kinds_of_blocks_and_noisy_positions() -> None:
    loaded = load_model("vit_tiny")
    assert loaded.weights == "random:0"
    model = loaded.model
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) < 2_000_000
    assert {block.window_size for block in model.image_encoder.blocks} == {0, 7}
    positions = [p for n, p in model.named_parameters() if "rel_pos" in n or "pos_embed" in n]
    assert len(positions) == 1 + 2 * len(model.image_encoder.blocks)
    assert all(0.5 * POSITION_NOISE < float(p.std()) < 1.5 * POSITION_NOISE for p in positions)


def test_a_packed_state_is_half_as_large_and_nearly_the_same(tmp_path: Path) -> None:
    state = load_model("vit_tiny").model.state_dict()
    torch.save(packed(state), path := tmp_path / "packed.pt")
    torch.save({key: tensor.half() for key, tensor in state.items()}, half := tmp_path / "half.pt")
    assert path.stat().st_size < 0.65 * half.stat().st_size
    found = load_model("vit_tiny", checkpoint=path).model.state_dict()
    for key, tensor in state.items():
        assert float((found[key] - tensor).norm()) <= 0.02 * float(tensor.norm())
    plain = {"a": torch.zeros(3, 4, dtype=torch.int8), "a@scale": torch.ones(5, 1)}  # which no row has
    assert set(unpacked(plain)) == {"a", "a@scale"}


def test_small_has_its_own_weights_unless_a_seed_or_a_checkpoint_is_given(tmp_path: Path) -> None:
    shipped = shipped_checkpoint("vit_small")
    assert shipped is not None and shipped.stat().st_size < 6_000_000
    assert all(shipped_checkpoint(name) is None for name in model_names() if name != "vit_small")
    loaded = load_model("vit_small")
    assert loaded.weights == "checkpoint:" + hashlib.sha256(shipped.read_bytes()).hexdigest()
    model = loaded.model
    assert model.image_encoder.img_size == 512
    assert sum(p.numel() for p in model.parameters()) < 8_000_000
    assert all(p.dtype == torch.float32 for p in model.parameters())
    random = load_model("vit_small", seed=0)
    assert random.weights == "random:0"
    path = tmp_path / "other.pt"
    torch.save(random.model.state_dict(), path)
    for seed in (None, 3):
        other = load_model("vit_small", checkpoint=path, seed=seed)
        assert other.weights == "checkpoint:" + hashlib.sha256(path.read_bytes()).hexdigest()


def test_unknown_model() -> None:
    assert model_names() == ("vit_tiny", "vit_small", "vit_b", "vit_l", "vit_h")
    with pytest.raises(OptionError) as caught:
        load_model("vit_x")
    assert str(caught.value) == (
        "--model vit_x: no such model, expected one of vit_tiny, vit_small, vit_b, vit_l, vit_h, or a SAM 2.1 such as "
        "sam2_large."
    )


def test_checkpoint_round_trip_records_the_sha256(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    saved = load_model("vit_tiny", seed=7).model.state_dict()
    torch.save(saved, path)
    loaded = load_model("vit_tiny", checkpoint=path, seed=1)
    assert loaded.weights == "checkpoint:" + hashlib.sha256(path.read_bytes()).hexdigest()
    assert all(torch.equal(saved[key], value) for key, value in loaded.model.state_dict().items())


def test_checkpoint_of_another_model_names_both_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "h.pth"
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 1280)}, path)
    assert message(path, "vit_b") == f"{path}: holds vit_h: embedding width 1280, expected vit_b. Try --model vit_h."
    torch.save({"image_encoder.pos_embed": torch.zeros(1, 2, 2, 96)}, path)
    assert message(path) == f"{path}: holds an unknown SAM: embedding width 96, expected vit_tiny. {FILES}"


def test_checkpoint_with_missing_extra_or_misshapen_tensors(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    state = load_model("vit_tiny").model.state_dict()
    wanted = len(state)
    key = "image_encoder.neck.1.bias"
    torch.save({k: v for k, v in state.items() if k != key}, path)
    assert message(path) == f"{path}: tensor {key} is missing, expected all {wanted} of vit_tiny. {FILES}"
    torch.save({**state, key: torch.zeros(3)}, path)
    assert message(path) == f"{path}: {key} has shape (3,), expected (64,) of vit_tiny. {FILES}"
    torch.save({**state, "more": torch.zeros(3)}, path)
    assert message(path) == f"{path}: holds more, which vit_tiny has not. {FILES}"
    torch.save({"weight": torch.zeros(3)}, path)
    assert message(path) == (
        f"{path}: no image_encoder.pos_embed among its 1 tensors (the first is weight), "
        f"expected the weights of SAM vit_tiny. {FILES}"
    )


def test_files_that_are_no_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.pth"
    kind = f"a SAM checkpoint (a state dict written by torch.save). {FILES}"
    assert message(path) == f"{path}: no such file, expected {kind}"
    path.write_bytes(b"")
    assert message(path) == f"{path}: the file is empty (0 bytes), expected {kind}"
    want = f"expected {kind}"
    path.write_text("not a checkpoint\n")
    assert message(path) == f"{path}: not written by torch.save, {want}"
    with path.open("wb") as handle:
        pickle.dump(Hostile(), handle)
    assert message(path) == f"{path}: not written by torch.save, {want}"
    with path.open("wb") as handle:
        pickle.dump(Hostile(), handle, protocol=2)
    refused = f"{path}: refused, it is a pickle that asks for more than tensors (it could run code), {want}"
    assert message(path) == refused
    torch.save(Hostile(), path)
    assert message(path) == refused
    torch.save([torch.zeros(1)], path)
    assert message(path) == f"{path}: holds list, {want}"
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    assert message(path) == f"{path}: holds a dict of model, not tensors by parameter name, {want}"
    assert capsys.readouterr().out == ""


def test_a_checkpoint_cut_off_in_the_middle(tmp_path: Path) -> None:
    path = tmp_path / "tiny.pth"
    torch.save(load_model("vit_tiny").model.state_dict(), path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    text = message(path)
    assert text.startswith(f"{path}: broken or cut off (")
    assert text.endswith(f"), expected a SAM checkpoint (a state dict written by torch.save). {FILES}")
