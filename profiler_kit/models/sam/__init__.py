"""The workload profiler_kit ships with: Segment Anything and the optimizations that make it fast."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from profiler_kit.models.sam.fast import (
        SamAutomaticMaskGenerator,
        SamPredictor,
        sam_model_fast_registry,
        sam_model_registry,
    )

__all__ = ["SamAutomaticMaskGenerator", "SamPredictor", "sam_model_fast_registry", "sam_model_registry"]


def __getattr__(name: str) -> object:  # on first use, so that importing a part of the package needs no torch
    if name in __all__:
        from profiler_kit.models.sam import fast

        return getattr(fast, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
