"""Autograd's backward threads: which thread called backward, and which forward operator a moment belongs to.

The engine runs backward on threads of its own; their events carry the sequence number and a thread id of the
forward operator (torch/csrc/autograd/profiler_kineto.cpp), and Kineto draws `fwdbwd` flows between the two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.attribute.span_forest import ROOT, Axis, Forest, build_forest, order_by, outer_first, spread
from profiler_kit.load.integers import I64, Mask
from profiler_kit.load.trace.categories import OPERATOR
from profiler_kit.load.trace.columns import EventColumns

I32 = npt.NDArray[np.int32]

EVALUATE: Final = "autograd::engine::evaluate_function"
NONE: Final = -1


@dataclass(frozen=True)
class BackwardThreads:
    """The operators that run on backward threads, and where their forward operators ran.

    forest nests them; its span k is entry k of the other arrays. caller_thread is the thread that called
    backward (NONE when not known). forward_thread and forward_start place the forward operator (NONE likewise).
    called tells, by thread, whether any of its operators has a caller.
    """

    forest: Forest
    thread: I64
    caller_thread: I64
    forward_thread: I64
    forward_start: I64
    called: Mask

    def caller(self, thread: I32, time: I64) -> I64:
        """The thread that called backward, for moments on backward threads; NONE on any other thread.

        Between two backward operators the earlier one counts, before the first one the first.
        """
        found = np.full(len(time), NONE, dtype=np.int64)
        asked = np.flatnonzero(self.called[thread])
        if not len(asked):
            return found
        node = self.forest.latest(thread[asked].astype(np.int64), time[asked])
        own = np.where(node == ROOT, NONE, self.thread[self.forest.span[node]])
        node += own != thread[asked]  # nothing before it on this thread: the first that follows is this thread's
        found[asked] = self.caller_thread[self.forest.span[node]]
        return found

    def forward(self, thread: I32, time: I64) -> tuple[I64, I64]:
        """Thread and start of the forward operator behind each moment; NONE where there is none."""
        threads = np.full(len(time), NONE, dtype=np.int64)
        starts = np.zeros(len(time), dtype=np.int64)
        if len(self.thread):
            node = self.forest.innermost(thread.astype(np.int64), time)
            inside = node != ROOT
            span = self.forest.span[node[inside]]
            threads[inside], starts[inside] = self.forward_thread[span], self.forward_start[span]
        return threads, starts


def find_backward(columns: EventColumns, regions: I64, process: I64) -> BackwardThreads:
    """Find the backward threads of a trace; `regions` are the rows of its regions, process is that of each thread."""
    named = np.array([name.startswith(EVALUATE) for name in columns.names] or [False], dtype=bool)
    evaluates = named[columns.name] if named.any() else np.zeros(len(columns), dtype=bool)
    backward = np.zeros(len(columns.threads) + 1, dtype=bool)
    backward[columns.thread[evaluates]] = True
    tagged = columns.integers["forward_thread"] > 0
    operators = np.flatnonzero(backward[columns.thread] & (tagged | evaluates))
    thread = columns.thread[operators].astype(np.int64)
    start = columns.start_ns[operators]
    end = start + columns.dur_ns[operators]
    ties = [columns.integers[name][operators] for name in ("external_id", "sequence_number", "forward_thread")]
    forest = build_forest(thread, start, end, outer_first(start, end, *ties))
    order = thread_order(columns)
    forward = _forward_operators(columns, operators, tagged, order, process)
    caller = _callers(columns, operators, forward, regions, order, process)
    known = forward != NONE
    called = np.zeros(len(backward), dtype=bool)
    called[thread[caller != NONE]] = True
    return BackwardThreads(
        forest=forest,
        thread=thread,
        caller_thread=caller,
        forward_thread=np.where(known, columns.thread[forward], NONE) if len(operators) else thread,
        forward_start=np.where(known, columns.start_ns[forward], 0) if len(operators) else start,
        called=called,
    )


def thread_order(columns: EventColumns) -> I64:
    """A rank of each thread by process and thread id, whatever comes first in the file."""
    alphabetical = sorted(range(len(columns.threads)), key=lambda number: repr(columns.threads[number]))
    rank = np.empty(len(alphabetical), dtype=np.int64)
    rank[alphabetical] = np.arange(len(alphabetical))
    return rank


def _forward_operators(columns: EventColumns, operators: I64, tagged: Mask, order: I64, process: I64) -> I64:
    """Row of the forward operator of each backward operator: the `fwdbwd` flow, else the sequence number.

    Several forward operators may carry one number (aten::linear and the aten::addmm inside): the one that starts
    last, the innermost, made the node.
    """
    found = np.full(len(operators), NONE, dtype=np.int64)
    if not len(operators):
        return found
    sequence = _dense(columns.integers["sequence_number"], len(columns.threads))
    candidate = columns.of_category(lambda category: category == OPERATOR) & (sequence >= 0) & ~tagged
    candidate[operators] = False
    forward = np.flatnonzero(candidate)
    if not len(forward):
        return found
    # one key per (thread, number): numbers count per thread, so two threads may share one
    span = int(sequence[forward].max()) + 1
    thread_key = columns.thread[forward].astype(np.int64) * span + sequence[forward]
    sort = order_by(thread_key, columns.start_ns[forward])
    forward, thread_key = forward[sort], thread_key[sort]
    majority = _majority_threads(columns, operators, forward, sequence, order, process)
    # last forward operator with the backward operator's (thread, number): the last position whose key is <= it
    wanted = majority * span + sequence[operators]
    at = np.searchsorted(thread_key, wanted, "right") - 1
    hit = (at >= 0) & (majority != NONE) & (sequence[operators] >= 0) & (sequence[operators] < span)
    hit &= thread_key[np.maximum(at, 0)] == wanted
    found[hit] = forward[at[hit]]
    return found


def _flow_threads(columns: EventColumns, thread: I64, start: I64, process: I64) -> I64:
    """The forward thread of each backward operator by the `fwdbwd` flow that ends at its start; else NONE."""
    found = np.full(len(thread), NONE, dtype=np.int64)
    begin, finish = columns.forward_flows, columns.backward_flows
    if not len(begin) or not len(finish):
        return found
    # flows are rows of (id, thread, time); ids count per process: one key for each (process, id)
    _, key = np.unique(np.concatenate((begin[:, 0], finish[:, 0])), return_inverse=True)
    key = process[np.concatenate((begin[:, 1], finish[:, 1]))] * len(key) + key
    key, wanted = key[: len(begin)], key[len(begin) :]
    sort = order_by(key, begin[:, 2])
    begin, key = begin[sort], key[sort]
    # each end's beginning is the last one with the same id
    at = np.searchsorted(key, wanted, "right") - 1
    linked = (at >= 0) & (key[np.maximum(at, 0)] == wanted)
    finish, forward_thread = finish[linked], begin[at[linked], 1]
    if not len(finish):
        return found
    axis = Axis.of(finish[:, 1], finish[:, 2], finish[:, 2])
    place = axis.place(finish[:, 1], finish[:, 2])
    sort = order_by(place, finish[:, 0])
    place, forward_thread = place[sort], forward_thread[sort]
    # the flow that ends exactly where (thread and time) each backward operator starts
    wanted = axis.place(thread, start)
    at = np.searchsorted(place, wanted, "right") - 1
    hit = (at >= 0) & (place[np.maximum(at, 0)] == wanted)
    found[hit] = forward_thread[at[hit]]
    return found


def _majority_threads(
    columns: EventColumns, operators: I64, forward: I64, sequence: I64, order: I64, process: I64
) -> I64:
    """Thread on which the forward of each backward operator ran.

    Operators of one backward thread with one `Fwd thread id` share it; the flows vote, and where there are none
    the threads that hold operators with the same sequence numbers.
    """
    thread = columns.thread[operators].astype(np.int64)
    # one group per (backward thread, forward thread id)
    tags, tag = np.unique(columns.integers["forward_thread"][operators], return_inverse=True)
    group = thread * len(tags) + tag
    groups = len(columns.threads) * len(tags)
    flow = _flow_threads(columns, thread, columns.start_ns[operators], process)
    voted = flow != NONE
    answer = _elected(group[voted], flow[voted], np.ones(int(voted.sum()), dtype=np.int64), groups, order)
    silent = np.flatnonzero(answer[group] == NONE)
    silent = silent[sequence[operators[silent]] >= 0]
    if len(silent):
        # each number counts once a group, whichever operators of the group carry it
        numbers, number = np.unique(sequence[operators[silent]], return_inverse=True)
        pairs = np.unique(group[silent] * len(numbers) + number)
        wanted = numbers[pairs % len(numbers)]
        # every (number, forward thread) that has the number of a silent group is a vote of that group for the thread;
        # low .. high are the rows of `held` with the number that each pair asks for
        held, holder, count = _held_numbers(sequence[forward], columns.thread[forward].astype(np.int64))
        low, high = np.searchsorted(held, wanted, "left"), np.searchsorted(held, wanted, "right")
        row = spread(low, high - low)
        voter = np.repeat(pairs // len(numbers), high - low)
        # threads vote for others of their process
        other = (holder[row] != voter // len(tags)) & (process[holder[row]] == process[voter // len(tags)])
        guess = _elected(voter[other], holder[row[other]], count[row[other]], groups, order)
        answer[answer == NONE] = guess[answer == NONE]
    elected: I64 = answer[group]
    return elected


def _dense(sequence: I64, threads: int) -> I64:
    """Sequence numbers small enough to be multiplied by the number of threads; negative where there is none."""
    if not len(sequence) or (int(sequence.max()) + 1) * (threads + 1) < 1 << 62:
        return sequence
    numbers, number = np.unique(sequence, return_inverse=True)
    return np.where(sequence < 0, NONE, number) if len(numbers) else sequence


def _held_numbers(sequence: I64, thread: I64) -> tuple[I64, I64, I64]:
    """(number, thread, operators) of the forward operators, by number."""
    threads = int(thread.max()) + 1
    key, count = np.unique(sequence * threads + thread, return_counts=True)
    return key // threads, key % threads, count


def _elected(group: I64, candidate: I64, votes: I64, groups: int, order: I64) -> I64:
    """The candidate thread with most votes in each group, the first by `order` among equals; NONE without votes."""
    answer = np.full(groups, NONE, dtype=np.int64)
    if not len(group):
        return answer
    # add up the votes for each (group, candidate)
    key, where = np.unique(group * len(order) + candidate, return_inverse=True)
    total = np.zeros(len(key), dtype=np.int64)
    np.add.at(total, where, votes)
    group_of, thread = key // len(order), key % len(order)
    best = np.lexsort((-order[thread], total))  # the last one written stays
    answer[group_of[best]] = thread[best]
    return answer


def _callers(columns: EventColumns, operators: I64, forward: I64, regions: I64, order: I64, process: I64) -> I64:
    """The thread that called backward for each backward operator.

    It is the thread its forward ran on; where that is not known, the one thread of the same process whose regions
    are open at most of the backward thread's operators. A thread that is its own caller (backward on a CPU runs
    there) has none, and no caller is itself called, so that nesting ends.
    """
    thread = columns.thread[operators].astype(np.int64)
    if not len(operators):
        return thread
    caller = np.where(forward != NONE, columns.thread[forward], NONE).astype(np.int64)
    known = caller != NONE
    # by thread: who called it most often; where nothing is known of a thread, the one with regions open then
    elected = _elected(thread[known], caller[known], np.ones(int(known.sum()), dtype=np.int64), len(order), order)
    for number in np.unique(thread[elected[thread] == NONE]).tolist():
        near = regions[process[columns.thread[regions]] == process[number]]
        elected[number] = _thread_with_open_regions(columns, number, operators[thread == number], near, order)
    caller = np.where(known, caller, elected[thread])
    caller[caller == thread] = NONE
    called = np.zeros(len(order) + 1, dtype=bool)
    called[thread[caller != NONE]] = True
    return np.where(called[caller], NONE, caller)


def _thread_with_open_regions(columns: EventColumns, backward: int, operators: I64, regions: I64, order: I64) -> int:
    """The thread of the same process with regions open at most of these operators, itself before others; else NONE."""
    process = columns.threads[backward][0]
    best, most = NONE, 0
    candidates = np.unique(columns.thread[regions]).tolist()
    for number in sorted(candidates, key=lambda number: (number != backward, order[number])):
        if columns.threads[number][0] != process:
            continue
        rows = regions[columns.thread[regions] == number]
        start, end = columns.start_ns[rows], columns.start_ns[rows] + columns.dur_ns[rows]
        # regions opened and closed by each operator's start: one is open where more were opened than closed
        opened = np.searchsorted(np.sort(start), columns.start_ns[operators], "right")
        closed = np.searchsorted(np.sort(end), columns.start_ns[operators], "right")
        covered = int((opened > closed).sum())
        if covered > most:
            best, most = number, covered
    return best
