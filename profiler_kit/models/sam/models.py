"""Build segment-anything models by name, with a checkpoint's weights, the shipped ones or seeded random ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import torch

from profiler_kit.errors import CheckpointError, OptionError
from profiler_kit.models.checkpoints import CheckpointKind, build_seeded

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

# Weights that come with the package, by model; made by profiler_kit.models.sam.train.
_SHIPPED: Final = {"vit_small": Path(__file__).parent / "weights" / "vit_small_512.pt"}
_KIND: Final = CheckpointKind(
    "a SAM checkpoint (a state dict written by torch.save)",
    "Official files: sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth, sam_vit_h_4b8939.pth.",
)
_ZEROS: Final = ("pos_embed", "rel_pos_h", "rel_pos_w")


@dataclass(frozen=True)
class LoadedModel:
    """A SAM in eval mode on its device, and where its weights came from.

    weights: "checkpoint:<sha256 of the file>" or "random:<seed>".
    """

    model: Sam
    weights: str


def model_names() -> tuple[str, ...]:
    """The names `load_model` knows, smallest model first."""
    return tuple(_BUILDERS)


def check_model(name: str, option: str = "--model") -> str:
    """Return `name` when `load_model` knows it; raises OptionError with the list otherwise."""
    if name not in _BUILDERS:
        known = ", ".join(_BUILDERS)
        raise OptionError(f"{option} {name}: no such model, expected one of {known}, or a SAM 2.1 such as sam2_large.")
    return name


def shipped_checkpoint(name: str) -> Path | None:
    """The file of the weights that come with the model `name`, None for a model without."""
    return _SHIPPED.get(name)


def load_model(
    name: str, *, checkpoint: Path | None = None, seed: int | None = None, device: torch.device | str = "cpu"
) -> LoadedModel:
    """Build the model `name` with the weights of `checkpoint`, or random ones of `seed`, or the ones it ships with.

    The first of the three that there is; with none of them, random weights of seed 0. So `vit_small` segments unless
    a seed is given, and a full-size model needs a checkpoint to. `checkpoint` and `seed` together: the checkpoint.
    Random weights depend on `seed` alone; torch's global random state is as it was afterwards. Position
    embeddings (`pos_embed`, `rel_pos_*`) get normal noise of standard deviation POSITION_NOISE.

    Raises OptionError for an unknown name, CheckpointError when the file is missing, is not a checkpoint, would run
    code, or holds another model.
    """
    check_model(name)
    if checkpoint is None and seed is None:
        checkpoint = shipped_checkpoint(name)
    state = None if checkpoint is None else _KIND.read(checkpoint)
    if state is not None and checkpoint is not None:
        _check_kind(checkpoint, state, name)
    model = cast("Sam", build_seeded(_BUILDERS[name], seed or 0, _ZEROS))
    if state is not None and checkpoint is not None:
        _KIND.check(checkpoint, state, model.state_dict(), name)
        model.load_state_dict(state)
    return LoadedModel(model.to(device), weights_of(name, checkpoint, seed))


def weights_of(name: str, checkpoint: Path | None, seed: int | None) -> str:
    """What `load_model` says of the weights, without loading them; raises CheckpointError when the file is missing."""
    if checkpoint is None and seed is None:
        checkpoint = shipped_checkpoint(name)
    return _KIND.weights(checkpoint, seed)


def _published(name: str) -> Sam:
    from segment_anything import sam_model_registry

    return sam_model_registry[name]()


@dataclass(frozen=True)
class _Shape:
    """A small SAM of segment-anything's own modules; every second block of its encoder attends to the whole image.

    image_size: side of the input, pixels. width, depth, heads: of the encoder. prompt_width, mlp_width, prompt_heads:
    of the prompt encoder and the mask decoder. Patches of 16 px and windows of 7 patches, which divide neither grid:
    the windows are padded, as those of the published models are.
    """

    image_size: int
    width: int
    depth: int
    heads: int
    prompt_width: int
    mlp_width: int
    prompt_heads: int

    def build(self) -> Sam:
        from functools import partial

        from segment_anything.modeling import ImageEncoderViT, MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

        grid = self.image_size // 16
        return Sam(
            image_encoder=ImageEncoderViT(
                img_size=self.image_size,
                patch_size=16,
                embed_dim=self.width,
                depth=self.depth,
                num_heads=self.heads,
                out_chans=self.prompt_width,
                norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
                use_rel_pos=True,
                window_size=7,
                global_attn_indexes=tuple(range(1, self.depth, 2)),
            ),
            prompt_encoder=PromptEncoder(
                embed_dim=self.prompt_width,
                image_embedding_size=(grid, grid),
                input_image_size=(self.image_size, self.image_size),
                mask_in_chans=16,
            ),
            mask_decoder=MaskDecoder(
                num_multimask_outputs=3,
                transformer=TwoWayTransformer(
                    depth=2,
                    embedding_dim=self.prompt_width,
                    mlp_dim=self.mlp_width,
                    num_heads=self.prompt_heads,
                ),
                transformer_dim=self.prompt_width,
                iou_head_depth=3,
                iou_head_hidden_dim=self.prompt_width,
            ),
        )


_TINY: Final = _Shape(256, width=64, depth=4, heads=4, prompt_width=64, mlp_width=128, prompt_heads=4)
_SMALL: Final = _Shape(512, width=192, depth=8, heads=6, prompt_width=192, mlp_width=384, prompt_heads=6)
_BUILDERS: Final[Mapping[str, Callable[[], Sam]]] = {
    "vit_tiny": _TINY.build,
    "vit_small": _SMALL.build,
    "vit_b": lambda: _published("vit_b"),
    "vit_l": lambda: _published("vit_l"),
    "vit_h": lambda: _published("vit_h"),
}
# By the embedding width of the encoder.
_WIDTHS: Final = {64: "vit_tiny", 192: "vit_small", 768: "vit_b", 1024: "vit_l", 1280: "vit_h"}


def _check_kind(path: Path, state: dict[str, torch.Tensor], name: str) -> None:
    """Tell which SAM the state dict is of, before the model is built."""
    position = state.get("image_encoder.pos_embed")
    if position is None or position.dim() != 4:
        first = next(iter(state))
        raise CheckpointError(
            f"{path}: no image_encoder.pos_embed among its {len(state)} tensors (the first is {first}), "
            f"expected the weights of SAM {name}. {_KIND.hint}"
        )
    width = position.shape[-1]
    found = _WIDTHS.get(width)
    if found != name:
        holds = f"holds {found or 'an unknown SAM'}: embedding width {width}"
        hint = f"Try --model {found}." if found else _KIND.hint
        raise CheckpointError(f"{path}: {holds}, expected {name}. {hint}")
