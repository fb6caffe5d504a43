"""How the CUDA caching allocator rounds, splits and reserves (settings of a snapshot, sizes -> sizes).

Source: c10/cuda/CUDACachingAllocator.cpp (round_size, should_split, get_free_block, get_allocation_size) and
CUDAAllocatorConfig.cpp (roundup_power2_divisions).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LEAST_BLOCK: Final = 512  # kMinBlockSize
SMALL: Final = 1 << 20  # kSmallSize: the largest block of a small pool
SMALL_SEGMENT: Final = 2 << 20  # kSmallBuffer: every segment of a small pool, and none of a large one
LARGE_SEGMENT: Final = 20 << 20  # kLargeBuffer
OWN_SEGMENT: Final = 10 << 20  # kMinLargeAlloc: from here on a segment as large as the block, in steps of 2 MiB
DEFAULT_POOL: Final = "0,0"


class Rules(dict[int, int]):
    """The allocator's arithmetic under one file's settings; as a mapping: requested bytes -> size of a block."""

    def __init__(self, settings: Mapping[str, object]) -> None:
        self.expandable = settings.get("expandable_segments") is True
        limit = settings.get("max_split_size")
        self.max_split = limit if type(limit) is int and limit > 0 else None
        divisions = settings.get("roundup_power2_divisions")
        table = divisions if isinstance(divisions, dict) else {}
        self._divisions = [
            value
            if type(
                value := table.get(str(1 << i)),
            )
            is int
            else 0
            for i in range(16)
        ]

    def __missing__(self, requested: int) -> int:
        self[requested] = size = self._rounded(max(requested, 1))
        return size

    def _rounded(self, size: int) -> int:
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

    def splits(self, size: int, rest: int, *, small: bool) -> bool:
        """Whether a block of size + rest bytes is split for one of size."""
        if small or self.expandable:
            return rest >= LEAST_BLOCK
        return rest > SMALL and (self.max_split is None or size < self.max_split)

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
