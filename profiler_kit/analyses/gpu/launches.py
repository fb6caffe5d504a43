"""What launching costs: short kernels, slow launches and long delays."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.frames import KERNEL_DETAILS, LAUNCH_CALLS, THREAD_PATH
from profiler_kit.attribute.launch_context import codes_of, stream_codes
from profiler_kit.load.integers import MISSING
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
            "int64", "Calls that took longer than what they launched, so that a GPU cannot stay busy.", "over its work"
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


QUEUE_LENGTH: Final = Schema(
    "QUEUE_LENGTH",
    "moment at which the queue of a stream changed, by stream and time",
    {
        "process": Column("str", show="varied"),
        "device": Column("Int64"),
        "stream": Column("Int64"),
        "time_ns": Column("int64"),
        "length": Column("int64", "GPU events that were launched and had not begun, from then on."),
    },
)

QUEUE_TOTALS: Final = Schema(
    "QUEUE_TOTALS",
    "stream: how many launched GPU events had not begun",
    {
        "process": Column("str", show="varied"),
        "device": Column("Int64"),
        "stream": Column("Int64"),
        "max_length": Column("int64", "The most GPU events that were waiting at once.", "most"),
        "mean_length": Column("float64", "GPU events that were waiting, on average over time.", "mean"),
        "total_ns": Column("int64", "From the first launch to the start of the last GPU event.", "time"),
        "empty_ns": Column("int64", "Time in which nothing was waiting: the host was not ahead."),
        "full_ns": Column("int64", "Time in which the queue was full, so that a launch blocks the host."),
    },
)


_KEYS: Final = ["process", "device", "stream"]
FULL_AT: Final = 1024  # launches a CUDA stream takes before the next one blocks the host (HTA's default as well)


def queue_length(details: pd.DataFrame) -> pd.DataFrame:
    """KERNEL_DETAILS -> QUEUE_LENGTH: one row per moment at which the queue of a stream changed, by stream and time.

    The definition is HolisticTraceAnalysis's (`get_queue_length_time_series`): a GPU event is queued from the start of
    its launch call to its own start. One graph launch queues all its events. length holds from time_ns to the next row
    of the stream, after everything that happened at that moment; the last one of each stream is 0. Events without a
    launch in the trace were never seen queued and are left out. Empty in, empty out.
    """
    details = KERNEL_DETAILS.check(details)
    details = details[details["launch"].notna()]
    if details.empty:
        return QUEUE_LENGTH.empty()
    device = details["device"].fillna(MISSING).to_numpy(dtype=np.int64)
    stream = details["stream"].fillna(MISSING).to_numpy(dtype=np.int64)
    group = stream_codes(codes_of(details["process"]), device, stream)
    launched = details["launch_start_ns"].to_numpy(dtype=np.int64)
    begun = np.maximum(details["start_ns"].to_numpy(), launched)  # clocks that disagree cannot make a queue negative
    # each event twice: it adds 1 to the queue when launched and takes 1 away when it begins; then by stream and time
    group, row = np.tile(group, 2), np.tile(np.arange(len(details)), 2)
    time, change = np.concatenate((launched, begun)), np.repeat([1, -1], len(details))
    order = np.lexsort((time, group))
    group, row, time = group[order], row[order], time[order]
    length = np.cumsum(change[order])  # every stream ends at 0, so one sum serves all
    # of several changes at one moment only the total after the last one counts
    last = np.concatenate(((group[1:] != group[:-1]) | (time[1:] != time[:-1]), [True]))
    rows = row[last]
    frame = pd.DataFrame(
        {
            "process": details["process"].iloc[rows].astype(object).array,
            "device": details["device"].iloc[rows].array,
            "stream": details["stream"].iloc[rows].array,
            "time_ns": time[last],
            "length": length[last],
        }
    )
    return QUEUE_LENGTH.check(frame)


def queue_totals(queue: pd.DataFrame, *, full_at: int = FULL_AT) -> pd.DataFrame:
    """QUEUE_LENGTH -> QUEUE_TOTALS: one row per stream. Empty in, empty out.

    mean_length is weighted by time, from the first launch to the start of the last event (HTA describes the rows of
    the series, however long each lasted). full_ns is the time at full_at and above.
    """
    queue = QUEUE_LENGTH.check(queue).reset_index(drop=True)
    if queue.empty:
        return QUEUE_TOTALS.empty()
    stream = queue.groupby(_KEYS, dropna=False).ngroup().to_numpy()
    time = queue["time_ns"].to_numpy()
    lasted = pd.Series(np.append(np.where(stream[1:] == stream[:-1], np.diff(time), 0), 0))  # no float holds all times
    frame = pd.DataFrame(
        {
            "process": queue["process"],
            "device": queue["device"],
            "stream": queue["stream"],
            "max_length": queue["length"],
            "total_ns": lasted,
            "empty_ns": lasted.where(queue["length"] == 0, 0),
            "full_ns": lasted.where(queue["length"] >= full_at, 0),
            "queued_ns": lasted * queue["length"],
        }
    )
    grouped = frame.groupby(_KEYS, dropna=False)
    totals = grouped[["total_ns", "empty_ns", "full_ns", "queued_ns"]].sum()
    totals.insert(0, "max_length", grouped["max_length"].max())
    totals["mean_length"] = totals["queued_ns"] / totals["total_ns"].where(totals["total_ns"] > 0, 1)
    return QUEUE_TOTALS.check(totals.reset_index())
