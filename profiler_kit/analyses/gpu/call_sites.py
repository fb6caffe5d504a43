"""Find which Python function launched each GPU event, in traces recorded with stacks.

torch names a Python function by its file and the line its definition begins at: `sam/workload.py(226): step`.
"""

from __future__ import annotations

import re
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.attribute.launch_context import nest_python
from profiler_kit.attribute.span_forest import ROOT
from profiler_kit.load.trace.columns import EventColumns

I64 = npt.NDArray[np.int64]

# Frames that are not the user's code: torch itself, built-in functions, and nn.Modules (which have a column).
_INNER: Final = re.compile(r"^(?:.*/)?torch/|^<built-in|^<string>|^nn\.Module: |^<frozen")


def call_sites(columns: EventColumns, thread: I64, time: I64) -> list[str]:
    """The innermost Python function outside torch that was open on each thread at each moment.

    Where only functions of torch were open, the innermost of those; "" where no Python function
    was open, or none was recorded.
    """
    nested = nest_python(columns)
    forest = nested.forest
    node = forest.innermost(thread.astype(np.int64), time)
    inner = np.array([bool(_INNER.match(name)) for name in columns.names] or [False], dtype=bool)
    # by node of the forest (0 is ROOT): whether its function is one of _INNER; climb past these from the innermost
    hidden = np.concatenate(([False], inner[columns.name[nested.event]]))
    shown = node.copy()
    while (climbing := (shown != ROOT) & hidden[shown]).any():
        shown[climbing] = forest.parent[shown[climbing]]
    chosen = np.where(shown == ROOT, node, shown)
    rows = nested.at(chosen)
    return ["" if row < 0 else columns.names[columns.name[row]] for row in rows.tolist()]
