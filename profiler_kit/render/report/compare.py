"""Runs beside each other and what changed between them (Runs, Comparison -> HTML)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from profiler_kit.analyses.compare.traces import Change, Comparison
from profiler_kit.findings.compare import changed, noise, of_comparison
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.records import what_ran
from profiler_kit.names import fit_names
from profiler_kit.render.report.parts import Colours, Column, folded, named, sentence, sub, table, times, verdict_line
from profiler_kit.render.svg import bar, escape
from profiler_kit.run import Run
from profiler_kit.text import MISSING, fmt_count, fmt_path
from profiler_kit.timeline.palette import HUES, NEUTRAL, colour_of

ROWS: Final = 15
NAME_LETTERS: Final = 46
_CLASSES: Final = {"slower": "slower", "faster": "faster", "added": "new", "removed": "new", "same": "same"}


def side_by_side(runs: Sequence[Run]) -> str:
    """One row a run with the numbers that sum it up."""
    shown = [{one.name: one for one in numbers(run)} for run in runs]
    wanted = ("Median latency", "Images a second", "GPU busy", "Busy while recorded", "Recorded span", "Peak memory")
    names = [name for name in wanted if any(name in one for one in shown)]
    meanings = {name: next(one[name].meaning for one in shown if name in one) for name in names}
    columns = [
        Column("run", [run.name for run in runs], "text"),
        *(
            Column(name, [one[name].value if name in one else MISSING for one in shown], "number", meanings[name])
            for name in names
        ),
        Column("what ran", [what_ran(run.record) if run.record else MISSING for run in runs], "prose"),
    ]
    return table(columns, "Runs beside each other", sortable=False)


def comparison(a: Run, b: Run, found: Comparison, colours: Colours) -> str:
    """What changed from A to B: sentences, totals and regions, then kinds of work, kernels and operators."""
    said = of_comparison(found, (a.record, b.record))
    lines = "".join(f"<li>{sentence(one)}</li>" for one in said[1:])
    per = f"per {found.round}" if found.round else "in all"
    host = found.metric == "host"
    regions = found.of("region", found.metric) or found.of("region", "host")
    return (
        verdict_line(said[0] if said else None)
        + (f'<ul class="said">{lines}</ul>' if lines else "")
        + sub("Totals", changes(found.of("total"), "", _total_names(found)))
        + sub(f"Regions: {'host' if host else 'GPU busy'} time {per}", changes(regions, "region", colours=colours))
        + sub(f"GPU work by kind, {per}", changes(found.of("work"), "kind"))
        + folded(f"Kernels that changed most, {per}", _most(found.of("kernel"), "kernel"))
        + folded(f"Operators that changed most, self time on the host {per}", _most(found.of("operator"), "operator"))
    )


def _total_names(found: Comparison) -> dict[str, str]:
    return {
        "latency": "latency, recorded without the profiler",
        "round": f"{found.round}, on the host",
        "trace": "first to last event",
    }


def _most(rows: Sequence[Change], what: str) -> str:
    more = len(rows) - ROWS
    note = f'<p class="note">{fmt_count(more)} more changed less.</p>' if more > 0 else ""
    return changes(rows[:ROWS], what) + note if rows else ""


def changes(
    rows: Sequence[Change], what: str, names: dict[str, str] | None = None, *, colours: Colours | None = None
) -> str:
    """A table of changes with both values as bars, A above B; empty without rows.

    colours: of regions; then the rows are a tree.
    """
    if not rows:
        return ""
    tree = colours is not None
    paths = [row.path for row in rows]
    hues = [colour_of(colours, path[-1]) if colours is not None else HUES[0] for path in paths]
    plain = [(names or {}).get(path[-1], path[-1]) for path in paths]
    shown = fit_names(plain, NAME_LETTERS)
    first = (
        Column(what, [named(hue, name, len(p) - 1) for hue, name, p in zip(hues, shown, paths, strict=True)], "html",
               full=[fmt_path(path) for path in paths])
        if tree
        else Column(what, shown, "text", full=plain)
    )  # fmt: skip
    values = [[side.value_ns if side else None for side in (row.a, row.b)] for row in rows]
    longest = max((value for pair in values for value in pair if value), default=1.0)
    columns = [
        first,
        Column("", [_pair(pair, longest, hue) for pair, hue in zip(values, hues, strict=True)], "html"),
        *_both(values),
        Column("change", [_changed(row) for row in rows], "html", "B against A; same: within the noise."),
        Column("noise", [noise(row) for row in rows], "number", "How far apart the two may be by chance."),
    ]
    return table(columns, what or "totals", sortable=False)


def _both(values: Sequence[Sequence[float | None]]) -> list[Column]:
    """Columns A and B in one unit, so that they can be compared at a glance."""
    joint = times("", [value for pair in values for value in pair])
    unit = joint.name.removeprefix(", ")
    return [Column(f"{name}, {unit}", joint.cells[number::2]) for number, name in enumerate("AB")]


def _pair(pair: Sequence[float | None], longest: float, colour: str) -> str:
    return bar((pair[0] or 0.0) / longest, NEUTRAL, height=6) + bar((pair[1] or 0.0) / longest, colour, height=8)


def _changed(row: Change) -> str:
    return f'<span class="change {_CLASSES[row.status]}">{escape(changed(row))}</span>'
