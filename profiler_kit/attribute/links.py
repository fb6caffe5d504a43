"""Join each GPU event with the call that launched it, or, where no call was recorded, with its operator.

A correlation id is unique among what one process has under way, no further: it comes again after 2^32 calls, in other
processes, and 0 often stands for none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.attribute.autograd_threads import thread_order
from profiler_kit.attribute.gpu_work import communicates, rule_of_name
from profiler_kit.attribute.processes import (
    ANY,
    UNKNOWN,
    Processes,
    find_processes,
    holding_work,
    parts_of,
    threads_with_work,
)
from profiler_kit.attribute.span_forest import Axis, order_by, spread
from profiler_kit.attribute.turns import in_turn
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import OPERATOR, is_launch
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.dialect import ARROW_FORMS

NONE: Final = -1
_MOST_PAIRS: Final = 20_000_000  # of a GPU event with a process that has its id: some seconds


@dataclass(frozen=True)
class Links:
    """One entry per GPU event.

    launch: row of the events, the call that launched it; NONE where that is not known. origin: the same, or the row of
    the operator with its External id. process: a number of processes. calls: how many calls of the file have an id.
    undecided: those with an id that several calls share, which have no launch for that; likely: those that several
    calls of one process may have launched, of which the nearest counts; inside: others without one although an operator
    with their External id is in the file.
    """

    launch: I64
    origin: I64
    process: I64
    processes: Processes
    calls: int
    undecided: Mask
    likely: Mask
    inside: Mask

    def of(self, chosen: Mask) -> Links:
        """The links of some of the GPU events."""
        names = ("launch", "origin", "process", "undecided", "likely", "inside")
        return replace(self, **{name: getattr(self, name)[chosen] for name in names})

    @property
    def by_external_id(self) -> int:
        """How many GPU events are joined with their operator only."""
        return int(((self.origin != NONE) & (self.launch == NONE)).sum())

    @property
    def unlinked(self) -> int:
        """How many GPU events are joined with nothing."""
        return int((self.origin == NONE).sum())


def find_links(columns: EventColumns, gpu: I64) -> Links:
    """The links of these rows of a trace's events; rule 1 of the attribution rules says how they are found."""
    calls, known = _calls(columns)
    repeated = np.append(known[1:] == known[:-1], False)
    processes = find_processes(columns, gpu, calls[repeated | np.append(False, repeated[:-1])] if len(calls) else calls)
    wanted = columns.integers["correlation"][gpu]
    low = np.searchsorted(known, wanted, "left")
    found = low < len(known)
    found[found] = (known[low[found]] == wanted[found]) & (wanted[found] != MISSING)
    launch = np.full(len(gpu), NONE, dtype=np.int64)
    launch[found] = calls[low[found]]
    # one call with the id, in a file of one process, is the usual case; elsewhere process and time decide
    unclear = found.copy()
    if len(processes.names) == 2:
        unclear[found] = repeated[low[found]]
    rows = np.flatnonzero(unclear)
    undecided, likely, inside = (np.zeros_like(found) for _ in range(3))
    if len(rows):
        launch[rows], undecided[rows], likely[rows], found[rows] = _nearest(columns, processes, calls, gpu[rows])
    origin = launch.copy()
    rest = np.flatnonzero(~found)
    if len(rest):
        origin[rest], inside[rest] = _operators_of(columns, processes, gpu[rest])
    process = _process_of(columns, processes, gpu, origin)
    return Links(launch, origin, process, processes, len(calls), undecided, likely, inside)


def _calls(columns: EventColumns) -> tuple[I64, I64]:
    """The rows of the calls that have a correlation id, by id, start and thread; and their ids."""
    correlation = columns.integers["correlation"]
    calls = np.flatnonzero(columns.of_category(is_launch) & (correlation != MISSING))
    order = thread_order(columns)
    calls = calls[order_by(correlation[calls], columns.start_ns[calls], order[columns.thread[calls]])]
    return calls, correlation[calls]


