"""Add up the GPU events by name, stream and device."""

from __future__ import annotations

from typing import Final

import pandas as pd

from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.schema import Column, Schema

KERNEL_TOTALS: Final = Schema(
    "KERNEL_TOTALS",
    "name, stream, device, process and category, longest sum first",
    {
        "name": Column("str", "Kernel, memory copy or memory set.", "kernel", unit="kernel"),
        "stream": Column("Int64", show="room"),
        "device": Column("Int64", show="room"),
        "process": Column("str", show="varied"),
        "category": Column("str", show="room"),
        "count": Column("int64"),
        "sum_ns": Column("int64"),
        "mean_ns": Column("float64"),
        "min_ns": Column("int64", show="room"),
        "max_ns": Column("int64", show="room"),
    },
)


_KEYS = ["name", "stream", "device", "process", "category"]


def kernel_totals(gpu_events: pd.DataFrame) -> pd.DataFrame:
    """One row per name, stream, device, process and category, longest sum first.

    Kernels, memory copies and memory sets alike. The sums add up to the sum over all GPU events. Stream and device
    are missing where the trace does not say. Empty in, empty out.
    """
    gpu_events = GPU_EVENTS.check(gpu_events)
    if gpu_events.empty:
        return KERNEL_TOTALS.empty()
    grouped = gpu_events.groupby(_KEYS, observed=True, sort=False, dropna=False)["dur_ns"]
    totals = grouped.agg(count="size", sum_ns="sum", mean_ns="mean", min_ns="min", max_ns="max").reset_index()
    totals["name"] = totals["name"].astype(object)
    totals["category"] = totals["category"].astype(object)
    totals["process"] = totals["process"].astype(object)
    totals["mean_ns"] = totals["sum_ns"] / totals["count"]
    order = ["sum_ns", "name", "process", "device", "stream", "category"]
    totals = totals.sort_values(order, ascending=[False, *[True] * (len(order) - 1)], kind="stable", ignore_index=True)
    return KERNEL_TOTALS.check(totals)
