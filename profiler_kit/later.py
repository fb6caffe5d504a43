"""Functions of later stages that objects offer as their own methods (`trace.sql(...)`, a cell of a notebook).

What holds data must not import what draws it: the import graph would be a knot, and loading a trace would load every
figure. So such a method finds its function by name when it is called, as the command line finds its commands, and
this table is the only place that may look ahead.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol

_CARDS: Final = "profiler_kit.render.notebook"
LATER: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("run_card", "trace_card", "timeline_card", "layers_card", "memory_card", "comparison_card"), _CARDS
    ),
    **dict.fromkeys(("record_card", "folder_card", "table_card", "ReportPage", "framed"), _CARDS),
    **dict.fromkeys(("findings_of", "findings_of_trace", "findings_of_snapshot"), "profiler_kit.findings.collect"),
    "findings_of_job": "profiler_kit.findings.ranks",
    "losses": "profiler_kit.findings.quality",
    "memory_page": "profiler_kit.render.memory_page.page",
    "comparison_markdown": "profiler_kit.render.report.markdown",
    "select": "profiler_kit.sql",
    "sources": "profiler_kit.sql_arrow",
    "fill": "profiler_kit.tables",
}


class Shown(Protocol):
    """Something that a notebook shows."""

    def _repr_html_(self) -> str: ...


class Page(Shown, Protocol):
    """A whole page: it shows itself in a frame, and can be saved."""

    def markdown(self) -> str:
        """The same, short, to paste into a pull request."""

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the page, whole or not at all."""


def later(name: str) -> Callable[..., Any]:
    """The function of that name, its module imported now."""
    found: Callable[..., Any] = getattr(importlib.import_module(LATER[name]), name)
    return found


def shown(card: str, *what: object) -> str:
    """The HTML of a card: what `_repr_html_` returns."""
    made: Shown = later(card)(*what)
    return made._repr_html_()
