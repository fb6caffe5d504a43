"""`profiler-kit ranks TRACE ...`: the ranks of one job side by side, and which of them the others wait for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from profiler_kit.cli.output import AsJson, print_json, print_table, records
from profiler_kit.progress import progress_bar


def command(
    traces: Annotated[
        list[Path], typer.Argument(metavar="TRACE...", help="A folder with one trace per rank, or the traces.")
    ],
    as_json: AsJson = False,
) -> None:
    """Compare the ranks of one job: busy, communication, and who waited for whom in its collectives."""
    from profiler_kit.ranks import load_ranks

    with progress_bar("Loading the ranks") as report:
        ranks = load_ranks(traces[0] if len(traces) == 1 else traces, report=report)
    for trace in ranks.traces.values():
        for line in trace.losses():
            typer.echo(f"profiler-kit: {line}", err=True)
    totals = records(ranks.totals())
    if as_json:
        print_json(totals)
        return
    from profiler_kit.text import fmt_count, fmt_ns, fmt_percent

    rows = [
        (
            str(row["rank"]),
            fmt_ns(row["total_ns"], "ms"),
            fmt_percent(row["busy_ns"] / row["total_ns"] if row["total_ns"] else None),
            fmt_ns(row["computation_ns"], "ms"),
            fmt_ns(row["communication_ns"], "ms"),
            fmt_ns(row["exposed_communication_ns"], "ms"),
            fmt_count(row["collectives"]),
            fmt_ns(row["wait_ns"], "ms"),
            fmt_count(row["arrived_last"]),
            fmt_ns(row["held_ns"], "ms"),
        )
        for row in totals
    ]
    columns = (
        "rank",
        "total",
        "busy",
        "computation",
        "communication",
        "exposed",
        "collectives",
        "waited",
        "arrived last",
        "held others",
    )
    where = str(traces[0]) if len(traces) == 1 else f"{len(rows)} ranks"
    print_table(f"{where}: ranks side by side", columns, rows, optional=("computation", "collectives", "total"))
    if not any(row["collectives"] for row in totals):
        typer.echo("No collective was recorded on two ranks: nothing can be said of who waited for whom.")
