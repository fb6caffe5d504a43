"""What the file itself says of allocations: groups by it, and what the program wrote into the history."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final, cast

import pandas as pd

from profiler_kit.analyses.memory.groups import KEYS, MEMORY_GROUPS, MEMORY_NOTES, By
from profiler_kit.snapshot import Snapshot
from profiler_kit.table import Option
from profiler_kit.tables.memory import device_texts, per_device, stack_texts

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


def _note_texts(snapshot: Snapshot, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    """The stacks of the allocations, where there is one; addresses as others write them."""
    texts = stack_texts(snapshot, frame)
    known = frame["address"].notna().tolist()
    stacks = [text if is_known else "" for text, is_known in zip(texts["stack"], known, strict=True)]
    addresses = [f"0x{one:x}" if is_known else "" for one, is_known in zip(frame["address"], known, strict=True)]
    return {**texts, "stack": stacks, "address": addresses}


TABLES: Final = (
    per_device(
        "memory_groups",
        "memory by what the file says of it",
        MEMORY_GROUPS,
        _groups,
        BY,
        key="groups",
        order=("group", "by", "device", "peak_count", "peak_bytes", "end_bytes"),
        texts=device_texts,
    ),
    per_device(
        "memory_notes",
        "what the program wrote into the history",
        MEMORY_NOTES,
        lambda snapshot, device: snapshot.notes(device),
        key="notes",
        order=("text", "action", "device", "size_bytes", "stack"),
        texts=_note_texts,
    ),
)
