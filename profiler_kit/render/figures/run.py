"""Plotly figures of a whole run: what the GPU did and why it was idle, and how long each iteration took."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from profiler_kit.analyses.gpu.regions import innermost
from profiler_kit.analyses.gpu.timeline import GpuTimeline
from profiler_kit.analyses.gpu.utilization import CAUSE_OF
from profiler_kit.analyses.serving.batches import GPU_IDLE, Served, request_parts
from profiler_kit.render.figures.style import LEGEND_ABOVE, MARGIN, NAMES, escape, time_axis
from profiler_kit.text import fmt_ns, fmt_path, fmt_percent, ns_in, time_unit
from profiler_kit.timeline.palette import ACTIVITY, HUES, IDLE, IDLE_CAUSE, MARK, region_colours
from profiler_kit.units import ns_to_ms


def activity_bar(gpu_timeline: GpuTimeline) -> go.Figure:
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
        hovertemplate=f"iteration %{{x}}<br>%{{y:,.3f}} {unit}<extra></extra>",
    )
    figure.add_hline(y=median, line={"color": MARK, "width": 1.5, "dash": "dot"})
    figure.update_layout(
        showlegend=False,
        height=190,
        margin=MARGIN,
        bargap=0.35,
        xaxis={
            "title": "timed iteration",
            "fixedrange": True,
            "showgrid": False,
            "tick0": 1,
            "dtick": max(1, -(-len(values) // 12)),  # whole iterations, at most a dozen of them
            "range": [0.4, len(values) + 0.6],
        },
        yaxis=time_axis(unit, rangemode="tozero", nticks=5),
    )
    return figure


def request_waterfall(served: Served, *, most: int = 30) -> go.Figure:
    """The slowest requests, the slowest on top, from arrival to answer in stages and parts of their batches."""
    slow = served.requests.sort_values("latency_ns", ascending=False, kind="stable").head(most)
    ids = slow["id"].tolist()
    parts = request_parts(served).query("id in @ids")
    unit = time_unit(slow["latency_ns"].dropna().tolist())
    # in the order of the slowest request, then what only others have
    names = list(dict.fromkeys([*parts.loc[parts["id"] == ids[0], "part"], *parts["part"]]))
    # what the server does in greys, the queue apart; hues for the parts of the batch, as on the timeline
    greys = ("#C4C8CE", "#9AA1AB", "#6F7782", "#565D67")
    apart = {"queue": MARK, GPU_IDLE: IDLE}
    server = [part for part in dict.fromkeys(parts.loc[parts["place"] == "server", "part"]) if part not in apart]
    plain = {**dict(zip(server, itertools.cycle(greys))), **apart}
    colours = {**region_colours([name for name in names if name not in plain]), **plain}
    figure = go.Figure()
    for name in names:
        mine = parts[parts["part"] == name].set_index("id")
        values = mine["dur_ns"].reindex(ids, fill_value=0).tolist()
        figure.add_bar(
            x=[ns_in(value, unit) for value in values],
            y=[f"request {number}" for number in ids],
            orientation="h",
            name=name,
            marker={"color": colours[name], "line": {"width": 0}},
            customdata=[f"{fmt_ns(value)} ({mine['place'].iloc[0]})" for value in values],
            hovertemplate="%{y}<br>%{fullData.name} %{customdata}<extra></extra>",
        )
    figure.update_layout(
        barmode="stack",
        height=190 + 18 * len(slow),
        margin=MARGIN,
        bargap=0.25,
        legend={**LEGEND_ABOVE, "y": 1.02, "traceorder": "normal"},
        xaxis=time_axis(unit),
        yaxis={"autorange": "reversed", "fixedrange": True},
    )
    return figure


def batch_occupancy(batches: pd.DataFrame, most: int) -> go.Figure:
    """How many batches held how many requests, up to the `most` that they may. Takes BATCHES, not empty."""
    sizes = range(1, max(most, int(batches["batch_size"].max())) + 1)
    counts = batches["batch_size"].value_counts().reindex(sizes, fill_value=0)
    figure = go.Figure(
        go.Bar(
            x=[str(size) for size in sizes],
            y=counts.tolist(),
            marker={"color": HUES[0], "line": {"width": 0}},
            hovertemplate="%{y} batches of %{x}<extra></extra>",
        )
    )
    figure.update_layout(
        height=220,
        margin=MARGIN,
        xaxis={"title": "requests in a batch", "type": "category", "fixedrange": True},
        yaxis={"title": "batches", "fixedrange": True, "rangemode": "tozero"},
    )
    return figure


def step_times(steps: pd.DataFrame) -> go.Figure:
    """How long each iteration took, outliers marked, and what differs in each when pointed at. Takes STEPS."""
    unit = time_unit([int(steps["wall_ns"].max())])
    rows = steps.to_dict("records")
    figure = go.Figure(
        go.Bar(
            x=[f"{row['step']}" for row in rows],
            y=[ns_in(row["wall_ns"], unit) for row in rows],
            marker={"color": [MARK if row["outlier"] else HUES[0] for row in rows], "line": {"width": 0}},
            customdata=[_differs(row) for row in rows],
            hovertemplate="step %{x}<br>%{customdata}<extra></extra>",
        )
    )
    figure.add_hline(y=ns_in(float(steps["wall_ns"].median()), unit), line={"color": MARK, "width": 1.5, "dash": "dot"})
    figure.update_layout(
        height=220,
        margin=MARGIN,
        bargap=0.25,
        showlegend=False,
        xaxis={"type": "category", "title": str(rows[0]["name"]), "fixedrange": True, "nticks": 24},
        yaxis=time_axis(unit, rangemode="tozero"),
    )
    return figure


def _differs(row: Mapping[Any, Any]) -> str:
    """Of a row of STEPS: its time, and what exceeds that of the median step."""
    said = [f"{fmt_ns(row['wall_ns'])}, {fmt_percent(row['median_share'])} of the median"]
    said += [f"idle {fmt_ns(row['more_idle_ns'])} more"] if row["more_idle_ns"] > 0 else []
    for what in ("region", "kernel"):
        if row[what]:
            said.append(f"{escape(str(row[what]))} {fmt_ns(row[f'{what}_ns'])} more")
    return "<br>".join(said)


def idle_by_region(utilization: pd.DataFrame, *, most: int = 14) -> go.Figure:
    """Idle time of the innermost regions by cause, the longest on top. Takes REGION_UTILIZATION."""
    paths = [tuple(path) for path in utilization["path"]]
    rows = dict(zip(paths, utilization.to_dict("records"), strict=True))
    shown = [path for path, ns in innermost(paths, utilization["idle_ns"].tolist()) if ns][:most]
    unit = time_unit([rows[path]["idle_ns"] for path in shown])
    names = [escape(fmt_path(path[-2:]), 60) for path in shown]
    figure = go.Figure()
    for column, name in CAUSE_OF.items():
        values = [rows[path][column] for path in shown]
        if any(values):
            figure.add_bar(
                x=[ns_in(value, unit) for value in values],
                y=names,
                orientation="h",
                name=name,
                marker={"color": IDLE_CAUSE[name], "line": {"width": 0}},
                customdata=[fmt_ns(value) for value in values],
                hovertemplate="%{y}<br>%{fullData.name} %{customdata}<extra></extra>",
            )
    figure.update_layout(
        barmode="stack",
        height=70 + 28 * max(2, len(shown)),
        margin=MARGIN,
        bargap=0.3,
        legend={**LEGEND_ABOVE, "traceorder": "normal"},
        xaxis=time_axis(unit),
        yaxis={**NAMES, "automargin": True},
    )
    return figure
