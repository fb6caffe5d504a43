"""Run one SELECT over tables in memory, without files or network.

The statement is parsed first: only a single SELECT passes, with no table function except those that make rows out
of nothing (DuckDB would also find functions that read files, or memory by its address). What passes runs in a
database of its own, whose settings are locked: external access and extensions off, memory limited.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import duckdb
import pandas as pd
import pyarrow as pa

from profiler_kit.errors import OptionError
from profiler_kit.files import temporary_folder
from profiler_kit.sql_arrow import SPILLED, create_views

if TYPE_CHECKING:
    from profiler_kit.load.trace.cached import Spilled
    from profiler_kit.sql_arrow import Source

MEMORY_LIMIT_BYTES: Final = 1 << 30  # of what a query builds; the tables themselves are not counted
SPILLED_MEMORY_BYTES: Final = 512 << 20  # for sorts and medians; totals and counts take some 10 MB
HINT: Final = "`profiler-kit query FILE --tables` lists tables and columns."

_SETTINGS: Final = {
    "python_enable_replacements": "false",  # else a table that is not known could be a variable of the caller
    "autoload_known_extensions": "false",
    "autoinstall_known_extensions": "false",
    "allow_community_extensions": "false",
    "temp_directory": "",  # nothing is written; DuckDB's default is a folder next to the user's files
}
_ROW_MAKERS: Final = frozenset(
    ("range", "generate_series", "unnest", "repeat", "repeat_row", "histogram", "histogram_values", "summary")
)
_CHANGES: Final = ("DELETE_", "INSERT_", "UPDATE_", "MERGE_")


def select(query: str, sources: Mapping[str, Source], *, memory_limit_bytes: int = MEMORY_LIMIT_BYTES) -> pd.DataFrame:
    """The result of one SELECT. Only the tables that it names are filled.

    Integers stay integers: Int64 and its like where some are missing, Python's where 64 bits are too few. Lists are
    Python lists.

    Raises OptionError when the query is not a single SELECT, is wrong, or needs more memory than it is given.
    """
    with database(memory_limit_bytes) as connection:
        names = tables_of(query, connection)
        for name, source in sources.items():
            if name in names:
                connection.register(name, source())
        with one_line(query, sources, memory_limit_bytes):
            return to_frame(connection.sql(query).to_arrow_table())


def select_spilled(query: str, spilled: Spilled, *, memory_limit_bytes: int = SPILLED_MEMORY_BYTES) -> pd.DataFrame:
    """As select, over the SPILLED tables of a trace that is too large for memory; large sorts go to a temporary folder.

    Raises OptionError as select does, and InputError when the folder has no room.
    """
    with temporary_folder() as folder:
        settings = {
            "temp_directory": str(folder),
            "threads": "2",  # each holds a row group
            "preserve_insertion_order": "false",
        }
        with database(memory_limit_bytes, **settings) as connection:
            tables_of(query, connection)
            create_views(connection, spilled)
            with one_line(query, SPILLED, memory_limit_bytes):
                return to_frame(connection.sql(query).to_arrow_table())


@contextmanager
def database(memory_limit_bytes: int, **settings: str) -> Iterator[duckdb.DuckDBPyConnection]:
    """An empty database in memory that reaches nothing outside; `settings` join its own, then all are locked."""
    limits = {"memory_limit": f"{memory_limit_bytes}B"}
    connection = duckdb.connect(":memory:", config={**_SETTINGS, **limits, **settings})
    try:
        connection.execute("SET enable_external_access = false")
        connection.execute("SET lock_configuration = true")
        yield connection
    finally:
        connection.close()


def tables_of(query: str, connection: duckdb.DuckDBPyConnection) -> set[str]:
    """The tables that a query names, in lower case; raises OptionError when it is not a single, harmless SELECT."""
    ((text,),) = connection.execute("SELECT json_serialize_sql(?)", [query]).fetchall()
    tree = json.loads(text)
    if tree.get("error"):
        if tree.get("error_type") == "not implemented":
            raise _not_a_select(query)
        raise OptionError(f"SQL: {_said(tree.get('error_message', ''))} in {_short(query)}. {HINT}")
    statements = tree.get("statements", [])
    if len(statements) != 1:
        raise OptionError(f"SQL: found {len(statements)} statements in {_short(query)}, expected one SELECT. {HINT}")
    names = set()
    for node in _nodes(statements):
        kind = str(node.get("type", ""))
        if kind.startswith(_CHANGES):
            raise _not_a_select(query)
        if kind == "TABLE_FUNCTION":
            function = str(node.get("function", {}).get("function_name", "")).lower()
            if function not in _ROW_MAKERS:
                raise OptionError(f"SQL: the table function {function!r} is not allowed, expected tables only. {HINT}")
        if kind == "BASE_TABLE":
            names.add(str(node.get("table_name", "")).lower())
    return names


def _not_a_select(query: str) -> OptionError:
    return OptionError(f"SQL: found a statement other than SELECT in {_short(query)}, expected one SELECT. {HINT}")


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the parsed statement; without recursion, queries may be deep."""
    left = [tree]
    while left:
        node = left.pop()
        if isinstance(node, dict):
            yield node
            left.extend(node.values())
        elif isinstance(node, list):
            left.extend(node)


