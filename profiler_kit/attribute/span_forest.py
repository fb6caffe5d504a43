"""Find which span is nested in which, for all threads at once and without a Python loop over spans.

All threads are laid end to end on one integer axis, so that one sort and one binary search serve every thread.
Parents are found by pointer jumping: begin with the span that started just before, and while that one has ended
by the child's start, go to *its* candidate. Everything skipped on the way has ended too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.columns import EventColumns

ROOT = 0  # the node that stands for "no span"
_AXIS_END = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Axis:
    """Places (thread, time) on one integer axis; exact, also where threads x time would not fit 64 bits."""

    first_ns: int
    width: int
    ranks: I64 | None  # the distinct times, when positions are ranks among them

    @staticmethod
    def of(thread: I64, start: I64, end: I64) -> Axis:
        """The axis on which all these spans fit."""
        if not len(start):
            return Axis(0, 1, None)
        first, last = int(start.min()), int(end.max())
        width = last - first + 3
        if (int(thread.max()) + 1) * width < 1 << 62:
            return Axis(first, width, None)
        times = np.unique(np.concatenate((start, end)))
        return Axis(0, 2 * len(times) + 2, times)

    def place(self, thread: I64, time: I64) -> I64:
        """Position of each moment; moments before or after every span keep their side of all of them."""
        if self.ranks is None:
            offset = np.clip(time, self.first_ns - 1, self.first_ns + self.width - 2) - (self.first_ns - 1)
        else:
            # how many of the known times are not after each moment, and whether the last of them is that moment
            after = np.searchsorted(self.ranks, time, "right")
            exact = (after > 0) & (self.ranks[np.maximum(after - 1, 0)] == time)
            offset = 2 * after - exact  # odd on a known time, even between two
        return np.asarray(thread.astype(np.int64) * self.width + offset, dtype=np.int64)

    def time_of(self, thread: I64, place: I64) -> I64:
        """The moment at each position of a span's start or end."""
        offset = place - thread * self.width
        return offset + self.first_ns - 1 if self.ranks is None else self.ranks[offset // 2]


@dataclass(frozen=True)
class Forest:
    """Spans in order of thread, start and rank; node 0 is ROOT, node k > 0 is span `span[k]`.

    parent[k] is the node of the latest earlier span still open at k's start.
    """

    axis: Axis
    span: I64
    start: I64
    end: I64
    parent: I64

    def latest(self, thread: I64, time: I64) -> I64:
        """Node of the last span that started by each moment, of this thread or, failing that, an earlier one."""
        return np.asarray(np.searchsorted(self.start, self.axis.place(thread, time), "right") - 1, dtype=np.int64)

    def innermost(self, thread: I64, time: I64) -> I64:
        """Node of the latest span open at each moment (start <= time < end), ROOT when none is."""
        at = self.axis.place(thread, time)  # each moment as one integer
        order = np.argsort(at, kind="stable")  # sorted queries walk memory forward
        at = at[order]
        # candidate: the last span that started by each moment
        node = np.searchsorted(self.start, at, "right") - 1
        # where the candidate had ended, try its parent, until every candidate is open (ROOT never ends)
        closed = np.flatnonzero(self.end[node] <= at)
        while len(closed):
            node[closed] = self.parent[node[closed]]
            closed = closed[self.end[node[closed]] <= at[closed]]
        found = np.empty_like(node)
        found[order] = node
        return found


def build_forest(thread: I64, start: I64, end: I64, rank: I64) -> Forest:
    """Nest spans by thread and time; among equal starts the one of lower rank is the outer one.

    rank is unique per span. Right for proper nesting and for partial overlap.
    """
    axis = Axis.of(thread, start, end)
    begin = axis.place(thread, start)
    order = order_by(begin, rank)
    # node 0 is ROOT: open from before everything to after everything
    first = np.iinfo(np.int64).min
    if not len(start):
        return Forest(axis, np.array([-1]), np.array([first]), np.array([_AXIS_END]), np.array([ROOT]))
    begin = np.concatenate(([first], begin[order]))
    finish = np.concatenate(([_AXIS_END], axis.place(thread, end)[order]))
    # first guess: the parent of each node is the node just before it
    parent = np.arange(-1, len(begin) - 1)
    parent[ROOT] = ROOT
    # where that one had ended by the child's start, go to what is its parent by now (pointer jumping)
    closed = np.flatnonzero(finish[parent] <= begin)
    while len(closed):
        parent[closed] = parent[parent[closed]]
        closed = closed[finish[parent[closed]] <= begin[closed]]
    return Forest(axis, np.concatenate(([-1], order)), begin, finish, parent)


def outer_first(start: I64, end: I64, *ties: npt.NDArray[np.integer[Any]]) -> I64:
    """A rank for each span: by start, the longer one first, then by the ties in order."""
    order = order_by(start, -end, *ties)
    rank = np.empty(len(start), dtype=np.int64)
    rank[order] = np.arange(len(start))
    return rank


def nesting_rank(columns: EventColumns, event: I64) -> I64:
    """The rank of these events among the spans of their threads; of those that begin and end together the ids tell."""
    start, end = columns.start_ns[event], columns.start_ns[event] + columns.dur_ns[event]
    return outer_first(start, end, *_ties_of(columns, event, start, end))


def _ties_of(columns: EventColumns, event: I64, start: I64, end: I64) -> tuple[I64, I64]:
    """What orders spans of one thread that begin and end together, the outer one first.

    It is their External ids (Python ids of Python functions), then their names. Where one of them has no id, nothing
    in the events tells, and the order of the file stays: both are 0.
    """
    external, python = (columns.integers[key][event] for key in ("external_id", "python_id"))
    external = np.where(external == MISSING, python, external)
    used = sorted(set(columns.name[event].tolist()), key=columns.names.__getitem__)
    place = np.zeros(len(columns.names) + 1, dtype=np.int64)
    place[used] = np.arange(len(used))
    name = place[columns.name[event]]
    without = external == MISSING
    if without.any():
        order = np.lexsort((end, start, columns.thread[event]))
        along = np.column_stack((columns.thread[event], start, end))[order]
        group = np.empty(len(event), dtype=np.int64)
        group[order] = np.cumsum(np.append(True, (along[1:] != along[:-1]).any(axis=1))[: len(order)])
        by_id = np.bincount(group[without], minlength=len(event) + 1)[group] == 0
        external, name = np.where(by_id, external, 0), np.where(by_id, name, 0)
    return external, name


def order_by(key: npt.NDArray[np.integer[Any]], *ties: npt.NDArray[np.integer[Any]]) -> I64:
    """The order by key, then by the ties in turn: lexsort, but only equal keys pay for their ties.

    Times and ids come almost sorted from a file, which makes a stable sort of one key fast.
    """
    order = np.argsort(key, kind="stable")
    along = key[order]
    same = along[1:] == along[:-1]
    if not ties or not same.any():
        return order
    # places whose key equals that of a neighbour: only these are sorted again, by key and then by the ties
    members = np.flatnonzero(np.concatenate(([False], same)) | np.concatenate((same, [False])))
    rows = order[members]
    order[members] = rows[np.lexsort((*(tie[rows] for tie in reversed(ties)), key[rows]))]
    return order


def spread(first: I64, count: I64) -> I64:
    """first[0], first[0] + 1, ... (count[0] of them), first[1], ...: the rows of many ranges, one after the other."""
    # row i of range r is first[r] + (i - number of rows before the range)
    total = np.cumsum(count)
    return np.repeat(first - (total - count), count) + np.arange(int(total[-1]) if len(total) else 0)


def depths(parent: I64) -> npt.NDArray[np.int64]:
    """How many ancestors each node has, ROOT not counted; by pointer doubling."""
    # depth counts the ancestors up to `above`, which moves twice as far up in each round
    depth: I64 = (parent != ROOT).astype(np.int64)
    above = parent.copy()
    while above.any():
        depth += depth[above]
        above = above[above]
    return depth
