"""`profiler-kit launches TRACE`: what launching costs, and how far the host ran ahead."""

from __future__ import annotations

from typing import Annotated

import typer

from profiler_kit.cli.output import AsJson, TraceFile, open_trace, print_json, print_table, records, says_no_gpu
from profiler_kit.errors import OptionError
from profiler_kit.units import us_to_ns


def command(
    trace: TraceFile,
    as_json: AsJson = False,
    slow_us: Annotated[float, typer.Option("--slow-us", help="Calls that took longer count as slow.")] = 50.0,
    delayed_us: Annotated[
        float, typer.Option("--delayed-us", help="Calls whose work began later than this count as delayed.")
    ] = 100.0,
) -> None:
    """Say how long launches took, how many were longer than what they launched, and how much work was queued."""
    for option, value in (("--slow-us", slow_us), ("--delayed-us", delayed_us)):
        if not 0 <= value < 1e9:
            raise OptionError(f"{option} {value}: want microseconds, 0 or more. Try: {option} 50")
    loaded = open_trace(trace)
    launches = loaded.launches(slow_from_ns=us_to_ns(slow_us), delayed_from_ns=us_to_ns(delayed_us))
    queue = loaded.queue()
    if as_json:
        print_json({"launches": records(launches), "queue": records(queue)})
        return
    if says_no_gpu(loaded):
        return
    from profiler_kit.text import fmt_count, fmt_ns

    columns = ("call", "launches", "GPU events", "host", "GPU", "over its work", "slow", "delayed", "median", "delay")
    rows = [
        (
            row["name"],
            fmt_count(row["launches"]),
            fmt_count(row["gpu_events"]),
            fmt_ns(row["host_ns"], "ms"),
            fmt_ns(row["gpu_ns"], "ms"),
            fmt_count(row["short"]),
            fmt_count(row["slow"]),
            fmt_count(row["delayed"]),
            fmt_ns(row["median_ns"], "µs"),
            fmt_ns(row["median_delay_ns"], "µs"),
        )
        for row in records(launches)
    ]
    print_table(f"{loaded.path}: launches", columns, rows, optional=("GPU", "host", "GPU events", "delay", "median"))
    lengths = [
        (
            str(row["stream"]),
            str(row["device"]),
            fmt_count(row["max_length"]),
            f"{row['mean_length']:.1f}",
            fmt_ns(row["total_ns"], "ms"),
            fmt_ns(row["empty_ns"], "ms"),
            fmt_ns(row["full_ns"], "ms"),
        )
        for row in records(queue)
    ]
    print_table("queued GPU events", ("stream", "device", "most", "mean", "time", "empty", "full"), lengths)
