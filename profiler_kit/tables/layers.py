"""Times of layers at each batch size, by layer and by kind, and how much of the forward they explain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from profiler_kit.analyses.layers.choice import best_depth, layers_at_depth
from profiler_kit.analyses.layers.totals import LAYER_COVERAGE, LAYER_KINDS, LAYER_TOTALS, layer_kinds
from profiler_kit.table import Option, Table

if TYPE_CHECKING:
    import pandas as pd

DEPTH: Final = Option(
    "depth", None, "Layers this deep in the model; the fullest picture's where it is left out.", "count", least=0
)


def _totals(layers: Any, depth: int | None) -> pd.DataFrame:
    totals: pd.DataFrame = layers.totals
    if depth is None:
        return totals
    return totals[totals["layer"].isin(layers_at_depth(totals, depth))].reset_index(drop=True)


def _kinds(layers: Any, depth: int | None) -> pd.DataFrame:
    totals = layers.totals
    return layer_kinds(totals, layers_at_depth(totals, best_depth(totals) if depth is None else depth))


TABLES: Final = (
    Table(
        "layer_totals",
        "layers",
        "layers at each batch size",
        LAYER_TOTALS,
        _totals,
        options=(Option("depth", None, "Layers this deep in the model; all where it is left out.", "count", least=0),),
        order=("layer", "type", "variant", "batch_size", "share", "per_image_ns", "efficiency", "median_ns"),
    ),
    Table(
        "layer_kinds",
        "layers",
        "kinds of layers at each batch size",
        LAYER_KINDS,
        _kinds,
        options=(DEPTH,),
        order=("kind", "batch_size", "share", "layers", "per_image_ns", "one_per_image_ns"),
    ),
    Table(
        "layer_coverage",
        "layers",
        "how much of the forward the layers explain",
        LAYER_COVERAGE,
        lambda layers: layers.coverage,
    ),
)
