"""The workload profiler_kit ships with: Segment Anything and the optimizations that make it fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiler_kit.models.sam.fast import sam_model_fast_registry

__all__ = ["sam_model_fast_registry"]


def __getattr__(name: str) -> object:  # on first use, so that importing a part of the package needs no torch
    if name == "sam_model_fast_registry":
        from profiler_kit.models.sam.fast import sam_model_fast_registry

        return sam_model_fast_registry
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
