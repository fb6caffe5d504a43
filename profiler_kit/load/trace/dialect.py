"""Other forms of chrome traces, put into Kineto's words: nothing behind the loader knows any but these.

Which form a file has is told once, by its categories and processes; what the form means is done here, on the columns.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.categories import (
    KERNEL,
    MEMCPY,
    MEMSET,
    OLD_CATEGORIES,
    OPERATOR,
    REGION,
    STEP_PREFIX,
    is_gpu_work,
    is_launch,
)
from profiler_kit.load.trace.columns import EventColumns, Form

ASCEND_DEVICE: Final = "Ascend Hardware"  # its other NPU processes repeat or sum up what is in this one
CPU_FUNCTIONS, FUNCTIONS = "CPU functions", " functions"  # pids of torch/autograd/profiler_util.py
_OTHERS: Final[tuple[tuple[Form, frozenset[str]], ...]] = (
    ("paddle", frozenset({"CudaRuntime"})),
    ("onnxruntime", frozenset({"Session", "Node"})),
)
ARROW_FORMS: Final[tuple[Form, ...]] = ("autograd", "ascend")  # whose External ids are those of arrows
_XLA_PROCESS: Final = re.compile(r"/(device|host):")
_STEP: Final = re.compile(rf"{STEP_PREFIX}[0-9]+")
# What else than kernels a device process holds without a category, by name.
_BY_NAME: Final = (
    (re.compile("memcpy", re.IGNORECASE), MEMCPY),
    (re.compile("memset", re.IGNORECASE), MEMSET),
    (re.compile("(event|notify)_?(wait|record)", re.IGNORECASE), "cuda_sync"),
)


def form_of(categories: Iterable[str], pids: Iterable[int | str], process_names: Iterable[str]) -> Form:
    """Who wrote a trace, by its categories as they are in the file, and its processes."""
    names, found = set(process_names), set(categories)
    if any(isinstance(pid, str) and pid.endswith(FUNCTIONS) for pid in pids):
        return "autograd"
    if ASCEND_DEVICE in names:
        return "ascend"
    if any(_XLA_PROCESS.match(name) for name in names):
        return "xla"
    for form, own in _OTHERS:  # they too call their kernels Kernel
        if own <= found:
            return form
    return "kineto-2021" if OLD_CATEGORIES.keys() & found else "kineto"


def translated(columns: EventColumns) -> EventColumns:
    """The same events with the categories, threads and ids that Kineto writes today; doing it twice changes nothing."""
    step = np.array([_STEP.fullmatch(name) is not None for name in columns.names] or [False], dtype=bool)
    if columns.form in ("kineto", "xla") and not step.any():
        return columns
    categories = list(columns.categories)
    category = columns.category.copy()

    def code(name: str) -> int:
        if name not in categories:
            categories.append(name)
        return categories.index(name)

    found = dataclasses.replace(columns, category=category, categories=categories)
    if columns.form in ARROW_FORMS and len(columns):
        device, host = _processes(columns)
        bare = category == code("")
        rows = np.flatnonzero(bare & device[columns.thread])
        by_name = np.array([code(_device_category(name)) for name in columns.names], dtype=np.int32)
        category[bare & host[columns.thread]] = code(OPERATOR)
        category[rows] = by_name[columns.name[rows]]
        # the thread of a kernel is the number of its device; torch_npu's is its stream
        column = "device" if columns.form == "autograd" else "stream"
        number = np.array([tid if isinstance(tid, int) else MISSING for _, tid in columns.threads])
        values = columns.integers[column].copy()
        values[rows] = number[columns.thread[rows]]
        found = dataclasses.replace(found, integers={**columns.integers, column: values})
    if len(columns):
        # torch 1.8 and torch_npu write the steps as operators
        category[step[columns.name] & found.of_category(lambda name: name == OPERATOR)] = code(REGION)
    if columns.form == "kineto-2021":
        return dataclasses.replace(found, thread=_operators_threads(found))
    external = _ids_of_arrows(found)
    return (
        found if external is None else dataclasses.replace(found, integers={**found.integers, "external_id": external})
    )


def _processes(columns: EventColumns) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
    """By thread: whether its events without a category are work of a device, and whether they are operators."""
    pids = [pid for pid, _ in columns.threads]
    if columns.form == "ascend":
        on_device = [columns.process_names.get(pid) == ASCEND_DEVICE for pid in pids]
        return np.array(on_device, dtype=bool), np.zeros(len(pids), dtype=bool)
    host = np.array([pid == CPU_FUNCTIONS for pid in pids], dtype=bool)
    return ~host & np.array([str(pid).endswith(FUNCTIONS) for pid in pids], dtype=bool), host


def _device_category(name: str) -> str:
    return next((category for pattern, category in _BY_NAME if pattern.match(name)), KERNEL)


def _operators_threads(columns: EventColumns) -> npt.NDArray[np.int32]:
    """The thread of each event, with launches on the thread of the operator they belong to by their `external id`.

    torch 1.8 writes the thread of a launch as another number. A launch without such an id goes with all others of its
    thread, if these agree.
    """
    external, thread = columns.integers["external_id"], columns.thread.copy()
    operators = np.flatnonzero(columns.of_category(lambda name: name in (OPERATOR, REGION)) & (external != MISSING))
    launches = np.flatnonzero(columns.of_category(is_launch))
    if not len(operators) or not len(launches):
        return thread
    ids, first, count = np.unique(external[operators], return_index=True, return_counts=True)
    # the operator of each launch: the only one with its id
    at = np.minimum(np.searchsorted(ids, external[launches]), len(ids) - 1)
    known = (ids[at] == external[launches]) & (count[at] == 1)
    target = np.where(known, columns.thread[operators[first[at]]], -1)
    for number in np.unique(columns.thread[launches]).tolist():
        mine = columns.thread[launches] == number
        goals = np.unique(target[mine & known])
        if len(goals) == 1:
            target[mine] = goals[0]
    thread[launches[target >= 0]] = target[target >= 0]
    return thread


def _ids_of_arrows(columns: EventColumns) -> I64 | None:
    """External ids, with one for each operator that an arrow joins with work of a device; None without arrows.

    An arrow begins at the start of an operator and ends at the start of what that launched.
    """
    begin, finish = columns.outgoing, columns.incoming
    if not len(begin) or not len(finish) or not len(columns):
        return None
    begin = begin[np.argsort(begin[:, 0], kind="stable")]
    at = np.searchsorted(begin[:, 0], finish[:, 0], "right") - 1
    linked = (at >= 0) & (begin[np.maximum(at, 0), 0] == finish[:, 0])
    start, end = begin[at[linked]], finish[linked]
    host = _row_at(columns, columns.of_category(lambda name: name in (OPERATOR, REGION)), start)
    device = _row_at(columns, columns.of_category(is_gpu_work), end)
    both = (host >= 0) & (device >= 0)
    host, device = host[both], device[both]
    external = columns.integers["external_id"].copy()
    # operators that have no id get the numbers after the last one
    new = np.unique(host[external[host] == MISSING])
    external[new] = min(max(0, int(external.max())), 1 << 62) + 1 + np.arange(len(new))
    external[device] = external[host]
    return external


def _row_at(columns: EventColumns, chosen: npt.NDArray[np.bool_], places: I64) -> I64:
    """The shortest of the chosen events that begins at each place (id, thread, time); -1 where none does."""
    rows = np.flatnonzero(chosen)
    rows = rows[np.lexsort((-columns.dur_ns[rows], columns.start_ns[rows], columns.thread[rows]))]
    last = {
        place: row
        for place, row in zip(
            zip(columns.thread[rows].tolist(), columns.start_ns[rows].tolist(), strict=True), rows.tolist(), strict=True
        )
    }
    return np.array([last.get((thread, time), -1) for _, thread, time in places.tolist()], dtype=np.int64)
