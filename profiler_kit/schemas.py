"""The frames that cross module boundaries: one schema each, checked where a frame is handed over."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from profiler_kit.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Schema:
    """Names and dtypes of a frame's columns, in order.

    dtypes are pandas names; "category" is a categorical of strings, "str" an object column of strings, "path"
    an object column of tuples of region names, "paths" the same as a categorical, "list" an object column of
    anything else.
    """

    name: str
    columns: Mapping[str, str]

    def check(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return `frame` with just these columns in this order; raises SchemaError on a mismatch."""
        missing = [column for column in self.columns if column not in frame.columns]
        if missing:
            raise SchemaError(f"{self.name}: column {missing[0]!r} is missing, found {list(frame.columns)}")
        for column, wanted in self.columns.items():
            found = str(frame[column].dtype)
            if found != _PANDAS.get(wanted, wanted) and not (wanted == found == "str"):  # pandas 3 has a str dtype
                raise SchemaError(f"{self.name}: column {column!r} is {found}, want {wanted}")
        return frame[list(self.columns)]

    def empty(self) -> pd.DataFrame:
        """A frame with these columns and no rows."""
        import pandas as pd

        return pd.DataFrame(
            {c: pd.Series(dtype=_PANDAS.get(t, t)) for c, t in self.columns.items()},
            columns=list(self.columns),
        )


_PANDAS: Final = {"str": "object", "path": "object", "paths": "category", "list": "object"}

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

LAYER_CALLS: Final = Schema(
    "LAYER_CALLS",  # one row per call of a module, in call order (layers.parquet)
    {
        "layer": "str",  # dotted module path; "(model)" is the module that was timed
        "type": "str",  # class name
        "variant": "str",  # what sets layers of one type apart ("window 14", "global"); "" when nothing does
        "parent": "str",  # layer path of the module whose call this call ran inside; "" at the top
        "batch_size": "int64",
        "iteration": "int64",
        "call": "int64",  # counts calls of this layer within the iteration, from 0
        "device_ns": "Int64",  # between CUDA events on the stream; missing on a machine without a GPU
        "self_device_ns": "Int64",  # less the calls made inside it
        "host_ns": "int64",  # perf_counter around the call; on a CPU this is the layer's time
        "self_host_ns": "int64",
    },
)

LAYER_TOTALS: Final = Schema(
    "LAYER_TOTALS",  # one row per layer and batch size
    {
        "layer": "str",
        "type": "str",
        "variant": "str",
        "parent": "str",
        "depth": "int64",  # 0 is the module that was timed
        "batch_size": "int64",
        "iterations": "int64",
        "calls": "int64",  # in one iteration
        "median_ns": "float64",  # over the iterations, of the sum over the calls of one iteration
        "q1_ns": "float64",
        "q3_ns": "float64",
        "self_median_ns": "float64",
        "per_image_ns": "float64",  # median_ns / batch_size
        "efficiency": "float64",  # per-image time at the smallest batch / per-image time here; 1 = same, > 1 = better
        "share": "float64",  # of the whole forward at that batch size
    },
)

FORWARD_CALLS: Final = Schema(
    "FORWARD_CALLS",  # one row per whole forward run without hooks, beside the ones that LAYER_CALLS is of
    {
        "batch_size": "int64",
        "iteration": "int64",
        "forward_ns": "int64",  # between CUDA events on a GPU, perf_counter on a CPU
    },
)

LAYER_COVERAGE: Final = Schema(
    "LAYER_COVERAGE",  # one row per batch size; times are medians over the iterations
    {
        "batch_size": "int64",
        "forward_ns": "float64",  # the whole forward without hooks
        "hooked_ns": "float64",  # the whole forward with hooks
        "layers_ns": "float64",  # sum over the outermost layers inside the module that was timed
        "share": "float64",  # layers_ns / forward_ns
        "leaves_ns": "float64",  # sum over the layers inside which no other layer was timed
        "leaves_share": "float64",
        "overhead": "float64",  # hooked_ns / forward_ns - 1
    },
)

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
