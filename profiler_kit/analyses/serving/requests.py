"""What each request to a server waited for (SERVED -> REQUESTS), and whether the GPU was idle meanwhile."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.intervals import covered_between, covered_ns, union
from profiler_kit.formats.request_file import SERVED, TIMES
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

STAGES: Final = ("receive", "decode", "queue", "gpu", "encode")  # each ends at the next of TIMES
NO_EVENTS: Final = (np.zeros(0, np.int64), np.zeros(0, np.int64))  # starts and ends of a trace's GPU events, none
FEWEST: Final = 100  # samples that a 99th percentile is told from
REQUESTS: Final = Schema(
    "REQUESTS",
    "request to a server",
    {
        "id": Column("int64", "Counts requests from 0.", unit="id"),
        "batch": Column("int64", "Number of the batch that it was in.", label="batch number", unit="id"),
        "batch_size": Column("int64", "Requests in that batch.", label="batch", show="room"),
        "status": Column("int64", "Of HTTP: 200 answered, 499 the client hung up.", unit="id"),
        "arrival_ns": Column(
            "int64", "When its head was read, in nanoseconds since the trace's base time.", show="never"
        ),
        "latency_ns": Column("Int64", "From its head to the end of its answer; the stages add up to it."),
        "receive_ns": Column("Int64", "Until its image was read.", show="room"),
        "decode_ns": Column("Int64", "Until the image was decoded, waiting for a thread included."),
        "queue_ns": Column("Int64", "Until its batch began."),
        "gpu_ns": Column("Int64", "Until its masks were known.", label="model"),
        "encode_ns": Column("Int64", "Until its answer was encoded and handed over.", show="room"),
        "gpu_idle_ns": Column(
            "Int64",
            "Of its time in the queue: nothing ran on any GPU, between the first and the last GPU event of the trace.",
            label="GPU idle in queue",
            show="room",
        ),
    },
)


def request_waterfall(served: pd.DataFrame, base_ns: int, start_ns: I64, end_ns: I64) -> pd.DataFrame:
    """REQUESTS of SERVED. base_ns: Unix time that the trace counts from. start_ns, end_ns: of its GPU events."""
    SERVED.check(served)
    times = served[list(TIMES)] - base_ns
    frame = served[["id", "batch", "batch_size", "status"]].assign(arrival_ns=times["arrival_ns"].astype("int64"))
    frame["latency_ns"] = times["done_ns"] - times["arrival_ns"]
    # where a time is missing, the stage after it begins at the last one that is known
    known = times.ffill(axis=1)
    for stage, begin, end in zip(STAGES, TIMES, TIMES[1:], strict=False):
        frame[f"{stage}_ns"] = times[end] - known[begin]
    waited = times[["queued_ns", "start_ns"]].notna().all(axis=1)
    frame["gpu_idle_ns"] = pd.array([pd.NA] * len(frame), dtype="Int64")
    if len(start_ns) and waited.any():
        queued, began = (times.loc[waited, name].to_numpy(np.int64) for name in ("queued_ns", "start_ns"))
        frame.loc[waited, "gpu_idle_ns"] = _idle(queued, began, start_ns, end_ns)
    return REQUESTS.cast(frame)


def spans(gpu_events: pd.DataFrame) -> tuple[I64, I64]:
    """Start and end of each of GPU_EVENTS."""
    start = gpu_events["start_ns"].to_numpy(np.int64)
    return start, start + gpu_events["dur_ns"].to_numpy(np.int64)


def in_flight(served: pd.DataFrame, base_ns: int, start_ns: I64, end_ns: I64) -> tuple[I64, I64] | None:
    """When a server had a request of SERVED, from the head of the first to the answer of the last, as disjoint
    intervals on the clock of the trace; None where no request is of the time of its GPU events.
    """
    SERVED.check(served)
    times = (served[list(TIMES)] - base_ns).ffill(axis=1)  # one that was not answered was there as long as is known
    first, last = union(times["arrival_ns"].to_numpy(np.int64), times["done_ns"].to_numpy(np.int64))
    if not len(first) or not len(start_ns) or last[-1] <= start_ns.min() or first[0] >= end_ns.max():
        return None
    return first, last


def idle_while_queued(requests: pd.DataFrame, start_ns: I64, end_ns: I64) -> tuple[int, int]:
    """Nanoseconds in which a request was in the queue while GPU events were recorded, and those of them without any."""
    waited = requests.dropna(subset=["queue_ns"])
    if waited.empty or not len(start_ns):
        return 0, 0
    before = waited[["receive_ns", "decode_ns"]].fillna(0).sum(axis=1)
    queued = (waited["arrival_ns"] + before).to_numpy(np.int64)
    first, last = union(queued, queued + waited["queue_ns"].to_numpy(np.int64))
    low, high = int(start_ns.min()), int(end_ns.max())
    first, last = np.clip(first, low, high), np.clip(last, low, high)
    return covered_ns(first, last), int(_idle(first, last, start_ns, end_ns).sum())


def _idle(first: I64, last: I64, start_ns: I64, end_ns: I64) -> I64:
    """Of each interval, what no event covers between the first and the last event."""
    start, end = union(start_ns, end_ns)
    if not len(start):
        return np.zeros(len(first), dtype=np.int64)
    first, last = np.clip(first, start[0], end[-1]), np.clip(last, start[0], end[-1])
    return (last - first) - covered_between(start, end, first, last)
