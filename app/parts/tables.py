"""Tables on a page: any declared table with its columns explained, its options as widgets, rows to pick, and CSV."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any, Final, cast
from urllib.parse import quote

import pandas as pd
import streamlit as st

from app import cache, query_params
from app.parts import widgets
from profiler_kit.findings.work import of_table
from profiler_kit.load.discover.runs import RunFolder
from profiler_kit.render.figures.tree import tree_figure
from profiler_kit.render.layout import Shown, as_tree, layout
from profiler_kit.table import Filled, Option, Table, Value
from profiler_kit.tables import every_table
from profiler_kit.timeline.palette import region_colours

INDENT: Final = "\u2003"
_ROW_PX, _LETTER_PX, _NUMBER_PX, _WIDE_PX, _WIDEST_PX = 35, 7, 62, 240, 440
_HEADING_PX: Final = 6.3  # of a letter: headings are words, of letters that are narrower than digits
_FIT_PX, _BOXES_PX = 950, 32  # what a window of 1280 has for a table beside the sidebar, of which boxes to tick take
_NAMES_PX: Final = 365
_LEAST_PX, _LEAST_FIRST_PX, _LEAST_SHARE_PX = 110, 180, 84  # to which texts and shares give way
_FORMATS: Final[Mapping[str, str]] = {
    "s": "%,.3f", "ms": "%,.3f", "µs": "%,.2f", "ns": "%,d", "GiB": "%,.3f", "MiB": "%,.2f", "%": "%+.1f"
}  # fmt: skip
_LEAST_S: Final = 0.1  # a latency of 0.022 s says less than one of 22.138 ms
_SMALLER: Final = {
    "s": ("ms", 1000),
    "ms": ("µs", 1000),
    "GiB": ("MiB", 1024),
    "MiB": ("KiB", 1024),
    "GB/s": ("MB/s", 1000),
}


def show(filled: Filled, key: str, *, rows: int = 12) -> None:
    """A table as tall as its rows up to a limit, and as CSV."""
    frame, look = _frame(as_tree(filled) if filled.table.tree else filled, rows)
    st.dataframe(frame, key=key, **look)
    widgets.csv(filled, key)


def pick_row(filled: Filled, key: str, *, names: Sequence[str], param: str, rows: int = 12) -> int | None:
    """The same with one row to pick, by any of its cells; returns its number.

    The row's name (of `names`, one a row) is kept in the address (as `param`, if given), and a row named there is
    selected.
    """
    default = query_params.row_asked(param, list(names)) if param else None
    frame, look = _frame(filled, rows, _FIT_PX - _BOXES_PX)
    event = st.dataframe(
        frame,
        key=key,
        on_select="rerun",
        selection_mode=["single-row", "single-cell"],
        selection_default=None if default is None else {"selection": {"rows": [default]}},
        **look,
    )
    widgets.csv(filled, key)
    row = _last_picked(key, event["selection"]["rows"], [row for row, _ in event["selection"]["cells"]], names)
    if param:
        query_params.keep(param, "" if row is None else names[row])
    return row


def row_now(row: int | None, seen: Sequence[str], names: Sequence[str]) -> int | None:
    """Where what was in that row of the table that the reader saw is in the one of now; None when it is gone."""
    if row is None or row >= len(seen):
        return None
    if list(seen) == list(names):
        return row
    return list(names).index(seen[row]) if seen[row] in names else None


def _last_picked(key: str, ticked: Sequence[int], clicked: Sequence[int], names: Sequence[str]) -> int | None:
    """The row that was ticked or of which a cell was clicked, whichever came last: the browser keeps both, by number,
    also when the rows have changed since.
    """
    held: tuple[list[int], list[int], int | None, list[str]]
    held = st.session_state.get(f"picked-{key}", ([], [], None, list(names)))
    row = held[2]
    if list(ticked) != held[0]:
        row = next(iter(ticked), None)
    elif list(clicked) != held[1]:
        row = next(iter(clicked), None)
    row = row_now(row, held[3], names)
    st.session_state[f"picked-{key}"] = (list(ticked), list(clicked), row, list(names))
    return row


def with_options(folder: RunFolder, name: str, **first: Value) -> Filled:
    """A declared table of the run, filled with the options that the reader sets here; `first` are set at first."""
    return cache.table(folder, name, **options(every_table()[name], first))


def section(folder: RunFolder, name: str, *, rows: int = 12, **first: Value) -> None:
    """A declared table of the run below its title, with its options and what it says."""
    table = every_table()[name]
    st.subheader(table.heading, help=f"One row per {table.schema.row}.")
    filled = with_options(folder, name, **first)
    said = of_table(filled)
    if said is not None:
        st.markdown(widgets.sentence(said))
    picture = tree_figure(filled)
    if picture is not None:
        widgets.figure(picture, f"{name}-icicle")
    show(filled, name, rows=rows)


def options(table: Table, first: Mapping[str, Value] = MappingProxyType({})) -> dict[str, Value]:
    """What the reader sets, a widget for each of the table's options; kept in the address."""
    options = [
        replace(option, default=first.get(option.name, option.default))
        for option in table.options
        if option.kind != "file"
    ]
    if not options:
        return {}
    with st.container(horizontal=True, vertical_alignment="bottom"):
        return {option.name: _widget(table, option) for option in options}


