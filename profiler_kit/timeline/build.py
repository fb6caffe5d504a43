"""Lay out the GPU events, regions, operators and launches of a trace in lanes for drawing."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.replay import CRITICAL_PATH
from profiler_kit.analyses.gpu.timeline import devices_of
from profiler_kit.attribute.frames import GPU_EVENTS, LAUNCH_CALLS, OPERATORS, PYTHON_CALLS, REGION_INSTANCES
from profiler_kit.names import gpu_name
from profiler_kit.timeline.index import CODE_MASK, Ints, Kind, Label, Row, Timeline, Track

By = Literal["stream", "region", "thread", "operator"]
MOST_LANES: Final = 40  # of GPU work; the rest share one
NO_OPERATOR: Final = "(no operator)"
_NESTED: Final = ("region", "gpu_region")  # first fit gives these by depth
_DEEP: Final = ("python", "operator")  # their frames say the depth
UNKNOWN: Final = "(launch not recorded)"


@dataclass(frozen=True)
class _Lane:
    """Spans of one track before they are stacked into rows; without a depth their times decide the row."""

    label: str
    kind: Kind
    thread: int
    start: Ints
    dur: Ints
    code: Ints
    item: npt.NDArray[np.intp]
    depth: npt.NDArray[np.int32] | None = None


def build_timeline(
    gpu_events: pd.DataFrame,
    regions: pd.DataFrame,
    operators: pd.DataFrame,
    launches: pd.DataFrame,
    threads: pd.DataFrame,
    python: pd.DataFrame | None = None,
    critical: pd.DataFrame | None = None,
    work: pd.Categorical | None = None,
) -> Timeline:
    """Index a trace for drawing, its GPU work by stream.

    Takes GPU_EVENTS, REGION_INSTANCES, OPERATORS, LAUNCH_CALLS, Trace.threads (pid, tid, label) and, for lanes of their
    own, PYTHON_CALLS and CRITICAL_PATH. work: the category of each GPU event. Tracks: the critical path, regions as the
    GPU runs them, each stream, then for each thread its regions, Python functions, operators and launches, busiest
    first.

    Raises SchemaError when a frame is not what it should be.
    """
    GPU_EVENTS.check(gpu_events)
    REGION_INSTANCES.check(regions)
    OPERATORS.check(operators)
    LAUNCH_CALLS.check(launches)
    stack = PYTHON_CALLS.empty() if python is None else PYTHON_CALLS.check(python)
    codes = Codes()
    layout = Layout()
    of_gpu = itertools.chain(_gpu_regions(regions, codes), _gpu_lanes(gpu_events, *_streams(gpu_events), work, codes))
    path = () if critical is None else _critical(CRITICAL_PATH.check(critical), codes)
    for lane in itertools.chain(path, of_gpu, _host(regions, stack, operators, launches, threads, codes)):
        layout.add(lane)
    return layout.timeline(tuple(codes.labels))


def group_gpu_work(
    timeline: Timeline,
    gpu_events: pd.DataFrame,
    by: By,
    threads: pd.DataFrame,
    operators: pd.Series | None = None,
    work: pd.Categorical | None = None,
) -> Timeline:
    """The same timeline with its GPU work in other lanes: by stream, innermost region, launching thread or operator.

    operators: for `by="operator"`, the name of each GPU event's outermost operator (KERNEL_DETAILS.outer_operator).
    work: the category of each GPU event. The busiest lanes come first; past MOST_LANES the rest share one. All other
    rows are shared with `timeline`.
    """
    GPU_EVENTS.check(gpu_events)
    if by == "stream" or not len(gpu_events):
        return timeline
    labels, group = _groups(gpu_events, by, threads, operators)
    codes = Codes(timeline.labels)
    layout = Layout()
    for track in timeline.tracks:
        rows = timeline.rows[track.first_row : track.first_row + track.rows]
        if track.kind != "gpu":
            layout.keep(track, rows)
        elif not any(one.kind == "gpu" for one in layout.tracks):
            for lane in _gpu_lanes(gpu_events, labels, group, work, codes):
                layout.add(lane)
    return replace(timeline, tracks=tuple(layout.tracks), rows=tuple(layout.rows), labels=tuple(codes.labels))


class Layout:
    """Stacks lanes below each other."""

    def __init__(self) -> None:
        self.tracks: list[Track] = []
        self.rows: list[Row] = []

    def add(self, lane: _Lane) -> None:
        """Stack a lane's spans into rows."""
        order = _by_start(lane.start, lane.dur)
        start, dur, code, item = (values[order] for values in (lane.start, lane.dur, lane.code, lane.item))
        depth = None if lane.depth is None else lane.depth[order]
        row_of, nested = (stack_rows(start, dur), False) if depth is None else _nested_rows(start, dur, depth)
        count = int(row_of.max()) + 1
        rows = [
            Row.of(start[mine], dur[mine], code[mine], item[mine])
            for mine in ([slice(None)] if count == 1 else [row_of == number for number in range(count)])
        ]
        depths = nested or lane.kind in _NESTED
        self.keep(Track(lane.label, lane.kind, lane.thread, 0, count, int(start.size), depths), rows)

    def keep(self, track: Track, rows: list[Row] | tuple[Row, ...]) -> None:
        """Put a finished track below the others."""
        place = len(self.rows)
        self.tracks.append(replace(track, first_row=place))
        self.rows.extend(rows)

    def timeline(self, labels: tuple[Label, ...]) -> Timeline:
        """All of it."""
        first = min((int(row.start[0]) for row in self.rows), default=0)
        last = max((row.last_ns for row in self.rows), default=0)
        return Timeline(first, max(last, first + 1), tuple(self.tracks), tuple(self.rows), labels)


