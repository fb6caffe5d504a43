"""Which GPU events have a time that can be believed; the others are counted and said, and are in no sum.

Two things are told apart. No time was recorded: CUPTI says 0 for start and end where it could not collect them, and
Kineto writes that 0 (or -1, or a moment years away from the recording). And a duration that cannot be: longer than a
day, or one that reaches past later kernels of the same stream, which runs its work in order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import KERNEL, MEMCPY, MEMSET, is_gpu_work
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.units import NS_PER_S

BELIEVED, UNTIMED, IMPOSSIBLE = 0, 1, 2
DAY_NS: Final = 86_400 * NS_PER_S  # no recording and no kernel takes as long
# The coarsest clock of real captures counts whole microseconds: events that follow one another overlap by one.
CLOCK_NS: Final = 2_000
# A kernel may begin while the one before it ends (programmatic dependent launch: up to 0.1 us in real captures, a few
# us by what it is made for), but then it ends after it. Only beyond this is such an overlap taken for a wrong duration.
SIDE_BY_SIDE_NS: Final = 1_000_000
SKEW_NS: Final = 100_000  # more than the clocks of host and GPU disagree in real captures
PLACEHOLDERS_NS: Final = ((1 << 32) - 1, ((1 << 32) - 1) * 1000)  # -1 as an unsigned number, in ns or us


@dataclass(frozen=True)
class Doubts:
    """Of each GPU event: BELIEVED, UNTIMED or IMPOSSIBLE. overrun_ns: how far an impossible duration reaches past the
    start of the next event of its stream; room_ns: from its start to there, the longest it can have been. MISSING
    where there is no such event.
    """

    verdict: npt.NDArray[np.int8]
    overrun_ns: I64
    room_ns: I64


def doubt(columns: EventColumns, gpu: I64, launch_start_ns: I64, process: I64) -> Doubts:
    """Judge the times of GPU events (rows of the events). launch_start_ns: of the launch of each, MISSING without;
    process: of each, by number.
    """
    start, dur = columns.start_ns[gpu], columns.dur_ns[gpu]
    untimed = without_time(columns)[gpu]
    # a start of exactly 0 before the launch is the same placeholder, beyond what other events tell of the clocks
    launched = launch_start_ns != MISSING
    early = np.where(launched, launch_start_ns, start) - start
    untimed |= (start == 0) & (early > max(SKEW_NS, int(early.max(where=start != 0, initial=0))))
    for placeholder in PLACEHOLDERS_NS:
        untimed |= dur == placeholder
    impossible = ~untimed & (dur > DAY_NS)
    overrun, room = np.full(len(gpu), MISSING, dtype=np.int64), np.full(len(gpu), MISSING, dtype=np.int64)
    in_order = np.flatnonzero(~untimed & (dur > 0) & _in_order(columns, gpu))
    over, next_start = _overruns(columns, gpu[in_order], process[in_order])
    reaching = np.flatnonzero(over)
    rows = in_order[reaching]
    overrun[rows] = start[rows] + dur[rows] - next_start[reaching]
    room[rows] = next_start[reaching] - start[rows]
    impossible[rows] = True
    verdict = np.where(untimed, UNTIMED, np.where(impossible, IMPOSSIBLE, BELIEVED)).astype(np.int8)
    return Doubts(verdict, overrun, room)


def without_time(columns: EventColumns) -> Mask:
    """True for each event whose time was not recorded: 0 for start and duration, or more than a day off the others."""
    start = columns.start_ns
    untimed: Mask = (start == 0) & (columns.dur_ns == 0)
    if not len(start) or int(start.max()) - int(start.min()) <= DAY_NS:
        return untimed
    gpu = columns.of_category(is_gpu_work)
    host = ~gpu & ~untimed
    # the middle of the host's events is when the file was recorded; the GPU's clock may be another one
    for mine, others in ((host, host), (gpu & ~untimed, host)):
        here = np.flatnonzero(mine)
        if not len(here) or int(start[here].max()) - int(start[here].min()) <= DAY_NS:
            continue
        away = np.zeros(0)
        for when in (others, mine):
            if when.any():
                away = np.abs(start[here].astype(np.float64) - float(_middle(start[when])))
                if (away <= DAY_NS).any():
                    break
        untimed[here[away > DAY_NS]] = True
    return untimed


def _middle(times: I64) -> int:
    return int(np.partition(times, len(times) // 2)[len(times) // 2])


def _in_order(columns: EventColumns, gpu: I64) -> Mask:
    """Whether each GPU event is work that its stream runs in order.

    Copies of ROCm are not: whatever their stream, the trace puts them on the queue with number 0.
    """
    rocm = any(name.startswith("hip") for name in columns.names)
    kinds = (KERNEL,) if rocm else (KERNEL, MEMCPY, MEMSET)
    mine = columns.of_category(lambda category: category in kinds)[gpu]
    known: Mask = mine & (columns.integers["stream"][gpu] != MISSING)
    return known


def _overruns(columns: EventColumns, gpu: I64, process: I64) -> tuple[Mask, I64]:
    """Of each event that its stream runs in order, whether it reaches past its successors, and when the next begins.

    What one launch of a graph started may run side by side; its successors are those of other launches.
    """
    start, dur, correlation = columns.start_ns[gpu], columns.dur_ns[gpu], columns.integers["correlation"][gpu]
    end = start + dur
    over, following = np.zeros(len(gpu), dtype=bool), np.zeros(len(gpu), dtype=np.int64)
    if len(gpu) < 2:
        return over, following
    keys = (
        columns.thread[gpu].astype(np.int64),
        columns.integers["device"][gpu],
        columns.integers["stream"][gpu],
        process,
    )
    order = np.lexsort((end, start, *keys))
    group = np.zeros(len(gpu), dtype=np.int64)
    for key in keys:
        group[1:] |= key[order][1:] != key[order][:-1]
    # most streams show their work in order: no event ends after the start of the next one
    if not ((end[order][:-1] - start[order][1:] > CLOCK_NS) & (group[1:] == 0)).any():
        return over, following
    group = np.cumsum(group)  # number of the stream, along the order
    # the last place of each launch on a stream, given to all of its places: successors come after that
    places = np.arange(len(gpu))
    own = np.where(correlation[order] == MISSING, -1 - places, correlation[order])
    by_launch = np.lexsort((places, own, group))
    same = (np.diff(group[by_launch]) == 0) & (np.diff(own[by_launch]) == 0)
    last_of_run = np.flatnonzero(np.concatenate((~same, [True])))
    run = np.concatenate(([0], np.cumsum(~same)))
    after = np.empty(len(gpu), dtype=np.int64)
    after[by_launch] = by_launch[last_of_run][run] + 1
    place = np.flatnonzero((after < len(gpu)) & (group[np.minimum(after, len(gpu) - 1)] == group))
    rows, next_place = order[place], after[place]
    following[rows] = start[order[next_place]]
    past = end[rows] - following[rows]
    over[rows] = past > SIDE_BY_SIDE_NS
    # the successors that began more than the clock before the end: starts as ranks with the stream in front
    doubtful = np.flatnonzero((past > CLOCK_NS) & ~over[rows])
    ranks = np.sort(start)
    rank = group * (len(gpu) + 1) + np.searchsorted(ranks, start[order])
    late = group[place[doubtful]] * (len(gpu) + 1) + np.searchsorted(ranks, end[rows[doubtful]] - CLOCK_NS)
    earliest = _least(end[order], next_place[doubtful], np.searchsorted(rank, late))
    over[rows[doubtful]] |= earliest < end[rows[doubtful]]
    return over, following


def _least(values: I64, first: I64, last: I64) -> I64:
    """The least of the values of each range, which is not empty; all ranges in log n passes over the values."""
    found = np.empty(len(first), dtype=np.int64)
    size = 1
    while len(first) and size <= int((last - first).max()):
        # values are now the least of so many from each place on: two of these cover a range of less than twice as many
        mine = (last - first >= size) & (last - first < 2 * size)
        found[mine] = np.minimum(values[first[mine]], values[last[mine] - size])
        values = np.minimum(values[:-size], values[size:])
        size *= 2
    return found
