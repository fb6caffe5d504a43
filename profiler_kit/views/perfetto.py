"""Write one window of a trace as a trace of its own: a path and a window in, a chrome trace for Perfetto out.

The events are copied as their text stands in the source, so that their times line up with it and their arguments
survive; the file is read twice and never held in memory.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final, Protocol

from isal import igzip

from profiler_kit.attribute import attribute
from profiler_kit.errors import OptionError
from profiler_kit.files import whole_file
from profiler_kit.load.source import Scan, copy_events, scan
from profiler_kit.progress import Report, silent
from profiler_kit.views.perfetto_lanes import spread
from profiler_kit.views.perfetto_tracks import GpuWork, counter_events, memory_events, process_events, region_events
from profiler_kit.views.perfetto_window import Window, of_region, of_time, select, whole

if TYPE_CHECKING:
    from profiler_kit.snapshot import Snapshot

SUFFIXES: Final = (".json", ".json.gz")
_LEVEL: Final = 2  # of isal: as small as zlib's 4, five times as fast


@dataclass(frozen=True)
class Exported:
    """What was written. start_ns and end_ns are the window on the trace's clock, size_bytes the file's size.

    events were copied, arrows and names not counted; memory_samples are those of the added events that tell memory.
    """

    path: Path
    label: str
    start_ns: int
    end_ns: int
    events: int
    gpu_events: int
    added_events: int
    memory_samples: int
    size_bytes: int


class _Writer(Protocol):
    def write(self, data: bytes, /) -> int: ...


def export_window(
    path: str | Path,
    out: str | Path,
    *,
    region: str | None = None,
    instance: int = 0,
    time_ns: tuple[int, int | None] | None = None,
    stream: int | None = None,
    counters: bool = False,
    snapshot: Snapshot | None = None,
    report: Report = silent,
) -> Exported:
    """Write the part of a trace that one instance of a region, or a stretch of time, takes up.

    region: a name, a path ("outer > inner") or a step ("ProfilerStep#3"); instance: which of its instances, by start.
    time_ns: start and end after the trace's first event (no end: to the last). Without either the whole trace.
    stream: of what ran on a GPU only this. counters: add queue length and GPU events running; with a snapshot of the
    same run also its memory. Regions on the GPU are always added, one track per stream.

    events counts what was copied: all that overlaps the window, GPU work launched in it, launches of that work, and
    arrows with both ends kept. `out` ends in .json or .json.gz and is written whole or not at all.

    Raises OptionError for an unknown region, instance or stream, for a window without events and an `out` that
    cannot be; InputError and TraceFormatError as load_trace does.
    """
    target = _checked(path, out)
    if region is not None and time_ns is not None:
        raise OptionError(f"--region {region!r} and --time: two windows, want one. Leave one of them away.")
    found = scan(path, report=report)
    attribution = attribute(found.columns)
    if region is not None:
        window = of_region(found, attribution, region, instance)
    else:
        window = whole(found) if time_ns is None else of_time(found, *time_ns)
    chosen = select(found, attribution, window, stream)
    work = GpuWork.of(found, attribution, stream)
    shown = replace(window, end_ns=max(window.end_ns, chosen.last_gpu_end_ns + 1))
    lanes = spread(found, chosen.spans, chosen.arrows)
    samples = 0
    with whole_file(target) as temporary, _open(temporary) as writer:
        writer.write(_head(found, window))
        texts = zip(chosen.numbers.tolist(), copy_events(found, chosen.numbers, report=report), strict=True)
        _write(writer, (lanes.move(number, text) for number, text in texts), first=True)
        added = _write(writer, itertools.chain(lanes.metadata, region_events(work, attribution, window)), first=False)
        if counters:
            tracks = itertools.chain(process_events(work.devices), counter_events(work, shown))
            added += _write(writer, tracks, first=False)
        if counters and snapshot is not None:
            samples = _write(writer, memory_events(snapshot, found.base_ns, shown), first=False)
        writer.write(b"\n ]\n}\n")
    return Exported(
        path=target,
        label=window.label,
        start_ns=window.start_ns,
        end_ns=window.end_ns,
        events=int(chosen.spans.sum()),
        gpu_events=chosen.gpu_events,
        added_events=added + samples,
        memory_samples=samples,
        size_bytes=target.stat().st_size,
    )


def _head(found: Scan, window: Window) -> bytes:
    """Everything up to the first event: the source's metadata, and where this was cut from."""
    cut = {"source": found.path.name, "window": window.label, "startNs": window.start_ns, "endNs": window.end_ns}
    text = json.dumps({**found.metadata, "profilerKit": cut}, ensure_ascii=False, indent=1)
    return text[: -len("\n}")].encode() + b',\n "traceEvents": [\n'


def _checked(path: str | Path, out: str | Path) -> Path:
    target = Path(out)
    if not target.name.endswith(SUFFIXES):
        raise OptionError(f"{target}: cannot tell the format of {target.name!r}, want a name that ends in .json.gz.")
    if target.exists() and target.resolve() == Path(path).resolve():
        raise OptionError(f"{target}: the export would replace its own source. Choose another name with --output.")
    return target


def _write(writer: _Writer, texts: Iterator[bytes], *, first: bool) -> int:
    """Write events with commas between; return how many. `first` where no event stands before them."""
    count = 0
    for text in texts:
        writer.write(text if first and not count else b",\n" + text)
        count += 1
    return count


@contextmanager
def _open(path: Path) -> Iterator[_Writer]:
    if path.name.endswith(".gz"):
        with path.open("wb") as raw, _packed(raw) as packed:
            yield packed
    else:
        with path.open("wb", buffering=1 << 20) as plain:
            yield plain


def _packed(raw: BinaryIO) -> igzip.IGzipFile:
    return igzip.IGzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0)  # type: ignore[no-untyped-call]
