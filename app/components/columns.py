"""What each table column means: shown on hover, with one format per unit so that numbers line up."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

_ROW_PX = 35
_NUMBER_PX = 68
_TEXT_PX: dict[str, Any] = {
    "region": 190, "kernel": 330, "operator": 240, "category": 90, "full_name": "large", "where": "large",
}  # fmt: skip
_TEXT = {
    "colour": ("", "The colour of this region on every page."),
    "region": ("Region", "A record_function block; nested regions are indented under the one around them."),
    "kernel": ("Kernel", "GPU kernel, memory copy or memory set; the last column has its full name."),
    "full_name": ("Full name", "The name as the compiler wrote it, with all template arguments."),
    "operator": ("Operator", "A PyTorch operator on the host."),
    "category": ("Kind", "kernel, gpu_memcpy or gpu_memset."),
    "where": ("Allocated by", "The innermost Python frame of the stack that allocated it."),
}
_NUMBERS = {
    "busy_ms": ("Busy ms", "%,.3f", "Time in which at least one of its kernels ran (overlaps counted once)."),
    "sum_ms": ("Sum ms", "%,.3f", "All its durations added up; above busy when several ran at once."),
    "self_sum_ms": ("Self ms", "%,.3f", "Sum of what it launched itself, outside nested regions."),
    "span_ms": ("Span ms", "%,.3f", "Last end minus first start of what it launched, added over its instances."),
    "host_ms": ("Host ms", "%,.3f", "Time the Python thread spent inside the region."),
    "self_ms": ("Self ms", "%,.3f", "Host time inside it, less the operators it calls."),
    "mean_us": ("Mean µs", "%,.2f", "Average duration."),
    "min_us": ("Min µs", "%,.2f", "Shortest."),
    "max_us": ("Max µs", "%,.2f", "Longest."),
    "launches": (
        "Launches",
        "%,d",
        "Kernel, copy and graph launches made inside it. One graph launch, many kernels.",
    ),
    "gpu_events": ("Events", "%,d", "Kernels, memory copies and memory sets it launched."),
    "instances": ("Times", "%,d", "How often the region was entered."),
    "count": ("Count", "%,d", "How often."),
    "stream": ("Stream", "%,d", "CUDA stream; work on one stream runs in order."),
    "device": ("GPU", "%,d", "Device number."),
    "peak_mib": ("Peak MiB", "%,.1f", "Highest allocated total of the device while the region was open."),
    "allocated_mib": ("Allocated MiB", "%,.1f", "Allocated while it was open."),
    "freed_mib": ("Freed MiB", "%,.1f", "Freed while it was open."),
    "net_mib": ("Net MiB", "%,.1f", "Allocated less freed: what it left behind."),
    "size_mib": ("Live MiB", "%,.1f", "Held by tensors allocated there."),
}
_SHARE = "Of the whole: the top-level regions, all kernels, or all operators of this table."


def explained(frame: pd.DataFrame) -> dict[str, Any]:
    """The column configuration of a table from views/tables.py."""
    return {str(name): _column(str(name)) for name in frame.columns}


def height(rows: int, most: int) -> int:
    """Pixels for that many rows, at most `most`; the header is one."""
    return _ROW_PX * (min(max(rows, 1), most) + 1) + 3


def _column(name: str) -> Any:
    if name == "colour":
        return st.column_config.ImageColumn("", width=28, help=_TEXT[name][1])
    if name == "share":
        return st.column_config.ProgressColumn(
            "Share", format="%.1f %%", min_value=0.0, max_value=100.0, help=_SHARE, width=100
        )
    if name in _NUMBERS:
        title, shape, meaning = _NUMBERS[name]
        return st.column_config.NumberColumn(title, format=shape, help=meaning, width=_NUMBER_PX)
    title, help_text = _TEXT[name]
    return st.column_config.TextColumn(title, help=help_text, width=_TEXT_PX[name])
