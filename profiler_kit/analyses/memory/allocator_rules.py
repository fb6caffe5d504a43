"""How the CUDA caching allocator rounds, splits and reserves, under the settings of a snapshot.

Source: c10/cuda/CUDACachingAllocator.cpp (round_size, should_split, get_free_block, get_allocation_size) and
CUDAAllocatorConfig.cpp (roundup_power2_divisions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]

LEAST_BLOCK: Final = 512  # kMinBlockSize
SMALL: Final = 1 << 20  # kSmallSize: the largest block of a small pool
SMALL_SEGMENT: Final = 2 << 20  # kSmallBuffer: every segment of a small pool, and none of a large one
LARGE_SEGMENT: Final = 20 << 20  # kLargeBuffer
OWN_SEGMENT: Final = 10 << 20  # kMinLargeAlloc: from here on a segment as large as the block, in steps of 2 MiB
DEFAULT_POOL: Final = "0,0"


class Rules:
    """The allocator's arithmetic under one file's settings."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.expandable = settings.get("expandable_segments") is True
        limit = settings.get("max_split_size")
        self.max_split = limit if type(limit) is int and limit > 0 else None
        divisions = settings.get("roundup_power2_divisions")
        table = divisions if isinstance(divisions, dict) else {}
        found = [table.get(str(1 << i)) for i in range(16)]
        self._divisions = [value if type(value) is int else 0 for value in found]

    def blocks(self, requested: Ints) -> Ints:
        """The size of the block for each number of requested bytes."""
        if max(self._divisions) > 1:
            different, place = np.unique(requested, return_inverse=True)
            return np.array([self.block(size) for size in different.tolist()], np.int64)[place]
        return -(-np.maximum(requested, 1) // LEAST_BLOCK) * LEAST_BLOCK

    def block(self, requested: int) -> int:
        """The size of the block for `requested` bytes."""
        size = max(requested, 1)
        if size < LEAST_BLOCK:
            return LEAST_BLOCK
        power = size.bit_length() - 1
        divisions = self._divisions[min(max(power - 20, 0), 15)]  # one for each power of two from 1 MiB on
        if divisions > 1 and size > LEAST_BLOCK * divisions:
            step = (1 << power) >> (divisions.bit_length() - 1)
            if size == 1 << power:
                return size
            return -(-size // step) * step if step else 2 << power
        return -(-size // LEAST_BLOCK) * LEAST_BLOCK

    def least_rest(self, *, small: bool) -> int:
        """What must be left of a block for it to be split; `small`: in a small pool, or expandable."""
        return LEAST_BLOCK if small or self.expandable else SMALL + 1

    def splits(self, size: int, rest: int, least_rest: int) -> bool:
        """Whether a block of size + rest bytes is split for one of size."""
        return rest >= least_rest and (self.max_split is None or size < self.max_split or least_rest == LEAST_BLOCK)

    def beyond(self, size: int) -> int | None:
        """The size from which on a free block is too large to serve a block of `size` bytes; None for no such size."""
        if self.max_split is None:
            return None
        return self.max_split if size < self.max_split else size + LARGE_SEGMENT

    @staticmethod
    def segment(size: int) -> int:
        """The segment reserved for a block of `size` bytes that no free block serves."""
        if size <= SMALL:
            return SMALL_SEGMENT
        return LARGE_SEGMENT if size < OWN_SEGMENT else -(-size // SMALL_SEGMENT) * SMALL_SEGMENT
