"""Group allocations by what the program or the profiler said of them: metadata, category, compile context, annotation.

torch writes `user_metadata` and `compile_context` with every event, `_profile_to_snapshot` a `category`, and an
`annotate` event speaks of the allocation that is live at its address. What was allocated before the history says none.
"""

from __future__ import annotations

from typing import Final, Literal

import numpy as np
import pandas as pd

from profiler_kit.analyses.memory.replay import Ints, Replay
from profiler_kit.analyses.memory.stack_names import BEFORE, stack_name
from profiler_kit.load.snapshot.data import StackTable
from profiler_kit.schema import Column, Schema

By = Literal["stack", "metadata", "category", "compile_context", "annotation"]
MEMORY_GROUPS: Final = Schema(
    "MEMORY_GROUPS",
    "group of allocations, most bytes at the peak first",
    {
        "device": Column("int64"),
        "by": Column("str", "What the allocations are grouped by."),
        "group": Column("str", "What the file says of them; of annotations that came one after the other, all."),
        "peak_count": Column("int64", "Allocations that were live at the peak.", "at the peak", "room"),
        "peak_bytes": Column("int64", "What they held when the total was highest."),
        "end_bytes": Column("int64", "What is live at the end.", "at the end"),
        "count": Column("int64", "Allocations, freed ones included.", "allocations", "room"),
        "allocated_bytes": Column("int64", "What all of them held, freed ones included.", show="room"),
    },
)

MEMORY_NOTES: Final = Schema(
    "MEMORY_NOTES",
    "entry that the program itself wrote into the history (annotate, user_defined), in history order",
    {
        "device": Column("int64"),
        "event": Column("int64", "Row of allocator_events.", show="never"),
        "time_us": Column("int64", show="room"),
        "action": Column(
            "str", "Its kind, annotate: of the allocation at that address; user_defined: of a moment.", "entry"
        ),
        "text": Column("str", "What it says."),
        "address": Column("UInt64", "Of the allocation that was live there then.", show="room"),
        "size_bytes": Column("Int64", "What that allocation holds.", "allocation"),
        "stack": Column("int64", "Row of the table stacks: who made it; 0 is unknown.", "allocated by"),
        "alloc_event": Column("Int64", "Row of allocator_events that made it, if the history holds it.", show="never"),
        "live": Column("boolean", "Whether it is live at the end.", "live at the end", unit="flag"),
    },
)

NONE: Final = "(none)"
UNKNOWN: Final = "(not known)"  # where the history cannot be followed
ANNOTATE: Final = "annotate"
NOTES: Final = (ANNOTATE, "user_defined")
_COLUMNS: Final = {"metadata": "user_metadata", "category": "category", "compile_context": "compile_context"}
KEYS: Final[tuple[By, ...]] = ("metadata", "category", "compile_context", "annotation")
_SAYS_NOTHING: Final = ("", "N/A")


def keys_said(events: pd.DataFrame, device: int) -> list[By]:
    """What the allocations of a device can be grouped by, as its events say of one at least. Takes SNAPSHOT_EVENTS."""
    mine = events[events["device"] == device]
    allocs = mine[mine["action"] == "alloc"]
    found = [key for key in KEYS if key in _COLUMNS and not allocs[_COLUMNS[key]].isin(_SAYS_NOTHING).all()]
    return [*found, "annotation"] if (mine["action"] == ANNOTATE).any() else found


def groups(one: Replay, events: pd.DataFrame, allocations: pd.DataFrame, stacks: StackTable, by: By) -> pd.DataFrame:
    """MEMORY_GROUPS of one device.

    Takes SNAPSHOT_EVENTS and MEMORY_ALLOCATIONS. The groups add up to all that is live at the peak, and at the end.
    """
    mine = allocations[allocations["device"] == one.device]
    alloc = mine["alloc_event"].fillna(-1).to_numpy(np.int64)
    free = mine["free_event"].fillna(np.iinfo(np.int64).max).to_numpy(np.int64)
    peak = int(one.rows[one.peak - 1]) if one.peak else -1
    size = mine["size_bytes"].to_numpy()
    at_peak, at_end = (alloc <= peak) & (free > peak), free == np.iinfo(np.int64).max
    frame = pd.DataFrame(
        {
            "group": _names(events, mine, alloc, stacks, by, BEFORE if one.followed else UNKNOWN),
            "peak_count": at_peak.astype(np.int64),
            "peak_bytes": np.where(at_peak, size, 0),
            "end_bytes": np.where(at_end, size, 0),
            "count": np.ones(len(mine), np.int64),
            "allocated_bytes": size,
        }
    )
    summed = frame.groupby("group", sort=True).sum().reset_index().astype({"group": object})
    summed = summed.assign(device=np.int64(one.device), by=pd.Series([by] * len(summed), dtype=object))
    order = ["peak_bytes", "end_bytes", "allocated_bytes"]
    return MEMORY_GROUPS.check(summed.sort_values(order, ascending=False, kind="stable", ignore_index=True))


