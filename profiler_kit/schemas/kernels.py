"""Frames of kernels seen by name, kind or stream, and of where they were launched."""

from __future__ import annotations

from typing import Final

from profiler_kit.schemas.schema import Schema

KERNEL_GROUPS: Final = Schema(
    "KERNEL_GROUPS",  # one row per name, kind or stream, longest sum first
    {
        "key": "str",
        "count": "int64",
        "sum_ns": "int64",
        "mean_ns": "float64",
        "median_ns": "float64",
        "min_ns": "int64",
        "max_ns": "int64",
        "share": "float64",  # of the sum over all GPU events
    },
)

KERNEL_ORIGINS: Final = Schema(
    "KERNEL_ORIGINS",  # one row per region, operator, module class, call and Python function, longest sum first
    {
        "path": "path",  # regions; ("(no region)",) and ("(unlinked)",) included
        "operator": "str",  # innermost; "" when none was open
        "module": "str",  # class of the innermost nn.Module; "" when none was recorded
        "site": "str",  # innermost Python function outside torch, `file.py(line): name`; "" when none was recorded
        "call": "str",  # of the runtime or driver; "" when the launch is not in the trace
        "count": "int64",
        "sum_ns": "int64",
    },
)