def stack_rows(start_ns: Ints, dur_ns: Ints) -> Ints:
    """The row of each span, so that spans of one row do not overlap; takes spans by start, the longer first.

    First fit: nested spans come out by depth. Only spans that overlap another are looked at one by one.
    """
    end = start_ns + dur_ns
    row = np.zeros(start_ns.size, np.int64)
    if start_ns.size < 2:
        return row
    reach = np.maximum.accumulate(end)  # when all spans up to this one have ended
    opens = np.concatenate(([True], start_ns[1:] >= reach[:-1]))  # starts after everything before it has ended
    if opens.all():
        return row
    # spans between two such starts form a group; a span alone in its group stays in row 0
    group = np.cumsum(opens) - 1
    crowded = np.bincount(group)[group] > 1
    open_rows: list[tuple[int, int]] = []  # (end, row), the earliest end first
    free: list[int] = []  # rows that have been used and are free again, the lowest first
    for i in np.flatnonzero(crowded):
        if opens[i]:
            open_rows, free = [], []
        while open_rows and open_rows[0][0] <= start_ns[i]:
            heapq.heappush(free, heapq.heappop(open_rows)[1])
        row[i] = heapq.heappop(free) if free else len(open_rows)
        heapq.heappush(open_rows, (int(end[i]), int(row[i])))
    return row


def _nested_rows(start: Ints, dur: Ints, depth: npt.NDArray[np.int32]) -> tuple[Ints, bool]:
    """The depth of each span as its row; where spans of one depth overlap (an asynchronous operator), stacked."""
    # by depth, then by start: two neighbours of one depth overlap if the second starts before the first ends
    order = np.argsort(depth, kind="stable")
    level, begin, end = depth[order], start[order], (start + dur)[order]
    if bool(((level[1:] == level[:-1]) & (begin[1:] < end[:-1])).any()):
        return stack_rows(start, dur), False
    # depths that do not occur take no row: each depth becomes its place among those that do
    return np.unique(depth, return_inverse=True)[1].reshape(-1).astype(np.int64), True


