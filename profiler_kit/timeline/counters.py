"""Counters as lanes: the queue of each stream, the kernels that communicate at once, the memory that is allocated."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.launches import QUEUE_LENGTH
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.load.trace.columns import TextColumn
from profiler_kit.text import fmt_bytes, fmt_count
from profiler_kit.timeline.build import Codes, Layout
from profiler_kit.timeline.index import Ints, Level, Timeline, Track


@dataclass(frozen=True)
class Counter:
    """A step function: a value from each time on, up to the next one; `most` is its largest as text."""

    label: str
    time_ns: Ints
    value: Ints
    most: str


def counters_of(
    queue: pd.DataFrame, gpu_events: pd.DataFrame, occupancy: TextColumn | None = None
) -> Iterator[Counter]:
    """From QUEUE_LENGTH and GPU_EVENTS: the queue of each stream, and the kernels of each GPU that communicate at once.

    occupancy: what Kineto estimates of kernels, in percent, by the number of the event.
    """
    QUEUE_LENGTH.check(queue)
    GPU_EVENTS.check(gpu_events)
    several = len(queue[["process", "device"]].drop_duplicates()) > 1
    for (_, device, stream), rows in queue.groupby(["process", "device", "stream"], dropna=False, sort=True):
        where = f"GPU {device}, stream {stream}" if several else f"stream {stream}"
        length = rows["length"].to_numpy(np.int64)
        most = f"{fmt_count(int(length.max()))} waiting"
        yield Counter(f"Queue, {where}", rows["time_ns"].to_numpy(np.int64), length, most)
    devices = list(gpu_events.groupby(["process", "device"], dropna=False, sort=True, observed=True))
    for (_, device), rows in devices:
        where = f", GPU {device}" if len(devices) > 1 else ""
        mine = rows[rows["communication"].notna()]
        if len(mine):
            start, dur = (mine[name].to_numpy(np.int64) for name in ("start_ns", "dur_ns"))
            time, running = _running(start, dur, np.ones(len(mine), np.int64))
            yield Counter(f"Communication{where}", time, running, f"{fmt_count(int(running.max()))} kernels at once")
        if occupancy is not None:
            told = np.array([int(text[:4]) if text.isdecimal() else 0 for text in occupancy.values], dtype=np.int64)
            start, dur, event = (rows[name].to_numpy(np.int64) for name in ("start_ns", "dur_ns", "event"))
            time, together = _running(start, dur, np.minimum(told, 100)[occupancy.codes[event]])
            filled = np.minimum(together, 100)
            yield Counter(f"Estimated occupancy{where}", time, filled, f"{int(filled.max())} %")


def _running(start: Ints, dur: Ints, value: Ints) -> tuple[Ints, Ints]:
    """When what runs changes, and the values of all that runs from then on, added up."""
    time = np.concatenate((start, start + dur))
    order = np.argsort(time, kind="stable")
    time, running = time[order], np.cumsum(np.concatenate((value, -value))[order])
    last = np.append(time[1:] != time[:-1], True)  # of changes at once: what ends there does not run beside what begins
    return time[last], running[last]


def memory_counters(memory: pd.DataFrame, base_ns: int) -> Iterator[Counter]:
    """The allocated bytes of each device, from MEMORY_TIMELINE, whose clock is Unix time."""
    for device, rows in memory.groupby("device", sort=True):
        allocated = rows["allocated_bytes"].to_numpy(np.int64)
        time = rows["time_us"].to_numpy(np.int64) * 1000 - base_ns
        yield Counter(f"Memory, GPU {device}", time, allocated, fmt_bytes(int(allocated.max(initial=0))))


def with_counters(timeline: Timeline, counters: Iterable[Counter]) -> Timeline:
    """The timeline with those counters that say something of its time, below its GPU work."""
    codes, layout = Codes(timeline.labels), Layout()
    rows = [(one, _row(timeline, one, codes)) for one in counters]
    added = False
    for track in timeline.tracks:
        if track.kind in ("region", "python", "operator", "launch") and not added:
            _keep(layout, rows)
            added = True
        layout.keep(track, timeline.rows[track.first_row : track.first_row + track.rows])
    if not added:
        _keep(layout, rows)
    made = layout.timeline(tuple(codes.labels))
    return replace(timeline, tracks=made.tracks, rows=made.rows, labels=made.labels)


def _keep(layout: Layout, rows: list[tuple[Counter, Level | None]]) -> None:
    for one, row in rows:
        if row is not None:
            layout.keep(Track(one.label, "counter", -1, 0, 1, len(row), depths=False, most=one.most), [row])


def _row(timeline: Timeline, one: Counter, codes: Codes) -> Level | None:
    """None where it tells nothing of the time of the timeline."""
    # of changes at once the last one counts
    last = np.append(one.time_ns[1:] != one.time_ns[:-1], True)[: len(one.time_ns)]
    time, value = one.time_ns[last], one.value[last]
    if not len(time) or not value.max() or time[0] >= timeline.end_ns or time[-1] <= timeline.start_ns:
        return None
    if time[-1] < timeline.end_ns:
        time, value = np.append(time, timeline.end_ns), np.append(value, 0)
    dur = np.diff(time, append=time[-1])
    code = codes.of("counter", pd.Series([one.label]), pd.Series([(one.label,)], dtype=object))
    # busy time stands for the value: a stretch at the largest value is busy all along
    busy = np.concatenate((np.zeros(1), np.cumsum(dur * (value / value.max())))).astype(np.int64)
    same = np.full(len(time), code[0], np.uint32)
    return Level(time, busy, same, np.zeros(len(time), np.uint32))
