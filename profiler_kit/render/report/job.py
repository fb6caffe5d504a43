"""A job of several ranks in the report and as Markdown: who holds it up, since when, by what, what it would gain."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from profiler_kit.finding import Finding, of_kind
from profiler_kit.findings.ranks import numbers_of_job
from profiler_kit.ranks import Ranks
from profiler_kit.render.html import table_html
from profiler_kit.render.markdown import document
from profiler_kit.render.rank_heat import HELP, heat_map
from profiler_kit.render.report.section import Block, Section
from profiler_kit.table import Filled
from profiler_kit.tables import tables_of
from profiler_kit.text import fmt_count

# What is open, with how many rows; everything else that has rows is folded.
SHOWN: Final[Mapping[str, int]] = {
    "rank_what_if": 8, "slow_parts": 8, "slow_names": 8, "rank_outliers": 10, "bandwidths": 12, "rank_memory": 10,
}  # fmt: skip
LAID_OUT: Final = (
    ("rank_what_if", "slow_parts"),
    ("slow_names",),
    ("rank_outliers",),
    ("bandwidths",),
    ("rank_memory",),
)
IN_MARKDOWN: Final[Mapping[str, int]] = {
    "rank_outliers": 5, "slow_parts": 7, "slow_names": 5, "rank_what_if": 5, "bandwidths": 8, "step_times": 10,
    "rank_memory": 5,
}  # fmt: skip
FIRST_ROWS: Final = 10


def name_of(ranks: Ranks) -> str:
    """The job by the name of its folder."""
    return Path(ranks.path).name or ranks.path


def job_section(ranks: Ranks, anchor: str) -> Section:
    """The verdict, the map of ranks and steps, and every table of the job."""
    found = ranks.findings()
    first, *more = of_kind(found, "ranks")
    tables = {one.table.name: one for one in _filled(ranks)}
    blocks = {
        name: Block(one.table.heading, table_html(one, top=SHOWN.get(name, FIRST_ROWS), brief=name not in SHOWN))
        for name, one in tables.items()
    }
    rows = [[Block("Ranks and steps", heat_map(ranks.steps()), HELP)]]
    rows += [[blocks[name] for name in beside if name in blocks] for beside in LAID_OUT]
    rows += [
        [Block(f"{block.title} ({fmt_count(len(tables[name]))})", block.body, folded=True)]
        for name, block in blocks.items()
        if name not in SHOWN
    ]
    return Section(
        anchor,
        f"Ranks of {name_of(ranks)}",
        said=first,
        lines=[*map(_detail, first.details), *more],
        warnings=of_kind(found, "lost"),
        numbers=numbers_of_job(ranks),
        rows=rows,
    )


def job_markdown(ranks: Ranks) -> str:
    """The same, short enough for a pull request."""
    found = ranks.findings()
    said = [*(f"{one.name}: {one.value}" for one in numbers_of_job(ranks))]
    lines = [line for one in found for line in (one.line, *one.details)]
    filled = {one.table.name: one for one in _filled(ranks)}
    tables = [(filled[name], top, n > 1) for n, (name, top) in enumerate(IN_MARKDOWN.items()) if name in filled]
    return document(f"Ranks of {name_of(ranks)}", [*lines, ", ".join(said) + "."], tables)


def _detail(text: str) -> Finding:
    return Finding("detail", "ranks", ((text, False),))


def _filled(ranks: Ranks) -> Iterator[Filled]:
    """The tables of a job that have rows, but those as long as its traces and those that need another run."""
    for table in tables_of("job"):
        if (table.command or table.name == "collective_waits") and not table.options:
            filled = table.of_source(ranks)
            if len(filled):
                yield filled
