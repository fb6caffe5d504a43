"""Runs beside each other, and what changed between them, as sections of a report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pandas as pd
from markupsafe import Markup

from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.findings.compare import of_comparison
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.records import what_ran
from profiler_kit.render.html import Colours, HtmlColumn, table, table_html
from profiler_kit.render.report.section import Block, Section
from profiler_kit.render.svg import bar
from profiler_kit.run import Run
from profiler_kit.tables import tables_of
from profiler_kit.text import MISSING
from profiler_kit.timeline.palette import HUES, NEUTRAL, colour_of


def side_by_side(runs: Sequence[Run]) -> Section:
    """One row a run with the numbers that sum it up."""
    shown = [{one.name: one for one in numbers(run)} for run in runs]
    columns = [HtmlColumn("run", [run.name for run in runs], "text")]
    for name in dict.fromkeys(name for one in shown for name in one if name != "Events in the trace"):
        known = [one[name] for one in shown if name in one]
        if known:
            cells = [one[name].value if name in one else MISSING for one in shown]
            columns.append(HtmlColumn(name, cells, meaning=known[0].meaning))
    ran = [what_ran(run.record) if run.record else MISSING for run in runs]
    drawn = table([*columns, HtmlColumn("what ran", ran, "prose")], "Runs beside each other", sortable=False)
    return Section("side-by-side", "Runs beside each other", rows=[[Block("", drawn)]])


def comparison(a: Run, b: Run, found: Comparison, colours: Colours, anchor: str = "", title: str = "") -> Section:
    """What changed from A to B: sentences, then the tables of a comparison, the long ones folded."""
    said = of_comparison(found, (a.record, b.record))
    rows = [[one] for one in _blocks(found, colours)]
    return Section(anchor, title, said=said[0] if said else None, lines=said[1:], rows=rows)


def _blocks(found: Comparison, colours: Colours) -> Iterator[Block]:
    for one in tables_of("diff"):
        filled = one.of_source({"B": found}, run="B")
        hues = colours if one.tree else None
        bars = HtmlColumn("", list(_pairs(filled.frame, hues)), "pair")
        body = table_html(filled, top=one.top, colours=hues, extra=[bars], brief=True)
        yield Block(one.title[:1].upper() + one.title[1:], body, folded=one.top is not None)


def _pairs(rows: pd.DataFrame, colours: Colours | None) -> Iterator[Markup]:
    """Both values of each row as bars, A above B."""
    both = rows[["a_ns", "b_ns"]].fillna(0.0)
    longest = float(both.to_numpy().max(initial=0.0)) or 1.0
    for path, a, b in zip(rows["path"], both["a_ns"], both["b_ns"], strict=True):
        colour = colour_of(colours, path[-1]) if colours else HUES[0]
        yield bar(a / longest, NEUTRAL, height=6) + bar(b / longest, colour, height=8)
