"""`profiler-kit regions TRACE`: GPU work by the region of code that launched it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from profiler_kit.cli.output import AsJson, TraceFile, open_trace, print_json, print_table, records

if TYPE_CHECKING:
    import pandas as pd


def command(
    trace: TraceFile,
    memory: Annotated[
        Path | None,
        typer.Option("--memory", metavar="SNAPSHOT", help="Set the memory of a snapshot recorded at once beside it."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say how much GPU time each region (record_function) launched, nested regions included.

    With --memory (a snapshot, or the run folder of both) also how much memory each region allocated, on one clock.
    """
    if memory is not None:
        from profiler_kit.cli.joined import show_joined

        show_joined(trace, memory, as_json=as_json)
        return
    loaded = open_trace(trace)
    totals = loaded.regions()
    if as_json:
        print_json(records(totals))
        return
    print_regions(str(loaded.path), totals)
    if not totals["gpu_events"].sum():
        from profiler_kit.analyses.gpu.gpu_presence import what_ran
        from profiler_kit.render.verdict import missing_gpu

        truncated, metadata = loaded.quality.truncated, loaded.metadata
        presence = what_ran(loaded.gpu_events(), loaded.launch_calls(), truncated=truncated, metadata=metadata)
        typer.echo(missing_gpu(presence))


OPTIONAL = ("launches", "self", "span", "GPU events", "host", "instances")  # go first where the terminal is narrow


def print_regions(title: str, totals: pd.DataFrame) -> None:
    """Print a table of regions; host time alone when nothing ran on a GPU."""
    if totals["gpu_events"].sum():
        columns = ("region", "instances", "GPU events", "sum", "busy", "span", "self", "host", "launches")
        print_table(f"{title}: GPU time by region", columns, _gpu_rows(totals), optional=OPTIONAL)
    else:
        print_table(
            f"{title}: host time by region (no GPU events)", ("region", "instances", "host"), _host_rows(totals)
        )


def _gpu_rows(totals: pd.DataFrame) -> list[tuple[str, ...]]:
    from profiler_kit.text import fmt_count, fmt_ns

    return [
        (
            _indented(row["path"]),
            fmt_count(row["instances"]),
            fmt_count(row["gpu_events"]),
            fmt_ns(row["sum_ns"], "ms"),
            fmt_ns(row["busy_ns"], "ms"),
            fmt_ns(row["span_ns"], "ms"),
            fmt_ns(row["self_sum_ns"], "ms"),
            fmt_ns(row["host_ns"], "ms"),
            fmt_count(row["launches"]),
        )
        for row in records(totals)
    ]


def _host_rows(totals: pd.DataFrame) -> list[tuple[str, ...]]:
    from profiler_kit.text import fmt_count, fmt_ns

    return [
        (_indented(row["path"]), fmt_count(row["instances"]), fmt_ns(row["host_ns"], "ms")) for row in records(totals)
    ]


def _indented(path: list[str]) -> str:
    """Nested regions stand below their parents, indented."""
    return "  " * (len(path) - 1) + path[-1]
