"""How busy each device was, and with what."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.timeline import DEVICE_TIMELINES, device_timelines
from profiler_kit.table import Option, Table

LINKED: Final = Option(
    "linked_only", False, "Count only GPU events whose launch and its flow arrow are both in the trace.", "flag"
)

TABLES: Final = (
    Table(
        "gpu_timeline",
        "trace",
        "GPU time by device",
        DEVICE_TIMELINES,
        lambda trace, linked_only: device_timelines(trace.linked_gpu_events() if linked_only else trace.gpu_events()),
        options=(LINKED,),
        needs_gpu=True,
    ),
)
