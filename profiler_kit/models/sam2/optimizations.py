"""The optimizations of SAM 2: those that need no model applied to its parts, and how all masks are made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Final

import torch

from profiler_kit.models.sam import optimizations as sam1
from profiler_kit.models.sam2.decoder import share_decoder
from profiler_kit.models.sam2.float8 import use_float8
from profiler_kit.models.sam2.gelu import fuse_gelu
from profiler_kit.models.sam2.models import Sam2
from profiler_kit.models.sam2.products import use_products
from profiler_kit.workload import optimizations as general
from profiler_kit.workload.optimizations import FP8, PRECISION, LadderRow, Optimization, others

_COMPILED: Final = ("compile", "compile_max", "compile_graphs")


def encoder_dtype(sam: Sam2) -> torch.dtype:
    """The dtype the image encoder computes in; where its products are quantized, that of everything else."""
    dtype: torch.dtype = sam.image_encoder.no_memory_embedding.dtype
    return dtype


def _fuse_decoder(sam: Sam2) -> Sam2:
    from profiler_kit.models.sam2.fused_decoder import fuse_decoder  # needs Triton, which a CPU may lack

    return fuse_decoder(sam)


def _windows(sam: Sam2) -> Sam2:
    from profiler_kit.models.sam2.windows import use_window_attention  # needs Triton, which a CPU may lack

    return use_window_attention(sam)


def compile_encoder(sam: Sam2, *, mode: str | None = None) -> Sam2:
    """Compile the image encoder in place, as one graph for each batch size: its blocks differ from stage to stage."""
    sam.image_encoder.compile(dynamic=False, mode=mode)
    return sam


def _graph_encoder(sam: Sam2) -> Sam2:
    compile_encoder(sam)
    sam.image_encoder = general.Graphed(sam.image_encoder)  # type: ignore[assignment]  # it shares all but its forward
    return sam


def _compiled(name: str, about: str, apply: Callable[[Sam2], Sam2], *, needs_cuda: bool = False) -> Optimization:
    excludes = others(_COMPILED, name)
    return Optimization(
        name,
        about,
        apply,
        after=(*PRECISION, "fp8", "fused_gelu", "window_attention", "products"),
        excludes=excludes,
        needs_cuda=needs_cuda,
        compiles=True,
    )


OPTIMIZATIONS: Final[Mapping[str, Optimization]] = {
    optimization.name: optimization
    for optimization in (
        *(sam1.OPTIMIZATIONS[name] for name in PRECISION),
        replace(
            FP8,
            about="qkv and MLP of the encoder's blocks in float8, scaled by what their norms can give",
            apply=use_float8,
        ),
        Optimization(
            "fused_gelu",
            "GELU inside the encoder's matrix products, in its tanh form",
            fuse_gelu,
            after=PRECISION,
            excludes=("fp8",),
            exact=False,
        ),
        Optimization(
            "window_attention",
            "attention inside windows as one Triton kernel between qkv and proj, no window copied",
            _windows,
            after=(*PRECISION, "fp8", "fused_gelu"),
            requires=("bf16", "fp16"),
            needs_cuda=True,
            capability=(8, 0),
            package="triton",
        ),
        Optimization(
            "products",
            "the encoder's convolutions as matrix products, projections of projections as one",
            use_products,
            after=PRECISION,
        ),
        _compiled("compile", "torch.compile of the image encoder, mode default", compile_encoder),
        _compiled(
            "compile_max",
            "torch.compile of the image encoder, mode max-autotune without CUDA graphs",
            partial(compile_encoder, mode="max-autotune-no-cudagraphs"),
        ),
        _compiled(
            "compile_graphs",
            "torch.compile of the image encoder, replayed as one CUDA graph",
            _graph_encoder,
            needs_cuda=True,
        ),
        Optimization(
            "shared_decoder",
            "what all prompts of an image share computed once in the mask decoder",
            share_decoder,
            after=PRECISION,
        ),
        Optimization(
            "fused_decoder",
            "the mask decoder's attentions, norms and masks of many prompts as three Triton kernels",
            _fuse_decoder,
            after=("shared_decoder",),
            requires=("shared_decoder",),
            needs_cuda=True,
            capability=(8, 0),
            package="triton",
        ),
        *(
            replace(sam1.ALL_MASKS[name], after=(*sam1.ALL_MASKS[name].after, "fused_decoder"))
            for name in ("compile_decoder", "graph_decoder")
        ),
    )
}
# For all masks of an image, beside the others.
ALL_MASKS: Final[Mapping[str, Optimization]] = {
    name: replace(sam1.ALL_MASKS[name], after=(), requires=()) for name in ("all_points", "device_resize")
}
_ENCODER: Final = ("bf16", "fused_gelu", "window_attention", "products")
_BASE: Final = LadderRow("fp32 as published")
_TF32: Final = LadderRow("TF32", ("tf32",), alternative=True)
LADDER: Final = (
    _BASE,
    _TF32,
    LadderRow("fp16", ("fp16",), alternative=True),
    LadderRow("bf16", ("bf16",)),
    LadderRow("compile", ("bf16", "compile")),
    LadderRow("CUDA graphs", ("bf16", "compile_graphs")),
    LadderRow("fused GELU", ("bf16", "fused_gelu", "compile_graphs")),
    LadderRow("windows", ("bf16", "fused_gelu", "window_attention", "compile_graphs")),
    LadderRow("products", (*_ENCODER, "compile_graphs")),
    LadderRow("decoder compiled", (*_ENCODER, "compile_graphs", "compile_decoder")),
    LadderRow("max-autotune", ("bf16", "compile_max", "compile_decoder"), alternative=True),
    LadderRow("fp8", ("bf16", "fp8", "compile_graphs", "compile_decoder"), alternative=True),
)
_BOTH: Final = ("compile", "compile_decoder")
_GRAPHS: Final = ("compile_graphs", "compile_decoder")
_SHARED: Final = ("all_points", "device_resize", "shared_decoder")
ALL_MASKS_LADDER: Final = (
    _BASE,
    _TF32,
    LadderRow("bf16", ("bf16",)),
    LadderRow("compile", ("bf16", *_BOTH)),
    LadderRow("all points", ("bf16", "all_points", *_BOTH)),
    LadderRow("CUDA graphs", ("bf16", "all_points", *_GRAPHS)),
    LadderRow("device resize", ("bf16", "all_points", "device_resize", *_GRAPHS)),
    LadderRow("shared decoder", ("bf16", *_SHARED, *_GRAPHS)),
    LadderRow("fp16", ("fp16", *_SHARED, *_GRAPHS), alternative=True),
    LadderRow("decoder graph", ("bf16", *_SHARED, "compile_graphs", "graph_decoder")),
    LadderRow("fused GELU", ("bf16", "fused_gelu", *_SHARED, "compile_graphs", "graph_decoder")),
    LadderRow("windows", ("bf16", "fused_gelu", "window_attention", *_SHARED, "compile_graphs", "graph_decoder")),
    LadderRow("products", (*_ENCODER, *_SHARED, "compile_graphs", "graph_decoder")),
    LadderRow("fused decoder", (*_ENCODER, *_SHARED, "fused_decoder", "compile_graphs", "graph_decoder")),
    LadderRow("fp8", ("bf16", "fp8", *_SHARED, "compile_graphs", "graph_decoder"), alternative=True),
)
# What a server runs, by name, as SAM's.
MODES: Final[Mapping[str, tuple[str, ...]]] = {
    "baseline": (),
    "ao": ("shared_decoder",),
    "fast": ("all_points", "shared_decoder", *_BOTH),
    "furious": ("fp16", *_SHARED, *_BOTH),
    "graphs": (*_ENCODER, *_SHARED, "fused_decoder", "compile_graphs", "graph_decoder"),
    "fp8": ("bf16", "fp8", *_SHARED, "compile_graphs", "graph_decoder"),
}
CPU_LADDER: Final = (_BASE, LadderRow("bf16", ("bf16",), alternative=True), LadderRow("compile", ("compile",)))
CPU_ALL_MASKS_LADDER: Final = (
    _BASE,
    LadderRow("all points", ("all_points",)),
    LadderRow("shared decoder", ("all_points", "shared_decoder")),
)
