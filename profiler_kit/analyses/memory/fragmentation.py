"""How broken up the reserved memory is at every moment, and what an allocation would find in it."""

from __future__ import annotations

from collections.abc import Sequence
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
        "allocated_bytes": Column("int64", "What callers hold, in the bytes they asked for."),
        "active_bytes": Column("int64", "The same with the allocator's rounding, and what it could not split off."),
        "reserved_bytes": Column("int64", "What the allocator holds from the driver."),
        "largest_free_bytes": Column("int64", "The largest inactive block.", "largest free"),
        "inactive_split_bytes": Column(
            "int64", "Inactive blocks in segments in use, which cannot be returned to the driver.", "inactive split"
        ),
    },
)

MEMORY_MOMENTS: Final = Schema(
    "MEMORY_MOMENTS",
    "moment that tells most about fragmentation, of each device",
    {
        "device": Column("int64"),
        "moment": Column("str", "The peak, the worst moments, each allocation that failed, the end."),
        "time_us": Column("Int64", show="never"),
        "after_us": Column("Int64", "Time since the history begins.", "time", "room"),
        "allocated_bytes": Column("int64", "What callers hold, in the bytes they asked for.", show="room"),
        "active_bytes": Column("int64", "The same with the allocator's rounding, and what it could not split off."),
        "reserved_bytes": Column("int64", "What the allocator holds from the driver."),
        "largest_free_bytes": Column("int64", "The largest inactive block.", "largest free"),
        "inactive_split_bytes": Column(
            "int64", "Inactive blocks in segments in use, which cannot be returned to the driver.", "inactive split"
        ),
        "unused_share": Column("float64", "Share of reserved memory in no active block.", "in no active block"),
    },
)

MEMORY_FITS: Final = Schema(
    "MEMORY_FITS",
    "size of an allocation and moment, in the default pool and stream of a device",
    {
        "device": Column("int64"),
        "size_bytes": Column("int64", "Bytes that the caller would ask for.", "an allocation of"),
        "moment": Column("str", "The peak of the device, or the end of the history."),
        "block_bytes": Column("int64", "What it would take, as the allocator rounds it.", "takes", "room"),
        "found_bytes": Column(
            "Int64", "The free block it would get, before it is split; missing: none would do.", "free block found"
        ),
        "segment_bytes": Column(
            "Int64", "What would be asked of the driver; missing where a free block would do.", "new segment"
        ),
        "fits_share": Column(
            "float64", "Events of the history after which a free block would have done.", "events with one"
        ),
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
        # a state that equals the one before it in every value is left out
        changed = np.logical_or.reduce([np.diff(series) != 0 for series in values.values()])
        head = {"device": np.full(int(changed.sum()), one.device, np.int64), "time_us": one.times_us[changed]}
        frames.append(pd.DataFrame(head | {name: series[1:][changed] for name, series in values.items()}))
    return MEMORY_FRAGMENTATION.join(frames)


def moments(one: Replay, blocks: BlockReplay, failed: Sequence[int], origin_us: int) -> pd.DataFrame:
    """MEMORY_MOMENTS of one device. failed: the states in which an allocation failed; origin_us: when time begins."""
    unused = one.reserved_bytes - blocks.active_bytes
    chosen = {"peak": one.peak, "most in no active block": int(unused.argmax())}
    chosen |= {"most beside blocks in use": int(blocks.split_bytes.argmax())}
    chosen |= {f"out of memory {number}": state for number, state in enumerate(failed, 1)}
    state = np.array([*chosen.values(), len(unused) - 1], np.int64)
    # state k is the one after event k - 1; the state before the first event has the time of that event
    known = one.timed
    time_us = one.times_us[np.maximum(state - 1, 0)] if known else np.zeros(len(state), np.int64)
    missing = np.full(len(state), not known)
    reserved = one.reserved_bytes[state]
    frame = pd.DataFrame(
        {
            "device": np.full(len(state), one.device, np.int64),
            "moment": np.array([*chosen, "end"], object),
            "time_us": pd.arrays.IntegerArray(time_us, missing),
            "after_us": pd.arrays.IntegerArray(time_us - origin_us, missing),
            "allocated_bytes": one.allocated_bytes[state],
            "active_bytes": blocks.active_bytes[state],
            "reserved_bytes": reserved,
            "largest_free_bytes": blocks.largest_free_bytes[state],
            "inactive_split_bytes": blocks.split_bytes[state],
            "unused_share": np.where(reserved > 0, unused[state] / np.maximum(reserved, 1), 0.0),
        }
    )
    return MEMORY_MOMENTS.check(frame)


def fit_rows(blocks: BlockReplay, size_bytes: int, peak: int) -> pd.DataFrame:
    """MEMORY_FITS of one device and size; `peak` is the state in which most was allocated."""
    share = float(fits(blocks, size_bytes).mean())
    rows = []
    for moment, state in (("peak", peak), ("end", len(blocks.active_bytes) - 1)):
        fit = find(blocks, size_bytes, state)
        by_block = fit.found is not None
        found = (fit.found_bytes, None) if by_block else (None, fit.segment_bytes)
        rows.append((blocks.device, size_bytes, moment, fit.block_bytes, *found, share))
    return MEMORY_FITS.of(rows)


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
    free = free.sort_values(["size_bytes", "address"])  # best fit first
    # a block at the end of what is mapped: no block begins where it ends, so that more can be mapped behind it
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
    # how many such blocks there are in each state: one more from where a block begins, one fewer from where it ends
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