def _widget(table: Table, option: Option) -> Value:
    label = option.name.replace("_us", " (µs)").replace("_", " ").capitalize()
    how: dict[str, Any] = {"key": f"{table.name}-{option.name}", "help": option.meaning, "bind": "query-params"}
    default: Any = option.default
    value: Any
    if option.kind == "choice":
        value = st.segmented_control(label, option.choices, default=default, required=True, **how)
    elif option.kind == "flag":
        value = st.toggle(label, value=default, **how)
    elif option.kind == "text":
        value = st.text_input(label, value=default or "", width=260, **how) or default
    else:
        least = option.least if option.kind == "count" else 0.0
        value = st.number_input(label, min_value=least, value=default, width=180, **how)
    return cast("Value", value)


def _frame(filled: Filled, rows: int, room_px: int = _FIT_PX) -> tuple[pd.DataFrame, dict[str, Any]]:
    """What is shown of a table, and how: numbers in the unit of their column, names indented behind their colour.

    What need not be there is on the right, full names last; of those only what a window of 1280 has room for is there
    at first, the others in the menu of columns.
    """
    data: dict[str, Sequence[Any]] = {}
    columns: dict[str, Any] = {}
    full: dict[str, Sequence[str]] = {}
    shown = sorted(layout(filled), key=lambda one: one.optional)
    for one in shown:
        if one.depth and filled.table.tree:
            paths = list(filled.frame["path"])
            kinds = filled.frame["kind"] if "kind" in filled.frame else ["region"] * len(paths)
            is_region = [bool(path) and kind == "region" for path, kind in zip(paths, kinds, strict=True)]
            colours = region_colours(
                name for path, region in zip(paths, is_region, strict=True) if region for name in path
            )
            data["colour"] = [
                _swatch(colours[path[-1]]) if region else "" for path, region in zip(paths, is_region, strict=True)
            ]
            columns["colour"] = st.column_config.ImageColumn(
                "", width=36, help="The colour of this region on every page."
            )
        data[one.name], columns[one.name] = _column(one, at_an_end=one is shown[0] or one is shown[-1])
        if one.full and list(one.full) != list(one.cells) and not one.depth:
            full[f"{one.name}, full"] = one.full
            columns[f"{one.name}, full"] = st.column_config.TextColumn("Full name", help=one.meaning, width=_WIDEST_PX)
    order = _fit(columns, shown, ["colour"] if "colour" in data else [], room_px)
    frame = pd.DataFrame({**data, **full})
    height = _ROW_PX * (min(max(len(frame), 1), rows) + 1) + 3
    return frame, {
        "column_config": columns, "column_order": order, "hide_index": True, "placeholder": "–", "height": height
    }  # fmt: skip


