"""Rebuild the segments and blocks of every moment from the history of events and the state at its end.

The history says what callers asked for and where it was put, not how large the allocator made the block. That follows
from its rules, once the state before the first event is known: the state torch wrote at the end, with the segment
events undone. Where the rules were others than the settings in the file say, the result differs from torch's blocks
at the end; `mismatches` counts that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory.allocator_rules import SMALL_SEGMENT, Rules
from profiler_kit.analyses.memory.block_walk import (
    CLOSE,
    OPEN,
    SEGMENT,
    History,
    Initial,
    Ranges,
    Segment,
    SegmentEvent,
    Walk,
)
from profiler_kit.analyses.memory.replay import (
    ALLOCATE,
    FREE,
    OUT_OF_MEMORY,
    RELEASE,
    RESERVE,
    Bools,
    Ints,
    Replay,
    active_blocks,
)
from profiler_kit.schema import Column, Schema

MEMORY_SEGMENT_SPANS: Final = Schema(
    "MEMORY_SEGMENT_SPANS",
    "segment that was held at some time, or range of expandable segments; state k is what holds after the k-th event "
    "of the device",
    {
        "device": Column("int64"),
        "segment": Column("int64", "Number of the segment on its device."),
        "address": Column("uint64"),
        "size_bytes": Column(
            "int64", "Bytes of the segment; of a range of expandable segments all that was ever mapped in it."
        ),
        "stream": Column("int64"),
        "segment_type": Column("str", "Small or large.", "type"),
        "pool": Column("str", 'Private pool id, "0,0" for the default one, "" where nothing says it.'),
        "expandable": Column("bool", "Whether it is a range of addresses that segments were mapped into."),
        "from_state": Column("int64", "The first state with it; 0: before the history begins."),
        "to_state": Column("int64", "The first state without it; events + 1 when it is still held at the end."),
    },
)

MEMORY_BLOCK_SPANS: Final = Schema(
    "MEMORY_BLOCK_SPANS",
    "block, active or inactive, from the event that made it to the one that ended it",
    {
        "device": Column("int64"),
        "segment": Column("int64", "Joins it with memory_segments, with the device."),
        "address": Column("uint64"),
        "size_bytes": Column("int64", "Bytes of the block, as the allocator rounded it."),
        "allocation": Column("Int64", "Row of the table allocations; missing: an inactive block."),
        "from_state": Column("int64", "The first state with it; 0: before the history begins."),
        "to_state": Column("int64", "The first state without it."),
    },
)


_HIGHEST: Final = 1 << 63
_LARGEST: Final = 1 << 42  # 4 TiB
Spans = npt.NDArray[np.uint64]  # of Walk.spans: address, size, segment, active, from, to


@dataclass(frozen=True, eq=False)
class BlockReplay:
    """The blocks of one device over its history.

    State k is what holds after the k-th event of the device, 0 what held before the first (as in Replay).
    active_bytes: size of the active blocks, as the allocator rounded them. largest_free_bytes: the largest inactive
    block. split_bytes: inactive blocks that do not span a whole segment, which the allocator cannot give back; all
    three one per state. event_segment: row of `segments` that each event concerns, -1 where unknown. segments, blocks:
    MEMORY_SEGMENT_SPANS, MEMORY_BLOCK_SPANS. mismatches: blocks that differ from torch's own at the end, 0 when the
    replay is exact. gaps: events that did not fit the state before them.
    """

    device: int
    active_bytes: Ints
    largest_free_bytes: Ints
    split_bytes: Ints
    event_segment: Ints
    segments: pd.DataFrame
    blocks: pd.DataFrame
    mismatches: int
    gaps: int
    rules: Rules

    def at(self, state: int) -> pd.DataFrame:
        """MEMORY_BLOCK_SPANS of the blocks that exist in one state, by address."""
        frame = self.blocks
        alive = (frame["from_state"] <= state) & (frame["to_state"] > state)
        found: pd.DataFrame = frame[alive].sort_values("address", kind="stable", ignore_index=True)
        return found


def replay_blocks(
    events: pd.DataFrame,
    blocks: pd.DataFrame,
    segments: pd.DataFrame,
    allocations: pd.DataFrame,
    one: Replay,
    settings: Mapping[str, object],
) -> BlockReplay:
    """Rebuild the blocks of one device at each of its events.

    Takes SNAPSHOT_EVENTS, SNAPSHOT_BLOCKS, SNAPSHOT_SEGMENTS, MEMORY_ALLOCATIONS, the device's Replay and the
    allocator's settings.
    """
    mine = events.iloc[one.rows]
    held = segments[segments["device"] == one.device]
    live = blocks[blocks["device"] == one.device]
    sound = _sound(mine["address"], mine["size_bytes"])
    rules = Rules(settings)
    history = _history(mine[sound], np.flatnonzero(sound) + 1, rules)
    walk = Walk(rules, len(mine))
    walk.gaps = int((~sound & (mine["action"] != OUT_OF_MEMORY)).sum())
    sound_held = held[_sound(held["address"], held["total_bytes"])]
    initial = _initial_blocks(allocations, live, one.device, rules)
    walk.begin(_before(history.segments, sound_held), initial, history.segments)
    walk.run(history)
    walk.end()
    spans = np.frombuffer(walk.spans, np.uint64).reshape(-1, 6)
    segment_frame = _segment_frame(walk, held, one.device)
    active_bytes, largest, split = _series(spans, segment_frame, len(mine) + 1)
    return BlockReplay(
        device=one.device,
        active_bytes=active_bytes,
        largest_free_bytes=largest,
        split_bytes=split,
        event_segment=_event_segment(mine["address"].to_numpy(), history.states, walk),
        segments=segment_frame,
        blocks=_block_frame(spans, allocations, one),
        mismatches=_mismatches(spans, live, one.device, len(mine)),
        gaps=walk.gaps,
        rules=rules,
    )


def _history(events: pd.DataFrame, states: Ints, rules: Rules) -> History:
    """The events of one device that move blocks; `states` is where each event leads to."""
    kinds = {ALLOCATE: OPEN, FREE: CLOSE} | dict.fromkeys((*RESERVE, *RELEASE), SEGMENT)
    # kind of event by the code of its action, -1 for those that move no block
    by_code = np.array([kinds.get(name, -1) for name in events["action"].cat.categories] or [-1])
    kind = by_code[events["action"].cat.codes.to_numpy()]
    moving = np.flatnonzero(kind >= 0)
    columns = ("action", "address", "size_bytes", "stream", "pool")
    about_segments = events[kind == SEGMENT]
    return History(
        kind[moving].tolist(),
        events["address"].to_numpy()[moving].tolist(),
        rules.blocks(events["size_bytes"].to_numpy()[moving]).tolist(),
        states[moving].tolist(),
        list(map(SegmentEvent, *(about_segments[name].tolist() for name in columns))),
    )


def _series(spans: Spans, segments: pd.DataFrame, states: int) -> tuple[Ints, Ints, Ints]:
    """Active bytes, the largest inactive block and the bytes of inactive split blocks in each state."""
    size, since, until = (spans[:, column].astype(np.int64) for column in (1, 4, 5))
    active = spans[:, 3] == 1
    place = spans[:, 2].astype(np.int64)
    whole = (segments["size_bytes"].to_numpy()[place] == size) & ~segments["expandable"].to_numpy()[place]

    def total(rows: Bools) -> Ints:
        # each span adds its size in its first state and takes it away in the first state without it
        change = np.zeros(states + 1, np.int64)
        np.add.at(change, since[rows], size[rows])
        np.subtract.at(change, until[rows], size[rows])
        return np.cumsum(change)[:-1]

    return total(active), largest_alive(size[~active], since[~active], until[~active], states), total(~active & ~whole)


def largest_alive(size: Ints, since: Ints, until: Ints, states: int) -> Ints:
    """The largest size among the spans alive (since <= state < until) in each state, 0 for none.

    Each span is covered by two windows as wide as the largest power of two in it; a window's maximum is then handed
    down to its halves, so that it takes O((spans + states) log states).
    """
    power = np.floor(np.log2(np.maximum(until - since, 1))).astype(np.int64)
    best = np.zeros(states, np.int64)
    for exponent in range(int(power.max(initial=0)), -1, -1):
        width = 1 << exponent
        # the two windows begin at the span's start and end at its end; they may overlap, as a maximum may count twice
        mine = power == exponent
        np.maximum.at(best, since[mine], size[mine])
        np.maximum.at(best, until[mine] - width, size[mine])
        half = width >> 1
        if half:
            # `best` holds the maximum of windows by their first state: pass it to the second half (the first keeps it)
            best[half:] = np.maximum(best[half:], best[:-half])
    return best


def _event_segment(addresses: npt.NDArray[np.uint64], states: list[int], walk: Walk) -> Ints:
    """Row of the segment of each event; one that moves no block takes that of the event before it at its address."""
    # -2: moves no block; the others by state, which counts from 1
    known = np.full(len(addresses), -2, np.int64)
    known[np.array(states, np.int64) - 1] = np.array(walk.event_segment, np.int64)
    order = np.argsort(addresses, kind="stable")
    # by address, in history order within; `new` marks the first event of each address, `first` its place
    sorted_known, place = known[order], np.arange(len(order))
    new = np.ones(len(order), np.bool_)
    new[1:] = addresses[order][1:] != addresses[order][:-1]
    first = np.maximum.accumulate(np.where(new, place, 0))
    # nearest place up to each one, and from each one on, whose event moves a block
    before = np.maximum.accumulate(np.where(sorted_known > -2, place, -1))
    after = np.minimum.accumulate(np.where(sorted_known > -2, place, len(order))[::-1])[::-1]
    # the one before if it has the same address, else the one after; `same` tells whether that has it
    take = np.where(before >= first, before, np.minimum(after, len(order) - 1))
    same = addresses[order][take] == addresses[order]
    found = np.empty(len(order), np.int64)
    found[order] = np.where(same, np.maximum(sorted_known[take], -1), -1)
    return found


def _sound(addresses: pd.Series, sizes: pd.Series) -> Bools:
    """Which ranges are plausible: no device address is that high, no size is negative or larger than any memory."""
    sound: Bools = ((addresses < _HIGHEST) & (sizes >= 0) & (sizes < _LARGEST)).to_numpy()
    return sound


def _before(events: list[SegmentEvent], held: pd.DataFrame) -> list[Segment]:
    """The segments before the first event: those of the end, with the events undone; mapped ranges piece by piece."""
    columns = (
        held[name].tolist() for name in ("address", "total_bytes", "stream", "segment_type", "pool", "expandable")
    )
    whole: dict[int, Segment] = {}
    mapped = Ranges()
    for address, size, stream, kind, pool, expandable in zip(*columns, strict=True):
        if expandable:
            mapped.add(address, size)
        else:
            whole[address] = Segment(address, size, stream, kind == "small", pool, False)
    for action, address, size, stream, pool in reversed(events):
        if action == "segment_alloc":
            whole.pop(address, None)
        elif action == "segment_free":
            whole[address] = Segment(address, size, stream, size == SMALL_SEGMENT, pool, False)
        elif action == "segment_map":
            mapped.remove(address, size)
        elif action == "segment_unmap":
            mapped.add(address, size)
    return [*whole.values(), *(Segment(a, size, 0, False, "", True) for a, size in mapped.items())]


def _initial_blocks(allocations: pd.DataFrame, live: pd.DataFrame, device: int, rules: Rules) -> list[Initial]:
    """The blocks active before the first event, by address; the size of one freed later is a guess."""
    mine = allocations[(allocations["device"] == device) & allocations["alloc_event"].isna()]
    live = live[_sound(live["address"], live["size_bytes"])]
    sizes = dict(zip(live["address"].tolist(), live["size_bytes"].tolist(), strict=True))
    rows = zip(
        mine["address"].tolist(),
        rules.blocks(mine["size_bytes"].to_numpy()).tolist(),
        mine["free_event"].notna().tolist(),
        strict=True,
    )
    return sorted(
        Initial(address, size, True) if freed or address not in sizes else Initial(address, sizes[address], False)
        for address, size, freed in rows
    )


def _mismatches(spans: Spans, live: pd.DataFrame, device: int, count: int) -> int:
    """How many blocks differ between the replay's end and torch's own blocks, in place, size or kind."""
    active = active_blocks(live, device)["address"].tolist()
    held = set(active)
    torch_blocks = {
        (a, size, a in held) for a, size in zip(live["address"].tolist(), live["size_bytes"].tolist(), strict=True)
    }
    last = spans[spans[:, 5] == count + 1]
    ours = {(a, size, bool(kind)) for a, size, kind in zip(*(last[:, i].tolist() for i in (0, 1, 3)), strict=True)}
    return max(len(ours - torch_blocks), len(torch_blocks - ours))


def _segment_frame(walk: Walk, held: pd.DataFrame, device: int) -> pd.DataFrame:
    """MEMORY_SEGMENT_SPANS; what torch wrote at the end says the pool and kind of the segments still there."""
    known = {
        address: (stream, kind == "small", pool)
        for address, stream, kind, pool in zip(
            *(held[name].tolist() for name in ("address", "stream", "segment_type", "pool")), strict=True
        )
    }
    rows = []
    for one, until in zip(walk.segments, walk.segment_to, strict=True):
        if until == walk.count + 1:
            inside = (
                (known.get(one.address),)
                if not one.expandable
                else (facts for a, facts in known.items() if one.address <= a < one.address + one.size_bytes)
            )
            for facts in inside:
                if facts is not None:
                    one = one._replace(stream=facts[0], small=facts[1], pool=facts[2])
        rows.append(one)
    frame = pd.DataFrame(
        {
            "device": np.full(len(rows), device, np.int64),
            "segment": np.arange(len(rows), dtype=np.int64),
            "address": np.array([one.address for one in rows], np.uint64),
            "size_bytes": np.array([one.size_bytes for one in rows], np.int64),
            "stream": np.array([one.stream for one in rows], np.int64),
            "segment_type": np.array(["small" if one.small else "large" for one in rows], object),
            "pool": np.array([one.pool for one in rows], object),
            "expandable": np.array([one.expandable for one in rows], np.bool_),
            "from_state": np.array(walk.segment_from, np.int64),
            "to_state": np.array(walk.segment_to, np.int64),
        }
    )
    return MEMORY_SEGMENT_SPANS.check(frame)


def _block_frame(spans: Spans, allocations: pd.DataFrame, one: Replay) -> pd.DataFrame:
    """MEMORY_BLOCK_SPANS, each active block with its allocation."""
    since, active = spans[:, 4].astype(np.int64), spans[:, 3] == 1
    mine = np.flatnonzero(allocations["device"].to_numpy() == one.device)
    alloc = allocations["alloc_event"].fillna(-1).to_numpy(np.int64)[mine]
    made = np.full(len(spans), -1, np.int64)
    # blocks made within the history: state k follows the k-th event, so event k - 1 (from 0) is their alloc
    born = np.flatnonzero(active & (since > 0))
    order = np.argsort(alloc, kind="stable")
    made[born] = mine[order][np.searchsorted(alloc[order], one.rows[since[born] - 1])]
    before = {
        a: row
        for a, row in zip(
            allocations["address"].to_numpy()[mine[alloc < 0]].tolist(), mine[alloc < 0].tolist(), strict=True
        )
    }
    for row in np.flatnonzero(active & (since == 0)).tolist():
        made[row] = before[int(spans[row, 0])]
    frame = pd.DataFrame(
        {
            "device": np.full(len(spans), one.device, np.int64),
            "segment": spans[:, 2].astype(np.int64),
            "address": spans[:, 0],
            "size_bytes": spans[:, 1].astype(np.int64),
            "allocation": pd.arrays.IntegerArray(made, made < 0),
            "from_state": since,
            "to_state": spans[:, 5].astype(np.int64),
        }
    )
    return MEMORY_BLOCK_SPANS.check(frame)
