"""Draw with SVG alone, for pages that may load nothing. Every function returns Markup; `draw` is where text is escaped.

Lengths across are shares of the width, so that one drawing is sharp at any width; there are no style attributes, so
that a page may forbid them. Colours that follow the page (ink, grid) are classes of templates/parts.css.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from profiler_kit.names import printable
from profiler_kit.render.labels import place_labels
from profiler_kit.timeline.palette import ink_on

WIDE: Final = 1_000  # what a stretched drawing counts across
_FINE: Final = 2  # steps of a line in each of those units, and in each pixel of its height
_LABEL_SHARE: Final = 0.035  # a part of a stacked bar at least this long has its share written in it
_PAGE_PX: Final = 900  # a usual page
# Where a name is written, from the middle of its mark: to the right, down, and which end of the name is at that point.
_BESIDE: Final = {
    "top center": (0, -9, "middle"),
    "bottom center": (0, 18, "middle"),
    "middle right": (9, 4, "start"),
    "middle left": (-9, 4, "end"),
    "top left": (-9, -9, "end"),
    "top right": (9, -9, "start"),
    "bottom left": (-9, 18, "end"),
    "bottom right": (9, 18, "start"),
}
_EMPTY: Final = Markup()


@dataclass(frozen=True)
class Part:
    """One part of a stacked bar. share: of the whole bar."""

    name: str
    value: str
    share: float
    colour: str
    meaning: str = ""


@dataclass(frozen=True)
class Dot:
    """A mark in a plot. x, y: shares of the width, and of the height from the bottom. name: written beside it."""

    x: float
    y: float
    colour: str
    tip: str = ""
    name: str = ""
    radius: float = 4


def clean(value: object) -> object:
    """Text as a page shows it: what cannot be printed is �. Markup stays as it is."""
    if isinstance(value, Markup | int | float) or value is None:
        return value
    lines = str(value).split("\n")
    return "\n".join(line if line.isprintable() else printable(line) for line in lines)


def draw(template: str, /, *values: object) -> Markup:
    """`template.format(*values)` with every value escaped that is not Markup."""
    return Markup(template).format(*map(clean, values))


def joined(parts: Iterable[Markup]) -> Markup:
    """Drawings one after the other."""
    return _EMPTY.join(parts)


def percent(share: float) -> str:
    """A share of the width as an attribute, `12.34%`."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}".rstrip("0").rstrip(".") + "%"


def bar(length: float, colour: str, *, pale: float = 0.0, height: int = 14) -> Markup:
    """One bar; `length` and `pale` (drawn behind it) are shares of the width."""
    inner, top, behind = height, 0, _EMPTY
    if pale > length:
        inner, top = height // 2, height // 4
        behind = draw('<rect width="{}" height="{}" fill="{}" opacity=".3"/>', percent(pale), height, colour)
    shown = draw('<rect y="{}" width="{}" height="{}" fill="{}"/>', top, percent(length), inner, colour)
    return draw('<svg class="bar" height="{}" aria-hidden="true">{}{}</svg>', height, behind, shown)


def swatch(colour: str) -> Markup:
    """A small square of that colour."""
    return draw('<svg class="swatch" aria-hidden="true"><rect fill="{}"/></svg>', colour)


def legend(entries: Iterable[tuple[str, str]]) -> Markup:
    """What each colour means: (colour, name)."""
    items = joined(draw("<li>{}{}</li>", swatch(colour), name) for colour, name in entries)
    return draw('<ul class="legend">{}</ul>', items)


def stacked(parts: Sequence[Part], label: str, *, height: int = 34) -> Markup:
    """Parts beside each other that add up to the whole, with a legend that names each with its value."""
    drawn, items, at = [], [], 0.0
    for one in parts:
        part = '<rect x="{}" width="{}" height="{}" fill="{}"><title>{}: {}</title></rect>'
        drawn.append(draw(part, percent(at), percent(one.share), height, one.colour, one.name, one.value))
        if one.share > _LABEL_SHARE:
            ink = ink_on((one.colour, one.colour), 0)
            text = '<text x="{}" y="{:g}" fill="{}" text-anchor="middle">{:.0f} %</text>'
            drawn.append(draw(text, percent(at + one.share / 2), height / 2 + 5, ink, 100 * one.share))
        item = '<li title="{}">{}{} <b>{:.1f} %</b> <span>{}</span></li>'
        items.append(draw(item, one.meaning, swatch(one.colour), one.name, 100 * one.share, one.value))
        at += one.share
    whole = (
        '<svg class="stacked" width="100%" height="{}" role="img" aria-label="{}">{}</svg><ul class="legend">{}</ul>'
    )
    return draw(whole, height, label, joined(drawn), joined(items))


def ticks(most: float, count: int = 5) -> list[float]:
    """Round numbers from 0 to at most `most`, about `count` of them: steps of 1, 2 or 5 times a power of ten."""
    if not most > 0 or not math.isfinite(most):
        return [0.0]
    power = 10.0 ** math.floor(math.log10(most / count))
    step = next(power * factor for factor in (1, 2, 5, 10) if most / (power * factor) <= count)
    return [step * number for number in range(int(most / step + 1e-9) + 1)]


def tick_text(value: float) -> str:
    """A tick without a tail of zeros, thousands apart."""
    return f"{value:,.6g}" if value < 1e6 else f"{value:,.0f}"


