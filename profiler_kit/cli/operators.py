"""`profiler-kit operators TRACE`: operators with the GPU work they launched."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from profiler_kit.cli.output import AsJson, Top, TraceFile, check_top, open_trace, print_json, print_table, records
from profiler_kit.errors import OptionError

if TYPE_CHECKING:
    import pandas as pd

    from profiler_kit.trace import Trace

BY = ("name", "shape", "kernel", "module")


def command(
    trace: TraceFile,
    as_json: AsJson = False,
    by: Annotated[
        str, typer.Option("--by", help="One row per operator name, input shape, kernel, or path of nn.Modules.")
    ] = "name",
    top: Top = 30,
) -> None:
    """Say what each operator cost on the host, and what it launched on the GPU."""
    check_top(top)
    if by not in BY:
        raise OptionError(f"--by {by}: want one of {', '.join(BY)}. Try: --by name")
    loaded = open_trace(trace, arguments=("input_dims",) if by == "shape" else ())
    totals = _totals(loaded, by)
    if as_json:
        print_json(records(totals))
        return
    title, shown = f"{loaded.path}: {min(top, len(totals))} of {len(totals)} rows", totals.head(top)
    if by == "kernel":
        print_table(title, KERNEL_COLUMNS, _kernel_rows(shown), left=2, optional=OPTIONAL)
    elif by == "module":
        print_table(title, MODULE_COLUMNS, _module_rows(shown), optional=OPTIONAL)
    else:
        first = "operator and shapes" if by == "shape" else "operator"
        print_table(title, (first, *OPERATOR_COLUMNS), _operator_rows(shown), optional=OPTIONAL)


def _totals(trace: Trace, by: str) -> pd.DataFrame:
    if by == "kernel":
        return trace.operator_kernels()
    if by == "module":
        return trace.module_work()
    return trace.shape_work() if by == "shape" else trace.operator_work()


OPERATOR_COLUMNS = ("calls", "host", "host, self", "GPU events", "GPU time", "GPU events, nested", "GPU time, nested")
OPTIONAL = ("GPU events, nested", "GPU events", "min", "max", "mean", "host", "device", "stream", "calls", "count")
KERNEL_COLUMNS = ("kernel", "operator", "device", "stream", "count", "sum", "mean", "min", "max")
MODULE_COLUMNS = ("module", "GPU events", "sum", "self")


def _operator_rows(totals: pd.DataFrame) -> list[tuple[str, ...]]:
    from profiler_kit.text import fmt_count, fmt_ns

    def numbers(row: dict[str, Any]) -> tuple[str, ...]:
        return (
            fmt_count(row["calls"]),
            fmt_ns(row["host_ns"], "ms"),
            fmt_ns(row["self_ns"], "ms"),
            fmt_count(row["gpu_events"]),
            fmt_ns(row["gpu_ns"], "ms"),
            fmt_count(row["nested_gpu_events"]),
            fmt_ns(row["nested_gpu_ns"], "ms"),
        )

    return [(f"{row['name']} {row.get('input_dims', '')}".strip(), *numbers(row)) for row in records(totals)]


def _kernel_rows(totals: pd.DataFrame) -> list[tuple[str, ...]]:
    from profiler_kit.text import fmt_count, fmt_kernel, fmt_ns

    return [
        (
            fmt_kernel(row["name"]),
            row["operator"],
            str(row["device"]),
            str(row["stream"]),
            fmt_count(row["count"]),
            fmt_ns(row["sum_ns"], "ms"),
            fmt_ns(row["mean_ns"], "µs"),
            fmt_ns(row["min_ns"], "µs"),
            fmt_ns(row["max_ns"], "µs"),
        )
        for row in records(totals)
    ]


def _module_rows(totals: pd.DataFrame) -> list[tuple[str, ...]]:
    from profiler_kit.text import fmt_count, fmt_ns, fmt_path

    return [
        (
            fmt_path(row["path"]) or "(no module)",
            fmt_count(row["gpu_events"]),
            fmt_ns(row["sum_ns"], "ms"),
            fmt_ns(row["self_sum_ns"], "ms"),
        )
        for row in records(totals)
    ]
