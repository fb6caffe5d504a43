"""`profiler-kit sequences TRACE`: kernels that often follow one another."""

from __future__ import annotations

from typing import Annotated

import typer

from profiler_kit.cli.output import (
    AsJson,
    Top,
    TraceFile,
    check_top,
    open_trace,
    print_json,
    print_table,
    records,
    says_no_gpu,
)


def command(
    trace: TraceFile,
    as_json: AsJson = False,
    length: Annotated[
        int, typer.Option("--length", help="Kernels in a row; 0 takes all that one call of the operator launched.")
    ] = 3,
    operator: Annotated[
        str | None, typer.Option("--operator", help="Only under outermost operators whose name contains this.")
    ] = None,
    top: Top = 20,
) -> None:
    """Say which kernels often follow one another under one operator: what a fused kernel could replace."""
    check_top(top)
    loaded = open_trace(trace)
    totals = loaded.kernel_sequences(length=length or None, operator=operator)
    if as_json:
        print_json(records(totals))
        return
    if says_no_gpu(loaded):
        return
    from profiler_kit.names import short_kernel
    from profiler_kit.text import fmt_count, fmt_ns

    rows = [
        (
            " → ".join(short_kernel(name) for name in row["kernels"]),
            row["operator"],
            fmt_count(row["count"]),
            fmt_count(row["calls"]),
            fmt_ns(row["sum_ns"], "ms"),
            fmt_ns(row["gap_ns"], "ms"),
        )
        for row in records(totals.head(top))
    ]
    columns = ("kernels", "operator", "count", "calls", "sum", "between them")
    print_table(
        f"{loaded.path}: {min(top, len(totals))} of {len(totals)} sequences",
        columns,
        rows,
        left=2,
        optional=("calls", "between them"),
    )
