"""What a trace file is, as bytes: its layout, its sizes, and how many events of each category it holds.

`python -m profiler_kit.load.trace.file_facts TRACE` puts these facts into the cache. The dashboard starts it when a
large trace is loaded, so that Doctor finds them there: in a process of its own with low priority, since the same work
in a thread would delay every page that is drawn meanwhile.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from operator import attrgetter
from pathlib import Path
from typing import Final, Literal

import msgspec

from profiler_kit.errors import KitError
from profiler_kit.files import require_file
from profiler_kit.load import cache
from profiler_kit.load.trace.cached import find_trace
from profiler_kit.load.trace.categories import current
from profiler_kit.load.trace.chrome import HINT, find_events
from profiler_kit.load.trace.column_builder import ColumnBuilder
from profiler_kit.load.trace.decode import NOT_JSON, Event
from profiler_kit.load.trace.decompress import Blocks
from profiler_kit.load.trace.split_events import EventStream
from profiler_kit.progress import Report, silent

Layout = Literal["kineto", "indented", "compact"]

HEAD_BYTES: Final = 1 << 20
_FIRST_EVENT: Final = re.compile(rb"\[\s*\{(?P<inside>\s*)")
_KINETO_EVENT: Final = re.compile(rb'\n  \{\n    "\w+": "[^"\n]*", "')  # several keys on the first line
_SHAPES: Final = re.compile(rb'"Input [Dd]ims"')
_STACKS: Final = b'"Call stack"'


@dataclass(frozen=True)
class FileFacts:
    """counts: all events by category (old names translated) and phase, also those that the loader does not keep.

    packing: how it is compressed ("gzip", "gzip in zstd"), "" when it is not. bare_list: the file is a list of
    events without an object around it. encoding: utf-16 has a byte order mark. has_shapes, has_stacks: whether any
    event has `Input Dims`, or `Call stack` (old traces keep stacks there).
    """

    path: Path
    size_bytes: int
    text_bytes: int
    compressed: bool
    packing: str
    damaged_compression: bool
    encoding: Literal["utf-8", "utf-16"]
    layout: Layout
    bare_list: bool
    counts: dict[tuple[str, str], int]
    has_shapes: bool
    has_stacks: bool

    def of_category(self, category: str) -> int:
        """Events of that category, of every phase."""
        return sum(count for (found, _), count in self.counts.items() if found == category)


FACTS: Final = cache.Kind[FileFacts](
    "facts",
    FileFacts,
    ("load/trace/*.py",),
    pack=lambda facts: facts,
    unpack=lambda facts, file: dataclasses.replace(facts, path=file),
)


def load_file_facts(path: Path | str, *, report: Report = silent) -> FileFacts:
    """What read_file_facts gives, from the cache when it can; those of a large trace are kept there afterwards.

    Raises what read_file_facts raises.
    """
    file = require_file(path, "a chrome trace", HINT)
    return cache.load(find_trace(FACTS, file), lambda: read_file_facts(file, report=report))


class _Kind(msgspec.Struct, gc=False):
    ph: str = ""
    cat: str = ""


_KINDS: Final = msgspec.json.Decoder(list[_Kind])
_OF_KIND: Final = attrgetter("cat", "ph")


class _Counts(ColumnBuilder):
    """Counts the events that were mended; the others never become columns."""

    def __init__(self, counts: Counter[tuple[str, str]]) -> None:
        super().__init__()
        self._counts = counts

    def add(self, events: Sequence[Event], *, exact: bool) -> bool:
        """Count them."""
        self._counts.update(map(_OF_KIND, events))
        return True


class _CountStream(EventStream):
    """Cuts the stream as the loader does, only counts, and looks at the text in passing."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[tuple[str, str]] = Counter()
        self.builder = _Counts(self.counts)
        self.text_bytes = 0
        self.layout: Layout = "compact"
        self.shapes = self.stacks = False
        self._last = b""

    def feed(self, data: bytes) -> None:
        """As EventStream's."""
        if not self.text_bytes:
            self.layout = layout_of(b"[" + data[:HEAD_BYTES])
        self.text_bytes += len(data)
        text = self._last + data  # a key may begin in the block before
        self.shapes = self.shapes or _SHAPES.search(text) is not None
        self.stacks = self.stacks or _STACKS in text
        self._last = data[-32:]
        super().feed(data)

    def decode(self, block: bytes | memoryview) -> bool:
        """As EventStream's."""
        try:
            self.counts.update(map(_OF_KIND, _KINDS.decode(block)))
        except msgspec.ValidationError:
            return super().decode(block)
        except NOT_JSON:
            return False
        return True


def read_file_facts(path: Path, *, report: Report = silent) -> FileFacts:
    """Read the whole file once, in bounded memory.

    Raises TraceFormatError when it has no list of events.
    """
    blocks = Blocks(path, report=report)
    head, rest = find_events(path, iter(blocks))
    events = _CountStream()
    events.tick = blocks.tick
    events.feed_all(rest)
    counts: Counter[tuple[str, str]] = Counter()
    for (category, phase), count in events.counts.items():
        counts[current(category), phase] += count
    return FileFacts(
        path=path,
        size_bytes=path.stat().st_size,
        text_bytes=len(head) + events.text_bytes,
        compressed=bool(blocks.packing),
        packing=" in ".join(reversed(blocks.packing)),
        damaged_compression=blocks.cut_off,
        encoding="utf-16" if blocks.utf16 else "utf-8",
        layout=events.layout,
        bare_list=b"{" not in head,
        counts=dict(counts),
        has_shapes=events.shapes,
        has_stacks=events.stacks,
    )


def layout_of(events: bytes) -> Layout:
    """How the text from the opening `[` on is laid out: as Kineto writes it, one event a line or less, or indented."""
    if _KINETO_EVENT.search(events):
        return "kineto"
    found = _FIRST_EVENT.search(events)
    return "indented" if found and b"\n" in found["inside"] else "compact"


def main() -> None:
    """Put the facts of the file named on the command line into the cache; errors are left to their reader."""
    with contextlib.suppress(OSError, AttributeError):  # not on every system
        os.nice(10)
    with contextlib.suppress(KitError, OSError):
        load_file_facts(Path(sys.argv[1]))
    cache.finish()


if __name__ == "__main__":
    main()
