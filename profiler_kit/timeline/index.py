"""An index of any number of spans that answers any view of them in milliseconds.

A track is one stream, region, operator or thread. It has a row for each of its spans that overlap, so no time is
hidden. Each row keeps prefix sums of busy time and a 64-way max mipmap of "longest span here", so that a view costs
O(pixels * log n). A span takes 24 bytes, which may be in a file (cached.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Codes = npt.NDArray[np.uint32]
Kind = Literal["request", "critical", "counter", "gpu", "gpu_region", "region", "python", "operator", "launch"]
Label = tuple[Kind, str, tuple[str, ...], str]

BLOCK: Final = 64
_SMALL: Final = 4_096  # a mipmap level this short is scanned as it is
_CODE_BITS: Final = 24
CODE_MASK: Final = (1 << _CODE_BITS) - 1
_LONGEST: Final = (1 << (63 - _CODE_BITS)) - 1  # 549 s: longer spans tie for "longest here"


@dataclass(frozen=True)
class Exact:
    """Every span of a row that touches the view; `first` is the number of the first one in its row."""

    first: int
    start_ns: Ints
    dur_ns: Ints
    code: Codes


@dataclass(frozen=True)
class Bins:
    """A row cut into equal bins: share of the bin that is busy, spans that start in it, code of the longest one.

    first has one entry more than there are bins: the number in the row of the first span that starts in or after each.
    """

    busy: npt.NDArray[np.float64]
    count: Ints
    code: Ints
    first: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Track:
    """One lane as it is drawn: rows from `first_row` up to, not including, `first_row + rows`.

    thread is the row of Trace.threads whose events it holds, -1 for lanes of GPU work and of requests. `depths`: row k
    holds what is nested k deep, so that the first row alone is a summary; otherwise a further row holds what ran
    meanwhile. most: the largest value of a counter, as text. part: of several timelines drawn as one, whose lane it is.
    """

    label: str
    kind: Kind
    thread: int
    first_row: int
    rows: int
    spans: int
    depths: bool
    most: str = ""
    part: int = 0


@dataclass(frozen=True, eq=False)
class Row:
    """Spans that do not overlap, by start.

    busy: nanoseconds of spans before each one, and after all of them at the end. item: the row of the frame each span
    came from. levels: the mipmap, the largest key of every 64 spans, then of every 64 of those, until they are few.
    """

    start: Ints
    busy: Ints
    code: Codes
    item: Codes
    levels: tuple[Ints, ...] = ()

    @staticmethod
    def of(start: Ints, dur: Ints, code: npt.NDArray[np.integer], item: npt.NDArray[np.integer]) -> Row:
        """The row of these spans, which are by start and do not overlap."""
        busy = np.concatenate((np.zeros(1, np.int64), np.cumsum(dur)))
        row = Row(start, busy, code.astype(np.uint32), item.astype(np.uint32))
        return replace(row, levels=tuple(row._mipmap()))

    def __len__(self) -> int:
        return int(self.start.size)

    @property
    def dur(self) -> Ints:
        """Duration of each span: busy time after it less busy time before it."""
        return np.diff(self.busy)

    @property
    def last_ns(self) -> int:
        """When the last span ends."""
        return int(self.start[-1] + self.busy[-1] - self.busy[-2])

    def touching(self, start_ns: int, end_ns: int) -> slice:
        """The spans that touch [start_ns, end_ns)."""
        first = int(np.searchsorted(self.start, start_ns, "left"))  # the first span that starts in the view
        if first and self.start[first - 1] + self.busy[first] - self.busy[first - 1] > start_ns:
            first -= 1  # began before, still open
        return slice(first, max(first, int(np.searchsorted(self.start, end_ns, "left"))))

    def exact(self, start_ns: int, end_ns: int) -> Exact:
        """The spans themselves."""
        s = self.touching(start_ns, end_ns)
        return Exact(s.start, self.start[s], np.diff(self.busy[s.start : s.stop + 1]), self.code[s])

    def bins(self, start_ns: int, end_ns: int, count: int) -> Bins:
        """`count` equal bins of the view."""
        # Counted from the start of the view: absolute nanoseconds do not fit a float.
        edges = start_ns + np.linspace(0, end_ns - start_ns, count + 1).astype(np.int64)
        # busy share of each bin: busy time before its end less that before its start, by its width
        busy = np.diff(self._busy_before(edges)) / np.maximum(np.diff(edges), 1)
        first = np.searchsorted(self.start, edges, "left")
        longest = self._range_max(first[:-1], first[1:])
        # A span that covers the whole bin does not start in it: the last one to start before the bin may reach into it,
        # and gives the code where it covers more than the longest one that starts in it lasts.
        at_edge = np.clip(first[:-1] - 1, 0, None)
        covered = self.start[at_edge] + self.busy[at_edge + 1] - self.busy[at_edge] - edges[:-1]
        code = np.where((longest >> _CODE_BITS) >= covered, longest & CODE_MASK, self.code[at_edge].astype(np.int64))
        return Bins(np.clip(busy, 0.0, 1.0), np.diff(first).astype(np.int64), code, first)

    def _busy_before(self, times: Ints) -> Ints:
        """Nanoseconds this row is busy before each time."""
        # the last span to start up to each time: all before it count whole, and it counts up to that time
        last = np.searchsorted(self.start, times, "right") - 1
        at = np.maximum(last, 0)
        within = np.clip(times - self.start[at], 0, self.busy[at + 1] - self.busy[at])
        return np.where(last >= 0, self.busy[at] + within, 0)

    def _keys(self, index: npt.NDArray[np.intp] | slice) -> Ints:
        """Level 0 of the mipmap: duration, then code, in one integer."""
        after = slice(index.start + 1, index.stop + 1) if isinstance(index, slice) else index + 1
        dur = np.minimum(self.busy[after] - self.busy[index], _LONGEST)
        return np.asarray((dur << _CODE_BITS) | self.code[index], dtype=np.int64)

    def _mipmap(self) -> Iterator[Ints]:
        """The largest key of every 64, then of every 64 of those, until they are few; chunk by chunk."""
        if len(self) <= _SMALL:
            return
        step = BLOCK << 14
        chunks = (self._keys(slice(at, min(at + step, len(self)))) for at in range(0, len(self), step))
        level = np.concatenate([_largest_of_blocks(chunk) for chunk in chunks])
        yield level
        while level.size > _SMALL:
            level = _largest_of_blocks(level)
            yield level

    def _range_max(self, low: npt.NDArray[np.intp], high: npt.NDArray[np.intp]) -> Ints:
        """Largest key in [low, high) for each bin.

        The keys at both ends that fill no whole block are looked at here, whole blocks one mipmap level up.
        """
        out = np.zeros(low.size, np.int64)
        sources: list[Callable[[npt.NDArray[np.intp]], Ints]] = [self._keys, *(lv.__getitem__ for lv in self.levels)]
        for number, keys in enumerate(sources):
            if number + 1 == len(sources) or int((high - low).sum()) <= _SMALL:
                return np.maximum(out, _slices_max(keys, low, high))
            low_up, high_up = -(-low // BLOCK), high // BLOCK  # the whole blocks inside each range
            whole = high_up > low_up
            out = np.maximum(out, _slices_max(keys, low, np.where(whole, low_up * BLOCK, high)))
            out = np.maximum(out, _slices_max(keys, np.where(whole, high_up * BLOCK, high), high))
            low, high = np.where(whole, low_up, 0), np.where(whole, high_up, 0)
        return out


class Level(Row):
    """A row of a counter: a span lasts to the next one, and is busy by the share that its value is of the largest."""

    def touching(self, start_ns: int, end_ns: int) -> slice:
        """The spans that touch [start_ns, end_ns)."""
        first = max(int(np.searchsorted(self.start, start_ns, "right")) - 1, 0)
        return slice(first, max(first, int(np.searchsorted(self.start, end_ns, "left"))))

    def bins(self, start_ns: int, end_ns: int, count: int) -> Bins:
        """`count` equal bins of the view, all of one code: a small value starts nothing that is longest."""
        found = super().bins(start_ns, end_ns, count)
        return replace(found, code=np.full_like(found.code, self.code[0]))

    def _busy_before(self, times: Ints) -> Ints:
        since = self.start - self.start[0]
        return np.asarray(np.interp(times - self.start[0], since, self.busy[:-1]), dtype=np.int64)


def _largest_of_blocks(keys: Ints) -> Ints:
    """The largest of every BLOCK keys; the last block is filled up with zeros, which no key is below."""
    padded = np.concatenate((keys, np.zeros(-keys.size % BLOCK, np.int64)))
    return np.asarray(padded.reshape(-1, BLOCK).max(axis=1), dtype=np.int64)


def _slices_max(
    keys: Callable[[npt.NDArray[np.intp]], Ints], low: npt.NDArray[np.intp], high: npt.NDArray[np.intp]
) -> Ints:
    """Largest of keys[low:high] for each pair, 0 where the slice is empty."""
    out = np.zeros(low.size, np.int64)
    filled = high > low
    if filled.any():
        # one array of all indices, slice after slice: a running number less the slice's offset in it, plus its begin
        begin, width = low[filled], (high - low)[filled]
        offset = np.cumsum(width) - width
        index = np.arange(int(width.sum())) - np.repeat(offset, width) + np.repeat(begin, width)
        out[filled] = np.maximum.reduceat(keys(index), offset)  # the largest between two offsets
    return out


@dataclass(frozen=True)
class Timeline:
    """All rows of a trace. A span's code is a row of `labels`: (kind, name, region path, category of
    work), the last "" for what is no GPU work.

    Times are read from start_ns on, where what was recorded begins; what is drawn of something else beside it, such as
    another run, may begin so much earlier.
    """

    start_ns: int
    end_ns: int
    tracks: tuple[Track, ...]
    rows: tuple[Row, ...]
    labels: tuple[Label, ...]
    earlier_ns: int = 0

    def rows_of(self, kind: Kind, thread: int | None = None) -> list[int]:
        """Numbers of the rows of that kind, of one thread if it is given."""
        return [
            row
            for track in self.tracks
            if track.kind == kind and (thread is None or track.thread == thread)
            for row in range(track.first_row, track.first_row + track.rows)
        ]

    def find(self, kind: Kind, item: int, start_ns: int) -> tuple[int, int] | None:
        """Row, and number in it, of the span that came from row `item` of its frame; None when it is not drawn."""
        for number in self.rows_of(kind):
            row = self.rows[number]
            at = int(np.searchsorted(row.start, start_ns, "left"))
            while at < len(row) and row.start[at] == start_ns:
                if row.item[at] == item:
                    return number, at
                at += 1
        return None

    def name(self, place: tuple[int, int]) -> str:
        """The name of a span: its row, and its number in it."""
        return self.labels[int(self.rows[place[0]].code[place[1]])][1]

    def nearest(self, row: int, time_ns: int) -> int:
        """Number of the span of a row that is nearest to a time, counted from the timeline's start; -1 without any."""
        if not (0 <= row < len(self.rows) and len(self.rows[row])):
            return -1
        spans, time = self.rows[row], self.start_ns + time_ns
        after = min(int(np.searchsorted(spans.start, time, "right")), len(spans) - 1)
        before = max(after - 1, 0)
        end = int(spans.start[before] + spans.busy[before + 1] - spans.busy[before])
        return before if time - end < spans.start[after] - time else after

    def open_at(self, kind: Kind, thread: int, time_ns: int) -> list[tuple[int, int]]:
        """Row, and number in it, of each span of a thread that is open at that time; the one that began first first."""
        found = []
        for number in self.rows_of(kind, thread):
            row = self.rows[number]
            at = int(np.searchsorted(row.start, time_ns, "right")) - 1
            if at >= 0 and row.start[at] + row.busy[at + 1] - row.busy[at] > time_ns:
                found.append((int(row.start[at]), number, at))
        return [(number, at) for _, number, at in sorted(found)]
