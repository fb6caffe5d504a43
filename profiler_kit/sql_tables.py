"""The tables a query may use: what one row and each column of them means, and how they are filled from a trace.

    events            one row per complete event of the trace, in file order
    launches          one row per runtime or driver call: what put work on the GPU, and waited for it
    gpu_events        one row per kernel, memory copy and memory set, with where it came from and what it waited for
    regions           one row per region path (record_function), totals
    region_instances  one row per opened region
    operators         one row per operator call on the host
    threads           one row per thread or stream
    allocations       of a memory snapshot: one row per allocation; with allocator_events, memory_regions,
                      memory_segments, memory_blocks, memory_fragmentation, stacks

The columns stand below (and `profiler-kit query TRACE --tables` prints them). Times are nanoseconds since the start
of the trace's clock (in a snapshot microseconds of Unix time), sizes bytes, all of them integers. A region's path is
text ("step > image encoder") and, under the name with `_list`, a list of names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from profiler_kit.load.trace.categories import is_gpu_work, is_launch
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.load.trace.events import MISSING

if TYPE_CHECKING:
    import duckdb
    import numpy as np
    import numpy.typing as npt
    import pandas as pd
    import pyarrow as pa

    from profiler_kit.load.cache.store import Spilled
    from profiler_kit.snapshot import Snapshot
    from profiler_kit.trace import Trace

BETWEEN: Final = " > "
Source = Callable[[], "pa.Table"]


@dataclass(frozen=True)
class Table:
    """A table: what one row is, and of each column its SQL type and meaning."""

    name: str
    row: str
    columns: Mapping[str, tuple[str, str]]


_EVENT: Final = {
    "event": ("BIGINT", "row of events"),
    "name": ("VARCHAR", ""),
    "category": ("VARCHAR", "Kineto's: kernel, cpu_op, cuda_runtime, ..."),
}
_TIMES: Final = {
    "start_ns": ("BIGINT", "since the trace's base time"),
    "dur_ns": ("BIGINT", ""),
    "end_ns": ("BIGINT", "start_ns + dur_ns"),
}
_THREAD: Final = {"thread": ("INTEGER", "row of threads")}
_PATH: Final = {
    "path": ("VARCHAR", "regions open at the launch, 'outer > inner'; '(no region)', '(unlinked)'"),
    "path_list": ("VARCHAR[]", "the same as a list"),
}
_ARGUMENTS: Final = {
    "correlation": ("BIGINT", "joins a launch with what it launched"),
    "external_id": ("BIGINT", "of the operator"),
    "device": ("BIGINT", ""),
    "stream": ("BIGINT", ""),
    "sequence_number": ("BIGINT", "joins a forward operator with its backward"),
    "forward_thread": ("BIGINT", "of a backward operator"),
    "python_id": ("BIGINT", ""),
    "python_parent_id": ("BIGINT", ""),
    "bytes": ("BIGINT", "of a memory copy or set"),
}

TRACE_TABLES: Final = (
    Table(
        "events",
        "complete event (phase X), in file order; more text columns when the trace was loaded with arguments=",
        {**_EVENT, **_THREAD, **_TIMES, **_ARGUMENTS},
    ),
    Table(
        "launches",
        "runtime or driver call, in order of its start",
        {
            **_EVENT,
            **_THREAD,
            **_TIMES,
            "correlation": ("BIGINT", "joins it with gpu_events"),
            "gpu_events": ("BIGINT", "how many GPU events it launched"),
            "gpu_ns": ("BIGINT", "sum of their durations"),
            **_PATH,
        },
    ),
    Table(
        "gpu_events",
        "kernel, memory copy or memory set, in order of its start",
        {
            **_EVENT,
            "device": ("BIGINT", ""),
            "stream": ("BIGINT", ""),
            **_TIMES,
            "correlation": ("BIGINT", "joins it with launches"),
            "bytes": ("BIGINT", "of a memory copy or set"),
            "launch": ("BIGINT", "row of events; NULL when the launch is not in the trace"),
            "launch_start_ns": ("BIGINT", ""),
            "launch_end_ns": ("BIGINT", "when the launch call returned"),
            "launch_thread": ("INTEGER", "row of threads"),
            "instance": ("BIGINT", "row of region_instances: the innermost region"),
            **_PATH,
            "forward_path": ("VARCHAR", "the forward region of a backward operator's kernel"),
            "forward_path_list": ("VARCHAR[]", "the same as a list"),
            "operator_event": ("BIGINT", "row of events: the innermost operator open at the launch"),
            "operator": ("VARCHAR", "its name"),
            "outer_operator_event": ("BIGINT", "the outermost one"),
            "outer_operator": ("VARCHAR", "its name"),
            "module": ("VARCHAR", "the innermost nn.Module open there, when recorded (with_modules, with_stack)"),
            "modules": ("VARCHAR", "all of them, 'outer > inner'"),
            "modules_list": ("VARCHAR[]", "the same as a list"),
            "since_launch_ns": ("BIGINT", "start - start of the launch call"),
            "launch_delay_ns": ("BIGINT", "start - launch_end_ns, at least 0; = queue_ns + latency_ns"),
            "queue_ns": ("BIGINT", "of it, while earlier work of its stream was not done"),
            "latency_ns": ("BIGINT", "of it, the rest"),
            "previous_end_ns": ("BIGINT", "when all earlier work of its stream was done"),
        },
    ),
    Table(
        "regions",
        "region path, nested regions included except in self_sum_ns; a parent before its children",
        {
            **_PATH,
            "instances": ("BIGINT", "how often it was opened"),
            "gpu_events": ("BIGINT", ""),
            "sum_ns": ("BIGINT", "durations of its GPU events added up"),
            "busy_ns": ("BIGINT", "their union over all streams"),
            "span_ns": ("BIGINT", "last end - first start of each instance, added up"),
            "self_sum_ns": ("BIGINT", "of what was launched with this region as the innermost; adds up to everything"),
            "host_ns": ("BIGINT", "time on its thread"),
            "launches": ("BIGINT", "launch calls that own a GPU event"),
        },
    ),
    Table(
        "region_instances",
        "opened region, in order of its start",
        {
            "instance": ("BIGINT", "row of this table"),
            "event": ("BIGINT", "row of events"),
            "name": ("VARCHAR", "ProfilerStep#3 reads ProfilerStep"),
            "step": ("BIGINT", "the 3 of ProfilerStep#3"),
            **_PATH,
            "parent": ("BIGINT", "row of this table"),
            **_THREAD,
            "start_ns": ("BIGINT", "since the trace's base time"),
            "end_ns": ("BIGINT", ""),
            "gpu_start_ns": ("BIGINT", "first start of what it launched, nested regions included"),
            "gpu_end_ns": ("BIGINT", "last end of it"),
        },
    ),
    Table(
        "operators",
        "operator call on the host, by thread and start",
        {
            "event": ("BIGINT", "row of events"),
            "name": ("VARCHAR", ""),
            **_THREAD,
            **_TIMES,
            "self_ns": ("BIGINT", "less the operators called inside it"),
            "depth": ("INTEGER", "operators above it"),
            "parent": ("BIGINT", "row of this table, counted from 0: the operator it was called in; null at the top"),
            **_PATH,
        },
    ),
    Table(
        "threads",
        "thread or stream",
        {
            "thread": ("INTEGER", "row of this table"),
            "pid": ("VARCHAR", "as the file writes it"),
            "tid": ("VARCHAR", "as the file writes it"),
            "label": ("VARCHAR", "its name"),
            "process": ("VARCHAR", "its process's labels"),
        },
    ),
)

_SIZES: Final = {
    "device": ("BIGINT", ""),
    "address": ("UBIGINT", ""),
    "size_bytes": ("BIGINT", "requested by the caller"),
    "stream": ("BIGINT", ""),
}
SNAPSHOT_TABLES: Final = (
    Table(
        "allocations",
        "allocation: an alloc paired with its free by address",
        {
            "allocation": ("BIGINT", "row of this table"),
            **_SIZES,
            "stack": ("BIGINT", "row of stacks: where it was allocated; 0 is unknown"),
            "alloc_event": ("BIGINT", "row of allocator_events; NULL: allocated before the history begins"),
            "free_event": ("BIGINT", "NULL: live at the end"),
            "alloc_us": ("BIGINT", "Unix time"),
            "free_us": ("BIGINT", "Unix time"),
        },
    ),
    Table(
        "allocator_events",
        "entry of the allocator's history, in order",
        {
            "event": ("BIGINT", "row of this table"),
            "device": ("BIGINT", ""),
            "action": ("VARCHAR", "alloc, free_requested, free_completed, segment_alloc, oom, ..."),
            "address": ("UBIGINT", ""),
            "size_bytes": ("BIGINT", "requested by the caller"),
            "stream": ("BIGINT", ""),
            "time_us": ("BIGINT", "Unix time"),
            "stack": ("BIGINT", "row of stacks"),
            "device_free_bytes": ("BIGINT", "of an oom"),
            "pool": ("VARCHAR", "private pool id, '0,0' the default one; '' before torch 2.13, which says it"),
        },
    ),
    Table(
        "memory_regions",
        "device and region path",
        {
            "device": ("BIGINT", ""),
            "path": ("VARCHAR", "'outer > inner'"),
            "path_list": ("VARCHAR[]", "the same as a list"),
            "instances": ("BIGINT", ""),
            "peak_bytes": ("BIGINT", "highest total of the device while one of them was open"),
            "allocated_bytes": ("BIGINT", ""),
            "freed_bytes": ("BIGINT", ""),
            "net_bytes": ("BIGINT", ""),
            "churn_bytes": ("BIGINT", "allocated in an instance and freed before it closed"),
            "largest_bytes": ("BIGINT", "the largest single allocation"),
            "largest_stack": ("BIGINT", "row of stacks: where that was made"),
        },
    ),
    Table(
        "memory_segments",
        "segment that was there at some time; state k is what holds after the k-th event of the device",
        {
            "device": ("BIGINT", ""),
            "segment": ("BIGINT", "number of the segment on its device"),
            "address": ("UBIGINT", ""),
            "size_bytes": ("BIGINT", ""),
            "stream": ("BIGINT", ""),
            "segment_type": ("VARCHAR", "small, large"),
            "pool": ("VARCHAR", "private pool id, '0,0' the default one, '' where nothing says it"),
            "expandable": ("BOOLEAN", "a range of addresses that segments were mapped into"),
            "from_state": ("BIGINT", "0: before the history begins"),
            "to_state": ("BIGINT", "the first state without it"),
        },
    ),
    Table(
        "memory_blocks",
        "block of a segment, active or not, while it was there",
        {
            "device": ("BIGINT", ""),
            "segment": ("BIGINT", "joins it with memory_segments"),
            "address": ("UBIGINT", ""),
            "size_bytes": ("BIGINT", "as the allocator rounded it"),
            "allocation": ("BIGINT", "row of allocations; NULL: an inactive block"),
            "from_state": ("BIGINT", ""),
            "to_state": ("BIGINT", "the first state without it"),
        },
    ),
    Table(
        "memory_fragmentation",
        "event that changed one of these values; state after it",
        {
            "device": ("BIGINT", ""),
            "time_us": ("BIGINT", "Unix time"),
            "allocated_bytes": ("BIGINT", "what callers asked for"),
            "active_bytes": ("BIGINT", "the same as the allocator rounded it"),
            "reserved_bytes": ("BIGINT", ""),
            "largest_free_bytes": ("BIGINT", "the largest inactive block"),
            "inactive_split_bytes": ("BIGINT", "inactive blocks in segments that are in use"),
        },
    ),
    Table(
        "stacks",
        "distinct stack",
        {
            "stack": ("BIGINT", "row of this table"),
            "frames": ("VARCHAR[]", "function (file:line), innermost first"),
        },
    ),
)


# Of a trace that is too large for memory: what needs no attribution.
SPILLED_TABLES: Final = (
    TRACE_TABLES[0],
    Table(
        "launches",
        "runtime or driver call, in file order; without regions",
        {**_EVENT, **_THREAD, **_TIMES, "correlation": ("BIGINT", "joins it with gpu_events")},
    ),
    Table(
        "gpu_events",
        "kernel, memory copy or memory set, in file order; without its launch and regions",
        {
            **_EVENT,
            "device": ("BIGINT", ""),
            "stream": ("BIGINT", ""),
            **_TIMES,
            "correlation": ("BIGINT", "joins it with launches"),
            "bytes": ("BIGINT", "of a memory copy or set"),
        },
    ),
    TRACE_TABLES[-1],
)


def describe(tables: Iterable[Table]) -> str:
    """The tables as text, one line a column."""
    lines = []
    for table in tables:
        lines.append(f"{table.name}: one row per {table.row}")
        width = max(map(len, table.columns))
        kind_width = max(len(kind) for kind, _ in table.columns.values())
        for column, (kind, meaning) in table.columns.items():
            lines.append(f"    {column:<{width}}  {kind:<{kind_width}}  {meaning}".rstrip())
        lines.append("")
    return "\n".join(lines).rstrip()


__doc__ = f"{__doc__ or ''}\n{describe((*TRACE_TABLES, *SNAPSHOT_TABLES))}\n"


def trace_sources(trace: Trace) -> dict[str, Source]:
    """How to fill each of TRACE_TABLES."""
    sources: dict[str, Source] = {
        "events": lambda: _events(trace.columns),
        "launches": lambda: to_arrow(trace.launch_calls()),
        "gpu_events": lambda: to_arrow(_gpu_events(trace)),
        "regions": lambda: to_arrow(trace.regions()),
        "region_instances": lambda: to_arrow(trace.region_instances(), row="instance"),
        "operators": lambda: to_arrow(trace.operators()),
        "threads": lambda: _threads(trace.columns),
    }
    return {table.name: _in_order(table, sources[table.name]) for table in TRACE_TABLES}


def create_views(connection: duckdb.DuckDBPyConnection, spilled: Spilled) -> None:
    """Make SPILLED_TABLES of a Parquet file of events."""
    import pyarrow as pa

    columns = spilled.trace.columns
    texts = {"name": columns.names, "category": columns.categories}
    texts |= {f"extra.{name}": text.values for name, text in columns.extra.items()}
    joins, chosen = [], {"event": "p.file_row_number"}
    for number, (column, values) in enumerate(texts.items()):
        labels = pa.array(values, pa.string())
        connection.register(
            f"_texts{number}", pa.table({"code": pa.array(range(len(values)), pa.int32()), "text": labels})
        )
        code = f"columns.{column}" + (".codes" if column.startswith("extra.") else "")
        joins.append(f'JOIN _texts{number} t{number} ON t{number}.code = p."{_doubled(code)}"')
        chosen[column.removeprefix("extra.")] = f"t{number}.text"
    chosen |= {name: f'p."columns.{name}"' for name in ("thread", "start_ns", "dur_ns")}
    chosen["end_ns"] = 'p."columns.start_ns" + p."columns.dur_ns"'
    chosen |= {name: f'p."columns.integers.{name}"' for name in columns.integers}
    events = SPILLED_TABLES[0].columns
    order = [*events, *(name for name in chosen if name not in events)]
    select = ", ".join(f'{chosen[name]} AS "{_doubled(name)}"' for name in order)
    source = f"read_parquet({quoted(str(spilled.file))}, file_row_number = true)"
    connection.execute(f"CREATE VIEW events AS SELECT {select} FROM {source} p {' '.join(joins)}")
    for table, wanted in ((SPILLED_TABLES[1], is_launch), (SPILLED_TABLES[2], is_gpu_work)):
        names = ", ".join(quoted(name) for name in columns.categories if wanted(name)) or "NULL"
        shown = ", ".join(table.columns)
        connection.execute(f"CREATE VIEW {table.name} AS SELECT {shown} FROM events WHERE category IN ({names})")
    connection.register("threads", _threads(columns))


def quoted(text: str) -> str:
    """A string literal of SQL."""
    doubled = text.replace("'", "''")
    return f"'{doubled}'"


def _doubled(name: str) -> str:
    return name.replace('"', '""')


def snapshot_sources(snapshot: Snapshot) -> dict[str, Source]:
    """How to fill each of SNAPSHOT_TABLES."""
    sources: dict[str, Source] = {
        "allocations": lambda: to_arrow(snapshot.allocations(), row="allocation"),
        "allocator_events": lambda: to_arrow(snapshot.events, row="event"),
        "memory_regions": lambda: to_arrow(snapshot.regions()),
        "memory_segments": lambda: to_arrow(_numbered_segments(snapshot)),
        "memory_blocks": lambda: to_arrow(snapshot.block_spans()),
        "memory_fragmentation": lambda: to_arrow(snapshot.fragmentation()),
        "stacks": lambda: _stacks(snapshot),
    }
    return {table.name: _in_order(table, sources[table.name]) for table in SNAPSHOT_TABLES}


def _numbered_segments(snapshot: Snapshot) -> pd.DataFrame:
    frame = snapshot.segment_spans()
    return frame.assign(segment=frame.groupby("device").cumcount())


def _in_order(table: Table, source: Source) -> Source:
    """The columns as documented, those of further arguments after them."""

    def fill() -> pa.Table:
        filled = source()
        return filled.select([*table.columns, *(c for c in filled.column_names if c not in table.columns)])

    return fill


def to_arrow(frame: pd.DataFrame, *, row: str = "") -> pa.Table:
    """A frame of `schemas` as a table: `row` names a column with the row's number, paths become text and list.

    Where there is start_ns and dur_ns, end_ns comes after them.
    """
    import numpy as np
    import pyarrow as pa

    columns: dict[str, Any] = {row: np.arange(len(frame), dtype=np.int64)} if row else {}
    for name in map(str, frame.columns):
        values = frame[name]
        paths = _path_codes(values)
        if paths is not None:
            columns[name], columns[f"{name}_list"] = _path_columns(*paths)
        elif values.dtype == "category":
            labels = pa.array(values.cat.categories.astype(object), pa.string())
            columns[name] = _coded(values.cat.codes.to_numpy(), labels)
        elif values.dtype == object:
            columns[name] = pa.array(values, pa.string())
        else:
            columns[name] = pa.array(values)
        if name == "dur_ns" and "end_ns" not in frame:
            columns["end_ns"] = (frame["start_ns"] + values).to_numpy()
    return pa.table(columns)


def _path_codes(values: pd.Series[Any]) -> tuple[Any, Sequence[tuple[str, ...]]] | None:
    """Codes and paths of a column of paths; None when it is none."""
    import pandas as pd

    if values.dtype == "category":
        labels = values.cat.categories
        return (values.cat.codes.to_numpy(), list(labels)) if any(isinstance(x, tuple) for x in labels) else None
    if values.name == "path" and values.dtype == object:
        codes, labels = pd.factorize(values)
        return codes, list(labels)
    return None


def _path_columns(codes: Any, paths: Sequence[tuple[str, ...]]) -> tuple[pa.Array, pa.Array]:
    """Text and list of each row; NULL for an empty path (nothing is known)."""
    import pyarrow as pa

    text = pa.array([BETWEEN.join(path) or None for path in paths], pa.string())
    lists = pa.array([list(path) or None for path in paths], pa.list_(pa.string()))
    return _coded(codes, text), lists.take(pa.array(codes, mask=codes < 0))


def _coded(codes: Any, labels: pa.Array) -> pa.Array:
    import pyarrow as pa

    return pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32(), mask=codes < 0), labels)


def _gpu_events(trace: Trace) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    details = trace.kernel_details()

    row = details["event"].to_numpy()
    arguments = {name: trace.columns.integers[name][row] for name in ("correlation", "bytes")}
    missing = {name: values == MISSING for name, values in arguments.items()}
    return details.assign(
        **{
            name: pd.arrays.IntegerArray(np.where(missing[name], 0, values), missing[name])
            for name, values in arguments.items()
        }
    )


def _events(columns: EventColumns) -> pa.Table:
    """The table events, from the columns themselves: a frame of millions of rows would take a second."""
    import numpy as np
    import pyarrow as pa

    def integers(values: npt.NDArray[np.int64]) -> pa.Array:
        missing = values == MISSING
        return pa.nulls(len(values), pa.int64()) if missing.all() else pa.array(values, mask=missing)

    texts = {"name": (columns.name, columns.names), "category": (columns.category, columns.categories)}
    texts |= {name: (text.codes, text.values) for name, text in columns.extra.items()}
    return pa.table(
        {
            "event": np.arange(len(columns), dtype=np.int64),
            **{
                name: pa.DictionaryArray.from_arrays(pa.array(codes), pa.array(labels, pa.string()))
                for name, (codes, labels) in texts.items()
            },
            "thread": columns.thread,
            "start_ns": columns.start_ns,
            "dur_ns": columns.dur_ns,
            "end_ns": columns.start_ns + columns.dur_ns,
            **{name: integers(values) for name, values in columns.integers.items()},
        }
    )


def _threads(columns: EventColumns) -> pa.Table:
    """The table threads, as Trace.threads has it."""
    import pyarrow as pa

    rows = []
    for pid, tid in columns.threads:
        texts = ["" if key == MISSING else str(key) for key in (pid, tid)]
        label = columns.thread_names.get((pid, tid), "") or f"thread {texts[1]}"
        rows.append((*texts, label, columns.process_labels.get(pid, "")))
    data = {name: pa.array([row[n] for row in rows], pa.string()) for n, name in enumerate(_THREAD_TEXTS)}
    return pa.table({"thread": pa.array(range(len(rows)), pa.int32()), **data})


_THREAD_TEXTS: Final = ("pid", "tid", "label", "process")


def _stacks(snapshot: Snapshot) -> pa.Table:
    import pyarrow as pa

    stacks = [[f"{frame.name} ({frame.filename}:{frame.line})" for frame in stack] for stack in snapshot.stacks]
    frames = pa.array(stacks, pa.list_(pa.string()))
    return pa.table({"stack": pa.array(range(len(stacks)), pa.int64()), "frames": frames})
