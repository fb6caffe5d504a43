"""Pick what ran in a stretch of time or in one region, and add up operators and kernels by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.kernels import KERNEL_TOTALS
from profiler_kit.analyses.gpu.operators import OPERATOR_TOTALS
from profiler_kit.attribute.frames import OPERATORS
from profiler_kit.schema import Schema

OPERATOR_SUMS: Final = Schema(
    "OPERATOR_SUMS",
    "operator name, longest self time first; host time",
    {name: OPERATOR_TOTALS.columns[name] for name in ("name", "count", "sum_ns", "self_ns")},
)

NAME_SUMS: Final = Schema(
    "NAME_SUMS",
    "GPU event name, over all streams and devices, longest sum first",
    {name: KERNEL_TOTALS.columns[name] for name in ("name", "count", "sum_ns")},
)


def events_between(events: pd.DataFrame, start_ns: int, end_ns: int) -> pd.DataFrame:
    """The rows that overlap [start_ns, end_ns), with start_ns and dur_ns cut to it.

    Takes any frame with start_ns and dur_ns; an event that only ends where the stretch begins is left out, one without
    a duration counts where it is, so that two stretches side by side hold every event between them.
    """
    start = events["start_ns"].to_numpy(np.int64)
    end = start + events["dur_ns"].to_numpy(np.int64)
    inside = np.flatnonzero((start < end_ns) & ((end > start_ns) | (start == start_ns)))
    cut = np.maximum(start[inside], start_ns)
    return events.iloc[inside].assign(start_ns=cut, dur_ns=np.minimum(end[inside], end_ns) - cut)


def span_ns(*frames: pd.DataFrame) -> int:
    """From the first start to the last end in any frame (start_ns and dur_ns, or end_ns); 0 when all are empty."""
    filled = [frame for frame in frames if len(frame)]
    if not filled:
        return 0
    ends = [frame["end_ns"] if "end_ns" in frame else frame["start_ns"] + frame["dur_ns"] for frame in filled]
    return int(max(end.max() for end in ends)) - int(min(frame["start_ns"].min() for frame in filled))


def events_under(events: pd.DataFrame, path: Sequence[str]) -> pd.DataFrame:
    """The rows launched under a region, nested regions included; takes any frame with a path column."""
    prefix, depth = tuple(path), len(path)
    # compare each distinct path once, then look the answer up for each row
    code, distinct = pd.factorize(events["path"])
    under = np.array([p[:depth] == prefix for p in distinct] or [False], dtype=bool)
    found: pd.DataFrame = events[under[code]]
    return found


def operator_sums(operators: pd.DataFrame) -> pd.DataFrame:
    """OPERATORS -> OPERATOR_SUMS: host time by operator name, over all regions, longest self time first.

    sum_ns counts an operator that calls itself twice; self_ns adds up to all operator time.
    """
    OPERATORS.check(operators)
    grouped = operators.groupby("name", observed=True, sort=False)
    out = grouped.agg(count=("dur_ns", "size"), sum_ns=("dur_ns", "sum"), self_ns=("self_ns", "sum")).reset_index()
    out = out.astype({"name": object, "count": "int64"})
    return OPERATOR_SUMS.check(out.sort_values(["self_ns", "name"], ascending=[False, True], ignore_index=True))


def name_sums(kernels: pd.DataFrame) -> pd.DataFrame:
    """KERNEL_TOTALS -> NAME_SUMS: the same over all streams and devices, longest sum first."""
    KERNEL_TOTALS.check(kernels)
    out = kernels.groupby("name", sort=False)[["count", "sum_ns"]].sum().reset_index()
    out = out.astype({"name": object, "count": "int64", "sum_ns": "int64"})
    return NAME_SUMS.check(out.sort_values(["sum_ns", "name"], ascending=[False, True], ignore_index=True))
