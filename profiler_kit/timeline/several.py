"""Several timelines as one, lane below lane on one clock: runs, or the ranks of a job."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import pandas as pd

from profiler_kit.timeline.build import Layout
from profiler_kit.timeline.index import CODE_MASK, Kind, Row, Timeline

RegionPath = tuple[str, ...]

MOST: Final = 9  # the run itself and eight beside it
# Lanes of one kind are below each other, so that the same of each part is side by side.
_ORDER: Final[tuple[tuple[Kind, ...], ...]] = (
    ("request",), ("critical",), ("gpu_region",), ("gpu",), ("counter",), ("region", "python", "operator", "launch"),
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """One timeline of several. shift_ns: what is taken from its times to have them on the clock of the first."""

    label: str
    timeline: Timeline
    shift_ns: int


@dataclass(frozen=True)
class Several:
    """The drawing of all parts, its times counted from the start of the first; of each of its rows the part and row."""

    timeline: Timeline
    parts: tuple[Part, ...]
    places: tuple[tuple[int, int], ...]

    def own(self, facts: dict[str, Any], part: int) -> dict[str, Any]:
        """What is said of a span of a part (render.span_facts) with the rows and times of the whole."""
        mine = self.parts[part]
        later = mine.timeline.start_ns - mine.shift_ns - self.timeline.start_ns
        rows = {row: number for number, (of, row) in enumerate(self.places) if of == part}

        def moved(span: dict[str, Any]) -> dict[str, Any]:
            return span | {"row": rows[span["row"]], "start": span["start"] + later}

        around = {side: moved(facts[side]) for side in ("before", "after") if side in facts}
        arrows = [[moved(one), moved(other)] for one, other in facts["arrows"]]
        return moved(facts) | around | {"arrows": arrows}


def common_regions(instances: Sequence[pd.DataFrame]) -> list[RegionPath]:
    """The paths of which each REGION_INSTANCES has one, in the order of the first."""
    first, *others = ([path for path in frame["path"].unique() if path] for frame in instances)
    return [path for path in first if all(path in other for other in others)]


def starts_of(runs: Sequence[pd.DataFrame], path: RegionPath) -> list[list[int]]:
    """When each instance of a region began in each run: on the GPU where all have work there, else on the host."""
    mine = [instances[instances["path"] == path] for instances in runs]
    column = "start_ns" if any(one["gpu_start_ns"].isna().any() for one in mine) else "gpu_start_ns"
    return [[int(start) for start in one[column]] for one in mine]


def side_by_side(parts: Sequence[Part]) -> Several:
    """Draw these timelines as one; the first gives the clock."""
    layout, places = Layout(), list[tuple[int, int]]()
    labels = [label for part in parts for label in part.timeline.labels]
    before = np.cumsum([0, *(len(part.timeline.labels) for part in parts)])
    for kinds in _ORDER:
        for number, part in enumerate(parts):
            for track in part.timeline.tracks:
                if track.kind in kinds:
                    of = range(track.first_row, track.first_row + track.rows)
                    rows = [_moved(part.timeline.rows[row], part.shift_ns, int(before[number])) for row in of]
                    layout.keep(replace(track, label=f"{part.label} · {track.label}", part=number), rows)
                    places += [(number, row) for row in of]
    whole, zero = layout.timeline(tuple(labels)), parts[0].timeline.start_ns - parts[0].shift_ns
    return Several(replace(whole, start_ns=zero, earlier_ns=zero - whole.start_ns), tuple(parts), tuple(places))


def _moved(row: Row, shift_ns: int, codes: int) -> Row:
    """The same spans at other times and with other codes, which are the low bits of the keys in the mipmap."""
    code = np.minimum(row.code + np.uint32(codes), np.uint32(CODE_MASK))
    levels = tuple(level + codes for level in row.levels)
    return replace(row, start=row.start - shift_ns, code=code, levels=levels)
