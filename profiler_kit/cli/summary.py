"""`profiler-kit summary TRACE`: how busy GPUs were, and with what."""

from __future__ import annotations

import typer

from profiler_kit.cli.output import AsJson, LinkedOnly, TraceFile, hanging, open_trace, print_json, print_table
from profiler_kit.names import printable

HOST_ROWS = 15


def command(
    trace: TraceFile,
    as_json: AsJson = False,
    linked_only: LinkedOnly = False,
) -> None:
    """Show how busy each GPU was: computation, communication, copies, idle."""
    loaded = open_trace(trace)
    summary = loaded.summary(linked_only=linked_only)
    if as_json:
        print_json(summary)
        return
    from profiler_kit.text import fmt_count, fmt_ns, fmt_percent

    timeline = summary["gpu_timeline"]
    total = timeline["total_ns"]
    what = f"{printable(loaded.path)}: {fmt_count(summary['gpu_events'])} GPU events of {fmt_count(summary['events'])}"
    quality = summary["quality"]
    left_out = quality["untimed_gpu_events"] + quality["impossible_durations"]
    if left_out:
        what += f", {fmt_count(left_out)} of them left out"
    if summary["gpu_events"] == left_out:
        from profiler_kit.cli.table_command import print_filled

        print_filled(loaded.table("operator_sums"), what, HOST_ROWS)
        if loaded.presence.ran != "host":
            from profiler_kit.findings.time import missing_gpu

            typer.echo(hanging("", missing_gpu(loaded.presence).sentence))
        return
    names = {
        "total": timeline["total_ns"],
        "busy": timeline["busy_ns"],
        "  computation": timeline["computation_ns"],
        "  communication, exposed": timeline["exposed_communication_ns"],
        "  memory copies, exposed": timeline["exposed_memcpy_ns"],
        "idle": timeline["idle_ns"],
        "communication, all": timeline["communication_ns"],
        "memory copies, all": timeline["memcpy_ns"],
    }
    rows = [(name, fmt_ns(value, "ms"), fmt_percent(value / total if total else None)) for name, value in names.items()]
    from profiler_kit.findings.time import gpus

    several = len(gpus(loaded)) > 1
    print_table(what, ("all GPUs together" if several else "GPU timeline", "time", "of total"), rows)
    if several:
        from profiler_kit.cli.table_command import print_filled

        print_filled(loaded.table("gpu_timeline", linked_only=linked_only), "each GPU", HOST_ROWS)
