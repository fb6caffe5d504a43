"""Judge the segments and blocks that a snapshot says were held at its end: what cannot be so is in no total.

The allocator cuts each segment into blocks that lie side by side and fill it, and a segment says how much of it they
allocate. A block that is listed twice, overlaps another one or lies outside its segment, a segment that overlaps
another one, and one that says other sizes than its blocks, can only be a fault of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory.replay import ACTIVE, Bools, Ints
from profiler_kit.load.snapshot.data import HOST, OWN_SIZES, SNAPSHOT_BLOCKS
from profiler_kit.units import BYTES_PER_MIB

MOST_BYTES: Final = (16 << 20) * BYTES_PER_MIB  # of one segment: more than any GPU or machine has


@dataclass(frozen=True)
class Doubts:
    """What is left out of the state at the end of one device, and what remains odd in it.

    segments: with an impossible size, or that overlap another one. blocks: likewise, or outside their segment, or of
    one that is left out. sizes: blocks kept, with a request that is larger than they are or negative, which counts as
    their whole size. unfilled: segments that their blocks do not fill; unfilled_bytes: by how much. unlisted: segments
    that list no block but say that they hold memory, which counts as one allocation each; unlisted_bytes: how much.
    unlike: segments whose own sizes are not those of their blocks, or cannot be.
    """

    segments: int = 0
    blocks: int = 0
    sizes: int = 0
    unfilled: int = 0
    unfilled_bytes: int = 0
    unlisted: int = 0
    unlisted_bytes: int = 0
    unlike: int = 0

    @property
    def any(self) -> bool:
        """Whether the state is not as an allocator leaves it."""
        return bool(self.segments or self.blocks or self.sizes or self.unfilled or self.unlisted or self.unlike)


def believed(
    blocks: pd.DataFrame, segments: pd.DataFrame, devices: tuple[int, ...]
) -> tuple[pd.DataFrame, pd.DataFrame, dict[int, Doubts]]:
    """The blocks and segments of these devices that can be; and what of each device cannot.

    Takes and gives SNAPSHOT_BLOCKS and SNAPSHOT_SEGMENTS. Of two that overlap the one with the lower address stays, of
    two with the same address the first.
    """
    found = {device: Doubts() for device in devices}
    device, owner = segments["device"].to_numpy(), blocks["device"].to_numpy()
    mine, of_mine = np.isin(device, devices), np.isin(owner, devices)
    kept = ~mine
    kept[mine] = _apart(segments["address"].to_numpy()[mine], segments["total_bytes"].to_numpy()[mine], device[mine])
    # the segment of each block that is left, by device and address
    held = segments[kept & mine].sort_values(["device", "address"], ignore_index=True)
    index = pd.MultiIndex.from_frame(held[["device", "address"]])
    at = index.get_indexer(pd.MultiIndex.from_arrays([owner, blocks["segment"].to_numpy()]))
    start, size = blocks["address"].to_numpy(), blocks["size_bytes"].to_numpy()
    inside = of_mine & (at >= 0)
    first = held["address"].to_numpy(np.uint64)[at[inside]]
    whole = held["total_bytes"].to_numpy(np.int64)[at[inside]]
    offset = (start[inside] - first).astype(np.uint64)  # of one before its segment: beyond every size
    rows = np.flatnonzero(inside)
    good = (offset < whole.astype(np.uint64)) & (size[rows] > 0)
    rows, offset, whole = rows[good], offset[good].astype(np.int64), whole[good]
    rows = rows[size[rows] <= whole - offset]
    rows = rows[_apart(start[rows], size[rows], at[rows])]
    stays = ~of_mine
    stays[rows] = True
    request = blocks["requested_bytes"].to_numpy()
    odd = np.zeros(len(blocks), dtype=bool)
    # what an inactive block was last asked for says nothing
    odd[rows] = (request[rows] < 0) | (request[rows] > size[rows])
    odd &= blocks["state"].isin(ACTIVE).to_numpy()
    filled = np.zeros(len(held), np.int64)
    np.add.at(filled, at[rows], size[rows])
    lacks = held["total_bytes"].to_numpy(np.int64) - filled
    has_blocks = np.bincount(at[inside], minlength=len(held)) > 0
    blocks = blocks.assign(requested_bytes=np.where(odd, size, request)) if odd.any() else blocks
    unlike, told = _own_sizes(held, blocks.iloc[rows], at[rows], has_blocks)
    for one in devices:
        of_one = held["device"].to_numpy() == one
        lacking = lacks[of_one & (lacks > 0) & has_blocks]
        unlisted = told[told["device"] == one]
        found[one] = Doubts(
            int((~kept & (device == one)).sum()),
            int((~stays & (owner == one)).sum()),
            int(odd[owner == one].sum()),
            len(lacking),
            int(lacking.sum()),
            unlisted["segment"].nunique(),
            int(unlisted["size_bytes"].sum()),
            int(unlike[of_one].sum()),
        )
    if not any(one.any for one in found.values()):
        return blocks, segments, found
    if len(told):
        parts = [one.astype({"state": object}) for one in (blocks[stays], told)]
        blocks = SNAPSHOT_BLOCKS.cast(pd.concat(parts))
    else:
        blocks = blocks[stays]
    return blocks.reset_index(drop=True), segments[kept].reset_index(drop=True), found


def of_host(blocks: pd.DataFrame, segments: pd.DataFrame) -> tuple[pd.DataFrame, Doubts]:
    """The blocks with those of pinned host memory that only segments speak of, and what contradicts itself there.

    Takes and gives SNAPSHOT_BLOCKS, and takes SNAPSHOT_SEGMENTS. The host's allocator puts blocks where it likes, so
    that only what its segments say of their blocks is compared. Two segments with one address cannot be told apart.
    """
    held = segments[segments["device"] == HOST].drop_duplicates("address", keep=False, ignore_index=True)
    mine = blocks[blocks["device"] == HOST]
    owner = pd.Index(held["address"]).get_indexer(pd.Index(mine["segment"]))
    mine, owner = mine[owner >= 0], owner[owner >= 0]
    unlike, told = _own_sizes(held, mine, owner, np.bincount(owner, minlength=len(held)) > 0)
    if len(told):
        blocks = SNAPSHOT_BLOCKS.cast(pd.concat([one.astype({"state": object}) for one in (blocks, told)]))
    doubts = Doubts(
        unlisted=told["segment"].nunique(), unlisted_bytes=int(told["size_bytes"].sum()), unlike=int(unlike.sum())
    )
    return blocks.reset_index(drop=True), doubts


def _own_sizes(held: pd.DataFrame, blocks: pd.DataFrame, owner: Ints, has_blocks: Bools) -> tuple[Bools, pd.DataFrame]:
    """Which segments say other sizes than their blocks have, or impossible ones; what those that list none hold.

    owner: the row in `held` of each block. The second is SNAPSHOT_BLOCKS: one at the start of its segment for what is
    allocated, and one behind it for frees that are pending.
    """
    said = {name: held[name].to_numpy(np.int64, na_value=-1) for name in OWN_SIZES}
    known = {name: held[name].notna().to_numpy() for name in OWN_SIZES}
    size, active = blocks["size_bytes"].to_numpy(), blocks["state"].isin(ACTIVE).to_numpy()
    in_use = (blocks["state"] == ACTIVE[0]).to_numpy()
    counted = zip(OWN_SIZES, (in_use, active, active), (size, size, blocks["requested_bytes"].to_numpy()), strict=True)
    unlike = np.zeros(len(held), np.bool_)
    for name, which, bytes_of in counted:
        total = np.zeros(len(held), np.int64)
        np.add.at(total, owner[which], bytes_of[which])
        unlike |= known[name] & (said[name] != total)
    # what is not said of a segment without blocks: that nothing waits to be freed, that callers asked for all of it
    allocated, active_bytes, requested = (said[name] for name in OWN_SIZES)
    allocated = np.where(known["allocated_bytes"], allocated, active_bytes)
    active_bytes = np.where(known["active_bytes"], active_bytes, allocated)
    requested = np.where(known["requested_bytes"], requested, active_bytes)
    possible = (allocated >= 0) & (allocated <= active_bytes) & (requested >= 0) & (requested <= active_bytes)
    told = np.flatnonzero(
        ~has_blocks & possible & (active_bytes > 0) & (active_bytes <= held["total_bytes"].to_numpy())
    )
    unlike[told] = False
    # two rows of each segment, what is allocated and behind it what waits to be freed, of which one may be empty
    row, waits = np.concatenate((told, told)), np.repeat([False, True], len(told))
    first, last = np.where(waits, allocated[row], 0), np.where(waits, active_bytes[row], allocated[row])
    start, asked = held["address"].to_numpy()[row], requested[row]
    frame = pd.DataFrame(
        {
            **{name: held[name].to_numpy()[row] for name in ("device", "stream")},
            "segment": start,
            "address": start + first.astype(np.uint64),
            "size_bytes": last - first,
            "requested_bytes": np.minimum(asked, last) - np.minimum(asked, first),
            "state": pd.Categorical(np.where(waits, ACTIVE[1], ACTIVE[0]), categories=list(ACTIVE)),
            "stack": np.zeros(len(row), np.int64),
        }
    )
    return unlike, SNAPSHOT_BLOCKS.check(frame[frame["size_bytes"] > 0])


def _apart(start: npt.NDArray[np.uint64], size: npt.NDArray[np.int64], group: npt.NDArray[np.int64]) -> Bools:
    """Which of these ranges of memory can be, and overlap none of their group that is kept before them."""
    kept: Bools = (size > 0) & (size <= MOST_BYTES) & (start <= np.uint64(2**64 - 1) - size.clip(0).astype(np.uint64))
    rows = np.flatnonzero(kept)
    rows = rows[np.lexsort((start[rows], group[rows]))]
    end, same = start[rows] + size[rows].astype(np.uint64), group[rows][1:] == group[rows][:-1]
    if not (same & (end[:-1] > start[rows][1:])).any():
        return kept
    of, reach = None, 0
    for row, first, last, part in zip(
        rows.tolist(), start[rows].tolist(), end.tolist(), group[rows].tolist(), strict=True
    ):
        if part == of and first < reach:
            kept[row] = False
        else:
            of, reach = part, last
    return kept
