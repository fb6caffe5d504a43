"""What launching costs: short kernels, slow launches and long delays."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.frames import KERNEL_DETAILS, LAUNCH_CALLS, THREAD_PATH
from profiler_kit.schema import Column, Schema

LAUNCH_DETAILS: Final = Schema(
    "LAUNCH_DETAILS",
    "call that launched GPU events, by start",
    {
        "event": Column("int64"),
        "name": Column("category", "Call of the CUDA (or ROCm) runtime or driver.", "call"),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64", "Duration of the call."),
        "correlation": Column("Int64"),
        "gpu_events": Column("int64", "How many GPU events it launched."),
        "gpu_ns": Column("int64"),
        "delay_ns": Column("int64", "From its end to the start of the first GPU event that it launched, at least 0."),
        "path": Column("paths", THREAD_PATH),
    },
)

LAUNCH_TOTALS: Final = Schema(
    "LAUNCH_TOTALS",
    "name of a call, longest host time first",
    {
        "name": Column("str", "Call of the CUDA (or ROCm) runtime or driver.", "call"),
        "launches": Column("int64", "How many of these calls launched something."),
        "gpu_events": Column("int64", "How many GPU events they launched.", show="room"),
        "host_ns": Column("int64", "Time the host spent inside these calls."),
        "gpu_ns": Column("int64", show="room"),
        "short": Column(
            "int64", "Calls that took longer than what they launched: there the GPU cannot stay busy.", "over its work"
        ),
        "slow": Column("int64", "Calls that took longer than --slow-us."),
        "delayed": Column("int64", "Calls whose first GPU event began later than --delayed-us after them."),
        "median_ns": Column("float64", "Half of the calls took less."),
        "max_ns": Column("int64", "The longest call.", "longest", "room"),
        "median_delay_ns": Column("float64", "From the end of the call to its first GPU event: half took less."),
        "max_delay_ns": Column("int64", "The longest such delay: it waited behind earlier work.", show="room"),
    },
)


SLOW_FROM_NS: Final = 50_000  # HTA's runtime_cutoff
DELAYED_FROM_NS: Final = 100_000  # HTA's launch_delay_cutoff


def launch_details(launch_calls: pd.DataFrame, details: pd.DataFrame) -> pd.DataFrame:
    """LAUNCH_CALLS, KERNEL_DETAILS -> LAUNCH_DETAILS: one row per call that launched something, by start.

    As HolisticTraceAnalysis (`get_cuda_kernel_launch_stats`): delay_ns runs from the end of the call to the start of
    what it launched, 0 when that began before. A call that launched several events (a graph) counts once: gpu_ns adds
    its events, delay_ns is that of the first. Events that are left out do not count. Empty in, empty out.
    """
    launch_calls, details = LAUNCH_CALLS.check(launch_calls), KERNEL_DETAILS.check(details)
    launched = details[details["launch"].notna()].groupby("launch")["launch_delay_ns"].agg(["size", "min"])
    calls = launch_calls[launch_calls["event"].isin(launched.index)]
    if calls.empty:
        return LAUNCH_DETAILS.empty()
    launched = launched.reindex(calls["event"].to_numpy())
    found = calls[["event", "name", "thread", "start_ns", "dur_ns", "correlation", "gpu_events", "gpu_ns", "path"]]
    count, delay = (launched[column].to_numpy(dtype=np.int64) for column in ("size", "min"))
    return LAUNCH_DETAILS.check(found.assign(gpu_events=count, delay_ns=delay).reset_index(drop=True))


def launch_totals(
    launches: pd.DataFrame, *, slow_from_ns: int = SLOW_FROM_NS, delayed_from_ns: int = DELAYED_FROM_NS
) -> pd.DataFrame:
    """LAUNCH_DETAILS -> LAUNCH_TOTALS: one row per name of a call, longest host time first. Empty in, empty out.

    short counts the calls that took longer than what they launched: there the GPU cannot keep ahead of the host.
    """
    launches = LAUNCH_DETAILS.check(launches)
    if launches.empty:
        return LAUNCH_TOTALS.empty()
    frame = launches.assign(
        short=launches["gpu_ns"] < launches["dur_ns"],
        slow=launches["dur_ns"] > slow_from_ns,
        delayed=launches["delay_ns"] > delayed_from_ns,
    )
    totals = frame.groupby("name", observed=True).agg(
        launches=("event", "size"),
        gpu_events=("gpu_events", "sum"),
        host_ns=("dur_ns", "sum"),
        gpu_ns=("gpu_ns", "sum"),
        short=("short", "sum"),
        slow=("slow", "sum"),
        delayed=("delayed", "sum"),
        median_ns=("dur_ns", "median"),
        max_ns=("dur_ns", "max"),
        median_delay_ns=("delay_ns", "median"),
        max_delay_ns=("delay_ns", "max"),
    )
    totals = totals.reset_index()
    totals["name"] = totals["name"].astype(object)
    totals = totals.sort_values(["host_ns", "name"], ascending=[False, True]).reset_index(drop=True)
    return LAUNCH_TOTALS.check(totals)
