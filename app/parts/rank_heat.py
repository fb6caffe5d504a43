"""The heat map of ranks and steps: own work beyond that of its peers; a click opens that rank's timeline there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import pandas as pd
import streamlit as st

from app import cache
from profiler_kit.load.discover.jobs import Job
from profiler_kit.text import fmt_ns

HELP: Final = (
    "Each rank's own work before its arrivals at collectives, against the median of ranks that run the same program: "
    "red is more, blue less. Who waits for another is not coloured. A click opens the rank's timeline at that step."
)
_HTML: Final = '<div class="heat"><canvas></canvas><div class="tip"></div></div>'
_CSS: Final = """
.heat { position: relative; font-family: var(--st-font, sans-serif); color: var(--st-text-color); }
.heat canvas { display: block; width: 100%; cursor: pointer; }
.heat .tip { position: absolute; pointer-events: none; display: none; padding: 4px 8px; font-size: 12px; z-index: 5;
  border-radius: 6px; background: var(--st-background-color); white-space: nowrap;
  border: 1px solid color-mix(in srgb, var(--st-text-color) 28%, transparent); }
"""
_component = st.components.v2.component(
    "profiler_kit_ranks",
    html=_HTML,
    css=_CSS,
    js=(Path(__file__).parent / "rank_heat.js").read_text(encoding="utf-8"),
)


def show(steps: pd.DataFrame, job: Job) -> None:
    """Draw the map. Takes STEPS_OF_RANKS."""
    grid = steps.pivot_table(index="rank", columns="step", values="more_ns", aggfunc="sum")
    values = grid.to_numpy(dtype=float)
    if not values.size:
        return
    most = float(np.nanmax(np.abs(values)))  # one rank in a thousand is what is looked for: no quantile, which hides it
    flat = [None if np.isnan(value) else float(value) for value in values.ravel()]
    ranks = [int(rank) for rank in grid.index]
    clicked = _component(
        key=f"heat-{len(ranks)}",
        data={
            "ranks": ranks,
            "labels": [f"rank {rank}" for rank in ranks],
            "steps": [int(step) for step in grid.columns],
            "values": flat,
            "texts": ["" if one is None else _text(one) for one in flat],
            "most": max(most, 1.0),
        },
        on_cell_change=lambda: None,
    )
    if clicked.cell:
        _open(job, steps, int(clicked.cell["rank"]), int(clicked.cell["step"]))


def _text(more: float) -> str:
    return f"{fmt_ns(abs(more))} {'more' if more >= 0 else 'less'} than its peers"


def _open(job: Job, steps: pd.DataFrame, rank: int, step: int) -> None:
    """The rank's timeline, zoomed to that step."""
    path = dict(job.ranks)[rank]
    run = next((run for run in cache.runs() if run.trace == path), None)
    row = steps[(steps["rank"] == rank) & (steps["step"] == step)]
    if run is None or row.empty:
        return
    base = cache.trace(run).base_ns + cache.timeline(run)[0].start_ns
    start = int(row["start_ns"].iloc[0]) - base
    st.switch_page(
        "app_pages/timeline.py",
        query_params={"run": run.key, "sel": f"{start}-{start + int(row['wall_ns'].iloc[0])}"},
    )
