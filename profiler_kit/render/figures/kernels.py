"""Plotly figures of one kernel (or kind, or stream): its durations over time and as a histogram."""

from __future__ import annotations

import itertools
from typing import Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.load.integers import I64
from profiler_kit.render.figures.style import GRID, LEGEND_ABOVE, MARGIN, escape
from profiler_kit.text import fmt_count, fmt_ns, fmt_path, ns_in, time_unit
from profiler_kit.timeline.palette import HUES, MARK, NEUTRAL, region_colours

POINTS: Final = 1_500  # marks Plotly draws without lag
REGIONS: Final = 6  # colours in one figure
_BINS: Final = 60


def durations_over_time(gpu_events: pd.DataFrame, region_names: list[str], *, start_ns: int = 0) -> go.Figure:
    """Each event's duration where it began, in the colour of its innermost region. Takes GPU_EVENTS.

    region_names: every region of the trace, so that colours are those of the other pages. start_ns: where the
    time axis begins. Of more than POINTS events the longest and an even selection of the rest are drawn.
    """
    GPU_EVENTS.check(gpu_events)
    rows = gpu_events.iloc[_some(gpu_events["dur_ns"].to_numpy(np.int64))]
    unit = time_unit(rows["dur_ns"])
    clock = time_unit((rows["start_ns"] + rows["dur_ns"] - start_ns).tail(1))
    inner = [str(path[-1]) for path in rows["path"]]
    by_time = rows["dur_ns"].groupby(np.array(inner, dtype=object), sort=False).sum().sort_values(ascending=False)
    shown = [str(name) for name in by_time.index[:REGIONS]]
    colours = region_colours([*region_names, *inner])
    figure = go.Figure()
    for name in [*shown, ""]:
        mine = np.array([(one == name) if name else (one not in shown) for one in inner], dtype=bool)
        if not mine.any():
            continue
        part = rows[mine]
        figure.add_scatter(
            x=[ns_in(start - start_ns, clock) for start in part["start_ns"]],
            y=[ns_in(dur, unit) for dur in part["dur_ns"]],
            mode="markers",
            name=escape(name, 32) if name else "other regions",
            marker={"color": colours[name] if name else NEUTRAL, "size": 6, "opacity": 0.75},
            text=[escape(fmt_path(path), 90) for path in part["path"]],
            hovertemplate=f"%{{y:,.3f}} {unit} at %{{x:,.3f}} {clock}<br>%{{text}}<extra></extra>",
        )
    figure.update_layout(
        height=300,
        margin=MARGIN,
        showlegend=True,
        legend=LEGEND_ABOVE,
        xaxis={
            "title": "time on the timeline",
            "ticksuffix": f" {clock}",
            "tickformat": ",",
            "showgrid": False,
        },
        yaxis={"rangemode": "tozero", "ticksuffix": f" {unit}", "tickformat": ",", "gridcolor": GRID},
    )
    return figure


def duration_histogram(gpu_events: pd.DataFrame) -> go.Figure:
    """How many events took how long, with the median and the 95th percentile. Takes GPU_EVENTS, not empty."""
    GPU_EVENTS.check(gpu_events)
    nanos = gpu_events["dur_ns"].to_numpy(np.float64)
    unit = time_unit(nanos)
    counts, edges = np.histogram(nanos, bins=min(_BINS, max(8, int(np.sqrt(len(nanos)) * 2))))
    middle, width = (edges[1:] + edges[:-1]) / 2, edges[1] - edges[0]
    figure = go.Figure(
        go.Bar(
            x=[ns_in(at, unit) for at in middle],
            y=counts,
            width=ns_in(width, unit) * 0.94,
            marker={"color": HUES[0], "line": {"width": 0}},
            customdata=[f"{fmt_ns(low)} to {fmt_ns(high)}" for low, high in itertools.pairwise(edges)],
            hovertemplate="%{customdata}: %{y:,} times<extra></extra>",
        )
    )
    marks = ((50, "median", "dot", "top left"), (95, "95 %", "dash", "top right"))
    for share, name, dash, position in marks if len(nanos) > 1 else ():
        value = float(np.percentile(nanos, share))
        figure.add_vline(
            x=ns_in(value, unit),
            line={"color": MARK, "width": 1.5, "dash": dash},
            annotation={"text": f"{name} {fmt_ns(value)}", "font": {"size": 11}, "yanchor": "bottom"},
            annotation_position=position,
        )
    figure.update_layout(
        height=300,
        margin={**MARGIN, "t": 26},
        showlegend=False,
        xaxis={"title": f"duration of {fmt_count(len(nanos))} events", "ticksuffix": f" {unit}", "tickformat": ","},
        yaxis={
            "title": "events",
            "tickformat": ",",
            "gridcolor": GRID,
            "fixedrange": True,
            "dtick": 1 if counts.max() < 6 else None,  # no halves of an event
        },
    )
    return figure


def _some(duration: I64) -> I64:
    """Row numbers, in order: all, or the longest half and an even selection of all."""
    if len(duration) <= POINTS:
        return np.arange(len(duration))
    longest = np.argpartition(duration, -POINTS // 2)[-POINTS // 2 :]
    even = np.linspace(0, len(duration) - 1, POINTS // 2).astype(np.int64)
    return np.union1d(longest, even)