@dataclass(frozen=True)
class _Pairs:
    """Candidates: GPU event (counted from 0) and the row on the host that it may come from."""

    event: I64
    row: I64

    def prefer(self, good: Mask) -> _Pairs:
        """The good ones of each event that has any, all of every other event."""
        some = np.zeros(int(self.event.max(initial=-1)) + 1, dtype=bool)
        some[self.event[good]] = True
        kept = good | ~some[self.event]
        return _Pairs(self.event[kept], self.row[kept])

    def single(self, events: int) -> I64:
        """The one candidate of each event, NONE where there is none or several."""
        found = np.full(events, NONE, dtype=np.int64)
        found[self.event] = self.row
        found[np.bincount(self.event, minlength=events) != 1] = NONE
        return found

    def several(self, process: I64, events: int) -> Mask:
        """Of each event, whether its candidates are of several processes; process: of each candidate."""
        least, most = np.full(events, np.iinfo(np.int64).max), np.full(events, -1)
        np.minimum.at(least, self.event, process)
        np.maximum.at(most, self.event, process)
        return np.asarray(least < most)


def _nearest(columns: EventColumns, processes: Processes, calls: I64, gpu: I64) -> tuple[I64, Mask, Mask, Mask]:
    """For each GPU event the last call with its id that began by its start, of the process it belongs to.

    Where none began by then (clocks that disagree) it is the only call of its process with that id, if there is only
    one. Calls of several processes cannot be told apart by time: of these the one counts that has the event's External
    id, then the one of the process that all other work of the event's pid belongs to, then the one in whose part of the
    file the event is. If several are left, none counts; the second value says which GPU events that leaves without.
    Calls of one process between which no event with the id began are told apart by External id, else in turn; else the
    nearest counts, and the third value says for which. Events that overlap on a stream are not of one process. The last
    value says which events have an id of a call at all that may be theirs.
    """
    correlation, thread, time = columns.integers["correlation"], columns.thread, columns.start_ns
    calls = _outermost(columns, processes, calls[np.isin(correlation[calls], correlation[gpu])])
    # one entry for each (id, process), its calls by start
    begins = np.append(True, _differs(correlation[calls]) | _differs(processes.on_host[thread[calls]]))[: len(calls)]
    entry, first = np.cumsum(begins) - 1, np.flatnonzero(begins)
    last = np.append(first[1:], len(calls)) - 1
    ids = correlation[calls[first]]
    # every entry with the id of each event, where the event may belong to that process; 0 is an id only if used once
    low, high = (np.searchsorted(ids, correlation[gpu], side) for side in ("left", "right"))
    count = np.where(high - low > max(1, _MOST_PAIRS // len(gpu)), 0, high - low)
    event, of = np.repeat(np.arange(len(gpu)), count), spread(low, count)
    usable = _may_launch(processes, thread[gpu[event]], thread[calls[first[of]]]) & ((ids != 0) | (first == last))[of]
    event, of = event[usable], of[usable]
    named = count < high - low  # too many to look at
    named[event] = True
    axis = Axis.of(entry, time[calls], time[calls])
    called, began = axis.place(entry, time[calls]), axis.place(of, time[gpu[event]])
    # the last call of the entry that began by the start of the event; one before the entry's first if none did
    at = np.searchsorted(called, began, "right") - 1
    before = at >= first[of]
    at = np.where(before, at, first[of])
    # where each run of calls starts between which no event began
    seen = np.searchsorted(np.sort(began), called, "left")
    run = np.maximum.accumulate(np.where(begins | (np.diff(seen, prepend=-1) > 0), np.arange(len(calls)), 0))
    usable = before | (first == last)[of]
    event, at, before = event[usable], at[usable], before[usable]
    count = at - run[at] + 1
    count = np.where(count > max(1, _MOST_PAIRS // max(1, len(event))), 2, count)
    before = np.repeat(before, count)
    pairs = _Pairs(np.repeat(event, count), spread(at - count + 1, count))  # the rows are places in calls
    pairs = pairs.prefer(before)
    external, host = columns.integers["external_id"], processes.on_host[thread[calls]]
    ours, theirs = external[gpu[pairs.event]], external[calls[pairs.row]]
    pairs = pairs.prefer((ours == theirs) | (ours == MISSING) | (theirs == MISSING))
    undecided = pairs.several(host[pairs.row], len(gpu))
    for prefers in (_of_lane, _of_part):
        if undecided.any():
            good = prefers(columns, processes, gpu, _Pairs(pairs.event, calls[pairs.row]), undecided)
            pairs = pairs.prefer(good | ~undecided[pairs.event])
            undecided = pairs.several(host[pairs.row], len(gpu))
    found = np.full(len(gpu), NONE, dtype=np.int64)
    found[pairs.event] = pairs.row  # the last one, which is the nearest
    likely = (pairs.single(len(gpu)) == NONE) & (found != NONE) & ~undecided
    mine = np.flatnonzero((found != NONE) & ~undecided)
    call, clear, overlap = in_turn(columns, calls, entry, gpu[mine], entry[found[mine]])
    found[mine] = np.where(clear, call, found[mine])
    likely[mine] &= ~clear
    undecided[mine] = likely[mine] & overlap
    found[undecided] = NONE
    linked = found != NONE
    found[linked] = calls[found[linked]]
    return found, undecided, likely & ~undecided, named


def _outermost(columns: EventColumns, processes: Processes, calls: I64) -> I64:
    """Calls by id, process and start, without those inside another one of the same id: a runtime call may make a call
    of the driver under its own id."""
    correlation, host = columns.integers["correlation"][calls], processes.on_host[columns.thread[calls]]
    start, order = columns.start_ns[calls], thread_order(columns)[columns.thread[calls]]
    by = np.lexsort((order, start, host, correlation))
    calls, correlation, host, start, order = (one[by] for one in (calls, correlation, host, start, order))
    end = start + columns.dur_ns[calls]
    same = np.append(False, ~(_differs(correlation) | _differs(host)))[: len(calls)]
    # begun together, or on one thread before the other returned
    inside = same & (start == np.append(start[:1], start[:-1]))
    inside |= same & (order == np.append(order[:1], order[:-1])) & (start < np.append(end[:1], end[:-1]))
    return np.asarray(calls[~inside])


def _differs(values: I64) -> Mask:
    return np.asarray(values[1:] != values[:-1])


def _may_launch(processes: Processes, gpu_thread: npt.NDArray[np.int32], host_thread: npt.NDArray[np.int32]) -> Mask:
    """Whether work on that pid of a GPU may belong to the process of that thread."""
    mark = processes.gpu_mark[gpu_thread]
    return np.asarray((mark == ANY) | (mark == processes.mark[processes.on_host[host_thread]]))


def _of_lane(columns: EventColumns, processes: Processes, gpu: I64, pairs: _Pairs, undecided: Mask) -> Mask:
    """Candidates of the process to which all decided work of the same pid and device belongs, unless that would give a
    call that launches one kernel several: then the pid stands for more processes than one."""
    decided = np.full(len(gpu), NONE, dtype=np.int64)
    decided[pairs.event] = pairs.row
    lane, owner = _owners(columns, processes, gpu, np.where(undecided, NONE, decided))
    good = owner[lane[pairs.event]] == processes.on_host[columns.thread[pairs.row]]
    single = good & _named(columns, pairs.row, lambda name: "LaunchKernel" in name)
    mixed = np.zeros(len(owner), dtype=bool)
    mixed[lane[pairs.event[single][np.bincount(pairs.row[single])[pairs.row[single]] > 1]]] = True
    return np.asarray(good & ~mixed[lane[pairs.event]])


def _of_part(columns: EventColumns, processes: Processes, gpu: I64, pairs: _Pairs, _: Mask) -> Mask:
    """Of an event's candidates, those in the part of the file that begins last before the event; none where a part
    holds no GPU work, which then follows elsewhere."""
    part = parts_of(columns, np.append(threads_with_work(columns), False))
    if len(holding_work(part[columns.thread[pairs.row]], gpu)) < len(np.unique(part[columns.thread[pairs.row]])):
        return np.zeros(len(pairs.event), dtype=bool)
    begins = part[columns.thread[pairs.row]]
    row = gpu[pairs.event]
    latest = np.full(len(gpu), NONE, dtype=np.int64)
    np.maximum.at(latest, pairs.event[begins <= row], begins[begins <= row])
    return np.asarray(begins == latest[pairs.event])


def _owners(columns: EventColumns, processes: Processes, gpu: I64, origin: I64) -> tuple[I64, I64]:
    """Of each GPU event a number for its pid and device; by number, the process that all work there comes from, UNKNOWN
    where that is none or several."""
    pids: dict[int | str, int] = {}
    pid = np.array([pids.setdefault(pid, len(pids)) for pid, _ in columns.threads], dtype=np.int64)
    places = np.column_stack((pid[columns.thread[gpu]], columns.integers["device"][gpu]))
    known, lane = np.unique(places, axis=0, return_inverse=True)
    linked = origin != NONE
    process = processes.on_host[columns.thread[origin[linked]]]
    least, most = np.full(len(known), len(processes.names)), np.full(len(known), -1)
    np.minimum.at(least, lane.reshape(-1)[linked], process)
    np.maximum.at(most, lane.reshape(-1)[linked], process)
    return lane.reshape(-1), np.where(least == most, most, UNKNOWN)


def _process_of(columns: EventColumns, processes: Processes, gpu: I64, origin: I64) -> I64:
    """The process of each GPU event: that of its launch, else the only one that it can belong to."""
    if len(processes.names) <= 2:
        return np.full(len(gpu), len(processes.names) - 1, dtype=np.int64)
    lane, owner = _owners(columns, processes, gpu, origin)
    sole = processes.sole[columns.thread[gpu]]
    found = np.where(sole != UNKNOWN, sole, owner[lane])
    linked = origin != NONE
    found[linked] = processes.on_host[columns.thread[origin[linked]]]
    return np.asarray(found, dtype=np.int64)


def _operators_of(columns: EventColumns, processes: Processes, gpu: I64) -> tuple[I64, Mask]:
    """The operator with the External id of each GPU event, where one operator only has it and had begun by then.

    Not for collectives, which run under the id of whatever came last, unless the id is that of an arrow from the
    operator to them. The second value says which have an operator in the file and are not joined with it.
    """
    arrows = columns.form in ARROW_FORMS
    found = np.full(len(gpu), NONE, dtype=np.int64)
    external = columns.integers["external_id"]
    rows = np.flatnonzero(external[gpu] > 0)
    if not len(rows):
        return found, np.zeros(len(gpu), dtype=bool)
    operators = np.flatnonzero(columns.of_category(lambda category: category == OPERATOR) & (external > 0))
    operators = operators[order_by(external[operators])]
    ids, wanted = external[operators], external[gpu[rows]]
    low, high = (np.searchsorted(ids, wanted, side) for side in ("left", "right"))
    inside = np.zeros(len(gpu), dtype=bool)
    inside[rows] = high > low
    # no collectives; and of more operators than processes two are of one process
    collective = _named(columns, gpu[rows], lambda name: not arrows and bool(rule_of_name(name)))
    count = np.where(collective | (high - low > processes.hosts), 0, high - low)
    event, row = np.repeat(rows, count), operators[spread(low, count)]
    usable = _may_launch(processes, columns.thread[gpu[event]], columns.thread[row])
    one = _Pairs(event[usable], row[usable]).single(len(gpu))
    right = np.flatnonzero(one != NONE)
    right = right[columns.start_ns[one[right]] <= columns.start_ns[gpu[right]]]
    right = right[~_named(columns, one[right], lambda name: not arrows and communicates(name))]
    found[right] = one[right]
    return found, inside & (found == NONE)


def _named(columns: EventColumns, rows: I64, wanted: Callable[[str], bool]) -> Mask:
    """Whether the name of each row is wanted; each distinct name is asked once."""
    table: dict[int, bool] = {code: wanted(columns.names[code]) for code in set(columns.name[rows].tolist())}
    return np.array([table[code] for code in columns.name[rows].tolist()], dtype=bool)
