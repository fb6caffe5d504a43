"""Every table of a run that no section of the report shows, its first rows folded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from profiler_kit.errors import KitError
from profiler_kit.render.html import Colours, table_html
from profiler_kit.render.report.section import Block, Section
from profiler_kit.run import Run
from profiler_kit.table import Of
from profiler_kit.tables import tables_of
from profiler_kit.text import fmt_count

ROWS, RAW_ROWS = 5, 3  # of what a command prints, and of the events and intervals behind it
_LEAD: Final = "The first rows of each; profiler-kit prints them whole, as text, JSON or CSV."


def all_tables(run: Run, colours: Colours, prefix: str, shown: Sequence[str]) -> Section:
    """A folded block for each table of the trace, the memory snapshot and the layers but those `shown` elsewhere."""
    sources: tuple[tuple[Of, Any], ...] = (
        ("trace", run.trace),
        ("snapshot", run.snapshot),
        ("layers", run.layers),
        ("requests", run.requests),
    )
    blocks: list[Block] = []
    empty: list[str] = []
    raw: list[str] = []
    for of, source in sources:
        if source is not None:
            raw += [table.name for table in tables_of(of) if table.arrow is not None]
            blocks += _blocks(of, source, colours, shown, empty)
    notes = [f"Without rows: {', '.join(empty)}."] if empty else []
    notes += [f"By SQL only, as they are as long as the file: {', '.join(raw)}."] if raw else []
    return Section(f"{prefix}tables", "All tables", notes=notes, rows=[[one] for one in blocks], lead=_LEAD)


def _blocks(of: Of, source: Any, colours: Colours, shown: Sequence[str], empty: list[str]) -> Iterator[Block]:
    for table in tables_of(of):
        if table.name in shown or table.arrow is not None:
            continue
        try:
            filled = table.of_source(source)
        except KitError:  # a table of something that this run does not hold
            empty.append(table.title)
            continue
        if not len(filled):
            empty.append(table.title)
            continue
        title = f"{table.title[:1].upper()}{table.title[1:]} ({fmt_count(len(filled))})"
        yield Block(
            title, table_html(filled, top=ROWS if table.command else RAW_ROWS, colours=colours, brief=True), folded=True
        )
