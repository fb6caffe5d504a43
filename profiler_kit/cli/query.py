"""`profiler-kit query FILE "SELECT ..."`: SQL over a trace, a snapshot, a run folder that holds both, or a job."""

from __future__ import annotations

import csv
import functools
import io
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import pandas as pd
import typer

from profiler_kit.cli.output import AsCsv, AsJson, check_formats, open_ranks, open_requests, open_trace
from profiler_kit.errors import OptionError
from profiler_kit.names import csv_cell, fit_names
from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    from profiler_kit.sql_arrow import Source
    from profiler_kit.table import Of, Table

SHOWN_ROWS: Final = 1000
EXAMPLE: Final = "SELECT name, sum(dur_ns) AS ns FROM gpu_events GROUP BY name ORDER BY ns DESC LIMIT 10"
HINT: Final = "Record a run with: profiler-kit capture --out DIR"


def command(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="A chrome trace, a memory snapshot, a run folder that holds them, or a job: its folder or JOB.ranks.",
        ),
    ],
    query: Annotated[
        str | None, typer.Argument(metavar="QUERY", help=f"One SELECT in DuckDB's SQL, such as: {EXAMPLE}")
    ] = None,
    tables: Annotated[bool, typer.Option("--tables", help="List the tables and their columns instead.")] = False,
    as_json: AsJson = False,
    as_csv: AsCsv = False,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory",
            help="Keep a trace's events on disk; only events, launches, gpu_events and threads can be queried.",
        ),
    ] = False,
) -> None:
    """Ask a trace, a snapshot or the ranks of a job with SQL. A query sees the tables only: no files, no network.

    A trace that does not fit into the free memory is asked as with --low-memory, with a note on stderr.
    """
    check_formats(as_json, as_csv)
    if tables:
        _print_tables(file, as_json=as_json, spilled=low_memory)
        return
    if query is None or not query.strip():
        raise OptionError(f"QUERY: missing, expected one SELECT. Try: profiler-kit query {file} '{EXAMPLE}'")
    result = _ask(query, file, low_memory=low_memory)
    if as_csv:
        typer.echo(_csv(result), nl=False)
    elif as_json:
        rows = [dict(zip(map(str, result.columns), row, strict=True)) for row in _rows(result)]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        _print_result(result)


def _parts(file: Path) -> tuple[Path | None, Path | None]:
    """The trace and the snapshot that a path names; raises InputError when there is nothing there."""
    from profiler_kit.files import require_file
    from profiler_kit.formats.run_record import MEMORY, TRACE
    from profiler_kit.load.discover.runs import part_file
    from profiler_kit.load.snapshot.reader import is_snapshot

    if any(found := (part_file(file, TRACE), part_file(file, MEMORY))):
        return found
    require_file(file, "a chrome trace, a memory snapshot or a run folder", HINT)
    return (None, file) if is_snapshot(file) else (file, None)


def _is_job(file: Path) -> bool:
    from profiler_kit.load.rank_store import is_job

    return is_job(file)


def _tables_of_jobs() -> list[Table]:
    """The tables of a job but those that need more than it."""
    from profiler_kit.tables import tables_of

    return [table for table in tables_of("job") if not table.options]


def _tables_in(file: Path) -> list[Table]:
    """The tables that a file, or the two files of a run folder, can be asked for."""
    from profiler_kit.formats.run_record import REQUESTS
    from profiler_kit.load.discover.runs import part_file
    from profiler_kit.tables import tables_of

    if _is_job(file):
        return _tables_of_jobs()
    trace, memory = _parts(file)
    parts: dict[Of, object] = {"trace": trace, "snapshot": memory, "requests": part_file(file, REQUESTS)}
    return [table for of, part in parts.items() if part for table in tables_of(of)]