def _fit(columns: dict[str, Any], shown: Sequence[Shown], before: Sequence[str], room_px: int) -> list[str]:
    """The columns that have room, made narrower for it: texts first, the widest of them, then shares.

    A heading is never cut off. Of the columns that need not be there each that has room, of the others as many from the
    left as have.
    """
    texts = [one.name for one in shown if one.kind == "text"]
    shares = [one.name for one in shown if one.kind == "share"]
    least = {name: _LEAST_PX if number else _LEAST_FIRST_PX for number, name in enumerate(texts)}
    least |= dict.fromkeys(shares, _LEAST_SHARE_PX)
    needs = {
        one.name: min(columns[one.name]["width"], max(least[one.name], _heading_px(columns[one.name]["label"])))
        if one.name in least
        else columns[one.name]["width"]
        for one in shown
    }
    left = room_px - sum(columns[name]["width"] for name in before)
    order = [*before]
    for one in shown:
        if one.optional and texts and one is next(other for other in shown if other.optional):
            # the names are worth more than what need not be there
            left -= max(0, min(columns[texts[0]]["width"], _NAMES_PX) - needs[texts[0]])
        if needs[one.name] <= left:
            order.append(one.name)
            left -= needs[one.name]
        elif not one.optional:
            break
    texts = [name for name in texts if name in order]
    for narrower in (texts[1:-1], texts, shares):  # of texts those in the middle first
        mine = [name for name in order if name in narrower]
        while mine and sum(columns[name]["width"] for name in order) > room_px:
            mine = [name for name in mine if columns[name]["width"] > needs[name]]
            if mine:
                columns[max(mine, key=lambda name: columns[name]["width"])]["width"] -= 1
    return order


def _heading_px(title: str) -> int:
    return round(_HEADING_PX * len(title)) + 18


def _longest(one: Shown) -> int:
    """The letters of the longest number of a column as it is drawn: the largest, or the smallest with its sign."""
    values, _, shape = _in_unit(one)
    told = [value for value in values if value is not None]
    ends = (min(told), max(told)) if told else ()
    return max((len(format(int(end) if shape.endswith("d") else end, shape[1:])) for end in ends), default=0)


def _column(one: Shown, *, at_an_end: bool) -> tuple[Sequence[Any], Any]:
    """The values of a column, and how they are shown: as wide as the longest needs, up to a limit."""
    longest = max((len(cell) + 2 * deep for cell, deep in zip(one.cells, one.deep, strict=True)), default=0)
    if one.kind == "share":
        percent = [None if value is None else 100 * value for value in one.values]
        title = _title(one.label)
        return percent, st.column_config.ProgressColumn(
            title,
            format="%.1f %%",
            min_value=0.0,
            max_value=100.0,
            help=one.meaning,
            width=max(100, _heading_px(title)),
        )
    if one.kind == "number":
        values, unit, shape = _in_unit(one)
        title = _title(f"{one.label} {unit}")
        width = max(_NUMBER_PX, _heading_px(title), min(_WIDE_PX, _LETTER_PX * _longest(one) + 18))
        return values, st.column_config.NumberColumn(title, format=shape, help=one.meaning, width=width)
    title = _title(one.label)
    widest = _WIDEST_PX if at_an_end else _WIDE_PX
    width = min(widest, max(_NUMBER_PX, _heading_px(title), _LETTER_PX * longest + 18))
    return one.indented(INDENT), st.column_config.TextColumn(title, help=one.meaning, width=width)


def _in_unit(one: Shown) -> tuple[Sequence[Any], str, str]:
    """Numbers in one unit and the printf format for it; a smaller one than the largest has where that suits most.

    Seconds only where none is too short for them: of a run on a CPU beside those on a GPU both have their digits in ms.
    """
    unit = one.unit
    told = [(cell, value) for cell, value in zip(one.cells, one.values, strict=True) if value is not None]
    suits = sum(cell.endswith(f" {one.unit}") for cell, _ in told)
    too_short = unit == "s" and any(0 < abs(value) < _LEAST_S for _, value in told)
    if unit in _SMALLER and (2 * suits < len(told) or too_short):
        smaller, size = _SMALLER[unit]
        values = [None if value is None else size * value for value in one.values]
        return values, smaller, _FORMATS.get(smaller, "%,.2f")
    if one.unit:
        return one.values, one.unit, _FORMATS.get(one.unit, "%,.2f")
    decimals = min(4, max((len(cell.partition(".")[2]) for cell in one.cells), default=0))
    is_id = any(abs(value or 0) >= 1000 and "," not in cell for value, cell in zip(one.values, one.cells, strict=True))
    return one.values, "", f"%,.{decimals}f" if decimals else "%d" if is_id else "%,d"


def _title(text: str) -> str:
    return (text[:1].upper() + text[1:]).strip()


def _swatch(colour: str) -> str:
    """A small square of that colour, as an image in a data URL."""
    square = f'<rect width="8" height="8" fill="{colour}"/>'
    return "data:image/svg+xml," + quote(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8">{square}</svg>')
