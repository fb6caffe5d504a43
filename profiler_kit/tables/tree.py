"""`profiler-kit tree TRACE`: time as a tree of regions, modules, operators and kernels, or of functions.

Python functions need recorded stacks (with_stack=True).
"""

from __future__ import annotations

from typing import Final

from profiler_kit.analyses.gpu.trees import CALL_TREE, PYTHON_CALLERS, PYTHON_TREE
from profiler_kit.table import Empty, Table

TABLES: Final = (
    Table(
        "call_tree",
        "trace",
        "GPU time by region, module, operator and kernel",
        CALL_TREE,
        lambda trace: trace.call_tree(),
        command="tree",
        by="call",
        order=("path", "sum_ns", "gpu_events"),
        share_of="sum_ns",
        tree=True,
        icicle=("sum_ns",),
        top=60,
        needs_gpu=True,
    ),
    Table(
        "python_tree",
        "trace",
        "time in Python functions, from the outside in",
        PYTHON_TREE,
        lambda trace: trace.python_tree(),
        command="tree",
        by="python",
        share_of="host_ns",
        tree=True,
        icicle=("host_ns",),
        top=60,
        empty=Empty("No Python stacks were recorded.", lacks="no stacks", of_host=True),
    ),
    Table(
        "python_callers",
        "trace",
        "time in Python functions, from the inside out",
        PYTHON_CALLERS,
        lambda trace: trace.python_callers(),
        command="tree",
        by="callers",
        share_of="self_ns",
        tree=True,
        icicle=("self_ns",),
        top=60,
        empty=Empty("No Python stacks were recorded.", lacks="no stacks", of_host=True),
    ),
)
