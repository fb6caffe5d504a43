"""How much memory each rank of a job held at most."""

from __future__ import annotations

from typing import Final

from profiler_kit.schema import Column, Schema

RANK_MEMORY: Final = Schema(
    "RANK_MEMORY",
    "rank and device whose memory was recorded, the highest peak first",
    {
        "rank": Column("int64"),
        "device": Column("Int64", "Number of the device; -1 the CPU, -2 pinned memory."),
        "peak_allocated_bytes": Column("Int64", "Highest total held by tensors.", "peak"),
        "of_median": Column("Float64", "Over that of the median rank.", "of median", unit="factor"),
        "peak_reserved_bytes": Column("Int64", "Highest total taken from the driver.", "reserved at most"),
        "end_allocated_bytes": Column("Int64", "Held when the recording ended.", "at the end"),
        "source": Column("str", "A snapshot; a trace with `[memory]` events; else why neither can be read.", "from"),
    },
)
