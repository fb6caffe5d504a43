"""Move the blocks of one allocator on event by event, from the state before its history.

The rules are those of the allocator (allocator_rules.py); blocks are found by their ends, so that an event costs the
same however many blocks there are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from typing import Final, NamedTuple

from profiler_kit.analyses.memory.allocator_rules import SMALL_SEGMENT, Rules

OPEN, CLOSE, SEGMENT = range(3)  # kinds of event: an alloc, a free_completed, one about a segment
_MAX_REPAIRS: Final = 1000  # each looks at all guesses


class Segment(NamedTuple):
    """A segment, or a range of addresses that expandable segments were mapped into; pool is "" when not known."""

    address: int
    size_bytes: int
    stream: int
    small: bool
    pool: str
    expandable: bool


class SegmentEvent(NamedTuple):
    """A segment that was reserved, released, or mapped or unmapped in part."""

    action: str  # segment_alloc, segment_free, segment_map, segment_unmap
    address: int
    size_bytes: int
    stream: int
    pool: str


class History(NamedTuple):
    """The events of one device that move blocks, as columns; `segments` describes those of kind SEGMENT, in order.

    states: the state each event leads to. sizes: of an alloc, the size of the block as the allocator rounds it.
    """

    kinds: list[int]
    addresses: list[int]
    sizes: list[int]
    states: list[int]
    segments: list[SegmentEvent]


class Initial(NamedTuple):
    """A block that was active before the first event; where the size is a guess, the real one may be larger."""

    address: int
    size: int
    guess: bool


class Ranges:
    """A set of addresses as ranges that never overlap or touch."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def items(self) -> list[tuple[int, int]]:
        return [(start, end - start) for start, end in zip(self._starts, self._ends, strict=True)]

    def find(self, address: int) -> int:
        """Number of the range that holds the address, -1 for none."""
        at = bisect_right(self._starts, address) - 1
        return at if at >= 0 and address < self._ends[at] else -1

    def add(self, start: int, size: int) -> None:
        self._put(start, start + size, keep=True)

    def remove(self, start: int, size: int) -> None:
        self._put(start, start + size, keep=False)

    def _put(self, start: int, end: int, *, keep: bool) -> None:
        """Replace what overlaps or touches [start, end) by the union with it (keep) or by what is left outside."""
        # low .. high: the ranges that overlap or touch [start, end)
        low = bisect_right(self._starts, start)
        while low and self._ends[low - 1] >= start:
            low -= 1
        high = low
        while high < len(self._starts) and self._starts[high] <= end:
            high += 1
        # from the first start to the last end of those and the new range; what lies outside the new one is left
        first = min(self._starts[low], start) if high > low else start
        last = max(self._ends[high - 1], end) if high > low else end
        pieces = [(first, last)] if keep else [(a, b) for a, b in ((first, start), (end, last)) if a < b]
        self._starts[low:high] = [a for a, _ in pieces]
        self._ends[low:high] = [b for _, b in pieces]


_Entry = tuple[int, int, int]  # of a block: size, segment, the first state that has it


