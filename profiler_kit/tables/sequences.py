"""`profiler-kit sequences TRACE`: which kernels often follow one another under one operator: what a fused kernel
could replace.
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.sequences import KERNEL_SEQUENCES
from profiler_kit.table import Empty, Option, Table

LENGTH: Final = Option(
    "length", 3, "Kernels in a row; 0 takes all that one call of the operator launched.", "count", least=0
)
OPERATOR: Final = Option("operator", None, "Only under outermost operators whose name contains this.")

TABLES: Final = (
    Table(
        "kernel_sequences",
        "trace",
        "sequences of kernels",
        KERNEL_SEQUENCES,
        lambda trace, length, operator: trace.kernel_sequences(length=length or None, operator=operator),
        options=(LENGTH, OPERATOR),
        command="sequences",
        order=("kernels", "operator", "count"),
        top=20,
        needs_gpu=True,
        empty=Empty("No operator launched so many kernels in a row.", attempt="--length 2"),
    ),
)
