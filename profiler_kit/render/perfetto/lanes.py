"""Move events that overlap without nesting to lanes of their own, as new thread ids.

Perfetto draws one stack of slices per thread and drops whatever begins inside a slice and ends after it
(`slice_drop_overlapping_complete_event`). Kernels that overlap on one stream are such events, and so is every region
in a trace with Python stacks: it begins inside the Python function that enters it. Of two that overlap the shorter
one moves to a lane of its own; times stay as they are.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.attribute.span_forest import ROOT, build_forest, outer_first
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.event_text import Scan, replaced

FIRST_TID: Final = 1_000_000_000  # beyond any thread of a process, below Perfetto's limit of 2**32
_PYTHON: Final = "python_function"


@dataclass(frozen=True)
class Lanes:
    """tid holds the new thread id of each event that moves, by number; metadata the events that name the lanes."""

    tid: dict[int, int]
    metadata: list[bytes]

    def move(self, number: int, text: bytes) -> bytes:
        """The event's text with its new thread id, if it has one."""
        tid = self.tid.get(number)
        return text if tid is None else replaced(text, {"tid": b"%d" % tid})


def spread(found: Scan, keep: npt.NDArray[np.bool_], arrows: npt.NDArray[np.bool_]) -> Lanes:
    """Lanes for the spans of `keep` that overlap others without nesting, and for the `arrows` attached to them."""
    spans = found.spans
    rows = np.flatnonzero(keep)
    thread, start, end = spans.thread[rows].astype(np.int64), spans.start_ns[rows], spans.end_ns[rows]
    forest = build_forest(thread, start, end, outer_first(start, end, rows))
    node = np.flatnonzero((forest.parent != ROOT) & (forest.end > forest.end[forest.parent]))
    lanes = Lanes({}, [])
    tid = FIRST_TID
    for code in np.unique(thread[forest.span[node]]).tolist():
        mine = rows[thread == code]
        mine = mine[np.lexsort((mine, -spans.end_ns[mine], spans.start_ns[mine]))]
        left = _moved(mine.tolist(), spans.start_ns, spans.end_ns)
        number = 1
        while left:
            again = set(_moved(left, spans.start_ns, spans.end_ns))
            lane = [row for row in left if row not in again]
            number += 1
            lanes.metadata.extend(_names(found, code, tid, number))
            lanes.tid.update((int(of[row]), tid) for of in (spans.number, spans.last) for row in lane)
            _take_arrows(found, arrows, np.array(lane), tid, lanes)
            left, tid = [row for row in left if row in again], tid + 1
    return lanes


def _moved(rows: list[int], start: I64, end: I64) -> list[int]:
    """Those of `rows` (by start, outer first) to remove so that the others nest: of two, the shorter."""
    stack: list[int] = []
    moved: list[int] = []
    for row in rows:
        while stack and end[stack[-1]] <= start[row]:
            stack.pop()
        while stack and start[row] < end[stack[-1]] < end[row]:
            top = stack[-1]
            if end[top] - start[top] >= end[row] - start[row]:
                moved.append(row)
                break
            moved.append(stack.pop())
        else:
            stack.append(row)
    moved.sort(key=lambda row: (int(start[row]), -int(end[row]), row))
    return moved


def _take_arrows(found: Scan, arrows: npt.NDArray[np.bool_], lane: I64, tid: int, lanes: Lanes) -> None:
    """Move the arrows attached to the start of what moved; Python functions have none."""
    lane = lane[np.array([found.categories[code] != _PYTHON for code in found.spans.category[lane].tolist()])]
    starts = found.spans.start_ns[lane]
    if not len(lane):
        return
    flows = found.flows
    on = arrows & (flows.thread == int(found.spans.thread[lane[0]])) & np.isin(flows.time_ns, starts)
    lanes.tid.update((number, tid) for number in flows.number[on].tolist())


def _names(found: Scan, code: int, tid: int, number: int) -> list[bytes]:
    pid, old = found.threads[code]
    name = found.columns.thread_names.get((pid, old), "") or f"thread {old}"
    values: list[tuple[str, str, object]] = [("thread_name", "name", f"{name} ({number}, overlaps)")]
    if isinstance(old, int) and abs(old) < 1 << 31:
        values.append(("thread_sort_index", "sort_index", old))  # as Kineto sorts the thread itself
    return [
        json.dumps({"name": kind, "ph": "M", "pid": pid, "tid": tid, "args": {key: value}}).encode()
        for kind, key, value in values
    ]
