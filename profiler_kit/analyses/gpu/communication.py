"""Which kernels count as communication, and by which rule."""

from __future__ import annotations

from typing import Final

import pandas as pd

from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.schema import Column, Schema

COMMUNICATION_KERNELS: Final = Schema(
    "COMMUNICATION_KERNELS",
    "kernel name and rule, longest sum first",
    {
        "name": Column("str", "Kernel that communicates.", "kernel", unit="kernel"),
        "rule": Column(
            "str",
            "Why it counts: collective arguments (on it, its launch or its operator), the operator that launched it, "
            "the library or pattern that its name is of, or a user's name.",
        ),
        "count": Column("int64"),
        "sum_ns": Column("int64"),
    },
)


def communication_kernels(gpu_events: pd.DataFrame) -> pd.DataFrame:
    """GPU_EVENTS -> COMMUNICATION_KERNELS. Empty in, empty out."""
    gpu_events = GPU_EVENTS.check(gpu_events)
    found = gpu_events[gpu_events["communication"].notna()]
    grouped = found.groupby(["name", "communication"], observed=True)["dur_ns"].agg(["size", "sum"]).reset_index()
    grouped.columns = pd.Index(list(COMMUNICATION_KERNELS.columns))
    totals = grouped.sort_values(["sum_ns", "name", "rule"], ascending=[False, True, True], ignore_index=True)
    return COMMUNICATION_KERNELS.check(totals.astype(COMMUNICATION_KERNELS.dtypes()))
