"""Replay a job: when its collectives would end if a rank, a node or a link were like the others.

A rank is ready for a collective when it has done its own work since it was ready for the one before, or since one that
it waited for had ended. The kernel starts once the rank is ready and the one before it on its stream has ended; a
collective ends its transfer after its last member started. With nothing changed that gives the recorded times.

Whether a rank waited for the end of a collective before it went on is not recorded, but shows: nothing else runs until
that end, and it goes on right then. In recordings that show no such thing another rule decides: if it did wait, its own
work counted from that end is alike on ranks that do the same; if it did not, that counted from when it was ready is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from profiler_kit.analyses.ranks.matching import medians, numbered
from profiler_kit.load.integers import F64, I64, Mask

NONE: Final = -1
NEGATIVE_SHARE: Final = 0.1  # of rows whose own work would be negative: then the rank did not wait there
SEEN_NS: Final = 50_000  # a wait that is longer shows
LEAST_NS: Final = 10_000
STEPS_SHARE: Final = 0.4  # of the waiting is in steps in which it shows (after the last one nothing went on)
SEEN_SHARE: Final = 0.3  # of such a wait nothing else ran
CLOSE: Final = 0.95  # a way to count that is not clearly better is not taken


@dataclass(frozen=True)
class Seen:
    """What the recording shows of each row: how long it waited for the last rank, how much of that nothing else ran
    before it went on right at the end (held_ns), and the step (NONE outside all).
    """

    wait: I64
    held: I64
    step: I64


@dataclass(frozen=True)
class Program:
    """Matched kernels, one row each: what every rank does, and what its collectives wait for.

    before: the row before of that rank, on_stream: that on its stream (NONE). level: rows of one level may be replayed
    together, those of one collective have the same. place: where in its step each row is, NONE if that is not known.
    waits: the row whose end the rank waited for before it went on to this one (NONE). role: ranks of one number run the
    same program. Times by the common clock.
    """

    rank: I64
    collective: I64
    level: I64
    place: I64
    before: I64
    on_stream: I64
    waits: I64
    role: I64
    own: F64
    arrive: F64
    start: F64
    end: F64
    transfer: F64  # of each collective
    ranks: int

    def run(self, own: F64, transfer: F64) -> F64:
        """The end of each collective if the rows' own work and the collectives' transfers were these."""
        order = np.lexsort((self.collective, self.level))
        bounds = np.flatnonzero(np.diff(self.level[order])) + 1
        arrive, end = np.empty(len(own)), np.empty(len(own))
        ended = np.zeros(len(transfer))
        for rows in np.split(order, bounds) if len(order) else ():
            before, waits, stream = self.before[rows], self.waits[rows], self.on_stream[rows]
            base = np.where(before == NONE, 0.0, arrive[before])
            base = np.where(waits == NONE, base, np.maximum(base, end[waits]))
            arrive[rows] = base + own[rows]
            start = np.where(stream == NONE, arrive[rows], np.maximum(arrive[rows], end[stream]))
            number = self.collective[rows]
            first = np.append(0, np.flatnonzero(np.diff(number)) + 1)
            ends = np.maximum.reduceat(start, first) + transfer[number[first]]
            ended[number[first]] = ends
            end[rows] = np.repeat(ends, np.diff(np.append(first, len(rows))))
        return ended


def levels_of(rank: I64, collective: I64, time: F64, ranks: int) -> tuple[I64, I64]:
    """The level of each row, and its collective: rows by rank and order.

    Where no order of the collectives suits all ranks, the kernels of the earliest one count by themselves.
    """
    collective = collective.copy()
    count = int(collective.max()) + 1 if len(collective) else 0
    first = np.searchsorted(rank, np.arange(ranks + 1))
    at, stop = first[:-1].copy(), first[1:]
    sizes = np.bincount(collective, minlength=count)
    level = np.zeros(len(rank), dtype=np.int64)
    number, spare = 0, count
    while True:
        going = np.flatnonzero(at < stop)
        if not len(going):
            return level, collective
        pointed = collective[at[going]]
        _, place, there = np.unique(pointed, return_inverse=True, return_counts=True)
        whole = sizes_of(sizes, pointed) == there[place]
        if not whole.any():
            stuck = pointed[np.argmin(time[at[going]])]
            rows = np.flatnonzero(collective == stuck)
            collective[rows] = spare + np.arange(len(rows))
            spare += len(rows)
            continue
        moved = going[whole]
        level[at[moved]] = number
        at[moved] += 1
        number += 1


def sizes_of(sizes: I64, collective: I64) -> I64:
    """How many rows each collective has; those numbered later have one."""
    known = collective < len(sizes)
    return np.where(known, sizes[np.where(known, collective, 0)] if len(sizes) else 1, 1)


def program_of(
    rank: I64, collective: I64, stream: I64, role: I64, arrive: F64, start: F64, end: F64, seen: Seen
) -> Program:
    """Rows by rank and arrival, all times on one clock -> Program. role: of each rank."""
    ranks, step = len(role), seen.step
    rows = np.arange(len(rank))
    level, collective = levels_of(rank, collective, end, ranks)
    collective = np.unique(collective, return_inverse=True)[1]
    same = np.append(False, rank[1:] == rank[:-1])
    before = np.where(same, rows - 1, NONE)
    order = np.lexsort((rows, stream, rank))
    chained = (rank[order][1:] == rank[order][:-1]) & (stream[order][1:] == stream[order][:-1])
    on_stream = np.full(len(rows), NONE)
    on_stream[order[1:][chained]] = order[:-1][chained]
    count = int(collective.max()) + 1 if len(rows) else 0
    last = np.full(count, -np.inf)
    np.maximum.at(last, collective, start)
    ended = np.full(count, np.inf)
    np.minimum.at(ended, collective, end)
    transfer = np.maximum(ended - last, 0.0)
    place = _places(level, step, role[rank])
    waits, own = _waits(rank, level, before, place, role, arrive, end, seen)
    return Program(
        rank, collective, level, place, before, on_stream, waits, role, own, arrive, start, end, transfer, ranks
    )


def _places(level: I64, step: I64, role: I64) -> I64:
    """Where in its step each row is; NONE outside all steps, and in those that are not as long as most of its role."""
    place = np.full(len(level), NONE)
    inside = np.flatnonzero(step != NONE)
    if not len(inside):
        return place
    steps, number = np.unique(step[inside], return_inverse=True)
    part = role[inside] * len(steps) + number
    width = int(level.max()) + 1
    keys, row = np.unique(part * width + level[inside], return_inverse=True)
    part_of = keys // width
    first = np.append(True, part_of[1:] != part_of[:-1])
    lengths = np.diff(np.append(np.flatnonzero(first), len(keys)))
    ordinal = np.arange(len(keys)) - np.repeat(np.flatnonzero(first), lengths)
    roles = part_of[first] // len(steps)
    usual = {one: int(np.bincount(lengths[roles == one]).argmax()) for one in np.unique(roles).tolist()}
    kept = np.repeat(
        [length == usual[one] for one, length in zip(roles.tolist(), lengths.tolist(), strict=True)], lengths
    )
    place[inside] = np.where(kept, ordinal, NONE)[row]
    return place


def _waits(
    rank: I64, level: I64, before: I64, place: I64, role: I64, arrive: F64, end: F64, seen: Seen
) -> tuple[I64, F64]:
    """The row that each one waited for, and its own work.

    Where a recording shows what ranks waited for, that counts; else, of three ways to count, the one by which the own
    work is most alike.
    """
    if not len(rank):
        return before, arrive
    base = np.where(before == NONE, 0.0, arrive[before])
    roles = int(role.max()) + 1
    key = np.unique(level * roles + role[rank], return_inverse=True)[1]
    # told at each collective by itself, for a program need not wait at the same place in every step; where a rank has
    # no peers, at the same place of all steps together
    alone = (np.bincount(key)[key] == 1) & (place != NONE)
    told = numbered(np.where(alone, int(key.max()) + 1 + place, key), role[rank])
    evident = _evident(
        before, numbered(np.where(place != NONE, int(level.max()) + 1 + place, level), role[rank]), arrive, end, seen
    )
    if evident is not None:
        waits = np.where(evident, before, NONE)
        own = arrive - np.where(waits != NONE, np.maximum(base, end[waits]), base)
        return waits, np.maximum(own, 0.0)
    keys, size = int(key.max()) + 1, int(told.max()) + 1
    total = np.bincount(told, minlength=size)
    best = np.full(len(rank), NONE)
    own = arrive - base
    least: F64 | None = None
    for waits in (np.full(len(rank), NONE), before, np.where(before == NONE, NONE, before[before])):
        held = waits != NONE
        tried = arrive - np.where(held, np.maximum(base, end[waits]), base)
        apart = np.abs(tried - medians(key, tried, keys)[key])
        spread: F64 = np.bincount(told, apart, minlength=size).astype(np.float64)
        if least is None:
            least = spread
            continue
        negative = np.bincount(told, (tried < -1_000) & held, minlength=size) > NEGATIVE_SHARE * total
        better = (spread < CLOSE * least) & ~negative
        least = np.where(better, spread, least)
        taken = better[told] & held
        best, own = np.where(taken, waits, best), np.where(taken, tried, own)
    return best, np.maximum(own, 0.0)


def _evident(before: I64, told: I64, arrive: F64, end: F64, seen: Seen) -> Mask | None:
    """Whether each row waited for the end of the one before; None where the recording does not show such waits.

    It does where most ranks that waited long at a collective did nothing else until its end and went on right then, and
    that in most steps. told: rows of one number are told together.
    """
    next_one = np.flatnonzero(before != NONE)
    at = before[next_one]
    long = seen.wait[at] > SEEN_NS
    least = np.maximum(SEEN_SHARE * np.where(long, seen.wait[at], end[at] - arrive[at]), LEAST_NS)
    shows = seen.held[at] > least
    shows &= arrive[next_one] >= end[at] - LEAST_NS  # else what waited was not this work, but what came later
    key = told[next_one]
    size = int(told.max()) + 1
    counts, shown = (np.bincount(key, mask, minlength=size) for mask in (long, long & shows))
    every, any_shown = np.bincount(key, minlength=size), np.bincount(key, shows, minlength=size)
    found = shown * 2 > counts
    steps = seen.step[at]
    in_shown = np.isin(steps, steps[long & shows & found[key]])
    waited = seen.wait[at] * long
    if waited[in_shown].sum() <= STEPS_SHARE * waited.sum():
        return None
    found |= (counts == 0) & (any_shown * 2 > every)
    return np.asarray(found[told] & (before != NONE))
