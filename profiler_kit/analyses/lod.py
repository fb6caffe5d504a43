"""Draw any number of spans: GPU events, regions and operators in; an index that answers any view in milliseconds out.

A track is one stream or one thread; it has as many rows as its spans overlap, so no time is hidden. Each row keeps
prefix sums of busy time and a 64-way max mipmap of "longest span here", which makes a view cost O(pixels * log n).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.schemas import GPU_EVENTS, OPERATORS, REGION_INSTANCES

Ints = npt.NDArray[np.int64]
Kind = Literal["gpu", "gpu_region", "region", "operator"]

BLOCK: Final = 64
_SMALL: Final = 4_096  # a mipmap level this short is scanned as it is
_CODE_BITS: Final = 24
_CODE_MASK: Final = (1 << _CODE_BITS) - 1
_LONGEST: Final = (1 << (63 - _CODE_BITS)) - 1  # 549 s: longer spans tie for "longest here"


@dataclass(frozen=True)
class Exact:
    """Every span of a row that touches the view. `delay_ns` is start minus launch start, NaN when not known."""

    start_ns: Ints
    dur_ns: Ints
    code: Ints
    delay_ns: npt.NDArray[np.float64]


@dataclass(frozen=True)
class Bins:
    """A row cut into equal bins: share of the bin that is busy, spans that start in it, code of the longest one."""

    busy: npt.NDArray[np.float64]
    count: Ints
    code: Ints


@dataclass(frozen=True)
class Track:
    """One stream or thread as it is drawn: rows from `first_row` up to, not including, `first_row + rows`."""

    label: str
    kind: Kind
    first_row: int
    rows: int
    spans: int


class Row:
    """Spans that do not overlap, by start."""

    def __init__(self, start: Ints, dur: Ints, code: Ints, delay: npt.NDArray[np.float64]) -> None:
        self.start, self.dur, self.code, self.delay = start, dur, code, delay
        self.end = start + dur
        self._busy = np.concatenate((np.zeros(1, np.int64), np.cumsum(dur)))
        level = (np.minimum(dur, _LONGEST) << _CODE_BITS) | code
        self._levels = [level]
        while level.size > _SMALL:
            padded = np.concatenate((level, np.zeros(-level.size % BLOCK, np.int64)))
            level = padded.reshape(-1, BLOCK).max(axis=1)
            self._levels.append(level)

    def touching(self, start_ns: int, end_ns: int) -> slice:
        """The spans that touch [start_ns, end_ns)."""
        first = int(np.searchsorted(self.end, start_ns, "right"))
        if first and self.end[first - 1] == start_ns and self.dur[first - 1] == 0:
            first -= 1  # an instant on the left edge
        return slice(first, max(first, int(np.searchsorted(self.start, end_ns, "left"))))

    def exact(self, start_ns: int, end_ns: int) -> Exact:
        """The spans themselves."""
        s = self.touching(start_ns, end_ns)
        return Exact(self.start[s], self.dur[s], self.code[s], self.delay[s])

    def bins(self, start_ns: int, end_ns: int, count: int) -> Bins:
        """`count` equal bins of the view."""
        # Counted from the start of the view: absolute nanoseconds do not fit a float.
        edges = start_ns + np.linspace(0, end_ns - start_ns, count + 1).astype(np.int64)
        busy = np.diff(self._busy_before(edges)) / np.maximum(np.diff(edges), 1)
        first = np.searchsorted(self.start, edges, "left")
        longest = self._range_max(first[:-1], first[1:])
        # A span that covers the whole bin does not start in it: the one open at the bin's left edge speaks for it.
        open_at_edge = np.clip(first[:-1] - 1, 0, None)
        covered = self.end[open_at_edge] - edges[:-1]
        code = np.where((longest >> _CODE_BITS) >= covered, longest & _CODE_MASK, self.code[open_at_edge])
        return Bins(np.clip(busy, 0.0, 1.0), np.diff(first).astype(np.int64), code)

    def _busy_before(self, times: Ints) -> Ints:
        """Nanoseconds this row is busy before each time."""
        last = np.searchsorted(self.start, times, "right") - 1
        at = np.maximum(last, 0)
        within = np.clip(times - self.start[at], 0, self.dur[at])
        return np.where(last >= 0, self._busy[at] + within, 0)

    def _range_max(self, low: npt.NDArray[np.intp], high: npt.NDArray[np.intp]) -> Ints:
        """Largest key in [low, high) for each bin; whole blocks are answered one mipmap level up."""
        out = np.zeros(low.size, np.int64)
        for level, keys in enumerate(self._levels):
            if level + 1 == len(self._levels) or int((high - low).sum()) <= _SMALL:
                return np.maximum(out, _slices_max(keys, low, high))
            low_up, high_up = -(-low // BLOCK), high // BLOCK
            whole = high_up > low_up
            out = np.maximum(out, _slices_max(keys, low, np.where(whole, low_up * BLOCK, high)))
            out = np.maximum(out, _slices_max(keys, np.where(whole, high_up * BLOCK, high), high))
            low, high = np.where(whole, low_up, 0), np.where(whole, high_up, 0)
        return out


def _slices_max(keys: Ints, low: npt.NDArray[np.intp], high: npt.NDArray[np.intp]) -> Ints:
    """Largest of keys[low:high] for each pair, 0 where the slice is empty."""
    out = np.zeros(low.size, np.int64)
    filled = high > low
    if filled.any():
        begin, width = low[filled], (high - low)[filled]
        offset = np.cumsum(width) - width
        index = np.arange(int(width.sum())) - np.repeat(offset, width) + np.repeat(begin, width)
        out[filled] = np.maximum.reduceat(keys[index], offset)
    return out


@dataclass(frozen=True)
class Timeline:
    """All rows of a trace. A span's code is a row of `labels`: (kind, name, region path)."""

    start_ns: int
    end_ns: int
    tracks: tuple[Track, ...]
    rows: tuple[Row, ...]
    labels: tuple[tuple[Kind, str, tuple[str, ...]], ...]


