"""What a frame must look like to cross a module boundary, and what each of its columns means.

A schema is declared beside the function that makes the frame; a table (profiler_kit.tables) lays it out for every
surface. Whatever is said about a column is said here or there, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Literal

from profiler_kit.errors import SchemaError

if TYPE_CHECKING:
    import pandas as pd

Unit = Literal[
    "ns", "us", "unix_us", "bytes", "mib", "share", "change", "bytes_per_s", "per_s", "factor", "score", "count", "id",
    "flag", "text", "json", "path", "kernel",
]  # fmt: skip
Show = Literal["always", "room", "never", "varied"]


@dataclass(frozen=True)
class Column:
    """One column of a frame.

    dtype: a pandas name; "category" is a categorical of strings, "str" an object column of strings, "path" an object
    column of tuples of region names, "paths" the same as a categorical, "list" an object column of anything else.
    meaning: one sentence for hover help and the reference. label: the heading; the name without its unit where empty.
    show: in a table for people always, where there is room, never, or only where its rows differ (JSON, CSV and SQL
    have every column).
    unit: told by the name's suffix and the dtype unless given; "id" is a number that names something, "kernel" the
    long name of a GPU event, "json" text that is JSON, "unix_us" a moment, "change" b / a - 1 (0.05 is 5 % more),
    "score" a share that is read to four decimals. of: shown as its share of that column of the same row. where: shown
    only where that column of the same row is not 0.
    """

    dtype: str
    meaning: str = ""
    label: str = ""
    show: Show = "always"
    unit: Unit | None = None
    of: str = ""
    where: str = ""


@dataclass(frozen=True)
class Schema:
    """Names and columns of a frame, in order. row: what one row is, without "one row per"."""

    name: str
    row: str
    columns: Mapping[str, Column] = field(repr=False)

    def check(self, frame: pd.DataFrame) -> pd.DataFrame:
        """Return `frame` with just these columns in this order; raises SchemaError on a mismatch."""
        missing = [column for column in self.columns if column not in frame.columns]
        if missing:
            raise SchemaError(f"{self.name}: column {missing[0]!r} is missing, found {list(frame.columns)}")
        for name, column in self.columns.items():
            found, expected = str(frame[name].dtype), column.dtype
            if found != _PANDAS.get(expected, expected) and not (
                expected == found == "str"
            ):  # pandas 3 has a str dtype
                raise SchemaError(f"{self.name}: column {name!r} is {found}, expected {expected}")
        if list(frame.columns) == list(self.columns):
            return frame.copy(deep=False)
        return frame[list(self.columns)]

    def dtypes(self) -> dict[str, str]:
        """The pandas dtype of each column."""
        return {name: _PANDAS.get(column.dtype, column.dtype) for name, column in self.columns.items()}

    def empty(self) -> pd.DataFrame:
        """A frame with these columns and no rows."""
        import pandas as pd

        dtypes = self.dtypes()
        return pd.DataFrame({name: pd.Series(dtype=dtype) for name, dtype in dtypes.items()}, columns=list(dtypes))

    def of(self, rows: Iterable[object]) -> pd.DataFrame:
        """The frame of rows: tuples in the order of the columns, or values by their names."""
        import pandas as pd

        return self.cast(pd.DataFrame(list(rows), columns=list(self.columns)))

    def cast(self, frame: pd.DataFrame) -> pd.DataFrame:
        """`frame` with just these columns, each of its dtype; raises SchemaError when one is missing."""
        known = {name: dtype for name, dtype in self.dtypes().items() if name in frame}
        return self.check(frame.astype(known))

    def join(self, frames: Iterable[pd.DataFrame]) -> pd.DataFrame:
        """The rows of `frames`, one after the other; none without a frame."""
        import pandas as pd

        parts = list(frames)
        return self.check(pd.concat(parts, ignore_index=True)) if parts else self.empty()

    def unit(self, name: str) -> Unit:
        """The unit of a column: given, else told by its name and dtype."""
        column = self.columns[name]
        if column.unit is not None:
            return column.unit
        suffix = next((unit for end, unit in _SUFFIXES.items() if name.endswith(end)), None)
        return suffix or ("id" if name in _IDS and column.dtype != "str" else _UNITS.get(column.dtype, "count"))

    def is_moment(self, name: str) -> bool:
        """Whether a column counts from the trace's base time; people read it from the start of the timeline."""
        return self.unit(name) == "ns" and name in _MOMENTS

    def label(self, name: str) -> str:
        """The heading of a column."""
        given = self.columns[name].label or COMMON.get(name, ("", ""))[0]
        if given:
            return given
        end = next((end for end in _SUFFIXES if name.endswith(end) and end.startswith("_")), "")
        return name.removesuffix(end).replace("_", " ")

    def meaning(self, name: str) -> str:
        """What a column means, in one sentence; its own, else what a column of that name always means."""
        return self.columns[name].meaning or COMMON.get(name, ("", ""))[1]


