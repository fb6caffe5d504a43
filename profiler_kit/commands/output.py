"""What commands share: JSON on stdout, tables with aligned numbers, the loading of a trace behind a bar."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler_kit.progress import progress_bar

if TYPE_CHECKING:
    import pandas as pd

    from profiler_kit.trace import Trace

TraceFile = Annotated[
    Path,
    typer.Argument(metavar="TRACE", help="A chrome trace (.json, .json.gz) or a run folder that holds one."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
LinkedOnly = Annotated[
    bool,
    typer.Option("--linked-only", help="Count only GPU events whose launch and its flow arrow are both in the trace."),
]


def open_trace(path: Path) -> Trace:
    """Load a trace, or the trace of a run folder, behind a progress bar; what was lost is said on stderr."""
    from profiler_kit.record import TRACE
    from profiler_kit.trace import load_trace

    # unlike Path.is_file, os.path says no to a name that is too long: load_trace then tells
    file = path / TRACE if os.path.isfile(path / TRACE) else path  # noqa: PTH113
    with progress_bar(f"Loading {file.name}") as report:
        trace = load_trace(file, report=report)
    for line in trace.losses():
        typer.echo(f"profiler-kit: {line}", err=True)
    return trace


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain values for JSON and for tables: paths become lists, missing values None."""
    import pandas as pd

    rows = []
    for row in frame.to_dict("records"):
        values = {str(key): list(value) if isinstance(value, tuple) else value for key, value in row.items()}
        rows.append({key: None if value is pd.NA else value for key, value in values.items()})
    return rows


def print_json(value: object) -> None:
    """Print JSON, non-ASCII kept readable where the terminal's encoding has it.

    A file name that is no UTF-8 keeps its bytes as escapes (\\udcff), so that what is printed stays JSON.
    """
    text = json.dumps(value, indent=2, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8", "strict")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=2)
    typer.echo(text)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], *, left: int = 1) -> None:
    """Print a table; the first `left` columns are text, the others numbers aligned to the right.

    Text folds rather than disappears; without a terminal the table is as wide as it needs to be.
    """
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not console.is_terminal:
        console.width = 10_000
    console.print(Text(title, style="bold"), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", no_wrap=number >= left, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
