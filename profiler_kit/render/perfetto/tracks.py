"""Tracks that an export adds to a trace: regions on the GPU, requests to a server, and counters.

One process per GPU holds them: below `GPU 0 · regions` one track per stream with a slice for every region that
launched something there, from the start of the first to the end of the last of it, and counters.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np

from profiler_kit.attribute.links import NONE
from profiler_kit.attribute.regions import Attribution
from profiler_kit.attribute.span_forest import depths
from profiler_kit.kernel_name import short_kernel
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.categories import STEP_PREFIX
from profiler_kit.load.trace.event_text import Scan, microseconds
from profiler_kit.names import gpu_name
from profiler_kit.render.perfetto.window import Window
from profiler_kit.timeline.requests import request_lanes
from profiler_kit.units import NS_PER_US

if TYPE_CHECKING:
    import pandas as pd

    from profiler_kit.snapshot import Snapshot


CRITICAL_PID: Final = 899_999_998
REQUESTS_PID: Final = 899_999_999
FIRST_PID: Final = 900_000_000  # no process has that number (Linux ends at 2**22), no GPU either
_PER_PROCESS: Final = 1000
_NO_NUMBER: Final = 999  # of a device that the trace does not number
_SORT_AFTER: Final = 5_000_000  # what Kineto gives the first GPU


@dataclass(frozen=True)
class GpuWork:
    """The GPU events of a trace, one array element each; track numbers the (device, stream) pairs of `tracks`.

    A device is its number; in a trace of several processes, which `processes` names, _PER_PROCESS times the process
    more.
    """

    start_ns: I64
    end_ns: I64
    launch_start_ns: I64  # MISSING where the launch is not in the trace
    part: I64
    track: I64
    tracks: list[tuple[int, int]]
    processes: list[str]

    @staticmethod
    def of(found: Scan, attribution: Attribution, stream: int | None) -> GpuWork:
        """All of a trace, or what ran on one stream."""
        columns, event, launch = found.columns, attribution.event, attribution.launch
        rows = np.arange(len(event)) if stream is None else columns.integers["stream"][event] == stream
        event, launch = event[rows], launch[rows]
        links, device = attribution.links, columns.integers["device"][event]
        if links.processes.count > 1:
            number = np.where(device == MISSING, _NO_NUMBER, np.clip(device, 0, _NO_NUMBER))
            device = number + _PER_PROCESS * links.process[rows]
        pairs = np.column_stack((device, columns.integers["stream"][event]))
        tracks, track = np.unique(pairs, axis=0, return_inverse=True)
        start = columns.start_ns[event]
        launched = columns.start_ns[np.where(launch == NONE, 0, launch)] if len(event) else start
        return GpuWork(
            start_ns=start,
            end_ns=start + columns.dur_ns[event],
            launch_start_ns=np.where(launch == NONE, MISSING, launched),
            part=attribution.part[rows],
            track=track.reshape(-1).astype(np.int64),
            tracks=[(int(device), int(stream)) for device, stream in tracks.tolist()],
            processes=links.processes.names if links.processes.count > 1 else [],
        )

    @property
    def devices(self) -> list[int]:
        """Devices with GPU events, ascending."""
        return sorted({device for device, _ in self.tracks})


@dataclass(frozen=True)
class Slice:
    """What one region, or one part of it, launched on one stream; depth counts the regions around it."""

    name: str
    path: tuple[str, ...]
    start_ns: int
    end_ns: int
    depth: int
    events: int


def region_slices(work: GpuWork, attribution: Attribution, window: Window) -> list[list[Slice]]:
    """For each track of `work` the slices that overlap the window, outer before inner. Their times are not cut."""
    table = attribution.parts
    known = np.flatnonzero(work.part != NONE)
    tracks = max(1, len(work.tracks))
    keys, starts, ends, counts = _grouped(
        work.part[known] * tracks + work.track[known],
        work.start_ns[known],
        work.end_ns[known],
        np.ones(len(known), dtype=np.int64),
    )
    every = [(keys, starts, ends, counts)]
    while len(keys):  # hand up to the regions around, level by level
        above = table.parent[keys // tracks]
        up = np.flatnonzero(above != NONE)
        keys, starts, ends, counts = _grouped(above[up] * tracks + keys[up] % tracks, starts[up], ends[up], counts[up])
        every.append((keys, starts, ends, counts))
    keys, starts, ends, counts = _grouped(*(np.concatenate(column) for column in zip(*every, strict=True)))
    near = np.flatnonzero((starts < window.end_ns) & (ends >= window.start_ns))
    depth = depths(np.concatenate(([0], table.parent + 1)))[1:]
    out: list[list[Slice]] = [[] for _ in work.tracks]
    for at in near.tolist():
        row, track = divmod(int(keys[at]), tracks)
        step = int(table.step[row])
        name = table.name[row] if step == MISSING else f"{STEP_PREFIX}{step}"
        path = attribution.paths[int(table.path[row])]
        out[track].append(Slice(name, path, int(starts[at]), int(ends[at]), int(depth[row]), int(counts[at])))
    for slices in out:
        slices.sort(key=lambda one: (one.start_ns, -one.end_ns, one.depth))
    return out


def _grouped(key: I64, start: I64, end: I64, count: I64) -> tuple[I64, I64, I64, I64]:
    """First start, last end and sum of counts of each key."""
    keys, where = np.unique(key, return_inverse=True)
    first = np.full(len(keys), np.iinfo(np.int64).max)
    last = np.full(len(keys), np.iinfo(np.int64).min)
    total = np.zeros(len(keys), dtype=np.int64)
    np.minimum.at(first, where, start)
    np.maximum.at(last, where, end)
    np.add.at(total, where, count)
    return keys, first, last, total


def nested_lanes(slices: list[Slice]) -> list[list[Slice]]:
    """Spread slices (by start, outer first) over as few lanes as make each lane properly nested.

    One thread's regions nest on a stream; those of two threads that launch into one stream may overlap.
    """
    lanes: list[list[Slice]] = []
    open_ends: list[list[int]] = []
    for one in slices:
        number = next((at for at, ends in enumerate(open_ends) if _fits(one, ends)), len(lanes))
        if number == len(lanes):
            lanes.append([])
            open_ends.append([])
        lanes[number].append(one)
        open_ends[number].append(one.end_ns)
    return lanes


def _fits(one: Slice, open_ends: list[int]) -> bool:
    """Whether a slice begins after, or lies inside, what is open on a lane; closes what has ended."""
    while open_ends and open_ends[-1] <= one.start_ns:
        open_ends.pop()
    return not open_ends or one.end_ns <= open_ends[-1]


def region_events(work: GpuWork, attribution: Attribution, window: Window) -> Iterator[bytes]:
    """The tracks of regions, one slice per region instance and stream, with names and sort indices."""
    named: set[int] = set()
    thread = 0
    for (device, stream), slices in zip(work.tracks, region_slices(work, attribution, window), strict=True):
        for number, lane in enumerate(nested_lanes(slices)):
            pid = _pid(device)
            if device not in named:
                named.add(device)
                yield from _process(device, work.processes)
            thread += 1
            name = ("no stream" if stream == MISSING else f"stream {stream}") + (f" ({number + 1})" if number else "")
            yield _metadata("thread_name", pid, thread, "name", name)
            yield _metadata("thread_sort_index", pid, thread, "sort_index", thread)
            for one in lane:
                yield _slice(one, pid, thread)


def request_events(requests: pd.DataFrame, window: Window) -> Iterator[bytes]:
    """REQUESTS that overlap the window: in each lane a slice a request, and its stages in that."""
    lanes = request_lanes(requests)
    whole = lanes.assign(end_ns=lanes["start_ns"] + lanes["dur_ns"]).groupby("item", sort=False)
    each = whole.agg(lane=("lane", "first"), start_ns=("start_ns", "min"), end_ns=("end_ns", "max"))
    each = each[(each["start_ns"] < window.end_ns) & (each["end_ns"] > window.start_ns)]
    if each.empty:
        return
    yield _metadata("process_name", REQUESTS_PID, 0, "name", "Requests")
    yield _metadata("process_labels", REQUESTS_PID, 0, "labels", "added by profiler_kit")
    yield _metadata("process_sort_index", REQUESTS_PID, 0, "sort_index", -1)  # above all that Kineto sorts
    for lane in sorted(set(each["lane"].tolist())):
        yield _metadata("thread_name", REQUESTS_PID, lane + 1, "name", f"requests ({lane + 1})")
    known = requests[["id", "batch", "batch_size", "status"]].to_dict("records")
    for item, lane, start, end in each.itertuples():
        yield _request_slice(f"request {known[item]['id']}", lane + 1, start, end - start, known[item])
    for item, lane, stage, start, dur in lanes[lanes["item"].isin(each.index)].itertuples(index=False):
        yield _request_slice(stage, lane + 1, start, dur, known[item])


def _request_slice(name: str, tid: int, start_ns: int, dur_ns: int, known: dict[Hashable, object]) -> bytes:
    text = json.dumps({"ph": "X", "cat": "request", "name": name, "pid": REQUESTS_PID, "tid": tid})
    times = b', "ts": %s, "dur": %s' % (microseconds(start_ns), microseconds(dur_ns))
    return text[:-1].encode() + times + b', "args": ' + json.dumps(known).encode() + b"}"


def critical_events(path: pd.DataFrame, window: Window) -> Iterator[bytes]:
    """CRITICAL_PATH as a track: a slice for each stretch that overlaps the window, its kind in the arguments."""
    within = path[(path["start_ns"] < window.end_ns) & (path["start_ns"] + path["dur_ns"] > window.start_ns)]
    if within.empty:
        return
    yield _metadata("process_name", CRITICAL_PID, 0, "name", "Critical path")
    yield _metadata("process_labels", CRITICAL_PID, 0, "labels", "added by profiler_kit")
    yield _metadata("process_sort_index", CRITICAL_PID, 0, "sort_index", -2)
    for kind, name, start, dur in zip(
        within["kind"], within["name"], within["start_ns"].tolist(), within["dur_ns"].tolist(), strict=True
    ):
        title = f"{kind}: {short_kernel(name)}"
        known = {"ph": "X", "cat": "critical_path", "name": title, "pid": CRITICAL_PID, "tid": 1}
        times = b', "ts": %s, "dur": %s' % (microseconds(start), microseconds(dur))
        arguments = json.dumps({"kind": kind, "name": name}, ensure_ascii=False).encode()
        yield json.dumps(known, ensure_ascii=False)[:-1].encode() + times + b', "args": ' + arguments + b"}"


def counter_events(work: GpuWork, window: Window) -> Iterator[bytes]:
    """Queue length of each stream (launched and not yet begun) and GPU events running at once on each device."""
    for number, (device, stream) in enumerate(work.tracks):
        rows = np.flatnonzero((work.track == number) & (work.launch_start_ns != MISSING))
        if stream == MISSING or not len(rows):
            continue
        enter = work.launch_start_ns[rows]
        leave = np.maximum(work.start_ns[rows], enter)  # clocks of host and GPU may differ by some ns
        level = _level(enter, leave, window)
        yield from _counter("queue length", f"stream {stream}", _pid(device), *level)
    for device in work.devices:
        mine = np.array([one == device for one, _ in work.tracks], dtype=bool)[work.track]
        level = _level(work.start_ns[mine], work.end_ns[mine], window)
        yield from _counter("GPU events", "running", _pid(device), *level)


def memory_events(snapshot: Snapshot, base_ns: int, window: Window) -> Iterator[bytes]:
    """Allocated and reserved bytes of each device over the window; the snapshot's clock is Unix time."""
    frame = snapshot.timeline()
    for device, rows in frame.groupby("device", sort=True):
        time = rows["time_us"].to_numpy(np.int64) * NS_PER_US - base_ns
        if not len(time) or time[0] >= window.end_ns or time[-1] < window.start_ns:
            continue
        known = replace(window, start_ns=max(window.start_ns, int(time[0])))  # what was held before is not recorded
        for name, column in (("allocated", "allocated_bytes"), ("reserved", "reserved_bytes")):
            values = rows[column].to_numpy(np.int64)
            yield from _counter("memory", f"{name} (bytes)", _pid(int(str(device))), *_clipped(time, values, known))


