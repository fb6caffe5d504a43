"""Frames of a memory snapshot and of its replay."""

from __future__ import annotations

from typing import Final

from profiler_kit.schemas.schema import Schema

SNAPSHOT_EVENTS: Final = Schema(
    "SNAPSHOT_EVENTS",  # one row per entry of a device's allocator history, in history order
    {
        "device": "int64",
        "action": "category",  # alloc, free_requested, free_completed, segment_alloc, ..., oom, snapshot
        "address": "uint64",
        "size_bytes": "int64",  # requested by the caller, before rounding
        "stream": "int64",
        "time_us": "int64",  # Unix time
        "stack": "int64",  # index into Snapshot.stacks; 0 is the empty stack
        "device_free_bytes": "Int64",  # oom only
        "pool": "category",  # private pool id as "0,1", "0,0" the default one; "" before torch 2.13, which says it
    },
)

SNAPSHOT_BLOCKS: Final = Schema(
    "SNAPSHOT_BLOCKS",  # one row per block of every segment at the moment of the snapshot
    {
        "device": "int64",
        "segment": "uint64",  # address of the segment
        "address": "uint64",
        "size_bytes": "int64",  # rounded by the allocator
        "requested_bytes": "int64",
        "state": "category",  # active_allocated, active_pending_free, inactive
        "stream": "int64",
        "stack": "int64",
    },
)

SNAPSHOT_SEGMENTS: Final = Schema(
    "SNAPSHOT_SEGMENTS",  # one row per segment reserved from the driver at the moment of the snapshot
    {
        "device": "int64",
        "address": "uint64",
        "total_bytes": "int64",
        "stream": "int64",
        "segment_type": "str",  # small, large
        "pool": "str",  # private pool id, "0,0" for the default one
        "expandable": "bool",
    },
)

SNAPSHOT_ANNOTATIONS: Final = Schema(
    "SNAPSHOT_ANNOTATIONS",  # one row per start or end of a record_function region, in time order
    {"device": "int64", "stage": "category", "name": "str", "time_us": "int64"},  # stage: START, END
)

MEMORY_REGIONS: Final = Schema(
    "MEMORY_REGIONS",  # one row per device and region path
    {
        "device": "int64",
        "path": "path",
        "instances": "int64",
        "peak_bytes": "int64",  # highest allocated total of the device while one of the instances was open
        "allocated_bytes": "int64",
        "freed_bytes": "int64",
        "net_bytes": "int64",
    },
)

MEMORY_TIMELINE: Final = Schema(
    "MEMORY_TIMELINE",  # one row per allocator event that changed a total, in time order; state after the event
    {"device": "int64", "time_us": "int64", "allocated_bytes": "int64", "reserved_bytes": "int64"},
)

MEMORY_ALLOCATIONS: Final = Schema(
    "MEMORY_ALLOCATIONS",  # one row per allocation: an alloc paired with its free_completed by address, by alloc event
    {
        "device": "int64",
        "address": "uint64",
        "size_bytes": "int64",  # requested by the caller
        "stream": "int64",
        "stack": "int64",  # of the allocation; 0 when it was made before the recording and freed during it
        "alloc_event": "Int64",  # row of SNAPSHOT_EVENTS; missing: allocated before the history begins
        "free_event": "Int64",  # missing: live at the end
        "alloc_us": "Int64",
        "free_us": "Int64",
    },
)

MEMORY_REGION_SPANS: Final = Schema(
    "MEMORY_REGION_SPANS",  # one row per opened region (a record_function block), by device and start
    {
        "device": "int64",
        "path": "path",
        "start_us": "int64",
        "end_us": "int64",  # the end of the history when the region was still open
        "closed": "bool",
    },
)

MEMORY_LIVE: Final = Schema(
    "MEMORY_LIVE",  # one row per stack that holds memory at one moment, most bytes first
    {
        "device": "int64",
        "stack": "int64",
        "before": "bool",  # allocated before the history begins; such rows are apart
        "count": "int64",
        "size_bytes": "int64",
        "share": "float64",
    },
)

MEMORY_OOM: Final = Schema(
    "MEMORY_OOM",  # one row per allocation that failed, in history order; totals at that moment
    {
        "device": "int64",
        "event": "int64",  # row of SNAPSHOT_EVENTS
        "time_us": "int64",
        "requested_bytes": "int64",
        "device_free_bytes": "Int64",  # free on the device as the driver sees it
        "allocated_bytes": "int64",
        "reserved_bytes": "int64",
        "stack": "int64",
    },
)

MEMORY_SEGMENT_SPANS: Final = Schema(
    "MEMORY_SEGMENT_SPANS",  # one row per segment that was there at some time, or per range of expandable segments
    {
        "device": "int64",
        "address": "uint64",
        "size_bytes": "int64",  # of a range of expandable segments: all that was mapped in it at some time
        "stream": "int64",
        "segment_type": "str",  # small, large
        "pool": "str",  # private pool id, "0,0" for the default one, "" where nothing says it
        "expandable": "bool",
        "from_state": "int64",  # state k: after the k-th event of the device; 0: before the first
        "to_state": "int64",  # the first state without it; events + 1 when it is there at the end
    },
)

MEMORY_BLOCK_SPANS: Final = Schema(
    "MEMORY_BLOCK_SPANS",  # one row per block, active or inactive, from the event that made it to the one that ended it
    {
        "device": "int64",
        "segment": "int64",  # row of the device's MEMORY_SEGMENT_SPANS
        "address": "uint64",
        "size_bytes": "int64",  # as the allocator rounded it
        "allocation": "Int64",  # row of MEMORY_ALLOCATIONS; missing: an inactive block
        "from_state": "int64",
        "to_state": "int64",
    },
)

MEMORY_FRAGMENTATION: Final = Schema(
    "MEMORY_FRAGMENTATION",  # one row per allocator event that changed a value, in time order; state after the event
    {
        "device": "int64",
        "time_us": "int64",
        "allocated_bytes": "int64",  # what callers asked for
        "active_bytes": "int64",  # the same with the allocator's rounding, and what it could not split off
        "reserved_bytes": "int64",
        "largest_free_bytes": "int64",  # the largest inactive block
        "inactive_split_bytes": "int64",  # inactive blocks in segments that are in use, which cannot be given back
    },
)
