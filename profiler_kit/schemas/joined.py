"""Frames that set a trace and a memory snapshot of the same run side by side."""

from __future__ import annotations

from typing import Final

from profiler_kit.schemas.schema import Schema

CLOCK_PAIRS: Final = Schema(
    "CLOCK_PAIRS",  # one row per opened region found in both files, by device and start
    {
        "device": "int64",  # of the snapshot's annotation
        "instance": "int64",  # row of the trace's REGION_INSTANCES
        "span": "int64",  # row of the snapshot's MEMORY_REGION_SPANS
        "start_difference_us": "float64",  # trace - snapshot
        "end_difference_us": "Float64",  # missing where the region was open at the end of the history
    },
)

REGION_MEMORY: Final = Schema(
    "REGION_MEMORY",  # one row per opened region found in both files, by device and start
    {
        "device": "int64",
        "path": "path",  # as the trace nests it
        "instance": "int64",  # row of REGION_INSTANCES
        "start_ns": "int64",  # on the host, since the trace's base time
        "end_ns": "int64",
        "gpu_events": "int64",  # that it launched on the device, nested regions included, as in the next two
        "sum_ns": "int64",
        "busy_ns": "int64",  # union over the streams
        "before_bytes": "int64",  # allocated on the device when it opened
        "peak_bytes": "int64",  # highest allocated total while it was open
        "after_bytes": "int64",
        "allocated_bytes": "int64",  # while it was open, freed ones included
    },
)

REGION_MEMORY_TOTALS: Final = Schema(
    "REGION_MEMORY_TOTALS",  # one row per device and region path, in order of first opening
    {
        "device": "int64",
        "path": "path",
        "instances": "int64",
        "gpu_events": "int64",
        "sum_ns": "int64",
        "busy_ns": "int64",  # added over the instances
        "peak_bytes": "int64",  # highest of the instances
        "allocated_bytes": "int64",  # added over the instances, as the next
        "net_bytes": "int64",  # after - before
    },
)
