"""Runs beside each other, and what changed between them, as sections of a report."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from profiler_kit.analyses.compare.traces import Change, Comparison
from profiler_kit.findings.compare import changed, noise, of_comparison
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.records import what_ran
from profiler_kit.names import fit_names
from profiler_kit.render.html import Colours, HtmlColumn, region_name, table
from profiler_kit.render.report.section import Block, Section
from profiler_kit.render.svg import bar, draw
from profiler_kit.run import Run
from profiler_kit.text import MISSING, fmt_count, fmt_ns, fmt_path, time_unit
from profiler_kit.timeline.palette import HUES, NEUTRAL, colour_of

ROWS: Final = 15
NAME_LETTERS: Final = 46
_CLASSES: Final = {"slower": "slower", "faster": "faster", "added": "new", "removed": "new", "same": "same"}
_TOTALS: Final = {"latency": "latency, recorded without the profiler", "trace": "first to last event"}


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
    """What changed from A to B: sentences, totals and regions, then kinds of work, kernels and operators."""
    said = of_comparison(found, (a.record, b.record))
    per = f"per {found.round}" if found.round else "in all"
    names = {**_TOTALS, "round": f"{found.round}, on the host"}
    regions = found.of("region", found.metric) or found.of("region", "host")
    region_title = f"Regions: {'host' if found.metric == 'host' else 'GPU busy'} time {per}"
    return Section(
        anchor, title, said=said[0] if said else None, lines=said[1:],
        rows=[
            [Block("Totals", changes(found.of("total"), "", names=names))],
            [Block(region_title, changes(regions, "region", colours=colours))],
            [Block(f"GPU work by kind, {per}", changes(found.of("work"), "kind"))],
            [Block(f"Kernels that changed most, {per}", changes(found.of("kernel"), "kernel", most=ROWS), folded=True)],
            [Block(f"Operators that changed most, self time on the host {per}",
                   changes(found.of("operator"), "operator", most=ROWS), folded=True)],
        ],
    )  # fmt: skip


def changes(
    rows: Sequence[Change],
    what: str,
    *,
    names: dict[str, str] | None = None,
    colours: Colours | None = None,
    most: int | None = None,
) -> Markup:
    """A table of changes with both values as bars, A above B; empty without rows.

    colours: of regions; then the rows are a tree. most: rows shown.
    """
    left = 0 if most is None else len(rows) - most
    rows = rows[:most]
    hues = [colour_of(colours, row.path[-1]) if colours is not None else HUES[0] for row in rows]
    plain = [(names or {}).get(row.path[-1], row.path[-1]) for row in rows]
    cells: Sequence[str | Markup] = fit_names(plain, NAME_LETTERS)
    titles = [long if long != text else "" for long, text in zip(plain, cells, strict=True)]
    if colours is not None:
        cells = [region_name(hue, name, len(row.path) - 1) for hue, name, row in zip(hues, cells, rows, strict=True)]
        titles = [fmt_path(row.path) for row in rows]
    values = [[side.value_ns if side else None for side in (row.a, row.b)] for row in rows]
    known = [value for pair in values for value in pair if value is not None]
    longest, unit = max(filter(None, known), default=1.0), time_unit(known)
    columns = [
        HtmlColumn(what, cells, "text", titles=titles),
        HtmlColumn("", [_pair(pair, longest, hue) for pair, hue in zip(values, hues, strict=True)], "pair"),
        *(
            HtmlColumn(f"{name}, {unit}", [fmt_ns(pair[side], unit).removesuffix(f" {unit}") for pair in values])
            for side, name in enumerate("AB")
        ),
        HtmlColumn("change", [_changed(row) for row in rows], meaning="B against A; same: within the noise."),
        HtmlColumn("noise", [noise(row) for row in rows], meaning="How far apart the two may be by chance."),
    ]
    more = f"{fmt_count(left)} more changed less." if left > 0 else ""
    return table(columns, what or "totals", sortable=False, more=more)


def _pair(pair: Sequence[float | None], longest: float, colour: str) -> Markup:
    return bar((pair[0] or 0.0) / longest, NEUTRAL, height=6) + bar((pair[1] or 0.0) / longest, colour, height=8)


def _changed(row: Change) -> Markup:
    return draw('<span class="change {}">{}</span>', _CLASSES[row.status], changed(row))
