"""HTML for every surface: one environment of templates that escapes everything, and pages that load nothing.

A surface gathers plain values, tables and drawings (Markup) and names a template; it writes no markup itself.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Final, Literal

import jinja2
from markupsafe import Markup

from profiler_kit.analyses.gpu.idle import HOST_BOUND
from profiler_kit.analyses.gpu.utilization import GPU_BOUND, NAMES, NO_GPU_WORK, SYNCHRONISING
from profiler_kit.findings.no_rows import no_rows
from profiler_kit.render import svg
from profiler_kit.render.layout import SHARE_OF_WHOLE, Shown, layout, name_column, rest_of
from profiler_kit.table import Filled
from profiler_kit.text import MISSING
from profiler_kit.timeline.palette import HUES, NEUTRAL, colour_of

TEMPLATES: Final = Path(__file__).with_name("templates")
Colours = Mapping[str, str]  # of regions by name, the same all over a page
VERDICTS: Final = {GPU_BOUND: "gpu", HOST_BOUND: "host", NAMES[SYNCHRONISING]: "sync", NO_GPU_WORK: "none"}
TITLE_LETTERS: Final = 300  # of a name on hover
VERDICT_COLUMNS: Final = ("verdict", "bound")
STATUSES: Final = ("slower", "faster", "same", "added", "removed")  # of what is compared


@cache
def environment() -> jinja2.Environment:
    """The templates of this package. Values are escaped; a name that a template misspells is an error."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=svg.clean,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.globals |= {"bar": svg.bar, "swatch": svg.swatch, "chip": verdict_chip}
    return found


def fill(template: str, /, **values: object) -> Markup:
    """A template with these values."""
    return Markup(environment().get_template(template).render(values))


def asset(name: str) -> str:
    """A style sheet or script beside the templates."""
    return (TEMPLATES / name).read_text(encoding="utf-8")


def page(template: str, /, *, style: str, script: str, images: bool = False, **values: object) -> str:
    """A page of its own that may load nothing: its content policy allows this style and script, by hash.

    images: allow those that are inside the page.
    """
    policy = (
        f"default-src 'none'; script-src '{digest(script)}'; style-src '{digest(style)}'; "
        f"{'img-src data:; ' if images else ''}base-uri 'none'; form-action 'none'"
    )
    inline = {"style": Markup(style), "script": Markup(script)}
    return str(fill(template, policy=Markup(policy), **inline, **values))


def digest(text: str) -> str:
    """The source expression of a content policy that allows exactly this inline text."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")


@dataclass(frozen=True)
class HtmlColumn:
    """One column of an HTML table. kind: number (right), text (left), prose (may break), whole or part (a share with a
    bar, of the whole column or of something else), pair (two bars).

    titles: what a cell shows on hover, "" for nothing. numbers: what a cell is sorted by, "" for what it reads.
    """

    heading: str
    cells: Sequence[str | Markup]
    kind: Literal["number", "text", "prose", "whole", "part", "pair"] = "number"
    meaning: str = ""
    titles: Sequence[str] = ()
    numbers: Sequence[str] = ()


def table(columns: Sequence[HtmlColumn], label: str, *, sortable: bool = True, more: str = "") -> Markup:
    """A table; sorted by a click where the page has its script. label: for screen readers. more: a line below."""
    rows = len(columns[0].cells) if columns else 0
    if not rows:
        return Markup()
    return fill("table.html.j2", columns=columns, rows=rows, label=label, sortable=sortable and rows > 1, more=more)


def table_html(
    filled: Filled,
    *,
    top: int | None = None,
    start: int = 0,
    colours: Colours | None = None,
    extra: Sequence[HtmlColumn] = (),
    more: bool = True,
    brief: bool = False,
) -> Markup:
    """A filled table: `top` rows from `start` on; without rows why there are none, empty where that is not known.

    colours: of regions, shown before their names and in the bars of a tree. extra: columns at the right. more: with a
    line that says what the rows left out add up to. brief: not to be sorted, and without the
    columns that need not be there.
    """
    if not len(filled):
        why = no_rows(filled)
        return Markup() if why is None else svg.draw('<p class="note">{}</p>', why.line)
    stop = len(filled) if top is None else min(start + top, len(filled))
    rows = slice(start, stop)
    hues = None
    if colours is not None and "path" in filled.frame:
        hues = [colour_of(colours, path[-1]) if path else NEUTRAL for path in filled.frame["path"][rows]]
    shown = [one for one in layout(filled, rows) if not (brief and one.optional)]
    columns = [_column(one, hues) for one in shown]
    if brief and not filled.table.command:  # events and intervals as they are: the reference says what they mean
        columns = [replace(column, meaning="") for column in columns]
    for share in [column for column in columns if column.kind == "whole"]:  # its bars belong to the names
        columns.remove(share)
        columns.insert(name_column(shown), share)
    rest = rest_of(filled, stop) if more else ""
    return table([*columns, *extra], filled.table.title, sortable=not (filled.table.tree or brief), more=rest)


def _column(shown: Shown, hues: Sequence[str] | None) -> HtmlColumn:
    """A column as laid out, with bars for shares, the colours of regions and small labels for verdicts."""
    titles = [
        _title(long) if long != text else "" for long, text in zip(shown.full or shown.cells, shown.cells, strict=True)
    ]
    if shown.kind == "share":
        is_whole = shown.name == SHARE_OF_WHOLE
        colours = hues if hues and is_whole else [HUES[0]] * len(shown.cells)
        with_bars = [
            text if value is None else Markup("{}{}").format(svg.bar(value, hue, height=10), text)
            for value, hue, text in zip(shown.values, colours, shown.cells, strict=True)
        ]
        return HtmlColumn(shown.heading, with_bars, "whole" if is_whole else "part", shown.meaning)
    if shown.kind == "number":
        bare = shown.bare()  # a cell in another unit than its column's keeps it, and is sorted by its number
        numbers = [
            f"{value:.6g}" if shown.unit and value is not None and text == cell else ""
            for value, text, cell in zip(shown.values, bare, shown.cells, strict=True)
        ]
        return HtmlColumn(shown.heading, bare, "number", shown.meaning, numbers=numbers)
    cells: Sequence[str | Markup] = shown.cells
    if shown.name == "path" and (hues or shown.depth):
        colours = hues or [""] * len(cells)
        cells = [region_name(hue, text, deep) for hue, text, deep in zip(colours, cells, shown.deep, strict=True)]
    elif shown.name in VERDICT_COLUMNS:
        cells = [verdict_chip(text) for text in cells]
    elif shown.name.endswith("status"):
        cells = [
            svg.draw('<span class="change {}">{}</span>', text, text) if text in STATUSES else text for text in cells
        ]
    return HtmlColumn(shown.heading, cells, "text", shown.meaning, titles)


def _title(text: str) -> str:
    return text if len(text) <= TITLE_LETTERS else f"{text[: TITLE_LETTERS - 1]}…"


def region_name(colour: str, name: str, depth: int = 0) -> Markup:
    """A region's name behind its colour, where it has one, indented by how deep it is nested."""
    square = svg.swatch(colour) if colour else Markup()
    return svg.draw('<span class="named d{}">{}{}</span>', min(depth, 9), square, name)


def verdict_chip(verdict: str) -> Markup:
    """What bounds a region, as a small label; the column's heading says what each means."""
    name = NAMES.get(verdict, verdict)
    kind = VERDICTS.get(name, "mixed")
    return svg.draw('<span class="chip {}">{}</span>', kind, name) if verdict not in ("", MISSING) else Markup()
