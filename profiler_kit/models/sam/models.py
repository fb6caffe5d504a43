"""Build segment-anything models by name, with a checkpoint's weights, the shipped ones or seeded random ones."""

from __future__ import annotations

import hashlib
import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import torch

from profiler_kit.errors import CheckpointError, InputError, OptionError
from profiler_kit.files import require_file

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

# Standard deviation of the noise put on the position embeddings, which segment-anything starts at zero: a model
# with zeros there would skip no work, but its windows could not tell positions apart.
POSITION_NOISE: Final = 0.02
# Weights that come with the package, by model; made by profiler_kit.models.sam.train.
_SHIPPED: Final = {"vit_small": Path(__file__).parent / "weights" / "vit_small_512.pt"}
_EXPECTED: Final = "a SAM checkpoint (a state dict written by torch.save)"
_HINT: Final = "Official files: sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth, sam_vit_h_4b8939.pth."


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


def check_model(name: str) -> str:
    """Return `name` when `load_model` knows it; raises OptionError with the list otherwise."""
    if name not in _BUILDERS:
        raise OptionError(f"--model {name}: no such model, expected one of {', '.join(_BUILDERS)}.")
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

    Raises OptionError for an unknown name, CheckpointError when the file is missing, is no checkpoint, would run
    code, or holds another model.
    """
    check_model(name)
    if checkpoint is None and seed is None:
        checkpoint = shipped_checkpoint(name)
    state = None if checkpoint is None else _read_state(checkpoint)
    if state is not None and checkpoint is not None:
        _check_kind(checkpoint, state, name)
    model = _build(name, seed or 0)
    if state is not None and checkpoint is not None:
        _load_state(checkpoint, state, model, name)
    return LoadedModel(model.to(device), weights_of(name, checkpoint, seed))


def weights_of(name: str, checkpoint: Path | None, seed: int | None) -> str:
    """What `load_model` says of the weights, without loading them; raises CheckpointError when the file is missing."""
    if checkpoint is None and seed is None:
        checkpoint = shipped_checkpoint(name)
    if checkpoint is None:
        return f"random:{seed or 0}"
    try:
        require_file(checkpoint, _EXPECTED, _HINT)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    with checkpoint.open("rb") as handle:
        return f"checkpoint:{hashlib.file_digest(handle, 'sha256').hexdigest()}"


def _build(name: str, seed: int) -> Sam:
    """Construct on the CPU with torch's CPU generator at `seed`, and put the generator back."""
    generator = torch.default_generator
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        generator.manual_seed(seed)
        model = _BUILDERS[name]()
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if key.rpartition(".")[2] in ("pos_embed", "rel_pos_h", "rel_pos_w"):
                    parameter.normal_(0.0, POSITION_NOISE, generator=generator)
    return cast("Sam", model.eval().requires_grad_(False))


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


def _read_state(path: Path) -> dict[str, torch.Tensor]:
    """The file's state dict; only tensors are unpickled."""
    try:
        require_file(path, _EXPECTED, _HINT)
    except InputError as error:
        raise CheckpointError(str(error)) from error
    try:
        with warnings.catch_warnings():  # torch's advice on other pickle protocols and archives is not for our user
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Unsupported global" in str(error) or "GLOBAL " in str(error):
            raise CheckpointError(
                f"{path}: refused, it is a pickle that asks for more than tensors (it could run code), "
                f"expected {_EXPECTED}. {_HINT}"
            ) from error
        raise CheckpointError(f"{path}: not written by torch.save, expected {_EXPECTED}. {_HINT}") from error
    except (RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError) as error:
        raise CheckpointError(
            f"{path}: broken or cut off ({_first_line(error)}), expected {_EXPECTED}. {_HINT}"
        ) from error
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: holds {type(state).__name__}, expected {_EXPECTED}. {_HINT}")
    if not state or not all(isinstance(k, str) and isinstance(v, torch.Tensor) for k, v in state.items()):
        keys = ", ".join(str(k) for k in list(state)[:3]) or "nothing"
        raise CheckpointError(
            f"{path}: holds a dict of {keys}, not tensors by parameter name, expected {_EXPECTED}. {_HINT}"
        )
    return state


def _check_kind(path: Path, state: dict[str, torch.Tensor], name: str) -> None:
    """Tell which SAM the state dict is of, before the model is built."""
    position = state.get("image_encoder.pos_embed")
    if position is None or position.dim() != 4:
        first = next(iter(state))
        raise CheckpointError(
            f"{path}: no image_encoder.pos_embed among its {len(state)} tensors (the first is {first}), "
            f"expected the weights of SAM {name}. {_HINT}"
        )
    width = position.shape[-1]
    found = _WIDTHS.get(width)
    if found != name:
        holds = f"holds {found or 'an unknown SAM'}: embedding width {width}"
        hint = f"Try --model {found}." if found else _HINT
        raise CheckpointError(f"{path}: {holds}, expected {name}. {hint}")


def _load_state(path: Path, state: dict[str, torch.Tensor], model: Sam, name: str) -> None:
    wanted = model.state_dict()
    for key, tensor in wanted.items():
        if key not in state:
            raise CheckpointError(f"{path}: tensor {key} is missing, expected all {len(wanted)} of {name}. {_HINT}")
        if state[key].shape != tensor.shape:
            found, wanted_shape = tuple(state[key].shape), tuple(tensor.shape)
            raise CheckpointError(f"{path}: {key} has shape {found}, expected {wanted_shape} of {name}. {_HINT}")
    extra = next((key for key in state if key not in wanted), None)
    if extra is not None:
        raise CheckpointError(f"{path}: holds {extra}, which {name} has not. {_HINT}")
    model.load_state_dict(state)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
