"""Write one window of a trace as a chrome trace of its own, for Perfetto.

The events are copied as the text in the source, so that their times line up with it and their arguments
survive; the file is read twice and never held in memory.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from isal import igzip

from profiler_kit.analyses.serving.requests import NO_EVENTS, request_waterfall
from profiler_kit.attribute.regions import attribute
from profiler_kit.errors import InputError, OptionError
from profiler_kit.files import whole_file
from profiler_kit.load.trace.event_text import Scan, copy_events, scan, shifted
from profiler_kit.progress import Report, silent
from profiler_kit.render.perfetto.lanes import spread
from profiler_kit.render.perfetto.tracks import (
    GpuWork,
    counter_events,
    critical_events,
    memory_events,
    process_events,
    region_events,
    request_events,
)
from profiler_kit.render.perfetto.window import Window, of_region, of_time, select, whole
from profiler_kit.units import NS_PER_S

if TYPE_CHECKING:
    import pandas as pd

    from profiler_kit.snapshot import Snapshot

SUFFIXES: Final = (".json", ".json.gz")
_LEVEL: Final = 2  # of isal: as small as zlib's 4, five times as fast


@dataclass(frozen=True)
class Exported:
    """What was written. start_ns and end_ns are the window on the trace's clock, size_bytes the file's size.

    events were copied, arrows and names not counted; memory_samples are those of the added events that tell memory.
    Times are written earlier_ns earlier than the source has them.
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
    earlier_ns: int = 0


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
    served: pd.DataFrame | None = None,
    critical: pd.DataFrame | None = None,
    must_overlap: bool = False,
    report: Report = silent,
) -> Exported:
    """Write the part of a trace that one instance of a region, or a stretch of time, takes up.

    region: a name, a path ("outer > inner") or a step ("ProfilerStep#3"); instance: which of its instances, by start.
    time_ns: start and end after the trace's first event (no end: to the last). Without either the whole trace.
    stream: of what ran on a GPU only this. counters: add queue length and GPU events running. snapshot: add allocated
    and reserved bytes of each device; with must_overlap it is an error when it tells nothing of the window. served: add
    the requests of SERVED with their stages, a track for each that others overlap. critical: add CRITICAL_PATH as a
    track. Regions on the GPU are always added,
    one track per stream.

    events counts what was copied: all that overlaps the window, GPU work launched in it, launches of that work, and
    arrows with both ends kept. Their times stay as they are, unless they count nanoseconds from 1970, which Perfetto
    reads as floats, 256 ns apart: those move by whole seconds from `ts` to `baseTimeNanoseconds`. `out` ends in .json
    or .json.gz and is written whole or not at all.

    Raises OptionError for an unknown region, instance or stream, for a window without events and an `out` that
    cannot be; InputError and TraceFormatError as load_trace does, InputError for a snapshot of another time.
    """
    target = _checked(path, out)
    if region is not None and time_ns is not None:
        raise OptionError(f"--region {region!r} and --time: found two windows, expected one. Leave out one of them.")
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
    earlier_ns = window.start_ns // NS_PER_S * NS_PER_S if found.beyond_floats else 0
    samples = 0
    with whole_file(target) as temporary, _open(temporary, earlier_ns) as writer:
        writer.head(found, window)
        texts = zip(chosen.numbers.tolist(), copy_events(found, chosen.numbers, report=report), strict=True)
        writer.events(lanes.move(number, text) for number, text in texts)
        added = writer.events(itertools.chain(lanes.metadata, region_events(work, attribution, window)))
        if served is not None:
            added += writer.events(request_events(request_waterfall(served, found.base_ns, *NO_EVENTS), shown))
        if critical is not None:
            added += writer.events(critical_events(critical, shown))
        devices = {*work.devices, *(() if snapshot is None else snapshot.devices)}
        if counters or snapshot is not None:
            added += writer.events(process_events(sorted(devices), work.processes))
        if counters:
            added += writer.events(counter_events(work, shown))
        if snapshot is not None:
            samples = writer.events(memory_events(snapshot, found.base_ns, shown))
            if must_overlap and not samples:
                raise InputError(
                    f"{snapshot.path}: recorded at another time than {path} ({window.label}), "
                    "expected the memory snapshot of that time. "
                    "Record both at once: memory_runner inside profiler_runner."
                )
        writer.end()
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
        earlier_ns=earlier_ns,
    )


def _checked(path: str | Path, out: str | Path) -> Path:
    target = Path(out)
    if not target.name.endswith(SUFFIXES):
        raise OptionError(
            f"{target}: cannot tell the format of {target.name!r}, expected a name that ends in .json.gz."
        )
    if target.exists() and target.resolve() == Path(path).resolve():
        raise OptionError(f"{target}: the export would replace its own source. Choose another name with --output.")
    return target


class _Writer:
    """Writes a chrome trace event by event; times are written `earlier_ns` earlier, the base time as much later."""

    def __init__(self, out: BinaryIO | igzip.IGzipFile, earlier_ns: int) -> None:
        self._out = out
        self._earlier_ns = earlier_ns
        self._between = b""

    def head(self, found: Scan, window: Window) -> None:
        """Write everything up to the first event: the source's metadata, and where this was cut from."""
        cut = {"source": found.path.name, "window": window.label, "startNs": window.start_ns, "endNs": window.end_ns}
        metadata = {**found.metadata, "profilerKit": cut}
        if self._earlier_ns:
            metadata["baseTimeNanoseconds"] = found.base_ns + self._earlier_ns
        text = json.dumps(metadata, ensure_ascii=False, indent=1)
        self._out.write(text[: -len("\n}")].encode() + b',\n "traceEvents": [\n')

    def events(self, texts: Iterable[bytes]) -> int:
        """Write events; return how many."""
        count = 0
        for text in texts:
            self._out.write(self._between + (shifted(text, self._earlier_ns) if self._earlier_ns else text))
            self._between = b",\n"
            count += 1
        return count

    def end(self) -> None:
        """Close the list and the object."""
        self._out.write(b"\n ]\n}\n")


@contextmanager
def _open(path: Path, earlier_ns: int) -> Iterator[_Writer]:
    with path.open("wb", buffering=1 << 20) as raw:
        if path.name.endswith(".gz"):
            with igzip.IGzipFile(fileobj=raw, mode="wb", compresslevel=_LEVEL, mtime=0) as packed:
                yield _Writer(packed, earlier_ns)
        else:
            yield _Writer(raw, earlier_ns)
