"""Run a SAM in reduced precision: bfloat16 or float16 modules, TF32 products (SAM -> SAM)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from segment_anything.modeling import Sam


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
    """The dtype the image encoder computes in; where its products are quantized, that of everything else."""
    dtype: torch.dtype = sam.image_encoder.pos_embed.dtype
    return dtype


@contextlib.contextmanager
def tf32_matmul() -> Iterator[None]:
    """float32 matrix products on TF32 tensor cores inside the block."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _cast_inputs(
    dtype: torch.dtype, _module: torch.nn.Module, args: tuple[object, ...], kwargs: dict[str, object]
) -> tuple[tuple[object, ...], dict[str, object]]:
    return tuple(_cast(value, dtype) for value in args), {key: _cast(value, dtype) for key, value in kwargs.items()}


def _cast_outputs(_module: torch.nn.Module, _args: object, output: tuple[object, ...]) -> tuple[object, ...]:
    return tuple(_cast(value, torch.float32) for value in output)


def _cast(value: object, dtype: torch.dtype) -> object:
    if not isinstance(value, torch.Tensor) or not value.is_floating_point():
        return value
    if value.dim() and len(value) > 1 and value.stride(0) == 0:  # one row seen many times stays one row
        return value[:1].to(dtype).expand_as(value)
    return value.to(dtype)
