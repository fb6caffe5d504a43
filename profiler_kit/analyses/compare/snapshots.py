"""Compare two snapshots: totals, regions, and what each stack held at the peak.

A is before, B is after. Devices are matched by number, regions by path, stacks by `stack_key`, which leaves out lines
and folders, so that a stack is found again when the code around it moved. A memory history repeats exactly where the
program does, so noise is not considered.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

import pandas as pd

from profiler_kit.analyses.memory.live import MODULE
from profiler_kit.analyses.memory.replay import Replay
from profiler_kit.analyses.memory.stack_names import HasFrame, is_noise
from profiler_kit.load.snapshot.data import StackTable
from profiler_kit.schema import Column, Schema

MEMORY_COMPARED: Final = Schema(
    "MEMORY_COMPARED",
    "total, region or stack of a device, and run it is compared in",
    {
        "kind": Column("str", "What is compared: total, region or stack.", show="never"),
        "device": Column("int64"),
        "path": Column(
            "path",
            "A total's name (allocated: bytes asked for), a region's path, or a stack's functions, outermost first.",
            "what",
        ),
        "status": Column("str", "The run against A: grew, shrank, same, added, removed.", "is"),
        "a_bytes": Column("Int64", "In A: the total, the peak while the region was open, what the stack held.", "A"),
        "b_bytes": Column("Int64", "The same in the run that is compared with A.", "B"),
        "delta_bytes": Column("int64", "B less A.", "difference", "room"),
        "change": Column("Float64", "How much more (+, ×) or less (-, ÷) than in A; missing where one has none."),
        "a_count": Column("int64", "Instances of a region, allocations of a stack in A.", show="never"),
        "b_count": Column("int64", "The same in the run.", show="never"),
        "a_allocated_bytes": Column("int64", "What one instance of the region allocated in A.", show="never"),
        "b_allocated_bytes": Column("int64", "The same in the run.", show="never"),
        "run": Column("str", "The run that is compared with A: B, C, ..."),
    },
)

Kind = Literal["total", "region", "stack"]
Status = Literal["grew", "shrank", "same", "added", "removed"]
Path = tuple[str, ...]

PEAK: Final = "peak allocated"
TOTALS: Final = (PEAK, "peak reserved", "allocated at the end", "reserved at the end")
NO_STACK: Final = "(no Python stack)"
BEFORE: Final = "(before the recording)"
GATE_SHARE: Final = 0.01  # of the peak: a region below this on both sides fails no threshold
_CALLS: Final = ("_call_impl", "_wrapped_call_impl", "<lambda>")
_NUMBER: Final = re.compile(r"_\d+$")
_COMPILED: Final = re.compile(r"c[a-z0-9]{51}\.py")  # torch/_inductor/codecache.py: named after what it holds
_TEMPLATE: Final = re.compile(r"<[^<>]*>")


class Side(Protocol):
    """What is asked of each snapshot; see Snapshot."""

    @property
    def devices(self) -> tuple[int, ...]: ...
    @property
    def stacks(self) -> StackTable: ...
    def replay(self, device: int) -> Replay: ...
    def regions(self) -> pd.DataFrame: ...
    def live_at_peak(self, device: int) -> pd.DataFrame: ...


@dataclass(frozen=True)
class MemoryChange:
    """One row. path: a region's path, a stack's key (outermost function first), or the name of a total.

    a_bytes, b_bytes: totals as named; of a region the device's peak while it was open; of a stack what it held at the
    peak. None where it does not occur. a_count, b_count: instances of a region, allocations of a stack.
    allocated_bytes of a region: what one instance allocated, on average, in A and B.
    """

    kind: Kind
    device: int
    path: Path
    a_bytes: int | None
    b_bytes: int | None
    a_count: int = 0
    b_count: int = 0
    allocated_bytes: tuple[int, int] = (0, 0)

    @property
    def delta_bytes(self) -> int:
        """B - A."""
        return (self.b_bytes or 0) - (self.a_bytes or 0)

    @property
    def change(self) -> float | None:
        """B / A - 1; None where one of them is missing or A is 0."""
        return self.b_bytes / self.a_bytes - 1 if self.a_bytes and self.b_bytes is not None else None

    @property
    def status(self) -> Status:
        """What became of it."""
        if self.a_bytes is None or self.b_bytes is None:
            return "added" if self.a_bytes is None else "removed"
        return "same" if not self.delta_bytes else "grew" if self.delta_bytes > 0 else "shrank"


@dataclass(frozen=True)
class MemoryComparison:
    """Every row: totals, then regions as a tree, then stacks by the size of the change; device by device."""

    changes: tuple[MemoryChange, ...]

    def of(self, kind: Kind) -> list[MemoryChange]:
        """The rows of one kind."""
        return [row for row in self.changes if row.kind == kind]

    def worst(self, limit: float) -> MemoryChange | None:
        """The total or region that grew most beyond the limit (0.05: 5 %), None when none did.

        A region counts when it reaches 1 % of its device's peak. What is new counts in the totals.
        """
        peak = {row.device: max(row.a_bytes or 0, row.b_bytes or 0) for row in self.of("total") if row.path == (PEAK,)}
        rows = [row for row in self.of("total") if row.path[0].startswith("peak")]
        rows += [
            row for row in self.of("region") if max(row.a_bytes or 0, row.b_bytes or 0) >= GATE_SHARE * peak[row.device]
        ]
        beyond = [row for row in rows if (_growth(row) or 0.0) > limit]
        return max(beyond, key=lambda row: (row.kind == "total", _growth(row) or 0.0), default=None)


def _growth(row: MemoryChange) -> float | None:
    """The change; of a total that was 0 and is not, beyond every limit."""
    if row.kind == "total" and row.a_bytes == 0 and row.b_bytes:
        return float("inf")
    return row.change


def stack_key(frames: Sequence[HasFrame]) -> Path:
    """What a stack is found again by: its functions with their files' names, outermost first.

    Lines, folders, the calls of nn.Module and the interpreter are left out, and repeats that follow each other count
    once. Of a stack with Python in it the C++ frames are left out too; without Python they are kept, less their
    template arguments. Files that torch.compile wrote, named after their contents, are one. A CPU recording's module
    instances (`Linear_3`) lose their number.
    """
    python = [frame for frame in frames if frame.filename.endswith(".py") or frame.name.startswith(MODULE)]
    kept = python or [frame for frame in frames if not is_noise(frame) and "CachingAllocator" not in frame.name]
    key: list[str] = []
    for frame in reversed(kept):
        if frame.name.endswith(_CALLS):
            continue
        file = frame.filename.replace("\\", "/").rsplit("/", 1)[-1]
        file = "compiled code" if _COMPILED.fullmatch(file) else file
        if frame.name.startswith(MODULE):
            name = _NUMBER.sub("", frame.name.removeprefix(MODULE))
        elif python:
            name = f"{frame.name} ({file})"
        else:
            name = _TEMPLATE.sub("", frame.name)
        if not key or key[-1] != name:
            key.append(name)
    return tuple(key) or (NO_STACK,)


def compare_snapshots(a: Side, b: Side) -> MemoryComparison:
    """Compare totals, regions, and what each stack held at the peak."""
    changes: list[MemoryChange] = []
    for device in sorted({*a.devices, *b.devices}):
        sides = [side if device in side.devices else None for side in (a, b)]
        totals = [_totals(side, device) for side in sides]
        changes += [MemoryChange("total", device, (name,), totals[0].get(name), totals[1].get(name)) for name in TOTALS]
        changes += _regions(sides, device)
        a_stacks, b_stacks = (_stacks(side, device) for side in sides)
        rows = []
        for key in dict.fromkeys([*a_stacks, *b_stacks]):
            (a_bytes, a_count), (b_bytes, b_count) = (one.get(key, (None, 0)) for one in (a_stacks, b_stacks))
            rows.append(MemoryChange("stack", device, key, a_bytes, b_bytes, a_count, b_count))
        changes += sorted(rows, key=lambda row: (-abs(row.delta_bytes), row.path))
    return MemoryComparison(tuple(changes))


def memory_compared(comparisons: Mapping[str, MemoryComparison]) -> pd.DataFrame:
    """Every change of every comparison, by letter (B, C, ...), all with the same A -> MEMORY_COMPARED."""
    rows = [
        (
            *(one.kind, one.device, one.path, one.status, one.a_bytes, one.b_bytes, one.delta_bytes, one.change),
            *(one.a_count, one.b_count, *one.allocated_bytes, letter),
        )
        for letter, found in comparisons.items()
        for one in found.changes
    ]
    return MEMORY_COMPARED.of(rows)


def _totals(side: Side | None, device: int) -> dict[str, int]:
    if side is None:
        return {}
    one = side.replay(device)
    if not one.followed and one.reserved_bytes[-1]:  # what was held at the end is no peak
        return {name: int(one.allocated_bytes[-1]) for name in TOTALS[2:3]} | {
            name: int(one.reserved_bytes[-1]) for name in TOTALS[3:]
        }
    values = (one.allocated_bytes.max(), one.reserved_bytes.max(), one.allocated_bytes[-1], one.reserved_bytes[-1])
    return dict(zip(TOTALS, map(int, values), strict=True))


def _regions(sides: list[Side | None], device: int) -> list[MemoryChange]:
    """One row per region path of either side: those of A in order, then what only B has, below its parent."""
    tables = [_region_rows(side, device) for side in sides]
    order = list(tables[0])
    for path in tables[1]:
        if path not in tables[0]:
            family = [number for number, known in enumerate(order) if known[: len(path) - 1] == path[:-1]]
            order.insert(family[-1] + 1 if family and len(path) > 1 else len(order), path)
    rows = []
    for path in order:
        a, b = (table.get(path) for table in tables)
        rows.append(
            MemoryChange(
                "region",
                device,
                path,
                a["peak_bytes"] if a else None,
                b["peak_bytes"] if b else None,
                a["instances"] if a else 0,
                b["instances"] if b else 0,
                (_each(a), _each(b)),
            )
        )
    return rows


def _region_rows(side: Side | None, device: int) -> dict[Path, dict[str, int]]:
    if side is None:
        return {}
    frame = side.regions()
    frame = frame[(frame["device"] == device) & (frame["instances"] > 0)]
    names = ("instances", "peak_bytes", "allocated_bytes")
    values = zip(*(frame[name].tolist() for name in names), strict=True)
    return {path: dict(zip(names, row, strict=True)) for path, row in zip(frame["path"], values, strict=True)}


def _each(row: dict[str, int] | None) -> int:
    return row["allocated_bytes"] // max(row["instances"], 1) if row else 0


def _stacks(side: Side | None, device: int) -> dict[Path, tuple[int, int]]:
    """Bytes and allocations live at the peak by stack key."""
    found: dict[Path, tuple[int, int]] = {}
    if side is None or not side.replay(device).followed:
        return found
    live = side.live_at_peak(device)
    columns = (live[name].tolist() for name in ("stack", "before", "size_bytes", "count"))
    for stack, before, size, count in zip(*columns, strict=True):
        key = stack_key(side.stacks[stack])
        key = (BEFORE,) if before and key == (NO_STACK,) else key
        known = found.get(key, (0, 0))
        found[key] = (known[0] + size, known[1] + count)
    return found
