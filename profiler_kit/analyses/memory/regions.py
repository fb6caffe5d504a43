"""Attribute memory to regions: when each was open, its peak, and what it allocated and freed.

The annotations of a snapshot are the starts and ends of `record_function` regions. They name no thread, so they nest
by time alone, separately on each device.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory.replay import Bools, Ints, Replay
from profiler_kit.analyses.memory.stats import AT_LEAST, Known
from profiler_kit.schema import Column, Schema

MEMORY_REGIONS: Final = Schema(
    "MEMORY_REGIONS",
    "device and region path",
    {
        "device": Column("int64"),
        "path": Column("path"),
        "instances": Column("int64", show="room"),
        "peak_bound": Column(
            "str",
            "At least, where the peak while it was open may be higher: the history may lack what happened then; else "
            "empty.",
            "",
        ),
        "peak_bytes": Column("int64", "Highest total held by tensors while it was open, in bytes they asked for."),
        "allocated_bytes": Column("int64", "Asked for inside it, freed or not."),
        "freed_bytes": Column("int64", show="room"),
        "net_bytes": Column("int64"),
        "churn_bytes": Column(
            "int64", "Allocated inside an instance and freed before it closed: a buffer could save that.", show="room"
        ),
        "largest_bytes": Column("int64", "The largest single allocation inside it.", show="room"),
        "largest_stack": Column(
            "int64", "Row of the table stacks: where the largest was allocated.", show="never", unit="id"
        ),
    },
)

MEMORY_REGION_SPANS: Final = Schema(
    "MEMORY_REGION_SPANS",
    "opened region (a record_function block), by device and start",
    {
        "device": Column("int64"),
        "path": Column("path"),
        "start_us": Column("int64", "When it opened, in Unix time.", "opened", unit="unix_us"),
        "end_us": Column(
            "int64", "When it closed, in Unix time; the end of the history when it did not.", "closed", unit="unix_us"
        ),
        "closed": Column("bool", "Whether it closed before the history ends."),
    },
)


NO_REGION: Final = ("(no region)",)
MAX_DEPTH: Final = 100  # regions nested deeper are siblings at this depth
MAX_LETTERS: Final = 8 << 20  # of all paths of a device; beyond, a new path begins at the top
_LETTERS_OF_A_NAME: Final = 16  # what one takes beside its own
_STEP: Final = re.compile(r"ProfilerStep#\d+")


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one device.

    paths: each different path, a parent before its children, in order of first opening. parents: path number of each
    path's parent, -1 at the top. instance_path, start_us, end_us, closed: one per opened region. change_us, innermost:
    from that time on, that path is the innermost open one (-1: none); the first holds since forever.
    raised: how many regions have a shorter path than they were opened at, for MAX_DEPTH or MAX_LETTERS.
    """

    paths: list[tuple[str, ...]]
    parents: list[int]
    instance_path: Ints
    start_us: Ints
    end_us: Ints
    closed: npt.NDArray[np.bool_]
    change_us: Ints
    innermost: Ints
    raised: int = 0

    def path_at(self, times_us: Ints) -> Ints:
        """Number of the innermost path open at each time (start inclusive, end exclusive), -1 for none."""
        return self.innermost[np.searchsorted(self.change_us, times_us, side="right") - 1]


def of_one_thread(annotations: pd.DataFrame) -> bool:
    """Whether the regions can be those of one thread: no name is open on two devices at once.

    Torch writes the device that was current on the thread, not the one whose memory is meant.
    """
    known = annotations[annotations["device"].notna()]
    if known["device"].nunique() < 2:
        return True
    open_on: dict[str, list[int]] = {}  # devices of the open regions of each name
    for end, name, device in zip(known["stage"] == "END", known["name"], known["device"].tolist(), strict=True):
        devices = open_on.setdefault(name, [])  # all of them the same one
        if devices and devices[-1] != device:
            return False
        if not end:
            devices.append(device)
        elif devices:
            devices.pop()
    return True


def counting_on(annotations: pd.DataFrame, device: int, used: Collection[int], *, one_thread: bool) -> pd.DataFrame:
    """The annotations that count on a device: all of the process but those that mean another one.

    The device of an annotation is the one that was current on its thread: 0 unless the program chose another, and no
    device at all where nothing was allocated. used: those with events. Where several threads had a device each, those
    of a device count on it alone, and all on a device that has none.
    """
    of = annotations["device"]
    own = (of == device).fillna(False)
    if not one_thread:
        return annotations[own | of.isna()] if own.any() else annotations
    return annotations[own | of.isna() | (of == 0).fillna(False) | ~of.isin(list(used))]


