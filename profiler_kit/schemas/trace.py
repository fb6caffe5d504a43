"""Frames of a chrome trace: events, regions, operators and what the analyses make of them."""

from __future__ import annotations

from typing import Final

from profiler_kit.schemas.schema import Schema

EVENTS: Final = Schema(
    "EVENTS",  # one row per complete event (phase X), in file order
    {
        "name": "category",
        "category": "category",
        "thread": "int32",  # index into Trace.threads
        "start_ns": "int64",  # relative to the trace's base time
        "dur_ns": "int64",
        "correlation": "Int64",
        "external_id": "Int64",
        "device": "Int64",
        "stream": "Int64",
        "sequence_number": "Int64",
        "forward_thread": "Int64",
        "python_id": "Int64",
        "python_parent_id": "Int64",
        "bytes": "Int64",
    },
)

GPU_EVENTS: Final = Schema(
    "GPU_EVENTS",  # one row per kernel, memory copy or memory set, by start
    {
        "event": "int64",  # row of EVENTS
        "name": "category",
        "category": "category",  # kernel, gpu_memcpy, gpu_memset
        "device": "Int64",  # missing where the trace does not say
        "stream": "Int64",
        "start_ns": "int64",
        "dur_ns": "int64",
        "launch": "Int64",  # row of EVENTS; missing when the launch is not in the trace
        "launch_start_ns": "Int64",
        "launch_thread": "Int32",
        "instance": "Int64",  # row of REGION_INSTANCES: the innermost region; missing when there is none
        "path": "paths",  # ("(no region)",) and ("(unlinked)",) included
        "forward_path": "paths",  # the forward region of a backward operator's kernel; () when not known
    },
)

KERNEL_DETAILS: Final = Schema(
    "KERNEL_DETAILS",  # one row per GPU event, as GPU_EVENTS, with where on the host it came from
    {
        **GPU_EVENTS.columns,
        "operator_event": "Int64",  # row of EVENTS: the innermost operator open on the launching thread at the launch
        "operator": "category",  # its name; missing when no operator was open
        "outer_operator_event": "Int64",
        "outer_operator": "category",
        "module": "category",  # the innermost nn.Module open there, `Linear_3`; missing when none was recorded
        "modules": "paths",  # the nn.Modules open there, outermost first
        "launch_end_ns": "Int64",  # when the launch call returned
        "since_launch_ns": "Int64",  # start - start of the launch call
        "launch_delay_ns": "Int64",  # start - launch_end_ns; 0 when it began before the call returned
        "queue_ns": "Int64",  # of launch_delay_ns, while earlier work of its stream was not done
        "latency_ns": "Int64",  # of launch_delay_ns, the rest: nothing was before it, and yet it had not begun
        "previous_end_ns": "Int64",  # when all earlier work of its stream was done; missing for the first
    },
)

LAUNCH_CALLS: Final = Schema(
    "LAUNCH_CALLS",  # one row per call of a runtime or driver, by start
    {
        "event": "int64",  # row of EVENTS
        "name": "category",
        "category": "category",
        "thread": "int32",
        "start_ns": "int64",
        "dur_ns": "int64",
        "correlation": "Int64",
        "gpu_events": "int64",  # how many it launched
        "gpu_ns": "int64",  # sum of their durations
        "path": "paths",  # regions open on the thread at its start; ("(no region)",) when there are none
    },
)

IDLE_GAPS: Final = Schema(
    "IDLE_GAPS",  # one row per stretch in which nothing ran on a stream (or a device, or anywhere), by start
    {
        "device": "Int64",  # missing where the gaps are of all devices, or the trace does not say
        "stream": "Int64",  # missing where the gaps are of a whole device, or the trace does not say
        "start_ns": "int64",
        "dur_ns": "int64",
        "cause": "category",  # host-bound, kernel wait, other
        "synchronised": "bool",  # host-bound, and the launching thread was waiting for the GPU when the gap began
        "event": "int64",  # row of EVENTS: the GPU event that ended it
        "path": "paths",  # its region
    },
)

