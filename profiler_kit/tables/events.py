"""The events of a trace as they were recorded, and what launched them: the tables that a query joins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from profiler_kit.attribute.frames import (
    EVENTS,
    GPU_EVENTS,
    KERNEL_DETAILS,
    LAUNCH_CALLS,
    LEFT_OUT,
    OPERATORS,
    REGION_INSTANCES,
    THREADS,
)
from profiler_kit.load.integers import MISSING
from profiler_kit.schema import Schema
from profiler_kit.table import Empty, Table
from profiler_kit.tables.utilization import NO_REGIONS

if TYPE_CHECKING:
    from profiler_kit.load.trace.columns import EventColumns

_WITH_LAUNCH: Final = ("launch", "launch_start_ns", "launch_end_ns")
GPU_EVENT_DETAILS: Final = Schema(
    "GPU_EVENT_DETAILS",
    GPU_EVENTS.row,
    {
        **{name: KERNEL_DETAILS.columns[name] for name in list(KERNEL_DETAILS.columns)[:8]},
        **{name: EVENTS.columns[name] for name in ("correlation", "bytes")},
        **{name: KERNEL_DETAILS.columns[name] for name in _WITH_LAUNCH},
        **KERNEL_DETAILS.columns,
    },
)


def gpu_event_details(details: pd.DataFrame, columns: EventColumns) -> pd.DataFrame:
    """KERNEL_DETAILS and the events of their trace -> GPU_EVENT_DETAILS."""
    row = details["event"].to_numpy()
    more = {}
    for name in ("correlation", "bytes"):
        values = columns.integers[name][row]
        missing = values == MISSING
        more[name] = pd.arrays.IntegerArray(np.where(missing, 0, values), missing)
    return GPU_EVENT_DETAILS.check(details.assign(**more))


def events_arrow(columns: EventColumns) -> pa.Table:
    """EVENTS, from the columns themselves: a frame of millions of rows would take a second."""

    def integers(values: Any) -> pa.Array:
        missing = values == MISSING
        return pa.nulls(len(values), pa.int64()) if missing.all() else pa.array(values, mask=missing)

    texts = {"name": (columns.name, columns.names), "category": (columns.category, columns.categories)}
    texts |= {name: (text.codes, text.values) for name, text in columns.extra.items()}
    coded = {
        name: pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(labels, pa.string()))
        for name, (codes, labels) in texts.items()
    }
    times = {"start_ns": columns.start_ns, "dur_ns": columns.dur_ns, "end_ns": columns.start_ns + columns.dur_ns}
    numbers = {name: integers(values) for name, values in columns.integers.items()}
    rows = pa.array(range(len(columns)), pa.int64())
    return pa.table({"event": rows, **coded, "thread": columns.thread, **times, **numbers})


TABLES: Final = (
    Table(
        "events",
        "trace",
        "events",
        EVENTS,
        lambda trace: trace.events,
        arrow=lambda trace: events_arrow(trace.columns),
        row="event",
    ),
    Table("launches", "trace", "launch calls", LAUNCH_CALLS, lambda trace: trace.launch_calls()),
    Table(
        "gpu_events",
        "trace",
        "GPU events",
        GPU_EVENT_DETAILS,
        lambda trace: gpu_event_details(trace.kernel_details(), trace.columns),
        needs_gpu=True,
    ),
    Table(
        "left_out",
        "trace",
        "GPU events whose time cannot be believed",
        LEFT_OUT,
        lambda trace: trace.left_out(),
        empty=Empty("Nothing was left out.", of_host=True),
    ),
    Table(
        "region_instances",
        "trace",
        "opened regions",
        REGION_INSTANCES,
        lambda trace: trace.region_instances(),
        row="instance",
        empty=NO_REGIONS._replace(of_host=True),
    ),
    Table("operators", "trace", "operator calls", OPERATORS, lambda trace: trace.operators()),
    Table("threads", "trace", "threads and streams", THREADS, lambda trace: trace.threads),
)
