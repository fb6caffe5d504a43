"""The subcommand of a table: its options, and the table as text, JSON or CSV, all from the declaration."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from profiler_kit.cli.output import AsJson, TraceFile, open_trace, print_json, print_lines, says_no_gpu
from profiler_kit.errors import OptionError
from profiler_kit.table import Filled, Option, Table, Value

AsCsv = Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")]
_TYPES: Mapping[str, type] = {"choice": str, "microseconds": float, "count": int, "text": str, "flag": bool}


def table_command(name: str) -> Callable[..., None]:
    """The function that typer makes the subcommand of: `tables/NAME.py` declares its tables."""
    module = importlib.import_module(f"profiler_kit.tables.{name}")
    tables = [table for table in module.TABLES if table.command == name]
    options = _options(tables)

    def command(**given: Any) -> None:
        run(tables, given)

    command.__doc__ = help_text(module.__doc__ or "")
    parameters = [_parameter("source", TraceFile, inspect.Parameter.empty)]
    parameters += [_parameter("as_json", AsJson, False), _parameter("as_csv", AsCsv, False)]
    for option in options:
        kind: Any = _TYPES[option.kind] | None if option.default is None else _TYPES[option.kind]
        annotation = Annotated[kind, typer.Option(option.flag, help=option.meaning)]
        parameters.append(_parameter(option.name, annotation, option.default))
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def help_text(doc: str) -> str:
    """What a command does: its module's docstring without the command's own name in front."""
    said = doc.partition("`: ")[2] or doc
    return said[:1].upper() + said[1:]


def _options(tables: Sequence[Table]) -> list[Option]:
    """The options of a command's tables, each once, and those of the command itself: --by and --top."""
    found = {option.name: option for table in tables for option in table.options}
    by = tuple(table.by for table in tables if table.by)
    top = next((table.top for table in tables if table.top), None)
    if by:
        rows = " or ".join(f"{table.by} ({table.schema.row})" for table in tables)
        found["by"] = Option("by", by[0], f"One row per {rows}.", "choice", by)
    if top:
        found["top"] = Option("top", top, "Rows of the table; --json and --csv print all.", "count", suggest="30")
    return list(found.values())


def _parameter(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default, annotation=annotation)


def run(tables: Sequence[Table], given: dict[str, Any]) -> None:
    """Fill the tables that were asked for and print them."""
    source, as_json, as_csv = given.pop("source"), given.pop("as_json"), given.pop("as_csv")
    if as_json and as_csv:
        raise OptionError("--json --csv: these exclude each other, expected one of them. Leave one out.")
    for option in _options(tables):
        option.check(given[option.name])
    by, top = given.pop("by", None), given.pop("top", None)
    chosen = [table for table in tables if by is None or table.by == by]
    if as_csv and len(chosen) > 1:
        chosen = chosen[:1]
    loaded = open_trace(source, arguments=[name for table in chosen for name in table.arguments])
    filled = [table.of_source(loaded, **_of_table(table, given)) for table in chosen]
    if as_json:
        print_json({one.table.key: one.records() for one in filled} if filled[0].table.key else filled[0].records())
    elif as_csv:
        typer.echo(filled[0].csv(), nl=False)
    elif not (filled[0].table.needs_gpu and says_no_gpu(loaded)):
        for one in filled:
            print_filled(one, loaded.path, top)


def _of_table(table: Table, given: Mapping[str, Value]) -> dict[str, Value]:
    return {option.name: given[option.name] for option in table.options}


def print_filled(filled: Filled, path: Path | str, top: int | None = None) -> None:
    """Print a table under its title, which says what was left out and which options are not the usual ones."""
    from profiler_kit.render.text_table import filled_lines

    title = f"{path}: {filled.table.title}"
    unusual = [
        f"{option.flag} {filled.options[option.name]}"
        for option in filled.table.options
        if filled.options[option.name] != option.default
    ]
    title += f" ({', '.join(unusual)})" if unusual else ""
    if top is not None and top < len(filled):
        title += f", {top} of {len(filled):,} rows"
    print_lines(title, lambda width: filled_lines(filled, top=top, width=width) if len(filled) else [])
