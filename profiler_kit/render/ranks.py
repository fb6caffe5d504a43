"""Plotly figures of the ranks of one job (RANK_TOTALS, COLLECTIVE_WAITS)."""

from __future__ import annotations

from typing import Final

import pandas as pd
import plotly.graph_objects as go

from profiler_kit.analyses.ranks.ranks import COLLECTIVE_WAITS, RANK_TOTALS
from profiler_kit.analyses.ranks.trend import TREND
from profiler_kit.render.figures.style import GRID, LEGEND_ABOVE, MARGIN, NAMES, escape, time_axis
from profiler_kit.text import TimeUnit, fmt_ns, fmt_percent, ns_in, time_unit
from profiler_kit.timeline.palette import ACTIVITY, HUES, NEUTRAL

BARS: Final = 24  # ranks drawn
POINTS: Final = 2_000  # collectives drawn: those that waited longest
_PARTS: Final = (
    ("Computation", "computation_ns", ACTIVITY["computation"]),
    ("Communication, exposed", "exposed_communication_ns", ACTIVITY["communication"]),
    ("Memory copies, exposed", "exposed_memcpy_ns", ACTIVITY["memcpy"]),
    ("Idle", "idle_ns", ACTIVITY["idle"]),
)


def most_telling(totals: pd.DataFrame) -> pd.DataFrame:
    """RANK_TOTALS of at most BARS ranks: half of them have most own work, the others waited longest."""
    if len(totals) <= BARS:
        return totals
    most = totals.nlargest(BARS // 2, "more_ns").index
    rest = totals.drop(most).nlargest(BARS - len(most), "wait_ns").index
    return totals.loc[most.union(rest)].reset_index(drop=True)


def rank_bars(totals: pd.DataFrame) -> go.Figure:
    """What each rank's GPU did from its first event to its last, in ms. Takes RANK_TOTALS."""
    RANK_TOTALS.check(totals)
    unit = time_unit(totals["total_ns"])
    ranks = [f"rank {rank}" for rank in totals["rank"]]
    figure = go.Figure()
    for name, column, colour in _PARTS:
        if not totals[column].any():
            continue
        figure.add_bar(
            y=ranks,
            x=[ns_in(value, unit) for value in totals[column]],
            orientation="h",
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=[
                f"{fmt_ns(value)}, {fmt_percent(value / max(1, whole))}"
                for value, whole in zip(totals[column], totals["total_ns"], strict=True)
            ],
            hovertemplate=f"%{{y}}: {name}<br>%{{customdata}}<extra></extra>",
        )
    return _stacked(figure, len(ranks), unit)


def wait_bars(totals: pd.DataFrame) -> go.Figure:
    """Communication of each rank: waiting for the others, and the rest. Takes RANK_TOTALS."""
    RANK_TOTALS.check(totals)
    unit = time_unit(totals["communication_ns"])
    ranks = [f"rank {rank}" for rank in totals["rank"]]
    # collectives of one rank may overlap: their waits can add up to more than the union of its communication
    rest = (totals["communication_ns"] - totals["wait_ns"]).clip(lower=0)
    figure = go.Figure()
    for name, values, colour in (
        ("Waiting for another rank", totals["wait_ns"], HUES[6]),
        ("Communicating", rest, ACTIVITY["communication"]),
    ):
        figure.add_bar(
            y=ranks,
            x=[ns_in(value, unit) for value in values],
            orientation="h",
            name=name,
            marker={"color": colour, "line": {"width": 0}},
            customdata=[fmt_ns(value) for value in values],
            hovertemplate=f"%{{y}}: {name}<br>%{{customdata}}<extra></extra>",
        )
    return _stacked(figure, len(ranks), unit)


def _stacked(figure: go.Figure, rows: int, unit: TimeUnit) -> go.Figure:
    figure.update_layout(
        barmode="stack",
        bargap=0.35,
        height=95 + 34 * max(2, rows),
        margin=MARGIN,
        legend={**LEGEND_ABOVE, "traceorder": "normal"},
        xaxis=time_axis(unit),
        yaxis=NAMES,
    )
    return figure


def run_lines(runs: pd.DataFrame) -> go.Figure:
    """How long a step takes from run to run, and how much of that is exposed communication. Takes TREND."""
    TREND.check(runs)
    unit = time_unit(runs["step_p99_ns"].dropna())
    figure = go.Figure()
    exposed = runs["step_ns"] * runs["exposed_communication_ns"] / runs["total_ns"].where(runs["total_ns"] > 0)
    for name, values, colour in (
        ("99 % of steps", runs["step_p99_ns"], NEUTRAL),
        ("Median step", runs["step_ns"], HUES[0]),
        ("Exposed communication", exposed, ACTIVITY["communication"]),
    ):
        figure.add_scatter(
            x=runs["run"],
            y=[None if pd.isna(value) else ns_in(value, unit) for value in values],
            mode="lines+markers",
            name=name,
            line={"color": colour},
            text=[escape(f"{run}: {verdict}") for run, verdict in zip(runs["run"], runs["verdict"], strict=True)],
            hovertemplate=f"%{{text}}<br>{name}: %{{y:,.3f}} {unit}<extra></extra>",
        )
    figure.update_layout(
        height=280,
        margin=MARGIN,
        showlegend=True,
        legend=LEGEND_ABOVE,
        xaxis={"type": "category", "showgrid": False},
        yaxis={"ticksuffix": f" {unit}", "rangemode": "tozero", "tickformat": ",", "gridcolor": GRID},
    )
    return figure


def wait_points(waits: pd.DataFrame) -> go.Figure:
    """How long each collective made a rank wait at most, in order, in the colour of the rank that came last.

    Takes COLLECTIVE_WAITS. Of more than POINTS those that waited longest are drawn; ranks for which others waited most
    have a colour of their own.
    """
    worst = COLLECTIVE_WAITS.check(waits).head(POINTS).sort_values("collective")
    unit = time_unit(worst["wait_ns"])
    figure = go.Figure()
    longest = worst.groupby("last_rank")["wait_ns"].sum().nlargest(len(HUES)).index.tolist()
    rest = worst[~worst["last_rank"].isin(longest)]
    parts = [(f"rank {rank} last", worst[worst["last_rank"] == rank]) for rank in sorted(longest)]
    for number, (said, mine) in enumerate([*([("another last", rest)] if len(rest) else []), *parts]):
        figure.add_scatter(
            x=mine["collective"],
            y=[ns_in(value, unit) for value in mine["wait_ns"]],
            mode="markers",
            name=said,
            marker={"color": NEUTRAL if mine is rest else HUES[(number - bool(len(rest))) % len(HUES)], "size": 7},
            text=[
                f"{escape(name, 60)}<br>rank {rank} last"
                for name, rank in zip(mine["name"], mine["last_rank"], strict=True)
            ],
            hovertemplate=f"collective %{{x}}: %{{y:,.3f}} {unit}<br>%{{text}}<extra></extra>",
        )
    figure.update_layout(
        height=280,
        margin=MARGIN,
        showlegend=True,
        legend=LEGEND_ABOVE,
        xaxis={"title": "collective, in order", "tickformat": ",", "showgrid": False},
        yaxis={"ticksuffix": f" {unit}", "rangemode": "tozero", "tickformat": ",", "gridcolor": GRID},
    )
    return figure