def _names(events: pd.DataFrame, mine: pd.DataFrame, alloc: Ints, stacks: StackTable, by: By, before: str) -> pd.Series:
    """The group of each allocation; `before`: that of those of which the history holds no alloc."""
    if by == "stack":
        pairs = list(zip(mine["stack"].tolist(), ((alloc < 0) & (before == BEFORE)).tolist(), strict=True))
        names = {pair: stack_name(stacks[pair[0]], before=pair[1]) for pair in set(pairs)}
        return pd.Series([names[pair] for pair in pairs], dtype=object)
    if by == "annotation":
        said = annotations_of(events, mine)
        return pd.Series([said.get(row, NONE) for row in range(len(mine))], dtype=object)
    texts = events[_COLUMNS[by]].astype(object)
    if not len(texts):
        return pd.Series([before] * len(mine), dtype=object)
    found = texts.to_numpy()[np.maximum(alloc, 0)]
    found = np.where(np.isin(found, _SAYS_NOTHING), NONE, found)
    if by == "category":
        found = np.array([text.replace("_", " ") for text in found], dtype=object)
    return pd.Series(np.where(alloc < 0, before, found), dtype=object)


def said_of(events: pd.DataFrame, mine: pd.DataFrame, keys: list[By]) -> tuple[list[list[tuple[By, str]]], Ints]:
    """What the file says of each allocation of one device: the different answers, and the number of each one's.

    Answer 0 says nothing. Takes SNAPSHOT_EVENTS and MEMORY_ALLOCATIONS.
    """
    answers: dict[tuple[tuple[By, str], ...], int] = {(): 0}
    if not keys:
        return [[]], np.zeros(len(mine), np.int64)
    alloc = mine["alloc_event"].fillna(-1).to_numpy(np.int64)
    notes_of = annotations_of(events, mine)
    columns = [(key, events[_COLUMNS[key]].astype(object).to_numpy()) for key in keys if key in _COLUMNS]
    numbers = np.zeros(len(mine), np.int64)
    for place, event in enumerate(alloc.tolist()):
        said = tuple(
            (key, column[event]) for key, column in columns if event >= 0 and column[event] not in _SAYS_NOTHING
        )
        if place in notes_of:
            said = (*said, ("annotation", notes_of[place]))
        numbers[place] = answers.setdefault(said, len(answers))
    return [list(one) for one in answers], numbers


def annotations_of(events: pd.DataFrame, mine: pd.DataFrame) -> dict[int, str]:
    """What was said of each annotated allocation, by its place in `mine`: different texts in order, "; " between them.

    Takes SNAPSHOT_EVENTS and the MEMORY_ALLOCATIONS of one device.
    """
    rows = np.flatnonzero(
        (events["action"] == ANNOTATE).to_numpy() & np.isin(events["device"], mine["device"].unique())
    )
    place = live_there(events, mine, rows)
    texts: dict[int, dict[str, None]] = {}
    for at, text in zip(place.tolist(), events["user_metadata"].iloc[rows].tolist(), strict=True):
        if at >= 0:
            texts.setdefault(at, {})[text] = None
    return {at: "; ".join(several) for at, several in texts.items()}


def live_there(events: pd.DataFrame, mine: pd.DataFrame, rows: Ints) -> Ints:
    """Place in `mine` of the allocation that was live at the address of each event; -1 for none."""
    # all allocations and asked events by address, then by when: the allocation before each event is the one to check
    count = len(mine)
    address = np.concatenate((mine["address"].to_numpy(np.uint64), events["address"].to_numpy(np.uint64)[rows]))
    when = np.concatenate((mine["alloc_event"].fillna(-1).to_numpy(np.int64), rows))
    free = mine["free_event"].fillna(np.iinfo(np.int64).max).to_numpy(np.int64)
    order = np.lexsort((when, address))
    latest = np.maximum.accumulate(np.where(order < count, np.arange(len(order)), -1))
    before = np.full(len(order), -1, np.int64)
    before[order] = np.where(latest >= 0, order[np.maximum(latest, 0)], -1)
    found = before[count:]
    sound = (found >= 0) & (count > 0)
    same = sound & (address[np.maximum(found, 0)] == address[count:])
    if not count:
        return np.full(len(rows), -1, np.int64)
    result: Ints = np.where(same & (free[np.maximum(found, 0)] > rows), found, -1)
    return result


def notes(events: pd.DataFrame, allocations: pd.DataFrame, device: int) -> pd.DataFrame:
    """MEMORY_NOTES of one device. Takes SNAPSHOT_EVENTS and MEMORY_ALLOCATIONS."""
    rows = np.flatnonzero((events["device"] == device).to_numpy() & events["action"].isin(NOTES).to_numpy())
    mine = allocations[allocations["device"] == device]
    said = events.iloc[rows]
    place = np.where((said["action"] == ANNOTATE).to_numpy(), live_there(events, mine, rows), -1)
    none = place < 0
    of = mine.iloc[np.maximum(place, 0)] if len(mine) else mine.reindex(range(len(rows)))
    frame = pd.DataFrame(
        {
            "device": np.full(len(rows), device, np.int64),
            "event": rows,
            "time_us": said["time_us"].to_numpy(),
            "action": said["action"].astype(object).to_numpy(),
            "text": said["user_metadata"].astype(object).to_numpy(),
            "address": pd.array(said["address"].to_numpy(), dtype="UInt64"),
            "size_bytes": pd.array(of["size_bytes"].fillna(0).to_numpy(np.int64), dtype="Int64"),
            "stack": np.where(none, 0, of["stack"].fillna(0).to_numpy(np.int64)),
            "alloc_event": of["alloc_event"].array.copy(),
            "live": pd.array(of["free_event"].isna().to_numpy(), dtype="boolean"),
        }
    )
    for name in ("address", "size_bytes", "alloc_event", "live"):
        frame.loc[none, name] = pd.NA
    return MEMORY_NOTES.check(frame)