IDLE_TOTALS: Final = Schema(
    "IDLE_TOTALS",  # one row per stream and cause, the stream with the longest idle time first
    {
        "device": "Int64",
        "stream": "Int64",
        "cause": "str",
        "gaps": "int64",
        "idle_ns": "int64",
        "synchronised_ns": "int64",  # of idle_ns
        "longest_ns": "int64",
        "share": "float64",  # of the stream's idle time
    },
)

REGION_UTILIZATION: Final = Schema(
    "REGION_UTILIZATION",  # one row per region path, longest wall time first; see region_utilization
    {
        "path": "path",
        "instances": "int64",
        "gpu_events": "int64",  # nested regions included, as in all that follows
        "wall_ns": "int64",  # busy_ns + other_ns + idle_ns
        "busy_ns": "int64",
        "other_ns": "int64",
        "idle_ns": "int64",  # host_ns + synchronised_ns + kernel_wait_ns + other_wait_ns
        "host_ns": "int64",
        "synchronised_ns": "int64",
        "kernel_wait_ns": "int64",
        "other_wait_ns": "int64",
        "waiting_ns": "int64",  # the host inside calls that wait for the GPU, on the region's own thread
        "utilization": "float64",  # busy_ns / wall_ns
        "ahead": "float64",  # share of the GPU events that were launched before the work ahead of them was done
        "verdict": "str",  # GPU-bound, host-bound, synchronising, mixed, no GPU work
    },
)

QUEUE_LENGTH: Final = Schema(
    "QUEUE_LENGTH",  # one row per moment at which the queue of a stream changed, by stream and time
    {"device": "Int64", "stream": "Int64", "time_ns": "int64", "length": "int64"},
)

QUEUE_TOTALS: Final = Schema(
    "QUEUE_TOTALS",  # one row per stream: how many launched GPU events had not begun
    {
        "device": "Int64",
        "stream": "Int64",
        "max_length": "int64",
        "mean_length": "float64",  # over time
        "total_ns": "int64",  # from the first launch to the start of the last event
        "empty_ns": "int64",
        "full_ns": "int64",
    },
)

LAUNCH_DETAILS: Final = Schema(
    "LAUNCH_DETAILS",  # one row per call that launched GPU events, by start
    {
        "event": "int64",  # row of EVENTS
        "name": "category",
        "thread": "int32",
        "start_ns": "int64",
        "dur_ns": "int64",  # of the call
        "correlation": "Int64",
        "gpu_events": "int64",
        "gpu_ns": "int64",  # sum over what it launched
        "delay_ns": "int64",  # from its end to the start of the first event
        "path": "paths",
    },
)

LAUNCH_TOTALS: Final = Schema(
    "LAUNCH_TOTALS",  # one row per name of a call, longest host time first
    {
        "name": "str",
        "launches": "int64",
        "gpu_events": "int64",
        "host_ns": "int64",
        "gpu_ns": "int64",
        "short": "int64",  # calls that took longer than what they launched
        "slow": "int64",  # calls that took long
        "delayed": "int64",  # calls whose first event began late
        "median_ns": "float64",
        "max_ns": "int64",
        "median_delay_ns": "float64",
        "max_delay_ns": "int64",
    },
)

COMMUNICATION_OVERLAP: Final = Schema(
    "COMMUNICATION_OVERLAP",  # one row per device; lengths of unions over its streams
    {
        "device": "Int64",
        "communication_ns": "int64",
        "computation_ns": "int64",
        "overlap_ns": "int64",
        "exposed_ns": "int64",  # communication during which no other kernel ran
        "share": "float64",  # overlap_ns / communication_ns
    },
)

