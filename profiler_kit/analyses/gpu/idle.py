"""Find when the GPU was idle, and why: the gaps between its events and the cause of each.

The causes are those of HolisticTraceAnalysis (`get_idle_time_breakdown`), and two more: a gap is host-bound when the
launch of the event that ends it began after everything before it had ended, or synchronization-bound when the host was
then inside a call that waits for the GPU (both are HTA's host_wait); else it is a kernel wait when it is shorter than a
threshold (back-to-back kernels have some distance); else other (waiting for another stream, a dependency). Of a server,
the part of a gap in which no request was there has that as its cause, and is a row of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.intervals import cut
from profiler_kit.attribute.frames import KERNEL_DETAILS, LAUNCH_CALLS
from profiler_kit.attribute.launch_context import codes_of, previous_end, stream_codes
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.schema import Column, Schema

HOST_BOUND: Final = "host-bound"
SYNCHRONISED: Final = "synchronization-bound"
KERNEL_WAIT: Final = "kernel wait"
OTHER: Final = "other"
NO_REQUEST: Final = "no request"
CAUSES: Final[Mapping[str, str]] = {
    HOST_BOUND: "The next kernel was launched after all earlier work had ended.",
    SYNCHRONISED: "The same, because the host was inside a synchronizing call when the gap began.",
    KERNEL_WAIT: "The short gap between kernels that were launched in time.",
    OTHER: "Launched in time but not started: it waits for another stream or a dependency.",
    NO_REQUEST: "The server had no request.",
}
MEANING: Final = f"Why the GPU was idle. {' '.join(f'{cause}: {meaning}' for cause, meaning in CAUSES.items())}"

IDLE_GAPS: Final = Schema(
    "IDLE_GAPS",
    "stretch in which nothing ran on a stream (or a device, or anywhere), by start",
    {
        "process": Column("category", show="varied"),
        "device": Column("Int64", "Device that was idle; missing where it was all of them.", show="room"),
        "stream": Column("Int64", "Stream that was idle; missing where it was a whole device.", show="room"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "cause": Column("category", MEANING),
        "synchronised": Column("bool", "The cause is synchronization-bound.", "host waited", show="never"),
        "event": Column("int64", "Row of events: the GPU event after it.", show="room"),
        "path": Column("paths", "Regions of the GPU event after it, outermost first."),
    },
)

IDLE_TOTALS: Final = Schema(
    "IDLE_TOTALS",
    "stream and cause, the stream with the longest idle time first",
    {
        "process": Column("str", show="varied"),
        "device": Column("Int64", show="room"),
        "stream": Column("Int64", show="room"),
        "cause": Column("str", MEANING),
        "gaps": Column("int64", "How many stretches in which nothing ran."),
        "idle_ns": Column("int64", "Their lengths added up."),
        "synchronised_ns": Column("int64", "Idle time that is synchronization-bound.", "host waited", show="never"),
        "longest_ns": Column("int64", "The longest of them."),
        "share": Column("float64", "Share of the stream's idle time.", "of idle"),
    },
)


Scope = Literal["stream", "device", "all"]

_CODE: Final = {cause: code for code, cause in enumerate(CAUSES)}
# HTA's `consecutive_kernel_delay` is 30; it says nanoseconds and compares with microseconds.
KERNEL_WAIT_BELOW_NS: Final = 30_000


def idle_gaps(
    details: pd.DataFrame,
    launch_calls: pd.DataFrame,
    *,
    scope: Scope = "stream",
    kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS,
    in_flight: tuple[I64, I64] | None = None,
) -> pd.DataFrame:
    """KERNEL_DETAILS, LAUNCH_CALLS -> IDLE_GAPS: one row per stretch in which nothing ran, by start.

    scope says where nothing ran: on one stream, on one device, or on any device of the trace. The gaps of a stream
    and the union of its events add up to last end - first start, exactly. Events that do not name their stream count
    as one stream. A gap whose ending event has no launch in the trace cannot be host-bound. It is synchronization-bound
    when the launching thread was inside a call that waits for the GPU (LAUNCH_CALLS' waits) as the gap began.
    in_flight: when a server had a request (serving.requests.in_flight); gaps are cut there. Empty in, empty out.
    """
    details, launch_calls = KERNEL_DETAILS.check(details), LAUNCH_CALLS.check(launch_calls)
    start = details["start_ns"].to_numpy()
    end = start + details["dur_ns"].to_numpy()
    process = codes_of(details["process"])
    device, stream = _codes(details["device"]), _codes(details["stream"])
    if scope != "stream":
        stream = np.zeros_like(stream)
    if scope == "all":
        process, device = np.zeros_like(process), np.zeros_like(device)
    launched = _codes(details["launch_start_ns"])
    previous = previous_end(stream_codes(process, device, stream), start, end, launched)
    # the event that ends each gap: it starts after everything before it on its stream has ended
    rows = np.flatnonzero((previous != MISSING) & (start > previous))
    rows = rows[np.lexsort((rows, previous[rows]))]
    before, gap = previous[rows], start[rows] - previous[rows]
    late = launched[rows] > before  # MISSING is before everything
    thread = details["launch_thread"].iloc[rows].fillna(-1).to_numpy(dtype=np.int64)
    waited = late & _inside_waiting_call(launch_calls, thread, before)
    cause = np.select(
        [waited, late, gap < kernel_wait_below_ns],
        [_CODE[SYNCHRONISED], _CODE[HOST_BOUND], _CODE[KERNEL_WAIT]],
        _CODE[OTHER],
    )
    if in_flight is not None:
        piece, start_of, end_of, served = cut(before, before + gap, in_flight)
        # what the host did as the gap began is no cause of the pieces after the first
        later = (cause[piece] == _CODE[SYNCHRONISED]) & (start_of > before[piece])
        cause = np.select([~served, later], [_CODE[NO_REQUEST], _CODE[HOST_BOUND]], cause[piece])
        rows, before, gap = rows[piece], start_of, end_of - start_of
    unknown = pd.array([pd.NA] * len(rows), dtype="Int64")
    gaps = pd.DataFrame(
        {
            "process": pd.Categorical([""] * len(rows)) if scope == "all" else details["process"].iloc[rows].array,
            "device": unknown if scope == "all" else details["device"].iloc[rows].array,
            "stream": details["stream"].iloc[rows].array if scope == "stream" else unknown,
            "start_ns": before,
            "dur_ns": gap,
            "cause": pd.Categorical.from_codes(cause.tolist(), categories=pd.Index(list(CAUSES), dtype=object)),
            "synchronised": cause == _CODE[SYNCHRONISED],
            "event": details["event"].to_numpy()[rows],
            "path": details["path"].iloc[rows].array,
        }
    )
    return IDLE_GAPS.check(gaps)


def idle_totals(gaps: pd.DataFrame) -> pd.DataFrame:
    """IDLE_GAPS -> IDLE_TOTALS: idle time by stream and cause, longest stream first. Empty in, empty out.

    The idle_ns of one stream add up to its idle time, the shares to 1.
    """
    gaps = IDLE_GAPS.check(gaps)
    if gaps.empty:
        return IDLE_TOTALS.empty()
    keys = ["process", "device", "stream", "cause"]
    grouped = gaps.assign(waited=gaps["dur_ns"].where(gaps["synchronised"], 0)).groupby(
        keys, observed=True, dropna=False, sort=False
    )
    totals = grouped.agg(
        gaps=("dur_ns", "size"),
        idle_ns=("dur_ns", "sum"),
        synchronised_ns=("waited", "sum"),
        longest_ns=("dur_ns", "max"),
    ).reset_index()
    whole = totals.groupby(keys[:-1], dropna=False, observed=True)["idle_ns"].transform("sum")
    totals["share"] = totals["idle_ns"] / whole
    totals["cause"], totals["process"] = totals["cause"].astype(object), totals["process"].astype(object)
    order = totals.assign(whole=whole).sort_values(
        ["whole", *keys[:-1], "idle_ns", "cause"], ascending=[False, True, True, True, False, True]
    )
    return IDLE_TOTALS.check(order.reset_index(drop=True))


def _inside_waiting_call(launch_calls: pd.DataFrame, thread: I64, time: I64) -> Mask:
    """Whether each thread was inside a waiting call at each moment: start <= moment <= end."""
    calls = launch_calls[launch_calls["waits"]]
    inside = np.zeros(len(time), dtype=bool)
    owner = calls["thread"].to_numpy()
    for number in np.intersect1d(owner, thread).tolist():
        mine = calls[owner == number]
        start = mine["start_ns"].to_numpy()
        order = np.argsort(start, kind="stable")
        # latest end of the calls up to each; the thread waits at a moment when the calls begun by then reach that far
        reach = np.maximum.accumulate((start + mine["dur_ns"].to_numpy())[order])
        asked = np.flatnonzero(thread == number)
        at = np.searchsorted(start[order], time[asked], "right") - 1
        inside[asked] = (at >= 0) & (reach[np.maximum(at, 0)] >= time[asked])
    return inside


def _codes(values: pd.Series[int]) -> I64:
    return np.asarray(values.fillna(MISSING).to_numpy(dtype=np.int64))
