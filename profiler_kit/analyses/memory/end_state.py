"""Judge the segments and blocks that a snapshot says were held at its end: what cannot be so is in no total.

The allocator cuts each segment into blocks that lie side by side and fill it. A block that is listed twice, overlaps
another one or lies outside its segment, and a segment that overlaps another one, can only be a fault of the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.memory.replay import ACTIVE
from profiler_kit.units import BYTES_PER_MIB

Bools = npt.NDArray[np.bool_]

MOST_BYTES: Final = (16 << 20) * BYTES_PER_MIB  # of one segment: more than any GPU or machine has


@dataclass(frozen=True)
class Doubts:
    """What is left out of the state at the end of one device, and what remains odd in it.

    segments: with an impossible size, or that overlap another one. blocks: likewise, or outside their segment, or of
    one that is left out. sizes: blocks kept, with a request that is larger than they are or negative, which counts as
    their whole size. unfilled: segments that their blocks do not fill; unfilled_bytes: by how much.
    """

    segments: int = 0
    blocks: int = 0
    sizes: int = 0
    unfilled: int = 0
    unfilled_bytes: int = 0

    @property
    def any(self) -> bool:
        """Whether the state is not as an allocator leaves it."""
        return bool(self.segments or self.blocks or self.sizes or self.unfilled)


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
    for one in devices:
        lacking = lacks[(held["device"].to_numpy() == one) & (lacks > 0) & has_blocks]
        found[one] = Doubts(
            int((~kept & (device == one)).sum()),
            int((~stays & (owner == one)).sum()),
            int(odd[owner == one].sum()),
            len(lacking),
            int(lacking.sum()),
        )
    if not any(one.any for one in found.values()):
        return blocks, segments, found
    blocks = blocks.assign(requested_bytes=np.where(odd, size, request))
    return blocks[stays].reset_index(drop=True), segments[kept].reset_index(drop=True), found


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
