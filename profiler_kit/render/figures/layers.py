"""Plotly figures of layers against the batch size: a heat map, lines, and what each kind of layer holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from profiler_kit.analyses.layers.totals import LAYER_KINDS, LAYER_TOTALS
from profiler_kit.render.figures.style import GRID, LEGEND_BELOW, LETTER_PX, MARGIN, NAMES, escape, legend_px
from profiler_kit.text import fmt_all_ns, fmt_ns, fmt_percent, ns_in, time_unit
from profiler_kit.timeline.palette import HUES, INKS, NEUTRAL, SCALE_DARK, SCALE_LIGHT, ink_on

_AXIS_PX: Final = 46
_KINDS_AXIS_PX: Final = 36
KINDS: Final = 8  # with a colour of their own; the rest together

Nanos = npt.NDArray[np.float64]


def layer_heatmap(totals: pd.DataFrame, layers: Sequence[str], *, dark: bool = False) -> go.Figure:
    """Milliseconds per item of each layer (down, in the given order) at each batch size (across).

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
            showscale=False,  # each cell says its value
            hovertemplate=f"<b>%{{y}}</b><br>batch %{{x}}: %{{z:,.3f}} {unit} per item<extra></extra>",
        )
    )
    _write_cells(figure, nanos, batches, names, scale)
    figure.update_layout(
        height=_AXIS_PX + 25 * max(3, len(wide)),
        margin={
            **MARGIN,
            "l": 12 + LETTER_PX * max(map(len, names), default=0),
            "t": _AXIS_PX,
            "autoexpand": False,
        },
        xaxis={
            "title": "batch size",
            "type": "category",
            "range": [-0.5, len(batches) - 0.5],
            "side": "top",
            "fixedrange": True,
            "showgrid": False,
            "tickfont": {"size": 13},
        },
        showlegend=False,
        yaxis={
            "type": "category",
            "range": [len(wide) - 0.5, -0.5],
            "fixedrange": True,
            "showgrid": False,
            "tickfont": {"size": 12},
        },
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


def layer_lines(totals: pd.DataFrame, layers: Sequence[str]) -> go.Figure:
    """Some layers against the batch size: time per item on the left, scaling efficiency on the right.

    Takes LAYER_TOTALS. Windowed and global blocks get different marks; the whisker is the interquartile range. The
    efficiency is the time per item at the smallest batch over the time per item here.
    """
    LAYER_TOTALS.check(totals)
    rows = totals[totals["layer"].isin(list(layers))]
    unit = time_unit(rows["per_image_ns"])
    figure = make_subplots(rows=1, cols=2, horizontal_spacing=0.14)
    labels = []
    for number, layer in enumerate(layers):
        mine = rows[rows["layer"] == layer].sort_values("batch_size")
        if mine.empty:
            continue
        variant = str(mine["variant"].iloc[0])
        labels.append(layer_label(layer, variant))
        in_unit = {
            name: (values / mine["batch_size"]).map(lambda ns: ns_in(ns, unit))
            for name, values in (("array", mine["q3_ns"] - mine["median_ns"]),
                                 ("arrayminus", mine["median_ns"] - mine["q1_ns"]))
        }  # fmt: skip
        same = {
            "x": mine["batch_size"].astype(str),
            "mode": "lines+markers",
            "name": labels[-1],
            "legendgroup": layer,
            "line": {"color": HUES[number % len(HUES)], "dash": "dash" if "global" in variant else "solid", "width": 2},
            "marker": {"symbol": "diamond" if "global" in variant else "circle", "size": 8},
        }
        figure.add_scatter(
            **same,
            y=mine["per_image_ns"].map(lambda ns: ns_in(ns, unit)),
            error_y={"type": "data", "symmetric": False, "thickness": 1, **in_unit},
            hovertemplate=f"batch %{{x}}: %{{y:,.3f}} {unit} per item",
            row=1,
            col=1,
        )
        figure.add_scatter(
            **same, y=mine["efficiency"], showlegend=False, hovertemplate="batch %{x}: %{y:,.3f}", row=1, col=2
        )
    figure.add_hline(y=1.0, line={"color": NEUTRAL, "width": 1, "dash": "dot"}, row=1, col=2)
    below = legend_px(labels)
    figure.update_layout(
        height=310 + below,
        margin={**MARGIN, "l": 72, "b": 62 + below, "autoexpand": False},
        hovermode="x unified",
        legend=LEGEND_BELOW,
    )
    figure.update_xaxes(title="batch size", type="category", fixedrange=True, showgrid=False)
    figure.update_yaxes(rangemode="tozero", tickformat=",", gridcolor=GRID, fixedrange=True)
    figure.update_yaxes(title=f"{unit} per item", row=1, col=1)
    figure.update_yaxes(title="times as fast", row=1, col=2)
    return figure


def layer_label(layer: str, variant: str) -> str:
    """A layer's name with what sets it apart: `blocks.2 · global`."""
    return f"{escape(layer, 60)} · {escape(variant, 20)}" if variant else escape(layer, 60)


def kind_shares(kinds: pd.DataFrame) -> go.Figure:
    """Share of the forward by kind of layer, one bar a batch size. Takes LAYER_KINDS.

    Global blocks are hatched. What is missing to 100 % ran outside these layers.
    """
    LAYER_KINDS.check(kinds)
    names = list(dict.fromkeys(kinds["kind"]))
    figure = go.Figure()
    for number, name in enumerate([*names[:KINDS], ""]):
        mine = kinds[kinds["kind"] == name] if name else kinds[kinds["kind"].isin(names[KINDS:])]
        if mine.empty:
            continue
        sums = mine.groupby("batch_size")[["share", "per_image_ns", "layers"]].sum()
        figure.add_bar(
            y=[str(batch) for batch in sums.index],
            x=[100 * share for share in sums["share"]],
            orientation="h",
            name=escape(name, 40) if name else f"{len(names) - KINDS} other kinds",
            marker={
                "color": HUES[number % len(HUES)] if name else NEUTRAL,
                "line": {"width": 0},
                "pattern": {
                    "shape": "/" if "global" in name else "",
                    "fillmode": "overlay",
                    "fgcolor": "#FFFFFF",
                    "fgopacity": 0.3,
                    "size": 9,
                },
            },
            text=[fmt_percent(share, 0) if share > 0.05 else "" for share in sums["share"]],
            textposition="inside",
            insidetextanchor="middle",
            customdata=[
                f"{layers} layers, {fmt_ns(nanos)} per item"
                for layers, nanos in zip(sums["layers"], sums["per_image_ns"], strict=True)
            ],
            hovertemplate="batch %{y}: %{x:.1f} %<br>%{customdata}",
        )
    above = legend_px([trace.name for trace in figure.data])
    figure.update_layout(
        barmode="stack",
        bargap=0.3,
        height=_KINDS_AXIS_PX + above + 40 * max(2, kinds["batch_size"].nunique()),
        margin={**MARGIN, "l": 56, "t": above + 8, "b": _KINDS_AXIS_PX - 8, "autoexpand": False},
        legend={**LEGEND_BELOW, "y": 1.0, "yanchor": "top", "traceorder": "normal"},
        xaxis={"ticksuffix": " %", "gridcolor": GRID, "fixedrange": True, "rangemode": "tozero"},
        yaxis={"title": "batch size", **NAMES},
    )
    return figure
