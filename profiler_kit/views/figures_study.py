"""Plotly figures of the batching studies: STUDY_SAMPLES or STUDY_TOTALS in; box plots, lines and a table out."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from profiler_kit.schemas import STUDY_SAMPLES, STUDY_TOTALS
from profiler_kit.units import ns_to_ms
from profiler_kit.views.figures import GRID, MARGIN, escape
from profiler_kit.views.palette import HUES, NEUTRAL, region_colours
from profiler_kit.views.text import fmt_rate


def component_boxes(samples: pd.DataFrame) -> go.Figure:
    """Milliseconds per image of each part of the forward at each batch size, as box plots of the raw samples."""
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
    figure.update_layout(boxmode="group", height=380, legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0})
    return _axes(figure, "batch size", "ms per image", log=True)


def batching_lines(totals: pd.DataFrame) -> go.Figure:
    """Milliseconds per image of the same images one by one and in one batch, and how many times faster the batch is."""
    STUDY_TOTALS.check(totals)
    mine = totals[totals["study"] == "batching"]
    figure = go.Figure()
    for number, (label, rows) in enumerate(mine.groupby("label", sort=False)):
        _line(figure, rows, rows["batch_size"], str(label), HUES[number])
    wide = mine.pivot_table(index="batch_size", columns="label", values="per_image_ns")
    if {"sequential", "batched"} <= set(wide.columns):
        speedup = wide["sequential"] / wide["batched"]
        figure.add_scatter(
            x=[str(size) for size in wide.index],
            y=speedup,
            yaxis="y2",
            mode="lines+markers+text",
            text=[f"{value:.2f}×" for value in speedup],
            textposition="top center",
            name="speed-up",
            line={"color": NEUTRAL, "dash": "dot"},
        )
    top = float((wide.max(axis=1) / wide.min(axis=1)).max()) if len(wide) else 1.0
    figure.update_layout(
        height=380,
        legend={"orientation": "h", "y": -0.2, "yanchor": "top", "x": 0},
        yaxis2={
            "title": "times as fast", "overlaying": "y", "side": "right", "range": [0, max(1.5, top) * 1.2],
            "showgrid": False, "fixedrange": True,
        },
    )  # fmt: skip
    return _axes(figure, "batch size", "ms per image")


def size_lines(totals: pd.DataFrame) -> go.Figure:
    """Milliseconds per image against the side of the input."""
    STUDY_TOTALS.check(totals)
    mine = totals[totals["study"] == "image-size"].sort_values("image_size")
    figure = go.Figure()
    _line(figure, mine, mine["image_size"], "forward", HUES[0])
    figure.update_layout(height=380, showlegend=False)
    return _axes(figure, "side of the image, pixels", "ms per image")


def speed_table(totals: pd.DataFrame) -> pd.DataFrame:
    """Images a second by device and dtype, without and with torch.compile."""
    STUDY_TOTALS.check(totals)
    mine = totals[totals["study"] == "table"]
    rows = []
    for (device, dtype), group in mine.groupby(["device", "dtype"], sort=False):
        speeds = dict(zip(group["compiled"], group["images_per_s"], strict=True))
        plain, fast = speeds.get(False), speeds.get(True)
        rows.append(
            {
                "device": device,
                "dtype": dtype,
                "eager, images/s": None if plain is None else fmt_rate(plain),
                "torch.compile, images/s": None if fast is None else fmt_rate(fast),
                "compile, times as fast": None if plain is None or fast is None else f"{fast / plain:.2f}",
            }
        )
    return pd.DataFrame(rows)


def _line(figure: go.Figure, rows: pd.DataFrame, x: pd.Series, name: str, colour: str) -> None:
    """Medians per image, with the quartiles as whiskers."""
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
        hovertemplate="%{x}: %{y:,.3f} ms per image<extra></extra>",
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
