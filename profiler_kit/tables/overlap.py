"""`profiler-kit overlap TRACE`: how much communication (NCCL, RCCL) ran while the device computed."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.communication import COMMUNICATION_OVERLAP
from profiler_kit.table import Table

TABLES: Final = (
    Table(
        "communication_overlap",
        "trace",
        "communication and computation",
        COMMUNICATION_OVERLAP,
        lambda trace: trace.communication_overlap(),
        command="overlap",
        needs_gpu=True,
    ),
)
