"""Cut a stream of bytes into events: what follows the opening `[` in, columns out, block by block.

`[` + block + `]` parses if and only if the cut was right (brackets balanced, strings closed), so cuts may be guessed:
the decoder proves them. Each block becomes columns and is dropped, whatever the size of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from profiler_kit.load.blocks import BLOCK_BYTES
from profiler_kit.load.columns import ColumnBuilder
from profiler_kit.load.events import NOT_JSON, Decoders
from profiler_kit.load.repair import repair

SALVAGE_BYTES: Final = 8 << 20  # this much without an acceptable cut is malformed somewhere
EVENT_BYTES: Final = 64 << 20  # one event must end within this many bytes
TAIL_BYTES: Final = 64 << 20  # metadata after the events is kept up to here

KINETO_CUT: Final = b"\n  },\n  {"  # Kineto puts no raw newline into strings, so this is structural
_ANY_CUT: Final = re.compile(rb"\}\s*,\s*\{")
_EVENT_CUT: Final = re.compile(rb'\}(?=\s*,\s*\{\s*"(?:ph|name|cat|pid|tid|ts|dur|id|args)"\s*:)')
_KINETO_END: Final = re.compile(rb"\n  \}\s*\]")
_ANY_END: Final = re.compile(rb"\}\s*\]\s*[,}]")
_OPEN, _CLOSE = frozenset(b"[{"), frozenset(b"]}")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


class EventStream:
    """Takes the bytes after the opening `[`, gives events to the builder as soon as they are whole."""

    def __init__(self, extra: Sequence[str] = (), keys: Sequence[str] = ()) -> None:
        self.builder = ColumnBuilder(extra)
        self.closed = False
        self.repaired = 0
        self.dropped = 0
        self._decoders = Decoders(keys)
        self._exact = False
        self._pending = bytearray(b"[")
        self._tail = bytearray()

    @property
    def tail(self) -> bytes:
        """What stands after the `]` that closes the events."""
        return bytes(self._tail)

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        if self.closed:
            if len(self._tail) < TAIL_BYTES:
                self._tail += data
            return
        self._pending += data
        if len(self._pending) < BLOCK_BYTES // 2:
            return
        if self._take_whole() or self._take_end() or len(self._pending) < SALVAGE_BYTES:
            return
        self._salvage(last=False)

    def finish(self) -> None:
        """No more bytes come."""
        if self.closed or self._take_end():
            return
        self._take_whole()
        if self._take_end():
            return
        rest = bytes(self._pending).rstrip().rstrip(b",")
        if rest != b"[" and not self.decode(rest + b"]"):
            self._salvage(last=True)

    def _take_whole(self) -> bool:
        """Take the events before the last cut that the decoder accepts."""
        pending = self._pending
        for cut in _cuts(pending):
            pending[cut] = 0x5D  # `,` becomes `]`: a list without copying
            with memoryview(pending)[: cut + 1] as block:
                taken = self.decode(block)
            if taken:
                del pending[1 : cut + 1]
                return True
            pending[cut] = 0x2C
        return False

    def _take_end(self) -> bool:
        """Take the last events when the `]` that closes them has come."""
        end = _closing_bracket(self._pending)
        if end < 0:
            return False
        with memoryview(self._pending)[: end + 1] as block:
            taken = self.decode(block)
        if taken:
            self._tail += self._pending[end + 1 :]
            self._pending = bytearray(b"[")
            self.closed = True
        return taken

    def decode(self, block: bytes | memoryview) -> bool:
        """Give the events of a JSON list to the builder; False when it is no JSON list."""
        try:
            if not self._exact:
                if self.builder.add(self._decoders.floats(block), exact=False):
                    return True
                self._exact = True
            self.builder.add(self._decoders.texts(block), exact=True)
        except msgspec.ValidationError:  # JSON, but a field has an odd type somewhere
            try:
                self.builder.add(self._decoders.loosely(block), exact=True)
            except NOT_JSON:
                return False
        except NOT_JSON:
            return False
        return True

    def _salvage(self, *, last: bool) -> None:
        """Take event by event what is malformed somewhere; `last` when no more bytes come."""
        text = bytes(self._pending[1:])
        end = _KINETO_END.search(text) or (_ANY_END.search(text) if KINETO_CUT not in text else None) if last else None
        if end is not None:
            self.closed = True
            self._tail += text[text.index(b"]", end.start()) + 1 :]
            text = text[: text.index(b"]", end.start())]
        pieces = _pieces(text)
        rest = b"" if end is not None else pieces.pop()
        for piece in pieces:
            self._take_piece(piece)
        if last and rest.strip() and self.decode(b"[" + rest.strip() + b"]"):
            rest = b""
        if not last and len(rest) > EVENT_BYTES:
            self.dropped += 1
            rest = b""
        self._pending = bytearray(b"[" + (b"" if last else rest))

    def _take_piece(self, piece: bytes) -> None:
        piece = piece.strip().lstrip(b",").strip()
        if not piece or self.decode(b"[" + piece + b"]"):
            return
        event = repair(piece, self._decoders)
        if event is None:
            self.dropped += 1
        else:
            self.builder.add([event], exact=True)
            self.repaired += 1


def _cuts(pending: bytearray) -> Iterator[int]:
    """Positions of the commas that may stand between two events, best guess first."""
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
    while high > 1 and tries < 32:
        low = max(1, high - window)
        for found in reversed(list(_ANY_CUT.finditer(pending, low, high))[-16:]):
            yield pending.index(b",", found.start())
            tries += 1
        high, window = (low + 64 if low > 1 else 0), window * 4


def _pieces(text: bytes) -> list[bytes]:
    """Split at the boundaries between events; the last piece may be incomplete."""
    if KINETO_CUT in text:
        parts = text.split(KINETO_CUT)
        return [
            (b"{" if number else b"") + part + (b"}" if number < len(parts) - 1 else b"")
            for number, part in enumerate(parts)
        ]
    cuts = [found.end() for found in _EVENT_CUT.finditer(text)]
    return [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]


def _closing_bracket(pending: bytearray) -> int:
    """Position of the `]` that closes the list `pending` starts with; -1 when it has not come."""
    depth = 0
    for found in _TOKEN.finditer(pending):
        token = pending[found.start()]
        if token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
            if depth == 0:
                return found.start()
    return -1