def _level(enter: I64, leave: I64, window: Window) -> tuple[I64, I64]:
    """How many are in at each moment this changes."""
    time = np.concatenate((enter, leave))
    change = np.concatenate((np.ones(len(enter), np.int64), np.full(len(leave), -1)))
    order = np.argsort(time, kind="stable")
    return _clipped(time[order], np.cumsum(change[order]), window)


def _clipped(time: I64, value: I64, window: Window) -> tuple[I64, I64]:
    """A step function within the window, beginning with its value at the window's start (0 before the first)."""
    last = np.append(time[1:] != time[:-1], True)[: len(time)]  # of several changes at once the last one stays
    time, value = time[last], value[last]
    first = int(np.searchsorted(time, window.start_ns, "right"))
    stop = int(np.searchsorted(time, window.end_ns, "left"))
    time = np.concatenate(([window.start_ns], time[first:stop]))
    value = np.concatenate(([value[first - 1] if first else 0], value[first:stop])).astype(np.int64)
    changed = np.append(True, value[1:] != value[:-1])
    return time[changed], value[changed]


def _pid(device: int) -> int:
    return FIRST_PID + (_NO_NUMBER if device == MISSING else device)


def process_events(devices: list[int], processes: list[str]) -> Iterator[bytes]:
    """Names of the added processes."""
    for device in devices:
        yield from _process(device, processes)


