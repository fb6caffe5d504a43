"""A picture of the whole timeline, small at any number of spans (Timeline -> HTML with SVG)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final

import numpy as np

from profiler_kit.names import short_kernel
from profiler_kit.render.report.parts import Colours
from profiler_kit.render.svg import WIDE, axis, escape, percent, stretched, swatch, tick_text, ticks
from profiler_kit.text import fmt_count, fmt_ns, fmt_path, ns_in, time_unit
from profiler_kit.timeline.build import build_timeline
from profiler_kit.timeline.index import Bins, Row, Timeline, Track
from profiler_kit.timeline.palette import NEUTRAL, colour_of
from profiler_kit.trace import Trace

BINS: Final = 1_000  # across, of a row with more spans than EXACT
EXACT: Final = 150
LEVELS: Final = 6  # heights a bin can have
ROWS: Final = 22  # of all tracks together
TRACK_ROWS: Final = 6
HEIGHT_PX: Final = 17
_LABEL_SHARE: Final = 0.02  # a span at least this wide has its name written in it
_KINDS: Final = {
    "gpu_region": "regions as the GPU runs them",
    "gpu": "GPU events",
    "region": "regions",
    "operator": "operators",
    "launch": "launches",
}


def trace_timeline(trace: Trace, colours: Colours) -> str:
    """The picture of a whole trace: regions, GPU events and outermost operators."""
    outermost, no_launches = trace.operators()["depth"] == 0, trace.launch_calls().iloc[:0]
    frames = (trace.gpu_events(), trace.region_instances(), trace.operators()[outermost], no_launches)
    return timeline_picture(build_timeline(*frames, trace.threads), colours)


def timeline_picture(timeline: Timeline, colours: Colours) -> str:
    """Every track from first to last event, one colour a region; empty without tracks.

    A row with many spans is drawn as BINS bins, whose height is the share of the bin that is busy.
    """
    if not timeline.tracks:
        return ""
    rows, hidden, left = [], 0, ROWS
    for track in timeline.tracks:
        count = min(track.rows, TRACK_ROWS, left)
        if count < 1:
            hidden += 1
            continue
        left -= count
        rows.append(_track(timeline, track, count, colours))
    more = f'<p class="note">{fmt_count(hidden)} more tracks are not drawn.</p>' if hidden else ""
    return f'<div class="timeline">{"".join(rows)}{_axis(timeline)}</div>{more}{_legend(timeline, colours)}'


def _track(timeline: Timeline, track: Track, count: int, colours: Colours) -> str:
    """One stream or thread: its label, and its rows below each other."""
    height = HEIGHT_PX * count
    body: list[str] = []
    texts: list[str] = []
    for number in range(count):
        row = timeline.rows[track.first_row + number]
        if row.start.size <= EXACT:
            body += _exact(timeline, row, number, colours)
            texts += _names(timeline, row, number) if track.kind != "operator" else []
        else:
            body += _bins(timeline, row.bins(timeline.start_ns, timeline.end_ns, BINS), number, colours)
    hidden = f", {track.rows - count} rows of overlapping ones not drawn" if track.rows > count else ""
    about = f"{track.label}: {fmt_count(track.spans)} {_KINDS[track.kind]}{hidden}"
    return (
        f'<div class="track" title="{escape(about)}"><span>{escape(track.label)}</span>'
        f'<svg width="100%" height="{height}" role="img" aria-label="{escape(about)}">'
        f"{stretched(''.join(body), height)}{''.join(texts)}</svg></div>"
    )


def _exact(timeline: Timeline, row: Row, number: int, colours: Colours) -> Iterator[str]:
    """Each span as a rectangle of its own, at least as wide as can be seen."""
    scale = WIDE / (timeline.end_ns - timeline.start_ns)
    for start, dur, code in zip(row.start.tolist(), row.dur.tolist(), row.code.tolist(), strict=True):
        kind, name, path = timeline.labels[code]
        shown = short_kernel(name) if kind in ("gpu", "operator") else name
        yield (
            f'<rect x="{(start - timeline.start_ns) * scale:.2f}" y="{number * HEIGHT_PX + 1}" '
            f'width="{max(dur * scale, 0.4):.2f}" height="{HEIGHT_PX - 2}" fill="{_colour(path, colours)}">'
            f"<title>{escape(shown)}\n{fmt_ns(dur)}</title></rect>"
        )


def _names(timeline: Timeline, row: Row, number: int) -> Iterator[str]:
    """Names of the spans that are wide enough, each cut off where its span ends."""
    whole = timeline.end_ns - timeline.start_ns
    for start, dur, code in zip(row.start.tolist(), row.dur.tolist(), row.code.tolist(), strict=True):
        if dur / whole > _LABEL_SHARE:
            yield (
                f'<svg x="{percent((start - timeline.start_ns) / whole)}" y="{number * HEIGHT_PX}" '
                f'width="{percent(dur / whole)}" height="{HEIGHT_PX}"><text class="in" x="4" y="12.5">'
                f"{escape(timeline.labels[code][1])}</text></svg>"
            )


def _bins(timeline: Timeline, bins: Bins, number: int, colours: Colours) -> Iterator[str]:
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
        yield (
            f'<path d="{"".join(data)}" fill="{_colour(path, colours)}"><title>{escape(fmt_path(path) or "no region")}'
            f"</title></path>"
        )


def _colour(path: tuple[str, ...], colours: Colours) -> str:
    return colour_of(colours, path[-1]) if path else NEUTRAL


def _axis(timeline: Timeline) -> str:
    whole = timeline.end_ns - timeline.start_ns
    unit = time_unit((whole,))
    length = ns_in(whole, unit)
    marks = [(at / length, f"{tick_text(at)} {unit}" if at else f"0 {unit}") for at in ticks(length, 8)]
    drawn = f'<svg width="100%" height="20" aria-hidden="true">{axis(marks, 14)}</svg>'
    return f'<div class="track"><span></span>{drawn}</div>'


def _legend(timeline: Timeline, colours: Colours) -> str:
    """The innermost region of each colour drawn, in the order of the trace."""
    names = dict.fromkeys(path[-1] for _, _, path in timeline.labels if path)
    items = "".join(f"<li>{swatch(colour_of(colours, name))}{escape(name)}</li>" for name in list(names)[:16])
    return f'<ul class="legend">{items}</ul>'
