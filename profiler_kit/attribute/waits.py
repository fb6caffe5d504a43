"""Which runtime calls return only when the GPU is done: the host waits in them."""

from __future__ import annotations

import re
from typing import Final

import numpy as np

from profiler_kit.attribute.regions import Attribution
from profiler_kit.load.integers import MISSING, Mask
from profiler_kit.load.trace.categories import is_launch
from profiler_kit.load.trace.columns import EventColumns

_SYNCHRONIZE: Final = re.compile(r"Synchronize")
_COPIES: Final = re.compile(r"Memcpy")
_AT_ONCE: Final = re.compile(r"Memcpy(?!.*Async)")  # cudaMemcpy, cuMemcpyDtoH_v2, hipMemcpyWithStream
_UNPINNED: Final = re.compile(r"\((Pageable|Host) -> |-> (Pageable|Host)\)")  # ROCm says Host, of pinned memory too


def waiting(columns: EventColumns, found: Attribution) -> Mask:
    """Which events are calls that wait for the GPU.

    Calls that synchronize; and copies, where the call returned at or after the end of the copy that it made, if its
    name does not say Async or the copy is to or from host memory that is not pinned: copies between a device and
    pageable memory may be synchronous whatever the call is named, those to pageable memory always are (CUDA's "API
    synchronization behavior"). A copy whose end is not in the trace does not count.
    """
    calls = columns.of_category(is_launch)
    copying = calls & _named(columns, _COPIES)
    linked = found.launch >= 0
    linked[linked] = copying[found.launch[linked]]
    call, event = found.launch[linked], found.event[linked]
    done = np.full(len(columns), MISSING, dtype=np.int64)
    np.maximum.at(done, call, columns.start_ns[event] + columns.dur_ns[event])
    unpinned = np.zeros(len(columns), dtype=bool)
    unpinned[call] |= _named(columns, _UNPINNED)[event]
    returned = (done != MISSING) & (columns.start_ns + columns.dur_ns >= done)
    waits: Mask = calls & _named(columns, _SYNCHRONIZE)
    waits |= copying & returned & (unpinned | _named(columns, _AT_ONCE))
    return waits


def _named(columns: EventColumns, pattern: re.Pattern[str]) -> Mask:
    """Which events have a name in which the pattern is found."""
    names = [pattern.search(name) is not None for name in columns.names]
    named: Mask = np.array(names or [False], dtype=bool)[columns.name]
    return named