def marks(most: float, unit: str = "", count: int = 5) -> list[tuple[float, str]]:
    """Ticks of an axis from 0 to `most`: (share of its length, text)."""
    return [(at / most if most else 0.0, f"{tick_text(at)} {unit}".rstrip()) for at in ticks(most, count)]


def plot(
    lines: Iterable[Markup],
    over: Iterable[Markup] = (),
    *,
    height: int,
    y_ticks: Sequence[tuple[float, str]],
    x_ticks: Sequence[tuple[float, str]],
    label: str,
    y_name: str = "",
    x_name: str = "",
) -> Markup:
    """A plot that is as wide as the page.

    lines: drawn in a box of WIDE by `height` that is stretched across. over: drawn on top, x as a percentage and y in
    pixels from the top, not stretched. Ticks: (share of the width, or of the height from the bottom; text).
    """
    down = [(height * (1 - at), text) for at, text in y_ticks]
    grid = [draw('<line class="grid" x1="0" x2="100%" y1="{0:.1f}" y2="{0:.1f}"/>', y) for y, _ in down]
    left = [draw('<text class="tick" x="100%" y="{:.1f}" text-anchor="end">{}</text>', y + 14, t) for y, t in down]
    return draw(
        '<figure class="plot">{}<svg width="100%" height="{}" aria-hidden="true">{}</svg>'
        '<svg width="100%" height="{}" role="img" aria-label="{}"><svg y="10" width="100%" height="{}" '
        'overflow="visible">{}{}{}</svg>{}</svg>{}</figure>',
        _axis_name(y_name), height + 30, joined(left), height + 30, label, height,
        joined(grid), stretched(lines, height), joined(over), axis(x_ticks, height + 26), _axis_name(x_name),
    )  # fmt: skip


def _axis_name(text: str) -> Markup:
    return draw("<figcaption>{}</figcaption>", text) if text else _EMPTY


def stretched(body: Iterable[Markup], height: int) -> Markup:
    """`body`, drawn in a box of WIDE by `height`, as wide as what is around it."""
    box = '<svg viewBox="0 0 {} {}" width="100%" height="{}" preserveAspectRatio="none">{}</svg>'
    return draw(box, WIDE, height, height, joined(body))


def axis(x_ticks: Iterable[tuple[float, str]], y: int) -> Markup:
    """The texts below a plot; those at its ends stay inside."""
    text = '<text class="tick" x="{}" y="{}" text-anchor="{}">{}</text>'
    return joined(draw(text, percent(at), y, _anchor(at), said) for at, said in x_ticks)


def _anchor(at: float) -> str:
    return "start" if at < 0.02 else "end" if at > 0.97 else "middle"


def dots(marked: Sequence[Dot], height: int) -> list[Markup]:
    """Marks for the top of a plot of that height, and their names where there is room."""
    names = place_labels([(_PAGE_PX * one.x, height * one.y) for one in marked], [one.name for one in marked],
                         range(len(marked)), (_PAGE_PX, height))  # fmt: skip
    out = []
    for one, (name, side) in zip(marked, names, strict=True):
        down = height * (1 - one.y)
        tip = draw("<title>{}</title>", one.tip) if one.tip else _EMPTY
        circle = '<circle cx="{}" cy="{:.1f}" r="{:g}" fill="{}">{}</circle>'
        out.append(draw(circle, percent(one.x), down, one.radius, one.colour, tip))
        if name:
            dx, dy, anchor = _BESIDE[side]
            text = '<text class="tick" x="{}" dx="{}" y="{:.1f}" text-anchor="{}">{}</text>'
            out.append(draw(text, percent(one.x), dx, down + dy, anchor, name))
    return out


def curve(
    points: Sequence[tuple[float, float]],
    height: int,
    colour: str,
    *,
    dash: str = "",
    holds: bool = False,
    filled: bool = False,
) -> Markup:
    """A line through (share of the width, share of the height from the bottom), for a plot of that height.

    holds: a value holds until the next point. filled: the area below it is tinted.
    """
    path = line(points, height, holds=holds)
    if filled and points:  # from the bottom and back to it, so that what closes the area is the bottom itself
        path = f"M{_short(WIDE * points[0][0])} {height}L{path[1:]}V{height}"
    dashed = draw(' stroke-dasharray="{}"', dash) if dash else _EMPTY
    kind, fill = ("area", colour) if filled else ("line", "none")
    return draw('<path class="{}" d="{}" stroke="{}" fill="{}"{}/>', kind, path, colour, fill, dashed)


def line(points: Sequence[tuple[float, float]], height: int, *, holds: bool = False) -> str:
    """Path data of a line through (share of the width, share of the height from the bottom).

    Places are rounded to half a unit. Where a value holds, steps are relative to the one before: shorter.
    """
    out, x, y = [], 0, 0
    for number, (share, tall) in enumerate(points):
        across, down = round(_FINE * WIDE * share), round(_FINE * height * (1 - tall))
        if number == 0:
            out.append(f"M{_short(across / _FINE)} {_short(down / _FINE)}")
        elif holds:
            out.append(f"h{_short((across - x) / _FINE)}" if across != x else "")
            out.append(f"v{_short((down - y) / _FINE)}" if down != y else "")
        else:
            out.append(f"L{_short(across / _FINE)} {_short(down / _FINE)}")
        x, y = across, down
    return "".join(out)


def _short(number: float) -> str:
    return f"{number:.2f}".rstrip("0").rstrip(".").replace("0.", ".", 1) if abs(number) < 1 else f"{number:g}"
