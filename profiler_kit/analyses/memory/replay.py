"""Replay an allocator history: totals over time, allocations, what is live at a moment, and what failed.

Allocated bytes are the bytes callers asked for (`requested_size`, not rounded). An allocation counts from `alloc` to
`free_completed`: one that waits for another stream (`active_pending_free`) still holds its memory. Reserved bytes are
what the allocator holds from the driver. Only the end of a history is known for sure, so both are computed backwards
from it: the total after the last event is torch's own figure in the segments.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.schema import Column, Schema

MEMORY_TIMELINE: Final = Schema(
    "MEMORY_TIMELINE",
    "allocator event that changed a total, in time order; state after the event",
    {
        "device": Column("int64"),
        "time_us": Column("int64"),
        "allocated_bytes": Column("int64", "What callers hold, in the bytes they asked for."),
        "reserved_bytes": Column("int64", "What the allocator holds from the driver."),
    },
)

MEMORY_ALLOCATIONS: Final = Schema(
    "MEMORY_ALLOCATIONS",
    "allocation: an alloc paired with its free_completed by address, by alloc event",
    {
        "device": Column("int64"),
        "address": Column("uint64"),
        "size_bytes": Column("int64"),
        "stream": Column("int64"),
        "stack": Column(
            "int64", "Row of the table stacks; 0 when it was allocated before the recording and then freed."
        ),
        "alloc_event": Column("Int64", "Row of allocator_events; missing: allocated before the history begins."),
        "free_event": Column("Int64", "Row of allocator_events; missing: live at the end."),
        "alloc_us": Column("Int64", "When it was allocated, in Unix time.", "allocated", unit="unix_us"),
        "free_us": Column("Int64", "When it was freed, in Unix time.", "freed", unit="unix_us"),
    },
)

MEMORY_LIVE: Final = Schema(
    "MEMORY_LIVE",
    "stack that holds memory at one moment, most bytes first",
    {
        "device": Column("int64"),
        "stack": Column("int64", "The line of the stack that is your own code, and what it called.", "allocated by"),
        "before": Column(
            "bool", "Allocated before the history begins; such allocations are rows of their own.", show="never"
        ),
        "count": Column("int64", "Allocations that are live.", "allocations", "room"),
        "size_bytes": Column("int64", "What they hold, in the bytes asked for."),
        "share": Column("float64", "Of all that is live at that moment.", show="never"),
    },
)

MEMORY_OOM: Final = Schema(
    "MEMORY_OOM",
    "allocation that failed, in history order; totals at that moment",
    {
        "device": Column("int64"),
        "event": Column("int64", "Row of allocator_events."),
        "time_us": Column("int64"),
        "requested_bytes": Column("int64", "Bytes that the caller asked for."),
        "device_free_bytes": Column("Int64", "Free on the device as the driver sees it.", "free on the device"),
        "allocated_bytes": Column("Int64", "Live, in bytes asked for; missing where the history cannot be followed."),
        "reserved_bytes": Column("Int64", "Reserved by this process; missing where the history cannot be followed."),
        "stack": Column("int64", "Row of the table stacks: who asked for it; 0 is unknown.", "asked by"),
    },
)


Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]

ALLOCATE: Final = "alloc"
REQUEST: Final = "free_requested"
FREE: Final = "free_completed"
OUT_OF_MEMORY: Final = "oom"
RESERVE: Final = ("segment_alloc", "segment_map")
RELEASE: Final = ("segment_free", "segment_unmap")
OTHERS: Final = ("snapshot", "annotate", "user_defined")
KINDS: Final = frozenset({ALLOCATE, "free", REQUEST, FREE, OUT_OF_MEMORY, *RESERVE, *RELEASE, *OTHERS})
ACTIVE: Final = ("active_allocated", "active_pending_free", "active_awaiting_free")  # the last: torch's documentation


@dataclass(frozen=True, eq=False)
class Replay:
    """The totals of one device over its history.

    rows: rows of SNAPSHOT_EVENTS, one per event of the device. times_us: Unix time, made to never run backwards.
    allocated, freed: bytes that event allocated or freed. allocated_bytes, reserved_bytes: totals after each event,
    with the total before the first event in front (one longer than rows). reserved_least: the history lacks segment
    events, as more was allocated than they say; reserved is then at least what was allocated.
    """

    device: int
    rows: Ints
    times_us: Ints
    allocated: Ints
    freed: Ints
    allocated_bytes: Ints
    reserved_bytes: Ints
    reserved_least: bool = False

    @property
    def followed(self) -> bool:
        """Whether anything is known but the state at the end."""
        return len(self.rows) > 0

    @property
    def timed(self) -> bool:
        """Whether the events have times: torch writes none before 2.2, and other tools leave them out."""
        return len(self.times_us) > 0 and int(self.times_us[-1]) > 0

    @property
    def peak(self) -> int:
        """Index into allocated_bytes of the first highest total; 0 is the state before the first event."""
        return int(self.allocated_bytes.argmax())

    @property
    def peak_time_us(self) -> int | None:
        """When the total was highest first; the start of the history for the state before it; None without times."""
        if not self.timed:
            return None
        return int(self.times_us[max(self.peak - 1, 0)])


def replay(
    events: pd.DataFrame, blocks: pd.DataFrame, segments: pd.DataFrame, allocations: pd.DataFrame, device: int
) -> Replay:
    """Replay one device.

    Takes SNAPSHOT_EVENTS, SNAPSHOT_BLOCKS, SNAPSHOT_SEGMENTS and MEMORY_ALLOCATIONS. The end is torch's own figure
    (`requested_size` of the active blocks, `total_size` of the segments). Where the file holds no segments of the
    device, where what the history leaves is not held at the end (it stopped before), or where closing on them would
    need a negative total (a history with a gap), the start is what is known to have been allocated before: the
    allocations without an alloc event. Unknown actions change nothing.
    """
    rows = np.flatnonzero(events["device"].to_numpy() == device)
    mine = events.iloc[rows]
    size = mine["size_bytes"].to_numpy()
    action = mine["action"]
    allocated = np.where(_is(action, ALLOCATE), size, 0)
    freed = np.where(_is(action, FREE), size, 0)
    reserved = np.where(_is(action, *RESERVE), size, 0) - np.where(_is(action, *RELEASE), size, 0)
    held = segments[segments["device"] == device]
    active = active_blocks(blocks, device)
    before = allocations[(allocations["device"] == device) & allocations["alloc_event"].isna()]
    left = allocations[(allocations["device"] == device) & allocations["free_event"].isna()]
    stopped = not left["address"].isin(active["address"]).all()  # then the history ended before this state
    end = int(active["requested_bytes"].sum()) if len(held) and not stopped else None
    allocated_bytes = _totals(allocated - freed, end, int(before["size_bytes"].sum()))
    reserved_bytes = _totals(reserved, int(held["total_bytes"].sum()) if len(held) else None, 0)
    short = len(held) > 0 and bool((allocated_bytes > reserved_bytes).any())
    return Replay(
        device=device,
        rows=rows,
        times_us=monotone_times(mine),
        allocated=allocated,
        freed=freed,
        allocated_bytes=allocated_bytes,
        reserved_bytes=np.maximum(reserved_bytes, allocated_bytes) if short else reserved_bytes,
        reserved_least=short,
    )


def _totals(change: Ints, end: int | None, least: int) -> Ints:
    """Running totals with the start in front, closing on `end`; starting at `least` when that cannot be."""
    # relative to the start; shifted so that it ends at `end`, or (if that went below zero) starts at least at `least`
    running = np.concatenate(([0], np.cumsum(change)))
    lowest = int(running.min())
    if end is not None and end - int(running[-1]) + lowest >= 0:
        return running + (end - int(running[-1]))
    return running + max(least, -lowest)


def monotone_times(events: pd.DataFrame) -> Ints:
    """Times of one device's events; where the clock steps back (several threads), the latest time so far.

    An event without a time (0) has that of the one before it; the first ones that of the first that has one.
    """
    times = events["time_us"].to_numpy()
    known = np.flatnonzero(times > 0)
    if not len(known):
        return np.zeros(len(times), np.int64)
    found: Ints = np.maximum.accumulate(np.maximum(times, times[known[0]]))
    return found


def active_blocks(blocks: pd.DataFrame, device: int) -> pd.DataFrame:
    """The blocks of a device that hold memory at the moment of the snapshot, including those that wait to be freed."""
    active: pd.DataFrame = blocks[(blocks["device"].to_numpy() == device) & _is(blocks["state"], *ACTIVE)]
    return active


def timeline(replays: list[Replay]) -> pd.DataFrame:
    """MEMORY_TIMELINE of the devices: the totals after each event that changed one of them."""
    parts = []
    for one in replays:
        changed = (np.diff(one.allocated_bytes) != 0) | (np.diff(one.reserved_bytes) != 0)
        parts.append(
            pd.DataFrame(
                {
                    "device": np.full(int(changed.sum()), one.device, np.int64),
                    "time_us": one.times_us[changed],
                    "allocated_bytes": one.allocated_bytes[1:][changed],
                    "reserved_bytes": one.reserved_bytes[1:][changed],
                }
            )
        )
    return MEMORY_TIMELINE.join(parts)


def allocations(events: pd.DataFrame, blocks: pd.DataFrame, devices: tuple[int, ...]) -> pd.DataFrame:
    """MEMORY_ALLOCATIONS: each alloc paired with the next free_completed of its address.

    Takes SNAPSHOT_EVENTS and SNAPSHOT_BLOCKS. A free whose alloc is not in the history, and a block that is active
    at the end without one, were allocated before. An address allocated again without a free in between (a gap in the
    history) counts as freed by then.
    """
    return MEMORY_ALLOCATIONS.join(_pairs(events, blocks, device) for device in devices)


def _pairs(events: pd.DataFrame, blocks: pd.DataFrame, device: int) -> pd.DataFrame:
    of_device = events["device"].to_numpy() == device
    is_alloc = _is(events["action"], ALLOCATE)
    rows = np.flatnonzero(of_device & (is_alloc | _is(events["action"], FREE)))
    address = events["address"].to_numpy()[rows]
    order = np.argsort(address, kind="stable")  # by address, history order within
    rows, address = rows[order], address[order]
    opens = is_alloc[rows]
    # whether the next row has the same address, and whether the row before is an alloc of the same address
    same_next = np.zeros(len(rows), np.bool_)
    same_next[:-1] = address[1:] == address[:-1]
    after_open = np.zeros(len(rows), np.bool_)
    after_open[1:] = opens[:-1] & same_next[:-1]
    made = np.flatnonzero(opens)
    # an alloc ends with the next row at its address, be it a free or (a gap in the history) another alloc
    ended = same_next[made]
    lost = np.flatnonzero(~opens & ~after_open)  # freed, allocated before the history
    live = active_blocks(blocks, device)
    # active at the end although no alloc in the history is still open: allocated before it
    live = live[~np.isin(live["address"].to_numpy(), address[made][~ended])]
    # three kinds of rows: allocated in the history, only freed in it, and live all through it (-1: no such event)
    alloc = np.concatenate((rows[made], np.full(len(lost) + len(live), -1)))
    free = np.concatenate(
        (np.where(ended, rows[np.minimum(made + 1, len(rows) - 1)], -1), rows[lost], np.full(len(live), -1))
    )
    source = np.concatenate((rows[made], rows[lost]))
    stack = events["stack"].to_numpy()[source]
    stack[len(made) :] = 0  # the stack of a free says nothing about the allocation
    times = np.zeros(len(events), np.int64)
    times[of_device] = monotone_times(events[of_device])
    frame = pd.DataFrame(
        {
            "device": np.full(len(alloc), device, np.int64),
            "address": np.concatenate((events["address"].to_numpy()[source], live["address"].to_numpy())),
            "size_bytes": np.concatenate((events["size_bytes"].to_numpy()[source], live["requested_bytes"].to_numpy())),
            "stream": np.concatenate((events["stream"].to_numpy()[source], live["stream"].to_numpy())),
            "stack": np.concatenate((stack, live["stack"].to_numpy())),
            "alloc_event": pd.arrays.IntegerArray(alloc, alloc < 0),
            "free_event": pd.arrays.IntegerArray(free, free < 0),
            "alloc_us": pd.arrays.IntegerArray(_at(times, alloc), alloc < 0),
            "free_us": pd.arrays.IntegerArray(_at(times, free), free < 0),
        }
    )
    return frame.iloc[np.argsort(alloc, kind="stable")]


def _at(times: Ints, rows: Ints) -> Ints:
    return times[np.maximum(rows, 0)] if len(times) else np.zeros(len(rows), np.int64)


def live_at(one: Replay, allocations: pd.DataFrame, index: int) -> pd.DataFrame:
    """MEMORY_LIVE: what holds memory in the state `index` of a replay (0: before the first event), by stack.

    The sizes add up to `one.allocated_bytes[index]` when the history has no gap.
    """
    mine = allocations[allocations["device"] == one.device]
    moment = int(one.rows[index - 1]) if index else -1
    # missing alloc: before everything; missing free: after everything
    alloc = mine["alloc_event"].fillna(-1).to_numpy(np.int64)
    free = mine["free_event"].fillna(np.iinfo(np.int64).max).to_numpy(np.int64)
    # without a history nothing is known to be older than it
    held = mine.assign(before=(alloc < 0) & one.followed)[(alloc <= moment) & (free > moment)]
    grouped = held.groupby(["stack", "before"], sort=True)["size_bytes"].agg(["count", "sum"]).reset_index()
    total = int(held["size_bytes"].sum())
    frame = pd.DataFrame(
        {
            "device": np.full(len(grouped), one.device, np.int64),
            "stack": grouped["stack"].astype(np.int64),
            "before": grouped["before"].astype(np.bool_),
            "count": grouped["count"].astype(np.int64),
            "size_bytes": grouped["sum"].astype(np.int64),
            "share": grouped["sum"].astype(np.float64) / max(total, 1),
        }
    )
    return MEMORY_LIVE.check(frame.sort_values("size_bytes", ascending=False, kind="stable", ignore_index=True))


def out_of_memory(events: pd.DataFrame, replays: list[Replay]) -> pd.DataFrame:
    """MEMORY_OOM: allocations that failed, with what was allocated and reserved at that moment."""
    parts = []
    for one in replays:
        numbers = one.rows if one.followed else np.flatnonzero(events["device"].to_numpy() == one.device)
        mine = events.iloc[numbers]
        at = np.flatnonzero(_is(mine["action"], OUT_OF_MEMORY))
        rows = mine.iloc[at]
        unknown = np.full(len(at), not one.followed)
        state = at + 1 if one.followed else np.zeros(len(at), np.int64)
        parts.append(
            pd.DataFrame(
                {
                    "device": rows["device"].to_numpy(),
                    "event": numbers[at],
                    "time_us": monotone_times(mine)[at],
                    "requested_bytes": rows["size_bytes"].to_numpy(),
                    "device_free_bytes": rows["device_free_bytes"].array,
                    "allocated_bytes": pd.arrays.IntegerArray(one.allocated_bytes[state], unknown),
                    "reserved_bytes": pd.arrays.IntegerArray(one.reserved_bytes[state], unknown),
                    "stack": rows["stack"].to_numpy(),
                }
            )
        )
    return MEMORY_OOM.join(parts)


def fragmentation(blocks: pd.DataFrame, segments: pd.DataFrame, device: int) -> float:
    """Share of the reserved bytes outside every active block at the moment of the snapshot (0 to 1).

    1 - sum(size of active blocks, as the allocator rounded them) / sum(total_size of segments); 0 when nothing is
    reserved. It counts cached memory that is free to reuse as well as holes too small for any request.
    """
    reserved = int(segments.loc[segments["device"] == device, "total_bytes"].sum())
    if reserved <= 0:
        return 0.0
    return max(0.0, 1.0 - int(active_blocks(blocks, device)["size_bytes"].sum()) / reserved)


@dataclass(frozen=True)
class Missing:
    """What a history is known to lack.

    unmatched_frees: frees of allocations made before the history. recorded_before: blocks live at the end whose
    allocation is not in the history although a stack was recorded for it. truncated: the recorder dropped events.
    untold: it may have, as far as the file says.
    """

    unmatched_frees: int
    recorded_before: int
    truncated: bool
    untold: bool = False


@dataclass(frozen=True)
class Ring:
    """The recorder's ring buffer, as far as the file says. overflowed: whether it dropped events, as torch says."""

    max_entries: int | None = None
    overflowed: bool | None = None

    @classmethod
    def of(cls, settings: Mapping[str, object], max_entries: int | None) -> Ring:
        """From the allocator's settings, where torch says it, else what our own recorder wrote down."""
        entries, said = settings.get("trace_alloc_max_entries"), settings.get("trace_alloc_overflowed")
        known = entries if type(entries) is int and entries > 0 else max_entries
        return cls(known, said if type(said) is bool else None)


