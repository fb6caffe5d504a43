"""`profiler-kit regions TRACE`: GPU work by the region of code that launched it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from profiler_kit.commands.output import AsJson, TraceFile, open_trace, print_json, print_table, records

if TYPE_CHECKING:
    import pandas as pd


def command(trace: TraceFile, as_json: AsJson = False) -> None:
    """Say how much GPU time each region (record_function) launched, nested regions included."""
    loaded = open_trace(trace)
    totals = loaded.regions()
    if as_json:
        print_json(records(totals))
        return
    print_table(f"{loaded.path}: GPU time by region", REGION_COLUMNS, region_rows(totals))


REGION_COLUMNS = ("region", "instances", "GPU events", "sum", "busy", "span", "self", "host", "launches")


def region_rows(totals: pd.DataFrame) -> list[tuple[str, ...]]:
    """Rows of a table, nested regions indented below their parents."""
    from profiler_kit.views.text import fmt_count, fmt_ns

    return [
        (
            "  " * (len(row["path"]) - 1) + row["path"][-1],
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
