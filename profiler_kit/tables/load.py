"""What a load test saw at each load."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.serving.load import LOAD, load_steps
from profiler_kit.table import Table

TABLES: Final = (Table("load", "load", "answers at each load", LOAD, load_steps),)
