"""What a device held, in the words of torch.cuda.memory_stats: at the end of the history, and at the highest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.memory.blocks import BlockReplay
from profiler_kit.analyses.memory.ranges import free_requests
from profiler_kit.analyses.memory.replay import ACTIVE, REQUEST, Ints, Replay
from profiler_kit.schema import Column, Schema

MEMORY_STATS: Final = Schema(
    "MEMORY_STATS",
    "quantity of torch.cuda.memory_stats, of each device",
    {
        "device": Column("int64"),
        "quantity": Column(
            "str",
            "Requested: bytes that callers asked for. Allocated: blocks in use, as the allocator rounded them. Active: "
            "these and frees that are pending. Reserved: segments held from the driver. Pending free: freed, but still "
            "used by another stream.",
        ),
        "current_bytes": Column("int64", "When the snapshot was saved.", "at the end"),
        "peak_bound": Column(
            "str",
            "What is known of the highest, where it is not exact: at least, where the history lost its beginning, or "
            "may have, or frees count from their request; at most, where it holds no requests to free.",
            "",
        ),
        "peak_bytes": Column("Int64", "Highest in the history; missing where it is not known.", "highest"),
    },
)


_OF_BLOCKS: Final = ("allocated", "active", "pending free")
AT_LEAST, AT_MOST, UNKNOWN = "at least", "at most", "unknown"


@dataclass(frozen=True)
class Known:
    """What a history does not tell, so that its peaks are bounds.

    cut: it lost its beginning, or may have. by_request: frees count from their request. unasked: there are frees and
    no request to free, so that nothing says when what was freed was no longer allocated.
    """

    cut: bool = False
    by_request: bool = False
    unasked: bool = False
    reserved_least: bool = False

    @property
    def requested(self) -> str:
        """What the highest total of what callers asked for is: "" exact, or a bound."""
        return AT_LEAST if self.cut or self.by_request else ""

    def bounds(self) -> dict[str, str]:
        """Likewise of every quantity of MEMORY_STATS."""
        pending = self.cut or self.by_request or self.unasked
        return {
            "requested": self.requested,
            "allocated": self.requested or (AT_MOST if self.unasked else ""),
            "active": self.requested,
            "reserved": AT_LEAST if self.cut or self.reserved_least else "",
            "pending free": UNKNOWN if self.cut and self.unasked else AT_LEAST if pending else "",
        }


def pending_free(
    one: Replay, blocks: BlockReplay, events: pd.DataFrame, allocations: pd.DataFrame, held: pd.DataFrame, known: Known
) -> Ints:
    """Bytes of the blocks that were freed but not yet done with, in each state.

    held: the active SNAPSHOT_BLOCKS of the device. Where the history holds requests to free, a block that was there
    before it and is done with or pending without one was freed before it. Where it holds none, blocks that are done
    with count as pending from their first state if its beginning is lost, so that what is allocated is no more than it
    was, else not at all, so that it is no less.
    """
    mine = np.flatnonzero(allocations["device"].to_numpy() == one.device)
    asked = np.full(len(allocations), -1, np.int64)
    asked[mine] = free_requests(events, allocations.iloc[mine], one.device)
    # a free that counts from its request waited for nothing that is known
    freed = allocations["free_event"].fillna(-1).to_numpy(np.int64)
    by_request = np.append(events["action"] == REQUEST, False)[freed]
    asked[by_request] = freed[by_request]
    spans = blocks.blocks[blocks.blocks["allocation"].notna()]
    request = asked[spans["allocation"].to_numpy(np.int64)]
    since, until = np.searchsorted(one.rows, request) + 1, spans["to_state"].to_numpy(np.int64)
    waiting = held["address"].to_numpy()[(held["state"] != ACTIVE[0]).to_numpy()]
    done = (until <= len(one.rows)) | spans["address"].isin(waiting).to_numpy()
    first = spans["from_state"].to_numpy(np.int64)
    earlier = (request < 0) & done & (known.cut if known.unasked else first == 0)
    since[earlier] = first[earlier]
    # a free that is done in the next event waited for nothing; one that is not done at the end does
    waits = earlier | (request >= 0) & ((until > since + 1) | (until > len(one.rows)))
    size = spans["size_bytes"].to_numpy(np.int64)[waits]
    # each adds its block in the state after the request and takes it away in the first state without the block
    change = np.zeros(len(one.rows) + 2, np.int64)
    np.add.at(change, since[waits], size)
    np.subtract.at(change, until[waits], size)
    return np.cumsum(change)[:-1]


def held_at_end(blocks: pd.DataFrame) -> dict[str, int]:
    """What torch says of the active SNAPSHOT_BLOCKS of a device."""
    size, in_use = blocks["size_bytes"].to_numpy(), (blocks["state"] == ACTIVE[0]).to_numpy()
    allocated, active = int(size[in_use].sum()), int(size.sum())
    return {"allocated": allocated, "active": active, "pending free": active - allocated}


def stats(
    one: Replay,
    blocks: BlockReplay | None,
    pending: Ints | None,
    known: Known,
    at_end: Mapping[str, int] = MappingProxyType({}),
) -> pd.DataFrame:
    """MEMORY_STATS of one device; without blocks (memory that no caching allocator serves) what was requested alone.

    Blocks that hold less than was requested were not where an allocator puts them: no peak is told of them.
    """
    series = {"requested": one.allocated_bytes}
    if blocks is not None and pending is not None:
        series |= {"allocated": blocks.active_bytes - pending, "active": blocks.active_bytes}
        series |= {"reserved": one.reserved_bytes, "pending free": pending}
    lacking = blocks is not None and bool((blocks.active_bytes < one.allocated_bytes).any())
    bounds = known.bounds()
    told = [one.followed and bounds[name] != UNKNOWN and not (lacking and name in _OF_BLOCKS) for name in series]
    peaks = [int(values.max()) if is_told else None for values, is_told in zip(series.values(), told, strict=True)]
    frame = pd.DataFrame(
        {
            "device": np.full(len(series), one.device, np.int64),
            "quantity": np.array(list(series), object),
            "current_bytes": np.array([at_end.get(name, int(values[-1])) for name, values in series.items()], np.int64),
            "peak_bound": np.where(told, [bounds[name] for name in series], "").astype(object),
            "peak_bytes": pd.array(peaks, dtype="Int64"),
        }
    )
    return MEMORY_STATS.check(frame)
