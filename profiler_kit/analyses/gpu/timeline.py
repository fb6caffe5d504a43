"""How busy the GPU was: GPU_EVENTS in, the GPU timeline of DESIGN.md out."""

from __future__ import annotations

from typing import TypedDict

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.intervals import covered_ns
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.load.trace.categories import COMMUNICATION_PREFIXES, KERNEL, MEMCPY

Mask = npt.NDArray[np.bool_]


class GpuTimeline(TypedDict):
    """Lengths of unions over every stream and device, in nanoseconds.

    total = busy + idle = last end - first start. computation: kernels that are not communication, and memory sets.
    communication: kernels named nccl* or rccl*. exposed communication is not covered by computation, exposed
    memcpy by neither. busy = computation + exposed communication + exposed memcpy.
    """

    total_ns: int
    busy_ns: int
    idle_ns: int
    computation_ns: int
    communication_ns: int
    exposed_communication_ns: int
    memcpy_ns: int
    exposed_memcpy_ns: int


def gpu_timeline(gpu_events: pd.DataFrame) -> GpuTimeline:
    """The GPU timeline of these events; all zero when there are none."""
    gpu_events = GPU_EVENTS.check(gpu_events)
    start = gpu_events["start_ns"].to_numpy()
    end = start + gpu_events["dur_ns"].to_numpy()
    communication = is_communication(gpu_events)
    memcpy = (gpu_events["category"] == MEMCPY).to_numpy()
    computation = ~communication & ~memcpy

    def covered(mask: Mask) -> int:
        return covered_ns(start[mask], end[mask])

    computation_ns = covered(computation)
    without_memcpy_ns = covered(computation | communication)
    busy_ns = covered(np.ones(len(start), dtype=bool))
    total_ns = int(end.max() - start.min()) if len(start) else 0
    return GpuTimeline(
        total_ns=total_ns,
        busy_ns=busy_ns,
        idle_ns=total_ns - busy_ns,
        computation_ns=computation_ns,
        communication_ns=covered(communication),
        exposed_communication_ns=without_memcpy_ns - computation_ns,
        memcpy_ns=covered(memcpy),
        exposed_memcpy_ns=busy_ns - without_memcpy_ns,
    )


def is_communication(gpu_events: pd.DataFrame) -> Mask:
    """True for each kernel of NCCL or RCCL, told by its name."""
    names = gpu_events["name"].cat.categories
    named = np.array([str(name).lower().startswith(COMMUNICATION_PREFIXES) for name in names] or [False], dtype=bool)
    mask: Mask = named[gpu_events["name"].cat.codes.to_numpy()] & (gpu_events["category"] == KERNEL).to_numpy()
    return mask
