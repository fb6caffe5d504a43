"""What ran in a stretch of time or in one region: GPU_EVENTS or OPERATORS in, totals per kernel or operator out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from profiler_kit.schemas import GPU_EVENTS, KERNEL_TOTALS, OPERATOR_SUMS, OPERATORS


def events_between(events: pd.DataFrame, start_ns: int, end_ns: int) -> pd.DataFrame:
    """The rows that overlap [start_ns, end_ns), with start_ns and dur_ns cut to it.

    Takes any frame with start_ns and dur_ns; an event that only touches an edge is left out.
    """
    start = events["start_ns"].to_numpy(np.int64)
    end = start + events["dur_ns"].to_numpy(np.int64)
    inside = (start < end_ns) & (end > start_ns)
    cut = np.maximum(start, start_ns)
    out = events.assign(start_ns=cut, dur_ns=np.minimum(end, end_ns) - cut)
    found: pd.DataFrame = out[inside]
    return found


def events_under(events: pd.DataFrame, path: Sequence[str]) -> pd.DataFrame:
    """The rows launched under a region, nested regions included; takes any frame with a path column."""
    prefix, depth = tuple(path), len(path)
    distinct = events["path"].unique()
    wanted = {p for p in distinct if p[:depth] == prefix}
    return events[events["path"].isin(wanted)]


def kernel_sums(gpu_events: pd.DataFrame) -> pd.DataFrame:
    """GPU_EVENTS -> KERNEL_TOTALS: kernels by name, stream, device and category, longest sum first."""
    GPU_EVENTS.check(gpu_events)
    keys = ["name", "stream", "device", "category"]
    grouped = gpu_events.groupby(keys, observed=True, sort=False)["dur_ns"]
    out = grouped.agg(["count", "sum", "mean", "min", "max"]).reset_index()
    out.columns = pd.Index([*keys, "count", "sum_ns", "mean_ns", "min_ns", "max_ns"])
    out = out.astype({"name": object, "category": object, "mean_ns": "float64"})
    return KERNEL_TOTALS.check(out.sort_values(["sum_ns", "name"], ascending=[False, True], ignore_index=True))


def operator_sums(operators: pd.DataFrame) -> pd.DataFrame:
    """OPERATORS -> OPERATOR_SUMS: host time by operator name, over all regions, longest self time first.

    sum_ns counts an operator that calls itself twice; self_ns adds up to all operator time.
    """
    OPERATORS.check(operators)
    grouped = operators.groupby("name", observed=True, sort=False)
    out = grouped.agg(count=("dur_ns", "size"), sum_ns=("dur_ns", "sum"), self_ns=("self_ns", "sum")).reset_index()
    out = out.astype({"name": object, "count": "int64"})
    return OPERATOR_SUMS.check(out.sort_values(["self_ns", "name"], ascending=[False, True], ignore_index=True))
