"""Times of layers at each batch size, by layer and by kind, and how much of the forward they explain."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from profiler_kit.analyses.layers.totals import (
    LAYER_COVERAGE,
    LAYER_KINDS,
    LAYER_TOTALS,
    best_depth,
    layer_kinds,
    layers_at_depth,
)
from profiler_kit.table import Option, Table

DEPTH: Final = Option(
    "depth", None, "Layers this deep in the model; the fullest picture's where it is left out.", "count", least=0
)


DEEPEST: Final = Option(
    "deepest",
    None,
    "Layers down to this depth: 1 parts, 2 blocks, 3 what is in a block.",
    "count",
    least=0,
    suggest="2",
)


def _totals(layers: Any, depth: int | None, deepest: int | None) -> pd.DataFrame:
    """The layers in the order of the model, each with its batch sizes."""
    totals: pd.DataFrame = layers.totals
    order = {layer: number for number, layer in enumerate(dict.fromkeys(totals["layer"]))}
    if depth is not None:
        totals = totals[totals["layer"].isin(layers_at_depth(totals, depth))]
    if deepest is not None:
        totals = totals[totals["depth"] <= deepest]
    place = totals["layer"].map(order)
    return totals.assign(place=place).sort_values(["place", "batch_size"], kind="stable", ignore_index=True)


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
        options=(
            Option("depth", None, "Layers this deep in the model; all where it is left out.", "count", least=0),
            DEEPEST,
        ),
        order=("layer", "batch_size", "per_image_ns", "share", "efficiency", "type", "variant", "median_ns"),
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
