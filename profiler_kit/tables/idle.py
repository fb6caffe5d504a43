"""`profiler-kit idle TRACE`: how long GPUs were idle, and why: late launches, gaps between kernels, or other."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.idle import IDLE_GAPS, IDLE_TOTALS
from profiler_kit.table import Empty, Option, Table
from profiler_kit.units import us_to_ns

SCOPE: Final = Option(
    "scope",
    "stream",
    "Nothing ran on a stream, on a device, or on all devices together.",
    "choice",
    ("stream", "device", "all"),
)
KERNEL_WAIT: Final = Option(
    "kernel_wait_us", 30.0, "Shorter gaps count as the usual gap between back-to-back kernels.", "microseconds"
)

TABLES: Final = (
    Table(
        "idle",
        "trace",
        "idle time by cause",
        IDLE_TOTALS,
        lambda trace, scope, kernel_wait_us: trace.idle(scope=scope, kernel_wait_below_ns=us_to_ns(kernel_wait_us)),
        options=(SCOPE, KERNEL_WAIT),
        command="idle",
        order=("cause", "device", "stream", "gaps", "idle_ns", "share"),
        needs_gpu=True,
        empty=Empty("No GPU was idle between its first event and its last."),
    ),
    Table(
        "idle_gaps",
        "trace",
        "stretches in which nothing ran",
        IDLE_GAPS,
        lambda trace, scope, kernel_wait_us: trace.idle_gaps(
            scope=scope, kernel_wait_below_ns=us_to_ns(kernel_wait_us)
        ),
        options=(SCOPE, KERNEL_WAIT),
        order=("cause", "device", "stream", "start_ns", "dur_ns", "path"),
        needs_gpu=True,
    ),
)
