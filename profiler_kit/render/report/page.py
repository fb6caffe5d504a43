"""The report: one HTML file that shows runs with no network and no server.

The page may load nothing: its content policy allows its own style and script, by hash. It can be read without the
script, which only sorts tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pandas as pd
from markupsafe import Markup

from profiler_kit.analyses.compare.traces import Comparison
from profiler_kit.analyses.gpu.utilization import REGION_UTILIZATION
from profiler_kit.errors import KitError
from profiler_kit.findings.compare import of_comparison
from profiler_kit.findings.no_rows import is_hollow, no_rows
from profiler_kit.findings.numbers import numbers
from profiler_kit.findings.records import notes, record_facts, what_ran
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.ranks import Ranks
from profiler_kit.render.bars import facts
from profiler_kit.render.html import Colours, HtmlColumn, asset, page, table, table_html, verdict_chip
from profiler_kit.render.icicle import icicle
from profiler_kit.render.ladder_style import ladder_facts
from profiler_kit.render.report.job import job_section, name_of
from profiler_kit.render.report.layers import heat_styles, layer_section
from profiler_kit.render.report.memory import SHOWN, memory_section
from profiler_kit.render.report.overview import overview
from profiler_kit.render.report.section import Block, Section, colours_of, warning
from profiler_kit.render.report.timeline import trace_timeline
from profiler_kit.render.svg import bar
from profiler_kit.run import Run, compare_runs
from profiler_kit.table import Filled, Of
from profiler_kit.tables import every_table, tables_of
from profiler_kit.tables.diff import TREE
from profiler_kit.text import MISSING, fmt_count
from profiler_kit.timeline.palette import HUES, NEUTRAL, colour_of
from profiler_kit.trace import Trace
from profiler_kit.version import __version__


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
    drawn = table([*columns, HtmlColumn("what ran", ran, "prose")], "Runs side by side", sortable=False)
    return Section("side-by-side", "Runs side by side", rows=[[Block("", drawn)]])


def comparison(a: Run, b: Run, found: Comparison, colours: Colours, anchor: str = "", title: str = "") -> Section:
    """What changed from A to B: sentences, then the tables of a comparison, the long ones folded."""
    said = of_comparison(found, (a.record, b.record))
    rows = [[one] for one in _blocks(found, colours)]
    if a.trace is not None and b.trace is not None:
        tree = TREE.of_source({"A": a.trace, "B": b.trace})
        rows.append(
            [Block(TREE.heading, icicle(tree), "Each as wide as in the longer run; red: more in B, blue: less.")]
        )
    return Section(anchor, title, said=said[0] if said else None, lines=said[1:], rows=rows)


def _blocks(found: Comparison, colours: Colours) -> Iterator[Block]:
    for one in tables_of("diff"):
        filled = one.of_source({"B": found}, run="B")
        hues = colours if one.tree else None
        bars = HtmlColumn("", list(_pairs(filled.frame, hues)), "pair")
        body = table_html(filled, top=one.top, colours=hues, extra=[bars], brief=True)
        yield Block(one.heading, body, folded=one.top is not None)


def _pairs(rows: pd.DataFrame, colours: Colours | None) -> Iterator[Markup]:
    """Both values of each row as bars, A above B."""
    both = rows[["a_ns", "b_ns"]].fillna(0.0)
    longest = float(both.to_numpy().max(initial=0.0)) or 1.0
    for path, a, b in zip(rows["path"], both["a_ns"], both["b_ns"], strict=True):
        colour = colour_of(colours, path[-1]) if colours else HUES[0]
        yield bar(a / longest, NEUTRAL, height=6) + bar(b / longest, colour, height=8)


REGIONS: Final = 40
ROWS: Final = {"kernels": 25, "operator_work": 20, "operator_sums": 20, "module_work": 30}
_TIMELINE: Final = (
    "All of the recording. Colour is the region. Where spans are too short to see, height is the share of busy time."
)


def shown_tables(*, on_gpu: bool) -> tuple[str, ...]:
    """The tables that sections show."""
    known = ("regions", "region_overview", "layer_totals")
    return (*known, "kernels", "operator_work", "module_work") if on_gpu else (*known, "operator_sums")


def trace_sections(run: Run, trace: Trace, colours: Colours, prefix: str, *, on_gpu: bool) -> Iterator[Section]:
    """Each with its heading; those with nothing to show are empty."""
    regions = every_table()["regions"].of_source(trace)
    why = no_rows(regions) if len(regions) and is_hollow(regions) else None  # without rows the table says it
    rows = [_regions(regions, run, colours, on_gpu=on_gpu)]
    yield Section(f"{prefix}regions", "Regions", notes=[why.line] if why is not None else [], rows=rows)
    picture = Block("", trace_timeline(trace, colours))
    yield Section(f"{prefix}timeline", "Timeline", rows=[[picture]], lead=_TIMELINE)
    yield Section(f"{prefix}kernels", "Kernels", rows=[[Block("", _top("kernels", trace))]] if on_gpu else ())
    operators = [Block("", _top("operator_work" if on_gpu else "operator_sums", trace))]
    has_modules = on_gpu and any(trace.module_work()["path"])
    modules = [Block("Modules", _top("module_work", trace))] if has_modules else []
    yield Section(f"{prefix}operators", "Operators and modules", rows=[operators, modules])


def _top(name: str, trace: Trace) -> Markup:
    filled = every_table()[name].of_source(trace)
    return table_html(filled, top=ROWS[name])


def _regions(filled: Filled, run: Run, colours: Colours, *, on_gpu: bool) -> list[Block]:
    """The tree of regions with what bounds each; the rest, where there are many, behind a line."""
    rest = len(filled) - REGIONS
    shown = [Block("", _region_rows(filled, run, colours, 0, on_gpu=on_gpu))]
    if rest > 0:
        most = 5 * REGIONS
        title = f"{fmt_count(rest)} more regions" if rest <= most else f"The next {most} of {fmt_count(rest)} regions"
        shown.append(Block(title, _region_rows(filled, run, colours, REGIONS, on_gpu=on_gpu), folded=True))
    return shown


def _region_rows(filled: Filled, run: Run, colours: Colours, start: int, *, on_gpu: bool) -> Markup:
    top = 5 * REGIONS if start else REGIONS
    chips = (
        [verdict_chip(run.bounds.get(path, "")) for path in filled.frame["path"][start : start + top]] if on_gpu else []
    )
    extra = [HtmlColumn("bound by", chips, "text", REGION_UTILIZATION.meaning("verdict"))] if on_gpu else []
    return table_html(filled, top=top, start=start, colours=colours, extra=extra, more=False)


@dataclass(frozen=True)
class Article:
    """One of several runs."""

    anchor: str
    title: str
    facts: str
    sections: Sequence[Section]


def report_page(
    runs: Sequence[Run], ladders: Sequence[tuple[Path, LadderRecord]] = (), jobs: Sequence[Ranks] = ()
) -> str:
    """A self-contained page on one run, or on several: then the first is what the others are compared with.

    ladders: folders and what their results.json say, each a section at the end. jobs: of several ranks, each a section
    before these. Raises ValueError without any of them.
    """
    names = [run.name for run in runs] or [*map(name_of, jobs)] or [folder.resolve().name for folder, _ in ladders]
    if not names:
        raise ValueError("expected a run, a job or a ladder to report on")
    colours, several = colours_of(runs), len(runs) > 1
    sections = list(_compared(runs, colours) if several else _of_run(runs[0], "", colours) if runs else ())
    articles = [
        Article(f"run{number}", run.name, _facts(run), list(_of_run(run, f"run{number}-", colours)))
        for number, run in enumerate(runs if several else ())
    ]
    measured = [job_section(job, f"job{number}") for number, job in enumerate(jobs)] + list(_ladders(ladders))
    return page(
        "report.html.j2",
        style=asset("report.css") + asset("parts.css") + heat_styles(),
        script=asset("report.js"),
        images=bool(ladders),
        title=" → ".join(names),
        facts=f"{len(runs)} runs, compared with the first" if several else _facts(runs[0]) if runs else
        ladder_facts(ladders[0][1])[0] if ladders else "",
        links=[(one.anchor, one.title) for part in (sections, articles, measured) for one in part if one.title],
        sections=sections, articles=articles, ladders=measured, version=__version__,
    )  # fmt: skip


def _ladders(ladders: Sequence[tuple[Path, LadderRecord]]) -> Iterator[Section]:
    for number, (folder, record) in enumerate(ladders):
        from profiler_kit.render.report.ladder import ladder_section  # plotly and Pillow, which a run does not need

        yield ladder_section(folder, record, f"ladder{number}")


def _facts(run: Run) -> str:
    if run.record is None and run.path.is_file():
        return "A single file: no run.json says what ran."
    return what_ran(run.record, run.broken_record)


def _compared(runs: Sequence[Run], colours: Colours) -> Iterator[Section]:
    """Runs side by side, then each against the first."""
    yield side_by_side(runs)
    for number, run in enumerate(runs[1:], 1):
        found = compare_runs(runs[0], run)
        anchor, title = f"compare-{number}", f"A: {runs[0].name} → B: {run.name}"
        if found is None:
            without = ", ".join(one.name for one in (runs[0], run) if one.trace is None)
            yield Section(anchor, title, warnings=[warning(f"Not compared: no trace in {without}.", "note")])
        else:
            yield comparison(runs[0], run, found, colours, anchor, title)


def _of_run(run: Run, prefix: str, colours: Colours) -> Iterator[Section]:
    """The sections of one run; those it holds nothing for are left out, and named in the overview."""
    yield overview(run, colours, prefix)
    if said := notes(run):
        yield Section(f"{prefix}notes", "Notes", lines=said)
    on_gpu = run.presence is not None and run.presence.ran == "gpu"
    sections = list(trace_sections(run, run.trace, colours, prefix, on_gpu=on_gpu)) if run.trace is not None else []
    sections.append(layer_section(run, prefix))
    if run.snapshot is not None:
        sections.append(memory_section(run.snapshot, colours, prefix, lead=run.trace is not None))
    sections += [record_section(run.record, prefix)] if run.record is not None else []
    sections.append(all_tables(run, colours, prefix, (*shown_tables(on_gpu=on_gpu), *SHOWN)))
    yield from (one for one in sections if not one.is_empty)


def record_section(record: RunRecord, prefix: str = "") -> Section:
    """What ran, one line a fact."""
    return Section(f"{prefix}what", "What ran", rows=[[Block("", facts(record_facts(record), "facts"))]])


FIRST_ROWS, RAW_ROWS = 5, 3  # of what a command prints, and of the events and intervals behind it
_LEAD: Final = "The first rows of each; profiler-kit prints all of them as text, JSON or CSV."


def all_tables(run: Run, colours: Colours, prefix: str, shown: Sequence[str]) -> Section:
    """A folded block for each table of the trace, the memory snapshot and the layers but those `shown` elsewhere."""
    sources: tuple[tuple[Of, Any], ...] = (
        ("trace", run.trace),
        ("snapshot", run.snapshot),
        ("layers", run.layers),
        ("requests", run.served),
    )
    blocks: list[Block] = []
    empty: dict[str, list[str]] = {}  # the titles of tables without rows, by what would give them some
    raw: list[str] = []
    for of, source in sources:
        if source is not None:
            raw += [table.name for table in tables_of(of) if table.arrow is not None]
            blocks += _tables(of, source, colours, shown, empty)
    notes = [f"Without rows: {', '.join(titles)}.{f' {why}' if why else ''}" for why, titles in sorted(empty.items())]
    notes += [f"By SQL only, because they are as long as the file: {', '.join(raw)}."] if raw else []
    return Section(f"{prefix}tables", "All tables", notes=notes, rows=[[one] for one in blocks], lead=_LEAD)


def _tables(
    of: Of, source: Any, colours: Colours, shown: Sequence[str], empty: dict[str, list[str]]
) -> Iterator[Block]:
    for one in tables_of(of):
        if one.name in shown or one.arrow is not None:
            continue
        try:
            filled = one.of_source(source)
        except KitError:  # a table of something that this run does not hold
            empty.setdefault("", []).append(one.title)
            continue
        if not len(filled):
            why = no_rows(filled)
            empty.setdefault(why.line if why is not None and why.attempt else "", []).append(one.title)
            continue
        body = table_html(filled, top=FIRST_ROWS if one.command else RAW_ROWS, colours=colours, brief=True)
        yield Block(f"{one.heading} ({fmt_count(len(filled))})", body, folded=True)
