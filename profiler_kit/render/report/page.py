"""The report: one HTML file that shows runs with no network and no server.

The page may load nothing: its content policy allows its own style and script, by hash. It can be read without the
script, which only sorts tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from profiler_kit.findings.records import record_facts, what_ran
from profiler_kit.formats.ladder_record import LadderRecord
from profiler_kit.formats.run_record import RunRecord
from profiler_kit.render.bars import facts
from profiler_kit.render.html import Colours, asset, page
from profiler_kit.render.ladder_style import ladder_facts
from profiler_kit.render.report.all_tables import all_tables
from profiler_kit.render.report.compare import comparison, side_by_side
from profiler_kit.render.report.layers import heat_styles, layer_section
from profiler_kit.render.report.memory import SHOWN, memory_section
from profiler_kit.render.report.overview import overview
from profiler_kit.render.report.section import Block, Section, colours_of, warning
from profiler_kit.render.report.trace import shown_tables, trace_sections
from profiler_kit.run import Run, compare_runs
from profiler_kit.version import __version__


@dataclass(frozen=True)
class Article:
    """One of several runs."""

    anchor: str
    title: str
    facts: str
    sections: Sequence[Section]


def report_page(runs: Sequence[Run], ladders: Sequence[tuple[Path, LadderRecord]] = ()) -> str:
    """A self-contained page on one run, or on several: then the first is what the others are compared with.

    ladders: folders and what their results.json say, each a section at the end. Raises ValueError without either.
    """
    names = [run.name for run in runs] or [folder.resolve().name for folder, _ in ladders]
    if not names:
        raise ValueError("expected a run or a ladder to report on")
    colours, several = colours_of(runs), len(runs) > 1
    sections = list(_compared(runs, colours) if several else _of_run(runs[0], "", colours) if runs else ())
    articles = [
        Article(f"run{number}", run.name, _facts(run), list(_of_run(run, f"run{number}-", colours)))
        for number, run in enumerate(runs if several else ())
    ]
    measured = list(_ladders(ladders))
    return page(
        "report.html.j2",
        style=asset("report.css") + asset("parts.css") + heat_styles(),
        script=asset("report.js"),
        images=bool(ladders),
        title=" → ".join(names),
        facts=f"{len(runs)} runs, compared with the first" if several else _facts(runs[0]) if runs else
        ladder_facts(ladders[0][1])[0],
        links=[(one.anchor, one.title) for part in (sections, articles, measured) for one in part if one.title],
        sections=sections, articles=articles, ladders=measured, version=__version__,
    )  # fmt: skip


def _ladders(ladders: Sequence[tuple[Path, LadderRecord]]) -> Iterator[Section]:
    for number, (folder, record) in enumerate(ladders):
        from profiler_kit.render.report.ladder import ladder_section  # plotly and Pillow, which a run does not need

        yield ladder_section(folder, record, f"ladder{number}")


def _facts(run: Run) -> str:
    if run.record is None and run.path.is_file():
        return "A file of its own: no run.json says what ran."
    return what_ran(run.record)


def _compared(runs: Sequence[Run], colours: Colours) -> Iterator[Section]:
    """Runs beside each other, then each against the first."""
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