class Walk:
    """The state of one device's allocator, moved on event by event."""

    def __init__(self, rules: Rules, count: int) -> None:
        self.rules = rules
        self.least_rest: list[int] = []  # of each segment: what must be left of a block for it to be split
        self.count = count
        self.segments: list[Segment] = []
        self.segment_from: list[int] = []
        self.segment_to: list[int] = []
        self.active: dict[int, _Entry] = {}
        self.free: dict[int, _Entry] = {}
        self.free_ends: dict[int, int] = {}  # end -> start
        self.walls: dict[int, int] = {}  # addresses that blocks do not merge across, with how many segments end there
        self.whole: dict[int, tuple[int, int]] = {}  # start -> size and number of a segment that is held now
        self.arenas = Ranges()
        self.guessed: dict[int, int] = {}  # end -> start of an initial block whose size is a guess
        self.gaps = 0
        self.repairs = 0
        self.spans = array("Q")  # address, size, segment, active, from, to
        self.event_segment = array("q")  # of each event of the history

    # ---- the state before the first event ----

    def begin(self, before: list[Segment], blocks: list[Initial], events: list[SegmentEvent]) -> None:
        """Set up the state before the first event."""
        for segment in before:
            if segment.expandable:
                self.arenas.add(segment.address, segment.size_bytes)
        first: dict[int, Segment] = {}  # what the first mapping at each address says
        for action, address, size, stream, pool in events:
            if action == "segment_map":
                self.arenas.add(address, size)
                first.setdefault(address, Segment(address, size, stream, size == SMALL_SEGMENT, pool, True))
        for address, size in self.arenas.items():
            known = first.get(address, Segment(address, size, 0, False, "", True))
            self._new_segment(known._replace(size_bytes=size), 0)
        at = 0
        for segment in sorted(before):
            while at < len(blocks) and blocks[at].address < segment.address:
                at += 1
                self.gaps += 1
            # blocks[since:at] are the initial blocks inside this segment; those between segments are gaps
            since, end = at, segment.address + segment.size_bytes
            while at < len(blocks) and blocks[at].address < end:
                at += 1
            number = self._segment_at(segment.address) if segment.expandable else self._enter(segment, 0)
            self._fill(segment, number, blocks[since:at])
        self.gaps += len(blocks) - at

    def _fill(self, segment: Segment, number: int, blocks: list[Initial]) -> None:
        """Lay the initial blocks of a segment out, free blocks between them."""
        position, end = segment.address, segment.address + segment.size_bytes
        nexts = [*(block.address for block in blocks), end][1:]
        for block, following in zip(blocks, nexts, strict=True):
            if block.address > position:
                self._release(position, block.address - position, number, 0)
            # a block ends before the next one at the latest; a guess reaches up to it if the rest cannot be split off
            room = following - block.address
            size = min(block.size, room)
            if block.guess and not self.rules.splits(size, room - size, self.least_rest[number]):
                size = room
            self.active[block.address] = (size, number, 0)
            position = block.address + size
            if block.guess:
                self.guessed[position] = block.address
        if position < end:
            self._release(position, end - position, number, 0)

    def _new_segment(self, segment: Segment, state: int) -> int:
        self.segments.append(segment)
        self.least_rest.append(self.rules.least_rest(small=segment.small or segment.expandable))
        self.segment_from.append(state)
        self.segment_to.append(self.count + 1)
        return len(self.segments) - 1

    def _enter(self, segment: Segment, state: int) -> int:
        """Add a segment that is not expandable; its memory is added by the caller."""
        number = self._new_segment(segment, state)
        self.whole[segment.address] = (segment.size_bytes, number)
        for wall in (segment.address, segment.address + segment.size_bytes):
            self.walls[wall] = self.walls.get(wall, 0) + 1
        return number

    def _segment_at(self, address: int) -> int:
        """Number of the arena at an address: arenas are the first segments, in order of address."""
        return self.arenas.find(address)

    # ---- the events ----

    def run(self, history: History) -> None:
        """Move through all events."""
        segments = iter(history.segments)
        note, allocate, free = self.event_segment.append, self._allocate, self._free
        for kind, address, size, state in zip(*history[:4], strict=True):
            if kind == OPEN:
                note(allocate(address, size, state))
            elif kind == CLOSE:
                note(free(address, state))
            else:
                note(self._change(next(segments), state))

    def _change(self, event: SegmentEvent, state: int) -> int:
        action, address, size, stream, pool = event
        if action == "segment_map":
            number = self._segment_at(address)
            self._release(address, size, number, state)
            return number
        if action == "segment_unmap":
            return self._unmap(address, size, state)
        if action == "segment_free":
            return self._leave(address, state)
        number = self._enter(Segment(address, size, stream, size == SMALL_SEGMENT, pool, False), state)
        self._release(address, size, number, state)
        return number

    def _allocate(self, address: int, size: int, state: int) -> int:
        if address in self.active:  # freed in a gap of the history
            self.gaps += 1
            self._free(address, state)
        if address not in self.free and not self._repair(address, state):
            self.gaps += 1
            return -1
        room, segment, since = self.free.pop(address)
        if since < state:
            self.spans.extend((address, room, segment, 0, since, state))
        # split the free block when enough is left over, else hand it out whole
        rest = room - size
        if rest > 0 and self.rules.splits(size, rest, self.least_rest[segment]):
            self._put(address + size, rest, segment, state)
        else:
            self.gaps += rest < 0
            size = room
            self._forget_end(address, room)
        self.active[address] = (size, segment, state)
        return segment

    def _free(self, address: int, state: int) -> int:
        entry = self.active.pop(address, None)
        if entry is None:
            self.gaps += 1
            return -1
        size, segment, since = entry
        if since < state:
            self.spans.extend((address, size, segment, 1, since, state))
        self._release(address, size, segment, state)
        return segment

    def _unmap(self, address: int, size: int, state: int) -> int:
        number = self._segment_at(address)
        end = address + size
        # the free block to cut: it starts at the unmapped range, or ends with it, or (searching all) contains it
        start = address if address in self.free else self.free_ends.get(end, -1)
        if start < 0 or start > address:
            around = [a for a, entry in self.free.items() if a <= address and a + entry[0] >= end]
            start = around[0] if around and self.repairs < _MAX_REPAIRS else -1
            self.repairs += 1
        if start < 0:
            self.gaps += 1
            return number
        room, segment, _ = self._take(start, state)
        # what is left of it on either side stays free
        for low, high in ((start, address), (end, start + room)):
            if low < high:
                self._put(low, high - low, segment, state)
        return number

    def _leave(self, address: int, state: int) -> int:
        """Give a segment back to the driver."""
        found = self.whole.get(address)
        if found is None:
            self.gaps += 1
            return -1
        size, number = found
        if address in self.free and self.free[address][0] == size:
            self._take(address, state)
        else:
            self.gaps += 1
        del self.whole[address]
        self.segment_to[number] = state
        for wall in (address, address + size):
            self.walls[wall] -= 1
            if not self.walls[wall]:
                del self.walls[wall]
        return number

    def _repair(self, address: int, state: int) -> bool:
        """Move the end of an initial block whose size was guessed to where this allocation proves it to be."""
        self.repairs += 1
        if self.repairs > _MAX_REPAIRS:
            return False
        for end, start in self.guessed.items():
            entry, block = self.free.get(end), self.active.get(start)
            if entry is not None and block is not None and block[2] == 0 and end < address < end + entry[0]:
                self._take(end, state)
                self._put(address, end + entry[0] - address, entry[1], state)
                self.active[start] = (address - start, block[1], 0)
                del self.guessed[end]
                return True
        return False

    # ---- free blocks ----

    def _release(self, start: int, size: int, segment: int, state: int) -> None:
        """Add a free block, merged with the free blocks beside it."""
        walls = self.walls
        if start not in walls and start in self.free_ends:
            left = self.free_ends[start]
            size += self._take(left, state)[0]
            start = left
        end = start + size
        if end in self.free and end not in walls:
            size += self._take(end, state)[0]
        self._put(start, size, segment, state)

    def _put(self, start: int, size: int, segment: int, state: int) -> None:
        if start in self.free:  # reserved twice: a gap in the history
            self._take(start, state)
            self.gaps += 1
        self.free[start] = (size, segment, state)
        self.free_ends[start + size] = start

    def _take(self, start: int, state: int) -> _Entry:
        entry = self.free.pop(start)
        size, segment, since = entry
        self._forget_end(start, size)
        if since < state:
            self.spans.extend((start, size, segment, 0, since, state))
        return entry

    def _forget_end(self, start: int, size: int) -> None:
        if self.free_ends.get(start + size) == start:  # not so where blocks overlap: a gap in the history
            del self.free_ends[start + size]

    def end(self) -> None:
        """Write down the blocks that exist at the end."""
        for is_active, blocks in ((1, self.active), (0, self.free)):
            for start, (size, segment, since) in blocks.items():
                self.spans.extend((start, size, segment, is_active, since, self.count + 1))
