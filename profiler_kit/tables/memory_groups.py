"""What the file itself says of allocations: groups by it, and what the program wrote into the history."""

from __future__ import annotations

from typing import Final, cast

import pandas as pd

from profiler_kit.analyses.memory.groups import KEYS, MEMORY_GROUPS, MEMORY_NOTES, By
from profiler_kit.snapshot import Snapshot
from profiler_kit.table import Option, Table
from profiler_kit.tables.memory import DEVICE, each_device, stack_texts

BY: Final = Option(
    "by",
    None,
    "What a group is: allocations of one stack, metadata, category, compile_context or annotation; what the file says "
    "when left out, and stack where it says nothing.",
    "choice",
    ("stack", *KEYS),
    suggest="metadata",
)


def _groups(snapshot: Snapshot, device: int, by: str | None) -> pd.DataFrame:
    keys = [cast(By, by)] if by else snapshot.keys_said(device) or ["stack"]
    return pd.concat([snapshot.groups(device, key) for key in keys], ignore_index=True)


TABLES: Final = (
    Table(
        "memory_groups",
        "snapshot",
        "memory by what the file says of it",
        MEMORY_GROUPS,
        each_device(MEMORY_GROUPS, _groups),
        (DEVICE, BY),
        "memory",
        key="groups",
        order=("group", "by", "device", "peak_count", "peak_bytes", "end_bytes"),
    ),
    Table(
        "memory_notes",
        "snapshot",
        "what the program wrote into the history",
        MEMORY_NOTES,
        each_device(MEMORY_NOTES, lambda snapshot, device: snapshot.notes(device)),
        (DEVICE,),
        "memory",
        key="notes",
        order=("text", "action", "device", "size_bytes", "stack"),
        texts=stack_texts,
    ),
)
