"""The tables of a memory snapshot, built from the columns a child process hands back (columns -> SnapshotData).

Every column is checked first: lengths, ranges and references must fit, whatever the child that read a hostile pickle
has come to.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.errors import SnapshotFormatError
from profiler_kit.schema import Column, Schema

SNAPSHOT_EVENTS: Final = Schema(
    "SNAPSHOT_EVENTS",
    "entry of a device's allocator history, in history order",
    {
        "device": Column("int64"),
        "action": Column("category", "alloc, free_requested, free_completed, segment_alloc, ..., oom, snapshot"),
        "address": Column("uint64"),
        "size_bytes": Column("int64", "requested by the caller, before rounding"),
        "stream": Column("int64"),
        "time_us": Column("int64", "Unix time"),
        "stack": Column("int64", "index into Snapshot.stacks; 0 is the empty stack"),
        "device_free_bytes": Column("Int64", "oom only"),
        "pool": Column("category", 'private pool id, "0,0" the default one; "" before torch 2.13, which says it'),
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
    },
)

SNAPSHOT_ANNOTATIONS: Final = Schema(
    "SNAPSHOT_ANNOTATIONS",
    "start or end of a record_function region, in time order",
    {
        "device": Column("int64"),
        "stage": Column("category", "START, END"),
        "name": Column("str"),
        "time_us": Column("int64"),
    },
)


WANTED: Final = "a CUDA memory snapshot"
CPU: Final = -1  # torch's index of the CPU, the device of a trace's CPU memory
HINT: Final = "Record one with profiler_kit.memory_runner or torch.cuda.memory._dump_snapshot."

Array = npt.NDArray[Any]


class Frame(NamedTuple):
    """One line of a stack."""

    filename: str
    line: int
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
    """What our own recorder says about the recording; a snapshot by anybody else has the defaults.

    source: "cuda", "torch.profiler" (a recording on a CPU, whose device 0 stands for the CPU), or "trace" (the
    `[memory]` events of a chrome trace). max_entries: the
    size of the ring buffer. error: what the recorded function raised.
    """

    source: str = "cuda"
    max_entries: int | None = None
    torch: str | None = None
    error: str | None = None


@dataclass(frozen=True, eq=False)
class SnapshotData:
    """A snapshot as columns: SNAPSHOT_EVENTS, SNAPSHOT_BLOCKS, SNAPSHOT_SEGMENTS, SNAPSHOT_ANNOTATIONS.

    devices: every device the file mentions, also those on which nothing happened.
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


_EVENT_COLUMNS: Final = ("device", "action", "address", "size_bytes", "stream", "time_us", "stack", "pool")
_SEGMENT_COLUMNS: Final = ("device", "address", "total_bytes", "stream", "type", "pool", "expandable")
_BLOCK_COLUMNS: Final = ("segment", "address", "size_bytes", "requested_bytes", "state", "stack")
_ANNOTATION_COLUMNS: Final = ("end", "device", "name", "time_us")


