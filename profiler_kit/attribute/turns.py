"""Give GPU events the calls that may have launched them in turn, where one correlation id was used by several at once.

A stream runs its work in the order in which it was launched. So where an id has as many calls as GPU events, all on
one stream, the first event is the first call's.
"""

from __future__ import annotations

import numpy as np

from profiler_kit.attribute.believable import CLOCK_NS
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.columns import EventColumns


def in_turn(columns: EventColumns, calls: I64, entry: I64, gpu: I64, of: I64) -> tuple[I64, Mask, Mask]:
    """The call (its place in calls) that each GPU event is the work of, and for which events their order tells it.

    entry: of each call, the number of its id and process, in order; within one, calls are by start. of: of each event,
    that of the calls that may have launched it. Calls and events of an entry are taken in turns: a turn begins with a
    call when the work of all calls before it has begun. The third value says which events are in a turn of several
    calls in which two events overlap on one stream.
    """
    found, known, overlaps = np.zeros(len(gpu), np.int64), np.zeros(len(gpu), bool), np.zeros(len(gpu), bool)
    turn_of_call, turn = _turns(columns, calls, entry, gpu, of)
    turns = int(max(turn_of_call.max(initial=0), turn.max(initial=0))) + 1
    of_calls, of_events = np.bincount(turn_of_call, minlength=turns), np.bincount(turn, minlength=turns)
    # events of turns with several calls, by turn and start
    event = np.flatnonzero(of_calls[turn] > 1)
    if not len(event):
        return found, known, overlaps
    event = event[np.lexsort((columns.start_ns[gpu[event]], turn[event]))]
    row, mine = gpu[event], turn[event]
    first = np.full(turns, len(calls))
    np.minimum.at(first, turn_of_call, np.arange(len(calls)))
    # the call with the same place in the turn as the event
    call = first[mine] + np.arange(len(mine)) - np.searchsorted(mine, mine)
    call = np.minimum(call, len(calls) - 1)
    clear = of_calls == of_events
    stream = [columns.thread[row].astype(np.int64), *(columns.integers[key][row] for key in ("device", "stream"))]
    for key in stream:
        clear[mine[1:][(mine[1:] == mine[:-1]) & (key[1:] != key[:-1])]] = False
    external = columns.integers["external_id"]
    ours, theirs = external[row], external[calls[call]]
    clear[mine[(ours != theirs) & (ours != MISSING) & (theirs != MISSING)]] = False
    # along each stream of a turn: does one begin before the one before it has ended?
    by = np.lexsort((columns.start_ns[row], *stream, mine))
    start, end = columns.start_ns[row[by]], columns.start_ns[row[by]] + columns.dur_ns[row[by]]
    over = end[:-1] - start[1:] > CLOCK_NS
    for key in (mine, *stream):
        over &= key[by][1:] == key[by][:-1]
    overlap = np.zeros(turns, dtype=bool)
    overlap[mine[by][1:][over]] = True
    found[event], known[event], overlaps[event] = call, (clear & ~overlap)[mine], overlap[mine]
    return found, known, overlaps


def _turns(columns: EventColumns, calls: I64, entry: I64, gpu: I64, of: I64) -> tuple[I64, I64]:
    """The turn of each call and of each event, from 1 on; 0 of an event before the first call of its entry."""
    row, of = np.append(calls, gpu), np.append(entry, of)
    is_event = np.arange(len(row)) >= len(calls)
    order = np.lexsort((is_event, columns.start_ns[row], of))
    is_event, of = is_event[order], of[order]
    fresh = np.append(True, of[1:] != of[:-1])[: len(of)]
    entries = np.cumsum(fresh)
    # how many calls wait for their work to begin, after each call and event: counted anew for each entry, never below 0
    count = np.cumsum(np.where(is_event, -1, 1))
    count -= np.append(0, count)[np.flatnonzero(fresh)][entries - 1]
    # each entry is moved below the one before, so that one running minimum serves all
    moved = 2 * (len(order) + 1) * entries
    waiting = count - np.minimum(np.minimum.accumulate(count - moved) + moved, 0)
    before = np.where(fresh, 0, np.append(0, waiting[:-1])[: len(of)])
    turn = np.cumsum(~is_event & (before == 0))
    called = np.maximum.accumulate(np.where(is_event, -1, of))  # the entry of the last call
    turn[called < of] = 0
    found = np.empty(len(order), dtype=np.int64)
    found[order] = turn
    return found[: len(calls)], found[len(calls) :]
