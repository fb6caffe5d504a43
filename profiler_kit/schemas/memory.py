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
        "churn_bytes": "int64",  # allocated inside an instance and freed again before it closed
        "largest_bytes": "int64",  # the largest single allocation
        "largest_stack": "int64",  # where that was made
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

MEMORY_LIVE_TREE: Final = Schema(
    "MEMORY_LIVE_TREE",  # one row per region or layer that holds memory at one moment, and for those around it
    {
        "device": "int64",
        "path": "path",
        "count": "int64",  # allocations made inside it and inside those below it
        "size_bytes": "int64",  # of these; the rows of depth 1 add up to all that is live
        "self_bytes": "int64",  # of those made in it and none below
        "share": "float64",
    },
)

MEMORY_LEAKS: Final = Schema(
    "MEMORY_LEAKS",  # one row per stack and region that left memory behind, growing ones first, most bytes first
    {
        "device": "int64",
        "stack": "int64",
        "path": "path",  # the innermost region of the allocations; it has closed
        "count": "int64",
        "size_bytes": "int64",
        "instances_left": "int64",  # instances of the region that left some of it
        "instances": "int64",  # closed instances of the region
        "growing": "bool",  # at least three instances left some, and more than half of all
        "first_us": "int64",
        "last_us": "int64",
    },
)

MEMORY_GROWTH: Final = Schema(
    "MEMORY_GROWTH",  # one row per region with at least four closed instances, fastest growing first
    {
        "device": "int64",
        "path": "path",
        "instances": "int64",
        "first_bytes": "int64",  # allocated after the first instance
        "last_bytes": "int64",  # allocated after the last
        "median_step_bytes": "int64",  # median of the changes from one instance to the next, without the first
        "growing_steps": "int64",  # changes above zero
        "steps": "int64",  # changes looked at
    },
)

MEMORY_REGION_INSTANCES: Final = Schema(
    "MEMORY_REGION_INSTANCES",  # one row per opened region, by start; the device's total
    {
        "device": "int64",
        "path": "path",
        "start_us": "int64",
        "end_us": "int64",
        "before_bytes": "int64",
        "peak_bytes": "int64",
        "after_bytes": "int64",
    },
)

MEMORY_LIFETIMES: Final = Schema(
    "MEMORY_LIFETIMES",  # one row per device and stack that allocated in the history, most bytes first
    {
        "device": "int64",
        "stack": "int64",
        "count": "int64",
        "size_bytes": "int64",
        "live_count": "int64",  # still live at the end
        "median_us": "float64",  # of those that were freed; NaN when none was
        "max_us": "float64",
    },
)
