"""Plotly figures of a run: totals in, bars with units and fixed colours out."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from profiler_kit.schemas import NAME_SUMS, OPERATOR_SUMS, REGION_TOTALS
from profiler_kit.units import ns_to_ms
from profiler_kit.views.palette import ACTIVITY, HUES, MARK, region_colours
from profiler_kit.views.text import fmt_count, fmt_ns, fmt_path, fmt_percent, ns_in, short_kernel, time_unit

_SAME: Final = 1.005  # a sum this close to busy time is drawn as one bar
MARGIN: Final = {"l": 0, "r": 8, "t": 8, "b": 0, "pad": 4}
GRID: Final = "rgba(128,128,128,0.18)"


def activity_bar(gpu_timeline: Mapping[str, int]) -> go.Figure:
    """What the GPU did from its first event to its last, as one bar that adds up to the whole.

    Takes `gpu_timeline` of Trace.summary(). Communication and copies count where nothing before them covers them.
    """
    parts = [
        ("Computation", gpu_timeline["computation_ns"], ACTIVITY["computation"]),
        ("Communication, exposed", gpu_timeline["exposed_communication_ns"], ACTIVITY["communication"]),
        ("Memory copies, exposed", gpu_timeline["exposed_memcpy_ns"], ACTIVITY["memcpy"]),
        ("Idle", gpu_timeline["idle_ns"], ACTIVITY["idle"]),
    ]
    total = max(1, gpu_timeline["total_ns"])
    figure = go.Figure()
    for name, value, colour in parts:
        if not value:
            continue
        share = value / total
        figure.add_bar(
            x=[ns_to_ms(value)],
            y=[""],
            orientation="h",
            name=f"{name}  <b>{fmt_percent(share)}</b>  {fmt_ns(value)}",
            marker={"color": colour, "line": {"width": 0}},
            text=[fmt_percent(share, 0) if share > 0.04 else ""],
            textposition="inside",
            insidetextanchor="middle",
            textfont={"size": 15},
            hovertemplate=f"{name}<br>{fmt_ns(value)} of {fmt_ns(total)}<extra></extra>",
        )
    figure.update_layout(
        barmode="stack",
        height=128,
        margin=MARGIN,
        legend={"orientation": "h", "x": 0, "y": -0.1, "yanchor": "top", "traceorder": "normal", "font": {"size": 13}},
        xaxis={"visible": False, "range": [0, ns_to_ms(total)], "fixedrange": True},
        yaxis={"visible": False, "fixedrange": True},
    )
    return figure


_LABEL: Final = 26  # letters of a region's name
_PANEL: Final = 600  # pixels: how wide the figure is at least, on a page 1280 wide


def region_bars(regions: pd.DataFrame, *, host: bool = False, most: int = 16) -> go.Figure:
    """Time of each region, a region above the ones nested in it.

    Takes REGION_TOTALS. On the GPU the solid bar is busy time (union over streams) and the pale one behind it the sum;
    with `host` the bar is host time. The share is of the rows at the top.
    """
    REGION_TOTALS.check(regions)
    column = "host_ns" if host else "busy_ns"
    rows = regions[regions[column] > 0].head(most)
    top = int(rows[rows["path"].map(len) == 1][column].sum()) or 1
    unit = time_unit(rows["sum_ns"] if not host else rows[column])
    names = [path[-1] for path in rows["path"]]
    colours = region_colours(name for path in regions["path"] for name in path)
    position = list(range(len(rows)))
    hover = [
        f"<b>{escape(fmt_path(row['path']), 120)}</b><br>"
        f"busy {fmt_ns(row['busy_ns'])} · sum {fmt_ns(row['sum_ns'])}<br>host {fmt_ns(row['host_ns'])} · "
        f"{fmt_count(row['launches'])} launches · {fmt_count(row['instances'])} times<extra></extra>"
        for row in rows.to_dict("records")
    ]
    figure = go.Figure()
    overlapping = not host and bool((rows["sum_ns"] > rows["busy_ns"] * _SAME).any())
    if overlapping:
        figure.add_bar(
            x=[ns_in(v, unit) for v in rows["sum_ns"]],
            y=position,
            orientation="h",
            width=0.74,
            marker={"color": [colours[n] for n in names], "opacity": 0.3},
            hovertemplate=hover,
        )
    figure.add_bar(
        x=[ns_in(v, unit) for v in rows[column]],
        y=position,
        orientation="h",
        width=0.46 if overlapping else 0.74,
        marker={"color": [colours[n] for n in names]},
        hovertemplate=hover,
    )
    largest = max((ns_in(v, unit) for v in (rows[column] if host else rows["sum_ns"])), default=1.0)
    widest = max((16 * (len(path) - 1) + 7 * min(len(path[-1]), _LABEL) for path in rows["path"]), default=0)
    left = min(0.5, max(0.2, (widest + 12) / _PANEL))  # the labels' part of the figure
    ends = rows[["busy_ns", "sum_ns"]].max(axis=1) if overlapping else rows[column]
    for at, path, value, end in zip(position, rows["path"], rows[column], ends, strict=True):
        name = {"xref": "paper", "x": 0, "xanchor": "left", "xshift": 16 * (len(path) - 1), "showarrow": False}
        figure.add_annotation(text=escape(path[-1], _LABEL), y=at, font={"size": 13}, **name)
        figure.add_annotation(
            x=ns_in(end, unit),
            y=at,
            text=f"<b>{fmt_ns(value, unit)}</b>  {fmt_percent(value / top)}",
            xanchor="left",
            showarrow=False,
            xshift=6,
            font={"size": 13},
        )
    figure.update_layout(
        barmode="overlay",
        showlegend=False,
        height=31 * max(2, len(rows)) + 20,
        margin=MARGIN,
        xaxis={"visible": False, "domain": [left, 1], "range": [0, largest * 1.75], "fixedrange": True},
        yaxis={"visible": False, "range": [max(2, len(rows)) - 0.4, -0.6], "fixedrange": True},
    )
    return figure


def operator_bars(operators: pd.DataFrame, *, most: int = 9) -> go.Figure:
    """Host time inside each operator itself, longest first. Takes OPERATOR_SUMS; the share is of all operators."""
    OPERATOR_SUMS.check(operators)
    rows = operators.head(most)
    return _ranking(rows, list(rows["name"]), "self_ns", int(operators["self_ns"].sum()), "calls")


def kernel_bars(kernels: pd.DataFrame, *, most: int = 9) -> go.Figure:
    """Kernels by summed time over all streams and devices, longest first. Takes NAME_SUMS."""
    NAME_SUMS.check(kernels)
    rows = kernels.head(most)
    return _ranking(
        rows, [short_kernel(name) for name in rows["name"]], "sum_ns", int(kernels["sum_ns"].sum()), "events"
    )


def _ranking(rows: pd.DataFrame, names: Sequence[str], column: str, whole: int, counted: str) -> go.Figure:
    """Bars with the name above each (names of kernels are long), the value and the share at its end."""
    unit = time_unit(rows[column])
    values = [ns_in(v, unit) for v in rows[column]]
    position = list(range(len(rows)))
    figure = go.Figure()
    figure.add_bar(
        x=values,
        y=position,
        orientation="h",
        width=0.34,
        marker={"color": HUES[0]},
        hovertemplate=[
            f"<b>{escape(row['name'], 160)}</b><br>{fmt_ns(row[column])} in {fmt_count(row['count'])} {counted}"
            "<extra></extra>"
            for row in rows.to_dict("records")
        ],
    )
    for at, name, value in zip(position, names, rows[column], strict=True):
        title = {"x": 0, "y": at, "yshift": 14, "xanchor": "left", "showarrow": False, "font": {"size": 12}}
        figure.add_annotation(text=escape(name, 46), **title)
        figure.add_annotation(
            x=ns_in(value, unit),
            y=at,
            text=f"<b>{fmt_ns(value, unit)}</b>  {fmt_percent(value / max(1, whole))}",
            xanchor="left",
            xshift=6,
            showarrow=False,
            font={"size": 12},
        )
    figure.update_layout(
        showlegend=False,
        height=41 * max(2, len(rows)) + 16,
        margin=MARGIN,
        xaxis={"visible": False, "range": [0, max(values, default=1.0) * 1.5], "fixedrange": True},
        yaxis={"visible": False, "range": [len(rows) - 0.6, -0.85], "fixedrange": True},
    )
    return figure


def latency_samples(latency_ns: Sequence[int]) -> go.Figure:
    """Wall time of each timed iteration, with the median; the y axis starts at zero so that noise is not blown up."""
    unit = time_unit(latency_ns)
    values = [ns_in(v, unit) for v in latency_ns]
    median = float(np.median(values)) if values else 0.0
    figure = go.Figure()
    figure.add_bar(
        x=list(range(1, len(values) + 1)),
        y=values,
        marker={"color": HUES[0]},
        hovertemplate=f"iteration %{{x}}<br>%{{y:.3f}} {unit}<extra></extra>",
    )
    figure.add_hline(y=median, line={"color": MARK, "width": 1.5, "dash": "dot"})
    figure.update_layout(
        showlegend=False,
        height=190,
        margin=MARGIN,
        bargap=0.35,
        xaxis={"title": "timed iteration", "fixedrange": True, "showgrid": False, "nticks": 12, "tickformat": "d"},
        yaxis={
            "ticksuffix": f" {unit}",
            "rangemode": "tozero",
            "fixedrange": True,
            "gridcolor": GRID,
            "nticks": 5,
        },
    )
    return figure


def escape(text: str, most: int = 80) -> str:
    """Text that plotly shows as it is (it reads a subset of HTML), cut to `most` characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return html.escape("".join(c if c.isprintable() else "�" for c in cut), quote=False)
