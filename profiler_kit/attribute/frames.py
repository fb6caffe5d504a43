"""The frames of a trace: events, GPU events, launches, regions and operators."""

from __future__ import annotations

from typing import Final

from profiler_kit.schema import Column, Schema

EVENTS: Final = Schema(
    "EVENTS",
    "complete event (phase X), in file order",
    {
        "name": Column("category"),
        "category": Column("category"),
        "thread": Column("int32", "index into Trace.threads"),
        "start_ns": Column("int64", "relative to the trace's base time"),
        "dur_ns": Column("int64"),
        "correlation": Column("Int64"),
        "external_id": Column("Int64"),
        "device": Column("Int64"),
        "stream": Column("Int64"),
        "sequence_number": Column("Int64"),
        "forward_thread": Column("Int64"),
        "python_id": Column("Int64"),
        "python_parent_id": Column("Int64"),
        "bytes": Column("Int64"),
    },
)

GPU_EVENTS: Final = Schema(
    "GPU_EVENTS",
    "kernel, memory copy or memory set, by start",
    {
        "event": Column("int64", "row of EVENTS"),
        "name": Column("category"),
        "category": Column("category", "kernel, gpu_memcpy, gpu_memset"),
        "device": Column("Int64", "missing where the trace does not say"),
        "stream": Column("Int64"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "launch": Column("Int64", "row of EVENTS; missing when the launch is not in the trace"),
        "launch_start_ns": Column("Int64"),
        "launch_thread": Column("Int32"),
        "instance": Column("Int64", "row of REGION_INSTANCES: the innermost region; missing when there is none"),
        "path": Column("paths", '("(no region)",) and ("(unlinked)",) included'),
        "forward_path": Column("paths", "the forward region of a backward operator's kernel; () when not known"),
    },
)

KERNEL_DETAILS: Final = Schema(
    "KERNEL_DETAILS",
    "GPU event, as GPU_EVENTS, with where on the host it came from",
    {
        **GPU_EVENTS.columns,
        "operator_event": Column("Int64", "row of EVENTS: the innermost operator open on the launching thread"),
        "operator": Column("category", "its name; missing when no operator was open"),
        "outer_operator_event": Column("Int64"),
        "outer_operator": Column("category"),
        "module": Column("category", "the innermost nn.Module open there, `Linear_3`; missing when none was recorded"),
        "modules": Column("paths", "the nn.Modules open there, outermost first"),
        "launch_end_ns": Column("Int64", "when the launch call returned"),
        "since_launch_ns": Column("Int64", "start - start of the launch call"),
        "launch_delay_ns": Column("Int64", "start - launch_end_ns; 0 when it began before the call returned"),
        "queue_ns": Column("Int64", "of launch_delay_ns, while earlier work of its stream was not done"),
        "latency_ns": Column("Int64", "of launch_delay_ns, the rest: nothing was before it, and yet it had not begun"),
        "previous_end_ns": Column("Int64", "when all earlier work of its stream was done; missing for the first"),
    },
)

LAUNCH_CALLS: Final = Schema(
    "LAUNCH_CALLS",
    "call of a runtime or driver, by start",
    {
        "event": Column("int64", "row of EVENTS"),
        "name": Column("category"),
        "category": Column("category"),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "correlation": Column("Int64"),
        "gpu_events": Column("int64", "how many it launched"),
        "gpu_ns": Column("int64", "sum of their durations"),
        "path": Column("paths", 'regions open on the thread at its start; ("(no region)",) when there are none'),
    },
)

REGION_INSTANCES: Final = Schema(
    "REGION_INSTANCES",
    "opened region (a record_function block), by start",
    {
        "event": Column("int64", "row of EVENTS"),
        "name": Column("str", "ProfilerStep#3 reads ProfilerStep"),
        "step": Column("Int64", "the 3 of ProfilerStep#3"),
        "path": Column("paths"),
        "parent": Column("Int64", "row of this frame"),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "end_ns": Column("int64"),
        "gpu_start_ns": Column("Int64", "first start of what it launched, nested regions included"),
        "gpu_end_ns": Column("Int64"),
    },
)

OPERATORS: Final = Schema(
    "OPERATORS",
    "cpu_op event, by thread and start",
    {
        "event": Column("int64", "row of EVENTS"),
        "name": Column("category"),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "self_ns": Column("int64", "less the operators called inside it on the same thread"),
        "depth": Column("int32", "operators above it on the same thread"),
        "parent": Column("Int64", "row of this frame: the operator it was called in"),
        "path": Column("paths", 'regions open on the thread at its start; ("(no region)",) when there are none'),
    },
)
