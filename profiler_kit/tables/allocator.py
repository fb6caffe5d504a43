"""The allocator's history of a memory snapshot as it was recorded: the tables that a query joins."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd

from profiler_kit.analyses.memory.blocks import MEMORY_BLOCK_SPANS, MEMORY_SEGMENT_SPANS
from profiler_kit.analyses.memory.replay import MEMORY_ALLOCATIONS
from profiler_kit.analyses.memory.stack_names import frame_text
from profiler_kit.load.snapshot.data import SNAPSHOT_EVENTS
from profiler_kit.schema import Column, Schema
from profiler_kit.table import Table

STACKS: Final = Schema(
    "STACKS", "distinct stack", {"frames": Column("list", "Function (file:line), the innermost first.")}
)


def stacks_frame(stacks: Any) -> pd.DataFrame:
    """STACKS of a snapshot."""
    frames = [[frame_text(frame) for frame in stack] for stack in stacks]
    return pd.DataFrame({"frames": pd.Series(frames, dtype=object)})


TABLES: Final = (
    Table(
        "allocations",
        "snapshot",
        "allocations",
        MEMORY_ALLOCATIONS,
        lambda snapshot: snapshot.allocations(),
        row="allocation",
    ),
    Table(
        "allocator_events",
        "snapshot",
        "allocator events",
        SNAPSHOT_EVENTS,
        lambda snapshot: snapshot.events,
        row="event",
    ),
    Table("memory_segments", "snapshot", "segments", MEMORY_SEGMENT_SPANS, lambda snapshot: snapshot.segment_spans()),
    Table("memory_blocks", "snapshot", "blocks", MEMORY_BLOCK_SPANS, lambda snapshot: snapshot.block_spans()),
    Table("stacks", "snapshot", "stacks", STACKS, lambda snapshot: stacks_frame(snapshot.stacks), row="stack"),
)
