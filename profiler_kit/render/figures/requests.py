"""The waterfall of requests: what the slowest of them waited for, one bar a request."""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from profiler_kit.analyses.serving.requests import REQUESTS, STAGES
from profiler_kit.render.figures.style import GRID, MARGIN
from profiler_kit.text import fmt_ns, ns_in, time_unit
from profiler_kit.timeline.palette import HUES


def request_waterfall(requests: pd.DataFrame, *, most: int = 30) -> go.Figure:
    """The slowest requests, the slowest on top, from arrival to answer in stages. Takes REQUESTS, not empty."""
    REQUESTS.check(requests)
    slow = requests.sort_values("latency_ns", ascending=False, kind="stable").head(most)
    unit = time_unit(slow["latency_ns"].dropna().tolist())
    names = [f"request {number}" for number in slow["id"].tolist()]
    figure = go.Figure()
    for stage, colour in zip(STAGES, HUES, strict=False):
        column = f"{stage}_ns"
        values = slow[column].fillna(0).tolist()
        figure.add_bar(
            x=[ns_in(value, unit) for value in values],
            y=names,
            orientation="h",
            name=REQUESTS.label(column),
            marker={"color": colour, "line": {"width": 0}},
            customdata=[fmt_ns(value) for value in values],
            hovertemplate="%{y}<br>%{fullData.name} %{customdata}<extra></extra>",
        )
    figure.update_layout(
        barmode="stack",
        height=90 + 18 * len(slow),
        margin=MARGIN,
        bargap=0.25,
        legend={"orientation": "h", "x": 0, "y": 1.02, "yanchor": "bottom", "traceorder": "normal"},
        xaxis={"ticksuffix": f" {unit}", "tickformat": ",", "gridcolor": GRID, "fixedrange": True},
        yaxis={"autorange": "reversed", "fixedrange": True},
    )
    return figure
