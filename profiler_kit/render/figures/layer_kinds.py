"""Plotly figure of what each kind of layer holds of the forward: LAYER_KINDS in, stacked bars by batch size out."""

from __future__ import annotations

from typing import Final

import pandas as pd
import plotly.graph_objects as go

from profiler_kit.analyses.layers.totals import LAYER_KINDS
from profiler_kit.render.figures.regions import GRID, MARGIN, escape, legend_px
from profiler_kit.text import fmt_ns, fmt_percent
from profiler_kit.timeline.palette import HUES, NEUTRAL
from profiler_kit.units import ns_to_ms

_AXIS_PX: Final = 36
KINDS: Final = 8  # with a colour of their own; the rest together


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
                f"{layers} layers, {fmt_ns(nanos)} per image"
                for layers, nanos in zip(sums["layers"], sums["per_image_ns"], strict=True)
            ],
            hovertemplate="batch %{y}: %{x:.1f} %<br>%{customdata}",
        )
    above = legend_px([trace.name for trace in figure.data])
    figure.update_layout(
        barmode="stack",
        bargap=0.3,
        height=_AXIS_PX + above + 40 * max(2, kinds["batch_size"].nunique()),
        margin={**MARGIN, "l": 56, "t": above + 8, "b": _AXIS_PX - 8, "autoexpand": False},
        legend={
            "orientation": "h",
            "y": 1.0,
            "yref": "container",
            "yanchor": "top",
            "x": 0,
            "traceorder": "normal",
        },
        xaxis={"ticksuffix": " %", "gridcolor": GRID, "fixedrange": True, "rangemode": "tozero"},
        yaxis={"title": "batch size", "type": "category", "autorange": "reversed", "fixedrange": True},
    )
    return figure


def kind_table(kinds: pd.DataFrame) -> pd.DataFrame:
    """LAYER_KINDS as people read them."""
    LAYER_KINDS.check(kinds)
    return pd.DataFrame(
        {
            "layer_kind": kinds["kind"],
            "batch_size": kinds["batch_size"],
            "share": 100 * kinds["share"],
            "layers": kinds["layers"],
            "per_image_ms": kinds["per_image_ns"].map(ns_to_ms),
            "one_per_image_ms": kinds["one_per_image_ns"].map(ns_to_ms),
        }
    )


def layer_table(totals: pd.DataFrame) -> pd.DataFrame:
    """LAYER_TOTALS in ms per image."""
    return pd.DataFrame(
        {
            "layer": totals["layer"],
            "layer_type": totals["type"],
            "variant": totals["variant"],
            "batch_size": totals["batch_size"],
            "share": 100 * totals["share"],
            "per_image_ms": totals["per_image_ns"].map(ns_to_ms),
            "efficiency": totals["efficiency"],
            "median_ms": totals["median_ns"].map(ns_to_ms),
            "q1_ms": totals["q1_ns"].map(ns_to_ms),
            "q3_ms": totals["q3_ns"].map(ns_to_ms),
            "count": totals["calls"],
        }
    )
