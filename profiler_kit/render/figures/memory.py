"""Plotly figures of memory over time and by region, of at most 5,000 marks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from profiler_kit.analyses.memory.replay import MEMORY_TIMELINE
from profiler_kit.render.downsample import keep_peaks
from profiler_kit.render.figures.style import GRID, MARGIN, escape
from profiler_kit.text import (
    ByteUnit,
    TimeUnit,
    byte_unit,
    bytes_in,
    fmt_bytes,
    fmt_ns,
    fmt_path,
    ns_in,
    time_unit,
)
from profiler_kit.timeline.palette import ALLOCATED, MARK, RESERVED, region_colours
from profiler_kit.units import NS_PER_US

_POINTS: Final = 4_000  # of a memory line, thinned so that peaks are kept
_BAND_LETTERS: Final = 95  # letters that fit side by side across all bands on a narrow page
_BANDS: Final = 600  # region bands under the memory line, longest first


@dataclass(frozen=True)
class _Clock:
    """Microseconds of the recording as the axis shows them: since the first event, in one unit."""

    base_us: int
    unit: TimeUnit

    def since(self, time_us: float) -> float:
        """Where on the axis that moment is."""
        return self.length(time_us - self.base_us)

    def length(self, time_us: float) -> float:
        """How long that is on the axis."""
        return ns_in(time_us * NS_PER_US, self.unit)


def memory_over_time(timeline: pd.DataFrame, spans: pd.DataFrame, *, reserves: bool = True) -> go.Figure:
    """Allocated and reserved memory of one device over time, its peak marked, the regions as bands below.

    Takes MEMORY_TIMELINE rows of one device, and its region spans (path, start_us, end_us). Long histories are
    thinned to 4,000 points that keep every visible peak. reserves: whether the device keeps memory in reserve; a CPU
    does not, it allocates from the system.
    """
    MEMORY_TIMELINE.check(timeline)
    columns = ["reserved_bytes", "allocated_bytes"] if reserves else ["allocated_bytes"]
    unit = byte_unit(timeline[columns].max())
    timed = timeline.empty or int(timeline["time_us"].max()) > 0
    if not timed:  # one after the other
        timeline = timeline.assign(time_us=np.arange(len(timeline)))
    clock = _clock(timeline, spans) if timed else _Clock(0, "µs")
    depth = int(spans["path"].map(len).max()) if len(spans) else 0
    band = min(0.3, 0.055 * depth)
    figure = make_subplots(
        rows=2 if depth else 1,
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.03,
        row_heights=[1 - band, band] if depth else None,
    )
    thin = timeline.iloc[keep_peaks(timeline["allocated_bytes"].to_numpy(np.int64), _POINTS)]
    when = thin["time_us"].map(clock.since)
    for column, name, colour, fill in (
        ("reserved_bytes", "Reserved from the driver", RESERVED, None),
        ("allocated_bytes", "Allocated by tensors", ALLOCATED, "tozeroy"),
    ):
        if column not in columns:
            continue
        figure.add_scatter(
            x=when,
            y=thin[column].map(lambda size: bytes_in(size, unit)),
            name=name,
            mode="lines",
            line={"color": colour, "width": 1.6, "shape": "hv", "dash": "dash" if fill is None else "solid"},
            fill=fill,
            hovertemplate=f"%{{y:,.1f}} {unit}",
            row=1,
            col=1,
        )
    mark_peak(figure, timeline, clock.since, unit)
    if depth:
        _add_bands(figure, spans, clock, depth)
    figure.update_layout(
        height=380 + 24 * depth,
        margin={**MARGIN, "t": 26},
        hovermode="x unified",
        barmode="overlay",
        legend={"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0},
    )
    figure.update_yaxes(ticksuffix=f" {unit}", rangemode="tozero", gridcolor=GRID, fixedrange=True, row=1, col=1)
    figure.update_xaxes(showgrid=False, ticksuffix=f" {clock.unit}" if timed else "", tickformat=",")
    title = "since the first recorded event" if timed else "changes in their order: the snapshot has no times"
    figure.update_xaxes(title=title, row=2 if depth else 1, col=1)
    return figure


def _clock(timeline: pd.DataFrame, spans: pd.DataFrame) -> _Clock:
    base = int(timeline["time_us"].min()) if len(timeline) else 0
    ends = [*timeline["time_us"].tail(1), *([spans["end_us"].max()] if len(spans) else [])]
    return _Clock(base, time_unit([(end - base) * NS_PER_US for end in ends]))


def mark_peak(
    figure: go.Figure, timeline: pd.DataFrame, since: Callable[[int], float], unit: ByteUnit, *, row: int = 1
) -> None:
    """A diamond with its size where most was allocated. since: where on the x axis a time in microseconds is."""
    if timeline.empty:
        return
    peak = timeline.iloc[int(timeline["allocated_bytes"].to_numpy().argmax())]
    x, y = since(int(peak["time_us"])), bytes_in(int(peak["allocated_bytes"]), unit)
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"color": MARK, "size": 10, "symbol": "diamond"},
        showlegend=False,
        hovertemplate=f"peak {fmt_bytes(int(peak['allocated_bytes']))}<extra></extra>",
        row=row,
        col=1,
    )
    figure.add_annotation(
        x=x,
        y=y,
        text=f"<b>peak {fmt_bytes(int(peak['allocated_bytes']), unit)}</b>",
        showarrow=False,
        yshift=14,
        font={"color": MARK, "size": 13},
        row=row,
        col=1,
    )


def _add_bands(figure: go.Figure, spans: pd.DataFrame, clock: _Clock, depth: int) -> None:
    """One bar a region instance, a row a nesting level."""
    colours = region_colours(name for path in spans["path"] for name in path)
    length = spans["end_us"] - spans["start_us"]
    rows = spans.assign(length=length).nlargest(_BANDS, "length")
    name = [path[-1] for path in rows["path"]]
    whole = max(1, int(spans["end_us"].max() - spans["start_us"].min()))
    figure.add_bar(
        x=rows["length"].map(clock.length),
        base=rows["start_us"].map(clock.since),
        y=[len(path) for path in rows["path"]],
        orientation="h",
        width=0.86,
        marker={"color": [colours[n] for n in name]},
        text=[
            escape(n, 24) if size * _BAND_LETTERS > whole * len(n) else ""
            for n, size in zip(name, rows["length"], strict=True)
        ],
        textposition="inside",
        insidetextanchor="middle",
        constraintext="none",
        textangle=0,
        showlegend=False,
        hovertemplate=[
            f"<b>{escape(fmt_path(path), 120)}</b><br>{fmt_ns(size * NS_PER_US)}<extra></extra>"
            for path, size in zip(rows["path"], rows["length"], strict=True)
        ],
        row=2,
        col=1,
    )
    figure.update_yaxes(visible=False, range=[depth + 0.5, 0.5], fixedrange=True, row=2, col=1)