def build_timeline(
    gpu_events: pd.DataFrame, regions: pd.DataFrame, operators: pd.DataFrame, threads: pd.DataFrame
) -> Timeline:
    """Index a trace for drawing.

    Takes GPU_EVENTS, REGION_INSTANCES, OPERATORS (only the outermost are drawn) and Trace.threads (pid, tid, label).
    Tracks: regions as the GPU runs them, each stream, then for each thread its regions and its operators, busiest
    first. Empty in, a timeline without tracks out.

    Raises SchemaError when a frame is not what it should be.
    """
    GPU_EVENTS.check(gpu_events)
    REGION_INSTANCES.check(regions)
    OPERATORS.check(operators)
    codes = _Codes()
    tracks: list[Track] = []
    rows: list[Row] = []
    for label, kind, start, dur, code, delay in _sources(gpu_events, regions, operators, threads, codes):
        order = np.lexsort((-dur, start))
        start, dur, code, delay = start[order], dur[order], code[order], delay[order]
        row_of = stack_rows(start, dur)
        count = int(row_of.max()) + 1
        tracks.append(Track(label, kind, len(rows), count, start.size))
        for number in range(count):
            mine = slice(None) if count == 1 else row_of == number
            rows.append(Row(start[mine], dur[mine], code[mine], delay[mine]))
    first = min((int(row.start[0]) for row in rows), default=0)
    last = max((int(row.end.max()) for row in rows), default=0)
    return Timeline(first, max(last, first + 1), tuple(tracks), tuple(rows), tuple(codes.labels))


def stack_rows(start_ns: Ints, dur_ns: Ints) -> Ints:
    """The row of each span, so that spans of one row do not overlap; takes spans by start, the longer first.

    First fit: nested spans come out by depth. Only spans that overlap another are looked at one by one.
    """
    end = start_ns + dur_ns
    row = np.zeros(start_ns.size, np.int64)
    if start_ns.size < 2:
        return row
    reach = np.maximum.accumulate(end)
    opens = np.concatenate(([True], start_ns[1:] >= reach[:-1]))  # starts after everything before it has ended
    group = np.cumsum(opens) - 1
    crowded = np.bincount(group)[group] > 1
    open_rows: list[tuple[int, int]] = []  # (end, row)
    free: list[int] = []
    for i in np.flatnonzero(crowded):
        if opens[i]:
            open_rows, free = [], []
        while open_rows and open_rows[0][0] <= start_ns[i]:
            heapq.heappush(free, heapq.heappop(open_rows)[1])
        row[i] = heapq.heappop(free) if free else len(open_rows)
        heapq.heappush(open_rows, (int(end[i]), int(row[i])))
    return row


