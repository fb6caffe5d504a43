"""`profiler-kit copies TRACE`: how much memory was copied and set, in which direction, and how fast."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.copies import COPIES, COPY_RATE, COPY_TOTALS
from profiler_kit.table import Empty, Table

ORDER: Final = ("kind", "source", "target", "device")

TABLES: Final = (
    Table(
        "copy_totals",
        "trace",
        "memory copies and sets by kind",
        COPY_TOTALS,
        lambda trace: trace.copy_totals(),
        command="copies",
        order=ORDER,
        needs_gpu=True,
        empty=Empty("Nothing was copied or set on a GPU."),
    ),
    Table(
        "copies",
        "trace",
        "memory copies and sets",
        COPIES,
        lambda trace: trace.copies(),
        order=ORDER,
        needs_gpu=True,
    ),
    Table(
        "copy_rate",
        "trace",
        "bandwidth of memory copies over time",
        COPY_RATE,
        lambda trace: trace.copy_rate(),
        needs_gpu=True,
    ),
)
