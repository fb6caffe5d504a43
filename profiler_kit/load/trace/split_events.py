"""Cut the bytes after the opening `[` of a trace into blocks of whole events, which become columns and are dropped.

`[` + block + `]` parses if and only if the cut was right (brackets balanced, strings closed), so cuts may be guessed:
the decoder proves them.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

import msgspec

from profiler_kit.load.trace.categories import current, is_gpu_work
from profiler_kit.load.trace.column_builder import LAST_NS, ColumnBuilder, text_to_ns
from profiler_kit.load.trace.decode import NOT_JSON, Decoders, Event
from profiler_kit.load.trace.decompress import BLOCK_BYTES
from profiler_kit.load.trace.native import Scanner
from profiler_kit.load.trace.repair import (
    BLANK,
    CLOSING,
    CLOSINGS,
    LOOK_BYTES,
    PHASE,
    Incident,
    Piece,
    Salvage,
    closing_bracket,
    ends_list,
    is_json,
    is_valid,
    matches,
    values_in,
)

SALVAGE_BYTES: Final = 8 << 20  # this much without an acceptable cut is malformed somewhere
EVENT_BYTES: Final = 64 << 20  # one event must end within this many bytes
TAIL_BYTES: Final = 64 << 20  # metadata after the events is kept up to here

NEAR_EVENTS: Final = 16  # where the text is malformed, so many events are looked at one by one
MOST_NEAR_EVENTS: Final = 1 << 14  # ... or, where one malformed event follows the other, up to so many

KINETO_CUT: Final = b"\n  },\n  {"  # Kineto puts no raw newline into strings, so this is structural
_KINETO_CUTS: Final = re.compile(re.escape(KINETO_CUT))
_ANY_CUT: Final = re.compile(rb"\}\s*+(,)\s*+\{")
MOST_CLOSINGS: Final = 50  # early ends of the list that are looked at one by one

# Brackets only, between one that did not close the list and the keys after it.
_STRAY: Final = re.compile(rb'[\s\x00,}]*+\][\s\x00,}\]]*?(?=,\s*+")')
_EMPTY: Final = re.compile(rb"\[\s*+\]")
_MAY_END: Final = re.compile(rb"\}\s*+\]")
_TRIED_ENDS: Final = 4
_ALL_EVENTS: Final = msgspec.json.Decoder(list[msgspec.Raw])


class EventStream:
    """Takes the bytes after the opening `[`, gives events to the builder as soon as they are whole.

    offset: place in the uncompressed text of the next byte to decode; set it to where the list begins. behind: events
    after the end of the list; they count as dropped. scanner: is offered each block first; without one the decoder
    takes all. head: the text up to the list, which tells whether what comes after it is the rest of one object.
    """

    def __init__(self, extra: Sequence[str] = (), keys: Sequence[str] = (), scanner: Scanner | None = None) -> None:
        self.builder = ColumnBuilder(extra)
        self.scanner = scanner
        self.closed = False
        self.offset = 0
        self.head = b""
        self.behind = 0
        self._decoders = Decoders(keys)
        self._salvage = Salvage(self._decoders)
        self._try_at = 0
        self._near = NEAR_EVENTS
        self._closings = 0
        self._exact = False
        self._malformed = False  # something was, in what came last
        self._pending = bytearray(b"[")
        self._tail = bytearray()

    @property
    def tick(self) -> Callable[[], None]:
        """Called often during long work; may raise to end it."""
        return self._decoders.tick

    @tick.setter
    def tick(self, tick: Callable[[], None]) -> None:
        self._decoders.tick = tick

    @property
    def repaired(self) -> int:
        """How many events were malformed and could be mended."""
        return self._salvage.repaired

    @property
    def dropped(self) -> int:
        """How many pieces of the list could not be read, and how many events come after it."""
        return self._salvage.dropped + self.behind

    @property
    def incidents(self) -> list[Incident]:
        """The first few things that were wrong, with their place."""
        return self._salvage.incidents

    @property
    def tail(self) -> bytes:
        """The text after the `]` that closes the events."""
        return bytes(self._tail)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.closed:
            if len(self._tail) < TAIL_BYTES:
                self._tail += data
            return
        self._pending += data
        if len(self._pending) < max(BLOCK_BYTES // 2, self._try_at):
            return
        if self._malformed:  # so is mostly what follows
            self._malformed = self._take_mended() and self._malformed
        while not (self._take_whole() or self._take_end()):
            if self._take_mended() or self._take_near():
                continue
            if len(self._pending) >= SALVAGE_BYTES:
                self._take_broken(len(self._pending), last=False)
            # what does not end is looked at again only once there is twice as much of it
            self._try_at = min(2 * len(self._pending), EVENT_BYTES + 1)
            return
        self._try_at = 0

    def feed_all(self, blocks: Iterable[bytes]) -> None:
        """Take all bytes."""
        for block in blocks:
            self.feed(block)
        self.finish()

    def finish(self) -> None:
        """No more bytes come."""
        self._take_ends()
        if not self.closed:
            self._take_whole()
            self._take_ends()
            if not self.closed:
                malformed = self._take_mended()
                while self._take_mended():
                    pass
                rest = bytes(self._pending).rstrip(BLANK)
                block = rest + b"]"
                whole = not (malformed or self._holds_others(block)) and self._decode_at(block, self.offset)
                if rest != b"[" and not whole:
                    self._take_broken(len(self._pending), last=True)
                self.offset += len(self._pending) - 1
        if self.closed:
            self._look_behind()
        self._flush()

    def _holds_others(self, block: bytes) -> bool:
        """Whether one event holds others: its bracket never closed, and all that follows is JSON inside it too."""
        return sum(1 for _ in matches(PHASE, block, self.tick)) > values_in(block, self._decoders)

    def _take_whole(self) -> bool:
        """Take the events before the last cut that the decoder accepts."""
        return any(self._take_up_to(cut) for cut in _cuts(self._pending))

    def _take_up_to(self, cut: int) -> bool:
        """Take the events before the comma at `cut` when the decoder accepts them."""
        self.tick()
        pending = self._pending
        pending[cut] = 0x5D  # `,` becomes `]`: a list without copying
        with memoryview(pending)[: cut + 1] as block:
            taken = self._decode_at(block, self.offset)
        if taken:
            del pending[1 : cut + 1]
            self.offset += cut
        else:
            pending[cut] = 0x2C
        return taken

    def _take_ends(self) -> None:
        while not self.closed and self._take_end(last=True):
            pass

    def _take_end(self, *, last: bool = False) -> bool:
        """Take the last events when the `]` that closes them has come."""
        for end in self._ends(last=last) if self._closings < MOST_CLOSINGS else ():
            brackets = CLOSINGS.match(self._pending, end)
            closings = [end + one.start() for one in CLOSING.finditer(brackets[0])] if brackets else [end]
            rest = bytes(self._pending[closings[-1] + 1 : closings[-1] + 1 + LOOK_BYTES])
            if not last and len(rest) < LOOK_BYTES:  # what follows tells whether it does close them
                return False
            with memoryview(self._pending)[: end + 1] as block:
                taken = self._decode_at(block, self.offset)
            if taken:
                break
        else:
            return False
        if ends_list(rest) or (last and not PHASE.search(self._pending, end + 1)):
            for closing in closings[:-1]:
                self._salvage.closed_early(self.offset + closing - 1)
            self._close(closings[-1])
            return True
        self._salvage.closed_early(self.offset + end - 1)
        self.offset += end
        del self._pending[1 : end + 1]
        self._closings += 1
        return True

    def _ends(self, *, last: bool) -> list[int]:
        """Where the list may be closed: after a `}`; where too many are, or at the `last`, the bracket that fits."""
        empty = _EMPTY.match(self._pending)
        if empty:
            return [empty.end() - 1]
        found: list[int] = []
        if self.scanner is None or self.scanner.may_end(self._pending):
            found = [match.end() - 1 for match in itertools.islice(_MAY_END.finditer(self._pending), _TRIED_ENDS + 1)]
        if len(found) > _TRIED_ENDS or (last and not found):
            end = closing_bracket(bytes(self._pending), self.tick)
            return [end] if end >= 0 else []
        return found

    def _close(self, end: int) -> None:
        """The `]` at this place of what is pending closes the list."""
        self._tail += self._pending[end + 1 :]
        self.offset += end
        self._pending = bytearray(b"[")
        self.closed = True

    def _look_behind(self) -> None:
        """Count the events after the list, as when two traces were written to one file; cut them off the tail."""
        tail = bytes(self._tail)
        stray = _STRAY.match(tail)
        if stray and is_json(self.head + b"]" + tail[stray.end() :]):
            ends = [found.start() for found in CLOSING.finditer(stray[0])]
            for early in (-1, *ends[:-1]):
                self._salvage.closed_early(self.offset + early)
            self.offset += stray.end()
            del self._tail[: stray.end()]
            tail = bytes(self._tail)
        end = closing_bracket(b"{" + tail, self.tick) if tail.lstrip()[:1] in (b",", b"}") else 0
        self.behind = sum(1 for _ in matches(PHASE, tail, self.tick))
        if self.behind or (end >= 0 and tail[end:].strip(BLANK)):
            self._salvage.note("after the end", self.offset + max(end, 0), tail[max(end, 0) :])
        if end > 0:
            del self._tail[end:]

    def _decode_at(self, block: bytes | memoryview, offset: int) -> bool:
        """Decode a list whose first event is at `offset`, and note which of its events are of no use."""
        before = self.builder.dropped
        taken = self.decode(block)
        if self.builder.dropped > before:
            self._note_useless(Piece(offset, bytes(block)[1:-1]))
        return taken

    def _note_useless(self, piece: Piece) -> None:
        """Note where the events are that are valid JSON and that the builder still does not take."""
        at = 0
        for raw in _ALL_EVENTS.decode(b"[" + piece.text + b"]") if self._salvage.notes(piece.offset) else ():
            text = bytes(raw)
            at = piece.text.index(text, at)
            if not self._salvage.notes(piece.offset + at):
                break
            if _of_no_use(self._decoders.loosely(b"[" + text + b"]")[0]):
                self._salvage.note("of no use", piece.offset + at, text)
            at += len(text)

    def decode(self, block: bytes | memoryview) -> bool:
        """Give the events of a JSON list to the builder; False when the block is not a JSON list."""
        if self.scanner is not None and self._scan(self.scanner, block):
            return True
        try:
            if not self._exact:
                with contextlib.suppress(msgspec.ValidationError):  # text may do, as it does for repair.py
                    if self._add(self._decoders.floats(block), exact=False):
                        return True
                    self._exact = True
            self._add(self._decoders.texts(block), exact=True)
        except msgspec.ValidationError:  # JSON, but a field has an odd type somewhere
            try:
                self._add(self._decoders.of_odd_types(block), exact=True)
            except NOT_JSON:
                return False
        except NOT_JSON:
            return False
        return True

    def _scan(self, scanner: Scanner, block: bytes | memoryview) -> bool:
        """Whether the scanner takes the block; its metadata events, which give no rows, are the builder's at once."""
        scanner.exact = self._exact
        metadata = scanner.take(block)
        if metadata is None:
            return False
        self._exact = scanner.exact
        self._add_metadata(metadata, scanner.useless)
        if scanner.full:
            self._flush()
        return True

    def _add_metadata(self, metadata: list[bytes], useless: int) -> None:
        """Give the builder what a scanner took without making rows of it."""
        self.builder.dropped += useless
        if metadata:
            self.builder.add(self._decoders.loosely(b"[" + b",".join(metadata) + b"]"), exact=True)

    def _add(self, events: Sequence[Event], *, exact: bool) -> bool:
        """Give decoded events to the builder, behind those that the scanner took before."""
        self._flush()
        return self.builder.add(events, exact=exact)

    def _flush(self) -> None:
        if self.scanner is not None:
            self.scanner.flush(self.builder)

    def _take_mended(self) -> bool:
        """Take events from the beginning that the scanner can mend; not where the list ends."""
        if self.scanner is None or len(self._pending) == 1:
            return False
        self.tick()
        self.scanner.exact = self._exact
        with memoryview(self._pending) as pending, pending[1:] as text:
            found = self.scanner.mend(text, notes=self._salvage.notes(self.offset))
        if found is None:
            return False
        self._malformed = found.repaired + found.dropped > 0
        self._exact = self.scanner.exact
        self._add_metadata([text for _, text in found.metadata], self.scanner.useless)
        for place, event in found.metadata:
            self._note_useless(Piece(self.offset + place, event))
        self._salvage.repaired += found.repaired
        self._salvage.dropped += found.dropped
        for kind, place, shown in found.notes:
            self._salvage.note(kind, self.offset + place, shown)
        self.offset += found.done
        del self._pending[1 : found.done + 1]
        if self.scanner.full:
            self._flush()
        return True

    def _take_near(self) -> bool:
        """Take the events before the first malformed one, and one by one those around it; False when few have come."""
        before = len(self._pending)
        self._take_prefix()
        # where one malformed event follows the other, more are looked at in one go
        clean = before - len(self._pending) > BLOCK_BYTES // 8
        self._near = NEAR_EVENTS if clean else min(2 * self._near, MOST_NEAR_EVENTS)
        left = len(self._pending)
        phases = [found.end() for found in itertools.islice(PHASE.finditer(self._pending), self._near)]
        if len(phases) < NEAR_EVENTS:
            return False
        self._take_broken(phases[-1] if len(phases) == self._near else left, last=False)
        return len(self._pending) < left or self.closed

    def _take_prefix(self) -> None:
        """Take the events before the last cut up to which the text is valid, found by halving."""
        cuts = [match.start() + KINETO_CUT.index(b",") for match in _KINETO_CUTS.finditer(self._pending)]
        cuts = cuts or [match.start(1) for match in _ANY_CUT.finditer(self._pending)]
        low, high = -1, len(cuts)
        while high - low > 1:
            self.tick()
            middle = (low + high) // 2
            text = bytes(memoryview(self._pending)[: cuts[middle]]) + b"]"
            valid = (self.scanner is not None and self.scanner.takes(text)) or is_valid(text, self._decoders)
            low, high = (middle, high) if valid else (low, middle)
        if low >= 0:
            self._take_up_to(cuts[low])

    def _take_broken(self, stop: int, *, last: bool) -> None:
        """Take event by event what is malformed somewhere before `stop`; `last` when no more bytes come."""
        pieces, done = self._salvage.take(bytes(memoryview(self._pending)[1:stop]), self.offset, last=last)
        before = self.builder.dropped
        if pieces and not self.decode(b"[" + b",".join(piece.text for piece in pieces) + b"]"):
            for piece in pieces:
                self.decode(b"[" + piece.text + b"]")
        if self.builder.dropped > before:
            for piece in pieces:
                self._note_useless(piece)
        if self._salvage.closed:
            self._close(done)
            return
        self.offset += done
        del self._pending[1 : done + 1]
        if len(self._pending) > EVENT_BYTES:
            self._salvage.dropped += 1
            self._salvage.note("dropped", self.offset, bytes(self._pending[1:LOOK_BYTES]))
            self.offset += len(self._pending) - 1
            self._pending = bytearray(b"[")


def _of_no_use(event: Event) -> bool:
    """Whether the builder drops the event: not an object with a phase, or a span without a time that is no GPU work."""
    if event.ph != "X":
        return event.ph == ""
    timed = 0 <= event.dur < LAST_NS / 1000 and text_to_ns(bytes(event.ts)) is not None
    return not (timed or is_gpu_work(current(event.cat)))


def _cuts(pending: bytearray) -> Iterator[int]:
    """Positions of the commas that may be between two events, best guess first."""
    at = pending.rfind(KINETO_CUT)
    if at > 0:
        for _ in range(4):
            yield at + KINETO_CUT.index(b",")
            at = pending.rfind(KINETO_CUT, 0, at)
            if at < 0:
                break
        return
    tries = 0
    high, window = len(pending), 1 << 16
    while high > 1 and tries < 16:
        low = max(1, high - window)
        for found in reversed(list(_ANY_CUT.finditer(pending, low, high))[-4:]):
            yield found.start(1)
            tries += 1
        high, window = (low + 64 if low > 1 else 0), window * 4