_READ: Final = "; people read it from the start of the timeline"
_MOMENTS: Final = ("start_ns", "end_ns", "time_ns", "gpu_start_ns", "gpu_end_ns", "launch_start_ns", "launch_end_ns")

# Columns that mean the same wherever they are: heading ("" for the name), meaning.
COMMON: Final[Mapping[str, tuple[str, str]]] = {
    "event": ("", "Row of the table events."),
    "name": ("", "The name as the trace writes it."),
    "path": ("region", "The regions (record_function blocks) that are open, outermost first."),
    "category": ("", "Kineto's category: kernel, gpu_memcpy, gpu_memset, cpu_op, cuda_runtime and others."),
    "instance": ("", "Row of the table region_instances."),
    "process": ("", "Process id, as the file writes it; empty where it is not known."),
    "device": ("", "Number of the device; missing where it is not known."),
    "stream": ("", "Number of the stream; work on one stream runs in order."),
    "thread": ("", "Row of the table threads."),
    "start_ns": ("", f"Start, in nanoseconds since the trace's base time{_READ}."),
    "end_ns": ("", f"End, in nanoseconds since the trace's base time{_READ}."),
    "time_ns": ("", f"Nanoseconds since the trace's base time{_READ}."),
    "dur_ns": ("duration", "Duration in nanoseconds."),
    "correlation": ("", "Joins a launch with what it launched."),
    "instances": ("", "How often the region was opened."),
    "gpu_events": ("GPU events", "Kernels, memory copies and memory sets it launched, nested regions included."),
    "count": ("", "How often."),
    "sum_ns": ("", "Durations added up; above busy where several ran at once."),
    "busy_ns": ("", "Time in which at least one of its GPU events ran: the union over all streams."),
    "span_ns": ("", "Last end minus first start of what each instance launched, added up."),
    "self_sum_ns": ("self", "Durations of what was launched with this one as the innermost, added up."),
    "host_ns": ("host", "Time spent inside it on its thread, nested calls included."),
    "self_ns": ("self", "Host time inside it, less the operators it calls."),
    "launches": ("", "Calls that launched GPU work; one launch of a graph starts many kernels."),
    "mean_ns": ("", "Average duration."),
    "median_ns": ("", "Half took less."),
    "q1_ns": ("25 %", "A quarter took less."),
    "q3_ns": ("75 %", "Three quarters took less."),
    "min_ns": ("", "The shortest."),
    "max_ns": ("", "The longest."),
    "gpu_ns": ("GPU", "Durations of the GPU events it launched, added up."),
    "nested_gpu_ns": ("GPU, nested", "The same with the operators called inside it."),
    "nested_gpu_events": (
        "GPU events, nested",
        "GPU events launched in it or in operators called inside it.",
    ),
    "calls": ("", "How often it was called on the host."),
    "share": ("", "Of the whole."),
    "batch_size": ("batch", "Items (images, sequences) in one batch."),
    "time_us": ("time", "Unix time in microseconds."),
    "stack": ("", "Row of the table stacks; 0 is unknown."),
    "address": ("", "Address in device memory."),
    "size_bytes": ("size", "Bytes requested by the caller."),
    "peak_bytes": ("peak", "Highest allocated total of the device while it was open."),
    "allocated_bytes": ("allocated", "Allocated while it was open."),
    "freed_bytes": ("freed", "Freed while it was open."),
    "net_bytes": ("net", "Allocated minus freed: what it left behind."),
    "rank": ("", "Number of the process in the job."),
}

_IDS: Final = frozenset(
    ("event", "launch", "instance", "thread", "device", "stream", "rank", "stack", "address", "correlation", "step",
     "parent", "segment", "allocation", "alloc_event", "free_event", "external_id", "launch_thread", "operator_event",
     "outer_operator_event", "sequence_number", "forward_thread", "python_id", "python_parent_id", "collective", "span")
)  # fmt: skip
_PANDAS: Final = {"str": "object", "path": "object", "paths": "category", "list": "object"}
_SUFFIXES: Final[Mapping[str, Unit]] = {
    "time_us": "unix_us", "bytes_per_s": "bytes_per_s", "_per_s": "per_s", "_ns": "ns", "_us": "us",
    "_bytes": "bytes", "_mib": "mib", "share": "share", "change": "change",
}  # fmt: skip
_UNITS: Final[Mapping[str, Unit]] = {
    "str": "text", "category": "text", "list": "text", "path": "path", "paths": "path", "bool": "flag",
    "float64": "factor", "Float64": "factor",
}  # fmt: skip
