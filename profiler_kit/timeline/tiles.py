"""Send views of a timeline to the browser: a JSON description once, then binary tiles of at most 50 kB.

Times there count from the timeline's start: absolute nanoseconds do not fit JavaScript's numbers.
A tile is a little-endian uint32 n, n bytes of JSON, and the arrays the JSON points to as [offset, length, dtype].
"""

from __future__ import annotations

import json
import struct
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.analyses.gpu.categories import category_of
from profiler_kit.errors import OptionError
from profiler_kit.kernel_name import kernel_dtype, short_kernel
from profiler_kit.timeline.index import Bins, Exact, Kind, Level, Row, Timeline, Track
from profiler_kit.timeline.palette import CRITICAL, region_colours
from profiler_kit.timeline.search import Matches

BUDGET_BYTES: Final = 46_000
_EXACT_BYTES: Final = 20  # start f8, duration f8, code u4
_BIN_BYTES: Final = 7  # busy u1, count u2, code u4
_MOST_BINS: Final = 4_096
_CODE_NAMES: Final = ("critical", "gpu", "operator")  # named by code, not by the user
_NO_REGIONS: Final = ("critical", "request", "counter")  # what their paths hold has colours of its own
_TRACK_KEYS: Final = {"first_row": "first"}


def describe(timeline: Timeline) -> dict[str, object]:
    """What the canvas needs once: length, tracks, the meaning of each code, and the colour of each region path."""
    hues = [
        region_colours(name for kind, _, path, _ in timeline.labels if (kind in _NO_REGIONS) is apart for name in path)
        for apart in (False, True)
    ]
    hues[True] |= CRITICAL
    paths: dict[tuple[bool, tuple[str, ...]], int] = {}
    labels = [
        [
            kind,
            name,
            paths.setdefault((kind in _NO_REGIONS, path), len(paths)),
            short_kernel(name) if kind in _CODE_NAMES else name,
        ]
        for kind, name, path, _ in timeline.labels
    ]
    return {
        "start": -timeline.earlier_ns,
        "end": timeline.end_ns - timeline.start_ns,
        "tracks": [
            {_TRACK_KEYS.get(key, key): value for key, value in vars(t).items()} | _busy(timeline, t)
            for t in timeline.tracks
        ],
        "labels": labels,
        "paths": [list(path) for _, path in paths],
        "colours": [hues[apart][path[-1]] if path else "" for apart, path in paths],
        "schemes": {
            "work": _scheme([_work(kind, name) for kind, name, *_ in timeline.labels]),
            "operator": _scheme([work or _operator(kind, name) for kind, name, _, work in timeline.labels]),
            "dtype": _scheme([kernel_dtype(name) if kind == "gpu" else "" for kind, name, *_ in timeline.labels]),
        },
    }


def _scheme(groups: Sequence[str]) -> dict[str, object]:
    """Another way to colour: the group of each code ("" for none), and the colour of each group."""
    return {"groups": groups, "colours": region_colours(one for one in groups if one)}


def _work(kind: Kind, name: str) -> str:
    return category_of(name, "kernel") if kind == "gpu" else _operator(kind, name)


def _operator(kind: Kind, name: str) -> str:
    return category_of(name, "operator") if kind == "operator" else ""


def _busy(timeline: Timeline, track: Track) -> dict[str, float]:
    """How long the first row of a track is busy, and the others together as a share of that."""
    first, *more = (int(row.busy[-1]) for row in timeline.rows[track.first_row : track.first_row + track.rows])
    return {"busy": first, "beyond": sum(more) / max(first, 1)}


def tile(
    timeline: Timeline,
    start_ns: int,
    end_ns: int,
    pixels: int,
    *,
    rows: Collection[int] | None = None,
    matches: Matches | None = None,
) -> bytes:
    """One view, `pixels` wide; start and end count from the timeline's start.

    Rows with few spans come span by span, the others as bins of a pixel or wider. rows: only these, which share the
    budget. matches: says of each span and bin whether it is one, or holds one.

    Raises OptionError when the view is empty or its end is before its start.
    """
    if end_ns <= start_ns or pixels < 1:
        raise OptionError(f"view {start_ns} to {end_ns} ns, {pixels} pixels: expected an end after its start")
    base, more = timeline.start_ns, int(matches is not None)
    begin, stop = base + start_ns, base + end_ns
    shown = range(len(timeline.rows)) if rows is None else [n for n in sorted(set(rows)) if n < len(timeline.rows)]
    counts = {number: _count(timeline.rows[number], begin, stop) for number in shown}
    found: list[dict[str, object]] = []
    blob = bytearray()
    left, waiting = BUDGET_BYTES, sum(count > 0 for count in counts.values())
    for number in sorted(shown, key=lambda n: counts[n]):  # short rows first: long ones get what is left over
        if not counts[number]:
            continue
        row, share = timeline.rows[number], left // waiting
        exact = counts[number] * (_EXACT_BYTES + more) <= share and not isinstance(row, Level)
        bins = max(16, min(pixels, _MOST_BINS, share // (_BIN_BYTES + more)))
        view = row.exact(begin, stop) if exact else row.bins(begin, stop, bins)
        packed = _pack(view, begin, blob)
        if matches is not None:
            packed["hit"] = _put(blob, matches.in_view(number, view), "|u1")
        found.append({"row": number, **packed})
        left -= counts[number] * (_EXACT_BYTES + more) if exact else bins * (_BIN_BYTES + more)
        waiting -= 1
    head = json.dumps({"t0": start_ns, "t1": end_ns, "rows": found}, separators=(",", ":")).encode()
    head += b" " * (-len(head) % 8 + 4)  # the arrays start on a multiple of eight
    return struct.pack("<I", len(head)) + head + bytes(blob)


def _count(row: Row, start_ns: int, end_ns: int) -> int:
    touching = row.touching(start_ns, end_ns)
    return int(touching.stop) - int(touching.start)


def _pack(view: Exact | Bins, start_ns: int, blob: bytearray) -> dict[str, object]:
    if isinstance(view, Exact):
        return {
            "first": view.first,
            "start": _put(blob, view.start_ns - start_ns, "<f8"),
            "dur": _put(blob, view.dur_ns, "<f8"),
            "code": _put(blob, view.code, "<u4"),
        }
    busy = np.ceil(view.busy * 255)  # rounded up: a bin that is busy at all keeps at least one level of 255
    return {
        "busy": _put(blob, busy, "|u1"),
        "count": _put(blob, np.minimum(view.count, 65_535), "<u2"),
        "code": _put(blob, view.code, "<u4"),
    }


def _put(blob: bytearray, values: npt.NDArray[np.generic], dtype: str) -> list[object]:
    place = [len(blob), int(values.size), dtype]
    data = values.astype(dtype).tobytes()
    blob += data + b"\0" * (-len(data) % 8)
    return place