COPIES: Final = Schema(
    "COPIES",  # one row per memory copy and memory set, by start
    {
        "event": "int64",  # row of EVENTS
        "device": "Int64",
        "stream": "Int64",
        "start_ns": "int64",
        "dur_ns": "int64",
        "kind": "str",  # HtoD, DtoH, DtoD, ..., Memset, unknown
        "source": "str",  # Pageable, Pinned, Device, ...; "" for a set
        "target": "str",
        "size_bytes": "Int64",  # missing where the trace does not say
        "path": "paths",
    },
)

COPY_TOTALS: Final = Schema(
    "COPY_TOTALS",  # one row per device, kind, source and target, longest sum first
    {
        "device": "Int64",
        "kind": "str",
        "source": "str",
        "target": "str",
        "count": "int64",
        "size_bytes": "int64",
        "sum_ns": "int64",
        "bytes_per_s": "Float64",
        "min_bytes_per_s": "Float64",  # of a single copy
        "max_bytes_per_s": "Float64",
    },
)

COPY_RATE: Final = Schema(
    "COPY_RATE",  # one row per moment at which the bandwidth of a kind changed, by device, kind and time
    {"device": "Int64", "kind": "str", "time_ns": "int64", "bytes_per_s": "float64"},
)

KERNEL_SEQUENCES: Final = Schema(
    "KERNEL_SEQUENCES",  # one row per outermost operator and sequence of what it launched, most frequent first
    {
        "operator": "str",
        "kernels": "path",  # names in order of launch
        "length": "int64",
        "count": "int64",
        "calls": "int64",  # calls of the operator in which it occurs
        "sum_ns": "int64",
        "gap_ns": "int64",  # between its events
    },
)

REGION_INSTANCES: Final = Schema(
    "REGION_INSTANCES",  # one row per opened region (a record_function block), by start
    {
        "event": "int64",  # row of EVENTS
        "name": "str",  # ProfilerStep#3 reads ProfilerStep
        "step": "Int64",  # the 3 of ProfilerStep#3
        "path": "paths",
        "parent": "Int64",  # row of this frame
        "thread": "int32",
        "start_ns": "int64",
        "end_ns": "int64",
        "gpu_start_ns": "Int64",  # first start of what it launched, nested regions included
        "gpu_end_ns": "Int64",
    },
)

REGION_TOTALS: Final = Schema(
    "REGION_TOTALS",  # one row per region path, a parent before its children, longest sum (then host time) first
    {
        "path": "path",
        "instances": "int64",
        "gpu_events": "int64",
        "sum_ns": "int64",
        "busy_ns": "int64",
        "span_ns": "int64",
        "self_sum_ns": "int64",
        "host_ns": "int64",
        "launches": "int64",
    },
)

KERNEL_TOTALS: Final = Schema(
    "KERNEL_TOTALS",  # one row per name, stream, device and category, longest sum first
    {
        "name": "str",
        "stream": "Int64",
        "device": "Int64",
        "category": "str",
        "count": "int64",
        "sum_ns": "int64",
        "mean_ns": "float64",
        "min_ns": "int64",
        "max_ns": "int64",
    },
)

OPERATORS: Final = Schema(
    "OPERATORS",  # one row per cpu_op event, by thread and start
    {
        "event": "int64",  # row of EVENTS
        "name": "category",
        "thread": "int32",
        "start_ns": "int64",
        "dur_ns": "int64",
        "self_ns": "int64",  # less the operators called inside it on the same thread
        "depth": "int32",  # operators above it on the same thread
        "parent": "Int64",  # row of this frame: the operator it was called in
        "path": "paths",  # regions open on the thread at its start; ("(no region)",) when there are none
    },
)

OPERATOR_TOTALS: Final = Schema(
    "OPERATOR_TOTALS",  # one row per innermost region path and operator name, longest self time first; host time
    {"path": "path", "name": "str", "count": "int64", "sum_ns": "int64", "self_ns": "int64"},
)