@contextmanager
def one_line(query: str, sources: Iterable[str], memory_limit_bytes: int) -> Iterator[None]:
    """Turn DuckDB's errors into an OptionError of one line."""
    try:
        yield
    except duckdb.OutOfMemoryException as error:
        raise OptionError(
            f"SQL: the query needs more memory than the {memory_limit_bytes >> 20} MiB it is given, in "
            f"{_short(query)}. Aggregate or filter earlier, or take the frames of the Python API."
        ) from error
    except duckdb.CatalogException as error:
        if "Table with name" not in str(error):
            raise OptionError(f"SQL: {_said(str(error))} in {_short(query)}. {HINT}") from error
        said = _said(str(error)).partition(" does not exist")[0].removeprefix("Table with name ")
        raise OptionError(f"SQL: no table {said!r}, found {', '.join(sources)}. {HINT}") from error
    except duckdb.Error as error:
        raise OptionError(f"SQL: {_said(str(error))} in {_short(query)}. {HINT}") from error


def _said(message: str) -> str:
    """DuckDB's message on one line, without its kind, its picture of the line, and its last full stop."""
    text = " ".join(message.partition("\n\nLINE ")[0].split())
    kind, colon, rest = text.partition(" Error: ")
    return (rest if colon and " " not in kind else text).rstrip(".!")


def _short(query: str, width: int = 120) -> str:
    text = " ".join(query.split())
    return repr(text if len(text) <= width else text[: width - 1] + "…")


def to_frame(table: pa.Table) -> pd.DataFrame:
    """A result as a frame; names that occur twice get a number."""
    columns: dict[str, Any] = {}
    for field, values in zip(table.schema, table.columns, strict=True):
        name, number = field.name, 1
        while name in columns:
            name, number = f"{field.name}_{number}", number + 1
        columns[name] = _series(values)
    return pd.DataFrame(columns)


def _series(values: pa.ChunkedArray) -> Any:
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_decimal(values.type):  # sums of integers are HUGEINT, which Arrow has not
        if values.type.scale:
            values = values.cast(pa.float64())
        else:
            try:
                values = values.cast(pa.int64())
            except pa.ArrowInvalid:
                return pd.Series([None if v is None else int(v) for v in values.to_pylist()], dtype=object)
    if values.null_count and (pa.types.is_integer(values.type) or pa.types.is_boolean(values.type)):
        kind = pd.arrays.BooleanArray if pa.types.is_boolean(values.type) else pd.arrays.IntegerArray
        missing = values.is_null().to_numpy()
        return kind(values.fill_null(False if pa.types.is_boolean(values.type) else 0).to_numpy(), missing)
    if pa.types.is_nested(values.type):
        return pd.Series(values.to_pylist(), dtype=object)
    return values.to_pandas()