def _by_start(start: Ints, dur: Ints) -> npt.NDArray[np.intp] | slice:
    """The order by start, the longer first; a slice when the spans are in order already."""
    step = np.diff(start)
    # in order: each span starts later than the one before, or at once and is not longer
    if bool((step > 0).all()) or bool(((step > 0) | ((step == 0) & (np.diff(dur) <= 0))).all()):
        return slice(None)
    return np.lexsort((-dur, start))


class Codes:
    """Numbers for (kind, name, path, category of work), so that a span carries one small integer."""

    def __init__(self, known: tuple[Label, ...] = ()) -> None:
        self.labels: list[Label] = list(known)
        self._known = {label: code for code, label in enumerate(known)}

    def of(self, kind: Kind, names: pd.Series, paths: pd.Series, work: pd.Categorical | None = None) -> Ints:
        # number the distinct triples of name, path and category: one integer for each, then one code for each of these
        name_code, name_values = pd.factorize(names)
        path_code, path_values = pd.factorize(paths)
        categories = [""] if work is None else list(work.categories)
        triple = (name_code.astype(np.int64) * len(path_values) + path_code) * len(categories)
        code, distinct = pd.factorize(triple if work is None else triple + work.codes)
        numbers = []
        for value in distinct:
            pair, category = divmod(int(value), len(categories))
            name, path = divmod(pair, len(path_values))
            label: Label = (kind, str(name_values[name]), tuple(path_values[path]), categories[category])
            if label not in self._known:
                self._known[label] = len(self.labels)
                self.labels.append(label)
            numbers.append(self._known[label])
        # past 16.7 million distinct labels the rest share the last one
        return np.minimum(np.array(numbers, dtype=np.int64)[code], CODE_MASK) if numbers else code.astype(np.int64)


def _critical(path: pd.DataFrame, codes: Codes) -> Iterator[_Lane]:
    if len(path):
        code = codes.of("critical", path["name"], pd.Series([(kind,) for kind in path["kind"]], dtype=object))
        yield _Lane("Critical path", "critical", -1, *_times(path), code, np.arange(len(path)))


def _gpu_regions(regions: pd.DataFrame, codes: Codes) -> Iterator[_Lane]:
    at = np.flatnonzero(regions["gpu_start_ns"].notna())
    if at.size:
        launched = regions.iloc[at]
        start = launched["gpu_start_ns"].to_numpy(np.int64)
        end = launched["gpu_end_ns"].to_numpy(np.int64)
        code = codes.of("gpu_region", _numbered(launched), launched["path"])
        yield _Lane("Regions on GPUs", "gpu_region", -1, start, end - start, code, at)


def _gpu_lanes(
    gpu: pd.DataFrame, labels: list[str], group: Ints, work: pd.Categorical | None, codes: Codes
) -> Iterator[_Lane]:
    if not len(gpu):
        return
    code = codes.of("gpu", gpu["name"], gpu["path"], work)
    start, dur = _times(gpu)
    busiest = _busiest_first(group, dur)
    alone, rest = busiest[:MOST_LANES], busiest[MOST_LANES:]
    for number in alone:
        at = np.flatnonzero(group == number) if len(busiest) > 1 else np.arange(len(gpu))
        yield _Lane(labels[number], "gpu", -1, start[at], dur[at], code[at], at)
    if rest:
        at = np.flatnonzero(np.isin(group, rest))
        yield _Lane(f"{len(rest)} others", "gpu", -1, start[at], dur[at], code[at], at)


def _groups(gpu: pd.DataFrame, by: By, threads: pd.DataFrame, operators: pd.Series | None) -> tuple[list[str], Ints]:
    """A label for each lane, and the lane of each GPU event."""
    if by == "stream":
        return _streams(gpu)
    if by == "region":
        number, values = pd.factorize(gpu["path"])
        return [" › ".join(path) for path in values], number.astype(np.int64)
    if by == "thread":
        number, values = pd.factorize(gpu["launch_thread"], use_na_sentinel=False)
        labels = [UNKNOWN if pd.isna(one) else f"From {_thread_label(threads, int(one))}" for one in values]
        return labels, number.astype(np.int64)
    assert operators is not None
    number, values = pd.factorize(operators, use_na_sentinel=False)
    return [NO_OPERATOR if pd.isna(one) else str(one) for one in values], number.astype(np.int64)


