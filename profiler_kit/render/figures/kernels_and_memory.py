"""Plotly figure of a run's kernels and memory on one clock, of at most some 5,000 marks."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from profiler_kit.analyses.compare.clock import REGION_MEMORY
from profiler_kit.analyses.gpu.intervals import union
from profiler_kit.analyses.memory.replay import MEMORY_TIMELINE
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.render.downsample import keep_peaks
from profiler_kit.render.figures.memory import mark_peak
from profiler_kit.render.figures.style import GRID, MARGIN, escape
from profiler_kit.text import byte_unit, bytes_in, fmt_bytes, fmt_ns, fmt_path, ns_in, time_unit
from profiler_kit.timeline.palette import ALLOCATED, HUES, RESERVED, region_colours
from profiler_kit.units import NS_PER_US

I64 = npt.NDArray[np.int64]

_BINS: Final = 400  # of the GPU's busy share
_POINTS: Final = 4_000  # of a memory line
_BANDS: Final = 400  # region bands, longest first
_BUSY: Final = HUES[8]  # not the blue of memory
_LETTERS: Final = 95  # that fit side by side across all bands on a narrow page


def kernels_and_memory(
    gpu_events: pd.DataFrame, timeline: pd.DataFrame, regions: pd.DataFrame, base_ns: int
) -> go.Figure:
    """How busy the GPU is, what is allocated and reserved, and the regions of the host, over the same time.

    Takes GPU_EVENTS and REGION_MEMORY with times since `base_ns` (Unix time), and MEMORY_TIMELINE, all of one device.
    The x axis begins with the first region and ends with the last region or GPU event. Busy is the share of time in
    which something ran, in 400 steps; kernels run after their region launched them, memory moves when it does.
    """
    gpu_events, timeline = GPU_EVENTS.check(gpu_events), MEMORY_TIMELINE.check(timeline)
    regions = REGION_MEMORY.check(regions)
    start, end = gpu_events["start_ns"].to_numpy(), (gpu_events["start_ns"] + gpu_events["dur_ns"]).to_numpy()
    first = int(regions["start_ns"].min())
    last = max(int(regions["end_ns"].max()), int(end.max(initial=first)))
    depth = int(regions["path"].map(len).max())
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.28, 0.5, 0.055 * min(depth, 6)]
    )
    unit = time_unit([last - first])
    _add_busy(figure, start, end, first, last)
    _add_memory(figure, timeline, base_ns, first, last)
    _add_regions(figure, regions, first, depth)
    figure.update_layout(
        height=440 + 24 * depth,
        margin={**MARGIN, "t": 26},
        hovermode="x unified",
        barmode="overlay",
        bargap=0,
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    )
    figure.update_xaxes(showgrid=False, ticksuffix=f" {unit}", tickformat=",", range=[0, ns_in(last - first, unit)])
    figure.update_xaxes(title="since the first region began", row=3, col=1)
    return figure


def busy_share(start: I64, end: I64, edges: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Share of each step between two edges in which an interval is open, 0 to 1: O((n + edges) log n)."""
    start, end = union(start, end)
    length = np.concatenate(([0], np.cumsum(end - start))).astype(np.float64)
    at = np.searchsorted(start, edges, side="right")  # intervals begun by then
    inside = (
        np.where(at > 0, np.minimum(edges, end[np.maximum(at - 1, 0)]) - start[np.maximum(at - 1, 0)], 0.0)
        if len(start)
        else np.zeros(len(edges))
    )
    covered = length[np.maximum(at - 1, 0)] + inside
    return np.asarray(np.diff(covered) / np.diff(edges))


def _add_busy(figure: go.Figure, start: I64, end: I64, first: int, last: int) -> None:
    edges = np.linspace(first, max(last, first + 1), _BINS + 1)
    unit = time_unit([last - first])
    figure.add_scatter(
        x=[ns_in(at - first, unit) for at in edges[:-1].tolist()],
        y=100 * busy_share(start, end, edges),
        name="GPU busy",
        mode="lines",
        line={"color": _BUSY, "width": 1, "shape": "hv"},
        fill="tozeroy",
        hovertemplate="%{y:.0f} %",
        row=1,
        col=1,
    )
    figure.update_yaxes(ticksuffix=" %", range=[0, 105], gridcolor=GRID, fixedrange=True, nticks=3, row=1, col=1)


def _add_memory(figure: go.Figure, timeline: pd.DataFrame, base_ns: int, first: int, last: int) -> None:
    """Allocated and reserved bytes, thinned to 4,000 points that keep every visible peak."""
    when = timeline["time_us"].to_numpy() * NS_PER_US - base_ns - first
    shown = timeline[(when >= 0) & (when <= last - first)]
    shown = shown.iloc[keep_peaks(shown["allocated_bytes"].to_numpy(np.int64), _POINTS)]
    size, unit = byte_unit(shown[["reserved_bytes", "allocated_bytes"]].max()), time_unit([last - first])
    x = [ns_in(us * NS_PER_US - base_ns - first, unit) for us in shown["time_us"].tolist()]
    for column, name, colour, fill in (
        ("reserved_bytes", "Reserved from the driver", RESERVED, None),
        ("allocated_bytes", "Allocated by tensors", ALLOCATED, "tozeroy"),
    ):
        figure.add_scatter(
            x=x,
            y=[bytes_in(value, size) for value in shown[column].tolist()],
            name=name,
            mode="lines",
            line={"color": colour, "width": 1.6, "shape": "hv", "dash": "dash" if fill is None else "solid"},
            fill=fill,
            hovertemplate=f"%{{y:,.1f}} {size}",
            row=2,
            col=1,
        )
    mark_peak(figure, shown, lambda us: ns_in(us * NS_PER_US - base_ns - first, unit), size, row=2)
    figure.update_yaxes(ticksuffix=f" {size}", rangemode="tozero", gridcolor=GRID, fixedrange=True, row=2, col=1)


def _add_regions(figure: go.Figure, regions: pd.DataFrame, first: int, depth: int) -> None:
    """One bar for each opened region, with what it launched and held."""
    colours = region_colours(name for path in regions["path"] for name in path)
    length = regions["end_ns"] - regions["start_ns"]
    whole = max(1, int(regions["end_ns"].max()) - first)
    unit = time_unit([whole])
    rows = regions.assign(length=length).nlargest(_BANDS, "length").to_dict("records")
    figure.add_bar(
        x=[ns_in(row["length"], unit) for row in rows],
        base=[ns_in(row["start_ns"] - first, unit) for row in rows],
        y=[len(row["path"]) for row in rows],
        orientation="h",
        width=0.86,
        marker={"color": [colours[row["path"][-1]] for row in rows]},
        text=[
            escape(row["path"][-1], 24) if row["length"] * _LETTERS > whole * len(row["path"][-1]) else ""
            for row in rows
        ],
        textposition="inside",
        insidetextanchor="middle",
        constraintext="none",
        textangle=0,
        showlegend=False,
        hovertemplate=[
            f"<b>{escape(fmt_path(row['path']), 120)}</b><br>{fmt_ns(row['length'])} on the host<br>"
            f"GPU busy {fmt_ns(row['busy_ns'])} ({row['gpu_events']:,} GPU events)<br>"
            f"peak {fmt_bytes(row['peak_bytes'])}, allocated {fmt_bytes(row['allocated_bytes'])}<extra></extra>"
            for row in rows
        ],
        row=3,
        col=1,
    )
    figure.update_yaxes(visible=False, range=[depth + 0.5, 0.5], fixedrange=True, row=3, col=1)
