"""`profiler-kit categories TRACE`: how much time goes to matrix products, attention, norms, copies and so on."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.categories import CATEGORY_TOTALS
from profiler_kit.table import Table

TABLES: Final = (
    Table(
        "categories",
        "trace",
        "GPU time by category of work",
        CATEGORY_TOTALS,
        lambda trace: trace.categories(),
        command="categories",
        share_of="sum_ns",
        needs_gpu=True,
    ),
)
