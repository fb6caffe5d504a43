"""Pack what the memory page shows of a snapshot: gzip of a JSON head and columns as byte planes."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory.ranges import Ranges, free_requests, reserved_ranges
from profiler_kit.analyses.memory.replay import active_blocks, fragmentation
from profiler_kit.analyses.memory.stack_names import is_noise, is_own
from profiler_kit.findings import memory
from profiler_kit.findings.out_of_memory import out_of_memory
from profiler_kit.timeline.palette import region_colours

if TYPE_CHECKING:
    from profiler_kit.load.snapshot.data import Frame
    from profiler_kit.snapshot import Snapshot

NOISE, OTHER, PYTHON, OWN = 0, 1, 2, 3  # what a frame is; unpack.js and stacks.js know the same numbers
SMALL, EXPANDABLE = 1, 2  # bits of a range; heap.js knows the same

Array = npt.NDArray[np.generic]
Ints = npt.NDArray[np.int64]
Meta = dict[str, object]
_LOW: Final = np.uint64(0xFFFFFFFF)


class Packer:
    """Columns of non-negative integers, each as planes: all lowest bytes, then all second bytes, and so on.

    Neighbours in a plane are alike, so that gzip makes them two to three times smaller than whole numbers.
    """

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, values: Array) -> list[int]:
        """Store a column; returns [offset, items, bytes per item]."""
        numbers = np.ascontiguousarray(values, dtype="<u8")
        width = max(1, (int(numbers.max()).bit_length() + 7) // 8) if len(numbers) else 1
        planes = numbers.view(np.uint8).reshape(-1, 8)[:, :width].T.tobytes()
        place = [self._size, len(numbers), width]
        self._parts.append(planes)
        self._size += len(planes)
        return place

    def pack(self, meta: Mapping[str, object]) -> bytes:
        """gzip of: 4 bytes little endian (length of the head), the head as JSON, the planes."""
        head = json.dumps(meta, separators=(",", ":")).encode()
        return gzip.compress(len(head).to_bytes(4, "little") + head + b"".join(self._parts), 6, mtime=0)


def pack(snapshot: Snapshot, title: str, device: int | None) -> bytes:
    """Everything the page needs to know of a snapshot; `device` is shown first."""
    packer = Packer()
    ranges = {one: reserved_ranges(snapshot.history, snapshot.segments, one) for one in snapshot.devices}
    used = _used_stacks(snapshot, ranges)
    meta: Meta = {
        "title": title,
        "path": snapshot.path,
        "source": snapshot.source,
        "torch": snapshot.recording.torch,
        "max_entries": snapshot.recording.max_entries,
        "error": snapshot.recording.error,
        "settings": dict(snapshot.settings),
        "first": device,
        **_stacks(snapshot, used, packer),
        "devices": [_device(snapshot, one, ranges[one], used, packer) for one in snapshot.devices],
    }
    return packer.pack(meta)


def _used_stacks(snapshot: Snapshot, ranges: Mapping[int, Ranges]) -> Ints:
    """Numbers of the stacks the page shows: of allocations, failures and segments; 0 is always among them."""
    stacks = (snapshot.allocations()["stack"].to_numpy(), snapshot.oom()["stack"].to_numpy(), np.zeros(1, np.int64))
    return np.unique(np.concatenate((*stacks, *(one.stack for one in ranges.values()))))


def _stacks(snapshot: Snapshot, used: Ints, packer: Packer) -> Meta:
    """Frames as text with their kind, stacks as runs of frame numbers without the noise."""
    frames = snapshot.frames
    kinds = np.array([_kind(frame) for frame in frames] or [NOISE], np.uint8)
    kept = [numbers[kinds[numbers] != NOISE] for numbers in (snapshot.stacks.numbers_of(int(one)) for one in used)]
    flat = np.concatenate(kept) if kept else np.zeros(0, np.int32)
    shown, numbers = np.unique(flat, return_inverse=True)
    return {
        "frames": [[frames[i].name, frames[i].filename, frames[i].line] for i in shown.tolist()],
        "frame_kinds": packer.add(kinds[shown]),
        "stack_frames": packer.add(numbers),
        "stack_lengths": packer.add(np.array([len(one) for one in kept], np.int64)),
    }


def _kind(frame: Frame) -> int:
    if is_noise(frame):
        return NOISE
    if is_own(frame):
        return OWN
    return PYTHON if frame.filename.endswith(".py") else OTHER


def _device(snapshot: Snapshot, device: int, ranges: Ranges, used: Ints, packer: Packer) -> Meta:
    """One device. State 0 is before the first event, state i + 1 after event i; times are µs since `origin_us`."""
    one = snapshot.replay(device)
    regions = snapshot.nested_regions(device)
    origin = snapshot.origin_us(device)
    # without times the events stand one after the other, at the number of each
    times = one.times_us if one.timed else np.arange(1, len(one.rows) + 1)
    last = int(max(times.max(initial=origin), regions.end_us.max(initial=origin)))
    changed = np.flatnonzero(np.diff(one.reserved_bytes))
    missing = snapshot.missing(device)
    stats = snapshot.stats(device)[["quantity", "current_bytes", "peak_bytes", "peak_bound"]]
    ooms = _ooms(snapshot, device, origin, used)
    return {
        "device": device,
        "name": snapshot.device_name(device, "GPU"),
        "reserves": snapshot.device_type(device) != "cpu",  # a CPU allocates from the system, without a cache between
        "events": len(one.rows),
        "followed": one.followed,
        "timed": one.timed,
        "origin_us": origin,
        "span_us": last - origin,
        "peak_state": one.peak,
        "peak_region": list(snapshot.peak_region(device)),
        "fragmentation": fragmentation(snapshot.blocks, snapshot.segments, device),
        "stats": [
            [name, now, None if pd.isna(most) else most, bound]
            for name, now, most, bound in stats.to_numpy(object).tolist()
        ],
        "truncated": missing.truncated,
        "unmatched_frees": missing.unmatched_frees,
        "recorded_before": missing.recorded_before,
        "ooms": ooms,
        "notices": _notices(snapshot, device, ooms),
        "time": packer.add(np.diff(times, prepend=origin)),
        "reserved_state": packer.add(np.diff(changed + 1, prepend=0)),
        "reserved_bytes": packer.add(one.reserved_bytes[np.concatenate(([0], changed + 1))]),
        **_regions(snapshot, device, origin, packer),
        **_elements(snapshot, device, used, packer),
        "ranges": _ranges(ranges, one.rows, used, packer),
    }


def _regions(snapshot: Snapshot, device: int, origin: int, packer: Packer) -> Meta:
    """Paths with their colours, each opened region, and MEMORY_REGIONS (path number; -1: no region)."""
    regions = snapshot.nested_regions(device)
    shown = regions.start_us >= origin  # others ended before the first event
    colours = region_colours(name for path in regions.paths for name in path)
    table = snapshot.regions()
    table = table[table["device"] == device]
    number = {path: i for i, path in enumerate(regions.paths)}
    names = ("instances", "peak_bytes", "allocated_bytes", "freed_bytes", "net_bytes")
    rows = zip(table["path"].tolist(), *(table[name].tolist() for name in names), strict=True)
    return {
        "paths": [list(path) for path in regions.paths],
        "colours": [colours[path[-1]] for path in regions.paths],
        "region_rows": [[number.get(path, -1), *values] for path, *values in rows],
        "span_path": packer.add(regions.instance_path[shown]),
        "span_start": packer.add(regions.start_us[shown] - origin),
        "span_end": packer.add(regions.end_us[shown] - origin),
    }


def _elements(snapshot: Snapshot, device: int, used: Ints, packer: Packer) -> Meta:
    """Allocations by the state they appear in; `life` counts states, 0 for one that is never freed.

    wait: states from the request to free it until it was freed (until the end, where it was not), 0: no request known.
    block: the size of its block at the end, 0 for one that is gone by then.
    """
    one = snapshot.replay(device)
    frame = snapshot.allocations()
    frame = frame[frame["device"] == device]
    states = len(one.rows) + 1
    size = frame["size_bytes"].to_numpy()
    born = _state(frame["alloc_event"].fillna(-1).to_numpy(np.int64), one.rows, missing=0)
    gone = _state(frame["free_event"].fillna(-1).to_numpy(np.int64), one.rows, missing=-1)
    asked = _state(free_requests(snapshot.history, frame, device), one.rows, missing=-1)
    wait = np.where(asked < 0, 0, np.where(gone < 0, states, gone) - asked)
    order = np.lexsort((np.where(born == 0, -size, 0), born))  # what was there before: the largest at the bottom
    block = np.where(gone < 0, _block_sizes(snapshot, device, frame["address"]), 0)
    born, gone, size = born[order], gone[order], size[order]
    change = np.zeros(states + 1, np.int64)
    np.add.at(change, born, size)
    np.add.at(change, np.where(gone < 0, states, gone), -size)
    regions = snapshot.nested_regions(device)
    path = np.full(len(born), -1, np.int64)
    path[born > 0] = regions.path_at(one.times_us[born[born > 0] - 1])
    stream = frame["stream"].to_numpy()[order]
    streams, stream_number = np.unique(stream, return_inverse=True)
    address = frame["address"].to_numpy()[order]
    answers, said = snapshot.said(device)
    out: Meta = {
        "answers": answers,
        "said": packer.add(said[order]),
        "streams": [str(value) for value in streams.tolist()],
        "born": packer.add(np.diff(born, prepend=0)),
        "life": packer.add(np.where(gone < 0, 0, gone - born)),
        "wait": packer.add(np.maximum(wait, 0)[order]),
        "size": packer.add(np.maximum(size, 0)),
        "block": packer.add(block[order]),
        "stack": packer.add(np.searchsorted(used, frame["stack"].to_numpy()[order])),
        "region": packer.add(path + 1),  # 0: no region
        "stream": packer.add(stream_number),
        "address_low": packer.add(address & _LOW),
        "address_high": packer.add(address >> np.uint64(32)),
    }
    if not np.array_equal(np.cumsum(change)[:-1], one.allocated_bytes):  # a history with a gap
        out["allocated_bytes"] = packer.add(one.allocated_bytes)
    return out


def _block_sizes(snapshot: Snapshot, device: int, address: pd.Series) -> Ints:
    """Size of the active block at each address at the moment of the snapshot, 0 where there is none."""
    blocks = active_blocks(snapshot.blocks, device).drop_duplicates("address").set_index("address")["size_bytes"]
    sizes: Ints = np.maximum(blocks.reindex(address).fillna(0).to_numpy(np.int64), 0)
    return sizes


def _ranges(ranges: Ranges, rows: Ints, used: Ints, packer: Packer) -> Meta:
    """What was reserved, by the state it appears in; pool 0 means unknown."""
    born = _state(ranges.reserve_event, rows, missing=0)
    gone = _state(ranges.release_event, rows, missing=-1)
    pools = ["", *sorted(set(ranges.pool) - {""}, key=lambda text: (text != "0,0", text))]
    streams, stream_number = np.unique(ranges.stream, return_inverse=True)
    return {
        "pools": pools,
        "streams": [str(value) for value in streams.tolist()],
        "born": packer.add(np.diff(born, prepend=0)),
        "life": packer.add(np.where(gone < 0, 0, gone - born)),
        "size": packer.add(ranges.size_bytes),
        "stack": packer.add(np.searchsorted(used, ranges.stack)),
        "pool": packer.add(np.array([pools.index(pool) for pool in ranges.pool], np.int64)),
        "stream": packer.add(stream_number),
        "kind": packer.add(ranges.small * SMALL + ranges.expandable * EXPANDABLE),
        "address_low": packer.add(ranges.address & _LOW),
        "address_high": packer.add(ranges.address >> np.uint64(32)),
    }


def _state(events: Ints, rows: Ints, *, missing: int) -> Ints:
    """State right after each event (a row of SNAPSHOT_EVENTS); `missing` where there is no event."""
    return np.where(events < 0, missing, np.searchsorted(rows, events) + 1)


def _ooms(snapshot: Snapshot, device: int, origin: int, used: Ints) -> list[Meta]:
    frame = snapshot.oom()
    events = frame.loc[frame["device"] == device, "event"].to_numpy()
    one = snapshot.replay(device)
    states = _state(events, one.rows, missing=0).tolist() if one.followed else [0] * len(events)
    return [
        {
            "state": state,
            "time_us": failed.time_us - origin if one.timed else state,
            "requested_bytes": failed.requested_bytes,
            "device_free_bytes": failed.device_free_bytes,
            "allocated_bytes": failed.allocated_bytes,
            "reserved_bytes": failed.reserved_bytes,
            "stack": int(np.searchsorted(used, failed.stack)),
            "why": why.sentence,
        }
        for state, failed, why in zip(states, snapshot.failures(device), out_of_memory(snapshot, device), strict=True)
    ]


def _notices(snapshot: Snapshot, device: int, ooms: Sequence[Meta]) -> list[Meta]:
    """The sentences above the picture, without the peak (it is among the facts); for a failure, the state to go to."""
    states = {one["why"]: one["state"] for one in ooms}
    found = [*memory.raised(snapshot), *memory.of_device(snapshot, device)[1:]]
    return [
        {"level": one.level, "text": " ".join((one.line, *one.details)), "state": states.get(one.sentence)}
        for one in found
    ]
