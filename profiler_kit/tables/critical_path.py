"""`profiler-kit critical-path TRACE`: what the recorded time depends on, from its end back to its start."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.replay import CRITICAL_PATH, CRITICAL_TOTALS
from profiler_kit.table import Table

TABLES: Final = (
    Table(
        "critical_totals",
        "trace",
        "what the recorded time depends on",
        CRITICAL_TOTALS,
        lambda trace: trace.critical_totals(),
        command="critical-path",
        by="name",
        share_of="sum_ns",
        top=20,
        needs_gpu=True,
    ),
    Table(
        "critical_path",
        "trace",
        "the path that the recorded time depends on",
        CRITICAL_PATH,
        lambda trace: trace.critical_path(),
        command="critical-path",
        by="stretch",
        share_of="dur_ns",
        top=40,
        needs_gpu=True,
    ),
)
