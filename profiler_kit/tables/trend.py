"""`profiler-kit trend FOLDER`: how a job changed from run to run: step time, exposed communication, who held others."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.ranks.trend import TREND
from profiler_kit.table import Table

TABLES: Final = (
    Table("trend", "trend", "runs of the job", TREND, lambda found: found.table_of_runs(), command="trend", top=60),
)
