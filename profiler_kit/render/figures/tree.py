"""A tree of time as a Plotly figure: the icicle of the report, zoomed by a click."""

from __future__ import annotations

from typing import Final

import plotly.graph_objects as go

from profiler_kit.render.figures.style import MARGIN, escape
from profiler_kit.render.icicle import ROW_PX, boxes
from profiler_kit.table import BETWEEN, Filled

READABLE: Final = {"minsize": 10, "mode": "hide"}  # a name that has no room at that size is not written


def tree_figure(filled: Filled) -> go.Figure | None:
    """Each name as wide as its time, what it calls below; a click shows it alone. None where there is no tree."""
    found = boxes(filled)
    if not found:
        return None
    drawn = {box.path for box in found}
    kept = [box for box in found if all(box.path[:depth] in drawn for depth in range(1, len(box.path)))]
    figure = go.Figure(
        go.Icicle(
            ids=[BETWEEN.join(box.path) for box in kept],
            labels=[escape(box.name) for box in kept],
            parents=[BETWEEN.join(box.path[:-1]) for box in kept],
            values=[box.width for box in kept],
            branchvalues="total",
            marker={"colors": [box.colour for box in kept]},
            customdata=[escape(f"{BETWEEN.join(box.path)}: {box.said}", 400) for box in kept],
            hovertemplate="%{customdata}<extra></extra>",
            tiling={"orientation": "v"},
            sort=False,
        )
    )
    figure.update_layout(
        height=max(240, 2 * ROW_PX * max(len(box.path) for box in kept)), margin=MARGIN, uniformtext=READABLE
    )
    return figure