def _streams(gpu: pd.DataFrame) -> tuple[list[str], Ints]:
    """A label for each stream, and the stream of each event; the device is named when there are several."""
    # number the distinct pairs of device (of a process) and stream, a missing one counting as a value of its own
    devices, device = devices_of(gpu)
    stream, streams = pd.factorize(gpu["stream"], use_na_sentinel=False)
    number, pairs = pd.factorize(device * len(streams) + stream)
    several = len({process for process, _ in devices}) > 1
    labels = []
    for pair in pairs:
        at, of = divmod(int(pair), len(streams))
        name = "stream not known" if pd.isna(streams[of]) else f"stream {streams[of]}"
        process, gpu_number = devices[at]
        gpu_label = gpu_name(gpu_number, process if several else "")
        labels.append(name.capitalize() if len(devices) == 1 else f"{gpu_label}, {name}")
    return labels, number.astype(np.int64)


def _host(
    regions: pd.DataFrame,
    python: pd.DataFrame,
    operators: pd.DataFrame,
    launches: pd.DataFrame,
    threads: pd.DataFrame,
    codes: Codes,
) -> Iterator[_Lane]:
    bands = regions.assign(dur_ns=regions["end_ns"] - regions["start_ns"])
    kinds: tuple[tuple[str, Kind, pd.DataFrame], ...] = (
        ("Regions", "region", bands),
        ("Python", "python", python),
        ("Operators", "operator", operators),
        ("Launches", "launch", launches),
    )
    names = {kind: _numbered(frame) if kind == "region" else frame["name"] for _, kind, frame in kinds}
    code = {kind: codes.of(kind, names[kind], frame["path"]) for _, kind, frame in kinds}
    size = 1 + max((int(frame["thread"].max()) for _, _, frame in kinds if len(frame)), default=-1)
    busy = np.zeros(size)  # of each thread: its regions and outermost operators, without either its launches
    for _, kind, frame in (kinds[0], kinds[2]) if len(bands) or len(operators) else kinds:
        outer = frame[frame["depth"] == 0] if kind in _DEEP else frame
        busy += np.bincount(outer["thread"], weights=outer["dur_ns"], minlength=size)
    present = {int(thread) for _, _, frame in kinds for thread in np.unique(frame["thread"])}
    for thread in sorted(present, key=lambda one: -busy[one]):
        for title, kind, frame in kinds:
            at = np.flatnonzero(frame["thread"].to_numpy() == thread)
            if at.size:
                start, dur = (values[at] for values in _times(frame))
                depth = frame["depth"].to_numpy(np.int32)[at] if kind in _DEEP else None
                label = f"{title}, {_thread_label(threads, thread)}"
                yield _Lane(label, kind, thread, start, dur, code[kind][at], at, depth)


def _numbered(regions: pd.DataFrame) -> pd.Series[Any]:
    """Names of regions, of steps with their number, as the trace writes them."""
    names = regions["name"].astype(object)
    return names.where(regions["step"].isna(), names + "#" + regions["step"].astype(object).astype(str))


def _thread_label(threads: pd.DataFrame, thread: int) -> str:
    return f"thread {threads['tid'].iloc[thread]}" if thread < len(threads) else f"thread #{thread}"


def _times(frame: pd.DataFrame) -> tuple[Ints, Ints]:
    return frame["start_ns"].to_numpy(np.int64), np.maximum(frame["dur_ns"].to_numpy(np.int64), 0)


def _busiest_first(group: Ints, dur: Ints) -> list[int]:
    """Group numbers by total duration, the longest first."""
    return [int(i) for i in np.argsort(-np.bincount(group, weights=dur), kind="stable")]
