"""What all Plotly figures share: margins, grid, room for legends, and text that Plotly shows as it is."""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import Final

import plotly.graph_objects as go

from profiler_kit.text import TimeUnit

MARGIN: Final = {"l": 0, "r": 8, "t": 8, "b": 0, "pad": 4}
GRID: Final = "rgba(128,128,128,0.18)"
LEGEND_ABOVE: Final = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0}  # a legend above the plot
LEGEND_BELOW: Final = {"orientation": "h", "y": 0, "yref": "container", "yanchor": "bottom", "x": 0}
LETTER_PX: Final = 7
NAMES: Final = {"type": "category", "autorange": "reversed", "fixedrange": True}  # an axis of names, the first on top
Figure = go.Figure


def legend_px(names: Sequence[str], page_px: int = 540) -> int:
    """The height of a horizontal legend on a page that wide: of the narrowest that is drawn, in a window of 800.

    For figures whose margins do not expand by themselves: Plotly draws those twice to find out.
    """
    key_px, line_px = 50, 20
    lines, left = 0, 0
    for name in names:
        left -= key_px + LETTER_PX * len(name)
        if left < 0:
            lines, left = lines + 1, page_px - key_px - LETTER_PX * len(name)
    return line_px * lines


def time_axis(unit: TimeUnit, **more: object) -> dict[str, object]:
    """An axis that counts time in that unit and is not zoomed."""
    return {"ticksuffix": f" {unit}", "tickformat": ",", "gridcolor": GRID, "fixedrange": True, **more}


def escape(text: str, most: int = 80) -> str:
    """Text that plotly shows as it is (it reads a subset of HTML), cut to `most` characters."""
    cut = text if len(text) <= most else text[: most - 1] + "…"
    return html.escape("".join(c if c.isprintable() else "�" for c in cut), quote=False)


def standalone(figure: go.Figure, title: str) -> str:
    """One HTML page with the figure, as large as its window; everything it needs is inside (plotly.js, 4.8 MB)."""
    page: str = figure.to_html(include_plotlyjs=True, full_html=True, config={"displaylogo": False, "responsive": True})
    return page.replace("<head>", f"<head><title>{html.escape(title)}</title>", 1)
