"""What commands import, imported once by the process that every command of a test is forked from.

torch stays away, as does what needs it: few commands do.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
from pathlib import Path

import profiler_kit

PACKAGE = Path(profiler_kit.__file__).parent
NEED_TORCH = {"capture", "workload", "models"}
OTHERS = ("duckdb", "jinja2", "pandas", "plotly.graph_objects", "pyarrow.parquet", "rich.console", "typer._adapters")

for path in sorted(PACKAGE.rglob("*.py")):
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    if parts[1] not in NEED_TORCH and parts[-1] not in ("__init__", "__main__"):
        importlib.import_module(".".join(parts))
for name in OTHERS:
    with contextlib.suppress(ImportError):  # inner ones have other names in other releases
        importlib.import_module(name)
gc.freeze()  # what is never collected is never written to, and stays shared
atexit.register(gc.unfreeze)
