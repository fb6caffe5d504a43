"""Which layers of a sweep to show, the same wherever layers are shown."""

from __future__ import annotations

from typing import Final

import pandas as pd

from profiler_kit.analyses.layers.totals import LAYER_TOTALS

ROWS: Final = 40  # a heat map taller than this is no picture any more
_ENOUGH: Final = 20


def layers_at_depth(totals: pd.DataFrame, depth: int) -> list[str]:
    """The layers of that depth, and those above it that hold no timed layer, in the order of the model."""
    LAYER_TOTALS.check(totals)
    parents = set(totals["parent"])
    layers = totals.drop_duplicates("layer")
    wanted = (layers["depth"] == depth) | ((layers["depth"] < depth) & ~layers["layer"].isin(parents))
    return [str(name) for name in layers.loc[wanted, "layer"]]


def best_depth(totals: pd.DataFrame) -> int:
    """The depth whose layers make the fullest picture that still is one; 0 when there are no layers."""
    depths = sorted(int(depth) for depth in totals["depth"].unique())
    count = {depth: len(layers_at_depth(totals, depth)) for depth in depths}
    fitting = [depth for depth in depths if count[depth] <= ROWS]
    return max(fitting, default=depths[0] if depths else 0, key=lambda depth: (min(count[depth], _ENOUGH), -depth))


def telling_layers(totals: pd.DataFrame, names: list[str], most: int = 5) -> list[str]:
    """One layer of each kind, the longest first: a windowed block and a global one say more than two of a kind."""
    rows = totals[totals["layer"].isin(names)].sort_values("per_image_ns", ascending=False)
    return [str(name) for name in rows.drop_duplicates(["type", "variant"])["layer"].unique()[:most]]
