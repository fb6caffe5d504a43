"""How broken up the reserved memory is at every moment (Replay, BlockReplay -> MEMORY_FRAGMENTATION, Fit)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.memory.allocator_rules import DEFAULT_POOL, SMALL
from profiler_kit.analyses.memory.blocks import BlockReplay
from profiler_kit.analyses.memory.replay import Bools, Replay
from profiler_kit.schema import Column, Schema

MEMORY_FRAGMENTATION: Final = Schema(
    "MEMORY_FRAGMENTATION",
    "allocator event that changed a value, in time order; state after the event",
    {
        "device": Column("int64"),
        "time_us": Column("int64"),
        "allocated_bytes": Column("int64", "what callers asked for"),
        "active_bytes": Column("int64", "the same with the allocator's rounding, and what it could not split off"),
        "reserved_bytes": Column("int64"),
        "largest_free_bytes": Column("int64", "the largest inactive block"),
        "inactive_split_bytes": Column("int64", "inactive blocks in segments in use, which cannot be given back"),
    },
)


@dataclass(frozen=True)
class Fit:
    """What an allocation would have found at one moment.

    block_bytes: what it would take, after rounding. found: address of the free block it would get, None when it would
    need a new segment; found_bytes: how large that block is, before it is split. segment_bytes: what would be asked
    of the driver otherwise.
    """

    requested_bytes: int
    block_bytes: int
    found: int | None
    found_bytes: int
    segment_bytes: int


def fragmentation_timeline(parts: list[tuple[Replay, BlockReplay]]) -> pd.DataFrame:
    """MEMORY_FRAGMENTATION of the devices: the state after each event that changed a value of it."""
    frames = []
    for one, blocks in parts:
        values = {
            "allocated_bytes": one.allocated_bytes,
            "active_bytes": blocks.active_bytes,
            "reserved_bytes": one.reserved_bytes,
            "largest_free_bytes": blocks.largest_free_bytes,
            "inactive_split_bytes": blocks.split_bytes,
        }
        changed = np.logical_or.reduce([np.diff(series) != 0 for series in values.values()])
        head = {"device": np.full(int(changed.sum()), one.device, np.int64), "time_us": one.times_us[changed]}
        frames.append(pd.DataFrame(head | {name: series[1:][changed] for name, series in values.items()}))
    if not frames:
        return MEMORY_FRAGMENTATION.empty()
    return MEMORY_FRAGMENTATION.check(pd.concat(frames, ignore_index=True))


def find(blocks: BlockReplay, size_bytes: int, state: int, *, stream: int = 0, pool: str = DEFAULT_POOL) -> Fit:
    """What an allocation of `size_bytes` would have found in one state.

    The allocator takes the smallest free block of the pool and stream that serves, of equal ones the lowest; free
    blocks of others are no use. At the end of what is mapped in an expandable segment a block counts as large as it
    can grow (get_free_block), so that one inside is preferred.
    """
    rules = blocks.rules
    size = rules.block(size_bytes)
    free = _free_blocks(blocks, size, stream, pool)
    free = free[(free["from_state"] <= state) & (free["to_state"] > state)]
    if not len(free):
        return Fit(size_bytes, size, None, 0, rules.segment(size))
    free = free.sort_values(["size_bytes", "address"])
    ends = (free["address"] + free["size_bytes"].astype(np.uint64)).to_numpy()
    grows = blocks.segments["expandable"].to_numpy()[free["segment"].to_numpy()]
    grows &= ~np.isin(ends, blocks.at(state)["address"].to_numpy())
    best = free.iloc[1 if len(free) > 1 and grows[0] and not grows[1] else 0]
    return Fit(size_bytes, size, int(best["address"]), int(best["size_bytes"]), rules.segment(size))


def fits(blocks: BlockReplay, size_bytes: int, *, stream: int = 0, pool: str = DEFAULT_POOL) -> Bools:
    """In which states an allocation of `size_bytes` would have found a free block; one value per state."""
    rules = blocks.rules
    size = rules.block(size_bytes)
    free = _free_blocks(blocks, size, stream, pool)
    change = np.zeros(len(blocks.active_bytes) + 1, np.int64)
    np.add.at(change, free["from_state"].to_numpy(), 1)
    np.add.at(change, free["to_state"].to_numpy(), -1)
    found: Bools = np.cumsum(change)[:-1] > 0
    return found


def _free_blocks(blocks: BlockReplay, size: int, stream: int, pool: str) -> pd.DataFrame:
    """The free blocks, of all times, that would serve a block of `size` bytes of a pool and stream."""
    segments = blocks.segments
    small = (segments["segment_type"] == "small").to_numpy() == (size <= SMALL)
    usable = small & (segments["stream"] == stream).to_numpy() & segments["pool"].isin((pool, "")).to_numpy()
    frame = blocks.blocks
    large = (frame["size_bytes"] >= size) & (frame["size_bytes"] < (blocks.rules.beyond(size) or np.inf))
    found: pd.DataFrame = frame[usable[frame["segment"].to_numpy()] & frame["allocation"].isna() & large]
    return found
