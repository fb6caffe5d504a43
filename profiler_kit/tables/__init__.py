"""Every table of the product: each module declares some, and every surface shows all of them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Mapping
from functools import cache
from typing import Any, Final

from profiler_kit.errors import OptionError
from profiler_kit.table import Filled, Of, Table, Value

RECORD: Final = "profiler-kit capture --out DIR"


@cache
def every_table() -> dict[str, Table]:
    """The tables by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [table for name in modules for table in importlib.import_module(f"{__name__}.{name}").TABLES]
    return {table.name: table for table in found}


def tables_of(source: Of) -> list[Table]:
    """The tables that are filled from a trace, a snapshot, …"""
    return [table for table in every_table().values() if table.of == source]


def fill(name: str, parts: Mapping[Of, Any], **options: Value) -> Filled:
    """The table of that name, filled from the part that it is of: a part, or what gives it when it is needed.

    Raises OptionError when the table is not of these parts, when its part is not there (None), and for an option that
    it has not.
    """
    table = every_table().get(name)
    if table is None or table.of not in parts:
        known = ", ".join(table.name for of in parts for table in tables_of(of))
        raise OptionError(f"table {name!r}: unknown, expected one of: {known}.")
    part = parts[table.of]
    source = part() if callable(part) else part
    if source is None:
        raise OptionError(f"table {name}: this run holds no {table.of}, expected one. Record it with: {RECORD}")
    return table.of_source(source, **options)
