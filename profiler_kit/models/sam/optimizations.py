"""The optimizations of SAM: those that need no model applied to its parts, and rewrites of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.models.sam.attention import use_linear_patches, use_rel_pos, use_sdpa, use_window_pad
from profiler_kit.models.sam.compiled import compile_encoder, graph_encoder, package_encoder
from profiler_kit.models.sam.decoder import batch_decoder
from profiler_kit.models.sam.quantize import quantize_float8, quantize_int8, sparsify_24
from profiler_kit.models.sam.sync_free import remove_synchronisation
from profiler_kit.workload import optimizations as general
from profiler_kit.workload.optimizations import GENERAL, PRECISION, LadderRow, Optimization, others

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

_QUANTIZED: Final = ("int8", "fp8", "sparse24")
_COMPILED: Final = ("compile", "compile_max", "compile_graphs", "aoti")


def parse_optimizations(text: str) -> tuple[Optimization, ...]:
    """Those of SAM by name, in the order to apply them; raises as `workload.optimizations.parse_optimizations`."""
    return general.parse_optimizations(text, OPTIMIZATIONS)


def reduce_precision(sam: Sam, dtype: torch.dtype) -> Sam:
    """Run the image encoder and the mask decoder in `dtype`.

    The prompt encoder stays float32: it multiplies float32 coordinates with its Gaussian matrix. Inputs of the
    two parts are cast as they enter; masks and IoU predictions leave in float32, so postprocessing is unchanged.
    """
    general.cast_model(sam.image_encoder, dtype)
    general.cast_model(sam.mask_decoder, dtype).register_forward_hook(general.cast_outputs)
    return sam


def encoder_dtype(sam: Sam) -> torch.dtype:
    """The dtype the image encoder computes in; where its products are quantized, that of everything else."""
    dtype: torch.dtype = sam.image_encoder.pos_embed.dtype
    return dtype


def _fuse_attention(sam: Sam) -> Sam:
    from profiler_kit.models.sam.fused_attention import use_fused_attention  # needs Triton, which a CPU may lack

    return use_fused_attention(sam)


def _fuse_rows(sam: Sam) -> Sam:
    from profiler_kit.models.sam.fused_rows import use_fused_rows

    return use_fused_rows(sam)


def compile_decoder(sam: Sam) -> Sam:
    sam.mask_decoder.compile(dynamic=False)
    return sam


def graph_decoder(sam: Sam) -> Sam:
    sam.mask_decoder = general.Graphed(compile_decoder(sam).mask_decoder)
    return sam


def _generating(**how: bool) -> Callable[[Sam], Sam]:
    """Note on the model how all masks of an image are made; `generating` reads it."""

    def apply(sam: Sam) -> Sam:
        sam.generating = {**generating(sam), **how}
        return sam

    return apply


def generating(sam: Sam) -> dict[str, bool]:
    """What optimizations say of how all masks are made: ours, all_points, on_device."""
    found: dict[str, bool] = getattr(sam, "generating", {})
    return found


def _precision(name: str, about: str, dtype: torch.dtype) -> Optimization:
    return replace(GENERAL[name], about=about, apply=partial(reduce_precision, dtype=dtype))


def _rewrite(name: str, about: str, apply: Callable[[Sam], Sam], after: tuple[str, ...] = ()) -> Optimization:
    return Optimization(name, about, apply, after=after)


_REWRITES: Final = (
    _rewrite("nosync", "no waiting for the GPU inside the forward", remove_synchronisation),
    _rewrite("patch_linear", "patch embedding as one matrix product", use_linear_patches),
    _rewrite("sdpa", "encoder attention through scaled_dot_product_attention", use_sdpa),
    _rewrite("rel_pos", "relative position as extra head dimensions, no mask", use_rel_pos, ("sdpa",)),
    _rewrite("window_pad", "windows padded after qkv and joined before proj", use_window_pad),
    _rewrite("batched_decoder", "prompts of all images in one call of the mask decoder", batch_decoder),
)
_FUSED: Final = Optimization(
    "fused_attention",
    "encoder attention as one Triton kernel between qkv and proj, nothing padded in memory",
    _fuse_attention,
    after=("sdpa", "rel_pos", "window_pad"),
    requires=("bf16", "fp16"),
    needs_cuda=True,
    capability=(8, 0),
    package="triton",
)
_ROWS: Final = Optimization(
    "fused_rows",
    "GELU, residual sums with norms, and float8 rounding as one Triton kernel each",
    _fuse_rows,
    after=("window_pad", "fused_attention", "int8", "fp8", "sparse24"),
    requires=("window_pad",),
    needs_cuda=True,
    capability=(8, 0),
    package="triton",
)
_BEFORE_QUANTIZED: Final = (*PRECISION, "window_pad", "fused_attention")
_BEFORE_COMPILED: Final = (
    *PRECISION,
    *(rewrite.name for rewrite in _REWRITES),
    "fused_attention",
    *_QUANTIZED,
    "fused_rows",
)


def _quantized(name: str, about: str, apply: Callable[[Sam], Sam]) -> Optimization:
    excludes = others(_QUANTIZED, name)
    return replace(GENERAL[name], about=about, apply=apply, after=_BEFORE_QUANTIZED, excludes=excludes)


def _compiled(name: str, about: str, apply: Callable[[Sam], Sam], *, needs_cuda: bool = False) -> Optimization:
    excludes = others(_COMPILED, name)
    return Optimization(
        name, about, apply, after=_BEFORE_COMPILED, excludes=excludes, needs_cuda=needs_cuda, compiles=True
    )


OPTIMIZATIONS: Final[Mapping[str, Optimization]] = {
    optimization.name: optimization
    for optimization in (
        general.TF32,
        _precision("bf16", "image encoder and mask decoder in bfloat16", torch.bfloat16),
        _precision("fp16", "image encoder and mask decoder in float16", torch.float16),
        *_REWRITES,
        _FUSED,
        _quantized("int8", "products of the encoder's blocks in int8, activations scaled row by row", quantize_int8),
        _quantized("fp8", "products of the encoder's blocks in float8, activations scaled row by row", quantize_float8),
        Optimization(
            "sparse24",
            "products of the encoder's MLPs pruned to 2:4 and run sparse",
            sparsify_24,
            after=_BEFORE_QUANTIZED,
            excludes=others(_QUANTIZED, "sparse24"),
            requires=("bf16", "fp16"),
            needs_cuda=True,
            capability=(8, 0),
            exact=False,
        ),
        _ROWS,
        _compiled("compile", "torch.compile of the image encoder's parts, mode default", compile_encoder),
        _compiled(
            "compile_max",
            "torch.compile of the image encoder's parts, mode max-autotune without CUDA graphs",
            partial(compile_encoder, mode="max-autotune-no-cudagraphs"),
        ),
        _compiled(
            "compile_graphs",
            "torch.compile of the image encoder's parts, replayed as one CUDA graph",
            graph_encoder,
            needs_cuda=True,
        ),
        _compiled("aoti", "image encoder from an AOTInductor package", package_encoder),
    )
}

_BEFORE_DECODER: Final = ("batched_decoder", "shared_decoder", *PRECISION)
# For all masks of an image, beside the others.
ALL_MASKS: Final[Mapping[str, Optimization]] = {
    optimization.name: optimization
    for optimization in (
        Optimization(
            "generator",
            "our mask generator: answers filtered while small, run lengths found on the device",
            _generating(ours=True),
        ),
        Optimization(
            "all_points",
            "every point of the grid decoded at once",
            _generating(all_points=True),
            after=("generator",),
            requires=("generator",),
        ),
        Optimization(
            "device_resize",
            "images resized on the device",
            _generating(on_device=True),
            after=("generator",),
            requires=("generator",),
            exact=False,
        ),
        Optimization(
            "compile_decoder",
            "torch.compile of the mask decoder",
            compile_decoder,
            after=_BEFORE_DECODER,
            excludes=("graph_decoder",),
            compiles=True,
        ),
        Optimization(
            "graph_decoder",
            "torch.compile of the mask decoder, replayed as one CUDA graph",
            graph_decoder,
            after=_BEFORE_DECODER,
            excludes=("compile_decoder",),
            needs_cuda=True,
            compiles=True,
        ),
    )
}

_EXACT: Final = ("bf16", "nosync", "patch_linear", "sdpa", "rel_pos", "window_pad", "batched_decoder")
_FUSED_EXACT: Final = (*_EXACT, "fused_attention", "fused_rows")
# Compiled from the second step on: what rel_pos and window_pad write and cut costs more than it saves unless a compiler
# fuses it.
LADDER: Final = (
    LadderRow("fp32 as published"),
    LadderRow("TF32", ("tf32",), alternative=True),
    LadderRow("bf16", ("bf16",)),
    LadderRow("nosync", ("bf16", "nosync")),
    LadderRow("compile", ("bf16", "nosync", "compile")),
    *(LadderRow(_EXACT[count - 1], (*_EXACT[:count], "compile")) for count in range(3, len(_EXACT) + 1)),
    LadderRow("fused_attention", (*_EXACT, "fused_attention", "compile")),
    LadderRow("fused_rows", (*_FUSED_EXACT, "compile")),
    LadderRow("CUDA graphs", (*_FUSED_EXACT, "compile_graphs")),
    LadderRow("max-autotune", (*_FUSED_EXACT, "compile_max"), alternative=True),
    LadderRow("AOTInductor", (*_FUSED_EXACT, "aoti"), alternative=True),
    LadderRow("int8", (*_EXACT, "fused_attention", "int8", "compile"), alternative=True),
    LadderRow("2:4 sparse", (*_EXACT, "fused_attention", "sparse24", "fused_rows", "compile"), alternative=True),
    LadderRow("fp8", (*_EXACT, "fused_attention", "fp8", "fused_rows", "compile_graphs")),
)
_OURS: Final = (*_FUSED_EXACT, "generator")
ALL_MASKS_LADDER: Final = (
    LADDER[0],
    LADDER[1],
    LadderRow("bf16", ("bf16",)),
    LadderRow("generator", ("bf16", "generator")),
    LadderRow("rewrites", (*_EXACT, "generator")),
    LadderRow("compile", (*_OURS, "compile", "compile_decoder")),
    LadderRow("all points", (*_OURS, "all_points", "compile", "compile_decoder")),
    LadderRow("CUDA graphs", (*_OURS, "all_points", "compile_graphs", "compile_decoder")),
    LadderRow("device resize", (*_OURS, "all_points", "device_resize", "compile_graphs", "compile_decoder")),
    LadderRow("decoder graph", (*_OURS, "all_points", "device_resize", "compile_graphs", "graph_decoder")),
    LadderRow(
        "fp16",
        ("fp16", *_OURS[1:], "all_points", "device_resize", "compile_graphs", "graph_decoder"),
        alternative=True,
    ),
    LadderRow(
        "TF32 in graphs",
        ("tf32", *_EXACT[1:], "generator", "all_points", "device_resize", "compile_graphs", "graph_decoder"),
        alternative=True,
    ),
)
_CPU_EXACT: Final = _EXACT[1:]
# What a server runs, by name: the first four as the server of sam2's example calls them, then ours.
MODES: Final[Mapping[str, tuple[str, ...]]] = {
    "baseline": ("generator",),
    "ao": (*_CPU_EXACT, "generator"),
    "fast": (*_CPU_EXACT, "generator", "all_points", "compile", "compile_decoder"),
    "furious": ("fp16", *_CPU_EXACT, "generator", "all_points", "device_resize", "compile", "compile_decoder"),
    "graphs": ("fp16", *_OURS[1:], "all_points", "device_resize", "compile_graphs", "compile_decoder"),
    "fp8": (
        *(*_EXACT, "fused_attention", "fp8", "fused_rows", "generator"),
        *("all_points", "device_resize", "compile_graphs", "compile_decoder"),
    ),
}
# What a CPU climbs in minutes: bfloat16 gains nothing on most of them, compiling takes the longest.
CPU_LADDER: Final = (
    LADDER[0],
    LadderRow("bf16", ("bf16",), alternative=True),
    *(LadderRow(_CPU_EXACT[count - 1], _CPU_EXACT[:count]) for count in (3, 5, 6)),
    LadderRow("compile", (*_CPU_EXACT, "compile")),
)
CPU_ALL_MASKS_LADDER: Final = (
    LADDER[0],
    LadderRow("generator", ("generator",)),
    LadderRow("rewrites", (*_CPU_EXACT, "generator")),
)
