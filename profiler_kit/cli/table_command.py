"""The subcommand of a table: its options, and the table as text, JSON or CSV, all from the declaration."""

from __future__ import annotations

import importlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from profiler_kit.cli import help_text
from profiler_kit.cli.output import (
    AsCsv,
    AsJson,
    Cluster,
    FlightDumps,
    JobFolder,
    RankTraces,
    Store,
    TraceFile,
    Workers,
    check_formats,
    json_text,
    notes_on,
    open_flight,
    open_ranks,
    open_requests,
    open_trace,
    open_trend,
    say,
    says_no_gpu,
)
from profiler_kit.load.job_folder import STORE_SUFFIX, keep, state_of
from profiler_kit.table import Filled, Of, Option, Table, Value

_TYPES: Final[Mapping[str, type]] = {
    **{"choice": str, "text": str, "file": str},
    **{"microseconds": float, "count": int, "flag": bool},
}
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder with requests, as POST /profile of sam serve writes it.")
]
# How the command line names and loads what a table is filled from.
_SOURCES: Final[Mapping[Of, tuple[Any, Callable[..., Any]]]] = {
    "trace": (TraceFile, open_trace),
    "job": (RankTraces, open_ranks),
    "requests": (RunFolder, open_requests),
    "flight": (FlightDumps, open_flight),
    "trend": (JobFolder, open_trend),
}
TOP: Final = Option("top", None, "Rows of the table; --json and --csv print all.", "count", suggest="30")
_READ_WITH: Final = {"workers": Workers, "cluster": Cluster, "store": Store}
_LOADED_WITH: Final[Mapping[Of, Mapping[str, Any]]] = {"job": _READ_WITH, "trend": _READ_WITH}


def table_command(name: str, words: Sequence[str] = ()) -> Callable[..., None]:
    """The function that typer makes the subcommand of: `tables/NAME.py` declares its tables. words: behind its name."""
    module = importlib.import_module(f"profiler_kit.tables.{name.replace('-', '_')}")
    tables = [table for table in module.TABLES if table.command == name]
    argument, _ = _SOURCES[tables[0].of]
    parameters = [_parameter("source", argument, inspect.Parameter.empty)]
    parameters += [_parameter("as_json", AsJson, False), _parameter("as_csv", AsCsv, False)]
    parameters += [_parameter(name, option, None) for name, option in _LOADED_WITH.get(tables[0].of, {}).items()]
    for option in _options(tables):
        kind: Any = _TYPES[option.kind] | None if option.default is None else _TYPES[option.kind]
        annotation = Annotated[kind, typer.Option(option.flag, help=option.meaning)]
        parameters.append(_parameter(option.name, annotation, option.default))

    def made(**given: Any) -> None:
        run(tables, words=words, **given)

    made.__doc__ = help_text(module.__doc__ or "")
    made.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # typer reads it
    made.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return made


def _options(tables: Sequence[Table]) -> list[Option]:
    """The options of a command's tables, each once, and those of the command itself: --by and --top."""
    found = {option.name: option for table in tables for option in table.options}
    by = tuple(table.by for table in tables if table.by)
    top = next((table.top for table in tables if table.top), None)
    if by:
        rows = ", ".join(f"{table.by} ({table.schema.row.partition(',')[0]})" for table in tables)
        found["by"] = Option("by", by[0], f"What a row is: {rows}.", "choice", by)
    return [*found.values(), replace(TOP, default=top)]


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def run(
    tables: Sequence[Table],
    source: Any,
    as_json: bool,
    as_csv: bool,
    words: Sequence[str] = (),
    **given: Value,
) -> None:
    """Fill the tables that were asked for and print them; what was said of the folder of a job is kept by its words."""
    check_formats(as_json, as_csv)
    for option in _options(tables):
        option.check(given[option.name])
    by = next((table.by for table in tables if table.by and _asks_for(table, tables, given)), given.get("by") or "")
    chosen = [table for table in tables if table.by == by]
    outside = any(given[option.name] for option in chosen[0].options if option.kind == "file")
    is_folder = words and chosen[0].of == "job" and len(source) == 1 and not outside
    folder = os.path.realpath(source[0]) if is_folder else ""
    before = state_of(folder) if folder and os.path.isdir(folder) else None  # noqa: PTH112
    _, load = _SOURCES[chosen[0].of]
    arguments = [name for table in chosen for name in table.arguments]
    loaded = load(source, arguments=arguments, **{name: given[name] for name in _LOADED_WITH.get(chosen[0].of, ())})
    filled = [
        table.of_source(loaded, **{option.name: given[option.name] for option in table.options}) for table in chosen
    ]
    if not (as_json or as_csv) and chosen[0].needs_gpu and says_no_gpu(loaded):
        return
    top = given.get("top")
    where = getattr(loaded, "path", source)
    said = _said(filled, as_json, as_csv, where, top if isinstance(top, int) else None)
    say(said)
    if before is not None and loaded.unchanging and str(loaded.store) in (f"{folder}{STORE_SUFFIX}", given["store"]):
        keep(loaded.store, words, folder, before, [*notes_on(loaded), *said])


def _said(
    filled: Sequence[Filled], as_json: bool, as_csv: bool, where: Path | str, top: int | None
) -> list[tuple[str, Any]]:
    """What to print of the tables, in pieces that `say` takes."""
    first = filled[0]
    if as_json and first.table.beside is not None:
        value: Any = {**first.table.beside(first.source), first.table.name: first.records()}
    elif as_json:
        value = {one.table.key: one.records() for one in filled} if first.table.key else first.records()
    if as_json:
        return [("json", json_text(value))]
    if as_csv:
        return [("text", "\n".join(one.csv() for one in filled))]
    return [piece for one in filled for piece in _pieces(one, where, top)]


def _asks_for(table: Table, tables: Sequence[Table], given: Mapping[str, Value]) -> bool:
    """Whether an option was given that no other table has."""
    others = {option.name for one in tables if one is not table for option in one.options}
    return any(given[one.name] != one.default for one in table.options if one.name not in others)


def print_filled(filled: Filled, where: Path | str = "", top: int | None = None) -> None:
    """Print a table under its title, which says what was left out and which options are not the usual ones.

    where: what it is of, in front of the title. What else there is to say of the table follows it.
    """
    say(_pieces(filled, where, top))


def _pieces(filled: Filled, where: Path | str, top: int | None) -> list[tuple[str, Any]]:
    from profiler_kit.findings.work import of_table
    from profiler_kit.render.text_table import filled_cells, table_title

    cells = filled_cells(filled, top) if len(filled) else {}
    said = of_table(filled)
    lines = [] if said is None else [("sentence", line) for line in (said.line, *said.details)]
    return [("table", {"title": table_title(filled, where, top), **cells}), *lines]
