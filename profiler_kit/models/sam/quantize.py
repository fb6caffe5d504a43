"""Quantize or prune the products of the image encoder's blocks; these change the result a little."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import torch

from profiler_kit.workload.quantize import Float8Linear, Int8Linear

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

Tensor = torch.Tensor
_PRODUCTS: Final = ("attn.qkv", "attn.proj", "mlp.lin1", "mlp.lin2")


def prune_24(weight: Tensor) -> Tensor:
    """float[N, K] with the two smaller of every four neighbours in a row set to zero (the 2:4 pattern)."""
    groups = weight.reshape(-1, 4)
    keep = torch.zeros_like(groups, dtype=torch.bool).scatter_(1, groups.abs().topk(2, dim=1).indices, True)
    return torch.where(keep, groups, 0).view_as(weight)


def quantize_int8(sam: Sam) -> Sam:
    """All four products of every block in int8."""
    return _replace(sam, _PRODUCTS, Int8Linear)


def quantize_float8(sam: Sam) -> Sam:
    """All four products of every block in float8 with row-wise scales."""
    return _replace(sam, _PRODUCTS, Float8Linear)


def sparsify_24(sam: Sam) -> Sam:
    """Both products of every MLP (two thirds of all) pruned to 2:4 by size, without fine-tuning, and run sparse."""

    def sparse(linear: torch.nn.Linear) -> torch.nn.Linear:
        pruned = torch.sparse.to_sparse_semi_structured(prune_24(linear.weight.detach()))
        linear.weight = torch.nn.Parameter(pruned, requires_grad=False)
        return linear

    return _replace(sam, ("mlp.lin1", "mlp.lin2"), sparse)


def _replace(sam: Sam, names: tuple[str, ...], change: Callable[[torch.nn.Linear], torch.nn.Module]) -> Sam:
    for block in sam.image_encoder.blocks:
        for name in names:
            home, _, leaf = name.rpartition(".")
            owner = block.get_submodule(home)
            setattr(owner, leaf, change(getattr(owner, leaf)))
    return sam