def nest(annotations: pd.DataFrame, times_us: Ints, paths: dict[tuple[str, ...], tuple[str, ...]]) -> Regions:
    """Nest the annotations that count on a device with events at `times_us`; without any, nothing is known of regions.

    `paths` holds each path once for all devices. An END closes the innermost open START of its name. A region that was
    never closed ends with the history; an END without a START closes a region that was open when the recording began.
    `ProfilerStep#N` is one region.
    """
    mine = annotations if len(times_us) else annotations[:0]
    moments = mine["time_us"].to_numpy()
    every = np.concatenate((times_us, moments))
    first, last = (int(every.min()), int(every.max())) if len(every) else (0, 0)
    names = ["ProfilerStep" if _STEP.fullmatch(name) else name for name in mine["name"]]
    marks = list(zip((mine["stage"] == "END").tolist(), names, moments.tolist(), strict=True))
    before = [(False, name, first) for name in reversed(_unopened(marks))]
    return _Nesting(paths).run(before + marks, last, open_at_start=bool(before))


def _unopened(marks: list[tuple[bool, str, int]]) -> list[str]:
    """Names of the ENDs without a START, in order: the last one was the outermost."""
    open_count: dict[str, int] = {}
    found = []
    for is_end, name, _ in marks:
        count = open_count.get(name, 0)
        if not is_end:
            open_count[name] = count + 1
        elif count:
            open_count[name] = count - 1
        else:
            found.append(name)
    return found


class _Nesting:
    """The walk over the marks of one device."""

    def __init__(self, shared: dict[tuple[str, ...], tuple[str, ...]]) -> None:
        self._shared = shared
        self._paths: list[tuple[str, ...]] = []
        self._parents: list[int] = []
        self._letters: list[int] = []
        self._left = MAX_LETTERS
        self._raised = 0
        self._numbers: dict[tuple[int, str], int] = {}
        self._instances: list[list[int]] = []  # path, start, end
        self._closed: list[bool] = []
        self._open: list[int] = []  # instances, the innermost last; below it some may have closed
        self._by_name: dict[str, list[int]] = {}  # those that are open

    def run(self, marks: list[tuple[bool, str, int]], last: int, *, open_at_start: bool) -> Regions:
        changes, innermost = [np.iinfo(np.int64).min], [-1]
        for is_end, name, time_us in marks:
            if is_end:
                self._end(name, time_us)
            else:
                self._start(name, time_us)
            changes.append(time_us)
            innermost.append(self._innermost())
        if open_at_start:  # no time before: the first change holds since forever
            first = int(np.searchsorted(changes, changes[1], side="right")) - 1
            changes, innermost = [changes[0], *changes[first + 1 :]], innermost[first:]
        table = np.array(self._instances, np.int64).reshape(-1, 3)
        closed = np.array(self._closed, np.bool_)
        return Regions(
            self._paths,
            self._parents,
            table[:, 0],
            table[:, 1],
            np.where(closed, table[:, 2], last),
            closed,
            np.array(changes, np.int64),
            np.array(innermost, np.int64),
            self._raised,
        )

    def _innermost(self) -> int:
        return self._instances[self._open[-1]][0] if self._open else -1

    def _start(self, name: str, time_us: int) -> None:
        instance = len(self._instances)
        self._instances.append([self._path(name), time_us, -1])
        self._closed.append(False)
        self._open.append(instance)
        self._by_name.setdefault(name, []).append(instance)

    def _path(self, name: str) -> int:
        """Number of the path of a region that opens now."""
        parent = opened_in = self._innermost()
        if parent >= 0 and len(self._paths[parent]) >= MAX_DEPTH:
            parent = self._parents[parent]
        number = self._numbers.get((parent, name))
        if number is None and parent >= 0 and self._letters[parent] > self._left:
            parent = -1
            number = self._numbers.get((parent, name))
        self._raised += parent != opened_in
        if number is None:
            number = self._numbers[parent, name] = len(self._paths)
            path = (*(self._paths[parent] if parent >= 0 else ()), name)
            self._paths.append(self._shared.setdefault(path, path))
            self._parents.append(parent)
            self._letters.append(len(name) + _LETTERS_OF_A_NAME + (self._letters[parent] if parent >= 0 else 0))
            self._left -= self._letters[-1]
        return number

    def _end(self, name: str, time_us: int) -> None:
        """Close the innermost open region of that name."""
        mine = self._by_name.get(name)
        if not mine:
            return
        instance = mine.pop()
        self._instances[instance][2] = time_us
        self._closed[instance] = True
        while self._open and self._closed[self._open[-1]]:
            self._open.pop()


