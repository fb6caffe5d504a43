"""`profiler-kit communication TRACE`: which kernels count as communication, and by which rule."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.communication import COMMUNICATION_KERNELS
from profiler_kit.table import Empty, Table

NO_COMMUNICATION: Final = Empty(
    "No kernel of this trace counts as communication.",
    attempt="--communication PATTERN  # where kernels of other names communicate",
)

TABLES: Final = (
    Table(
        "communication",
        "trace",
        "kernels that communicate",
        COMMUNICATION_KERNELS,
        lambda trace: trace.communication(),
        command="communication",
        share_of="sum_ns",
        needs_gpu=True,
        empty=NO_COMMUNICATION,
    ),
)
