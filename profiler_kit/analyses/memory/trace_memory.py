"""Make a snapshot of the `[memory]` events of a trace, so that every memory analysis works on it.

The events say what was allocated and freed, with the device's totals, and nothing of segments: what the allocator
reserved is known in total. Stacks are the operators and Python functions open on the thread, regions its
record_function regions.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.span_forest import build_forest, outer_first
from profiler_kit.errors import SnapshotFormatError
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.snapshot.data import (
    CPU,
    EVENT_TEXTS,
    OWN_SIZES,
    SNAPSHOT_ANNOTATIONS,
    SNAPSHOT_BLOCKS,
    SNAPSHOT_EVENTS,
    SNAPSHOT_SEGMENTS,
    Frame,
    Recording,
    SnapshotData,
    StackTable,
)
from profiler_kit.load.trace.categories import OPERATOR, REGION, STACK
from profiler_kit.load.trace.chrome import ChromeTrace
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.memory_events import CPU_TYPE, MemoryEvents
from profiler_kit.units import NS_PER_US

SOURCE: Final = "trace"
UNKNOWN_ADDRESS: Final = 1  # of what was allocated before the trace and never freed in it
_PYTHON: Final = re.compile(r"(.+)\((\d+)\): (.+)", re.DOTALL)
_NO_EVENTS: Final = (
    "this chrome trace has no [memory] events, expected some, or a CUDA memory snapshot (a pickle). Record them with "
    "profiler_runner(path, profile_memory=True), or a snapshot with profiler_kit.memory_runner. For what else it holds "
    "use: profiler-kit summary."
)


def snapshot_of(trace: ChromeTrace, memory: MemoryEvents) -> SnapshotData:
    """The snapshot of a trace's `[memory]` events; raises SnapshotFormatError when there are none.

    Device -1 is the CPU. Its total closes on the one of the last event, so that what was allocated before the trace
    and not freed in it is one block. Times are Unix time when the trace has a base time.
    """
    if not len(memory):
        raise SnapshotFormatError(f"{trace.path}: {_NO_EVENTS}")
    stacks, stack = _stacks(trace.columns, memory)
    device = np.where(memory.device_type == CPU_TYPE, CPU, np.maximum(memory.device_id, 0))
    base = trace.metadata.get("baseTimeNanoseconds")
    base_ns = base if isinstance(base, int) and not isinstance(base, bool) else 0
    devices = tuple(np.unique(device).tolist())
    events, segments, blocks = [], [], []
    for one in devices:
        rows = np.flatnonzero(device == one)
        rows = rows[np.argsort(memory.start_ns[rows], kind="stable")]
        events.append(_events(memory, rows, stack[rows], one, base_ns))
        held, live = _end_state(memory, rows, stack[rows], one)
        segments.append(held)
        blocks.append(live)
    return SnapshotData(
        path=str(trace.path),
        recording=Recording(SOURCE),
        events=SNAPSHOT_EVENTS.check(_joined(events, ("action", "pool", *EVENT_TEXTS))),
        blocks=SNAPSHOT_BLOCKS.check(_joined(blocks, ("state",))),
        segments=SNAPSHOT_SEGMENTS.check(_joined(segments, ())),
        annotations=_annotations(trace.columns, base_ns),
        stacks=stacks,
        devices=devices,
    )


def _joined(frames: list[pd.DataFrame], categories: tuple[str, ...]) -> pd.DataFrame:
    joined = pd.concat(frames, ignore_index=True)
    return joined.astype(dict.fromkeys(categories, "category"))


def _events(memory: MemoryEvents, rows: I64, stack: I64, device: int, base_ns: int) -> pd.DataFrame:
    """The history of one device: before an event that changed what is reserved, that change."""
    size, reserved = memory.size_bytes[rows], _known(memory.total_reserved[rows])
    change = np.diff(reserved, prepend=reserved[:1])
    before = np.flatnonzero(change)
    # a change of what is reserved goes right before the event that first shows it
    order = np.argsort(np.concatenate((np.arange(len(rows)), before - 0.5)), kind="stable")
    kind = np.where(size >= 0, "alloc", "free_completed").astype(object)
    moved = np.where(change[before] > 0, "segment_alloc", "segment_free").astype(object)
    time_us = (memory.start_ns[rows] + base_ns) // NS_PER_US
    count = len(rows) + len(before)
    frame = pd.DataFrame(
        {
            "device": np.full(count, device, np.int64),
            "action": np.concatenate((kind, moved)),
            "address": np.concatenate((memory.address[rows], np.zeros(len(before), np.uint64))),
            "size_bytes": np.concatenate((np.abs(size), np.abs(change[before]))),
            "stream": np.zeros(count, np.int64),
            "time_us": np.concatenate((time_us, time_us[before])),
            "stack": np.concatenate((stack, stack[before])),
            "device_free_bytes": pd.array([pd.NA] * count, dtype="Int64"),
            **{name: np.full(count, "", object) for name in ("pool", *EVENT_TEXTS)},
        }
    )
    return frame.iloc[order]


def _known(totals: I64) -> I64:
    """Totals with those the file does not say replaced by the one before."""
    # last place with a known total, up to each place
    place = np.maximum.accumulate(np.where(totals == MISSING, -1, np.arange(len(totals))))
    return np.where(place < 0, 0, totals[np.maximum(place, 0)])


def _end_state(memory: MemoryEvents, rows: I64, stack: I64, device: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """What is reserved and live after the last event, as one segment with its blocks."""
    live: dict[int, tuple[int, int]] = {}
    for address, size, number in zip(
        memory.address[rows].tolist(), memory.size_bytes[rows].tolist(), stack.tolist(), strict=True
    ):
        if size >= 0:
            live[address] = (size, number)
        else:
            live.pop(address, None)
    known = sum(size for size, _ in live.values())
    total = memory.total_allocated[rows]
    total = total[total != MISSING]
    before = max(0, int(total[-1]) - known) if len(total) else 0
    blocks = [(address, size, number) for address, (size, number) in live.items()]
    blocks += [(UNKNOWN_ADDRESS, before, 0)] if before else []
    reserved = max(int(_known(memory.total_reserved[rows])[-1]), known + before)
    segment = pd.DataFrame(
        {
            "device": np.array([device], np.int64),
            "address": np.array([0], np.uint64),
            "total_bytes": np.array([reserved], np.int64),
            "stream": np.array([0], np.int64),
            "segment_type": np.array(["large"], object),
            "pool": np.array(["0,0"], object),
            "expandable": np.array([False]),
            **{name: pd.array([pd.NA], dtype="Int64") for name in OWN_SIZES},
        }
    )
    count = len(blocks)
    sizes = np.array([size for _, size, _ in blocks], np.int64)
    frame = pd.DataFrame(
        {
            "device": np.full(count, device, np.int64),
            "segment": np.zeros(count, np.uint64),
            "address": np.array([address for address, _, _ in blocks], np.uint64),
            "size_bytes": sizes,
            "requested_bytes": sizes,
            "state": np.full(count, "active_allocated", object),
            "stream": np.zeros(count, np.int64),
            "stack": np.array([number for _, _, number in blocks], np.int64),
        }
    )
    return segment, frame


# ---- regions ----


def _annotations(columns: EventColumns, base_ns: int) -> pd.DataFrame:
    """SNAPSHOT_ANNOTATIONS: the regions of all threads, of no device in particular."""
    event = np.flatnonzero(columns.of_category(lambda category: category == REGION))
    start = columns.start_ns[event]
    end = start + columns.dur_ns[event]
    marks = []
    for thread in np.unique(columns.thread[event]).tolist():
        mine = np.flatnonzero(columns.thread[event] == thread)
        order = mine[np.lexsort((-end[mine], start[mine]))]
        names = [columns.names[number] for number in columns.name[event[order]].tolist()]
        marks += list(_nested_marks(start[order].tolist(), end[order].tolist(), names))
    marks.sort(key=lambda mark: mark[0])
    frame = pd.DataFrame(
        {
            "stage": pd.Categorical([stage for _, stage, _ in marks], categories=["START", "END"]),
            "name": np.array([name for _, _, name in marks], object),
            "time_us": np.array([(ns + base_ns) // NS_PER_US for ns, _, _ in marks], np.int64),
            "device": pd.array([pd.NA] * len(marks), dtype="Int64"),
        }
    )
    return SNAPSHOT_ANNOTATIONS.check(frame.sort_values("time_us", kind="stable", ignore_index=True))


def _nested_marks(starts: list[int], ends: list[int], names: list[str]) -> Iterator[tuple[int, str, str]]:
    """START and END of the regions of one thread (outer ones first) so that they nest, also where some share a time."""
    inside: list[tuple[int, str]] = []
    for start, end, name in zip(starts, ends, names, strict=True):
        while inside and inside[-1][0] <= start:
            closed, of = inside.pop()
            yield closed, "END", of
        inside.append((end, name))
        yield start, "START", name
    for closed, of in reversed(inside):
        yield closed, "END", of


# ---- stacks ----


def _stacks(columns: EventColumns, memory: MemoryEvents) -> tuple[StackTable, I64]:
    """The stacks, and the number of each event's: the operators and Python functions open on its thread."""
    event = np.flatnonzero(columns.of_category(lambda category: category in (OPERATOR, STACK)))
    start = columns.start_ns[event]
    end = start + columns.dur_ns[event]
    forest = build_forest(columns.thread[event].astype(np.int64), start, end, outer_first(start, end))
    node = forest.innermost(memory.thread, memory.start_ns)
    name = np.concatenate(([-1], columns.name[event[forest.span[1:]]])).tolist()
    parent = forest.parent.tolist()
    numbers, flat, ends = {0: 0}, [], [0]
    by_key: dict[tuple[int, int], int] = {}
    runs: list[list[int]] = [[]]
    for wanted in np.unique(node).tolist():
        chain = []
        while wanted not in numbers:
            chain.append(wanted)
            wanted = parent[wanted]
        for one in reversed(chain):
            key = (numbers[parent[one]], name[one])
            if key not in by_key:
                by_key[key] = len(runs)
                runs.append([name[one], *runs[key[0]]])
                flat += runs[-1]
                ends.append(len(flat))
            numbers[one] = by_key[key]
    used = np.unique(np.array(flat, np.int32))
    frames = tuple(_frame(columns.names[number]) for number in used.tolist())
    table = StackTable(np.array(ends, np.int64), np.searchsorted(used, flat).astype(np.int32), frames)
    return table, np.array([numbers[one] for one in node.tolist()], np.int64)


def _frame(name: str) -> Frame:
    """A Python function reads `file.py(12): name`; an operator is its name alone."""
    found = _PYTHON.fullmatch(name)
    return Frame(found[1], int(found[2][:9]), found[3]) if found else Frame("", 0, name)
