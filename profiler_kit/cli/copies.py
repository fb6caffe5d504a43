"""`profiler-kit copies TRACE`: what was copied where, and how fast."""

from __future__ import annotations

from profiler_kit.cli.output import AsJson, TraceFile, open_trace, print_json, print_table, records, says_no_gpu


def command(trace: TraceFile, as_json: AsJson = False) -> None:
    """Say how much memory was copied and set, by direction and kind of memory, and at what bandwidth."""
    loaded = open_trace(trace)
    totals = loaded.copy_totals()
    if as_json:
        print_json(records(totals))
        return
    if says_no_gpu(loaded):
        return
    from profiler_kit.text import MISSING, fmt_bytes, fmt_count, fmt_ns

    def rate(value: float | None) -> str:
        return MISSING if value is None else f"{fmt_bytes(value)}/s"

    rows = [
        (
            row["kind"],
            row["source"],
            row["target"],
            str(row["device"]),
            fmt_count(row["count"]),
            fmt_bytes(row["size_bytes"]),
            fmt_ns(row["sum_ns"], "ms"),
            rate(row["bytes_per_s"]),
            rate(row["min_bytes_per_s"]),
            rate(row["max_bytes_per_s"]),
        )
        for row in records(totals)
    ]
    optional = ("slowest", "fastest", "device", "count")
    columns = ("kind", "from", "to", "device", "count", "size", "time", "bandwidth", "slowest", "fastest")
    print_table(f"{loaded.path}: memory copies and sets", columns, rows, left=3, optional=optional)
