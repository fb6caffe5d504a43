"""Load a trace once (from the cache afterwards), and traces of any size in bounded memory, their columns in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import numpy as np

from profiler_kit.errors import InputError
from profiler_kit.files import require_file, temporary_folder
from profiler_kit.load import cache
from profiler_kit.load.integers import narrowed, widest
from profiler_kit.load.trace import chrome
from profiler_kit.load.trace.chrome import HINT, ChromeTrace, LoadQuality, argument_keys, read_chrome_trace
from profiler_kit.load.trace.column_builder import INTEGERS, PLAIN, ColumnBuilder, distinct_rows
from profiler_kit.load.trace.columns import EventColumns, TextColumn
from profiler_kit.load.trace.decompress import text_bytes_about
from profiler_kit.load.trace.dialect import translated
from profiler_kit.load.trace.native import scanner_for
from profiler_kit.load.trace.split_events import EventStream
from profiler_kit.progress import Report, silent

T = TypeVar("T")

# Below this much JSON a load is too fast to notice (benchmarks/cache.py), and nothing is kept; but many of them are
# noticed: of so much each is kept once loading such took this long in this process.
SMALLEST_JSON_BYTES: Final = 16 << 20
SMALL_JSON_BYTES: Final = 1 << 20
MANY_SMALL_S: Final = 0.2
MEMORY_PER_JSON: Final = 1.2  # bytes of columns, attribution and frames per byte of JSON (benchmarks/cache.py)
SPILL_ROWS: Final = 1 << 17  # that the native reader keeps in memory
COMPACT_IDS: Final = 1 << 17  # ids of launches are made unique when so many more have come than there were
_CGROUP: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class _Stored:
    """A ChromeTrace as it is kept; the metadata as JSON, which may hold integers of any size."""

    columns: EventColumns
    metadata: str
    quality: LoadQuality


TRACES: Final = cache.Kind[ChromeTrace](
    "trace",
    _Stored,
    ("load/trace/*.py", "load/trace/native/*.py", "load/trace/native/*.[ch]"),
    pack=lambda trace: _Stored(trace.columns, json.dumps(trace.metadata), trace.quality),
    unpack=lambda kept, file: ChromeTrace(file, kept.columns, json.loads(kept.metadata), kept.quality),
)


def load_chrome_trace(path: Path | str, *, arguments: Sequence[str] = (), report: Report = silent) -> ChromeTrace:
    """What read_chrome_trace gives, from the cache when it can; a large trace, or one of many, is then kept there.

    Raises what read_chrome_trace raises, and OptionError when PROFILER_KIT_CACHE_LIMIT is not a size.
    """
    file = require_file(path, "a chrome trace", HINT)
    entry = find_trace(TRACES, file, arguments)

    def read() -> ChromeTrace:
        return read_chrome_trace(file, arguments=arguments, report=report)

    return cache.load(entry, read) if entry is not None else _load_small(file, arguments, read)


_small_s: Final = [0.0]  # that loading small traces has taken


def _load_small(file: Path, arguments: Sequence[str], read: Callable[[], ChromeTrace]) -> ChromeTrace:
    entry = cache.find(TRACES, file, arguments) if text_bytes_about(file) >= SMALL_JSON_BYTES else None
    found = cache.read(entry)
    if found is None:
        since = time.perf_counter()
        found = cache.load(entry if _small_s[0] >= MANY_SMALL_S else None, read)
        _small_s[0] += time.perf_counter() - since
    return found


def find_trace(kind: cache.Kind[T], file: Path, arguments: Sequence[str] = ()) -> cache.Entry[T] | None:
    """The cache file of a trace, existing or not; None without a cache, or when the trace is too small for it."""
    entry = cache.find(kind, file, arguments)
    with contextlib.suppress(OSError):
        return entry if entry is not None and text_bytes_about(file) >= SMALLEST_JSON_BYTES else None
    return None


@dataclass(frozen=True)
class Spilled:
    """A trace whose arrays are in a file and are read when they are touched (load.cache.read_file, mapped)."""

    file: Path
    trace: ChromeTrace


@contextlib.contextmanager
def spilled_trace(path: Path | str, *, arguments: Sequence[str] = (), report: Report = silent) -> Iterator[Spilled]:
    """The columns of a trace in a file, made in bounded memory.

    It is the cache's file where there is one or one can be kept; otherwise a temporary file, gone afterwards.

    Raises what read_chrome_trace raises, and InputError when there is no room for the file.
    """
    file = require_file(path, "a chrome trace", HINT)
    entry = find_trace(TRACES, file, arguments)
    stamp = entry.stamp if entry is not None else {}
    with temporary_folder() as folder:
        target = folder / "events.trace"
        found = None
        with contextlib.suppress(cache.NotOurs, OSError):
            if entry is not None:
                found = TRACES.unpack(cache.read_file(entry.file, TRACES, stamp, mapped=True), file)
                cache.touch(entry.file)
        with contextlib.suppress(OSError):
            if entry is not None and (found is not None or entry.settled):
                entry.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                target = entry.file
        if found is None:
            try:
                with cache.whole_entry(target) as temporary:
                    spill_chrome_trace(file, temporary, stamp, arguments=arguments, report=report)
            except OSError as error:
                cause = error.__cause__ if isinstance(error.__cause__, OSError) else error  # of files.OutputError
                raise InputError(
                    f"{file}: its events do not fit into {target.parent} ({cause.strerror}), expected room for about "
                    f"a fifth of the JSON. Name another folder in {cache.FOLDER_VARIABLE}."
                ) from error
            if entry is not None and target == entry.file:
                cache.make_room(target.parent, cache.limit_bytes(), spare=target)
            found = TRACES.unpack(cache.read_file(target, TRACES, stamp, mapped=True), file)
        yield Spilled(target, dataclasses.replace(found, columns=translated(found.columns)))


def spill_chrome_trace(
    path: Path | str, file: Path, stamp: dict[str, Any], *, arguments: Sequence[str] = (), report: Report = silent
) -> ChromeTrace:
    """Write the trace at `path` to `file` as the cache keeps it; return it with columns of no rows.

    What stays in memory are the distinct strings, the flows and the ids of launches.

    Raises what read_chrome_trace raises, and OSError when `file` cannot be written.
    """
    source = require_file(path, "a chrome trace", HINT)
    keys = argument_keys(arguments)
    scanner = scanner_for(arguments, keys, 0)
    if scanner is not None:
        scanner.most_rows = SPILL_ROWS
    events = EventStream(arguments, keys, scanner)
    with tempfile.TemporaryFile(dir=file.parent) as scratch:
        builder = events.builder = SpillBuilder(arguments, scratch)
        trace = chrome.read_stream(source, events, report)
        cache.write_file(file, TRACES, stamp, dataclasses.replace(trace, columns=builder.in_pieces(trace.columns)))
    return trace


class SpillBuilder(ColumnBuilder):
    """A ColumnBuilder that moves its parts to a scratch file each time it would make them narrow."""

    def __init__(self, extra: Sequence[str], scratch: IO[bytes]) -> None:
        super().__init__(extra)
        self._scratch = scratch
        self._written: dict[str, list[tuple[np.dtype[Any], int, int]]] = {name: [] for name in self.parts}

    def take_rows(self, columns: dict[str, Any], rows: int, events: int) -> None:
        """As ColumnBuilder's; these are many."""
        super().take_rows(columns, rows, events)
        self._spill()

    def _spill(self) -> None:
        """Leave nothing in memory."""
        if self._wide:
            self._narrow()

    def columns(self) -> EventColumns:
        """As ColumnBuilder's, without rows."""
        self._spill()
        return super().columns()

    def _narrow(self) -> None:
        super()._narrow()
        for column, parts in self.parts.items():
            values = narrowed(np.concatenate(parts)) if parts else np.zeros(0, np.int8)
            self._written[column].append((values.dtype, len(values), self._scratch.tell()))
            self._scratch.write(np.ascontiguousarray(values).data)
            parts.clear()
        if sum(map(len, self.launched[1:])) > COMPACT_IDS + sum(map(len, self.launched[:1])):
            self.launched[:] = [distinct_rows(self.launched)]

    def in_pieces(self, empty: EventColumns) -> Any:
        """The columns without rows that `columns` gave, each replaced by its part of the scratch file."""
        extra = {name: TextColumn(self._pieces(name, np.int32), text.values) for name, text in empty.extra.items()}  # type: ignore[arg-type]  # arrays in pieces stand for whole ones
        integers = {name: self._pieces(name, np.int64) for name in INTEGERS}
        plain: dict[str, Any] = {
            name: self._pieces(name, np.int64 if name.endswith("_ns") else np.int32) for name in PLAIN
        }
        return dataclasses.replace(empty, **plain, integers=integers, extra=extra)  # type: ignore[arg-type]  # arrays in pieces stand for whole ones

    def _pieces(self, column: str, dtype: type) -> cache.Pieces:
        places = self._written[column]

        def make() -> Iterator[Any]:
            for stored, count, at in places:
                self._scratch.seek(at)
                yield np.frombuffer(self._scratch.read(count * stored.itemsize), stored)

        return cache.Pieces(widest(stored for stored, _, _ in places), dtype, self.rows, make)


def needed_memory_bytes(path: Path) -> int:
    """About how much memory loading a trace and attributing its events takes."""
    return int(text_bytes_about(path) * MEMORY_PER_JSON)


def free_memory_bytes() -> int | None:
    """Memory that can be had without swapping, within the limit of a container; None where Linux does not say."""
    free: list[int] = []
    with contextlib.suppress(OSError, ValueError, StopIteration):
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
        free.append(int(next(line for line in lines if line.startswith("MemAvailable:")).split()[1]) << 10)
    with contextlib.suppress(OSError, ValueError):  # "max" is not a number
        limit, used = (int((_CGROUP / f"memory.{name}").read_text(encoding="ascii")) for name in ("max", "current"))
        free.append(max(0, limit - used))
    return min(free, default=None)
