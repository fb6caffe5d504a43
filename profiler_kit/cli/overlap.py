"""`profiler-kit overlap TRACE`: how much communication hides behind computation."""

from __future__ import annotations

from profiler_kit.cli.output import AsJson, TraceFile, open_trace, print_json, print_table, records, says_no_gpu


def command(trace: TraceFile, as_json: AsJson = False) -> None:
    """Say for each device how much of its communication (NCCL, RCCL) ran while it computed."""
    loaded = open_trace(trace)
    totals = loaded.communication_overlap()
    if as_json:
        print_json(records(totals))
        return
    if says_no_gpu(loaded):
        return
    from profiler_kit.text import fmt_ns, fmt_percent

    rows = [
        (
            str(row["device"]),
            fmt_ns(row["communication_ns"], "ms"),
            fmt_ns(row["computation_ns"], "ms"),
            fmt_ns(row["overlap_ns"], "ms"),
            fmt_ns(row["exposed_ns"], "ms"),
            fmt_percent(row["share"] if row["communication_ns"] else None),
        )
        for row in records(totals)
    ]
    columns = ("device", "communication", "computation", "both", "communication alone", "overlap")
    print_table(f"{loaded.path}: communication and computation", columns, rows)