def missing_history(one: Replay, allocations: pd.DataFrame, ring: Ring) -> Missing:
    """Judge whether a device's history lost its beginning.

    Torch's own word counts first; that one of several devices overflowed is true of those that fill the ring. When
    only the ring's size is known, the history lost some if it fills the ring. Otherwise by evidence, which must be
    twofold. A block that is live at the end and carries a stack was allocated while a recording was on
    (torch collects stacks at no other time), so that its alloc event was recorded and is gone. That alone also
    happens when a second recording is started later (the parameters carry stacks of the first one), but such a
    recording starts between steps, while a ring cuts anywhere, in the life of temporaries: only a free without an
    alloc beside it shows that. A history without stacks gives no evidence. One of the two leaves it untold, and so
    does memory that was reserved before: what was allocated in it and freed leaves no trace.
    """
    if not one.followed:
        return Missing(0, 0, False)
    mine = allocations[(allocations["device"] == one.device) & allocations["alloc_event"].isna()]
    live = mine["free_event"].isna()
    unmatched = int((~live).sum())
    recorded = int((live & (mine["stack"] > 0)).sum())
    count = len(one.rows)
    if ring.overflowed is not None:
        fills = ring.max_entries is None or count >= ring.max_entries
        return Missing(unmatched, recorded, ring.overflowed and fills)
    if ring.max_entries is not None:
        return Missing(unmatched, recorded, count >= ring.max_entries)
    lost = unmatched > 0 and recorded > 0
    # of the host, whose allocator records no segments: at the end, as when it reserved them is not known
    reserved = int(one.reserved_bytes[0]) > 0
    stacks = bool((allocations.loc[allocations["device"] == one.device, "stack"] > 0).any())
    older = reserved or (not stacks and len(mine) > 0)
    return Missing(unmatched, recorded, lost, not lost and (unmatched > 0 or recorded > 0 or older))


def _is(column: pd.Series, *names: str) -> Bools:
    """Rows of a categorical column that hold one of the names."""
    codes = np.flatnonzero(column.cat.categories.isin(names))
    found: Bools = np.isin(column.cat.codes.to_numpy(), codes)
    return found
