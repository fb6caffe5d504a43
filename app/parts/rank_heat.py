"""The heat map of ranks and steps: own work beyond that of its peers; a click opens that rank's timeline there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import numpy as np
import streamlit as st

from app import cache
from app.parts import timeline_parts, widgets
from profiler_kit.load.discover.jobs import Job
from profiler_kit.ranks import Ranks
from profiler_kit.render.rank_heat import HELP, LESS, MORE, grid_of, order_of

CLICK: Final = (
    " A click, or Enter, opens the rank's timeline at that step, with the nearest ranks below it on one clock."
)
ORDER: Final = "Ranks by number, by node or by group; a click then shows ranks of that group."
BY_RANK: Final = "rank"
OPENED_IN: Final = "order-opened-in"  # the order in which a rank was opened: after Back the address does not have it
_HERE: Final = Path(__file__).parent
_HTML: Final = (
    '<div class="heat"><canvas tabindex="0" role="application" aria-label="Ranks and steps: arrows move, Enter opens">'
    '</canvas><div class="tip" role="status"></div></div>'
)
_CSS: Final = """
.heat { position: relative; font-family: var(--st-font, sans-serif); color: var(--st-text-color); }
.heat canvas { display: block; width: 100%; cursor: pointer; }
.heat canvas:focus-visible { outline: 2px solid var(--st-primary-color); outline-offset: 2px; }
.heat .tip { position: absolute; pointer-events: none; display: none; padding: 4px 8px; font-size: 12px; z-index: 5;
  border-radius: 6px; background: var(--st-background-color); white-space: nowrap;
  border: 1px solid color-mix(in srgb, var(--st-text-color) 28%, transparent); }
"""
_component = st.components.v2.component(
    "profiler_kit_ranks",
    html=_HTML,
    css=_CSS,
    js="\n".join((_HERE / name).read_text(encoding="utf-8") for name in ("timeline_js/text.js", "rank_heat.js")),
)


def show(ranks: Ranks, job: Job) -> None:
    """Draw the map, in an order that the reader chooses."""
    steps = ranks.steps()
    if steps.empty:
        return
    st.subheader("Ranks and steps", help=HELP + CLICK)
    kinds = list(dict.fromkeys(ranks.places()["kind"]))
    first = str(st.session_state.get(OPENED_IN, BY_RANK))
    kind = widgets.switch("Order by", [BY_RANK, *kinds], "order", meaning=ORDER, first=first) if kinds else BY_RANK
    _draw(ranks, job, kind)


@st.fragment
def _draw(ranks: Ranks, job: Job, kind: str) -> None:
    grid = grid_of(ranks.steps())
    order = order_of([int(rank) for rank in grid.index], ranks.places(), kind)
    values = grid.loc[[rank for rank, _ in order]].to_numpy(dtype=float)
    most = float(np.nanmax(np.abs(values)))  # one rank in a thousand is what is looked for: no quantile, which hides it
    clicked = _component(
        key=f"heat-{kind}-{len(order)}",
        data={
            "ranks": [rank for rank, _ in order],
            "groups": [group and f"{kind} {group}" for _, group in order],
            "steps": [int(step) for step in grid.columns],
            "values": [None if np.isnan(value) else float(value) for value in values.ravel()],
            "most": max(most, 1.0),
            "colours": [MORE, LESS],
        },
        on_cell_change=lambda: None,
    )
    if clicked.cell:
        _open(ranks, job, int(clicked.cell["rank"]), int(clicked.cell["step"]), kind)


def _open(ranks: Ranks, job: Job, rank: int, step: int, kind: str) -> None:
    """The rank's timeline, zoomed to that step, with the nearest ranks below it on its clock."""
    paths, steps = dict(job.ranks), ranks.steps()
    runs = {run.trace: run for run in cache.runs()}
    row = steps[(steps["rank"] == rank) & (steps["step"] == step)]
    run = runs.get(paths[rank])
    if run is None or row.empty:
        return
    st.session_state[OPENED_IN] = kind
    at_ns = int(row["start_ns"].iloc[0])
    beside = [(one, ranks.shift_ns(rank, one, at_ns)) for one in ranks.nearest(rank, kind) if paths[one] in runs]
    start, took = at_ns - cache.trace(run).base_ns - cache.timeline(run)[0].start_ns, int(row["wall_ns"].iloc[0])
    st.switch_page(
        "app_pages/timeline.py",
        query_params={
            "run": run.key,
            "beside": timeline_parts.named(tuple((runs[paths[one]], shift) for one, shift in beside)),
            "sel": f"{start}-{start + took}",
            "t0": str(start - took // 10),
            "t1": str(start + took + took // 10),
        },
    )
