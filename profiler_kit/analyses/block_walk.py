"""Move the blocks of one allocator on event by event (history, state before it -> the blocks of every moment).

The rules are those of the allocator (allocator_rules.py); blocks are found by their ends, so that an event costs the
same however many blocks there are.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from heapq import heappop, heappush
from typing import Final, NamedTuple

from profiler_kit.analyses.allocator_rules import SMALL_SEGMENT, Rules

_MOST: Final = (1 << 63) - 1  # only nonsense gets there
_MAX_REPAIRS: Final = 1000  # each looks at all guesses


class Segment(NamedTuple):
    """A segment, or a range of addresses that expandable segments were mapped into; pool is "" when not known."""

    address: int
    size_bytes: int
    stream: int
    small: bool
    pool: str
    expandable: bool


class History(NamedTuple):
    """The events of one device as columns."""

    actions: list[str]
    addresses: list[int]
    sizes: list[int]
    streams: list[int]
    pools: list[str]


class Initial(NamedTuple):
    """A block that was active before the first event; size is None where only the requested size is known."""

    address: int
    size: int | None
    requested: int


class Ranges:
    """A set of addresses as ranges that touch nowhere."""

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
        low = bisect_right(self._starts, start)
        while low and self._ends[low - 1] >= start:
            low -= 1
        high = low
        while high < len(self._starts) and self._starts[high] <= end:
            high += 1
        first = min(self._starts[low], start) if high > low else start
        last = max(self._ends[high - 1], end) if high > low else end
        pieces = [(first, last)] if keep else [(a, b) for a, b in ((first, start), (end, last)) if a < b]
        self._starts[low:high] = [a for a, _ in pieces]
        self._ends[low:high] = [b for _, b in pieces]


_Entry = tuple[int, int, int]  # of a block: size, segment, the state it is there from


class Walk:
    """The state of one device's allocator, moved on event by event."""

    def __init__(self, rules: Rules, count: int) -> None:
        self.rules = rules
        self.count = count
        self.segments: list[Segment] = []
        self.segment_from: list[int] = []
        self.segment_to: list[int] = []
        self.active: dict[int, _Entry] = {}
        self.free: dict[int, _Entry] = {}
        self.free_ends: dict[int, int] = {}  # end -> start
        self.walls: dict[int, int] = {}  # addresses that blocks do not merge across, with how many segments end there
        self.whole: dict[int, tuple[int, int]] = {}  # start -> size and number of a segment that is there now
        self.arenas = Ranges()
        self.guessed: dict[int, int] = {}  # end -> start of an initial block whose size is a guess
        self.heap: list[tuple[int, int]] = []
        self.active_bytes = 0
        self.split_bytes = 0
        self.gaps = 0
        self.repairs = 0
        self.spans = array("Q")  # address, size, segment, active, from, to
        self.active_series = array("q")
        self.largest_series = array("q")
        self.split_series = array("q")
        self.event_segment = array("q")

    # ---- the state before the first event ----

    def begin(self, before: list[Segment], blocks: list[Initial], history: History) -> None:
        """Set up the state before the first event."""
        for segment in before:
            if segment.expandable:
                self.arenas.add(segment.address, segment.size_bytes)
        first: dict[int, Segment] = {}  # what the first mapping at each address says
        for action, address, size, stream, pool in zip(*history, strict=True):
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
            since, end = at, segment.address + segment.size_bytes
            while at < len(blocks) and blocks[at].address < end:
                at += 1
            number = self._segment_at(segment.address) if segment.expandable else self._enter(segment, 0)
            self._fill(segment, number, blocks[since:at])
        self.gaps += len(blocks) - at
        self._note()

    def _fill(self, segment: Segment, number: int, blocks: list[Initial]) -> None:
        """Lay the initial blocks of a segment out, free blocks between them."""
        position, end = segment.address, segment.address + segment.size_bytes
        nexts = [*(block.address for block in blocks), end][1:]
        for block, following in zip(blocks, nexts, strict=True):
            if block.address > position:
                self._release(position, block.address - position, number, 0)
            room = following - block.address
            size = self.rules[block.requested] if block.size is None else block.size
            if block.size is None and not self._splits(size, room - size, number):
                size = room
            size = min(size, room)
            self.active[block.address] = (size, number, 0)
            self.active_bytes += size
            position = block.address + size
            if block.size is None:
                self.guessed[position] = block.address
        if position < end:
            self._release(position, end - position, number, 0)

    def _new_segment(self, segment: Segment, state: int) -> int:
        self.segments.append(segment)
        self.segment_from.append(state)
        self.segment_to.append(self.count + 1)
        return len(self.segments) - 1

    def _enter(self, segment: Segment, state: int) -> int:
        """Add a segment that is no expandable one; its memory is not entered yet."""
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
        moves = {
            "alloc": self._allocate,
            "free_completed": self._free,
            "segment_map": self._map,
            "segment_unmap": self._unmap,
            "segment_free": self._leave,
        }
        active = self.active
        for state, (action, address, size, stream, pool) in enumerate(zip(*history, strict=True), 1):
            move = moves.get(action)
            if move is not None:
                self.event_segment.append(move(address, size, state))
            elif action == "segment_alloc":
                segment = Segment(address, size, stream, size == SMALL_SEGMENT, pool, False)
                number = self._enter(segment, state)
                self._release(address, size, number, state)
                self.event_segment.append(number)
            else:
                entry = active.get(address)
                self.event_segment.append(-1 if entry is None else entry[1])
            self._note()

    def _note(self) -> None:
        heap, free = self.heap, self.free
        while heap:
            size, start = heap[0]
            entry = free.get(start)
            if entry is not None and entry[0] == -size:
                break
            heappop(heap)
        self.largest_series.append(-heap[0][0] if heap else 0)
        self.active_series.append(min(self.active_bytes, _MOST))
        self.split_series.append(min(self.split_bytes, _MOST))

    def _allocate(self, address: int, requested: int, state: int) -> int:
        if address in self.active:  # freed in a gap of the history
            self.gaps += 1
            self._free(address, 0, state)
        if address not in self.free and not self._repair(address, state):
            self.gaps += 1
            return -1
        room, segment, _ = self._take(address, state)
        size = self.rules[requested]
        if size > room or not self._splits(size, room - size, segment):
            self.gaps += size > room
            size = room
        else:
            self._put(address + size, room - size, segment, state)
        self.active[address] = (size, segment, state)
        self.active_bytes += size
        return segment

    def _splits(self, size: int, rest: int, segment: int) -> bool:
        kind = self.segments[segment]
        return rest > 0 and self.rules.splits(size, rest, small=kind.small or kind.expandable)

    def _free(self, address: int, _size: int, state: int) -> int:
        entry = self.active.pop(address, None)
        if entry is None:
            self.gaps += 1
            return -1
        size, segment, since = entry
        self.active_bytes -= size
        if since < state:
            self.spans.extend((address, size, segment, 1, since, state))
        self._release(address, size, segment, state)
        return segment

    def _map(self, address: int, size: int, state: int) -> int:
        number = self._segment_at(address)
        self._release(address, size, number, state)
        return number

    def _unmap(self, address: int, size: int, state: int) -> int:
        number = self._segment_at(address)
        end = address + size
        start = address if address in self.free else self.free_ends.get(end, -1)
        if start < 0 or start > address:
            around = [a for a, entry in self.free.items() if a <= address and a + entry[0] >= end]
            start = around[0] if around and self.repairs < _MAX_REPAIRS else -1
            self.repairs += 1
        if start < 0:
            self.gaps += 1
            return number
        room, segment, _ = self._take(start, state)
        for low, high in ((start, address), (end, start + room)):
            if low < high:
                self._put(low, high - low, segment, state)
        return number

    def _leave(self, address: int, _size: int, state: int) -> int:
        """A segment goes back to the driver."""
        found = self.whole.get(address)
        if found is None:
            self.gaps += 1
            return -1
        size, number = found
        if self.free.get(address, (0,))[0] == size:
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
                self.active_bytes += address - end
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
        heappush(self.heap, (-size, start))
        if start not in self.whole or self.whole[start][0] != size:
            self.split_bytes += size

    def _take(self, start: int, state: int) -> _Entry:
        entry = self.free.pop(start)
        size, segment, since = entry
        if self.free_ends.get(start + size) == start:
            del self.free_ends[start + size]
        if start not in self.whole or self.whole[start][0] != size:
            self.split_bytes -= size
        if since < state:
            self.spans.extend((start, size, segment, 0, since, state))
        return entry

    def end(self) -> None:
        """Write down the blocks that are there at the end."""
        for is_active, blocks in ((1, self.active), (0, self.free)):
            for start, (size, segment, since) in blocks.items():
                self.spans.extend((start, size, segment, is_active, since, self.count + 1))
