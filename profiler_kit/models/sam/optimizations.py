"""Named optimizations: each takes a SAM and returns a faster one, in an order that is checked."""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.errors import OptionError, WorkloadError
from profiler_kit.models.sam.attention import use_linear_patches, use_rel_pos, use_sdpa, use_window_pad
from profiler_kit.models.sam.compiled import compile_encoder, graph_encoder, package_encoder
from profiler_kit.models.sam.decoder import batch_decoder
from profiler_kit.models.sam.precision import encoder_dtype, reduce_precision, tf32_matmul
from profiler_kit.models.sam.quantize import quantize_float8, quantize_int8, sparsify_24
from profiler_kit.models.sam.sync_free import remove_synchronisation

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

__all__ = [
    "LADDER",
    "OPTIMIZATIONS",
    "Optimization",
    "Rung",
    "compile_encoder",
    "encoder_dtype",
    "layer_optimizations",
    "optimized",
    "parse_optimizations",
    "reduce_precision",
    "unmet",
]

_PRECISION: Final = ("tf32", "bf16", "fp16")
_QUANTIZED: Final = ("int8", "fp8", "sparse24")
_COMPILED: Final = ("compile", "compile_max", "compile_graphs", "aoti")


@dataclass(frozen=True)
class Optimization:
    """One named optimization.

    after: those of these that are chosen too must come before it. excludes: cannot be chosen with it. requires: one
    of these must be chosen too. capability: the least CUDA compute capability. package: has to be importable.
    exact: gives the published result up to the rounding of the dtype in use. compiles: what it rewrites shows no
    layers and compiles at its first call. apply: changes the model it is given and returns it. settings: opens the
    torch settings it needs and puts them back.
    """

    name: str
    about: str
    apply: Callable[[Sam], Sam]
    after: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    needs_cuda: bool = False
    capability: tuple[int, int] | None = None
    package: str | None = None
    exact: bool = True
    compiles: bool = False
    settings: Callable[[], AbstractContextManager[None]] = nullcontext


@dataclass(frozen=True)
class Rung:
    """One row of the ladder: optimizations in order, none as published.

    alternative: another end of the row before it, not a step on the way to the next.
    """

    label: str
    optimizations: tuple[str, ...] = ()
    alternative: bool = False

    def __str__(self) -> str:
        return ",".join(self.optimizations)


def parse_optimizations(text: str) -> tuple[Optimization, ...]:
    """Read names separated by commas, in the order to apply them; "" is none.

    Raises OptionError for an unknown name, a name given twice, two that exclude each other, a wrong order, or one
    that another requires and that is missing.
    """
    names = [name.strip() for name in text.split(",")] if text.strip() else []
    for position, name in enumerate(names):
        optimization = OPTIMIZATIONS.get(name)
        if optimization is None:
            raise OptionError(
                f"--optimizations {text}: {name!r} is not known, want names from {', '.join(OPTIMIZATIONS)} "
                "separated by commas."
            )
        if name in names[:position]:
            raise OptionError(f"--optimizations {text}: {name} stands there twice, want it once.")
        clash = next((other for other in optimization.excludes if other in names), None)
        if clash is not None:
            raise OptionError(f"--optimizations {text}: {name} and {clash} exclude each other, want one of them.")
        late = next((other for other in optimization.after if other in names[position + 1 :]), None)
        if late is not None:
            raise OptionError(f"--optimizations {text}: {late} must come before {name}. Change the order.")
        if optimization.requires and not set(optimization.requires) & set(names):
            wanted = " or ".join(optimization.requires)
            raise OptionError(f"--optimizations {text}: {name} needs {wanted} before it. Add it.")
    return tuple(OPTIMIZATIONS[name] for name in names)


def unmet(optimization: Optimization, device: torch.device) -> str | None:
    """What the optimization needs and this machine has not, with what was found; None when it can run on `device`."""
    if optimization.needs_cuda and device.type != "cuda":
        return f"needs a CUDA device, found {device}"
    if optimization.capability is not None and device.type == "cuda":
        found = torch.cuda.get_device_capability(device)
        if found < optimization.capability:
            want, have = (".".join(map(str, version)) for version in (optimization.capability, found))
            name = torch.cuda.get_device_name(device)
            return f"needs a GPU of compute capability {want} or more, found {name} with {have}"
    if optimization.package is not None and importlib.util.find_spec(optimization.package) is None:
        return f"needs the package {optimization.package}, which is not installed"
    return None


@contextlib.contextmanager
def optimized(sam: Sam, chosen: Sequence[Optimization], device: torch.device) -> Iterator[Sam]:
    """Apply the chosen ones in order and give the model, with their torch settings in force inside the block.

    The settings are put back at the end; the model stays changed (a cast loses bits that cannot come back).
    Raises WorkloadError when one needs hardware or a package that is not here, before anything is changed.
    """
    for optimization in chosen:
        problem = unmet(optimization, device)
        if problem is not None:
            hint = " or use --device cuda" if device.type != "cuda" and optimization.needs_cuda else ""
            raise WorkloadError(f"--optimizations {optimization.name}: {problem}. Leave it out{hint}.")
    with contextlib.ExitStack() as stack:
        for optimization in chosen:
            stack.enter_context(optimization.settings())
            sam = optimization.apply(sam)
        yield sam


