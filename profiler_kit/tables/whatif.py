"""`profiler-kit whatif TRACE`: what a faster region, shorter gaps or the removal of a kernel would save.

Without options the regions and kernels that take most are tried.
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.replay import WHAT_IF
from profiler_kit.table import Option, Table

TABLES: Final = (
    Table(
        "whatif",
        "trace",
        "what changes would save",
        WHAT_IF,
        lambda trace, region, factor, kernel, gap_us: trace.what_if(
            region=region, factor=factor, kernel=kernel, gap_ns=round(gap_us * 1e3)
        ),
        options=(
            Option("region", None, "Try only this: the region faster, on the GPU and on the host."),
            Option("factor", 2, "How many times as fast a region is assumed to be.", "count"),
            Option("kernel", None, "Try only this: GPU events whose name contains this text removed."),
            Option("gap_us", 10.0, "The longest gap that is kept on a device, in microseconds.", "microseconds"),
        ),
        command="whatif",
        needs_gpu=True,
    ),
)
