"""The frames of a trace: their schemas, and the functions that build them from event columns and attribution."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.attribute.launch_context import MODULE_PREFIX, LaunchContexts, NestedSpans, OperatorCalls
from profiler_kit.attribute.regions import Attribution, Instances, Regions
from profiler_kit.attribute.span_forest import depths
from profiler_kit.attribute.waits import waiting
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.categories import is_launch
from profiler_kit.load.trace.columns import EventColumns, TextColumn
from profiler_kit.schema import Column, Schema

_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+")  # <built-in method permute of Tensor object at 0x7f2d0dd532a0>

WORK: Final = "Kineto's category; of a copy or a set that the file calls a kernel (ROCm, MTIA) what it is."
LAUNCH_PATH: Final = "Regions open at the launch, outermost first; (no region) and (unlinked) hold the rest."
THREAD_PATH: Final = "Regions open on its thread at its start, outermost first; (no region) where there are none."

NO_TIME, DURATION = "no time", "duration"

EVENTS: Final = Schema(
    "EVENTS",
    "complete event (phase X), in file order",
    {
        "name": Column("category", unit="kernel"),
        "category": Column("category"),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "correlation": Column("Int64"),
        "external_id": Column("Int64", "Number of the operator, as Kineto counts them.", show="room"),
        "device": Column("Int64"),
        "stream": Column("Int64"),
        "sequence_number": Column("Int64", "Joins a forward operator with its backward.", show="room"),
        "forward_thread": Column("Int64", "Of a backward operator, the thread that ran its forward.", show="room"),
        "python_id": Column("Int64", "Number of a Python function's call.", show="room"),
        "python_parent_id": Column("Int64", "Number of the call that it was called in.", show="room"),
        "bytes": Column("Int64", "Size of a memory copy or memory set.", unit="bytes"),
        "collective": Column("Int64", "It is 1 where it has the arguments of a collective operation.", show="room"),
    },
)

GPU_EVENTS: Final = Schema(
    "GPU_EVENTS",
    "kernel, memory copy or memory set whose time can be believed, by start",
    {
        "event": Column("int64"),
        "name": Column("category", unit="kernel"),
        "category": Column("category", WORK),
        "process": Column("category", show="varied"),
        "device": Column("Int64"),
        "stream": Column("Int64"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "launch": Column("Int64", "Row of events: its launch; missing when that is not in the trace."),
        "launch_start_ns": Column("Int64", "When the launch call began."),
        "launch_thread": Column("Int32", "Row of threads: where it was launched, by its launch or its External id."),
        "instance": Column("Int64", "Row of region_instances: the innermost region; missing when there is none."),
        "path": Column("paths", LAUNCH_PATH),
        "forward_path": Column("paths", "The forward region of a backward operator's kernel, where it is known."),
        "communication": Column("category", "By which rule it is communication; missing where it is not."),
    },
)

KERNEL_DETAILS: Final = Schema(
    "KERNEL_DETAILS",
    "GPU event, as GPU_EVENTS, with where on the host it came from",
    {
        **GPU_EVENTS.columns,
        "operator_event": Column("Int64", "Row of events: the innermost operator open on the launching thread."),
        "operator": Column(
            "category",
            "Name of the innermost operator, of a replayed graph's kernel that of its capture; missing when none was "
            "open.",
        ),
        "outer_operator_event": Column("Int64", "Row of events: the outermost operator open there."),
        "outer_operator": Column("category", "Name of the outermost operator."),
        "module": Column("category", "The innermost nn.Module open there, if recorded (with_modules, with_stack)."),
        "modules": Column("paths", "All nn.Modules open there, outermost first."),
        "launch_end_ns": Column("Int64", "When the launch call returned."),
        "since_launch_ns": Column("Int64", "From the start of the launch call to its own start."),
        "launch_delay_ns": Column("Int64", "From the end of the launch call to its own start, at least 0."),
        "queue_ns": Column("Int64", "Part of the launch delay in which earlier work of its stream was not done."),
        "latency_ns": Column("Int64", "The rest of the launch delay: its stream was free, and it had not begun."),
        "previous_end_ns": Column("Int64", "When all earlier work of its stream was done; missing for the first."),
        "captured": Column(
            "bool", "Whether operator and modules are those of its capture: it was launched with a CUDA graph."
        ),
        "capture_path": Column("paths", "The regions open at its capture."),
    },
)

LAUNCH_CALLS: Final = Schema(
    "LAUNCH_CALLS",
    "runtime or driver call, by start",
    {
        "event": Column("int64"),
        "name": Column("category"),
        "category": Column("category"),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "correlation": Column("Int64"),
        "gpu_events": Column("int64", "How many GPU events it launched."),
        "gpu_ns": Column("int64"),
        "path": Column("paths", THREAD_PATH),
        "waits": Column("bool", "It returned only when the GPU was done: a synchronizing call or copy."),
    },
)

REGION_INSTANCES: Final = Schema(
    "REGION_INSTANCES",
    "opened region (a record_function block), by start",
    {
        "event": Column("int64"),
        "name": Column("str", "Its name; ProfilerStep#3 reads ProfilerStep."),
        "step": Column("Int64", "The 3 of ProfilerStep#3."),
        "path": Column("paths"),
        "parent": Column("Int64", "Row of this table: the region around it."),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "end_ns": Column("int64"),
        "gpu_start_ns": Column("Int64", "First start of what it launched, nested regions included.", "GPU start"),
        "gpu_end_ns": Column("Int64", "Last end of what it launched.", "GPU end"),
    },
)

OPERATORS: Final = Schema(
    "OPERATORS",
    "operator call on the host, by thread and start",
    {
        "event": Column("int64"),
        "name": Column("category"),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "self_ns": Column("int64"),
        "depth": Column("int32", "How many operators are above it on its thread."),
        "parent": Column("Int64", "Row of this table, counted from 0: the operator it was called in."),
        "path": Column("paths", THREAD_PATH),
    },
)

PYTHON_CALLS: Final = Schema(
    "PYTHON_CALLS",
    "call of a Python function (with_stack) or an nn.Module, by thread and start",
    {
        "event": Column("int64"),
        "name": Column("category", "file(line where the function begins): function; without the addresses of objects."),
        "thread": Column("int32"),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "depth": Column("int32", "How many calls are above it on its thread."),
        "path": Column("paths", THREAD_PATH),
    },
)

LEFT_OUT: Final = Schema(
    "LEFT_OUT",
    "kernel, memory copy or memory set whose time cannot be believed, by stream; no sum counts it",
    {
        "event": Column("int64"),
        "name": Column("category", unit="kernel"),
        "category": Column("category", WORK),
        "device": Column("Int64"),
        "stream": Column("Int64"),
        "why": Column("str", "Why it is left out. no time: none was recorded; duration: it is impossible."),
        "start_ns": Column("int64"),
        "dur_ns": Column("int64"),
        "overrun_ns": Column("Int64", "How long the next event of its stream had run by its end.", "overrun"),
        "room_ns": Column(
            "Int64", "From its start to that of the next event of its stream: it ran for that long at most."
        ),
        "path": Column("paths", LAUNCH_PATH),
    },
)

THREADS: Final = Schema(
    "THREADS",
    "thread or stream",
    {
        "thread": Column("int32", "Row of this table."),
        "pid": Column("str", "Process, as the file writes it."),
        "tid": Column("str", "Thread or stream, as the file writes it."),
        "label": Column("str", "Its name."),
        "process": Column("str", "The labels of its process."),
    },
)


def events_frame(columns: EventColumns) -> pd.DataFrame:
    """EVENTS, and one more column (category) for each argument asked for when loading.

    Numbers are the columns' own memory, not copies: of most events little else exists.
    """
    data: dict[str, Any] = {
        "name": _categorical(columns.name, columns.names),
        "category": _categorical(columns.category, columns.categories),
        "thread": columns.thread,
        "start_ns": columns.start_ns,
        "dur_ns": columns.dur_ns,
        **{name: nullable(values) for name, values in columns.integers.items()},
    }
    events = EVENTS.check(pd.DataFrame(data, copy=False))
    extra = {name: text_column(text) for name, text in columns.extra.items()}
    return events.assign(**extra) if extra else events


def threads_frame(columns: EventColumns) -> pd.DataFrame:
    """THREADS."""
    rows = []
    for number, (pid, tid) in enumerate(columns.threads):
        texts = ["" if key == MISSING else str(key) for key in (pid, tid)]
        label = columns.thread_names.get((pid, tid), "") or f"thread {texts[1]}"
        rows.append((number, *texts, label, columns.process_labels.get(pid, "")))
    return THREADS.check(pd.DataFrame(rows, columns=list(THREADS.columns), dtype=object).astype({"thread": "int32"}))


def gpu_events_frame(columns: EventColumns, found: Attribution) -> pd.DataFrame:
    """GPU_EVENTS."""
    linked = found.launch >= 0
    launch = np.where(linked, found.launch, 0)  # any row will do where there is no launch: it is masked
    known = found.links.origin >= 0
    origin = np.where(known, found.links.origin, 0)
    data: dict[str, Any] = {
        "event": found.event,
        "name": _categorical(columns.name[found.event], columns.names),
        "category": _categorical(found.category, found.categories),
        "process": _categorical(found.links.process, found.links.processes.names),
        "device": nullable(columns.integers["device"][found.event]),
        "stream": nullable(columns.integers["stream"][found.event]),
        "start_ns": columns.start_ns[found.event],
        "dur_ns": columns.dur_ns[found.event],
        "launch": masked(found.launch, linked),
        "launch_start_ns": masked(columns.start_ns[launch], linked),
        "launch_thread": masked(columns.thread[origin], known),
        "instance": masked(found.instance, found.instance >= 0),
        "path": _paths(found.path, found.paths),
        "forward_path": _paths(found.forward_path, found.paths),
        "communication": _known(found.communication, found.rules),
    }
    return GPU_EVENTS.check(pd.DataFrame(data))


def left_out_frame(columns: EventColumns, found: Attribution) -> pd.DataFrame:
    """LEFT_OUT."""
    left, event = found.left_out, found.left_out.event
    data: dict[str, Any] = {
        "event": event,
        "name": _categorical(columns.name[event], columns.names),
        "category": _categorical(columns.category[event], columns.categories),
        "device": nullable(columns.integers["device"][event]),
        "stream": nullable(columns.integers["stream"][event]),
        "why": pd.Series(np.where(left.untimed, NO_TIME, DURATION), dtype=object),
        "start_ns": columns.start_ns[event],
        "dur_ns": columns.dur_ns[event],
        "overrun_ns": nullable(left.overrun_ns),
        "room_ns": nullable(left.room_ns),
        "path": _paths(left.path, found.paths),
    }
    return LEFT_OUT.check(pd.DataFrame(data))


def kernel_details_frame(
    gpu_events: pd.DataFrame, columns: EventColumns, found: LaunchContexts, captured: I64, capture_path: I64,
    paths: Sequence[tuple[str, ...]],
) -> pd.DataFrame:  # fmt: skip
    """KERNEL_DETAILS of these GPU_EVENTS. captured: the row of each one's launch at its capture, or below 0;
    capture_path: an index of paths.
    """
    modules = [name.removeprefix(MODULE_PREFIX) for name in columns.names]
    times = {
        name: nullable(getattr(found, name))
        for name in KERNEL_DETAILS.columns
        if name not in GPU_EVENTS.columns and name.endswith("_ns")
    }
    extra: dict[str, Any] = {
        "operator_event": masked(found.operator, found.operator >= 0),
        "operator": _named(found.operator, columns.name, columns.names),
        "outer_operator_event": masked(found.outer_operator, found.outer_operator >= 0),
        "outer_operator": _named(found.outer_operator, columns.name, columns.names),
        "module": _named(found.module, columns.name, modules),
        "modules": _paths(found.modules, found.module_paths),
        **times,
        "captured": captured >= 0,
        "capture_path": _paths(capture_path, paths),
    }
    return KERNEL_DETAILS.check(gpu_events.assign(**extra))


def launch_calls_frame(columns: EventColumns, found: Attribution) -> pd.DataFrame:
    """LAUNCH_CALLS."""
    event = np.flatnonzero(columns.of_category(is_launch))
    event = event[np.argsort(columns.start_ns[event], kind="stable")]
    linked = found.launch >= 0
    # per event of the trace: how many GPU events it launched, and their durations added up
    count, total = np.zeros(len(columns), dtype=np.int64), np.zeros(len(columns), dtype=np.int64)
    np.add.at(count, np.concatenate((found.launch[linked], found.left_out.launch[found.left_out.launch >= 0])), 1)
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
        "waits": waiting(columns, found)[event],
    }
    return LAUNCH_CALLS.check(pd.DataFrame(data))


def region_instances_frame(found: Instances, attribution: Attribution) -> pd.DataFrame:
    """REGION_INSTANCES of the instances of an attribution, or of their parts."""
    data: dict[str, Any] = {
        "event": found.event,
        "name": pd.Series(found.name, dtype=object),
        "step": nullable(found.step),
        "path": _paths(found.path, attribution.paths),
        "parent": masked(found.parent, found.parent >= 0),
        "thread": found.thread.astype(np.int32),
        "start_ns": found.start_ns,
        "end_ns": found.end_ns,
        "gpu_start_ns": nullable(found.gpu_start_ns),
        "gpu_end_ns": nullable(found.gpu_end_ns),
    }
    return REGION_INSTANCES.check(pd.DataFrame(data))


def operators_frame(columns: EventColumns, regions: Regions, calls: OperatorCalls, own: int) -> pd.DataFrame:
    """OPERATORS. own: how many of the events are the trace's; what follows are calls of captures in other files, which
    took no time here: thread -1, no region.
    """
    here = calls.event < own
    node = np.zeros(len(here), dtype=np.int64)
    node[here] = regions.open_at(columns.thread[calls.event[here]], columns.start_ns[calls.event[here]])
    data: dict[str, Any] = {
        "event": calls.event.copy(),
        "name": _categorical(columns.name[calls.event], columns.names),
        "thread": np.where(here, columns.thread[calls.event], -1).astype(np.int32),
        "start_ns": columns.start_ns[calls.event],
        "dur_ns": np.where(here, columns.dur_ns[calls.event], 0),
        "self_ns": np.where(here, calls.self_ns, 0),
        "depth": calls.depth.astype(np.int32),
        "parent": masked(calls.parent, calls.parent >= 0),
        "path": _paths(regions.path[node], regions.paths),
    }
    return OPERATORS.check(pd.DataFrame(data, copy=False))  # as they are: millions of rows, each column made just now


def python_calls_frame(columns: EventColumns, regions: Regions, calls: NestedSpans) -> pd.DataFrame:
    """PYTHON_CALLS."""
    event = calls.event
    names = [_ADDRESS.sub("", name) for name in columns.names]
    data: dict[str, Any] = {
        "event": event,
        "name": _categorical(columns.name[event], names),
        "thread": columns.thread[event],
        "start_ns": columns.start_ns[event],
        "dur_ns": columns.dur_ns[event],
        "depth": depths(calls.forest.parent)[1:].astype(np.int32),
        "path": _paths(regions.path[regions.open_at(columns.thread[event], columns.start_ns[event])], regions.paths),
    }
    return PYTHON_CALLS.check(pd.DataFrame(data))


def text_column(text: TextColumn) -> pd.Series[str]:
    """An argument of every event as a categorical."""
    return pd.Series(_categorical(text.codes, text.values))


def nullable(values: I64) -> pd.arrays.IntegerArray:
    """Integers in which MISSING is missing: the same memory with a mask, which hides the number in its place."""
    missing = values == MISSING
    if missing.all():  # such a column has no memory of its own (load.integers), which pandas may want to write to
        values = np.zeros(len(values), values.dtype)
    return pd.arrays.IntegerArray(values, missing)


def masked(values: npt.NDArray[np.integer[Any]], known: npt.NDArray[np.bool_]) -> pd.arrays.IntegerArray:
    """Integers, missing where they are not known."""
    return pd.arrays.IntegerArray(np.where(known, values, 0).astype(values.dtype), ~known)


def _categorical(codes: npt.NDArray[np.integer[Any]], labels: Sequence[str]) -> pd.Categorical:
    """A categorical, also where two codes share a label (a file that writes Kernel and kernel)."""
    distinct: dict[str, int] = {}
    # code in the file -> code of the distinct label
    table = np.array([distinct.setdefault(label, len(distinct)) for label in labels], dtype=np.int32)
    same = len(distinct) == len(labels)
    return categorical_of(codes if same else table[codes], pd.Index(list(distinct), dtype=object))


def _named(event: I64, name: npt.NDArray[np.int32], labels: Sequence[str]) -> pd.Categorical:
    """The name of each event as a categorical of the names that occur; missing where there is no event."""
    known = event >= 0
    used, where = np.unique(name[event[known]], return_inverse=True)
    found = _categorical(where, [labels[code] for code in used.tolist()])
    codes = np.full(len(event), -1, dtype=np.int64)
    codes[known] = found.codes
    return categorical_of(codes, found.categories)


def _known(codes: I64, labels: Sequence[str]) -> pd.Categorical:
    """A categorical of the labels that occur but the first, whose code is that of a missing value."""
    used, where = np.unique(codes[codes > 0], return_inverse=True)
    found = np.full(len(codes), -1, dtype=np.int64)
    found[codes > 0] = where
    return categorical_of(found, pd.Index([labels[code] for code in used.tolist()], dtype=object))


def _paths(codes: I64, paths: Sequence[tuple[str, ...]]) -> pd.Categorical:
    return categorical_of(codes, pd.Index(paths, tupleize_cols=False))


def categorical_of(codes: npt.NDArray[np.integer[Any]], categories: pd.Index[Any]) -> pd.Categorical:
    """The values that the codes stand for, -1 for none."""
    return pd.Categorical.from_codes(codes, categories)  # type: ignore[arg-type]  # the stubs know lists only
