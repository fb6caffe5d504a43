"""Named optimizations: each takes a SAM and returns a faster one, in an order that is checked."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.errors import OptionError, WorkloadError

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


@dataclass(frozen=True)
class Optimization:
    """One named optimization.

    after: those of these that are chosen too must come before it. excludes: cannot be chosen with it.
    apply: changes the model it is given and returns it. settings: opens the torch settings it needs and puts
    them back.
    """

    name: str
    about: str
    apply: Callable[[Sam], Sam]
    after: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    needs_cuda: bool = False
    settings: Callable[[], AbstractContextManager[None]] = nullcontext


def parse_optimizations(text: str) -> tuple[Optimization, ...]:
    """Read names separated by commas, in the order to apply them; "" is none.

    Raises OptionError for an unknown name, a name given twice, two that exclude each other, or a wrong order.
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
    return tuple(OPTIMIZATIONS[name] for name in names)


@contextlib.contextmanager
def optimized(sam: Sam, chosen: Sequence[Optimization], device: torch.device) -> Iterator[Sam]:
    """Apply the chosen ones in order and give the model, with their torch settings in force inside the block.

    The settings are put back at the end; the model stays changed (a cast loses bits that cannot come back).
    Raises WorkloadError when one needs a CUDA device and `device` is none.
    """
    for optimization in chosen:
        if optimization.needs_cuda and device.type != "cuda":
            raise WorkloadError(
                f"--optimizations {optimization.name}: needs a CUDA device, found {device}. Leave it out or use "
                "--device cuda."
            )
    with contextlib.ExitStack() as stack:
        for optimization in chosen:
            stack.enter_context(optimization.settings())
            sam = optimization.apply(sam)
        yield sam


def layer_optimizations(chosen: Sequence[Optimization]) -> tuple[tuple[Optimization, ...], tuple[str, ...]]:
    """Those to time layers with, and a note when that leaves one out: a compiled encoder shows no layers inside."""
    kept = tuple(optimization for optimization in chosen if optimization.name != "compile")
    if len(kept) == len(chosen):
        return kept, ()
    names = ", ".join(optimization.name for optimization in kept) or "no optimization"
    return kept, (f"layers: timed without compile (with {names}), because a compiled encoder shows no layers inside",)


def compile_encoder(sam: Sam, *, backend: str = "inductor") -> Sam:
    """Put torch.compile (mode default, static shapes) around the image encoder; it compiles at the first call."""
    sam.image_encoder = torch.compile(sam.image_encoder, backend=backend, dynamic=False)
    return sam


def reduce_precision(sam: Sam, dtype: torch.dtype) -> Sam:
    """Run the image encoder and the mask decoder in `dtype`.

    The prompt encoder stays float32: it multiplies float32 coordinates with its Gaussian matrix. Inputs of the
    two parts are cast as they enter; masks and IoU predictions leave in float32, so postprocessing is unchanged.
    """
    for module in (sam.image_encoder, sam.mask_decoder):
        module.to(dtype)
        module.register_forward_pre_hook(partial(_cast_inputs, dtype), with_kwargs=True)
    sam.mask_decoder.register_forward_hook(_cast_outputs)
    return sam


def encoder_dtype(sam: Sam) -> torch.dtype:
    """The dtype the image encoder computes in."""
    dtype: torch.dtype = next(sam.image_encoder.parameters()).dtype
    return dtype


def _cast_inputs(
    dtype: torch.dtype, _module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    return tuple(_cast(value, dtype) for value in args), {key: _cast(value, dtype) for key, value in kwargs.items()}


def _cast_outputs(_module: torch.nn.Module, _args: object, output: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_cast(value, torch.float32) for value in output)


def _cast(value: object, dtype: torch.dtype) -> object:
    return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value


@contextlib.contextmanager
def _tf32_matmul() -> Iterator[None]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _unchanged(sam: Sam) -> Sam:
    return sam


OPTIMIZATIONS: Final[Mapping[str, Optimization]] = {
    optimization.name: optimization
    for optimization in (
        Optimization(
            "tf32",
            "float32 matrix products on TF32 tensor cores",
            _unchanged,
            excludes=("bf16", "fp16"),
            needs_cuda=True,
            settings=_tf32_matmul,
        ),
        Optimization(
            "bf16",
            "image encoder and mask decoder in bfloat16",
            partial(reduce_precision, dtype=torch.bfloat16),
            excludes=("tf32", "fp16"),
        ),
        Optimization(
            "fp16",
            "image encoder and mask decoder in float16",
            partial(reduce_precision, dtype=torch.float16),
            excludes=("tf32", "bf16"),
        ),
        Optimization(
            "compile",
            "torch.compile of the image encoder, mode default",
            compile_encoder,
            after=("tf32", "bf16", "fp16"),
        ),
    )
}
