"""A caching allocator to replay against: slow, plain, and written from torch's rules a second time.

Blocks stand in a list per segment; every request searches all of them. It writes the history torch writes and can say
its blocks at any moment.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests import snapshots as s

KiB, MiB = 1 << 10, 1 << 20
Block = tuple[int, int, bool]  # address, size, active


@dataclass
class Piece:
    address: int
    size: int
    requested: int | None = None  # None: free


@dataclass
class Seg:
    address: int
    total: int
    stream: int
    small: bool
    expandable: bool
    pieces: list[Piece]


@dataclass
class Allocator:
    """`expandable`, `max_split`, `divisions` (of every power of two): the settings."""

    expandable: bool = False
    max_split: int | None = None
    divisions: int = 0
    segments: list[Seg] = field(default_factory=list)
    trace: list[dict[str, Any]] = field(default_factory=list)
    states: list[set[Block]] = field(default_factory=lambda: [set()])
    next_address: int = 1 << 40

    def rounded(self, size: int) -> int:
        if self.divisions > 1 and size > 512 * self.divisions:
            power = 1
            while power * 2 <= size:
                power *= 2
            steps = [power + power * i // self.divisions for i in range(self.divisions + 1)]
            return next(step for step in steps if step >= size)
        return max(512, -(-size // 512) * 512)

    def malloc(self, requested: int, stream: int = 0) -> int:
        size = self.rounded(requested)
        small = size <= MiB
        found = self._find(size, stream, small)
        if found is None:
            found = self._expand(size, stream, small) if self.expandable else self._reserve(size, stream, small)
        segment, piece = found
        rest = piece.size - size
        split = (
            rest >= 512 if small or self.expandable else rest > MiB and (not self.max_split or size < self.max_split)
        )
        if split:
            segment.pieces.insert(segment.pieces.index(piece) + 1, Piece(piece.address + size, rest))
            piece.size = size
        piece.requested = requested
        self._event("alloc", piece.address, requested, stream)
        return piece.address

    def free(self, address: int) -> None:
        segment, piece = next((g, p) for g in self.segments for p in g.pieces if p.address == address)
        assert piece.requested is not None
        self._event("free_requested", address, piece.requested, segment.stream)
        requested, piece.requested = piece.requested, None
        self._merge(segment)
        self._event("free_completed", address, requested, segment.stream)

    def empty_cache(self) -> None:
        for segment in list(self.segments):
            if len(segment.pieces) == 1 and segment.pieces[0].requested is None:
                self.segments.remove(segment)
                action = "segment_unmap" if segment.expandable else "segment_free"
                self._event(action, segment.address, segment.total, segment.stream)

    def live(self) -> list[int]:
        return [p.address for g in self.segments for p in g.pieces if p.requested is not None]

    def snapshot(self, dropped: int = 0) -> dict[str, Any]:
        """What torch would write, without the first `dropped` events."""
        segments = [
            s.segment(
                g.address,
                g.total,
                *(
                    s.block(
                        p.address, p.size, p.requested or 0, "inactive" if p.requested is None else "active_allocated"
                    )
                    for p in g.pieces
                ),
                stream=g.stream,
                segment_type="small" if g.small else "large",
                is_expandable=g.expandable,
            )
            for g in self.segments
        ]
        settings = {
            "expandable_segments": self.expandable,
            "max_split_size": self.max_split or -1,
            "roundup_power2_divisions": {str(1 << i): self.divisions for i in range(16)},
        }
        return s.snapshot(self.trace[dropped:], segments=segments) | {"allocator_settings": settings}

    def _find(self, size: int, stream: int, small: bool) -> tuple[Seg, Piece] | None:
        fitting = [
            (p.size, p.address, g, p)
            for g in self.segments
            for p in g.pieces
            if g.stream == stream and g.small == small and p.requested is None and p.size >= size
        ]
        if self.max_split and size < self.max_split:
            fitting = [one for one in fitting if one[0] < self.max_split]
        elif self.max_split:
            fitting = [one for one in fitting if one[0] < size + 20 * MiB]
        if not fitting:
            return None
        _, _, segment, piece = min(fitting, key=lambda one: one[:2])
        return segment, piece

    def _reserve(self, size: int, stream: int, small: bool) -> tuple[Seg, Piece]:
        total = 2 * MiB if small else 20 * MiB if size < 10 * MiB else -(-size // (2 * MiB)) * 2 * MiB
        piece = Piece(self.next_address, total)
        segment = Seg(piece.address, total, stream, small, False, [piece])
        self.next_address += total  # segments side by side, whose blocks must not merge
        self.segments.append(segment)
        self._event("segment_alloc", segment.address, total, stream)
        return segment, piece

    def _expand(self, size: int, stream: int, small: bool) -> tuple[Seg, Piece]:
        """Map page after page at the end of the segment of this stream until its last block is large enough."""
        segment = next((g for g in self.segments if g.expandable and g.stream == stream and g.small == small), None)
        if segment is None:
            segment = Seg(self.next_address, 0, stream, small, True, [])
            self.next_address += 1 << 40
            self.segments.append(segment)
        page = 2 * MiB if small else 20 * MiB
        while not segment.pieces or segment.pieces[-1].requested is not None or segment.pieces[-1].size < size:
            end = segment.address + segment.total
            segment.pieces.append(Piece(end, page))
            segment.total += page
            self._merge(segment)
            self._event("segment_map", end, page, stream)
        return segment, segment.pieces[-1]

    @staticmethod
    def _merge(segment: Seg) -> None:
        merged: list[Piece] = []
        for piece in segment.pieces:
            if merged and merged[-1].requested is None and piece.requested is None:
                merged[-1].size += piece.size
            else:
                merged.append(piece)
        segment.pieces = merged

    def _event(self, action: str, address: int, size: int, stream: int) -> None:
        self.trace.append(s.event(action, len(self.trace), address, size, stream=stream))
        self.states.append({(p.address, p.size, p.requested is not None) for g in self.segments for p in g.pieces})


def busy(seed: int, steps: int = 150, **settings: Any) -> Allocator:
    """An allocator after some steps of a random program."""
    rng, one = random.Random(seed), Allocator(**settings)
    for _ in range(steps):
        live = one.live()
        if rng.random() < 0.55 or not live:
            one.malloc(
                int(rng.choice((300, 40 * KiB, MiB, 3 * MiB, 14 * MiB, 45 * MiB)) * rng.uniform(0.3, 1.3)),
                rng.choice((0, 0, 7)),
            )
        elif rng.random() < 0.95:
            one.free(rng.choice(live))
        else:
            one.empty_cache()
    return one
