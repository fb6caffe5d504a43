"""The frames of a trace: their schemas, and the functions that build them from event columns and attribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.attribute.launch_context import MODULE_PREFIX, LaunchContexts, OperatorCalls
from profiler_kit.attribute.regions import Attribution, Regions
from profiler_kit.load.trace.categories import is_launch
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.events import MISSING
from profiler_kit.schema import Column, Schema

I64 = npt.NDArray[np.int64]

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


def events_frame(columns: EventColumns) -> pd.DataFrame:
    """EVENTS, and one more column (category) for each argument asked for when loading."""
    data: dict[str, Any] = {
        "name": _categorical(columns.name, columns.names),
        "category": _categorical(columns.category, columns.categories),
        "thread": columns.thread,
        "start_ns": columns.start_ns,
        "dur_ns": columns.dur_ns,
        **{name: nullable(values) for name, values in columns.integers.items()},
    }
    events = EVENTS.check(pd.DataFrame(data))
    extra = {name: _categorical(text.codes, text.values) for name, text in columns.extra.items()}
    return events.assign(**extra) if extra else events


def threads_frame(columns: EventColumns) -> pd.DataFrame:
    """One row per thread or stream: pid and tid as text, as the file writes them, and a label to show."""
    rows = []
    for pid, tid in columns.threads:
        name = columns.thread_names.get((pid, tid), "")
        process = columns.process_labels.get(pid, "")
        rows.append((_text(pid), _text(tid), name or f"thread {_text(tid)}", process))
    return pd.DataFrame(rows, columns=["pid", "tid", "label", "process"], dtype=object)


def gpu_events_frame(columns: EventColumns, found: Attribution) -> pd.DataFrame:
    """GPU_EVENTS."""
    linked = found.launch >= 0
    launch = np.where(linked, found.launch, 0)  # any row will do where there is no launch: it is masked
    data: dict[str, Any] = {
        "event": found.event,
        "name": _categorical(columns.name[found.event], columns.names),
        "category": _categorical(columns.category[found.event], columns.categories),
        "device": nullable(columns.integers["device"][found.event]),
        "stream": nullable(columns.integers["stream"][found.event]),
        "start_ns": columns.start_ns[found.event],
        "dur_ns": columns.dur_ns[found.event],
        "launch": _masked(found.launch, linked),
        "launch_start_ns": _masked(columns.start_ns[launch], linked),
        "launch_thread": _masked(columns.thread[launch], linked),
        "instance": _masked(found.instance, found.instance >= 0),
        "path": _paths(found.path, found.paths),
        "forward_path": _paths(found.forward_path, found.paths),
    }
    return GPU_EVENTS.check(pd.DataFrame(data))


def kernel_details_frame(gpu_events: pd.DataFrame, columns: EventColumns, found: LaunchContexts) -> pd.DataFrame:
    """KERNEL_DETAILS of these GPU_EVENTS."""
    modules = [name.removeprefix(MODULE_PREFIX) for name in columns.names]
    times = {
        name: nullable(getattr(found, name))
        for name in KERNEL_DETAILS.columns
        if name not in GPU_EVENTS.columns and name.endswith("_ns")
    }
    extra: dict[str, Any] = {
        "operator_event": _masked(found.operator, found.operator >= 0),
        "operator": _named(found.operator, columns.name, columns.names),
        "outer_operator_event": _masked(found.outer_operator, found.outer_operator >= 0),
        "outer_operator": _named(found.outer_operator, columns.name, columns.names),
        "module": _named(found.module, columns.name, modules),
        "modules": _paths(found.modules, found.module_paths),
        **times,
    }
    return KERNEL_DETAILS.check(gpu_events.assign(**extra))


def launch_calls_frame(columns: EventColumns, found: Attribution) -> pd.DataFrame:
    """LAUNCH_CALLS."""
    event = np.flatnonzero(columns.of_category(is_launch))
    event = event[np.argsort(columns.start_ns[event], kind="stable")]
    linked = found.launch >= 0
    # per event of the trace: how many GPU events it launched, and their durations added up
    count, total = np.zeros(len(columns), dtype=np.int64), np.zeros(len(columns), dtype=np.int64)
    np.add.at(count, found.launch[linked], 1)
    np.add.at(total, found.launch[linked], columns.dur_ns[found.event[linked]])
    node = found.regions.open_at(columns.thread[event], columns.start_ns[event])
    data: dict[str, Any] = {
        "event": event,
        "name": _categorical(columns.name[event], columns.names),
        "category": _categorical(columns.category[event], columns.categories),
        "thread": columns.thread[event],
        "start_ns": columns.start_ns[event],
        "dur_ns": columns.dur_ns[event],
        "correlation": nullable(columns.integers["correlation"][event]),
        "gpu_events": count[event],
        "gpu_ns": total[event],
        "path": _paths(found.regions.path[node], found.paths),
    }
    return LAUNCH_CALLS.check(pd.DataFrame(data))


def region_instances_frame(attribution: Attribution) -> pd.DataFrame:
    """REGION_INSTANCES."""
    found = attribution.instances
    data: dict[str, Any] = {
        "event": found.event,
        "name": pd.Series(found.name, dtype=object),
        "step": nullable(found.step),
        "path": _paths(found.path, attribution.paths),
        "parent": _masked(found.parent, found.parent >= 0),
        "thread": found.thread.astype(np.int32),
        "start_ns": found.start_ns,
        "end_ns": found.end_ns,
        "gpu_start_ns": nullable(found.gpu_start_ns),
        "gpu_end_ns": nullable(found.gpu_end_ns),
    }
    return REGION_INSTANCES.check(pd.DataFrame(data))


def operators_frame(columns: EventColumns, regions: Regions, calls: OperatorCalls) -> pd.DataFrame:
    """OPERATORS."""
    node = regions.open_at(columns.thread[calls.event], columns.start_ns[calls.event])
    data: dict[str, Any] = {
        "event": calls.event,
        "name": _categorical(columns.name[calls.event], columns.names),
        "thread": columns.thread[calls.event],
        "start_ns": columns.start_ns[calls.event],
        "dur_ns": columns.dur_ns[calls.event],
        "self_ns": calls.self_ns,
        "depth": calls.depth.astype(np.int32),
        "parent": _masked(calls.parent, calls.parent >= 0),
        "path": _paths(regions.path[node], regions.paths),
    }
    return OPERATORS.check(pd.DataFrame(data))


def nullable(values: I64) -> pd.arrays.IntegerArray:
    """Integers in which MISSING is missing."""
    return _masked(values, values != MISSING)


def _masked(values: npt.NDArray[np.integer[Any]], known: npt.NDArray[np.bool_]) -> pd.arrays.IntegerArray:
    return pd.arrays.IntegerArray(np.where(known, values, 0).astype(values.dtype), ~known)


def _categorical(codes: npt.NDArray[np.integer[Any]], labels: Sequence[str]) -> pd.Categorical:
    """A categorical, also where two codes share a label (a file that writes Kernel and kernel)."""
    distinct: dict[str, int] = {}
    table = np.array([distinct.setdefault(label, len(distinct)) for label in labels], dtype=np.int32)
    return _from_codes(table[codes], pd.Index(list(distinct), dtype=object))


def _named(event: I64, name: npt.NDArray[np.int32], labels: Sequence[str]) -> pd.Categorical:
    """The name of each event as a categorical of the names that occur; missing where there is no event."""
    known = event >= 0
    used, where = np.unique(name[event[known]], return_inverse=True)
    found = _categorical(where, [labels[code] for code in used.tolist()])
    codes = np.full(len(event), -1, dtype=np.int64)
    codes[known] = found.codes
    return _from_codes(codes, found.categories)


def _paths(codes: I64, paths: Sequence[tuple[str, ...]]) -> pd.Categorical:
    return _from_codes(codes, pd.Index(paths, tupleize_cols=False))


def _from_codes(codes: npt.NDArray[np.integer[Any]], categories: pd.Index[Any]) -> pd.Categorical:
    return pd.Categorical.from_codes(codes, categories)  # type: ignore[arg-type]  # the stubs know lists only


def _text(key: int | str) -> str:
    return "" if key == MISSING else str(key)
