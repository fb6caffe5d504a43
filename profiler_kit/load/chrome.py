"""Load a chrome trace in bounded memory: a path in, event columns, metadata and what was lost out.

The decompressed stream is cut at event boundaries into blocks of some 4 MB. `[` + block + `]` parses if and only
if the cut was right (brackets balanced, strings closed), so cuts may be guessed: the decoder proves them. Each
block becomes columns and is dropped, whatever the size of the file.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import msgspec

from profiler_kit.errors import TraceFormatError
from profiler_kit.files import require_file
from profiler_kit.load.blocks import BLOCK_BYTES, Blocks
from profiler_kit.load.columns import ColumnBuilder, EventColumns
from profiler_kit.load.events import NOT_JSON, decode_floats, decode_loosely, decode_texts
from profiler_kit.load.repair import repair
from profiler_kit.progress import Report, silent

HINT: Final = "Record one with profiler_runner, or with torch.profiler's export_chrome_trace."
SEARCH_BYTES: Final = 64 << 20  # `traceEvents` must start, and one event must end, within this many bytes
TAIL_BYTES: Final = 64 << 20  # metadata after the events is kept up to here

_BLANK: Final = b"\xef\xbb\xbf \t\r\n"  # with the byte order mark some editors add
_EVENTS_KEY: Final = re.compile(rb'"traceEvents"\s*:\s*\[')
_LIST: Final = re.compile(rb"(?:\xef\xbb\xbf)?\s*\[")
_KINETO_CUT: Final = b"\n  },\n  {"  # Kineto puts no raw newline into strings, so this is structural
_ANY_CUT: Final = re.compile(rb"\}\s*,\s*\{")
_EVENT_CUT: Final = re.compile(rb'\}(?=\s*,\s*\{\s*"(?:ph|name|cat|pid|tid|ts|dur|id|args)"\s*:)')
_KINETO_END: Final = re.compile(rb"\n  \}\s*\]")
_ANY_END: Final = re.compile(rb"\}\s*\]\s*[,}]")
_OPEN, _CLOSE = frozenset(b"[{"), frozenset(b"]}")
_TOKEN: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)


@dataclass(frozen=True)
class LoadQuality:
    """What the file held and what of it was lost.

    events counts every entry of `traceEvents`, whatever its phase. A truncated file lacks the end of
    `traceEvents`; it is loaded up to its last whole event. repaired events were malformed JSON and could be
    mended; dropped ones could not, are no events, or have a negative or missing duration.
    """

    events: int
    truncated: bool
    repaired_events: int
    dropped_events: int


@dataclass(frozen=True)
class ChromeTrace:
    """The columns of one file, its metadata (every key beside `traceEvents`), and its quality."""

    path: Path
    columns: EventColumns
    metadata: dict[str, Any]
    quality: LoadQuality


def read_chrome_trace(path: Path | str, *, report: Report = silent) -> ChromeTrace:
    """Load `.json`, `.json.gz` or a bare list of events, sorted or not, metadata before or after the events.

    Raises InputError when the file is missing or empty and TraceFormatError when it is no trace, or not one
    whole event of it could be read.
    """
    file = require_file(path, "a chrome trace", HINT)
    blocks = Blocks(file, report=report)
    stream = iter(blocks)
    head, first = _find_events(file, stream)
    events = _EventStream()
    events.feed(first)
    for block in stream:
        events.feed(block)
    events.finish()
    builder = events.builder
    if not builder.spans:
        raise _no_events(file, builder, truncated=not events.closed)
    quality = LoadQuality(
        events=builder.total,
        truncated=not events.closed,
        repaired_events=events.repaired,
        dropped_events=builder.dropped + events.dropped,
    )
    return ChromeTrace(file, builder.columns(), _metadata(head, events.tail), quality)


def _no_events(file: Path, builder: ColumnBuilder, *, truncated: bool) -> TraceFormatError:
    if builder.total > builder.dropped:
        found = f"{builder.total} events but none with a duration (phase X)"
    elif builder.total:
        found = f"a list of {builder.total} values that are no trace events"
    elif truncated:
        found = "a trace that is cut off before its first whole event"
    else:
        found = "a trace without a single event (nothing ran while it was recorded)"
    return TraceFormatError(f"{file}: found {found}, want a chrome trace with events. {HINT}")


def _find_events(file: Path, stream: Iterator[bytes]) -> tuple[bytes, bytes]:
    """Read up to the `[` that opens the events; return what stands before it and what has been read after it."""
    seen = bytearray()
    for block in stream:
        seen += block
        found = _LIST.match(seen) or _EVENTS_KEY.search(seen)
        if found:
            return bytes(seen[: found.end()]), bytes(seen[found.end() :])
        if len(seen) > SEARCH_BYTES or not _may_be_json(seen):
            break
    raise TraceFormatError(
        f"{file}: found {_describe(bytes(seen))}, want a chrome trace: {{'traceEvents': [...]}}. {HINT}"
    )


def _may_be_json(seen: bytearray) -> bool:
    return bytes(seen[:64]).lstrip(_BLANK)[:1] in (b"{", b"")


def _describe(data: bytes) -> str:
    """What a file that is no trace is, for its error message."""
    if data[:1] == b"\x80":
        return "a pickle (a CUDA memory snapshot? Open it with: profiler-kit memory FILE)"
    if not data:
        return "compressed data that cannot be inflated"
    if data[:2] == b"PK":
        return "a zip archive"
    try:
        value = msgspec.json.decode(data)
    except NOT_JSON:
        start = data[:24].decode("utf-8", "replace")
        return f"text that is not JSON, or cut off before its events (it starts with {start!r})"
    if isinstance(value, dict):
        return f"a JSON object with the keys {sorted(value)[:6]}"
    return f"a JSON {type(value).__name__}"


def _metadata(head: bytes, tail: bytes) -> dict[str, Any]:
    """Every key beside `traceEvents`; {} for a bare list, or when neither end of the object can be parsed."""
    if not head.lstrip(_BLANK).startswith(b"{"):
        return {}
    for end in (tail, b"}"):
        try:
            data = msgspec.json.decode(head + b"]" + end)
        except NOT_JSON:
            continue
        return {key: value for key, value in data.items() if key != "traceEvents"} if isinstance(data, dict) else {}
    return {}


@dataclass
class _EventStream:
    """Takes the bytes after the opening `[`, gives events to the builder as soon as they are whole."""

    builder: ColumnBuilder = field(default_factory=ColumnBuilder)
    closed: bool = False
    repaired: int = 0
    dropped: int = 0
    _exact: bool = False
    _pending: bytearray = field(default_factory=lambda: bytearray(b"["))
    _tail: bytearray = field(default_factory=bytearray)

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
        if self._take_whole() or self._take_end() or len(self._pending) < 2 * BLOCK_BYTES:
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
        if rest != b"[" and not self._decode(rest + b"]"):
            self._salvage(last=True)

    def _take_whole(self) -> bool:
        """Take the events before the last cut that the decoder accepts."""
        pending = self._pending
        for cut in _cuts(pending):
            pending[cut] = 0x5D  # `,` becomes `]`: a list without copying
            with memoryview(pending)[: cut + 1] as block:
                taken = self._decode(block)
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
            taken = self._decode(block)
        if taken:
            self._tail += self._pending[end + 1 :]
            self._pending = bytearray(b"[")
            self.closed = True
        return taken

    def _decode(self, block: bytes | memoryview) -> bool:
        """Give the events of a JSON list to the builder; False when it is no JSON list."""
        try:
            if not self._exact:
                if self.builder.add(decode_floats(block), exact=False):
                    return True
                self._exact = True
            self.builder.add(decode_texts(bytes(block)), exact=True)
        except msgspec.ValidationError:  # JSON, but a field has an odd type somewhere
            try:
                self.builder.add(decode_loosely(bytes(block)), exact=True)
            except NOT_JSON:
                return False
        except NOT_JSON:
            return False
        return True

    def _salvage(self, *, last: bool) -> None:
        """Take event by event what is malformed somewhere; `last` when no more bytes come."""
        text = bytes(self._pending[1:])
        end = _KINETO_END.search(text) or (_ANY_END.search(text) if _KINETO_CUT not in text else None) if last else None
        if end is not None:
            self.closed = True
            self._tail += text[text.index(b"]", end.start()) + 1 :]
            text = text[: text.index(b"]", end.start())]
        pieces = _pieces(text)
        rest = b"" if end is not None else pieces.pop()
        for piece in pieces:
            self._take_piece(piece)
        if last and rest.strip() and self._decode(b"[" + rest.strip() + b"]"):
            rest = b""
        if not last and len(rest) > SEARCH_BYTES:
            self.dropped += 1
            rest = b""
        self._pending = bytearray(b"[" + (b"" if last else rest))

    def _take_piece(self, piece: bytes) -> None:
        piece = piece.strip().lstrip(b",").strip()
        if not piece or self._decode(b"[" + piece + b"]"):
            return
        event = repair(piece)
        if event is None:
            self.dropped += 1
        else:
            self.builder.add([event], exact=True)
            self.repaired += 1


def _cuts(pending: bytearray) -> Iterator[int]:
    """Positions of the commas that may stand between two events, best guess first."""
    at = pending.rfind(_KINETO_CUT)
    if at > 0:
        for _ in range(4):
            yield at + _KINETO_CUT.index(b",")
            at = pending.rfind(_KINETO_CUT, 0, at)
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
    if _KINETO_CUT in text:
        parts = text.split(_KINETO_CUT)
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
