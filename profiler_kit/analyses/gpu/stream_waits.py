"""Which GPU event waited for which on another stream, where the trace says so: with `enable_cuda_sync_events` Kineto
writes for each cudaStreamWaitEvent which stream waits for which, and which call recorded the event.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.load.integers import I64
from profiler_kit.load.trace.columns import EventColumns, TextColumn

NONE: Final = -1
UNTOLD: Final = -2
STREAM_WAIT: Final = "Stream Wait Event"
ARGUMENTS: Final = ("wait_on_stream", "wait_on_cuda_event_record_corr_id")


def says_waits(columns: EventColumns) -> bool:
    """Whether waits of streams were recorded."""
    return STREAM_WAIT in columns.names


def waited_for(
    columns: EventColumns, arguments: Mapping[str, TextColumn], details: pd.DataFrame, calls: pd.DataFrame
) -> I64:
    """The row of each GPU event's KERNEL_DETAILS that it had to wait for on another stream, the one that ended last;
    NONE for those without; UNTOLD where it may have waited for what the trace does not name: within a CUDA graph, and
    after a wait for what was recorded before the trace. arguments: ARGUMENTS of every event. calls: LAUNCH_CALLS.

    The next event launched on the stream after the call that waits, for the last one launched on the other stream
    before the call that recorded.
    """
    event = np.flatnonzero(columns.name == columns.names.index(STREAM_WAIT))
    other, recorder = (_numbers(arguments[name])[event] for name in ARGUMENTS)
    known = calls[calls["correlation"].notna()].drop_duplicates("correlation")
    began = pd.Series(known["start_ns"].to_numpy(), index=known["correlation"].to_numpy(dtype=np.int64))
    since = began.reindex(columns.integers["correlation"][event]).to_numpy(dtype=np.float64)
    recorded = began.reindex(recorder).to_numpy(dtype=np.float64)
    told = (other >= 0) & ~np.isnan(since) & ~np.isnan(recorded)
    device, stream = (columns.integers[name][event] for name in ("device", "stream"))

    end = (details["start_ns"] + details["dur_ns"]).to_numpy()
    launched = details[details["launch_start_ns"].notna()]
    by_stream = {
        key: rows.index.to_numpy()[np.argsort(rows["launch_start_ns"].to_numpy(dtype=np.int64), kind="stable")]
        for key, rows in launched.groupby(["device", "stream"], observed=True)
    }
    launch = details["launch_start_ns"].fillna(0).to_numpy(dtype=np.int64)
    start = details["start_ns"].to_numpy()
    by_one_call = details["launch_start_ns"].notna() & details.duplicated(["process", "launch_start_ns"], keep=False)
    found = np.where(by_one_call, UNTOLD, NONE)
    for at in np.flatnonzero(~np.isnan(since)).tolist():
        mine, theirs = (by_stream.get((device[at], one)) for one in (stream[at], other[at]))
        next_one = 0 if mine is None else int(np.searchsorted(launch[mine], int(since[at]), side="right"))
        if mine is None or next_one == len(mine):
            continue
        waiting = mine[next_one]
        if not told[at]:
            found[waiting] = UNTOLD if found[waiting] == NONE else found[waiting]
            continue
        last_one = -1 if theirs is None else int(np.searchsorted(launch[theirs], int(recorded[at]), side="left")) - 1
        if theirs is None or last_one < 0:
            continue
        wanted = theirs[last_one]
        if wanted > waiting or end[wanted] > start[waiting]:
            continue
        if found[waiting] < 0 or end[wanted] > end[found[waiting]]:
            found[waiting] = wanted
    return found


def _numbers(column: TextColumn) -> I64:
    """A whole number for each event; NONE where there is none."""
    values = [int(value) if re.fullmatch(r"-?\d{1,18}", value) else NONE for value in column.values]
    return np.array(values or [NONE], dtype=np.int64)[column.codes]
