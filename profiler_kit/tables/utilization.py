"""`profiler-kit utilization TRACE`: for each region, how long GPUs worked for it, why they were idle, and what bounds
it.
"""

from __future__ import annotations

from typing import Final

import pandas as pd

from profiler_kit.analyses.gpu.utilization import NAMES, REGION_UTILIZATION
from profiler_kit.table import Empty, Table
from profiler_kit.tables.idle import KERNEL_WAIT
from profiler_kit.units import us_to_ns


def verdict_words(source: object, frame: pd.DataFrame) -> dict[str, list[str]]:
    """The field's word for each verdict; JSON, CSV and SQL keep the value."""
    return {"verdict": [NAMES.get(one, one) for one in frame["verdict"]]}


NO_REGIONS: Final = Empty("No regions were recorded.", lacks="no regions")

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
        texts=verdict_words,
        needs_gpu=True,
        empty=NO_REGIONS,
    ),
)
