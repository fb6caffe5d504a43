"""Choose which events an export of one window copies.

What is kept: every event that overlaps the window, on all threads and streams; GPU work launched from inside it,
whenever that runs; the launch of every GPU event kept, whenever that was called; arrows with both ends on events
kept; and all names and sort indices of processes and threads. Only the profiler's own bar over the whole recording is
left out of a window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np

from profiler_kit.attribute.links import NONE
from profiler_kit.attribute.regions import Attribution
from profiler_kit.attribute.span_forest import ROOT, build_forest, outer_first
from profiler_kit.errors import OptionError
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import OPERATOR, REGION, STEP_PREFIX, is_launch
from profiler_kit.load.trace.event_text import FLOW_PHASES, Scan
from profiler_kit.text import fmt_ns

_HOST: Final = frozenset({OPERATOR, REGION, "python_function"})
_RECORDING: Final = "Trace"
_NAMES_SHOWN: Final = 12


@dataclass(frozen=True)
class Window:
    """A stretch of the trace's own time, [start_ns, end_ns)."""

    start_ns: int
    end_ns: int
    label: str


@dataclass(frozen=True)
class Selection:
    """numbers of the events to copy, ascending; the spans and arrows among them as masks over the scan's.

    gpu_events counts the GPU work kept, last_gpu_end_ns says when it ends (the window's end without any).
    """

    numbers: I64
    spans: Mask
    arrows: Mask
    gpu_events: int
    last_gpu_end_ns: int


def extent(found: Scan) -> tuple[int, int]:
    """First start and last end of the trace."""
    return int(found.spans.start_ns.min()), int(found.spans.end_ns.max())


def whole(found: Scan) -> Window:
    """The whole trace."""
    first, last = extent(found)
    moments = found.moments[:, 1]
    first = int(moments.min(initial=first))
    return Window(first, int(moments.max(initial=last)) + 1, "whole trace")


def of_time(found: Scan, start_ns: int, end_ns: int | None) -> Window:
    """From start_ns to end_ns after the trace's first event; to the end without end_ns.

    Raises OptionError when nothing happened then.
    """
    first, last = extent(found)
    until = "the end" if end_ns is None else fmt_ns(end_ns, "ms")
    stop = last + 1 if end_ns is None else first + end_ns
    window = Window(first + start_ns, stop, f"{fmt_ns(start_ns, 'ms')} to {until}")
    if not _overlapping(found, window).any():
        raise OptionError(
            f"--time {window.label}: nothing happened then in {found.path}, which lasts from 0 to "
            f"{fmt_ns(last - first, 'ms')}. Choose a time inside."
        )
    return window


def of_region(found: Scan, attribution: Attribution, region: str, instance: int) -> Window:
    """One instance of a region: from its start on the host to its end there or the end of the GPU work it launched.

    region is a name, a path ("outer > inner") or one step ("ProfilerStep#3"); instances count from 0, by start.
    Raises OptionError for a region or an instance that is not there.
    """
    table = attribution.instances
    paths = [attribution.paths[number] for number in table.path.tolist()]
    rows = [
        row
        for row, path in enumerate(paths)
        if region in (path[-1], " > ".join(path)) or region == f"{STEP_PREFIX}{table.step[row]}"
    ]
    if not rows:
        names = sorted({path[-1] for path in paths})
        more = len(names) - _NAMES_SHOWN
        shown = ", ".join(names[:_NAMES_SHOWN]) + (f" and {more} more" if more > 0 else "")
        raise OptionError(
            f"{found.path}: no region {region!r}, found {shown or 'no regions at all'}. "
            "Choose one of these, or a stretch of time with --time START:END."
        )
    if not 0 <= instance < len(rows):
        raise OptionError(
            f"--instance {instance}: region {region!r} has {len(rows)} in {found.path}, expected 0 to {len(rows) - 1}."
        )
    row = sorted(rows, key=lambda one: (int(table.start_ns[one]), one))[instance]
    end, gpu_end = int(table.end_ns[row]), int(table.gpu_end_ns[row])
    return Window(int(table.start_ns[row]), max(end, gpu_end) + 1, f"{region} (instance {instance} of {len(rows)})")


