"""Autograd's backward threads: which thread called backward, and which forward operator a moment belongs to.

The engine runs backward on threads of its own; their events carry the sequence number and a thread id of the
forward operator (torch/csrc/autograd/profiler_kineto.cpp), and Kineto draws `fwdbwd` flows between the two.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.load.categories import OPERATOR
from profiler_kit.load.columns import EventColumns
from profiler_kit.nesting import ROOT, Forest, build_forest, outer_first

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

EVALUATE: Final = "autograd::engine::evaluate_function"
NONE: Final = -1


@dataclass(frozen=True)
class BackwardThreads:
    """The operators that run on backward threads, and where their forward operators ran.

    forest nests them; its span k stands for entry k of the other arrays. caller_thread is the thread that called
    backward (NONE when not known). forward_thread and forward_start place the forward operator (NONE likewise).
    """

    forest: Forest
    thread: I64
    start_ns: I64
    caller_thread: I64
    forward_thread: I64
    forward_start: I64
    _threads: frozenset[int] = field(default_factory=frozenset)

    def caller(self, thread: I32, time: I64) -> I64:
        """The thread that called backward, for moments on backward threads; NONE on any other thread.

        Between two backward operators the earlier one counts, before the first one the first.
        """
        found = np.full(len(time), NONE, dtype=np.int64)
        for number in self._threads.intersection(np.unique(thread).tolist()):
            mine = np.flatnonzero(self.thread == number)
            mine = mine[np.argsort(self.start_ns[mine], kind="stable")]
            asked = np.flatnonzero(thread == number)
            at = np.searchsorted(self.start_ns[mine], time[asked], "right") - 1
            found[asked] = self.caller_thread[mine[np.maximum(at, 0)]]
        return found

    def forward(self, thread: I32, time: I64) -> tuple[I64, I64]:
        """Thread and start of the forward operator behind each moment; NONE where there is none."""
        node = self.forest.innermost(thread.astype(np.int64), time)
        inside = node != ROOT
        span = self.forest.span[node[inside]]
        threads = np.full(len(time), NONE, dtype=np.int64)
        starts = np.zeros(len(time), dtype=np.int64)
        threads[inside], starts[inside] = self.forward_thread[span], self.forward_start[span]
        return threads, starts


def find_backward(columns: EventColumns, regions: I64) -> BackwardThreads:
    """Find the backward threads of a trace; `regions` are the rows of its regions."""
    named = np.array([name.startswith(EVALUATE) for name in columns.names] or [False], dtype=bool)
    evaluates = np.flatnonzero(named[columns.name] if len(columns) else np.zeros(0, dtype=bool))
    threads = np.unique(columns.thread[evaluates])
    tagged = columns.integers["forward_thread"] > 0
    on_threads = np.isin(columns.thread, threads)
    operators = np.flatnonzero(on_threads & (tagged | _rows(evaluates, len(columns))))
    thread = columns.thread[operators].astype(np.int64)
    start = columns.start_ns[operators]
    end = start + columns.dur_ns[operators]
    forest = build_forest(thread, start, end, outer_first(start, end, operators))
    forward = _forward_operators(columns, operators)
    caller = _callers(columns, operators, forward, regions)
    known = forward != NONE
    return BackwardThreads(
        forest=forest,
        thread=thread,
        start_ns=start,
        caller_thread=caller,
        forward_thread=np.where(known, columns.thread[forward], NONE),
        forward_start=np.where(known, columns.start_ns[forward], 0),
        _threads=frozenset(thread[caller != NONE].tolist()),
    )


def _rows(rows: I64, size: int) -> npt.NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    mask[rows] = True
    return mask


def _forward_operators(columns: EventColumns, operators: I64) -> I64:
    """Row of the forward operator of each backward operator: the `fwdbwd` flow, else the sequence number.

    Several forward operators may carry one number (aten::linear and the aten::addmm inside): the one that starts
    last, the innermost, made the node.
    """
    found = np.full(len(operators), NONE, dtype=np.int64)
    sequence = columns.integers["sequence_number"]
    forward_tagged = columns.integers["forward_thread"] > 0
    is_operator = columns.of_category(lambda category: category == OPERATOR)
    forward = np.flatnonzero(is_operator & (sequence >= 0) & ~forward_tagged)
    forward = forward[~np.isin(forward, operators)]
    if not len(forward) or not len(operators):
        return found
    # one key per (thread, number): numbers count per thread, so two threads may share one
    span = int(sequence[forward].max()) + 1
    thread_key = columns.thread[forward].astype(np.int64) * span + sequence[forward]
    order = np.lexsort((columns.start_ns[forward], thread_key))
    forward, thread_key = forward[order], thread_key[order]
    majority = _majority_threads(columns, operators, forward, _flow_threads(columns))
    wanted = majority * span + sequence[operators]
    at = np.searchsorted(thread_key, wanted, "right") - 1
    hit = (at >= 0) & (majority != NONE) & (sequence[operators] >= 0) & (sequence[operators] < span)
    hit &= thread_key[np.maximum(at, 0)] == wanted
    found[hit] = forward[at[hit]]
    return found


def _flow_threads(columns: EventColumns) -> dict[tuple[int, int], int]:
    """(backward thread, start of the backward operator) -> forward thread, from the `fwdbwd` flows."""
    begin = {int(flow): int(thread) for flow, thread, _ in columns.forward_flows.tolist()}
    return {(int(t), int(s)): begin[int(flow)] for flow, t, s in columns.backward_flows.tolist() if int(flow) in begin}


def _majority_threads(columns: EventColumns, operators: I64, forward: I64, flows: dict[tuple[int, int], int]) -> I64:
    """Thread on which the forward of each backward operator ran.

    Operators of one backward thread with one `Fwd thread id` share it; the flows vote, and where there are none
    the threads that hold operators with the same sequence numbers.
    """
    thread = columns.thread[operators].astype(np.int64)
    tag = columns.integers["forward_thread"][operators]
    sequence = columns.integers["sequence_number"]
    start = columns.start_ns[operators]
    group, member = np.unique(np.column_stack((thread, tag)), axis=0, return_inverse=True)
    member = member.reshape(-1)
    answer = np.full(len(group), NONE, dtype=np.int64)
    for number in range(len(group)):
        mine = np.flatnonzero(member == number)
        pairs = zip(thread[mine].tolist(), start[mine].tolist(), strict=True)
        votes = [flows[pair] for pair in pairs if pair in flows] if flows else []
        if not votes:
            shared = np.isin(sequence[forward], sequence[operators[mine]]) & (
                columns.thread[forward] != group[number, 0]
            )
            votes = columns.thread[forward[shared]].tolist()
        if votes:
            values, counts = np.unique(np.array(votes), return_counts=True)
            answer[number] = values[np.argmax(counts)]
    return answer[member]


def _callers(columns: EventColumns, operators: I64, forward: I64, regions: I64) -> I64:
    """The thread that called backward for each backward operator.

    It is the thread its forward ran on; where that is not known, the one thread of the same process whose regions
    are open at most of the backward thread's operators. A thread that is its own caller (backward on a CPU runs
    there) has none, and no caller is itself called, so that nesting ends.
    """
    thread = columns.thread[operators].astype(np.int64)
    caller = np.where(forward != NONE, columns.thread[forward], NONE).astype(np.int64)
    for number in np.unique(thread).tolist():
        mine = np.flatnonzero(thread == number)
        known = caller[mine][caller[mine] != NONE]
        if len(known):
            values, counts = np.unique(known, return_counts=True)
            best = int(values[np.argmax(counts)])
        else:
            best = _thread_with_open_regions(columns, number, operators[mine], regions)
        filled = np.where(caller[mine] == NONE, best, caller[mine])
        caller[mine] = np.where(filled == number, NONE, filled)
    called = np.unique(thread[caller != NONE])
    return np.where(np.isin(caller, called), NONE, caller)


def _thread_with_open_regions(columns: EventColumns, backward: int, operators: I64, regions: I64) -> int:
    """The thread of the same process with regions open at most of these operators, itself before others; else NONE."""
    process = columns.threads[backward][0]
    best, most = NONE, 0
    for number in sorted(np.unique(columns.thread[regions]).tolist(), key=lambda number: number != backward):
        if columns.threads[number][0] != process:
            continue
        rows = regions[columns.thread[regions] == number]
        start, end = columns.start_ns[rows], columns.start_ns[rows] + columns.dur_ns[rows]
        opened = np.searchsorted(np.sort(start), columns.start_ns[operators], "right")
        closed = np.searchsorted(np.sort(end), columns.start_ns[operators], "right")
        covered = int((opened > closed).sum())
        if covered > most:
            best, most = number, covered
    return best
