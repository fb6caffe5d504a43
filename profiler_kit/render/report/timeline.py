"""A picture of the whole timeline, small at any number of spans."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np
from markupsafe import Markup

from profiler_kit.kernel_name import short_kernel
from profiler_kit.render.html import Colours
from profiler_kit.render.svg import WIDE, axis, draw, joined, legend, marks, percent, stretched
from profiler_kit.text import fmt_count, fmt_ns, fmt_path, ns_in, time_unit
from profiler_kit.timeline.build import build_timeline
from profiler_kit.timeline.index import Bins, Row, Timeline, Track
from profiler_kit.timeline.palette import NEUTRAL, colour_of
from profiler_kit.trace import Trace

BINS: Final = 1_000  # across, of a row with more spans than EXACT
EXACT: Final = 150
LEVELS: Final = 5  # heights a bin can have
ROWS: Final = 22  # of all tracks together
TRACK_ROWS: Final = 6
HEIGHT_PX: Final = 17  # parts.css draws spans 15 high
LEGEND: Final = 16  # regions named below
_LABEL_SHARE: Final = 0.02  # a span at least this wide has its name written in it
_KINDS: Final = {
    "counter": "changes of a counter",
    "critical": "stretches of the critical path",
    "gpu_region": "regions as GPUs run them",
    "gpu": "GPU events",
    "region": "regions",
    "operator": "operators",
    "launch": "launches",
}


def trace_timeline(trace: Trace, colours: Colours) -> Markup:
    """The picture of a whole trace: regions, GPU events and outermost operators."""
    outermost, no_launches = trace.operators()["depth"] == 0, trace.launch_calls().iloc[:0]
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators()[outermost], no_launches)
    return timeline_picture(build_timeline(*frames, trace.threads), colours)


def timeline_picture(timeline: Timeline, colours: Colours) -> Markup:
    """Every track from first to last event, one colour a region; empty without tracks.

    A row with many spans is drawn as BINS bins, whose height is the share of the bin that is busy.
    """
    if not timeline.tracks:
        return Markup()
    rows, hidden, left = [], 0, ROWS
    for track in timeline.tracks:
        count = min(track.rows, TRACK_ROWS, left)
        if count < 1:
            hidden += 1
            continue
        left -= count
        rows.append(_track(timeline, track, count, colours))
    more = draw('<p class="note">{} more tracks are not drawn.</p>', fmt_count(hidden)) if hidden else Markup()
    names = list(dict.fromkeys(path[-1] for _, _, path, _ in timeline.labels if path))[:LEGEND]
    hues = legend((colour_of(colours, name), name) for name in names)
    return draw('<div class="timeline">{}{}</div>{}{}', joined(rows), _axis(timeline), more, hues)


def _track(timeline: Timeline, track: Track, count: int, colours: Colours) -> Markup:
    """One stream or thread: its label, and its rows below each other."""
    height = HEIGHT_PX * count
    body: list[Markup] = []
    texts: list[Markup] = []
    for number in range(count):
        row = timeline.rows[track.first_row + number]
        if row.start.size <= EXACT:
            shapes = joined(_exact(timeline, row, colours))
            body.append(draw('<g transform="translate(0 {})">{}</g>', number * HEIGHT_PX, shapes))
            texts += _names(timeline, row, number) if track.kind != "operator" else []
        else:
            body += _bins(timeline, row.bins(timeline.start_ns, timeline.end_ns, BINS), number, colours)
    hidden = f", {track.rows - count} rows of overlapping ones not drawn" if track.rows > count else ""
    about = f"{track.label}: {fmt_count(track.spans)} {_KINDS[track.kind]}{hidden}"
    return draw(
        '<div class="track" title="{0}"><span>{1}</span>'
        '<svg width="100%" height="{2}" role="img" aria-label="{0}">{3}{4}</svg></div>',
        about, track.label, height, stretched(body, height), joined(texts),
    )  # fmt: skip


def _exact(timeline: Timeline, row: Row, colours: Colours) -> Iterator[Markup]:
    """Each span as a rectangle of its own, at least as wide as can be seen; the style sheet knows its height."""
    scale = WIDE / (timeline.end_ns - timeline.start_ns)
    for start, dur, code in zip(row.start.tolist(), row.dur.tolist(), row.code.tolist(), strict=True):
        yield draw(
            '<rect x="{:.2f}" width="{:.2f}" fill="{}"><title>{}\n{}</title></rect>',
            (start - timeline.start_ns) * scale, max(dur * scale, 0.4),
            _colour(timeline.labels[code][2], colours), _name(timeline, code), fmt_ns(dur),
        )  # fmt: skip


def _names(timeline: Timeline, row: Row, number: int) -> Iterator[Markup]:
    """Names of the spans that are wide enough, each cut off where its span ends."""
    whole = timeline.end_ns - timeline.start_ns
    for start, dur, code in zip(row.start.tolist(), row.dur.tolist(), row.code.tolist(), strict=True):
        if dur / whole > _LABEL_SHARE:
            yield draw(
                '<svg x="{}" y="{}" width="{}" height="{}"><text class="in" x="4" y="12.5">{}</text></svg>',
                percent((start - timeline.start_ns) / whole), number * HEIGHT_PX, percent(dur / whole), HEIGHT_PX,
                _name(timeline, code),
            )  # fmt: skip


def _bins(timeline: Timeline, bins: Bins, number: int, colours: Colours) -> Iterator[Markup]:
    """One path a region: neighbouring bins that look alike are one rectangle."""
    level = np.where(bins.busy > 0, np.maximum(1, np.rint(bins.busy * LEVELS)), 0).astype(np.int64)
    paths: dict[tuple[str, ...], list[str]] = {}
    changes = np.flatnonzero((np.diff(level) != 0) | (np.diff(bins.code) != 0)) + 1
    for first, stop in itertools.pairwise([0, *changes.tolist(), level.size]):
        if not level[first]:
            continue
        path = timeline.labels[int(bins.code[first])][2]
        tall = (HEIGHT_PX - 2) * int(level[first]) / LEVELS
        bottom = (number + 1) * HEIGHT_PX - 1
        x, wide = first * WIDE / level.size, (stop - first) * WIDE / level.size
        paths.setdefault(path, []).append(f"M{x:g} {bottom}v-{tall:g}h{wide:g}v{tall:g}z")
    for path, data in paths.items():
        shape = '<path d="{}" fill="{}"><title>{}</title></path>'
        yield draw(shape, "".join(data), _colour(path, colours), fmt_path(path) or "no region")


def _name(timeline: Timeline, code: int) -> str:
    kind, name, *_ = timeline.labels[code]
    return short_kernel(name) if kind in ("gpu", "operator") else name


def _colour(path: tuple[str, ...], colours: Colours) -> str:
    return colour_of(colours, path[-1]) if path else NEUTRAL


def _axis(timeline: Timeline) -> Markup:
    whole = timeline.end_ns - timeline.start_ns
    unit = time_unit((whole,))
    texts = axis(marks(ns_in(whole, unit), unit, 8), 14)
    return draw(
        '<div class="track"><span></span><svg width="100%" height="20" aria-hidden="true">{}</svg></div>', texts
    )