def streams_of(found: Scan) -> list[int]:
    """Streams with GPU work, ascending."""
    known = np.unique(found.spans.stream[_on_gpu(found)])
    return [stream for stream in known.tolist() if stream != MISSING]


def select(found: Scan, attribution: Attribution, window: Window, stream: int | None) -> Selection:
    """The events of a window; with a stream, of what ran on a GPU only that stream's.

    Raises OptionError for a stream that is not there and for a window without events.
    """
    if stream is not None and stream not in streams_of(found):
        known = ", ".join(str(one) for one in streams_of(found))
        hint = f"found {known}. Choose one of these." if known else "found no GPU events at all."
        raise OptionError(f"--stream {stream}: not in {found.path}, {hint}")
    spans = found.spans
    inside = _overlapping(found, window)
    keep = inside & ~_recording_beyond(found, window)
    if stream is not None:
        keep &= ~_on_gpu(found) | (spans.stream == stream)
    gpu, launch = found.columns_span[attribution.event], attribution.launch
    linked = launch != NONE
    launch = found.columns_span[np.where(linked, launch, 0)] if len(gpu) else launch
    wanted = inside[gpu] | (linked & inside[launch])
    if stream is not None:
        wanted &= spans.stream[gpu] == stream
    keep[gpu[wanted]] = True
    keep[launch[wanted & linked]] = True
    if not keep.any():
        raise OptionError(
            f"{found.path}: nothing happened in {window.label} on stream {stream}. "
            "Choose a longer window or another stream."
        )
    moments = found.moments[(found.moments[:, 1] >= window.start_ns) & (found.moments[:, 1] < window.end_ns), 0]
    arrows = _complete_arrows(found, keep)
    numbers = (spans.number[keep], spans.last[keep], moments, found.flows.number[arrows], found.metadata_events)
    last = int(spans.end_ns[gpu[wanted]].max()) if wanted.any() else window.end_ns
    return Selection(np.unique(np.concatenate(numbers)), keep, arrows, int(wanted.sum()), last)


def _overlapping(found: Scan, window: Window) -> Mask:
    """Spans inside or across an edge; one without a duration counts where it starts."""
    start, end = found.spans.start_ns, found.spans.end_ns
    return np.asarray((start < window.end_ns) & ((end > window.start_ns) | (start == window.start_ns)), dtype=bool)


def _recording_beyond(found: Scan, window: Window) -> Mask:
    """The profiler's own bars over the recording, unless they fit: they would set the scale Perfetto opens with."""
    spans = found.spans
    fits = (spans.start_ns >= window.start_ns) & (spans.end_ns <= window.end_ns)
    return np.asarray(found.of_category(lambda category: category == _RECORDING) & ~fits, dtype=bool)


def _on_gpu(found: Scan) -> Mask:
    """Spans on a stream: GPU work, echoes of regions, waiting. Host events may name a stream as well (ROCm)."""
    host = found.of_category(lambda category: category in _HOST or is_launch(category))
    return np.asarray(~host & (found.spans.stream != MISSING), dtype=bool)


def _complete_arrows(found: Scan, keep: Mask) -> Mask:
    """Starts, steps and ends of arrows attached to kept events, where both a start and an end are."""
    flows, spans = found.flows, found.spans
    if not len(flows.number):
        return np.zeros(0, dtype=bool)
    start = spans.start_ns[keep]
    end = np.maximum(spans.end_ns[keep], start + 1)  # an arrow may point at a kernel without a duration
    forest = build_forest(spans.thread[keep].astype(np.int64), start, end, outer_first(start, end, spans.number[keep]))
    attached = forest.innermost(flows.thread, flows.time_ns) != ROOT
    _, arrow = np.unique(np.column_stack((flows.kind, flows.id)), axis=0, return_inverse=True)
    arrow = arrow.reshape(-1)
    begins, ends = (np.zeros(int(arrow.max()) + 1, dtype=bool) for _ in range(2))
    begins[arrow[attached & (flows.phase == FLOW_PHASES.index("s"))]] = True
    ends[arrow[attached & (flows.phase == FLOW_PHASES.index("f"))]] = True
    return np.asarray(attached & begins[arrow] & ends[arrow], dtype=bool)
