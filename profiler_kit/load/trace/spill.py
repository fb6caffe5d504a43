"""Load a trace of any size in bounded memory: a path in, a Parquet file with its events out (parquet.py's format).

Row groups are written as soon as they are full; what stays in memory are the distinct strings, the flows and the ids
of launches. The file is what the cache keeps: read_trace reads it whole where there is memory for it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np

from profiler_kit.files import require_file
from profiler_kit.load.cache.parquet import ROW_GROUP, Packer, Writer
from profiler_kit.load.trace import chrome
from profiler_kit.load.trace.blocks import GZIP_MAGIC
from profiler_kit.load.trace.chrome import HINT, ChromeTrace
from profiler_kit.load.trace.columns import INTEGERS, PLAIN, ColumnBuilder, EventColumns
from profiler_kit.load.trace.events import Event
from profiler_kit.load.trace.stream import EventStream
from profiler_kit.progress import Report, silent

MEMORY_PER_JSON: Final = 1.2  # bytes of columns, attribution and frames per byte of JSON (benchmarks/cache.py)
COMPACT_IDS: Final = 1 << 17  # ids of launches are made unique when so many more have come than there were
USUAL_RATIO: Final = 14  # of gzip on a Kineto trace
_CGROUP: Final = Path("/sys/fs/cgroup")


def spill_chrome_trace(
    path: Path | str, file: Path, stamp: Mapping[str, Any], *, arguments: Sequence[str] = (), report: Report = silent
) -> ChromeTrace:
    """Write the trace at `path` to the Parquet `file`; return it with columns of no rows.

    Raises what read_chrome_trace raises, and OSError when `file` cannot be written.
    """
    source = require_file(path, "a chrome trace", HINT)
    events = EventStream(arguments, chrome._argument_keys(arguments))
    with Writer(file, stamp) as writer:
        builder = SpillBuilder(arguments, writer)
        events.builder = builder
        trace = chrome.read_stream(source, events, report)
        packer = Packer(0, only=builder.written)
        writer.finish(packer.pack(trace), packer.arrays)
    return trace


class SpillBuilder(ColumnBuilder):
    """A ColumnBuilder that hands each full row group to a Writer and forgets it."""

    def __init__(self, extra: Sequence[str], writer: Writer) -> None:
        super().__init__(extra)
        self._writer = writer
        self._names = {
            **{name: f"columns.{name}" for name in PLAIN},
            **{name: f"columns.integers.{name}" for name in INTEGERS},
            **{name: f"columns.extra.{name}.codes" for name in extra},
        }

    @property
    def written(self) -> frozenset[str]:
        """The names of the columns in the file, as a Packer calls them."""
        return frozenset(self._names.values())

    def add(self, events: Sequence[Event], *, exact: bool) -> bool:
        """As ColumnBuilder.add."""
        taken = super().add(events, exact=exact)
        while self.rows - self._writer.rows >= ROW_GROUP:
            self._write(ROW_GROUP)
        return taken

    def columns(self) -> EventColumns:
        """Write what is left; the columns returned have no rows."""
        if self.rows > self._writer.rows:
            self._write(self.rows - self._writer.rows)
        return super().columns()

    def _write(self, rows: int) -> None:
        group = {}
        for column, parts in self.parts.items():
            values = np.concatenate(parts)
            group[self._names[column]] = values[:rows]
            self.parts[column] = [values[rows:].copy()]
        self._writer.add(group)
        if sum(map(len, self.launched[1:])) > COMPACT_IDS + sum(map(len, self.launched[:1])):
            self.launched[:] = [np.unique(np.concatenate(self.launched))]


def needed_memory_bytes(path: Path) -> int:
    """About how much memory loading a trace and attributing its events takes."""
    with path.open("rb") as handle:
        packed = handle.read(2) == GZIP_MAGIC
    return int(path.stat().st_size * (USUAL_RATIO if packed else 1) * MEMORY_PER_JSON)


def free_memory_bytes() -> int | None:
    """Memory that can be had without swapping, within the limit of a container; None where Linux does not say."""
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limit, used = (int((_CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        free.append(max(0, limit - used))
    return min(free, default=None)
