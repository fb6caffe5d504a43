"""`profiler-kit graphs TRACE`: which CUDA graphs are replayed, and for which of their kernels the operator is known.

A replay launches its kernels without operators. They are known where the trace holds the capture of the graph, or
--captures names a trace that does, or one in which the same kernels were launched without a graph.
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.replayed_graphs import REPLAYED_GRAPHS
from profiler_kit.table import Empty, Table

TABLES: Final = (
    Table(
        "replayed_graphs",
        "trace",
        "CUDA graphs that are replayed",
        REPLAYED_GRAPHS,
        lambda trace: trace.replayed_graphs(),
        command="graphs",
        top=20,
        needs_gpu=True,
        empty=Empty("No CUDA graph was replayed."),
    ),
)
