"""`profiler-kit utilization TRACE`: say for each region how busy it kept the GPU, why the GPU was idle, and what
bounds it.
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.utilization import REGION_UTILIZATION
from profiler_kit.table import Table
from profiler_kit.tables.idle import KERNEL_WAIT
from profiler_kit.units import us_to_ns

TABLES: Final = (
    Table(
        "utilization",
        "trace",
        "GPU utilization by region",
        REGION_UTILIZATION,
        lambda trace, kernel_wait_us: trace.utilization(kernel_wait_below_ns=us_to_ns(kernel_wait_us)),
        options=(KERNEL_WAIT,),
        command="utilization",
        order=("path", "verdict", "instances", "gpu_events", "wall_ns", "utilization"),
        needs_gpu=True,
    ),
)
