"""`profiler-kit launches TRACE`: how long launches took, how many were longer than what they launched, and how much
work was queued.
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.launches import LAUNCH_DETAILS, LAUNCH_TOTALS, QUEUE_LENGTH, QUEUE_TOTALS
from profiler_kit.table import Option, Table
from profiler_kit.units import us_to_ns

SLOW: Final = Option("slow_us", 50.0, "Calls that took longer count as slow.", "microseconds")
DELAYED: Final = Option("delayed_us", 100.0, "Calls whose work began later than this count as delayed.", "microseconds")

TABLES: Final = (
    Table(
        "launch_totals",
        "trace",
        "launches",
        LAUNCH_TOTALS,
        lambda trace, slow_us, delayed_us: trace.launches(
            slow_from_ns=us_to_ns(slow_us), delayed_from_ns=us_to_ns(delayed_us)
        ),
        options=(SLOW, DELAYED),
        command="launches",
        key="launches",
        needs_gpu=True,
    ),
    Table(
        "queue",
        "trace",
        "queued GPU events",
        QUEUE_TOTALS,
        lambda trace: trace.queue(),
        command="launches",
        key="queue",
        needs_gpu=True,
    ),
    Table(
        "launch_details",
        "trace",
        "calls that launched GPU events",
        LAUNCH_DETAILS,
        lambda trace: trace.launch_details(),
        needs_gpu=True,
    ),
    Table(
        "queue_length",
        "trace",
        "queued GPU events over time",
        QUEUE_LENGTH,
        lambda trace: trace.queue_length(),
        needs_gpu=True,
    ),
)
