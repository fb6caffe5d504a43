"""Fill the tables of a query: each declared table (profiler_kit.tables) becomes a table of SQL.

Times are nanoseconds since the trace's base time (in a snapshot microseconds of Unix time), sizes bytes, all of them
integers. A region's path is text ("step > image encoder") and, under the name with `_list`, a list of names. Where
there is a start and a duration, end_ns follows; a table that others refer to by row has its row's number as a column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from profiler_kit.load.trace.categories import is_gpu_work, is_launch
from profiler_kit.schema import COMMON
from profiler_kit.table import BETWEEN, Of, Table
from profiler_kit.tables import every_table, tables_of

if TYPE_CHECKING:
    import duckdb

    from profiler_kit.load.trace.cached import Spilled

Source = Callable[[], "pa.Table"]
_TYPES: Final[Mapping[str, str]] = {
    "int64": "BIGINT", "Int64": "BIGINT", "int32": "INTEGER", "Int32": "INTEGER", "uint64": "UBIGINT",
    "UInt64": "UBIGINT", "float64": "DOUBLE", "Float64": "DOUBLE", "bool": "BOOLEAN", "boolean": "BOOLEAN",
    "list": "VARCHAR[]",
}  # fmt: skip
# Of a trace that is too large for memory: what needs no attribution.
SPILLED: Final = ("events", "launches", "gpu_events", "threads")


def sql_columns(table: Table, *, spilled: bool = False) -> dict[str, tuple[str, str]]:
    """SQL type and meaning of each column of a table, in order; `spilled`: of the events on disk (SPILLED)."""
    columns: dict[str, tuple[str, str]] = {}
    if table.row:
        columns[table.row] = ("BIGINT", "Row of this table.")
    for name, column in table.schema.columns.items():
        columns[name] = (_TYPES.get(column.dtype, "VARCHAR"), table.schema.meaning(name))
        if column.dtype in ("path", "paths"):
            columns[f"{name}_list"] = ("VARCHAR[]", "The same as a list.")
        if name == "dur_ns" and "end_ns" not in table.schema.columns:
            columns["end_ns"] = ("BIGINT", COMMON["end_ns"][1])
    if spilled and table.name in ("launches", "gpu_events"):
        recorded = sql_columns(every_table()["events"])
        return {name: value for name, value in columns.items() if name in recorded}
    return columns


def describe(tables: Iterable[Table], *, spilled: bool = False) -> str:
    """The tables as text, one line a column."""
    lines = []
    for table in tables:
        lines.append(f"{table.name}: one row per {table.schema.row}")
        columns = sql_columns(table, spilled=spilled)
        width, kind_width = max(map(len, columns)), max(len(kind) for kind, _ in columns.values())
        for column, (kind, meaning) in columns.items():
            lines.append(f"    {column:<{width}}  {kind:<{kind_width}}  {meaning}".rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


def sources(of: Of, source: Any) -> dict[str, Source]:
    """How to fill each table of a trace or a snapshot, its options as they are by themselves."""
    return {table.name: _filler(table, source) for table in tables_of(of)}


def _filler(table: Table, source: Any) -> Source:
    def fill() -> pa.Table:
        filled = table.arrow(source) if table.arrow else to_arrow(table, table.of_source(source).frame)
        declared = sql_columns(table)  # columns of further arguments come after these
        return filled.select([*declared, *(name for name in filled.column_names if name not in declared)])

    return fill


def to_arrow(table: Table, frame: pd.DataFrame) -> pa.Table:
    """The frame of a table with the columns that SQL has (sql_columns)."""
    columns: dict[str, Any] = {table.row: np.arange(len(frame), dtype=np.int64)} if table.row else {}
    for name, column in table.schema.columns.items():
        values = frame[name]
        if column.dtype in ("path", "paths", "category"):
            codes, labels = _factorized(values)
            if column.dtype == "category":
                columns[name] = _coded(codes, pa.array(labels.astype(object), pa.string()))
            else:  # NULL for an empty path: nothing is known
                columns[name] = _coded(codes, pa.array([BETWEEN.join(path) or None for path in labels], pa.string()))
                lists = pa.array([list(path) or None for path in labels], pa.list_(pa.string()))
                columns[f"{name}_list"] = lists.take(pa.array(codes, mask=codes < 0))
        elif column.dtype == "list":
            columns[name] = pa.array(values.tolist(), pa.list_(pa.string()))
        else:
            columns[name] = pa.array(values, pa.string() if column.dtype == "str" else None)
        if name == "dur_ns" and "end_ns" not in frame:
            columns["end_ns"] = (frame["start_ns"] + values).to_numpy()
    return pa.table(columns)


def _factorized(values: pd.Series[Any]) -> tuple[Any, Any]:
    """The code of each row, and the value of each code."""
    return (values.cat.codes.to_numpy(), values.cat.categories) if values.dtype == "category" else pd.factorize(values)


def _coded(codes: Any, labels: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), labels)


def create_views(connection: duckdb.DuckDBPyConnection, spilled: Spilled) -> None:
    """Make the SPILLED tables from columns in a file; what a query does not touch is not read."""

    from profiler_kit.attribute.frames import threads_frame

    columns = spilled.trace.columns
    texts = {"name": (columns.name, columns.names), "category": (columns.category, columns.categories)}
    texts |= {name: (text.codes, text.values) for name, text in columns.extra.items()}
    arrays: dict[str, Any] = {}
    chosen = {"event": "_event"}
    for column, (codes, values) in texts.items():  # views of the file: a code for each row, beside the texts once
        arrays[f"_{column}"] = pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(values, pa.string()))
        chosen[column] = f'"_{_doubled(column)}"'
    for column, kind in (("thread", "INTEGER"), ("start_ns", "BIGINT"), ("dur_ns", "BIGINT")):
        arrays[f"_{column}"] = pa.array(getattr(columns, column))
        chosen[column] = f"_{column}::{kind}"
    chosen["end_ns"] = f"{chosen['start_ns']} + {chosen['dur_ns']}"
    for column, integers in columns.integers.items():
        arrays[f"_{column}"] = pa.array(integers)
        # stored in as few bytes as hold it; the smallest integer of that width is a missing one
        chosen[column] = f"nullif(_{column}, {np.iinfo(integers.dtype).min})::BIGINT"
    connection.register("_events", pa.table(arrays))
    # an event's row number is its position: joined by position, which DuckDB streams without sorting or keeping it
    rows = f"_events POSITIONAL JOIN range({len(columns)}) _rows(_event)"
    declared = sql_columns(every_table()["events"])
    order = [*declared, *(name for name in chosen if name not in declared)]
    select = ", ".join(f'{chosen[name]} AS "{_doubled(name)}"' for name in order)
    connection.execute(f"CREATE VIEW events AS SELECT {select} FROM {rows}")
    for table, wanted in (("launches", is_launch), ("gpu_events", is_gpu_work)):
        names = ", ".join(quoted(name) for name in columns.categories if wanted(name)) or "NULL"
        shown = ", ".join(sql_columns(every_table()[table], spilled=True))
        connection.execute(f"CREATE VIEW {table} AS SELECT {shown} FROM events WHERE category IN ({names})")
    connection.register("threads", to_arrow(every_table()["threads"], threads_frame(columns)))


def quoted(text: str) -> str:
    """A string literal of SQL."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _doubled(name: str) -> str:
    return name.replace('"', '""')
