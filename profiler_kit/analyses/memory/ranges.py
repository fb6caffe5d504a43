"""Find which address ranges the allocator held from the driver and when, and which frees had to wait."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory.allocator_rules import SMALL_SEGMENT
from profiler_kit.analyses.memory.replay import ALLOCATE, FREE, RELEASE, REQUEST, RESERVE, Bools, Ints

EXPANDABLE: Final = ("segment_map", "segment_unmap")
UNKNOWN_POOL: Final = ""


@dataclass(frozen=True, eq=False)
class Ranges:
    """Address ranges reserved from the driver, one item each, in the order they were reserved.

    reserve_event, release_event: rows of SNAPSHOT_EVENTS; -1: reserved before the history, or still held at its end.
    pool is "" for a range given back before the end where the events do not name it (before torch 2.13). small: serves
    requests up to 1 MiB.
    """

    address: npt.NDArray[np.uint64]
    size_bytes: Ints
    reserve_event: Ints
    release_event: Ints
    stream: Ints
    stack: Ints
    pool: tuple[str, ...]
    small: Bools
    expandable: Bools


def reserved_ranges(events: pd.DataFrame, segments: pd.DataFrame, device: int) -> Ranges:
    """The ranges of one device over its history.

    Takes SNAPSHOT_EVENTS and SNAPSHOT_SEGMENTS. A segment is one range; an expandable one is as many as there were
    mappings, cut where an unmapping ended inside one. What is released or held at the end without having been reserved
    in the history was there before.
    """
    walk = _Walk()
    rows = np.flatnonzero((events["device"].to_numpy() == device) & _is(events, *RESERVE, *RELEASE))
    mine = events.iloc[rows]
    reserves, maps = _is(mine, *RESERVE), _is(mine, *EXPANDABLE)
    columns = (mine[name].tolist() for name in ("address", "size_bytes", "stream", "stack", "pool"))
    for row, reserve, expandable, address, size, stream, stack, pool in zip(
        rows.tolist(), reserves.tolist(), maps.tolist(), *columns, strict=True
    ):
        if reserve:
            walk.reserve(row, address, _Kind(stream, stack, expandable, pool), size)
        else:
            walk.release(row, address, _Kind(stream, 0, expandable, pool), size)
    held = segments[segments["device"] == device]
    names = ("address", "total_bytes", "stream", "pool", "segment_type", "expandable")
    for address, size, stream, pool, segment_type, expandable in zip(*(held[n].tolist() for n in names), strict=True):
        walk.close(address, size, _Kind(stream, 0, expandable, pool, segment_type == "small"))
    return walk.ranges()


@dataclass(frozen=True)
class _Kind:
    """What is known of a range apart from its addresses."""

    stream: int
    stack: int
    expandable: bool
    pool: str = UNKNOWN_POOL
    small: bool | None = None


@dataclass
class _Range:
    start: int
    end: int
    kind: _Kind
    reserved: int = -1
    released: int = -1


class _Walk:
    """The walk over the reservations of a device: `live` holds what is reserved now, by address."""

    def __init__(self) -> None:
        self._all: list[_Range] = []
        self._starts: list[int] = []
        self._live: list[_Range] = []

    def reserve(self, row: int, start: int, kind: _Kind, size: int) -> None:
        for stale in self._inside(start, start + size):  # a gap in the history: released without an event
            self._drop(stale, row)
        self._add(_Range(start, start + size, kind, reserved=row))

    def release(self, row: int, start: int, kind: _Kind, size: int) -> None:
        for found in self._inside(start, start + size, fill=kind):
            self._drop(found, row)

    def close(self, start: int, size: int, kind: _Kind) -> None:
        for found in self._inside(start, start + size, fill=kind):
            found.kind = _Kind(
                kind.stream, found.kind.stack, kind.expandable or found.kind.expandable, kind.pool, kind.small
            )

    def _inside(self, start: int, end: int, fill: _Kind | None = None) -> list[_Range]:
        """The live ranges between two addresses, cut there. With `fill`, holes are filled with ranges from before."""
        self._cut(start)
        self._cut(end)
        first, last = bisect_left(self._starts, start), bisect_left(self._starts, end)
        found = self._live[first:last]
        if fill is not None:
            # pairs of borders enclose the holes: before the first range, between neighbours, after the last one
            borders = [start, *(place for one in found for place in (one.start, one.end)), end]
            for left, right in zip(borders[::2], borders[1::2], strict=True):
                if left < right:
                    self._add(_Range(left, right, fill))
            found = self._live[bisect_left(self._starts, start) : bisect_left(self._starts, end)]
        return found

    def _cut(self, place: int) -> None:
        at = bisect_right(self._starts, place) - 1
        if at < 0 or not self._live[at].start < place < self._live[at].end:
            return
        left = self._live[at]
        right = _Range(place, left.end, left.kind, left.reserved)
        left.end = place
        self._add(right)

    def _add(self, one: _Range) -> None:
        at = bisect_left(self._starts, one.start)
        self._starts.insert(at, one.start)
        self._live.insert(at, one)
        self._all.append(one)

    def _drop(self, one: _Range, row: int) -> None:
        at = bisect_left(self._starts, one.start)
        del self._starts[at], self._live[at]
        one.released = row

    def ranges(self) -> Ranges:
        found = sorted((one for one in self._all if one.end > one.start), key=lambda one: one.reserved)
        size = np.array([one.end - one.start for one in found], np.int64)
        known = [one.kind.small for one in found]
        return Ranges(
            address=np.array([one.start for one in found], np.uint64),
            size_bytes=size,
            reserve_event=np.array([one.reserved for one in found], np.int64),
            release_event=np.array([one.released for one in found], np.int64),
            stream=np.array([one.kind.stream for one in found], np.int64),
            stack=np.array([one.kind.stack for one in found], np.int64),
            pool=tuple(one.kind.pool for one in found),
            small=np.array(
                [total <= SMALL_SEGMENT if one is None else one for one, total in zip(known, size, strict=True)],
                np.bool_,
            ),
            expandable=np.array([one.kind.expandable for one in found], np.bool_),
        )


def free_requests(events: pd.DataFrame, allocations: pd.DataFrame, device: int) -> Ints:
    """Row of the `free_requested` event of each allocation of a device, -1 where the history holds none.

    Takes SNAPSHOT_EVENTS and MEMORY_ALLOCATIONS; one item per row of the device in the latter. From there until
    `free_completed` a block waits for another stream; mostly the two are neighbours.
    """
    is_request = _is(events, REQUEST)
    steps = is_request | _is(events, ALLOCATE, FREE)
    rows = np.flatnonzero((events["device"].to_numpy() == device) & steps)
    address = events["address"].to_numpy()[rows]
    order = np.argsort(address, kind="stable")
    # by address, history order within; the last row (-1) is what a guess outside picks
    rows, address = np.append(rows[order], -1), address[order]
    # event -> its place in that order
    place = np.full(len(events) + 1, -1, np.int64)
    place[rows[:-1]] = np.arange(len(address))
    mine = allocations[allocations["device"] == device]
    alloc, free = (mine[name].fillna(-1).to_numpy(np.int64) for name in ("alloc_event", "free_event"))
    last = np.searchsorted(address, mine["address"].to_numpy(), side="right") - 1
    # where the request must be: just before the free; for a live block just after its alloc; else last at its address
    guess = np.where(free >= 0, place[free] - 1, np.where(alloc >= 0, place[alloc] + 1, last))
    inside = (guess >= 0) & (guess < len(address))
    guess = np.where(inside, guess, len(address))
    same = inside & (np.append(address, np.uint64(0))[guess] == mine["address"].to_numpy())
    found = np.where(same & np.append(is_request, False)[rows[guess]], rows[guess], -1)
    return found.astype(np.int64)


def _is(events: pd.DataFrame, *actions: str) -> Bools:
    return events["action"].isin(actions).to_numpy(np.bool_)
