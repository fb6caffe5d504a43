"""A drop-in for segment-anything-fast: its registry, the fastest safe model for the GPU at hand, and what goes with it.

sam_model_registry, SamPredictor and SamAutomaticMaskGenerator are segment-anything's own, as segment-anything-fast
exports them too.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from segment_anything import SamAutomaticMaskGenerator, SamPredictor, sam_model_registry

from profiler_kit.errors import OptionError
from profiler_kit.models.sam.models import load_model, model_names
from profiler_kit.models.sam.optimizations import parse_optimizations
from profiler_kit.workload.optimizations import Optimization, optimized, unmet

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

__all__ = [
    "SamAutomaticMaskGenerator",
    "SamPredictor",
    "best_optimizations",
    "build_fast",
    "sam_model_fast_registry",
    "sam_model_registry",
]
BEST: Final = "best"  # what is best for the device, where segment-anything-fast's own default is fixed
_DTYPES: Final[Mapping[torch.dtype | None, tuple[str, ...]]] = {
    torch.bfloat16: ("bf16",),
    torch.float16: ("fp16",),
    torch.float32: (),
    None: (),
}
_MODES: Final[Mapping[str | None, tuple[str, ...]]] = {  # of torch.compile
    "default": ("compile",),
    None: ("compile",),
    "reduce-overhead": ("compile_graphs",),
    "max-autotune": ("compile_max",),
    "max-autotune-no-cudagraphs": ("compile_max",),
}
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


def _as_asked(
    device: torch.device, optimizations: str | None, compile_mode: str | None, dtype: torch.dtype | str | None
) -> tuple[Optimization, ...]:
    """The named optimizations, or the best ones with the number format and the compiler that were asked for."""
    if optimizations is not None:
        if (compile_mode, dtype) != (BEST, BEST):
            raise OptionError(
                "optimizations: found with compile_mode or dtype, which they hold already. Leave one out."
            )
        return parse_optimizations(optimizations)
    for option, value, known in (("compile_mode", compile_mode, _MODES), ("dtype", dtype, _DTYPES)):
        if value != BEST and value not in known:
            raise OptionError(f"{option} {value}: not known, expected one of {', '.join(map(str, known))}.")
    best = [optimization.name for optimization in best_optimizations(device)]
    half = [name for name in best if name in ("bf16", "fp16")]
    last = [name for name in best if name.startswith("compile")]
    rest = [name for name in best if name not in (*half, *last)]
    half = half if dtype == BEST else list(_DTYPES[dtype])  # type: ignore[index]  # checked above
    last = last if compile_mode == BEST else list(_MODES[compile_mode])
    if not half:
        rest = [name for name in rest if name in _EXACT]  # the kernels are for half precision
    return parse_optimizations(",".join((*half, *rest, *last)))


def build_fast(
    name: str,
    checkpoint: str | Path | None = None,
    compile_mode: str | None = BEST,
    dtype: torch.dtype | str | None = BEST,
    *,
    device: torch.device | str | None = None,
    optimizations: str | None = None,
) -> Sam:
    """The model `name` with the weights of `checkpoint` (random ones without), optimized, on `device`.

    device: a GPU when there is one, else the CPU. compile_mode, dtype: as segment-anything-fast takes them, "best" for
    what is best on the device; None is torch.compile's default mode, and float32. CUDA graphs are "reduce-overhead"
    alone. optimizations: in place of the two, names in order, such as "bf16,sdpa". The first image of each batch size
    takes as long as compiling does. Embeddings leave the encoder in float32, as segment-anything's users expect.

    Raises OptionError for names and orders that cannot be used and for tf32, a setting of the whole process that a
    model cannot carry; WorkloadError when the machine lacks what one needs; CheckpointError for the file.
    """
    target = torch.device(device if device is not None else "cuda" if torch.cuda.is_available() else "cpu")
    chosen = _as_asked(target, optimizations, compile_mode, dtype)
    if any(optimization.name == "tf32" for optimization in chosen):
        raise OptionError(
            'optimizations: tf32 is not a property of a model. Call torch.set_float32_matmul_precision("high").'
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
        compile_mode: str | None = BEST,
        dtype: torch.dtype | str | None = BEST,
        *,
        device: torch.device | str | None = None,
        optimizations: str | None = None,
    ) -> Sam:
        return build_fast(name, checkpoint, compile_mode, dtype, device=device, optimizations=optimizations)

    build.__name__, build.__doc__ = f"build_fast_{name}", build_fast.__doc__
    return build


sam_model_fast_registry: Final[Mapping[str, Callable[..., Sam]]] = {
    "default": _builder("vit_h"),
    **{name: _builder(name) for name in model_names()},
}