def layer_optimizations(chosen: Sequence[Optimization]) -> tuple[tuple[Optimization, ...], tuple[str, ...]]:
    """Those to time layers with, and a note when that leaves one out: a compiled encoder shows no layers inside."""
    kept = tuple(optimization for optimization in chosen if not optimization.compiles)
    if len(kept) == len(chosen):
        return kept, ()
    left_out = ", ".join(optimization.name for optimization in chosen if optimization.compiles)
    names = ", ".join(optimization.name for optimization in kept) or "no optimization"
    reason = "because a compiled encoder shows no layers inside"
    return kept, (f"layers: timed without {left_out} (with {names}), {reason}",)


def _unchanged(sam: Sam) -> Sam:
    return sam


def _fuse_attention(sam: Sam) -> Sam:
    from profiler_kit.models.sam.fused_attention import use_fused_attention  # needs Triton, which a CPU may lack

    return use_fused_attention(sam)


def _fuse_rows(sam: Sam) -> Sam:
    from profiler_kit.models.sam.fused_rows import use_fused_rows

    return use_fused_rows(sam)


def _others(names: tuple[str, ...], name: str) -> tuple[str, ...]:
    return tuple(other for other in names if other != name)


def _precision(name: str, about: str, dtype: torch.dtype) -> Optimization:
    apply = partial(reduce_precision, dtype=dtype)
    return Optimization(name, about, apply, excludes=_others(_PRECISION, name), exact=False)


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
_BEFORE_QUANTIZED: Final = (*_PRECISION, "window_pad", "fused_attention")
_BEFORE_COMPILED: Final = (
    *_PRECISION,
    *(rewrite.name for rewrite in _REWRITES),
    "fused_attention",
    *_QUANTIZED,
    "fused_rows",
)


def _compiled(name: str, about: str, apply: Callable[[Sam], Sam], *, needs_cuda: bool = False) -> Optimization:
    excludes = _others(_COMPILED, name)
    return Optimization(
        name, about, apply, after=_BEFORE_COMPILED, excludes=excludes, needs_cuda=needs_cuda, compiles=True
    )


OPTIMIZATIONS: Final[Mapping[str, Optimization]] = {
    optimization.name: optimization
    for optimization in (
        Optimization(
            "tf32",
            "float32 matrix products on TF32 tensor cores",
            _unchanged,
            excludes=_others(_PRECISION, "tf32"),
            needs_cuda=True,
            capability=(8, 0),
            exact=False,
            settings=tf32_matmul,
        ),
        _precision("bf16", "image encoder and mask decoder in bfloat16", torch.bfloat16),
        _precision("fp16", "image encoder and mask decoder in float16", torch.float16),
        *_REWRITES,
        _FUSED,
        Optimization(
            "int8",
            "products of the encoder's blocks in int8, activations scaled row by row",
            quantize_int8,
            after=_BEFORE_QUANTIZED,
            excludes=_others(_QUANTIZED, "int8"),
            exact=False,
        ),
        Optimization(
            "fp8",
            "products of the encoder's blocks in float8, activations scaled row by row",
            quantize_float8,
            after=_BEFORE_QUANTIZED,
            excludes=_others(_QUANTIZED, "fp8"),
            requires=("bf16",),
            needs_cuda=True,
            capability=(8, 9),
            exact=False,
        ),
        Optimization(
            "sparse24",
            "products of the encoder's MLPs pruned to 2:4 and run sparse",
            sparsify_24,
            after=_BEFORE_QUANTIZED,
            excludes=_others(_QUANTIZED, "sparse24"),
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

_EXACT: Final = ("bf16", "nosync", "patch_linear", "sdpa", "rel_pos", "window_pad", "batched_decoder")
_FUSED_EXACT: Final = (*_EXACT, "fused_attention", "fused_rows")
# Compiled from the second step on: what rel_pos and window_pad write and cut costs more than it saves unless a compiler
# fuses it.
LADDER: Final = (
    Rung("fp32 as published"),
    Rung("TF32", ("tf32",), alternative=True),
    Rung("bf16", ("bf16",)),
    Rung("nosync", ("bf16", "nosync")),
    Rung("compile", ("bf16", "nosync", "compile")),
    *(Rung(_EXACT[count - 1], (*_EXACT[:count], "compile")) for count in range(3, len(_EXACT) + 1)),
    Rung("fused_attention", (*_EXACT, "fused_attention", "compile")),
    Rung("fused_rows", (*_FUSED_EXACT, "compile")),
    Rung("CUDA graphs", (*_FUSED_EXACT, "compile_graphs")),
    Rung("max-autotune", (*_FUSED_EXACT, "compile_max"), alternative=True),
    Rung("AOTInductor", (*_FUSED_EXACT, "aoti"), alternative=True),
    Rung("int8", (*_EXACT, "fused_attention", "int8", "compile"), alternative=True),
    Rung("2:4 sparse", (*_EXACT, "fused_attention", "sparse24", "fused_rows", "compile"), alternative=True),
    Rung("fp8", (*_EXACT, "fused_attention", "fp8", "fused_rows", "compile_graphs")),
)
