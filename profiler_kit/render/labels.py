"""Which points of a scatter plot get their name beside them, and on which side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

_LETTER_PX: Final = 6.6
_LINE_PX: Final = 14.0
_GAP_PX: Final = 9.0
_SIDES: Final = ("top center", "bottom center", "middle right", "middle left")

Box = tuple[float, float, float, float]  # left, bottom, right, top


def place_labels(
    places: Sequence[tuple[float, float]], names: Sequence[str], order: Sequence[int], size: tuple[float, float]
) -> list[tuple[str, str]]:
    """(text, Plotly's textposition) of every point; the text is empty where no side has room.

    places: in pixels from the lower left of a plot of `size`. Labels are placed one after the other, in `order`: they
    neither leave the plot nor cover a point or a label that is placed already.
    """
    taken: list[Box] = [(x - 6, y - 6, x + 6, y + 6) for x, y in places]
    found = [("", _SIDES[0])] * len(names)
    for at in order:
        for side in _SIDES:
            box = _box(places[at], names[at], side)
            inside = box[0] >= 0 and box[1] >= 0 and box[2] <= size[0] and box[3] <= size[1]
            if inside and not any(_overlap(box, other) for number, other in enumerate(taken) if number != at):
                taken.append(box)
                found[at] = (names[at], side)
                break
    return found


def _box(place: tuple[float, float], name: str, side: str) -> Box:
    """The box that the text would take."""
    (x, y), width = place, _LETTER_PX * len(name)
    vertical, horizontal = side.split()
    left = {"left": x - _GAP_PX - width, "center": x - width / 2, "right": x + _GAP_PX}[horizontal]
    bottom = {"top": y + _GAP_PX, "middle": y - _LINE_PX / 2, "bottom": y - _GAP_PX - _LINE_PX}[vertical]
    return left, bottom, left + width, bottom + _LINE_PX


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
