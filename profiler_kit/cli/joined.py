"""Regions of a trace with their memory beside them, for `profiler-kit regions TRACE --memory SNAPSHOT`."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from profiler_kit.cli.output import open_trace, print_json, print_table, records

if TYPE_CHECKING:
    import pandas as pd

OPTIONAL = ("sum", "GPU events", "net", "instances")  # go first where the terminal is narrow


def show_joined(trace: Path, memory: Path, *, as_json: bool) -> None:
    """Print the regions that both files hold; of a run folder, the trace of the batch its snapshot is of."""
    from profiler_kit.formats.run_record import MEMORY, MEMORY_TRACE
    from profiler_kit.joined import join_run
    from profiler_kit.snapshot import load_snapshot

    def inside(path: Path, name: str) -> Path:
        return path / name if os.path.isfile(path / name) else path  # noqa: PTH113 - says no to a name too long

    joined = join_run(open_trace(inside(trace, MEMORY_TRACE)), load_snapshot(inside(memory, MEMORY)))
    totals = joined.region_totals()
    if as_json:
        print_json({"clock": asdict(joined.clock), "regions": records(totals)})
        return
    columns = ("region", "instances", "GPU events", "sum", "busy", "peak", "allocated", "net")
    title = f"{joined.trace.path}: GPU time and memory by region"
    print_table(title, columns, _rows(totals), optional=OPTIONAL)
    found = joined.clock
    typer.echo(
        f"{joined.snapshot.path} and the trace disagree by {found.median_us:.1f} µs (median of {found.readings} region "
        f"boundaries; p99 {found.p99_us:.1f} µs, at most {found.max_us:.1f} µs)."
    )


def _rows(totals: pd.DataFrame) -> list[tuple[str, ...]]:
    from profiler_kit.text import fmt_bytes, fmt_count, fmt_ns

    several = totals["device"].nunique() > 1
    return [
        (
            "  " * (len(row["path"]) - 1) + row["path"][-1] + (f" (GPU {row['device']})" if several else ""),
            fmt_count(row["instances"]),
            fmt_count(row["gpu_events"]),
            fmt_ns(row["sum_ns"], "ms"),
            fmt_ns(row["busy_ns"], "ms"),
            fmt_bytes(row["peak_bytes"]),
            fmt_bytes(row["allocated_bytes"]),
            fmt_bytes(row["net_bytes"]),
        )
        for row in records(totals)
    ]