def region_spans(regions: dict[int, Regions]) -> pd.DataFrame:
    """MEMORY_REGION_SPANS of the devices."""
    parts = [
        pd.DataFrame(
            {
                "device": np.full(len(one.instance_path), device, np.int64),
                "path": _objects([one.paths[number] for number in one.instance_path.tolist()]),
                "start_us": one.start_us,
                "end_us": one.end_us,
                "closed": one.closed,
            }
        )
        for device, one in regions.items()
    ]
    return MEMORY_REGION_SPANS.join(parts)


def region_totals(
    replays: list[Replay], regions: dict[int, Regions], allocations: pd.DataFrame, known: Mapping[int, Known]
) -> pd.DataFrame:
    """MEMORY_REGIONS: a parent before its children, in order of first opening, then the row of no region at all.

    An event belongs to the innermost region open at its time and to all regions on that one's path, so that the rows
    of depth 1 and `("(no region)",)` add up to all bytes allocated and freed. peak_bytes is the device's total, not
    what the region itself allocated; it includes the total on entering. Takes MEMORY_ALLOCATIONS. known: by device.
    """
    return MEMORY_REGIONS.join(_totals_of(one, regions[one.device], allocations, known[one.device]) for one in replays)


def told_of(one: Replay, regions: Regions, *, cut: bool) -> Bools:
    """Of which opened regions the history tells what was allocated.

    cut: it may have lost its beginning, so that it tells nothing of those that had closed before it begins; a ring
    keeps more regions than allocations.
    """
    known: Bools = ~(cut & regions.closed & (regions.end_us < one.times_us[:1].max(initial=0)))
    return known


def _bounds(one: Replay, regions: Regions, known: Known) -> npt.NDArray[np.object_]:
    """What is known of the peak of each path, and of no region: "" exact, or a bound.

    The totals of every state are known, where frees do not count from their request: what is missing came before.
    """
    least = np.full(len(regions.paths) + 1, known.by_request)
    if known.cut:
        least[regions.instance_path[regions.start_us <= one.times_us[:1].max(initial=0)]] = True
        least[-1] = True
    return np.where(least, AT_LEAST, "").astype(object)


def _totals_of(one: Replay, regions: Regions, allocations: pd.DataFrame, known: Known) -> pd.DataFrame:
    count = len(regions.paths)
    path = regions.path_at(one.times_us)
    path = np.where(path < 0, count, path)  # the last row is the one of no region
    allocated, freed = np.zeros(count + 1, np.int64), np.zeros(count + 1, np.int64)
    np.add.at(allocated, path, one.allocated)
    np.add.at(freed, path, one.freed)
    for number in range(count - 1, -1, -1):
        parent = regions.parents[number]
        if parent >= 0:
            allocated[parent] += allocated[number]
            freed[parent] += freed[number]
    order = _tree_order(regions)
    instances = np.bincount(regions.instance_path, minlength=count + 1)
    made = allocations[(allocations["device"] == one.device) & allocations["alloc_event"].notna()]
    churn, largest = _churn(made, regions)
    stacks = made["stack"].to_numpy()
    return pd.DataFrame(
        {
            "device": np.full(count + 1, one.device, np.int64),
            "path": _objects([*regions.paths, NO_REGION]),
            "instances": instances.astype(np.int64),
            "peak_bound": _bounds(one, regions, known),
            "peak_bytes": _peaks(one, regions, cut=known.cut),
            "allocated_bytes": allocated,
            "freed_bytes": freed,
            "net_bytes": allocated - freed,
            "churn_bytes": churn,
            "largest_bytes": np.where(largest < 0, 0, np.append(made["size_bytes"].to_numpy(), 0)[largest]),
            "largest_stack": np.where(largest < 0, 0, np.append(stacks, 0)[largest]),
        }
    ).iloc[order]


