"""Plotly figures of memory over time, alone or beside the kernels of the same run, of at most some 5,000 marks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from profiler_kit.analyses.compare.clock import REGION_MEMORY
from profiler_kit.analyses.gpu.intervals import covered_between, union
from profiler_kit.analyses.memory.replay import MEMORY_TIMELINE
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.render.downsample import keep_peaks
from profiler_kit.render.figures.style import GRID, LEGEND_ABOVE, MARGIN, escape
from profiler_kit.text import ByteUnit, TimeUnit, byte_unit, bytes_in, fmt_bytes, fmt_ns, fmt_path, ns_in, time_unit
from profiler_kit.timeline.palette import ALLOCATED, HUES, MARK, RESERVED, region_colours
from profiler_kit.units import NS_PER_US

_POINTS: Final = 4_000  # of a memory line, thinned so that peaks are kept
_BAND_LETTERS: Final = 95  # letters that fit side by side across all bands on a narrow page
_BANDS: Final = 600  # region bands under the memory line, longest first
_BANDS_OF_BOTH: Final = 400  # where kernels are drawn as well
_BINS: Final = 400  # of the GPU's busy share
_BUSY: Final = HUES[8]  # not the blue of memory
_LINES: Final = (
    ("reserved_bytes", "Reserved from the driver", RESERVED, None),
    ("allocated_bytes", "Requested by tensors", ALLOCATED, "tozeroy"),
)


@dataclass(frozen=True)
class _Clock:
    """Unix nanoseconds as the axis shows them: since a moment, in one unit."""

    base_ns: int
    unit: TimeUnit

    def since(self, time_ns: float) -> float:
        """Where on the axis that moment is."""
        return self.length(time_ns - self.base_ns)

    def length(self, time_ns: float) -> float:
        """How long that is on the axis."""
        return ns_in(time_ns, self.unit)


def memory_over_time(timeline: pd.DataFrame, spans: pd.DataFrame, *, reserves: bool = True) -> go.Figure:
    """Allocated and reserved memory of one device over time, its peak marked, the regions as bands below.

    Takes MEMORY_TIMELINE rows of one device, and its region spans (path, start_us, end_us). Long histories are
    thinned to 4,000 points that keep every visible peak. reserves: whether the device keeps memory in reserve; a CPU
    does not, it allocates from the system.
    """
    MEMORY_TIMELINE.check(timeline)
    columns = ["reserved_bytes", "allocated_bytes"] if reserves else ["allocated_bytes"]
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
    unit = byte_unit(timeline[columns].max())
    _add_lines(figure, timeline, columns, unit, clock, row=1)
    if depth:
        bands = spans.assign(start_ns=spans["start_us"] * NS_PER_US, end_ns=spans["end_us"] * NS_PER_US)
        _add_bands(figure, bands, lambda row: fmt_ns(row["length"]), clock, _BANDS, row=2)
    _lay_out(figure, 380 + 24 * depth, f" {clock.unit}" if timed else "")
    title = "since the first recorded event" if timed else "changes in their order: the snapshot has no times"
    figure.update_xaxes(title=title, row=2 if depth else 1, col=1)
    return figure


def _clock(timeline: pd.DataFrame, spans: pd.DataFrame) -> _Clock:
    base = int(timeline["time_us"].min()) if len(timeline) else 0
    ends = [*timeline["time_us"].tail(1), *([spans["end_us"].max()] if len(spans) else [])]
    return _Clock(base * NS_PER_US, time_unit([(end - base) * NS_PER_US for end in ends]))


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
    unit = time_unit([last - first])
    depth = int(regions["path"].map(len).max())
    figure = make_subplots(
        rows=3, cols=1, shared_xaxes=True, vertical_spacing=0.04, row_heights=[0.28, 0.5, 0.055 * min(depth, 6)]
    )
    edges = np.linspace(first, max(last, first + 1), _BINS + 1)
    figure.add_scatter(
        x=[ns_in(at - first, unit) for at in edges[:-1].tolist()],
        y=100 * covered_between(*union(start, end), edges[:-1], edges[1:]) / np.diff(edges),
        name="GPU busy",
        mode="lines",
        line={"color": _BUSY, "width": 1, "shape": "hv"},
        fill="tozeroy",
        hovertemplate="%{y:.0f} %",
        row=1,
        col=1,
    )
    figure.update_yaxes(ticksuffix=" %", range=[0, 105], gridcolor=GRID, fixedrange=True, nticks=3, row=1, col=1)
    when = timeline["time_us"].to_numpy() * NS_PER_US - base_ns
    shown = timeline[(when >= first) & (when <= last)]
    columns = ["reserved_bytes", "allocated_bytes"]
    _add_lines(figure, shown, columns, byte_unit(shown[columns].max()), _Clock(base_ns + first, unit), row=2)

    def tip(row: dict[str, Any]) -> str:
        """What a region took on the host, and what it launched and held."""
        return (
            f"{fmt_ns(row['length'])} on the host<br>"
            f"GPU busy {fmt_ns(row['busy_ns'])} ({row['gpu_events']:,} GPU events)<br>"
            f"peak {fmt_bytes(row['peak_bytes'])}, allocated {fmt_bytes(row['allocated_bytes'])}"
        )

    _add_bands(figure, regions, tip, _Clock(first, unit), _BANDS_OF_BOTH, row=3)
    _lay_out(figure, 440 + 24 * depth, f" {unit}")
    figure.update_layout(bargap=0)
    figure.update_xaxes(range=[0, ns_in(last - first, unit)])
    figure.update_xaxes(title="since the first region began", row=3, col=1)
    return figure


def _lay_out(figure: go.Figure, height: int, suffix: str) -> None:
    figure.update_layout(
        height=height, margin={**MARGIN, "t": 26}, hovermode="x unified", barmode="overlay", legend=LEGEND_ABOVE
    )
    figure.update_xaxes(showgrid=False, ticksuffix=suffix, tickformat=",")


def _add_lines(
    figure: go.Figure, timeline: pd.DataFrame, columns: Sequence[str], unit: ByteUnit, clock: _Clock, *, row: int
) -> None:
    """What was allocated and reserved, thinned so that every visible peak stays, and a diamond on the highest."""
    thin = timeline.iloc[keep_peaks(timeline["allocated_bytes"].to_numpy(np.int64), _POINTS)]
    when = [clock.since(us * NS_PER_US) for us in thin["time_us"].tolist()]
    for column, name, colour, fill in _LINES:
        if column in columns:
            figure.add_scatter(
                x=when,
                y=[bytes_in(size, unit) for size in thin[column].tolist()],
                name=name,
                mode="lines",
                line={"color": colour, "width": 1.6, "shape": "hv", "dash": "dash" if fill is None else "solid"},
                fill=fill,
                hovertemplate=f"%{{y:,.1f}} {unit}",
                row=row,
                col=1,
            )
    figure.update_yaxes(ticksuffix=f" {unit}", rangemode="tozero", gridcolor=GRID, fixedrange=True, row=row, col=1)
    if timeline.empty:
        return
    peak = timeline.iloc[int(timeline["allocated_bytes"].to_numpy().argmax())]
    highest = int(peak["allocated_bytes"])
    x, y = clock.since(int(peak["time_us"]) * NS_PER_US), bytes_in(highest, unit)
    figure.add_scatter(
        x=[x],
        y=[y],
        mode="markers",
        marker={"color": MARK, "size": 10, "symbol": "diamond"},
        showlegend=False,
        hovertemplate=f"peak {fmt_bytes(highest)}<extra></extra>",
        row=row,
        col=1,
    )
    figure.add_annotation(
        x=x,
        y=y,
        text=f"<b>peak {fmt_bytes(highest, unit)}</b>",
        showarrow=False,
        yshift=14,
        font={"color": MARK, "size": 13},
        row=row,
        col=1,
    )


def _add_bands(
    figure: go.Figure, spans: pd.DataFrame, tip: Callable[[dict[str, Any]], str], clock: _Clock, most: int, *, row: int
) -> None:
    """One bar an opened region, a row a nesting level. Takes spans with path, start_ns and end_ns."""
    colours = region_colours(name for path in spans["path"] for name in path)
    whole = max(1, int(spans["end_ns"].max() - spans["start_ns"].min()))
    longest = spans.assign(length=spans["end_ns"] - spans["start_ns"]).nlargest(most, "length")
    rows = [{str(name): value for name, value in one.items()} for one in longest.to_dict("records")]
    figure.add_bar(
        x=[clock.length(one["length"]) for one in rows],
        base=[clock.since(one["start_ns"]) for one in rows],
        y=[len(one["path"]) for one in rows],
        orientation="h",
        width=0.86,
        marker={"color": [colours[one["path"][-1]] for one in rows]},
        text=[
            escape(one["path"][-1], 24) if one["length"] * _BAND_LETTERS > whole * len(one["path"][-1]) else ""
            for one in rows
        ],
        textposition="inside",
        insidetextanchor="middle",
        constraintext="none",
        textangle=0,
        showlegend=False,
        hovertemplate=[f"<b>{escape(fmt_path(one['path']), 120)}</b><br>{tip(one)}<extra></extra>" for one in rows],
        row=row,
        col=1,
    )
    depth = int(spans["path"].map(len).max())
    figure.update_yaxes(visible=False, range=[depth + 0.5, 0.5], fixedrange=True, row=row, col=1)
