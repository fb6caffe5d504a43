"""Lengths of unions and differences of intervals, in integer nanoseconds, and sums by group."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
import numpy.typing as npt

from profiler_kit.load.integers import I64, Mask

Times = TypeVar("Times", I64, npt.NDArray[np.float64])


def union(start: I64, end: I64) -> tuple[I64, I64]:
    """Disjoint, sorted intervals that cover the same time; empty ones vanish."""
    some = end > start
    start, end = start[some], end[some]
    if not len(start):
        return start, end
    order = np.argsort(start, kind="stable")
    start, end = start[order], np.maximum.accumulate(end[order])
    # an interval opens a new piece when it starts after all earlier ones have ended; the one before it closes a piece
    first = np.concatenate(([True], start[1:] > end[:-1]))
    last = np.append(first[1:], True)
    return start[first], end[last]


def covered_ns(start: I64, end: I64) -> int:
    """Length of the union."""
    start, end = union(start, end)
    return int((end - start).sum())


def covered_by_group(group: I64, start: I64, end: I64, groups: int) -> I64:
    """Length of the union within each group 0 .. groups - 1.

    Groups are swept one after the other on one axis; there, an interval adds what lies beyond everything its
    group has covered so far.
    """
    total = np.zeros(groups, dtype=np.int64)
    if not len(start):
        return total
    order = np.lexsort((start, group))
    group, start, end = group[order], start[order], end[order]
    first, width = int(start.min()), int(end.max()) - int(start.min()) + 1
    if groups * width >= 1 << 62:  # the axis would not fit 64 bits: one group at a time
        cuts = np.searchsorted(group, np.arange(groups + 1))
        for number, (low, high) in enumerate(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)):
            total[number] = covered_ns(start[low:high], end[low:high])
        return total
    # group g takes the part of the axis from g * width on
    offset = group * width - first
    start, end = start + offset, end + offset
    # how far the intervals before each one reach: at most to the end of the previous group's part of the axis
    reach = np.concatenate((start[:1], np.maximum.accumulate(end)[:-1]))
    np.add.at(total, group, np.maximum(end - np.maximum(start, reach), 0))
    return total


def covered_between(start: I64, end: I64, low: Times, high: Times) -> Times:
    """How much of each stretch low .. high these disjoint, sorted intervals cover."""
    return covered_until(start, end, high) - covered_until(start, end, low)


def cut(start: I64, end: I64, within: tuple[I64, I64]) -> tuple[I64, I64, I64, Mask]:
    """Stretches cut where disjoint, sorted intervals begin and end: row, start and end of each piece, in order, and
    whether it lies within one of the intervals.
    """
    edges = np.column_stack(within).ravel()  # begin, end, begin, end: after an odd number of them a moment is within
    first = np.searchsorted(edges, start, "right")
    pieces = np.maximum(np.searchsorted(edges, end, "left") - first, 0) + 1
    row = np.repeat(np.arange(len(start)), pieces)
    number = np.arange(len(row)) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of the piece in its stretch
    at = first[row] + number
    padded = np.append(edges, 0)
    begin = np.where(number == 0, start[row], padded[np.minimum(at - 1, len(edges))])
    stop = np.where(number == pieces[row] - 1, end[row], padded[np.minimum(at, len(edges))])
    return row, begin, stop, at % 2 == 1


def covered_until(start: I64, end: I64, time: Times) -> Times:
    """How much of the time before each moment these disjoint, sorted intervals cover."""
    if not len(start):
        return np.zeros_like(time)
    # covered time before each interval; before a moment: all intervals begun by then, less the rest of the last one
    done = np.concatenate(([0], np.cumsum(end - start)))
    at = np.searchsorted(start, time, "right")
    over = np.maximum(end[np.maximum(at - 1, 0)] - time, 0)
    return done[at] - np.where(at > 0, over, 0)


def added(group: I64, value: I64, groups: int) -> I64:
    """Values added up within each group 0 .. groups - 1."""
    total = np.zeros(groups, dtype=np.int64)
    np.add.at(total, group, value)
    return total


def with_ancestors(instance: I64, parent: I64) -> tuple[I64, I64]:
    """(instance, row) of each row with each instance it belongs to: its own, and those that one is nested in.

    instance: of each row, -1 for none. parent: of each instance, -1 for none.
    """
    row = np.flatnonzero(instance >= 0)
    groups, rows = [instance[row]], [row]
    while len(above := parent[groups[-1]]):
        # those whose instance has a parent belong to that parent as well
        groups.append(above[above >= 0])
        rows.append(rows[-1][above >= 0])
    return np.concatenate(groups), np.concatenate(rows)
