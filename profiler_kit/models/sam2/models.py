"""Build SAM 2.1 by name from transformers' modules, with the weights of Meta's checkpoint or seeded random ones."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.errors import CheckpointError, OptionError, WorkloadError
from profiler_kit.models.checkpoints import CheckpointKind, State, build_seeded, without_torchaos_advice

if TYPE_CHECKING:
    from transformers import Sam2Model

Tensor = torch.Tensor
Maps = tuple[Tensor, Tensor, Tensor]
Point = tuple[Tensor, Tensor]
KIND: Final = CheckpointKind(
    "a SAM 2.1 checkpoint (a state dict under 'model', written by torch.save)",
    "Official files: sam2.1_hiera_tiny.pt, sam2.1_hiera_small.pt, sam2.1_hiera_base_plus.pt, sam2.1_hiera_large.pt.",
    inside="model",
)
# Weights that come with the package, by model; made by profiler_kit.models.sam2.train.
_SHIPPED: Final = {"sam2_nano": Path(__file__).parent / "weights" / "sam2_nano_512.pt"}
_ZEROS: Final = ("pos_embed", "pos_embed_window", "no_memory_embedding")


@dataclass(frozen=True)
class Shape:
    """What sets one model apart. Stages double the width and the heads of the one before and halve its map.

    blocks, windows: of each stage; its first block has the window of the stage before. everywhere: blocks that attend
    to the whole image. background: side of the position embedding that is stretched over the image. side: of the
    input, pixels. decoder: width of neck, prompts and decoder. mlp: width in the decoder's MLPs.
    """

    width: int
    heads: int
    blocks: tuple[int, int, int, int]
    windows: tuple[int, int, int, int]
    everywhere: tuple[int, ...]
    background: int = 7
    side: int = 1024
    decoder: int = 256
    mlp: int = 2048

    def build(self, side: int = 0) -> Sam2:
        """The model with transformers' own random weights, for images of `side` pixels (its own if 0)."""
        with without_torchaos_advice():
            from transformers import Sam2Config, Sam2Model

        side = side or self.side
        widths = [self.width * 2**stage for stage in range(4)]
        backbone = {
            "model_type": "sam2_hiera_det_model",
            "hidden_size": self.width,
            "num_attention_heads": self.heads,
            "image_size": [side, side],
            "window_positional_embedding_background_size": [self.background] * 2,
            "blocks_per_stage": list(self.blocks),
            "embed_dim_per_stage": widths,
            "num_attention_heads_per_stage": [self.heads * 2**stage for stage in range(4)],
            "window_size_per_stage": list(self.windows),
            "global_attention_blocks": list(self.everywhere),
        }
        vision = {
            "model_type": "sam2_vision_model",
            "backbone_config": backbone,
            "backbone_channel_list": widths[::-1],
            "backbone_feature_sizes": [[side // step] * 2 for step in (4, 8, 16)],
            "fpn_hidden_size": self.decoder,
        }
        config = Sam2Config(
            vision_config=vision,
            prompt_encoder_config={"hidden_size": self.decoder, "image_size": side},
            mask_decoder_config={
                "hidden_size": self.decoder,
                "mlp_dim": self.mlp,
                "iou_head_hidden_dim": self.decoder,
            },
        )
        return Sam2(Sam2Model(config))


SHAPES: Final[Mapping[str, Shape]] = {
    "sam2_nano": Shape(32, 1, (1, 2, 6, 1), (8, 4, 8, 4), (4, 6, 8), side=512, decoder=128, mlp=512),
    "sam2_tiny": Shape(96, 1, (1, 2, 7, 2), (8, 4, 14, 7), (5, 7, 9)),
    "sam2_small": Shape(96, 1, (1, 2, 11, 2), (8, 4, 14, 7), (7, 10, 13)),
    "sam2_base_plus": Shape(112, 2, (2, 3, 16, 3), (8, 4, 14, 7), (12, 16, 20), background=14),
    "sam2_large": Shape(144, 2, (2, 6, 36, 4), (8, 4, 16, 8), (23, 33, 43)),
}


class ImageEncoder(torch.nn.Module):
    """From images to what the decoder reads, as the published model prepares it for prompts to come.

    vision: transformers' encoder, backbone and neck. project_fine, project_middle: the decoder's own projections of
    the two finer maps.
    """

    def __init__(self, published: Sam2Model) -> None:
        super().__init__()
        self.vision = published.vision_encoder
        self.project_fine, self.project_middle = published.mask_decoder.conv_s0, published.mask_decoder.conv_s1
        self.no_memory_embedding = published.no_memory_embedding

    def forward(self, images: Tensor) -> Maps:
        """float[B, 3, S, S] to float[B, C / 8, S / 4, S / 4], [B, C / 4, S / 8, S / 8] and [B, C, S / 16, S / 16]."""
        fine, middle, coarse = self.vision(images).fpn_hidden_states
        no_memory = self.no_memory_embedding.view(1, -1, 1, 1)
        return self.project_fine(fine), self.project_middle(middle), coarse + no_memory


class PromptEncoder(torch.nn.Module):
    """transformers' prompt encoder, and the position encoding of the image that the decoder wants beside it."""

    def __init__(self, published: Sam2Model) -> None:
        super().__init__()
        self.prompts = published.prompt_encoder
        self.prompts.shared_embedding = published.shared_image_embedding  # one, as of Meta's model

    def forward(self, points: Point | None, boxes: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Prompts in pixels of the input: points float[P, N, 2] and labels int[P, N], or boxes float[P, 4].

        Returns sparse float[1, P, tokens, C], dense float[1, C, h, w] and position float[1, C, h, w].
        """
        placed, labels = (None, None) if points is None else (points[0][None], points[1][None])
        sparse, dense = self.prompts(
            input_points=placed,
            input_labels=labels,
            input_boxes=None if boxes is None else boxes[None],
            input_masks=None,
        )
        return sparse, dense, self.position()

    def position(self) -> Tensor:
        """float[1, C, h, w], of the middle of each cell."""
        height, width = self.prompts.image_embedding_size
        device = self.prompts.shared_embedding.positional_embedding.device
        y = (torch.arange(height, device=device) + 0.5) / height
        x = (torch.arange(width, device=device) + 0.5) / width
        grid = torch.stack([x.expand(height, width), y[:, None].expand(height, width)], dim=-1)
        encoded: Tensor = self.prompts.shared_embedding(grid)
        return encoded.permute(2, 0, 1)[None]


class Sam2(torch.nn.Module):
    """SAM 2 on images, in the parts that SAM has; all modules and weights are those of transformers' Sam2Model."""

    mask_threshold: float = 0.0

    def __init__(self, published: Sam2Model) -> None:
        super().__init__()
        self.image_encoder = ImageEncoder(published)
        self.prompt_encoder = PromptEncoder(published)
        self.mask_decoder = published.mask_decoder
        self.image_size: int = published.prompt_encoder.input_image_size

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device


@dataclass(frozen=True)
class LoadedModel:
    """A SAM 2 in eval mode on its device, and where its weights came from, as `CheckpointKind.weights` says it."""

    model: Sam2
    weights: str


def check_model(name: str, option: str = "--model") -> str:
    """Return `name` when `load_model` can build it; OptionError for others, WorkloadError without transformers."""
    if name not in SHAPES:
        raise OptionError(f"{option} {name}: no such model, expected one of {', '.join(SHAPES)}.")
    if find_spec("transformers") is None:
        raise WorkloadError(
            f"{option} {name}: needs transformers, which is not installed. Try: pip install 'profiler-kit[sam2]'"
        )
    return name


def shipped_checkpoint(name: str) -> Path | None:
    """The file of the weights that come with the model `name`, None for a model without."""
    return _SHIPPED.get(name)


def load_model(
    name: str,
    *,
    checkpoint: Path | None = None,
    seed: int | None = None,
    device: torch.device | str = "cpu",
    side: int = 0,
) -> LoadedModel:
    """Build the model `name` with the weights of Meta's `checkpoint`, or random ones of `seed`, or those it ships with.

    As `models.sam.load_model`. side: of the images it takes, its own if 0; the weights do not depend on it.
    """
    shape = SHAPES[check_model(name)]
    if checkpoint is None and seed is None:
        checkpoint = shipped_checkpoint(name)
    state = None if checkpoint is None else KIND.read(checkpoint)
    if state is not None and checkpoint is not None:
        _check_kind(checkpoint, state, name)
    model: Sam2 = build_seeded(lambda: shape.build(side), seed or 0, _ZEROS)
    if state is not None and checkpoint is not None:
        image = {key: tensor for key, tensor in state.items() if not _FOR_VIDEO.match(key)}
        KIND.check(checkpoint, image, to_meta(model.state_dict()), name)
        model.load_state_dict({key: torch.cat([image[of] for of in meta_names(key)]) for key in model.state_dict()})
    return LoadedModel(model.to(device), KIND.weights(checkpoint, seed))


# From our names to Meta's, one after the other.
_RULES: Final = tuple(
    (re.compile(ours), meta)
    for ours, meta in (
        (r"^image_encoder\.vision\.backbone", "image_encoder.trunk"),
        (r"^image_encoder\.vision\.neck\.convs\.(\d+)", r"image_encoder.neck.convs.\1.conv"),
        (r"^image_encoder\.project_fine", "sam_mask_decoder.conv_s0"),
        (r"^image_encoder\.project_middle", "sam_mask_decoder.conv_s1"),
        (r"^image_encoder\.no_memory_embedding", "no_mem_embed"),
        (r"shared_embedding\.positional_embedding", "pe_layer.positional_encoding_gaussian_matrix"),
        (r"^prompt_encoder\.prompts", "sam_prompt_encoder"),
        (r"^mask_decoder", "sam_mask_decoder"),
        (r"patch_embed\.projection", "patch_embed.proj"),
        (r"(mlps\.\d+|head)\.layers\.0", r"\1.layers.1"),
        (r"(mlps\.\d+|head)\.proj_out", r"\1.layers.2"),
        (r"mlp\.proj_out", "mlp.layers.1"),
        (r"\.proj_in", ".layers.0"),
        (r"\.o_proj", ".out_proj"),
        (r"layer_norm_final_attn", "norm_final_attn"),
        (r"upscale_conv1", "output_upscaling.0"),
        (r"upscale_layer_norm", "output_upscaling.1"),
        (r"upscale_conv2", "output_upscaling.3"),
        (r"mask_embed\.conv1", "mask_downscaling.0"),
        (r"mask_embed\.layer_norm1", "mask_downscaling.1"),
        (r"mask_embed\.conv2", "mask_downscaling.3"),
        (r"mask_embed\.layer_norm2", "mask_downscaling.4"),
        (r"mask_embed\.conv3", "mask_downscaling.6"),
        (r"\.layer_norm(\d)", r".norm\1"),
    )
)
_POINTS: Final = "prompt_encoder.prompts.point_embed.weight"  # one tensor of ours, a tensor a row of Meta's
_FOR_VIDEO: Final = re.compile(r"(memory_|maskmem_|no_mem_pos_enc|no_obj_|obj_ptr_|mask_downsample\.)")
_BLOCK: Final = re.compile(r"image_encoder\.trunk\.blocks\.(\d+)\.")


def meta_names(key: str) -> list[str]:
    """What Meta's checkpoints call a tensor of a Sam2: one name, of the point embeddings four."""
    if key == _POINTS:
        return [f"sam_prompt_encoder.point_embeddings.{row}.weight" for row in range(4)]
    for ours, meta in _RULES:
        key = ours.sub(meta, key)
    return [key]


def to_meta(state: State) -> State:
    """A state dict of a Sam2 under Meta's names."""
    return {
        name: part
        for key, tensor in state.items()
        for name, part in zip(meta_names(key), torch.split(tensor, 1) if key == _POINTS else [tensor], strict=True)
    }


def _check_kind(path: Path, state: State, name: str) -> None:
    """Tell which SAM 2 the state dict is of, before the model is built."""
    first = state.get("image_encoder.trunk.patch_embed.proj.weight")
    if first is None or first.dim() != 4:
        raise CheckpointError(
            f"{path}: no image_encoder.trunk.patch_embed.proj.weight among its {len(state)} tensors (the first is "
            f"{next(iter(state))}), expected the weights of {name}. {KIND.hint}"
        )
    width, blocks = len(first), len({match[1] for key in state if (match := _BLOCK.match(key))})
    found = next((one for one, shape in SHAPES.items() if (shape.width, sum(shape.blocks)) == (width, blocks)), None)
    if found != name:
        holds = f"holds {found or 'an unknown SAM 2'}: {blocks} blocks, the first of width {width}"
        hint = f"Try --model {found}." if found else KIND.hint
        raise CheckpointError(f"{path}: {holds}, expected {name}. {hint}")
