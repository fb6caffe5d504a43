"""`profiler-kit short-kernels TRACE`: which operators and shapes launch kernels too short to be worth it."""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.short_kernels import SHORT_BELOW_NS, SHORT_KERNELS
from profiler_kit.table import Empty, Option, Table

TABLES: Final = (
    Table(
        "short_kernels",
        "trace",
        "short kernels by operator and shapes",
        SHORT_KERNELS,
        lambda trace, below_us: trace.short_kernels(below_ns=round(below_us * 1e3)),
        options=(
            Option(
                "below_us",
                SHORT_BELOW_NS / 1e3,
                "Kernels below this duration count as short, in microseconds.",
                "microseconds",
            ),
        ),
        command="short-kernels",
        top=20,
        needs_gpu=True,
        arguments=("input_dims",),
        empty=Empty("No kernel is that short."),
    ),
)
