"""The tables of a memory snapshot, built from the columns that a child process hands back.

Every column is checked first: lengths, ranges and references must fit, since a hostile pickle may have taken over the
child that read it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from profiler_kit.errors import SnapshotFormatError
from profiler_kit.load.snapshot.unpickle_child import UNSAID
from profiler_kit.schema import Column, Schema

if TYPE_CHECKING:
    import pandas as pd

SNAPSHOT_EVENTS: Final = Schema(
    "SNAPSHOT_EVENTS",
    "entry of a device's allocator history, in history order",
    {
        "device": Column("int64"),
        "action": Column("category", "What happened: alloc, free_requested, free_completed, oom and others."),
        "address": Column("uint64"),
        "size_bytes": Column("int64", "Bytes requested by the caller, before rounding."),
        "stream": Column("int64"),
        "time_us": Column("int64"),
        "stack": Column("int64", "Row of the table stacks; 0 is unknown.", "called by"),
        "device_free_bytes": Column("Int64", "Of an oom: free on the device as the driver sees it."),
        "pool": Column("category", 'Private pool id, "0,0" the default one; "" before torch 2.13, which says it.'),
        "user_metadata": Column("category", "What the program said with the event; of annotate, of its address."),
        "compile_context": Column("category", "Frame and recompilation of torch.compile (0/1); N/A outside."),
        "category": Column(
            "category", 'What the tensor is, as torch.profiler found: parameter, gradient and others; "".'
        ),
    },
)

SNAPSHOT_BLOCKS: Final = Schema(
    "SNAPSHOT_BLOCKS",
    "block of every segment at the moment of the snapshot",
    {
        "device": Column("int64"),
        "segment": Column("uint64", "address of the segment"),
        "address": Column("uint64"),
        "size_bytes": Column("int64", "rounded by the allocator"),
        "requested_bytes": Column("int64"),
        "state": Column("category", "active_allocated, active_pending_free, inactive"),
        "stream": Column("int64"),
        "stack": Column("int64"),
    },
)

SNAPSHOT_SEGMENTS: Final = Schema(
    "SNAPSHOT_SEGMENTS",
    "segment reserved from the driver at the moment of the snapshot",
    {
        "device": Column("int64"),
        "address": Column("uint64"),
        "total_bytes": Column("int64"),
        "stream": Column("int64"),
        "segment_type": Column("str", "small, large"),
        "pool": Column("str", 'private pool id, "0,0" for the default one'),
        "expandable": Column("bool"),
        "allocated_bytes": Column("Int64", "What the segment itself says of its blocks; -1: what is no size."),
        "active_bytes": Column("Int64", "Likewise."),
        "requested_bytes": Column("Int64", "Likewise."),
    },
)

SNAPSHOT_ANNOTATIONS: Final = Schema(
    "SNAPSHOT_ANNOTATIONS",
    "start or end of a record_function region, in time order",
    {
        "device": Column("Int64", "As the file says; missing where it says none."),
        "stage": Column("category", "START, END"),
        "name": Column("str"),
        "time_us": Column("int64"),
    },
)


WANTED: Final = "a CUDA memory snapshot"
CPU: Final = -1  # torch's index of the CPU, the device of a trace's CPU memory
HOST: Final = -2  # the device of pinned host memory, which torch's own host allocator holds
HINT: Final = "Record one with profiler_kit.memory_runner or torch.cuda.memory._dump_snapshot."

Array = npt.NDArray[Any]


class Frame(NamedTuple):
    """One line of a stack; line: None where it is not known."""

    filename: str
    line: int | None
    name: str


@dataclass(frozen=True, eq=False)
class StackTable:
    """Stacks by number, each a run of frame numbers, innermost first; stack 0 is the empty one.

    `frame_numbers[ends[i - 1]:ends[i]]` are the frames of stack i (`ends[0]` is 0).
    """

    ends: npt.NDArray[np.int64]
    frame_numbers: npt.NDArray[np.int32]
    frames: tuple[Frame, ...]

    def __len__(self) -> int:
        return len(self.ends)

    def __iter__(self) -> Iterator[tuple[Frame, ...]]:
        return (self[number] for number in range(len(self)))

    def __getitem__(self, number: int) -> tuple[Frame, ...]:
        if not 0 <= number < len(self.ends):
            raise IndexError(f"stack {number} of {len(self.ends)}")
        return tuple(self.frames[i] for i in self.numbers_of(number))

    def numbers_of(self, number: int) -> npt.NDArray[np.int32]:
        """Frame numbers of one stack, innermost first."""
        start = self.ends[number - 1] if number else 0
        return self.frame_numbers[start : self.ends[number]]


@dataclass(frozen=True, eq=False)
class Recording:
    """What our own recorder says about the recording; any other snapshot has the defaults.

    source: "cuda", "torch.profiler" (a recording on a CPU, whose device 0 means the CPU), or "trace" (the
    `[memory]` events of a chrome trace). max_entries: the size of the ring buffer. error: what the recorded function
    raised.
    """

    source: str = "cuda"
    max_entries: int | None = None
    torch: str | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class SnapshotData:
    """A snapshot as columns: SNAPSHOT_EVENTS, SNAPSHOT_BLOCKS, SNAPSHOT_SEGMENTS, SNAPSHOT_ANNOTATIONS.

    devices: every device the file mentions, also those on which nothing happened. odd_annotations: how many of the
    file's annotations neither start nor end a region, or not at a time the events could have.
    """

    path: str
    recording: Recording
    events: pd.DataFrame
    blocks: pd.DataFrame
    segments: pd.DataFrame
    annotations: pd.DataFrame
    stacks: StackTable
    settings: Mapping[str, object] = field(default_factory=dict)
    devices: tuple[int, ...] = ()
    odd_annotations: int = 0


EVENT_TEXTS: Final = ("user_metadata", "compile_context", "category")  # what events say of what they allocate
OWN_SIZES: Final = ("allocated_bytes", "active_bytes", "requested_bytes")  # what segments say of themselves
_GROUPS: Final = {
    "event": ("device", "action", "address", "size_bytes", "stream", "time_us", "stack", "pool", *EVENT_TEXTS),
    "segment": ("device", "address", "total_bytes", "stream", "type", "pool", "expandable", *OWN_SIZES),
    "block": ("segment", "address", "size_bytes", "requested_bytes", "state", "stack"),
    "annotation": ("end", "device", "name", "time_us"),
}
_MOST_DEVICES: Final = 128
_TEN_YEARS_US: Final = 10 * 365 * 86_400 * 1_000_000


class SnapshotBuilder:
    """Checks the columns and builds the frames; refuses columns that do not fit, which no honest child hands back."""

    def __init__(self, path: Path, head: dict[str, Any], columns: dict[str, Array]) -> None:
        self._path = path
        self._head = head
        self._columns = columns

    def build(self) -> SnapshotData:
        """The snapshot; raises SnapshotFormatError."""
        stacks = self._stacks()
        timed = self._group("event")
        known = timed["time_us"][timed["time_us"] > 0]
        middle = int(np.partition(known, len(known) // 2)[len(known) // 2]) if len(known) else None
        timed["time_us"] = np.where(_near(timed["time_us"], middle), timed["time_us"], 0)
        events = self._events(timed, len(stacks))
        annotations = self._annotations(self._group("annotation"), middle)
        segments = self._segments(self._group("segment"))
        found = {*events["device"].unique().tolist(), *segments["device"].unique().tolist()}
        devices = sorted({*range(self._head["devices"]), *found} - {HOST}) + [HOST] * (HOST in found)
        return SnapshotData(
            path=str(self._path),
            recording=self._recording(),
            events=events,
            blocks=self._blocks(self._group("block"), segments, len(stacks)),
            segments=segments,
            annotations=annotations,
            stacks=stacks,
            settings=self._head["settings"],
            devices=tuple(devices),
            odd_annotations=int(self._head["odd_annotations"])
            + len(self._column("annotation.time_us"))
            - len(annotations),
        )

    def _group(self, name: str) -> dict[str, Array]:
        """The columns of one table, which must be of one length."""
        group = {column: self._column(f"{name}.{column}") for column in _GROUPS[name]}
        if len({len(column) for column in group.values()}) != 1:
            raise self._broken(name)
        return group

    def _column(self, name: str) -> Array:
        if name not in self._columns:
            raise self._broken(name)
        return self._columns[name]

    def _within(self, name: str, count: int) -> Array:
        """A column of references, all of which must be from 0 to `count` - 1."""
        column = self._column(name)
        if len(column) and not (column.min() >= 0 and column.max() < count):
            raise self._broken(name)
        return column

    def _check_devices(self, name: str, count: int) -> None:
        column = self._column(name)
        if not bool((((column >= 0) & (column < count)) | (column == HOST)).all()):
            raise self._broken(name)

    def _broken(self, name: str) -> SnapshotFormatError:
        return SnapshotFormatError(f"{self._path}: its {name} columns do not fit together, expected {WANTED}. {HINT}")

    def _texts(self, name: str) -> list[str]:
        return [text.encode("utf-8", "replace").decode() for text in self._head[name]]

    def _category(self, column: str, name: str) -> pd.Categorical:
        texts = self._texts(name)
        return _coded(self._within(column, len(texts)), texts)

    def _stacks(self) -> StackTable:
        strings = self._texts("strings")
        flat, ends, table = self._column("stack_frames"), self._column("stack_ends"), self._column("frames")
        # stack 0 is empty, each other one begins where the one before it ends, and the last one takes the rest
        sound = len(ends) > 0 and ends[0] == 0 and bool((np.diff(ends) >= 0).all()) and ends[-1] == len(flat)
        if not sound or len(table) % 3:
            raise self._broken("stack")
        rows = table.reshape(-1, 3)  # file, line and function of each frame
        if len(rows) and not (rows[:, [0, 2]].min() >= 0 and rows[:, [0, 2]].max() < len(strings)):
            raise self._broken("frame")
        self._within("stack_frames", len(rows))
        lines = [None if line < 0 else line for line in rows[:, 1].tolist()]
        files, names = ([strings[number] for number in rows[:, part].tolist()] for part in (0, 2))
        frames = tuple(map(Frame, files, lines, names))
        return StackTable(ends, flat, frames)

    def _events(self, group: dict[str, Array], stacks: int) -> pd.DataFrame:
        import pandas as pd

        count = len(group["device"])
        self._check_devices("event.device", self._head["devices"])
        # free memory is known of a few events only (oom): a value and "not missing" in their rows
        free, missing = np.zeros(count, np.int64), np.ones(count, np.bool_)
        rows, values = self._within("free.row", count), self._column("free.bytes")
        if len(rows) != len(values):
            raise self._broken("oom")
        free[rows], missing[rows] = values, False
        columns = {
            **group,
            "device": group["device"].astype(np.int64),
            "action": self._category("event.action", "actions"),
            "stack": self._within("event.stack", stacks).astype(np.int64),
            "device_free_bytes": pd.arrays.IntegerArray(free, missing),
            "pool": self._category("event.pool", "pools"),
            **{name: self._category(f"event.{name}", name) for name in EVENT_TEXTS},
        }
        return _frame(SNAPSHOT_EVENTS, columns)

    def _segments(self, group: dict[str, Array]) -> pd.DataFrame:
        import pandas as pd

        self._check_devices("segment.device", _MOST_DEVICES)
        columns = {
            **group,
            "segment_type": self._category("segment.type", "states").astype(object),
            "pool": self._category("segment.pool", "pools").astype(object),
            "expandable": group["expandable"] != 0,
            **{name: pd.arrays.IntegerArray(group[name], group[name] == UNSAID) for name in OWN_SIZES},
        }
        return _frame(SNAPSHOT_SEGMENTS, columns)

    def _blocks(self, group: dict[str, Array], segments: pd.DataFrame, stacks: int) -> pd.DataFrame:
        owner = segments.iloc[self._within("block.segment", len(segments))]  # the segment of each block
        columns = {
            **group,
            "device": owner["device"].to_numpy(),
            "segment": owner["address"].to_numpy(),
            "state": self._category("block.state", "states"),
            "stream": owner["stream"].to_numpy(),
            "stack": self._within("block.stack", stacks).astype(np.int64),
        }
        return _frame(SNAPSHOT_BLOCKS, columns)

    def _annotations(self, group: dict[str, Array], middle: int | None) -> pd.DataFrame:
        """In time order, those with a time; what happened at once stays in the order of the file."""
        import pandas as pd

        timed = _near(group["time_us"], middle)
        group = {name: column[timed] for name, column in group.items()}
        names = np.array(self._texts("names"), dtype=object)
        code = self._within("annotation.name", len(names))[timed]
        time_us, device = group["time_us"], group["device"]
        row = np.argsort(time_us, kind="stable")
        columns = {
            "device": pd.arrays.IntegerArray(device[row], device[row] == -1),
            "stage": _coded((group["end"][row] != 0).astype(np.int8), ["START", "END"]),
            "name": names[code[row]],
            "time_us": time_us[row],
        }
        return _frame(SNAPSHOT_ANNOTATIONS, columns)

    def _recording(self) -> Recording:
        kit = self._head["kit"]

        def text(key: str) -> str | None:
            value = kit.get(key)
            return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None

        entries = kit.get("max_entries")
        known = isinstance(entries, int) and not isinstance(entries, bool) and entries > 0
        return Recording(text("source") or "cuda", entries if known else None, text("torch"), text("error"))


def _near(time_us: Array, middle: int | None) -> npt.NDArray[np.bool_]:
    """Which times may be true: those after 1970 and, where events have times, within ten years of the middle one."""
    least, most = (0, 2**62) if middle is None else (max(middle - _TEN_YEARS_US, 0), middle + _TEN_YEARS_US)
    return (time_us > least) & (time_us < most)


def _coded(codes: Any, texts: list[str]) -> pd.Categorical:
    import pandas as pd

    if len(set(texts)) < len(texts):  # texts that differ only in what UTF-8 cannot say
        return pd.Categorical(np.array(texts, dtype=object)[codes])
    return pd.Categorical.from_codes(codes, categories=pd.Index(texts, dtype=object))


def _frame(schema: Schema, columns: Mapping[str, Any]) -> pd.DataFrame:
    import pandas as pd

    return schema.check(pd.DataFrame({name: columns[name] for name in schema.columns}, copy=False))
