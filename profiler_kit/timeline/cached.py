"""Build the drawing index of a trace once: afterwards it is mapped from the cache, and the trace need not be loaded."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from profiler_kit.formats.run_record import REQUESTS
from profiler_kit.load import cache
from profiler_kit.load.discover.runs import part_file
from profiler_kit.load.trace.cached import find_trace
from profiler_kit.timeline.build import build_timeline
from profiler_kit.timeline.index import Timeline
from profiler_kit.trace import Trace

SLOW_S: Final = 1.0  # what takes less is built again
TIMELINES: Final = cache.Kind[Timeline](
    "timeline",
    Timeline,
    (
        "load/trace/**/*.py",
        "load/trace/native/*.[ch]",
        "attribute/**/*.py",
        "analyses/gpu/*.py",
        "analyses/serving/requests.py",
        "timeline/*.py",
        "*.py",
    ),
    pack=lambda timeline: timeline,
    unpack=lambda timeline, _: timeline,
    mapped=True,
)


def trace_timeline(path: Path, trace: Callable[[], Trace]) -> Timeline:
    """The timeline of a trace file: from the cache when it can, else built from `trace()` and kept if that is slow."""
    entry = _entry(path)
    found = cache.read(entry)
    if found is not None:
        return found
    loaded = trace()
    since = time.perf_counter()
    frames = (loaded.gpu_events(), loaded.region_instances(), loaded.operators(), loaded.launch_calls())
    lanes = (loaded.python_calls(), loaded.critical_path_known())
    built = build_timeline(*frames, loaded.threads, *lanes, loaded.event_categories())
    return cache.keep(entry, built) if time.perf_counter() - since > SLOW_S else built


def _entry(path: Path) -> cache.Entry[Timeline] | None:
    """Its place in the cache; the critical path is cut where a server had no request, so that file counts too."""
    file = part_file(path.parent, REQUESTS)
    found = file.stat() if file is not None else None
    return find_trace(TIMELINES, path, () if found is None else (f"{found.st_size} {found.st_mtime_ns}",))


def has_timeline(path: Path) -> bool:
    """Whether the timeline of a trace can be had from the cache."""
    return cache.read(_entry(path)) is not None
