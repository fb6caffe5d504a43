"""Lay a filled table out for people: which columns, with which heading, in which unit, and the text of each cell."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final, Literal

import pandas as pd

from profiler_kit.names import fit_names, kernel_names, printable
from profiler_kit.schema import Column, Schema
from profiler_kit.table import Filled, Table, is_missing, json_of
from profiler_kit.text import (
    MISSING,
    TIME,
    bandwidth_in,
    byte_unit,
    bytes_in,
    fmt_bandwidth,
    fmt_bytes,
    fmt_count,
    fmt_factor,
    fmt_ns,
    fmt_path,
    fmt_percent,
    fmt_rate,
    ns_in,
    reads_in,
    time_unit,
)
from profiler_kit.units import NS_PER_US

SHARE_OF_WHOLE: Final = "share_of_whole"  # the name of the column beside Table.share_of
KERNEL_LETTERS: Final = 60
REGION_LETTERS: Final = 52
SEQUENCE_LETTERS: Final = 44  # of each kernel in a sequence of them
EPOCH: Final = datetime(1970, 1, 1)
AS_FACTOR: Final = 1.5  # from here on "÷ 2.10" reads better than "-52 %"
Kind = Literal["text", "number", "share", "flag"]
Maker = Callable[[Schema, str, Sequence[Any], float], "Shown"]  # values to show, and the largest of the whole column


@dataclass(frozen=True)
class Shown:
    """A column as it is shown.

    label: heading; unit: that of `values`, "" where there is none. values: numbers in that unit (None: missing), or
    texts. cells: the same as text, with the unit. full: the whole text of a cell that was shortened. depth: how
    far a name is indented. optional: may be left out where there is no room.
    """

    name: str
    label: str
    meaning: str
    kind: Kind
    unit: str
    values: Sequence[Any]
    cells: Sequence[str]
    full: Sequence[str] = ()
    depth: Sequence[int] = ()
    optional: bool = False

    @property
    def deep(self) -> Sequence[int]:
        """The depth of each cell, 0 where names are not indented."""
        return self.depth or [0] * len(self.cells)

    @property
    def heading(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label

    def indented(self, step: str) -> list[str]:
        """The cells, names of a tree behind one `step` for every level."""
        return [step * deep + cell for deep, cell in zip(self.deep, self.cells, strict=True)]

    def bare(self) -> list[str]:
        """The cells without their unit, which the heading says."""
        return [cell.removesuffix(f" {self.unit}") for cell in self.cells] if self.unit else list(self.cells)


def layout(filled: Filled, rows: slice = slice(None)) -> list[Shown]:
    """The columns to show, of all rows or of some; units and shares are those of the whole table.

    A column that holds nothing (every value missing or empty) is left out, and one that an option selects by
    (`device`) where all rows have the same value.
    """
    table, frame = filled.table, filled.frame
    part = frame[rows]
    texts = filled.texts(rows)
    labels = table.labels(filled.source) if table.labels is not None else {}
    shown = []
    shared = _shared(table, frame)
    for name in _visible(table, frame):
        column = table.schema.columns[name]
        is_tree = name == "path" and table.tree
        is_chosen = (name in filled.options or column.show == "varied") and frame[name].nunique() < 2
        if len(frame) and not is_tree and (is_chosen or _is_blank(frame[name])):
            continue
        if is_tree:
            found = _tree(table.schema, name, list(part[name]), texts.get(name) or innermost_names(part))
        elif name in texts:
            found = _worded(table.schema, name, list(texts[name]), list(part[name]))
        else:
            unit = "share" if column.of else table.schema.unit(name)
            values, every = _values(part, name, column), frame[name]
            if table.of == "trace" and table.schema.is_moment(name) and filled.source is not None:
                zero = filled.source.zero_ns
                values, every = [None if value is None else value - zero for value in values], every - zero
            found = _COLUMNS[unit](table.schema, name, values, _largest(every))
        shown.append(dataclasses.replace(found, label=labels[name]) if name in labels else found)
        if name == shared:
            shown.append(_share_of_whole(table, frame, name, rows))
    return shown


def rest_of(filled: Filled, shown: int) -> str:
    """How many rows follow the first `shown`, and what they add up to where the table has a whole; "" for none."""
    table, left = filled.table, len(filled) - shown
    if left <= 0:
        return ""
    said = f"{fmt_count(left)} more {'row' if left == 1 else 'rows'}"
    name = _shared(table, filled.frame)
    if not name or table.tree:
        return f"{said}."
    values = filled.frame[name].fillna(0)
    rest, whole = float(values.iloc[shown:].sum()), float(values.sum()) or 1.0
    unit = table.schema.unit(name)
    text = fmt_ns(rest) if unit == "ns" else fmt_bytes(rest) if unit == "bytes" else fmt_count(int(rest))
    return f"{said}: {text}, {fmt_percent(rest / whole)}."


def name_column(shown: Sequence[Shown]) -> int:
    """How many columns at the left are names: texts, which are not aligned as numbers are."""
    return max(1, next((n for n, one in enumerate(shown) if one.kind != "text"), len(shown)))


def _visible(table: Table, frame: pd.DataFrame) -> list[str]:
    if table.host and "gpu_events" in frame and not frame["gpu_events"].sum():
        return list(table.host)
    return [name for name in table.columns if table.schema.columns[name].show != "never"]


def _shared(table: Table, frame: pd.DataFrame) -> str:
    if table.host and "gpu_events" in frame and not frame["gpu_events"].sum():
        return next((name for name in table.host if name.endswith("_ns")), "")
    return table.share_of


def _is_blank(values: pd.Series[Any]) -> bool:
    is_text = values.dtype == object or values.dtype == "category"
    return bool(values.isna().all() or (is_text and all(isinstance(v, str | tuple | list) and not v for v in values)))


def _values(frame: pd.DataFrame, name: str, column: Column) -> list[Any]:
    values = [None if is_missing(value) else value for value in frame[name].tolist()]
    if column.where:
        values = [value if given else None for value, given in zip(values, frame[column.where].tolist(), strict=True)]
    if not column.of:
        return values
    whole = frame[column.of].tolist()
    return [None if value is None or not all_ else value / all_ for value, all_ in zip(values, whole, strict=True)]


def _largest(values: pd.Series[Any]) -> float:
    """The largest number of a column, whatever its sign; 0 where there is none. It decides the unit."""
    largest = values.abs().max() if values.dtype.kind in "iuf" else None
    return 0.0 if largest is None or is_missing(largest) else float(largest)


def _made(
    schema: Schema, name: str, kind: Kind, unit: str, values: Sequence[Any], cells: Sequence[str], **more: Any
) -> Shown:
    column, meaning = schema.columns[name], schema.meaning(name)
    if column.of:
        meaning += f" Shown as a share of {schema.label(column.of)}."
    optional = column.show == "room"
    return Shown(name, schema.label(name), meaning, kind, unit, values, cells, optional=optional, **more)


def _times(schema: Schema, name: str, values: Sequence[Any], largest: float, scale: int = 1) -> Shown:
    values = [None if value is None else value * scale for value in values]
    unit = time_unit((largest * scale,))
    numbers = [None if value is None else ns_in(value, unit) for value in values]
    cells = [fmt_ns(value, unit if reads_in(value, *TIME[unit]) else None) for value in values]
    return _made(schema, name, "number", unit, numbers, cells)


def _sizes(schema: Schema, name: str, values: Sequence[Any], largest: float) -> Shown:
    unit = byte_unit((largest,))
    numbers = [None if value is None else bytes_in(value, unit) for value in values]
    cells = [MISSING if value is None else fmt_bytes(value) for value in values]  # each in the unit that fits
    return _made(schema, name, "number", unit, numbers, cells)


def _bandwidths(schema: Schema, name: str, values: Sequence[Any], largest: float) -> Shown:
    unit, size = bandwidth_in(largest)
    numbers = [None if value is None else value / size for value in values]
    return _made(schema, name, "number", unit, numbers, [fmt_bandwidth(value) for value in values])


def _shares(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    return _made(schema, name, "share", "", values, [fmt_percent(value) for value in values])


def _numbers(text: Callable[[Any], str]) -> Maker:
    def made(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
        cells = [MISSING if value is None else text(value) for value in values]
        return _made(schema, name, "number", "", values, cells)

    return made


def _text(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    cells = [printable(str(value)) if value is not None and value != "" else MISSING for value in values]
    return _made(schema, name, "text", "", cells, cells)


def _folded(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    """JSON as text; of a list of lists, such as shapes, equal ones that follow one another once, with their number."""

    def text(value: Any) -> Any:
        found = json_of(str(value)) if value else None
        if not isinstance(found, list) or not any(isinstance(one, list) for one in found):
            return value
        runs = [(json.dumps(one), len(list(same))) for one, same in itertools.groupby(found)]
        return ", ".join(one if count == 1 else f"{one} × {count}" for one, count in runs)

    shown = _text(schema, name, [text(value) for value in values])
    full = [printable(str(value)) if value else MISSING for value in values]
    return shown if full == list(shown.cells) else dataclasses.replace(shown, full=full)


def _worded(schema: Schema, name: str, texts: Sequence[str], values: Sequence[Any]) -> Shown:
    """Texts in place of values; where the values are texts too, they are kept in full."""
    if schema.unit(name) == "id":
        return _text(schema, name, texts)
    full = [printable(fmt_path(value) if isinstance(value, tuple) else str(value)) for value in values]
    return dataclasses.replace(_text(schema, name, texts), full=full)


def _moments(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    def text(unix_us: int) -> str:
        try:
            return str(EPOCH + timedelta(microseconds=unix_us))
        except OverflowError:  # no moment of any calendar
            return str(unix_us)

    return _text(schema, name, [None if value is None else text(value) for value in values])


def _changes(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    """b / a - 1 in percent; as a factor where that is large: `+4.8 %`, `× 2.10`, `÷ 3.09`."""

    def text(change: float) -> str:
        factor = 1 + change
        if 1 / AS_FACTOR < factor < AS_FACTOR or factor <= 0:
            return f"{100 * change:+.1f} %"
        return f"× {factor:.2f}" if factor > 1 else f"÷ {1 / factor:.2f}"

    cells = [MISSING if value is None else text(value) for value in values]
    return _made(schema, name, "number", "%", [None if value is None else 100 * value for value in values], cells)


def _kernels(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    if values and isinstance(values[0], tuple):  # a sequence of kernels
        distinct = list(dict.fromkeys(kernel for row in values for kernel in row))
        short = dict(zip(distinct, fit_names(kernel_names(distinct), SEQUENCE_LETTERS), strict=True))
        cells = [printable(" → ".join(short[kernel] for kernel in row)) for row in values]
        return _made(schema, name, "text", "", cells, cells, full=[printable("\n".join(row)) for row in values])
    names = [str(value) for value in values]
    cells = [printable(one) for one in fit_names(kernel_names(names), KERNEL_LETTERS)]
    return _made(schema, name, "text", "", cells, cells, full=[printable(one) for one in names])


def _paths(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    return _text(schema, name, [fmt_path(value) if value is not None else None for value in values])


def innermost_names(frame: pd.DataFrame) -> list[str]:
    """The last name of each path of a tree, of kernels the short one."""
    names = [path[-1] if path else "" for path in frame["path"]]
    if "kind" not in frame:
        return names
    kernels = list(dict.fromkeys(name for name, kind in zip(names, frame["kind"], strict=True) if kind == "kernel"))
    short = dict(zip(kernels, kernel_names(kernels), strict=True))
    return [short[name] if kind == "kernel" else name for name, kind in zip(names, frame["kind"], strict=True)]


def _tree(schema: Schema, name: str, paths: Sequence[tuple[str, ...]], innermost: Sequence[str]) -> Shown:
    """Each path below the last row above it that contains it, named by what it adds to that one.

    innermost: how the last name of each path is shown.
    """
    depth, names, around = [], [], list[tuple[str, ...]]()
    for path, last in zip(paths, innermost, strict=True):
        while (around and path[: len(around[-1])] != around[-1]) or path in around:
            around.pop()
        depth.append(len(around))
        added = path[len(around[-1]) if around else 0 :]
        names.append(fmt_path((*added[:-1], last) if added else ()) or f"(no {schema.label(name)})")
        around += [path] if path else []
    cells = [printable(one) for one in fit_names(names, [max(16, REGION_LETTERS - 2 * deep) for deep in depth])]
    return _made(schema, name, "text", "", cells, cells, full=[printable(fmt_path(p)) for p in paths], depth=depth)


def as_tree(filled: Filled) -> Filled:
    """A tree whose rows are in another order, each path below the one that contains it; what has no path comes last."""
    paths = filled.frame["path"].tolist()
    place = {path: number for number, path in enumerate(paths)}
    if len(place) < len(paths):  # of several devices: in the order of its declaration
        return filled

    def key(path: tuple[str, ...]) -> tuple[bool, list[int]]:
        return not path, [place.get(path[:depth], len(paths)) for depth in range(1, len(path) + 1)]

    rows = [place[path] for path in sorted(paths, key=key)]
    return replace(filled, frame=filled.frame.iloc[rows].reset_index(drop=True))


def _flags(schema: Schema, name: str, values: Sequence[Any], largest: float = 0) -> Shown:
    return _made(schema, name, "flag", "", values, [MISSING if v is None else "yes" if v else "" for v in values])


def _share_of_whole(table: Table, frame: pd.DataFrame, name: str, rows: slice) -> Shown:
    values = frame[name]
    top = values[frame["path"].map(len) <= 1] if table.tree else values
    whole = float(top.fillna(0).sum()) or 1.0
    of = f"of {table.schema.label(name)}"
    shares = [None if is_missing(value) else value / whole for value in values[rows].tolist()]
    meaning = "Share of the rows at the top." if table.tree else "Share of all rows of this table."
    return Shown(SHARE_OF_WHOLE, of, meaning, "share", "", shares, [fmt_percent(share) for share in shares])


_COLUMNS: Final[dict[str, Maker]] = {
    "ns": _times,
    "us": lambda schema, name, values, largest: _times(schema, name, values, largest, NS_PER_US),
    "bytes": _sizes,
    "unix_us": _moments,
    "change": _changes,
    "score": _numbers(lambda value: f"{value:.4f}"),
    "mib": _numbers(lambda value: f"{value:,.1f}"),
    "share": _shares,
    "bytes_per_s": _bandwidths,
    "per_s": _numbers(fmt_rate),
    "factor": _numbers(fmt_factor),
    "count": _numbers(lambda value: f"{value:,.1f}".removesuffix(".0")),
    "id": _numbers(str),
    "flag": _flags,
    "text": _text,
    "json": _folded,
    "path": _paths,
    "kernel": _kernels,
}
