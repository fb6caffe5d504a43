"""The columns of a trace: what reading its bytes has to give, and all that later stages know of them.

Whatever reads bytes faster replaces the modules that fill these (column_builder and what it uses), and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from profiler_kit.load.integers import I64

# Who wrote a trace: Kineto, Kineto up to torch 1.12, torch.autograd.profiler, torch_npu, TensorFlow or JAX, others.
Form = Literal["kineto", "kineto-2021", "autograd", "ascend", "xla", "paddle", "onnxruntime"]


def no_flows() -> I64:
    """No rows of (id, thread, start_ns)."""
    return np.zeros((0, 3), np.int64)


@dataclass(frozen=True)
class TextColumn:
    """One argument as the JSON text the file holds: codes index values; "" where the event has no such argument.

    Lists and objects are written without blanks. Two of the values may be equal.
    """

    codes: npt.NDArray[np.int32]
    values: list[str]


@dataclass(frozen=True)
class EventColumns:
    """Complete events (phase X, then those of a begin and an end) of one trace, one array element each, in file order.

    name, category and thread are indices into names, categories and threads (pid, tid as written). An integer may be
    MISSING (load.integers); `profiler_kit.trace` turns it into a null. launched holds the distinct rows
    (id, thread) of `ac2g` flow starts, in order; forward_flows and backward_flows hold one row (id, thread, start_ns)
    per `fwdbwd` start and finish. thread_names and process_labels come from metadata events, keyed by (pid, tid) and
    pid. extra holds the arguments asked for, by the name they were asked for. outgoing and incoming hold the flows from
    operators to devices of other forms than Kineto's (rows as above); load.trace.dialect has translated those forms.
    """

    name: npt.NDArray[np.int32]
    category: npt.NDArray[np.int32]
    thread: npt.NDArray[np.int32]
    start_ns: I64
    dur_ns: I64
    integers: dict[str, I64]
    names: list[str]
    categories: list[str]
    threads: list[tuple[int | str, int | str]]
    launched: I64
    forward_flows: I64
    backward_flows: I64
    thread_names: dict[tuple[int | str, int | str], str]
    process_labels: dict[int | str, str]
    extra: dict[str, TextColumn] = field(default_factory=dict)
    process_names: dict[int | str, str] = field(default_factory=dict)
    outgoing: I64 = field(default_factory=no_flows)
    incoming: I64 = field(default_factory=no_flows)
    form: Form = "kineto"

    def __len__(self) -> int:
        return len(self.start_ns)

    def of_category(self, wanted: Callable[[str], bool]) -> npt.NDArray[np.bool_]:
        """True for each event whose category name is wanted."""
        # ask once for each name, then look the answer up by each event's code
        table = np.array([wanted(category) for category in self.categories] or [False], dtype=bool)
        return table[self.category] if len(self) else np.zeros(0, dtype=bool)