def _ask(query: str, file: Path, *, low_memory: bool) -> pd.DataFrame:
    """The result; from a file of events on disk when asked for, or when the trace does not fit into memory."""
    from profiler_kit.load.trace.cached import free_memory_bytes, needed_memory_bytes, spilled_trace
    from profiler_kit.sql import select, select_spilled

    is_job = _is_job(file)
    trace = None if is_job else _parts(file)[0]
    if trace is None and low_memory:
        what = "a job" if is_job else "a memory snapshot"
        raise OptionError(f"--low-memory: {file} is {what}, expected a trace. Leave the option out.")
    if trace is not None and not low_memory:
        needed, free = needed_memory_bytes(trace), free_memory_bytes()
        low_memory = free is not None and needed > free
        if low_memory:
            from profiler_kit.text import fmt_bytes

            said = f"{trace}: needs about {fmt_bytes(needed)} of memory, {fmt_bytes(free)} are free"
            typer.echo(f"profiler-kit: {said}: running as with --low-memory, without regions", err=True)
    if trace is None or not low_memory:
        return select(query, _sources(file))
    with progress_bar(f"Loading {trace.name}") as report, spilled_trace(trace, report=report) as spilled:
        return select_spilled(query, spilled)


def _sources(file: Path) -> dict[str, Source]:
    """What fills each table; a file is loaded when the first of its tables is asked for."""
    from profiler_kit.snapshot import load_snapshot
    from profiler_kit.sql_arrow import sources

    trace, memory = (None, None) if _is_job(file) else _parts(file)

    @functools.cache
    def of(part: Of) -> dict[str, Source]:
        if part == "job":
            return sources("job", open_ranks([str(file)]))
        if part == "trace":
            assert trace is not None
            return sources("trace", open_trace(trace))
        if part == "requests":
            return sources("requests", open_requests(file))
        assert memory is not None
        with progress_bar(f"Loading {memory.name}") as report:
            return sources("snapshot", load_snapshot(memory, report=report))

    return {
        table.name: functools.partial(lambda table: of(table.of)[table.name](), table) for table in _tables_in(file)
    }


def _print_tables(file: Path, *, as_json: bool, spilled: bool) -> None:
    from profiler_kit.sql_arrow import SPILLED, describe, sql_columns
    from profiler_kit.tables import every_table

    found = _tables_in(file)  # also where only the spilled ones are asked for: a missing file is an error
    tables = [every_table()[name] for name in SPILLED] if spilled else found
    if not as_json:
        typer.echo(describe(tables, spilled=spilled))
        return
    value = [
        {
            "table": table.name,
            "row": table.schema.row,
            "columns": [
                {"name": name, "type": kind, "meaning": text}
                for name, (kind, text) in sql_columns(table, spilled=spilled).items()
            ],
        }
        for table in tables
    ]
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _rows(frame: pd.DataFrame) -> list[tuple[object, ...]]:
    """Rows as values that JSON knows; what is missing or no number is None."""
    return list(zip(*(_values(frame.iloc[:, n]) for n in range(frame.shape[1])), strict=True))


def _values(column: pd.Series[Any]) -> list[object]:
    known = {str, int, bool, list, dict}
    values: list[object] = []
    for value in column.tolist():
        if type(value) in known:
            values.append(value)
        elif value is None or value is pd.NA or value is pd.NaT:
            values.append(None)
        elif isinstance(value, float):
            values.append(value if math.isfinite(value) else None)
        else:
            values.append(str(value))
    return values


def _csv(frame: pd.DataFrame) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(str, frame.columns))
    for row in _rows(frame):
        writer.writerow("" if value is None else _cell(value) for value in row)
    return text.getvalue()


def _cell(value: object) -> str:
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False, default=str)
    return "" if value is None else str(csv_cell(value))


def _print_result(frame: pd.DataFrame) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Grid
    from rich.text import Text

    from profiler_kit.render.layout import KERNEL_LETTERS

    console = Console()
    if not console.is_terminal:
        console.width = 10_000
    grid = Grid(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, name in enumerate(map(str, frame.columns)):
        numeric = frame.iloc[:, number].dtype.kind in "iuf"
        grid.add_column(Text(name), justify="right" if numeric else "left", no_wrap=numeric, overflow="fold")
    columns = [
        ["–" if value is None else _cell(value) for value in column]
        for column in zip(*_rows(frame.head(SHOWN_ROWS)), strict=True)
    ]
    shown = columns if console.is_terminal else [fit_names(cells, KERNEL_LETTERS) for cells in columns]
    for row in zip(*shown, strict=True):
        grid.add_row(*map(Text, row))
    console.print(grid)
    if shown != columns:
        typer.echo(f"Texts are shortened to {KERNEL_LETTERS} letters: print them whole with --csv or --json")
    if len(frame) > SHOWN_ROWS:
        typer.echo(f"{SHOWN_ROWS} of {len(frame)} rows: add LIMIT, or print all with --csv or --json")
