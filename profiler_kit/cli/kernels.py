"""`profiler-kit kernels TRACE`: GPU work by kernel."""

from __future__ import annotations

from typing import Annotated

import typer

from profiler_kit.cli.output import AsJson, TraceFile, open_trace, print_json, print_table, records, says_no_gpu
from profiler_kit.errors import OptionError

OPTIONAL = ("min", "max", "device", "category", "stream", "mean")  # go first where the terminal is narrow


def command(
    trace: TraceFile,
    as_json: AsJson = False,
    region: Annotated[
        str | None, typer.Option("--region", help="Only what this region launched, nested regions included.")
    ] = None,
    top: Annotated[int, typer.Option("--top", help="Rows of the table; --json prints all.")] = 30,
) -> None:
    """Say how long each kernel, memory copy and memory set took, by name, stream and device."""
    if top < 1:
        raise OptionError(f"--top {top}: want at least 1 row. Try: --top 30")
    loaded = open_trace(trace)
    totals = loaded.kernels(region=region) if region is not None else loaded.kernels()
    if as_json:
        print_json(records(totals))
        return
    from profiler_kit.text import fmt_count, fmt_kernel, fmt_ns, fmt_percent

    if says_no_gpu(loaded):
        return
    everything = int(totals["sum_ns"].sum())
    rows = [
        (
            fmt_kernel(row["name"]),
            row["category"],
            str(row["device"]),
            str(row["stream"]),
            fmt_count(row["count"]),
            fmt_ns(row["sum_ns"], "ms"),
            fmt_percent(row["sum_ns"] / everything if everything else None),
            fmt_ns(row["mean_ns"], "µs"),
            fmt_ns(row["min_ns"], "µs"),
            fmt_ns(row["max_ns"], "µs"),
        )
        for row in records(totals.head(top))
    ]
    where = f" in region {region!r}" if region is not None else ""
    columns = ("name", "category", "device", "stream", "count", "sum", "of sum", "mean", "min", "max")
    print_table(
        f"{loaded.path}: {min(top, len(totals))} of {len(totals)} rows{where}", columns, rows, left=2, optional=OPTIONAL
    )
