"""Which kernels count as communication, and by which rule."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.intervals import covered_ns
from profiler_kit.analyses.gpu.timeline import GPU_TIMES, devices_of, is_communication
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.load.trace.categories import KERNEL, MTIA_KERNEL
from profiler_kit.schema import Column, Schema

COMMUNICATION_KERNELS: Final = Schema(
    "COMMUNICATION_KERNELS",
    "kernel name and rule, longest sum first",
    {
        "name": Column("str", "Kernel that communicates.", "kernel", unit="kernel"),
        "rule": Column(
            "str",
            "Why it counts as communication: collective arguments (on it, its launch or its operator), the operator "
            "that launched it, the library or pattern that its name matches, or a user's name.",
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
    return COMMUNICATION_KERNELS.cast(totals)


COMMUNICATION_OVERLAP: Final = Schema(
    "COMMUNICATION_OVERLAP",
    "device; lengths of unions over its streams",
    {
        "process": Column("str", show="varied"),
        "device": Column("Int64"),
        "communication_ns": GPU_TIMES["communication_ns"],
        "computation_ns": Column("int64", "Time in which a kernel ran that is not communication."),
        "overlap_ns": Column("int64", "Time in which both ran.", "both"),
        "exposed_ns": Column("int64", "Communication during which no other kernel ran.", "communication alone"),
        "share": Column(
            "float64", "Share of communication that computation hides.", "overlap", where="communication_ns"
        ),
    },
)


def communication_overlap(gpu_events: pd.DataFrame) -> pd.DataFrame:
    """GPU_EVENTS -> COMMUNICATION_OVERLAP: one row per device, lengths of unions over its streams.

    As HolisticTraceAnalysis (`get_comm_comp_overlap`): computation is every kernel that is not communication (copies
    and sets are neither), share = overlap_ns / communication_ns. overlap_ns + exposed_ns = communication_ns. A device
    without communication has share 0. Empty in, empty out.
    """
    gpu_events = GPU_EVENTS.check(gpu_events)
    if gpu_events.empty:
        return COMMUNICATION_OVERLAP.empty()
    communication = is_communication(gpu_events)
    computation = ~communication & gpu_events["category"].isin((KERNEL, MTIA_KERNEL)).to_numpy()
    start = gpu_events["start_ns"].to_numpy()
    end = start + gpu_events["dur_ns"].to_numpy()
    devices, code = devices_of(gpu_events)
    rows = []
    for number, (process, device) in enumerate(devices):
        here = code == number
        parts = [here & communication, here & computation]
        of_communication, of_computation = (covered_ns(start[part], end[part]) for part in parts)
        both = np.logical_or(*parts)
        overlap = of_communication + of_computation - covered_ns(start[both], end[both])
        share = overlap / of_communication if of_communication else 0.0
        rows.append((process, device, of_communication, of_computation, overlap, of_communication - overlap, share))
    return COMMUNICATION_OVERLAP.of(rows)
