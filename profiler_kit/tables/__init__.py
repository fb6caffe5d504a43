"""Every table of the product: each module declares some, and every surface shows all of them."""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache

from profiler_kit.table import Of, Table


@cache
def every_table() -> dict[str, Table]:
    """The tables by name."""
    modules = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found = [table for name in modules for table in importlib.import_module(f"{__name__}.{name}").TABLES]
    return {table.name: table for table in found}


def tables_of(source: Of) -> list[Table]:
    """The tables that are filled from a trace, a snapshot, …"""
    return [table for table in every_table().values() if table.of == source]
