"""Plotly figures of the batching studies: box plots, lines and a table."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from profiler_kit.formats.study_file import STUDY_SAMPLES, STUDY_TOTALS
from profiler_kit.render.figures.style import GRID, MARGIN, escape
from profiler_kit.timeline.palette import HUES, region_colours
from profiler_kit.units import ns_to_ms


def component_boxes(samples: pd.DataFrame) -> go.Figure:
    """Milliseconds per item of each part of the forward at each batch size, as box plots of the raw samples."""
    STUDY_SAMPLES.check(samples)
    mine = samples[samples["study"] == "components"]
    colours = region_colours(mine["label"].unique())
    figure = go.Figure()
    for label, rows in mine.groupby("label", sort=False):
        name = str(label)
        figure.add_box(
            x=rows["batch_size"].astype(str),
            y=rows["latency_ns"].map(ns_to_ms) / rows["batch_size"],
            name=escape(name),
            marker={"color": colours[name], "size": 4},
            line={"width": 1.5},
            boxpoints="all",
            jitter=0.4,
            pointpos=0,
        )
    figure.update_layout(boxmode="group", height=460, legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0})
    return _axes(figure, "batch size", "ms per item", log=True)


def batching_lines(totals: pd.DataFrame) -> go.Figure:
    """Milliseconds per item of the same images one by one and in one batch, and how many times faster the batch is."""
    STUDY_TOTALS.check(totals)
    mine = totals[totals["study"] == "batching"]
    figure = make_subplots(rows=2, cols=1, shared_xaxes=True, row_heights=[0.64, 0.36], vertical_spacing=0.08)
    for number, (label, rows) in enumerate(mine.groupby("label", sort=False)):
        _line(figure, rows, rows["batch_size"], str(label), HUES[number])
    wide = mine.pivot_table(index="batch_size", columns="label", values="per_image_ns")
    if {"sequential", "batched"} <= set(wide.columns):
        speedup = wide["sequential"] / wide["batched"]
        figure.add_scatter(
            x=[str(size) for size in wide.index],
            y=speedup,
            mode="lines+markers+text",
            text=[f"{value:.2f}×" for value in speedup],
            textposition="top center",
            cliponaxis=False,
            name="speed-up",
            line={"color": HUES[2], "width": 2},
            marker={"size": 8},
            hovertemplate="%{x}: %{y:.3f} times as fast in one batch<extra></extra>",
            row=2,
            col=1,
        )
        figure.update_yaxes(range=[0, 1.3 * max(1.0, float(speedup.max()))], row=2, col=1)
    figure.update_layout(height=460, legend={"orientation": "h", "y": -0.16, "yanchor": "top", "x": 0})
    _axes(figure, "batch size", "ms per item")
    figure.update_xaxes(title="", row=1, col=1)
    figure.update_xaxes(title="batch size", type="category", fixedrange=True, showgrid=False, row=2, col=1)
    figure.update_yaxes(title="times as fast", gridcolor=GRID, fixedrange=True, nticks=4, row=2, col=1)
    return figure


def size_lines(totals: pd.DataFrame) -> go.Figure:
    """Milliseconds per item against the side of the input."""
    STUDY_TOTALS.check(totals)
    mine = totals[totals["study"] == "image-size"].sort_values("image_size")
    figure = go.Figure()
    _line(figure, mine, mine["image_size"], "forward", HUES[0])
    figure.update_layout(height=380, showlegend=False)
    return _axes(figure, "side of the image, pixels", "ms per item")


def _line(figure: go.Figure, rows: pd.DataFrame, x: pd.Series, name: str, colour: str) -> None:
    """Medians per item, with the quartiles as whiskers."""
    size = rows["batch_size"]
    figure.add_scatter(
        x=x.astype(str),
        y=rows["per_image_ns"].map(ns_to_ms),
        error_y={
            "type": "data",
            "symmetric": False,
            "array": ((rows["q3_ns"] - rows["median_ns"]) / size).map(ns_to_ms),
            "arrayminus": ((rows["median_ns"] - rows["q1_ns"]) / size).map(ns_to_ms),
            "thickness": 1,
        },
        mode="lines+markers",
        name=escape(name),
        line={"color": colour, "width": 2},
        marker={"size": 8},
        hovertemplate="%{x}: %{y:,.3f} ms per item<extra></extra>",
    )


def _axes(figure: go.Figure, x: str, y: str, *, log: bool = False) -> go.Figure:
    figure.update_layout(
        margin=MARGIN,
        xaxis={"title": x, "type": "category", "fixedrange": True, "showgrid": False},
        yaxis={
            "title": y, "gridcolor": GRID, "fixedrange": True, "tickformat": ",~g",
            **({"type": "log", "dtick": "D2"} if log else {"rangemode": "tozero"}),
        },
    )  # fmt: skip
    return figure