def _churn(made: pd.DataFrame, regions: Regions) -> tuple[Ints, Ints]:
    """Bytes freed again inside the instance that allocated them, and the row of the largest allocation (-1: none).

    One per path, the last for no region, where "freed again" is freed at all. Takes MEMORY_ALLOCATIONS of one device
    that were made in its history.
    """
    count = len(regions.paths)
    churn, largest = np.zeros(count + 1, np.int64), np.full(count + 1, -1, np.int64)
    size, since = made["size_bytes"].to_numpy(), made["alloc_us"].to_numpy(np.int64)
    until = made["free_us"].fillna(np.iinfo(np.int64).max).to_numpy(np.int64)
    # instances sorted by path: those of path p are instances[bounds[p]:bounds[p + 1]], by start
    instances = np.argsort(regions.instance_path, kind="stable")
    bounds = np.searchsorted(regions.instance_path[instances], np.arange(count + 1))
    parents = np.array([*regions.parents, -1], np.int64)
    rows, path = np.arange(len(made)), regions.path_at(since)
    outside = path < 0
    churn[count] = int(size[outside & (until < np.iinfo(np.int64).max)].sum())
    if outside.any():
        largest[count] = rows[outside][size[outside].argmax()]
    while len(rows := rows[path >= 0]):  # one level of the tree after the other, from the innermost region outwards
        path = path[path >= 0]
        order = np.argsort(path, kind="stable")
        for group in np.split(order, np.flatnonzero(np.diff(path[order])) + 1):
            number, mine = int(path[group[0]]), rows[group]
            own = instances[bounds[number] : bounds[number + 1]]
            # the instance of the path that each allocation was made in, and when that closed (never: at no time)
            at = np.searchsorted(regions.start_us[own], since[mine], side="right") - 1
            ends = np.where(regions.closed[own], regions.end_us[own], np.iinfo(np.int64).max)[np.maximum(at, 0)]
            churn[number] += int(size[mine][until[mine] < ends].sum())
            # the largest of these, unless a larger one was seen already
            best = mine[size[mine].argmax()]
            if largest[number] < 0 or size[best] > size[largest[number]]:
                largest[number] = best
        path = parents[path]
    return churn, largest


def _tree_order(regions: Regions) -> list[int]:
    """Path numbers with each parent's children right after it, then the number of no region."""
    children: dict[int, list[int]] = {}
    for number, parent in enumerate(regions.parents):
        children.setdefault(parent, []).append(number)
    order: list[int] = []
    waiting = children.get(-1, [])[::-1]
    while waiting:
        number = waiting.pop()
        order.append(number)
        waiting += children.get(number, [])[::-1]
    return [*order, len(regions.paths)]


def _peaks(one: Replay, regions: Regions, *, cut: bool) -> Ints:
    """Highest total while an instance of each path was open; the last: while no region was open. cut: as told_of."""
    peaks = np.zeros(len(regions.paths) + 1, np.int64)
    until = np.where(regions.closed, np.searchsorted(one.times_us, regions.end_us), len(one.times_us))
    since = np.searchsorted(one.times_us, regions.start_us)
    highest = range_max(one.allocated_bytes, since, until + 1)
    highest[~told_of(one, regions, cut=cut)] = 0
    np.maximum.at(peaks, regions.instance_path, highest)
    for number in range(len(regions.paths) - 1, -1, -1):  # a region of another thread may outlive the one it is below
        if regions.parents[number] >= 0:
            peaks[regions.parents[number]] = max(peaks[regions.parents[number]], peaks[number])
    # states in which no region was open: from each change to none up to the next change
    change = np.searchsorted(one.times_us, regions.change_us)
    nothing = np.flatnonzero(regions.innermost < 0)
    if len(nothing):
        ends = np.append(change[1:], len(one.times_us))
        highest = range_max(one.allocated_bytes, change[nothing], ends[nothing] + 1)
        highest[cut & (ends[nothing] == 0)] = 0
        peaks[-1] = highest.max()
    return peaks


def range_max(values: Ints, since: Ints, until: Ints) -> Ints:
    """max(values[since:until]) of each range, none of them empty: O((n + ranges) log n) however they overlap."""
    until = np.maximum(until, since + 1)
    power = np.floor(np.log2(until - since)).astype(np.int64)
    result = np.zeros(len(since), np.int64)
    # level[i] is the maximum of `width` values from i on; a range is covered by two such windows, one at each end
    level, width = values, 1
    for exponent in range(int(power.max(initial=-1)) + 1):
        mine = power == exponent
        result[mine] = np.maximum(level[since[mine]], level[until[mine] - width])
        level = np.maximum(level[:-width], level[width:])
        width *= 2
    return result


def _objects(items: list[tuple[str, ...]]) -> npt.NDArray[np.object_]:
    return np.fromiter(items, dtype=object, count=len(items))
