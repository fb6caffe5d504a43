"""Trees of time as icicles: each name as wide as its time, what it calls below it; of two runs, coloured by the change.

The drawing here needs no script; the dashboard's, which zooms by a click, is made of the same boxes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from markupsafe import Markup

from profiler_kit.names import fit_names
from profiler_kit.render.layout import innermost_names
from profiler_kit.render.svg import draw, joined, percent
from profiler_kit.table import Filled
from profiler_kit.text import fmt_ns, fmt_percent
from profiler_kit.timeline.palette import HUES, IDLE, NEUTRAL, ink_on, on_scale

Path = tuple[str, ...]

LEAST: Final = 0.002  # of the whole: narrower boxes are left out
DRAWN: Final = 0.01  # likewise in a page that is to stay small
NAMED: Final = 0.02  # of the width: narrower boxes bear no name
MOST: Final = 1_500
ROW_PX: Final = 18
LETTERS: Final = 120  # of a name that is as wide as the page; a report is to stay small
_NAME: Final = '<text x="3" y="13" fill="{}">{}</text>'
_BOX: Final = (
    '<svg x="{}" y="{}" width="{}" height="{}"><title>{}</title><rect width="100%" height="100%" fill="{}"/>{}</svg>'
)
_KINDS: Final = {"region": HUES[0], "module": HUES[2], "operator": HUES[1], "kernel": HUES[9]}
_CHANGE: Final = (HUES[0], IDLE, HUES[6])  # shorter, as long, longer


@dataclass(frozen=True)
class Box:
    """One name, as it is written in it. left, width: shares of the whole. said: its kind and its time."""

    path: Path
    left: float
    width: float
    colour: str
    said: str
    name: str


def boxes(filled: Filled) -> list[Box]:
    """The boxes of a table whose declaration says which columns are drawn, parents above their children; maybe none."""
    frame, values = filled.frame, filled.table.icicle
    if not values or frame.empty:
        return []
    named: list[dict[str, Any]] = [{str(key): value for key, value in row.items()} for row in frame.to_dict("records")]
    rows = dict(zip(frame["path"], named, strict=True))
    size = _sizes(rows, values)
    whole = sum(size[path] for path in rows if len(path) == 1)
    if not whole > 0:
        return []
    found: list[Box] = []
    left: dict[Path, float] = {(): 0.0}  # where the next child of each path begins
    shown = dict(zip(rows, filled.texts().get("path") or innermost_names(frame), strict=True))
    for path, row in rows.items():  # a parent comes before its children
        at, width = left[path[:-1]], size[path] / whole
        left[path[:-1]] = at + width
        left[path] = at
        if width >= LEAST:
            found.append(Box(path, at, width, _colour(row, values), _said(row, values, width), shown[path]))
    return sorted(found, key=lambda box: -box.width)[:MOST]


def _sizes(rows: Mapping[Path, dict[str, Any]], values: tuple[str, ...]) -> dict[Path, float]:
    """The larger of the values of each, and no less than its children need."""
    size = {path: max(_number(row[value]) for value in values) for path, row in rows.items()}
    inside: dict[Path, float] = {}
    for path in sorted(rows, key=len, reverse=True):
        size[path] = max(size[path], inside.get(path, 0.0))
        inside[path[:-1]] = inside.get(path[:-1], 0.0) + size[path]
    return size


def _number(value: Any) -> float:
    number = float(value)
    return 0.0 if math.isnan(number) else number


def _colour(row: dict[str, Any], values: tuple[str, ...]) -> str:
    if len(values) == 1:
        return _KINDS.get(str(row.get("kind", "")), NEUTRAL)
    a, b = (_number(row[value]) for value in values)
    share = 0.5 + 0.5 * (b - a) / max(a, b) if max(a, b) > 0 else 0.5
    return "#{:02X}{:02X}{:02X}".format(*(round(channel) for channel in on_scale(_CHANGE, share)))


def _said(row: dict[str, Any], values: tuple[str, ...], width: float) -> str:
    what = f"{row['kind']}, " if "kind" in row else ""
    if len(values) == 1:
        return f"{what}{fmt_ns(_number(row[values[0]]))}, {fmt_percent(width)}"
    a, b = (_number(row[value]) for value in values)
    return f"{what}A {fmt_ns(a)}, B {fmt_ns(b)}, {fmt_ns(abs(b - a))} {'more' if b > a else 'less'}"


def icicle(filled: Filled) -> Markup:
    """The tree as a drawing as wide as the page, its wider boxes; nothing where there is no tree to draw."""
    found = [box for box in boxes(filled) if box.width >= DRAWN]
    if not found:
        return Markup()
    drawn = []
    for box, name in zip(found, fit_names([box.name for box in found], LETTERS), strict=True):
        ink = ink_on((box.colour, box.colour), 0)
        text = draw(_NAME, ink, name[: int(LETTERS * box.width) + 1]) if box.width >= NAMED else Markup()
        top = ROW_PX * (len(box.path) - 1)
        drawn.append(
            draw(_BOX, percent(box.left), top, percent(box.width), ROW_PX - 1, f"{name}\n{box.said}", box.colour, text)
        )
    height = ROW_PX * max(len(box.path) for box in found)
    whole = '<svg class="icicle" width="100%" height="{}" role="img" aria-label="{}">{}</svg>'
    return draw(whole, height, filled.table.title, joined(drawn))
