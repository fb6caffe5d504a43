"""How busy the GPU was, and with what: the GPU timeline of a summary."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, TypedDict, cast

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.intervals import covered_ns
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.attribute.launch_context import codes_of
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import MEMCPY
from profiler_kit.schema import Column, Schema

# The columns of GpuTimeline, for every table that has them.
GPU_TIMES: Final[Mapping[str, Column]] = {
    "total_ns": Column("int64", "From the first GPU event to the end of the last.", show="room"),
    "busy_ns": Column("int64", "Time in which at least one GPU event ran: the union over all streams.", of="total_ns"),
    "idle_ns": Column("int64", "Time in which no GPU event ran.", show="room"),
    "computation_ns": Column("int64", "Kernels that are not communication, and memory sets.", show="room"),
    "communication_ns": Column(
        "int64", "Kernels that communicate (the table communication lists them), waiting included."
    ),
    "exposed_communication_ns": Column("int64", "Communication during which nothing was computed.", "exposed"),
    "memcpy_ns": Column("int64", "Memory copies.", "copies", "never"),
    "exposed_memcpy_ns": Column(
        "int64", "Memory copies during which there was no computation or communication.", "copies alone", "never"
    ),
}

DEVICE_TIMELINES: Final = Schema(
    "DEVICE_TIMELINES",
    "device; lengths of unions over its streams",
    {
        "process": Column("str", show="varied"),
        "device": Column("Int64"),
        "gpu_events": Column("int64", "Kernels, memory copies and memory sets."),
        **GPU_TIMES,
        "total_ns": Column("int64", "From the first to the last GPU event of its process, on any device.", show="room"),
    },
)


class GpuTimeline(TypedDict):
    """Lengths of unions over every stream and device, in nanoseconds.

    total = busy + idle = last end - first start. computation: kernels that are not communication, and memory sets.
    communication: kernels that gpu_work.py takes for it. exposed communication is not covered by computation, exposed
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


class DeviceTimeline(GpuTimeline):
    """The same of one device of one process, over its streams; device is None where the trace does not say.

    total is that of the process: a GPU that waits while another of the same process works is idle then.
    """

    device: int | None
    process: str


Device = tuple[str, int | None]  # process and number


def gpu_timeline(gpu_events: pd.DataFrame) -> GpuTimeline:
    """The GPU timeline of these GPU_EVENTS; all zero when there are none."""
    gpu_events = GPU_EVENTS.check(gpu_events)
    memcpy = (gpu_events["category"] == MEMCPY).to_numpy()
    return timeline_of(
        gpu_events["start_ns"].to_numpy(), gpu_events["dur_ns"].to_numpy(), is_communication(gpu_events), memcpy
    )


def timelines_of(
    start: I64, dur: I64, communication: Mask, memcpy: Mask, devices: tuple[list[Device], I64]
) -> tuple[GpuTimeline, list[DeviceTimeline]]:
    """The timeline of all GPU events and of each device, from arrays; devices as devices_by gives them."""
    whole = timeline_of(start, dur, communication, memcpy)
    names, code = devices
    parts = [whole]
    if len(names) > 1:
        cuts = np.cumsum(np.bincount(code, minlength=len(names)))[:-1]
        order = np.split(np.argsort(code, kind="stable"), cuts)
        parts = [timeline_of(start[at], dur[at], communication[at], memcpy[at]) for at in order]
        # the first and the last moment of each process
        spans: dict[str, tuple[int, int]] = {}
        for (process, _), at in zip(names, order, strict=True):
            mine = int(start[at].min()), int((start[at] + dur[at]).max())
            first, last = spans.get(process, mine)
            spans[process] = min(first, mine[0]), max(last, mine[1])
        parts = [
            within(part, spans[process][1] - spans[process][0]) for part, (process, _) in zip(parts, names, strict=True)
        ]
    each = [
        cast("DeviceTimeline", {"device": device, "process": name, **part})
        for (name, device), part in zip(names, parts, strict=False)
    ]
    return whole, each


def within(device: GpuTimeline, total_ns: int) -> GpuTimeline:
    """The timeline of a device over a longer span: it is idle before its first event and after its last."""
    return cast("GpuTimeline", {**device, "total_ns": total_ns, "idle_ns": total_ns - device["busy_ns"]})


def devices_of(gpu_events: pd.DataFrame) -> tuple[list[Device], I64]:
    """The devices of these GPU_EVENTS, by process and number, and which of them each event ran on."""
    process = gpu_events["process"]
    device = gpu_events["device"].fillna(MISSING).to_numpy(dtype=np.int64)
    return devices_by(codes_of(process), list(process.cat.categories), device)


def devices_by(process: I64, names: Sequence[str], device: I64) -> tuple[list[Device], I64]:
    """The devices of GPU events, from the process of each (an index of names) and its device number."""
    numbers, number = np.unique(device, return_inverse=True)
    pairs, code = np.unique(process * max(1, len(numbers)) + number, return_inverse=True)
    found: list[Device] = []
    for pair in pairs.tolist():
        of, at = divmod(pair, len(numbers))
        found.append((names[of], None if numbers[at] == MISSING else int(numbers[at])))
    return found, np.asarray(code, dtype=np.int64)


def timeline_of(start: I64, dur: I64, communication: Mask, memcpy: Mask) -> GpuTimeline:
    """The same of GPU events as arrays: starts and durations, which of them communicate and which are copies."""
    end = start + dur
    computation = ~communication & ~memcpy

    def covered(mask: Mask) -> int:
        return covered_ns(start[mask], end[mask])

    computation_ns = covered(computation)
    without_memcpy_ns = covered(computation | communication)
    busy_ns = covered_ns(start, end)
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


def device_timelines(gpu_events: pd.DataFrame) -> pd.DataFrame:
    """GPU_EVENTS -> DEVICE_TIMELINES: the GPU timeline of each device. Empty in, empty out."""
    gpu_events = GPU_EVENTS.check(gpu_events)
    devices, code = devices_of(gpu_events)
    start, dur = gpu_events["start_ns"].to_numpy(), gpu_events["dur_ns"].to_numpy()
    memcpy = (gpu_events["category"] == MEMCPY).to_numpy()
    _, each = timelines_of(start, dur, is_communication(gpu_events), memcpy, (devices, code))
    rows = [{**one, "gpu_events": count} for one, count in zip(each, np.bincount(code).tolist(), strict=True)]
    return DEVICE_TIMELINES.of(rows)


def is_communication(gpu_events: pd.DataFrame) -> Mask:
    """True for each kernel that communicates."""
    mask: Mask = gpu_events["communication"].notna().to_numpy()
    return mask