class SnapshotBuilder:
    """Checked columns -> frames. A column that does not fit means that the child was subverted: refuse."""

    def __init__(self, path: Path, head: dict[str, Any], columns: dict[str, Array]) -> None:
        self._path = path
        self._head = head
        self._columns = columns

    def build(self) -> SnapshotData:
        stacks = self._stacks()
        events = self._group("event", _EVENT_COLUMNS)
        self._within("event.stack", len(stacks))
        self._within("event.device", self._head["devices"])
        segments = self._group("segment", _SEGMENT_COLUMNS)
        self._group("block", _BLOCK_COLUMNS)
        self._within("block.stack", len(stacks))
        self._within("block.segment", len(segments["device"]))
        if len(segments["device"]):
            self._within("segment.device", 4096)
        events_frame = self._events(events)
        segments_frame = self._segments(segments)
        named = {int(device) for device in segments_frame["device"].unique()}
        devices = tuple(sorted(named | set(range(self._head["devices"]))))
        return SnapshotData(
            path=str(self._path),
            recording=self._recording(),
            events=events_frame,
            blocks=self._blocks(segments_frame),
            segments=segments_frame,
            annotations=self._annotations(devices),
            stacks=stacks,
            settings=self._head["settings"],
            devices=devices,
        )

    def _group(self, name: str, columns: tuple[str, ...]) -> dict[str, Array]:
        group = {column: self._column(f"{name}.{column}") for column in columns}
        if len({len(column) for column in group.values()}) != 1:
            raise self._broken(name)
        return group

    def _column(self, name: str) -> Array:
        if name not in self._columns:
            raise self._broken(name)
        return self._columns[name]

    def _within(self, name: str, count: int) -> None:
        column = self._column(name)
        if len(column) and not (column.min() >= 0 and column.max() < count):
            raise self._broken(name)

    def _broken(self, name: str) -> SnapshotFormatError:
        return SnapshotFormatError(f"{self._path}: its {name} columns do not fit together, want {WANTED}. {HINT}")

    def _texts(self, name: str) -> list[str]:
        return [text.encode("utf-8", "replace").decode() for text in self._head[name]]

    def _category(self, column: str, name: str) -> pd.Categorical:
        texts = self._texts(name)
        self._within(column, len(texts))
        codes: Any = self._column(column)
        if len(set(texts)) < len(texts):  # names that differ only in what UTF-8 cannot say
            return pd.Categorical(np.array(texts, dtype=object)[codes])
        return pd.Categorical.from_codes(codes, categories=pd.Index(texts, dtype=object))

    def _stacks(self) -> StackTable:
        strings = self._texts("strings")
        flat, ends, table = self._column("stack_frames"), self._column("stack_ends"), self._column("frames")
        sound = len(ends) > 0 and ends[0] == 0 and bool((np.diff(ends) >= 0).all()) and ends[-1] == len(flat)
        if not sound or len(table) % 3:
            raise self._broken("stack")
        rows = table.reshape(-1, 3)
        if len(rows) and not (rows[:, [0, 2]].min() >= 0 and rows[:, [0, 2]].max() < len(strings)):
            raise self._broken("frame")
        self._within("stack_frames", len(rows))
        frames = tuple(Frame(strings[file], line, strings[name]) for file, line, name in rows.tolist())
        return StackTable(ends, flat, frames)

    def _events(self, events: dict[str, Array]) -> pd.DataFrame:
        count = len(events["device"])
        free, missing = np.zeros(count, np.int64), np.ones(count, np.bool_)
        self._within("free.row", count)
        rows, values = self._column("free.row"), self._column("free.bytes")
        if len(rows) != len(values):
            raise self._broken("oom")
        free[rows], missing[rows] = values, False
        frame = pd.DataFrame(
            {
                "device": events["device"].astype(np.int64),
                "action": self._category("event.action", "actions"),
                "address": events["address"],
                "size_bytes": events["size_bytes"],
                "stream": events["stream"],
                "time_us": events["time_us"],
                "stack": events["stack"].astype(np.int64),
                "device_free_bytes": pd.arrays.IntegerArray(free, missing),
                "pool": self._category("event.pool", "pools"),
            },
            copy=False,
        )
        return SNAPSHOT_EVENTS.check(frame)

    def _segments(self, segments: dict[str, Array]) -> pd.DataFrame:
        frame = pd.DataFrame(
            {
                "device": segments["device"],
                "address": segments["address"],
                "total_bytes": segments["total_bytes"],
                "stream": segments["stream"],
                "segment_type": self._category("segment.type", "states").astype(object),
                "pool": self._category("segment.pool", "pools").astype(object),
                "expandable": segments["expandable"] != 0,
            }
        )
        return SNAPSHOT_SEGMENTS.check(frame)

    def _blocks(self, segments: pd.DataFrame) -> pd.DataFrame:
        owner = self._column("block.segment")
        frame = pd.DataFrame(
            {
                "device": segments["device"].to_numpy()[owner],
                "segment": segments["address"].to_numpy()[owner],
                "address": self._column("block.address"),
                "size_bytes": self._column("block.size_bytes"),
                "requested_bytes": self._column("block.requested_bytes"),
                "state": self._category("block.state", "states"),
                "stream": segments["stream"].to_numpy()[owner],
                "stack": self._column("block.stack").astype(np.int64),
            }
        )
        return SNAPSHOT_BLOCKS.check(frame)

    def _annotations(self, devices: tuple[int, ...]) -> pd.DataFrame:
        """In time order; one that names no device (-1) counts for every device."""
        group = self._group("annotation", _ANNOTATION_COLUMNS)
        names = self._texts("names")
        self._within("annotation.name", len(names))
        frame = pd.DataFrame(
            {
                "device": group["device"],
                "stage": self._stages(group["end"]),
                "name": np.array([*names, ""], dtype=object)[group["name"]],
                "time_us": group["time_us"],
            }
        )
        every = frame["device"] < 0
        if every.any():
            copies = [frame[every].assign(device=np.int64(device)) for device in devices]
            frame = pd.concat([frame[~every], *copies]).sort_index(kind="stable")
        frame = frame.sort_values("time_us", kind="stable", ignore_index=True)
        return SNAPSHOT_ANNOTATIONS.check(frame)

    @staticmethod
    def _stages(ends: Array) -> pd.Categorical:
        codes: Any = (ends != 0).astype(np.int8)
        return pd.Categorical.from_codes(codes, categories=pd.Index(["START", "END"], dtype=object))

    def _recording(self) -> Recording:
        kit = self._head["kit"]

        def text(key: str) -> str | None:
            value = kit.get(key)
            return value.encode("utf-8", "replace").decode() if isinstance(value, str) and value else None

        entries = kit.get("max_entries")
        known = isinstance(entries, int) and not isinstance(entries, bool) and entries > 0
        return Recording(text("source") or "cuda", entries if known else None, text("torch"), text("error"))
