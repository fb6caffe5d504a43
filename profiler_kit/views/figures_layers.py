"""Plotly figures of layers against the batch size: LAYER_TOTALS in, a heat map or lines out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go

from profiler_kit.schemas import LAYER_TOTALS
from profiler_kit.views.figures import GRID, MARGIN, escape
from profiler_kit.views.palette import HUES, INKS, NEUTRAL, SCALE_DARK, SCALE_LIGHT, ink_on
from profiler_kit.views.text import fmt_all_ns, ns_in, time_unit

Nanos = npt.NDArray[np.float64]


def layer_heatmap(totals: pd.DataFrame, layers: Sequence[str], *, dark: bool = False) -> go.Figure:
    """Milliseconds per image of each layer (down, in the given order) at each batch size (across).

    Takes LAYER_TOTALS. The longer the darker (on a dark page: the brighter); a layer not measured at a batch size is
    blank. Names and sizes are categories, also where they look like numbers.
    """
    LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    wide = rows.pivot_table(index="layer", columns="batch_size", values="per_image_ns", sort=True).reindex(list(layers))
    nanos = wide.to_numpy(np.float64)
    unit = time_unit(np.nan_to_num(nanos).ravel())
    label = {layer: layer_label(layer, variant) for layer, variant in zip(rows["layer"], rows["variant"], strict=True)}
    batches, names = [str(batch) for batch in wide.columns], [label.get(layer, layer) for layer in wide.index]
    scale = SCALE_DARK if dark else SCALE_LIGHT
    figure = go.Figure(
        go.Heatmap(
            z=np.vectorize(lambda ns: ns_in(ns, unit), otypes=[float])(nanos),
            x=batches,
            y=names,
            zmin=0,
            colorscale=[[0, scale[0]], [0.5, scale[1]], [1, scale[2]]],
            xgap=2,
            ygap=2,
            colorbar={"title": {"text": f"{unit} per image", "side": "right"}, "thickness": 10, "outlinewidth": 0},
            hovertemplate=f"<b>%{{y}}</b><br>batch %{{x}}: %{{z:,.3f}} {unit} per image<extra></extra>",
        )
    )
    _write_cells(figure, nanos, batches, names, scale)
    figure.update_layout(
        height=60 + 25 * max(3, len(wide)),
        margin=MARGIN,
        xaxis={
            "title": "batch size",
            "type": "category",
            "side": "top",
            "fixedrange": True,
            "showgrid": False,
            "tickfont": {"size": 13},
        },
        showlegend=False,
        yaxis={"type": "category", "autorange": "reversed", "fixedrange": True, "showgrid": False, "automargin": True},
    )
    return figure


def _write_cells(
    figure: go.Figure, nanos: Nanos, batches: Sequence[str], names: Sequence[str], scale: Sequence[str]
) -> None:
    """The value of each cell in the ink that reads best on its colour; a heat map's own text takes grey in between."""
    known = [(row, column) for row, column in np.argwhere(np.isfinite(nanos)).tolist()]
    shown = dict(zip(known, fmt_all_ns([float(nanos[cell]) for cell in known]), strict=True))
    most = max((float(nanos[cell]) for cell in known), default=0.0) or 1.0
    inks = {cell: ink_on(scale, float(nanos[cell]) / most) for cell in known}
    for ink in INKS:
        mine = [cell for cell in known if inks[cell] == ink]
        if mine:
            figure.add_scatter(
                x=[batches[column] for _, column in mine],
                y=[names[row] for row, _ in mine],
                text=[shown[cell] for cell in mine],
                mode="text",
                textfont={"size": 12, "color": ink},
                hoverinfo="skip",
            )


def layer_lines(totals: pd.DataFrame, layers: Sequence[str], *, efficiency: bool = False) -> go.Figure:
    """Time per image (or scaling efficiency) of some layers against the batch size. Takes LAYER_TOTALS.

    Windowed and global blocks get different marks; the whisker is the interquartile range.
    """
    LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    unit = time_unit(rows["per_image_ns"])
    figure = go.Figure()
    for number, layer in enumerate(layers):
        mine = rows[rows["layer"] == layer].sort_values("batch_size")
        if mine.empty:
            continue
        variant = str(mine["variant"].iloc[0])
        values = mine["efficiency"] if efficiency else mine["per_image_ns"].map(lambda ns: ns_in(ns, unit))
        quartiles = None
        if not efficiency:
            high = ((mine["q3_ns"] - mine["median_ns"]) / mine["batch_size"]).map(lambda ns: ns_in(ns, unit))
            low = ((mine["median_ns"] - mine["q1_ns"]) / mine["batch_size"]).map(lambda ns: ns_in(ns, unit))
            quartiles = {"type": "data", "symmetric": False, "array": high, "arrayminus": low, "thickness": 1}
        figure.add_scatter(
            x=mine["batch_size"].astype(str),
            y=values,
            error_y=quartiles,
            mode="lines+markers",
            name=layer_label(layer, variant),
            line={"color": HUES[number % len(HUES)], "dash": "dash" if "global" in variant else "solid", "width": 2},
            marker={"symbol": "diamond" if "global" in variant else "circle", "size": 8},
            hovertemplate="batch %{x}: %{y:,.3f}" + ("" if efficiency else f" {unit} per image"),
        )
    if efficiency:
        figure.add_hline(y=1.0, line={"color": NEUTRAL, "width": 1, "dash": "dot"})
    figure.update_layout(
        height=360,
        margin=MARGIN,
        hovermode="x unified",
        legend={"orientation": "h", "y": -0.22, "yanchor": "top", "x": 0},
        xaxis={"title": "batch size", "type": "category", "fixedrange": True, "showgrid": False},
        yaxis={
            "title": "efficiency" if efficiency else f"{unit} per image",
            "rangemode": "tozero",
            "tickformat": ",",
            "gridcolor": GRID,
            "fixedrange": True,
        },
    )
    return figure


def layer_label(layer: str, variant: str) -> str:
    """A layer's name with what sets it apart: `blocks.2 · global`."""
    return f"{escape(layer, 60)} · {escape(variant, 20)}" if variant else escape(layer, 60)
