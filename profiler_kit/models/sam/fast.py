"""A drop-in for segment-anything's registry: the same names, the fastest safe model for the GPU at hand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.errors import OptionError
from profiler_kit.models.sam.models import load_model, model_names
from profiler_kit.models.sam.optimizations import parse_optimizations
from profiler_kit.workload.optimizations import Optimization, optimized, unmet

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_EXACT: Final = ("nosync", "patch_linear", "sdpa", "rel_pos", "window_pad", "batched_decoder")


def best_optimizations(device: torch.device) -> tuple[Optimization, ...]:
    """The fastest combination that keeps the masks and can run on `device`.

    With a GPU that has bfloat16 tensor cores (compute capability 8.0): bfloat16, every exact rewrite, Triton kernels
    for attention and for what lies between the products, and the encoder compiled. Elsewhere the exact rewrites in
    float32, without a compiler. Quantized products are never part of it: name them yourself.
    """
    names: tuple[str, ...] = _EXACT
    if device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0):
        names = ("bf16", *_EXACT, "fused_attention", "fused_rows", "compile")
    chosen = parse_optimizations(",".join(names))
    return tuple(optimization for optimization in chosen if unmet(optimization, device) is None)


def build_fast(
    name: str,
    checkpoint: str | Path | None = None,
    *,
    device: torch.device | str | None = None,
    optimizations: str | None = None,
) -> Sam:
    """The model `name` with the weights of `checkpoint` (random ones without), optimized, on `device`.

    device: a GPU when there is one, else the CPU. optimizations: names in order, such as "bf16,sdpa"; the best safe
    combination when None. The first image of each batch size takes as long as compiling does. Embeddings leave the
    encoder in float32, as segment-anything's users expect.

    Raises OptionError for names and orders that cannot be used and for tf32, a setting of the whole process that a
    model cannot carry; WorkloadError when the machine lacks what one needs; CheckpointError for the file.
    """
    target = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    chosen = best_optimizations(target) if optimizations is None else parse_optimizations(optimizations)
    if any(optimization.name == "tf32" for optimization in chosen):
        raise OptionError(
            'optimizations: tf32 is no property of a model. Call torch.set_float32_matmul_precision("high").'
        )
    path = None if checkpoint is None else Path(checkpoint)
    model = load_model(name, checkpoint=path, device=target).model
    before = tuple(optimization for optimization in chosen if not optimization.compiles)
    with optimized(model, before, target) as sam:
        sam.image_encoder.register_forward_hook(_to_float32)
    with optimized(sam, chosen[len(before) :], target) as sam:
        return sam


def _to_float32(_module: torch.nn.Module, _args: object, output: torch.Tensor) -> torch.Tensor:
    return output.float()


def _builder(name: str) -> Callable[..., Sam]:
    def build(
        checkpoint: str | Path | None = None,
        *,
        device: torch.device | str | None = None,
        optimizations: str | None = None,
    ) -> Sam:
        return build_fast(name, checkpoint, device=device, optimizations=optimizations)

    build.__name__, build.__doc__ = f"build_fast_{name}", build_fast.__doc__
    return build


sam_model_fast_registry: Final[Mapping[str, Callable[..., Sam]]] = {
    "default": _builder("vit_h"),
    **{name: _builder(name) for name in model_names()},
}
