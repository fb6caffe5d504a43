"""Explain an allocation that failed: what memory there was, and what would have helped.

The allocator gives whole cached segments back to the driver before it gives up, so that at the failure what it still
caches lies beside blocks in use, in pools of CUDA graphs, or on other streams.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd

from profiler_kit.analyses.memory.allocator_rules import DEFAULT_POOL, SMALL
from profiler_kit.analyses.memory.blocks import BlockReplay
from profiler_kit.analyses.memory.replay import Bools, Replay
from profiler_kit.schema import Column, Schema

MEMORY_OOM_STATES: Final = Schema(
    "MEMORY_OOM_STATES",
    "allocation that failed, in history order; the allocator at that moment",
    {
        "device": Column("int64"),
        "event": Column("int64", "Row of allocator_events.", show="never"),
        "time_us": Column("int64", show="room"),
        "requested_bytes": Column("int64", "Bytes that the caller asked for."),
        "segment_bytes": Column("Int64", "What the allocator then requested from the driver.", "segment"),
        "device_free_bytes": Column("Int64", "Free on the device as the driver sees it.", "free on the device"),
        "allocated_bytes": Column("Int64", "Live, in bytes asked for; missing where the history cannot be followed."),
        "reserved_bytes": Column("Int64", "Reserved by this process; missing where the history cannot be followed."),
        "cached_bytes": Column("Int64", "Of what is reserved, in no active block.", "in no active block"),
        "usable_bytes": Column("Int64", "Of it, in the allocation's own pool and stream.", "usable", "room"),
        "largest_free_bytes": Column(
            "Int64", "The largest free block of the allocation's pool and stream.", "largest free"
        ),
        "split_bytes": Column(
            "Int64",
            "Cached in segments with blocks in use, so that it cannot be returned to the driver.",
            "inactive split",
            "room",
        ),
        "private_bytes": Column(
            "Int64", "Cached in other pools, such as those of CUDA graphs.", "in other pools", "room"
        ),
        "other_stream_bytes": Column("Int64", "Cached on other streams of its pool.", "on other streams", "room"),
        "live_bytes": Column("Int64", "Allocated since the recording began, and live.", "since recording", "room"),
        "stack": Column("int64", "The line of the stack that is your own code, and what it called.", "asked by"),
    },
)

Setting = Literal["expandable_segments", "max_split_size_mb", "garbage_collection_threshold", "pools", "batch", "limit"]
MIB: Final = 1 << 20
MOST_SMALLER: Final = 0.9  # a batch that would have to shrink by more than this is not advice
EMPTY_SHARE: Final = 0.5  # a segment with this share free was split by something small


@dataclass(frozen=True)
class Advice:
    """One thing to change. helps: whether by these numbers it would have let the allocation through.

    Numbers are bytes, by name, for findings.out_of_memory to put into words: `need` and `room` are always there.
    """

    setting: Setting
    helps: bool
    numbers: dict[str, int]


@dataclass(frozen=True)
class OomReport:
    """An allocation that failed, with the state of the allocator at that moment (all in bytes).

    segment_bytes: what was asked of the driver. cached_bytes: reserved in no active block; of it split_bytes beside
    blocks in use, private_bytes in other pools than the allocation's, other_stream_bytes on other streams of its pool
    (the last two count whatever the first says); usable_bytes in its own pool and stream, of which largest_free_bytes
    is the largest free block. pool: "" where torch does not say it (before 2.13), which is taken for the default one.
    live_bytes: allocated since the recording began and live.
    """

    device: int
    state: int
    time_us: int
    stream: int
    pool: str
    requested_bytes: int
    segment_bytes: int
    device_free_bytes: int | None
    allocated_bytes: int
    active_bytes: int
    reserved_bytes: int
    split_bytes: int
    largest_free_bytes: int
    private_bytes: int
    other_stream_bytes: int
    live_bytes: int
    advice: tuple[Advice, ...]

    @property
    def cached_bytes(self) -> int:
        return max(0, self.reserved_bytes - self.active_bytes)

    @property
    def usable_bytes(self) -> int:
        return max(0, self.cached_bytes - self.private_bytes - self.other_stream_bytes)


def oom_states(oom: pd.DataFrame, reports: Sequence[OomReport]) -> pd.DataFrame:
    """MEMORY_OOM_STATES of one device: its rows of MEMORY_OOM with what the report of each says."""
    own = [name for name in MEMORY_OOM_STATES.columns if name not in oom]
    known = len(reports) == len(oom)
    columns = {
        name: pd.array([getattr(one, name) for one in reports] if known else [None] * len(oom), dtype="Int64")
        for name in own
    }
    return MEMORY_OOM_STATES.check(oom.assign(**columns).reset_index(drop=True))


def explain(
    one: Replay,
    blocks: BlockReplay,
    state: int,
    *,
    requested: int,
    device_free: int | None,
    stream: int,
    pool: str,
    before: int,
) -> OomReport:
    """Report the failure in a state; `before` is what was live then and allocated before the history."""
    size = blocks.rules.block(requested)
    segments = blocks.segments
    alive = blocks.at(state)
    free = alive[alive["allocation"].isna()]
    place = free["segment"].to_numpy()
    sizes = free["size_bytes"].to_numpy()
    private = ~_in_pool(segments, pool)[place]
    elsewhere = ~private & (segments["stream"].to_numpy()[place] != stream)
    same_pool = (segments["segment_type"].to_numpy() == "small")[place] == (size <= SMALL)
    report = OomReport(
        device=one.device,
        state=state,
        time_us=int(one.times_us[state - 1]),
        stream=stream,
        pool=pool,
        requested_bytes=requested,
        segment_bytes=blocks.rules.segment(size),
        device_free_bytes=device_free,
        allocated_bytes=int(one.allocated_bytes[state]),
        active_bytes=int(blocks.active_bytes[state]),
        reserved_bytes=int(one.reserved_bytes[state]),
        split_bytes=int(blocks.split_bytes[state]),
        largest_free_bytes=int(sizes[~private & ~elsewhere & same_pool].max(initial=0)),
        private_bytes=int(sizes[private].sum()),
        other_stream_bytes=int(sizes[elsewhere].sum()),
        live_bytes=max(0, int(one.allocated_bytes[state]) - before),
        advice=(),
    )
    if device_free is None:
        return report
    advice = _advice(report, blocks, device_free, size)
    return OomReport(**{**vars(report), "advice": tuple(advice)})


def _advice(report: OomReport, blocks: BlockReplay, device_free: int, size: int) -> list[Advice]:
    """What would have helped first; then what would not, with why."""
    need = report.segment_bytes
    if need <= device_free:
        return [Advice("limit", True, {"need": need, "room": device_free})]
    usable = report.usable_bytes
    room = device_free + usable
    found = []
    if not blocks.rules.expandable:
        # what a private pool caches is not unmapped while its graph lives: one block can be extended, not all joined
        cached = report.largest_free_bytes if is_private(report.pool) else usable
        numbers = {"need": size, "room": device_free + cached, "free": device_free, "cached": cached}
        found.append(Advice("expandable_segments", size <= device_free + cached, numbers))
    hollow = _hollow_segment(report, blocks, size)
    if hollow is not None:
        total, used, smallest = hollow
        limit = max(20, (size - 1) // MIB)
        found.append(
            Advice(
                "max_split_size_mb",
                blocks.rules.max_split is None,
                {"need": size, "room": total, "used": used, "limit_mb": limit, "largest_used": smallest},
            )
        )
    idle = report.private_bytes + report.other_stream_bytes
    if idle:
        numbers = {"private": report.private_bytes, "streams": report.other_stream_bytes}
        found.append(Advice("pools", need <= room + idle, {"need": need, "room": room + idle, **numbers}))
    whole = report.cached_bytes - report.split_bytes
    numbers = {"need": need, "room": device_free + max(whole, 0), "whole": max(whole, 0)}
    found.append(Advice("garbage_collection_threshold", False, numbers))
    missing = size - room if size > room else min(need - device_free, max(size - report.largest_free_bytes, 0))
    scales = report.live_bytes + report.requested_bytes
    fits = missing <= MOST_SMALLER * scales
    numbers = {"need": need, "room": room, "missing": missing, "scales": scales, "short": max(0, size - room)}
    found.append(Advice("batch", fits, numbers))
    return sorted(found, key=lambda one: not one.helps)


def is_private(pool: str) -> bool:
    """Whether a pool is that of a CUDA graph or a MemPool."""
    return pool not in (DEFAULT_POOL, "")


def _in_pool(segments: pd.DataFrame, pool: str) -> Bools:
    """Which segments belong to a pool; those of which none is known count for the default one."""
    found: Bools = segments["pool"].isin((pool,) if is_private(pool) else (DEFAULT_POOL, "")).to_numpy()
    return found


def _hollow_segment(report: OomReport, blocks: BlockReplay, size: int) -> tuple[int, int, int] | None:
    """A large segment that would hold the allocation and is mostly free: its size, what is used, its largest block.

    Blocks smaller than the allocation were cut from it; max_split_size_mb keeps large segments whole.
    """
    if size <= SMALL:
        return None
    alive = blocks.at(report.state)
    used = alive[alive["allocation"].notna()].groupby("segment")["size_bytes"].agg(["sum", "max"])
    segments = blocks.segments
    there = (segments["from_state"] <= report.state) & (segments["to_state"] > report.state)
    fits = there & (segments["size_bytes"] >= size) & ~segments["expandable"] & (segments["stream"] == report.stream)
    best = None
    for number in np.flatnonzero(fits.to_numpy() & _in_pool(segments, report.pool)).tolist():
        total = int(segments["size_bytes"].iloc[number])
        taken, largest = (int(used[name].get(number, 0)) for name in ("sum", "max"))
        if 0 < taken <= (1 - EMPTY_SHARE) * total and largest < size and (best is None or taken < best[1]):
            best = (total, taken, largest)
    return best