OPERATOR_WORK: Final = Schema(
    "OPERATOR_WORK",  # one row per operator name, longest gpu_ns first; (no operator) and (unlinked) hold the rest
    {
        "name": "str",
        "calls": "int64",
        "host_ns": "int64",  # sum of durations, operators called inside included
        "self_ns": "int64",  # less the operators called inside
        "gpu_events": "int64",  # launched with this operator as the innermost
        "gpu_ns": "int64",  # sum of their durations
        "nested_gpu_events": "int64",  # launched in it or in an operator called inside, each once
        "nested_gpu_ns": "int64",
    },
)

OPERATOR_KERNELS: Final = Schema(
    "OPERATOR_KERNELS",  # one row per innermost operator, GPU event name, stream and device, longest sum first
    {
        "operator": "str",  # (no operator) and (unlinked) included
        "name": "str",
        "category": "str",
        "device": "Int64",
        "stream": "Int64",
        "count": "int64",
        "sum_ns": "int64",
        "mean_ns": "float64",
        "min_ns": "int64",
        "max_ns": "int64",
    },
)

MODULE_WORK: Final = Schema(
    "MODULE_WORK",  # one row per path of nn.Modules, longest first; the empty path holds what ran outside every module
    {
        "path": "path",
        "gpu_events": "int64",  # modules called inside included
        "sum_ns": "int64",
        "self_sum_ns": "int64",  # with this module as the innermost
    },
)

SHAPE_WORK: Final = Schema(
    "SHAPE_WORK",  # one row per operator name and input shapes, longest nested_gpu_ns (then self_ns) first
    {
        "name": "str",
        "input_dims": "str",  # as the trace writes them; "" where it does not
        "calls": "int64",
        "host_ns": "int64",
        "self_ns": "int64",
        "gpu_events": "int64",
        "gpu_ns": "int64",
        "nested_gpu_events": "int64",
        "nested_gpu_ns": "int64",
    },
)

OPERATOR_SUMS: Final = Schema(
    "OPERATOR_SUMS",  # one row per operator name, longest self time first; host time
    {"name": "str", "count": "int64", "sum_ns": "int64", "self_ns": "int64"},
)

NAME_SUMS: Final = Schema(
    "NAME_SUMS",  # one row per GPU event name, over all streams and devices, longest sum first
    {"name": "str", "count": "int64", "sum_ns": "int64"},
)

RANK_KERNELS: Final = Schema(
    "RANK_KERNELS",  # one row per NCCL or RCCL kernel of a rank
    {
        "rank": "int64",
        "event": "int64",  # row of that rank's EVENTS
        "name": "str",
        "group": "str",  # the process group as the trace names it; "" when it does not say
        "start_ns": "int64",  # Unix time
        "dur_ns": "int64",
    },
)

RANK_COLLECTIVES: Final = Schema(
    "RANK_COLLECTIVES",  # one row per collective and rank, those of one collective together
    {
        "collective": "int64",  # counts the collectives, from 0
        **RANK_KERNELS.columns,
        "wait_ns": "int64",  # dur_ns less that of the shortest kernel of the same collective
        "last": "bool",  # its kernel is the shortest: this rank arrived last
    },
)

RANK_TOTALS: Final = Schema(
    "RANK_TOTALS",  # one row per rank; the eight times in the middle are those of GpuTimeline
    {
        "rank": "int64",
        "gpu_events": "int64",
        "total_ns": "int64",
        "busy_ns": "int64",
        "idle_ns": "int64",
        "computation_ns": "int64",
        "communication_ns": "int64",
        "exposed_communication_ns": "int64",
        "memcpy_ns": "int64",
        "exposed_memcpy_ns": "int64",
        "collectives": "int64",  # that other ranks recorded too
        "wait_ns": "int64",  # in them, for other ranks
        "arrived_last": "int64",  # of collectives
        "held_ns": "int64",  # sum over those of the longest wait of another rank
    },
)
