"""`profiler-kit utilization TRACE`: what bounds each region, the GPU or the host."""

from __future__ import annotations

from typing import Any

from profiler_kit.cli.output import (
    AsJson,
    KernelWait,
    TraceFile,
    kernel_wait_ns,
    open_trace,
    print_json,
    print_table,
    records,
    says_no_gpu,
)


def command(trace: TraceFile, as_json: AsJson = False, kernel_wait_us: KernelWait = 30.0) -> None:
    """Say for each region how busy it kept the GPU, why the GPU was idle, and which of the two bounds it."""
    below = kernel_wait_ns(kernel_wait_us)
    loaded = open_trace(trace)
    totals = loaded.utilization(kernel_wait_below_ns=below)
    if as_json:
        print_json(records(totals))
        return
    if says_no_gpu(loaded):
        return
    from profiler_kit.text import fmt_count, fmt_ns, fmt_path, fmt_percent

    rows = [
        (
            fmt_path(row["path"]),
            row["verdict"],
            fmt_count(row["instances"]),
            fmt_ns(row["wall_ns"], "ms"),
            fmt_percent(row["utilization"]),
            _share(row, "other_ns"),
            _share(row, "host_ns"),
            _share(row, "synchronised_ns"),
            _share(row, "kernel_wait_ns"),
            _share(row, "other_wait_ns"),
            fmt_percent(row["ahead"] if row["gpu_events"] else None),
        )
        for row in records(totals)
    ]
    idle = ("idle: host", "idle: host waited", "idle: kernels", "idle: other")
    optional = ("instances", *reversed(idle), "launched ahead", "other work")
    columns = ("region", "verdict", "instances", "wall time", "busy", "other work", *idle, "launched ahead")
    print_table(f"{loaded.path}: GPU utilization by region", columns, rows, left=2, optional=optional)


def _share(row: dict[str, Any], column: str) -> str:
    from profiler_kit.text import fmt_percent

    return fmt_percent(row[column] / row["wall_ns"] if row["wall_ns"] else None)