class _Codes:
    """Numbers for (kind, name, path), so that a span carries one small integer."""

    def __init__(self) -> None:
        self.labels: list[tuple[Kind, str, tuple[str, ...]]] = []

    def of(self, kind: Kind, names: pd.Series, paths: pd.Series) -> Ints:
        name_code, name_values = pd.factorize(names)
        path_code, path_values = pd.factorize(paths)
        pair = name_code.astype(np.int64) * len(path_values) + path_code
        code, distinct = pd.factorize(pair)
        first = len(self.labels)
        for value in distinct:
            name, path = divmod(int(value), len(path_values))
            self.labels.append((kind, str(name_values[name]), tuple(path_values[path])))
        # Past 16.7 million distinct labels the last one stands for the rest.
        return np.minimum(code.astype(np.int64) + first, _CODE_MASK)


_Source = tuple[str, Kind, Ints, Ints, Ints, npt.NDArray[np.float64]]


def _sources(
    gpu: pd.DataFrame, regions: pd.DataFrame, operators: pd.DataFrame, threads: pd.DataFrame, codes: _Codes
) -> Iterator[_Source]:
    launched = regions[regions["gpu_start_ns"].notna()]
    if len(launched):
        start = launched["gpu_start_ns"].to_numpy(np.int64)
        end = launched["gpu_end_ns"].to_numpy(np.int64)
        code = codes.of("gpu_region", launched["name"], launched["path"])
        yield "Regions on the GPU", "gpu_region", start, end - start, code, _unknown(start)
    if len(gpu):
        code = codes.of("gpu", gpu["name"], gpu["path"])
        delay = gpu["start_ns"].to_numpy(np.float64) - gpu["launch_start_ns"].to_numpy(np.float64, na_value=np.nan)
        streams, stream_of = _streams(gpu)
        for number in _busiest_first(stream_of, gpu["dur_ns"].to_numpy(np.int64)):
            at = np.flatnonzero(stream_of == number)
            yield streams[number], "gpu", *_times(gpu, at), code[at], delay[at]
    yield from _host(regions, operators, threads, codes)


def _host(regions: pd.DataFrame, operators: pd.DataFrame, threads: pd.DataFrame, codes: _Codes) -> Iterator[_Source]:
    outer = operators[operators["depth"] == 0]
    bands = regions.assign(dur_ns=regions["end_ns"] - regions["start_ns"])
    band_code = codes.of("region", bands["name"], bands["path"])
    code = codes.of("operator", outer["name"], outer["path"])
    both = pd.concat([bands[["thread", "dur_ns"]], outer[["thread", "dur_ns"]]])
    number, distinct = pd.factorize(both["thread"])
    for thread in distinct[_busiest_first(number.astype(np.int64), both["dur_ns"].to_numpy(np.int64))]:
        label = _thread_label(threads, int(thread))
        at = np.flatnonzero(bands["thread"] == thread)
        if at.size:
            yield f"Regions, {label}", "region", *_times(bands, at), band_code[at], _unknown(at)
        at = np.flatnonzero(outer["thread"] == thread)
        if at.size:
            yield f"Operators, {label}", "operator", *_times(outer, at), code[at], _unknown(at)


def _thread_label(threads: pd.DataFrame, thread: int) -> str:
    return f"thread {threads['tid'].iloc[thread]}" if thread < len(threads) else f"thread #{thread}"


def _times(frame: pd.DataFrame, at: npt.NDArray[np.intp]) -> tuple[Ints, Ints]:
    return frame["start_ns"].to_numpy(np.int64)[at], np.maximum(frame["dur_ns"].to_numpy(np.int64)[at], 0)


def _streams(gpu: pd.DataFrame) -> tuple[list[str], Ints]:
    """A label for each stream, and the stream of each event; the device is named when there are several."""
    device, devices = pd.factorize(gpu["device"], use_na_sentinel=False)
    stream, streams = pd.factorize(gpu["stream"], use_na_sentinel=False)
    number, pairs = pd.factorize(device.astype(np.int64) * len(streams) + stream)
    labels = []
    for pair in pairs:
        at, of = divmod(int(pair), len(streams))
        name = "stream not known" if pd.isna(streams[of]) else f"stream {streams[of]}"
        labels.append(name.capitalize() if len(devices) == 1 else f"GPU {devices[at]}, {name}")
    return labels, number.astype(np.int64)


def _busiest_first(group: Ints, dur: Ints) -> list[int]:
    """Group numbers by total duration, the largest first."""
    return [int(i) for i in np.argsort(-np.bincount(group, weights=dur), kind="stable")]


def _unknown(like: npt.NDArray[np.generic]) -> npt.NDArray[np.float64]:
    return np.full(like.size, np.nan)
