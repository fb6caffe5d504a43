"""How far the host ran ahead: how many GPU events were launched and had not begun, over time."""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.attribute.frames import KERNEL_DETAILS
from profiler_kit.attribute.launch_context import codes_of, stream_codes
from profiler_kit.load.integers import MISSING
from profiler_kit.schema import Column, Schema

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


I64 = npt.NDArray[np.int64]

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
