"""`profiler-kit collectives TRACE`: which collectives ran, on how many bytes, and how fast (algbw, busbw)."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.collectives import ARGUMENTS, COLLECTIVES
from profiler_kit.table import Table
from profiler_kit.tables.communication import NO_COMMUNICATION

TABLES: Final = (
    Table(
        "collectives",
        "trace",
        "collectives by group and message",
        COLLECTIVES,
        lambda trace: trace.collectives(),
        command="collectives",
        order=("collective", "group", "ranks", "dtype", "message_bytes", "count", "sum_ns"),
        share_of="sum_ns",
        needs_gpu=True,
        arguments=ARGUMENTS,
        empty=NO_COMMUNICATION,
    ),
)
