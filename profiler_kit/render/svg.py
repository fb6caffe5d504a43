"""Draw with SVG and HTML alone, for pages that may load nothing: numbers in, markup out; every text is escaped.

Lengths across are shares of the width, so that one drawing is sharp at any width; no style attributes, so that a page
may forbid them. Colours that follow the page (ink, grid) are classes of report_page/page.css.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

WIDE: Final = 1_000  # what a stretched drawing counts across
_LABEL_SHARE: Final = 0.035  # a part of a stacked bar at least this long has its share written in it
_DARK_INK: Final = frozenset({"#CCBB44", "#33BBEE", "#B4B9C0", "#EE7733"})  # hues that black reads better on


@dataclass(frozen=True)
class Part:
    """One part of a stacked bar. share: of the whole bar."""

    name: str
    value: str
    share: float
    colour: str
    meaning: str = ""


def escape(text: object) -> str:
    """Text for an element or a quoted attribute; what cannot be printed is shown as �."""
    return html.escape("".join(c if c.isprintable() or c == "\n" else "�" for c in str(text)))


def percent(share: float) -> str:
    """A share of the width as an attribute, `12.34%`."""
    return f"{100 * min(max(share, 0.0), 1.0):.2f}".rstrip("0").rstrip(".") + "%"


def bar(length: float, colour: str, *, pale: float = 0.0, height: int = 14) -> str:
    """One bar; `length` and `pale` (drawn behind it) are shares of the width."""
    inner, top = (height // 2, height // 4) if pale > length else (height, 0)
    behind = (
        f'<rect width="{percent(pale)}" height="{height}" rx="2" fill="{colour}" opacity=".3"/>'
        if pale > length
        else ""
    )
    return (
        f'<svg class="bar" width="100%" height="{height}" aria-hidden="true">{behind}'
        f'<rect y="{top}" width="{percent(length)}" height="{inner}" rx="2" fill="{colour}"/></svg>'
    )


def swatch(colour: str) -> str:
    """A small square of that colour."""
    return (
        '<svg class="swatch" width="10" height="10" aria-hidden="true">'
        f'<rect width="10" height="10" rx="2" fill="{colour}"/></svg>'
    )


def stacked(parts: Sequence[Part], label: str, *, height: int = 34) -> str:
    """Parts beside each other that add up to the whole, with a legend that names each with its value."""
    drawn, at = [], 0.0
    for part in parts:
        drawn.append(
            f'<rect x="{percent(at)}" width="{percent(part.share)}" height="{height}" fill="{part.colour}">'
            f"<title>{escape(part.name)}: {escape(part.value)}</title></rect>"
        )
        if part.share > _LABEL_SHARE:
            ink = "#1a1a19" if part.colour in _DARK_INK else "#ffffff"
            drawn.append(
                f'<text x="{percent(at + part.share / 2)}" y="{height / 2 + 5:g}" fill="{ink}" text-anchor="middle">'
                f"{100 * part.share:.0f} %</text>"
            )
        at += part.share
    legend = "".join(
        f'<li title="{escape(part.meaning)}">{swatch(part.colour)}{escape(part.name)} <b>{100 * part.share:.1f} %</b> '
        f"<span>{escape(part.value)}</span></li>"
        for part in parts
    )
    return (
        f'<svg class="stacked" width="100%" height="{height}" role="img" aria-label="{escape(label)}">'
        f'{"".join(drawn)}</svg><ul class="legend">{legend}</ul>'
    )


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


def plot(
    body: str,
    over: str,
    *,
    height: int,
    y_ticks: Sequence[tuple[float, str]],
    x_ticks: Sequence[tuple[float, str]],
    label: str,
    y_name: str = "",
    x_name: str = "",
) -> str:
    """A plot that is as wide as the page.

    body: drawn in a box of WIDE by `height` that is stretched across. over: drawn on top, x as a percentage and y in
    pixels from the top, not stretched. Ticks: (share of the width, or of the height from the bottom; text).
    """  # fmt: skip
    lines = "".join(
        f'<line class="grid" x1="0" x2="100%" y1="{height * (1 - at):.1f}" y2="{height * (1 - at):.1f}"/>'
        for at, _ in y_ticks
    )
    left = "".join(
        f'<text class="tick" x="100%" y="{height * (1 - at) + 14:.1f}" text-anchor="end">{escape(text)}</text>'
        for at, text in y_ticks
    )
    return (
        f'<figure class="plot">{_name("y-name", y_name)}'
        f'<svg class="plot-y" width="100%" height="{height + 30}" aria-hidden="true">{left}</svg>'
        f'<svg class="plot-area" width="100%" height="{height + 30}" role="img" aria-label="{escape(label)}">'
        f'<svg y="10" width="100%" height="{height}" overflow="visible">{lines}'
        f"{stretched(body, height)}{over}</svg>{axis(x_ticks, height + 26)}</svg>"
        f"{_name('x-name', x_name)}</figure>"
    )


def _name(kind: str, text: str) -> str:
    return f'<figcaption class="{kind}">{escape(text)}</figcaption>' if text else ""


def stretched(body: str, height: int) -> str:
    """`body`, drawn in a box of WIDE by `height`, as wide as what it stands in."""
    return f'<svg viewBox="0 0 {WIDE} {height}" width="100%" height="{height}" preserveAspectRatio="none">{body}</svg>'


def axis(x_ticks: Iterable[tuple[float, str]], y: int) -> str:
    """The texts below a plot; those at its ends stay inside."""
    return "".join(
        f'<text class="tick" x="{percent(at)}" y="{y}" text-anchor="{_anchor(at)}">{escape(text)}</text>'
        for at, text in x_ticks
    )


def _anchor(at: float) -> str:
    return "start" if at < 0.02 else "end" if at > 0.97 else "middle"


def line(points: Sequence[tuple[float, float]], height: int, *, steps: bool = False) -> str:
    """Path data of a line through (share of the width, share of the height from the bottom)."""
    if not points:
        return ""
    out, before = [], 0.0
    for number, (x, y) in enumerate(points):
        across, down = f"{WIDE * x:.1f}", f"{height * (1 - y):.1f}"
        if number == 0:
            out.append(f"M{across} {down}")
        elif steps:
            out.append(f"H{across}" + (f"V{down}" if y != before else ""))
        else:
            out.append(f"L{across} {down}")
        before = y
    return "".join(out)
