"""Tables: each declared once for every surface, and what it becomes when it is filled.

A module in `profiler_kit/tables/` declares one or more. The command line, `--json`, `--csv`, SQL, the dashboard, the
report, notebooks, Markdown and the reference page lay out what is declared here; none of them names a column.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from profiler_kit.errors import OptionError
from profiler_kit.later import shown
from profiler_kit.names import csv_cell
from profiler_kit.schema import Schema

if TYPE_CHECKING:
    import pandas as pd

Of = Literal[
    "trace", "file", "snapshot", "joined", "job", "layers", "ladder", "study", "diff", "layers diff", "memory diff",
    "tree diff",
    "requests", "load", "runs", "flight", "trend",
]  # fmt: skip
Kind = Literal["choice", "microseconds", "count", "text", "flag", "file"]
Value = str | int | float | bool | None
MOST_US: Final = 1e9
BETWEEN: Final = " > "  # of a path as one text


@dataclass(frozen=True)
class Option:
    """A keyword of a table's `fill`, a flag of its command, a widget of its page.

    kind: "choice" one of `choices`; "microseconds" a length of time; "count" a whole number from `least` on; "text"
    anything, None where it is left out; "file" a file on the user's machine, so that it has no widget; "flag" on or
    off. flag: as the command line spells it, from the name unless given. suggest: what an error message says to try,
    the default unless given.
    """

    name: str
    default: Value
    meaning: str
    kind: Kind = "text"
    choices: tuple[str, ...] = ()
    least: int = 1
    suggest: str = ""

    @property
    def flag(self) -> str:
        """The option as the command line spells it."""
        return "--" + self.name.replace("_", "-")

    def check(self, value: Value) -> Value:
        """The value; raises OptionError when it is not one of the option's."""
        if value is None and self.default is None:
            return value
        what = ""
        if self.kind == "choice" and value not in self.choices:
            what = f"one of {', '.join(self.choices)}"
        elif self.kind == "microseconds" and not (isinstance(value, int | float) and 0 <= value < MOST_US):
            what = "microseconds, 0 or more"
        elif self.kind == "count" and not (isinstance(value, int) and value >= self.least):
            what = f"a whole number, {self.least} or more"
        if what:
            tried = self.suggest or f"{self.default:g}" if isinstance(self.default, float) else self.suggest
            raise OptionError(f"{self.flag} {value}: expected {what}. Try: {self.flag} {tried or self.default}")
        return value


class Empty(NamedTuple):
    """Why a table of a trace has no rows where there was GPU work.

    said: the sentence. lacks: what was not recorded, as in findings.quality.WORDS, which knows how to record it.
    attempt: what else to try. of_host: it holds what the host did too, so that no GPU is not why it is empty. nothing:
    the column that is empty, or says that there is no region, in rows that count as none.
    """

    said: str
    lacks: str = ""
    attempt: str = ""
    of_host: bool = False
    nothing: str = ""


