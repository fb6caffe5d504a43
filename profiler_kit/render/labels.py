"""Which points of a scatter plot get their name beside them, and on which side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Final

_LETTER_PX: Final = 6.6
_APART_PX: Final = 8.0  # two names beside each other
_LINE_PX: Final = 17.0
_GAP_PX: Final = 9.0
_ROWS: Final = ("top", "bottom")
_SIDES: Final = (
    *(f"{row} center" for row in _ROWS), "middle right", "middle left",
    *(f"{row} {column}" for row in _ROWS for column in ("left", "right")),
)  # fmt: skip
_SAME_PX: Final = 1.0  # points this near to each other are one to the eye
_STEP_PX: Final = 4.0  # between two points of a line that are looked at

Box = tuple[float, float, float, float]  # left, bottom, right, top
Place = tuple[float, float]


def place_labels(
    places: Sequence[Place],
    names: Sequence[str],
    order: Sequence[int],
    size: tuple[float, float],
    lines: Sequence[Sequence[Place]] = (),
) -> list[tuple[str, str]]:
    """(text, Plotly's textposition) of every point; the text is empty where no side has room.

    places: in pixels from the lower left of a plot of `size`. Labels are placed one after the other, in `order`: they
    neither leave the plot nor cover a point or a label that is placed already. Only where all sides do are they nearer
    to another point than to their own, or else cross one of `lines`, the corners of each in pixels too.
    """
    crossed = [one for corners in lines for pair in pairwise(corners) for one in _along(*pair)]
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    found = [("", _SIDES[0])] * len(names)
    for at in order:
        free = [
            (side, box)
            for side, box in ((side, _box(places[at], names[at], side)) for side in _SIDES)
            if box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            and not any(_overlap(box, other) for number, other in enumerate(taken) if number != at)
        ]  # fmt: skip
        near = [one for one in free if not _misleads(places, at, one[1])] or free
        clear = [one for one in near if not any(_overlap(one[1], point) for point in crossed)]
        for side, box in (clear or near)[:1]:
            taken.append(box)
            found[at] = (names[at], side)
    return found


def _along(start: Place, end: Place) -> list[Box]:
    """Points of a line, a few pixels apart."""
    count = max(1, math.ceil(math.dist(start, end) / _STEP_PX))
    shares = (number / count for number in range(count + 1))
    points = [(start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share) for share in shares]
    return [(x - 1, y - 1, x + 1, y + 1) for x, y in points]


def _box(place: Place, name: str, side: str) -> Box:
    """The box that the text would take."""
    (x, y), width = place, _LETTER_PX * len(name) + _APART_PX
    vertical, horizontal = side.split()
    left = {"left": x - _GAP_PX - width, "center": x - width / 2, "right": x + _GAP_PX}[horizontal]
    bottom = {"top": y + _GAP_PX, "middle": y - _LINE_PX / 2, "bottom": y - _GAP_PX - _LINE_PX}[vertical]
    return left, bottom, left + width, bottom + _LINE_PX


def _misleads(places: Sequence[Place], at: int, box: Box) -> bool:
    """Whether another point is nearer to the box than its own."""
    return any(_apart(place, box) < _apart(places[at], box) - _SAME_PX for place in places)


def _apart(place: Place, box: Box) -> float:
    """How far a point is from a box."""
    (x, y), (left, bottom, right, top) = place, box
    return math.hypot(max(left - x, 0, x - right), max(bottom - y, 0, y - top))


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
