"""`profiler-kit compiled TRACE`: what torch.compile compiled and recompiled, its graph breaks and its Triton kernels.

Graph breaks and where a kernel was launched need recorded stacks (with_stack=True).
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.compiled import COMPILED_REGIONS, FILE, GRAPH_BREAKS, TRITON_KERNELS
from profiler_kit.table import Empty, Table

TABLES: Final = (
    Table(
        "compiled_regions",
        "trace",
        "compiled functions",
        COMPILED_REGIONS,
        lambda trace: trace.compiled_regions(),
        command="compiled",
        by="region",
        host=("frame", "recompile", "calls", "host_ns", "own_ns", "compile_ns"),
        empty=Empty(
            "No call of a function that torch.compile compiled is numbered in this trace; torch 2.5 and later number "
            "them.",
            of_host=True,
        ),
    ),
    Table(
        "triton_kernels",
        "trace",
        "Triton kernels and their source",
        TRITON_KERNELS,
        lambda trace: trace.triton_kernels(),
        command="compiled",
        by="kernel",
        order=("name", "sum_ns", "count", "file", "called_from"),
        share_of="sum_ns",
        top=30,
        needs_gpu=True,
        arguments=(FILE,),
        empty=Empty("No Triton kernel ran."),
    ),
    Table(
        "graph_breaks",
        "trace",
        "graph breaks",
        GRAPH_BREAKS,
        lambda trace: trace.graph_breaks(),
        command="compiled",
        by="break",
        host=("file", "function", "line", "calls", "host_ns"),
        empty=Empty("No graph break was recorded; they need Python stacks.", lacks="no stacks", of_host=True),
    ),
)