@dataclass(frozen=True, eq=False)
class Table:
    """One table.

    name: unique; its name in SQL. of: what it is filled from. title: a heading. fill: `fill(source, **options)` gives
    a frame of `schema`. command: the subcommand that prints it; key: which of several in its JSON object; by: the
    value of that command's `--by` that selects it. order: columns in the order people read them, the others after.
    share_of: the column whose share of the whole is shown beside it: of the top rows of a tree, else of all rows.
    tree: the column `path` is shown as an indented name, a parent above its children. icicle: the column that a drawing
    of the tree shows, or the two that it compares. texts: what to show in place of a
    column's values (`texts(source, frame)`), such as the name of a stack in place of its number. labels: headings that
    depend on the source (`labels(source)`), such as what is counted. host: the columns that say something where nothing
    ran on a GPU; the first time among them is what shares are of. top: rows that a text table shows. needs_gpu: empty
    for a trace without GPU events. arrow: fills it for SQL where a frame would be slow. row: the name of the column
    that numbers the rows in SQL. arguments: further arguments of the events that the trace must be loaded with (see
    load_trace). beside: what its JSON says beside the rows, which then are one value of an object. empty: why it has no
    rows, or what tells it of the trace.
    """

    name: str
    of: Of
    title: str
    schema: Schema
    fill: Callable[..., pd.DataFrame]
    options: tuple[Option, ...] = ()
    command: str = ""
    key: str = ""
    by: str = ""
    order: tuple[str, ...] = ()
    share_of: str = ""
    tree: bool = False
    icicle: tuple[str, ...] = ()
    host: tuple[str, ...] = ()
    texts: Callable[[Any, pd.DataFrame], Mapping[str, Sequence[str]]] | None = None
    labels: Callable[[Any], Mapping[str, str]] | None = None
    top: int | None = None
    needs_gpu: bool = False
    arguments: tuple[str, ...] = ()
    arrow: Callable[[Any], Any] | None = None
    row: str = ""
    beside: Callable[[Any], Mapping[str, Any]] | None = None
    empty: Empty | Callable[[Any], Empty] | None = None

    def of_source(self, source: Any, **options: Value) -> Filled:
        """The table filled from a trace, a snapshot, …; raises OptionError for an option that it has not."""
        known = {option.name: option for option in self.options}
        unknown = [name for name in options if name not in known]
        if unknown:
            has = ", ".join(known) or "no options"
            raise OptionError(f"table {self.name}: no option {unknown[0]!r}, expected one of: {has}.")
        values = {name: option.check(options.get(name, option.default)) for name, option in known.items()}
        return Filled(self, self.schema.check(self.fill(source, **values)), source, values)

    def holding(self, frame: pd.DataFrame, source: Any = None) -> Filled:
        """The table with rows that are computed already: of a selection, or to be kept without what it came from."""
        return Filled(self, self.schema.check(frame), source, {})

    @property
    def heading(self) -> str:
        """The title as a heading, with a capital."""
        return self.title[:1].upper() + self.title[1:]

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns in the order people read them."""
        return (*self.order, *(name for name in self.schema.columns if name not in self.order))


@dataclass(frozen=True, eq=False)
class Filled:
    """A table with its rows. frame: shared and read-only, one row per what `table.schema.row` says."""

    table: Table
    frame: pd.DataFrame
    source: Any = dataclasses.field(repr=False)
    options: Mapping[str, Value]

    def __len__(self) -> int:
        return len(self.frame)

    def records(self) -> list[dict[str, Any]]:
        """The rows as JSON has them: plain values, paths and JSON text as what they are, None for what is missing."""
        rows = records(self.frame)
        for name in self.table.schema.columns:
            if self.table.schema.unit(name) == "json":
                for row in rows:
                    row[name] = json_of(row[name])
        return rows

    def csv(self) -> str:
        """The rows as CSV, a region path as `outer > inner`, every text as csv_cell has it."""
        columns = self.table.schema.columns
        paths = [name for name, column in columns.items() if column.dtype in ("path", "paths")]
        texts = {name: [BETWEEN.join(path) for path in self.frame[name]] for name in paths}
        frame = self.frame.assign(**texts)
        words = frame.select_dtypes(["object", "category", "string"]).columns
        return frame.assign(**{name: frame[name].map(csv_cell) for name in words}).to_csv(index=False)

    def texts(self, rows: slice = slice(None)) -> Mapping[str, Sequence[str]]:
        """What to show in place of the values of some columns, of all rows or of some."""
        return self.table.texts(self.source, self.frame[rows]) if self.table.texts is not None else {}

    def _repr_html_(self) -> str:
        """Its first rows, as a notebook shows them."""
        return shown("table_card", self)


def records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows of a frame as plain values: paths become lists, what is missing None."""
    rows = []
    for row in frame.to_dict("records"):
        values = {str(key): list(value) if isinstance(value, tuple) else value for key, value in row.items()}
        rows.append({key: None if is_missing(value) else value for key, value in values.items()})
    return rows


def json_of(text: str) -> Any:
    """What JSON text says, None where there is none; the text itself if it is not JSON after all."""
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text) if text else None
    return text


def is_missing(value: object) -> bool:
    """Whether a cell holds no value: None, NA or NaN."""
    return value is None or type(value).__name__ == "NAType" or (isinstance(value, float) and math.isnan(value))