def _process(device: int, processes: list[str]) -> Iterator[bytes]:
    pid, gpu = _pid(device), "GPU" if device == MISSING else f"GPU {device}"
    if processes and device >= _PER_PROCESS:
        of, number = divmod(device, _PER_PROCESS)
        gpu = gpu_name(None if number == _NO_NUMBER else number, processes[of])
    yield _metadata("process_name", pid, 0, "name", f"{gpu} · regions")
    yield _metadata("process_labels", pid, 0, "labels", "added by profiler_kit")
    yield _metadata("process_sort_index", pid, 0, "sort_index", _SORT_AFTER + max(device, 0))


def _metadata(name: str, pid: int, tid: int, key: str, value: object) -> bytes:
    event = {"name": name, "ph": "M", "pid": pid, "tid": tid, "args": {key: value}}
    return json.dumps(event, ensure_ascii=False).encode()


def _slice(one: Slice, pid: int, tid: int) -> bytes:
    text = json.dumps({"ph": "X", "cat": "gpu_region", "name": one.name, "pid": pid, "tid": tid}, ensure_ascii=False)
    arguments = json.dumps({"path": " > ".join(one.path), "GPU events": one.events}, ensure_ascii=False)
    times = b', "ts": %s, "dur": %s' % (microseconds(one.start_ns), microseconds(one.end_ns - one.start_ns))
    return text[:-1].encode() + times + b', "args": ' + arguments.encode() + b"}"


def _counter(name: str, series: str, pid: int, time_ns: I64, value: I64) -> Iterator[bytes]:
    """One series; Perfetto calls its track "name series"."""
    head = json.dumps({"ph": "C", "name": name, "pid": pid, "tid": 0})[:-1].encode()
    key = json.dumps(series).encode()
    for time, one in zip(time_ns.tolist(), value.tolist(), strict=True):
        yield head + b', "ts": %s, "args": {%s: %d}}' % (microseconds(time), key, one)
