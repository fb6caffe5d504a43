"""`profiler-kit idle TRACE`: why the GPU stood still."""

from __future__ import annotations

from typing import Annotated

import typer

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
from profiler_kit.errors import OptionError

SCOPES = ("stream", "device", "all")


def command(
    trace: TraceFile,
    as_json: AsJson = False,
    scope: Annotated[
        str, typer.Option("--scope", help="Nothing ran on a stream, on a device, or on all devices together.")
    ] = "stream",
    kernel_wait_us: KernelWait = 30.0,
) -> None:
    """Say how long the GPU was idle and why: the host launched too late, kernels have a distance, or something else."""
    if scope not in SCOPES:
        raise OptionError(f"--scope {scope}: want one of {', '.join(SCOPES)}. Try: --scope stream")
    below = kernel_wait_ns(kernel_wait_us)
    loaded = open_trace(trace)
    totals = loaded.idle(scope=scope, kernel_wait_below_ns=below)  # type: ignore[arg-type]  # checked above
    if as_json:
        print_json(records(totals))
        return
    if says_no_gpu(loaded):
        return
    from profiler_kit.render.text import fmt_count, fmt_ns, fmt_percent

    rows = [
        (
            row["cause"],
            fmt_number(row["device"]),
            fmt_number(row["stream"]),
            fmt_count(row["gaps"]),
            fmt_ns(row["idle_ns"], "ms"),
            fmt_percent(row["share"]),
            fmt_ns(row["synchronised_ns"], "ms"),
            fmt_ns(row["longest_ns"], "ms"),
        )
        for row in records(totals)
    ]
    columns = ("cause", "device", "stream", "gaps", "idle", "of idle", "host waited", "longest")
    where = f" of each {scope}" if scope != "all" else ""
    print_table(f"{loaded.path}: idle time{where}", columns, rows, optional=("longest", "gaps", "of idle"))


def fmt_number(number: int | None) -> str:
    """A device or a stream; "–" where there is none."""
    from profiler_kit.render.text import MISSING

    return MISSING if number is None else str(number)
