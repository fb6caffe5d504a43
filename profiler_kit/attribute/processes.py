"""Tell the processes of one file apart, and which of them each GPU event may belong to.

A file usually holds one process. Where the traces of several ranks were merged, ids that are unique in a process
only (correlation, External id, flows) occur once a rank, and the GPU of every rank may say device 0. What joins a
process on the host with its GPUs is then the mark that the merge put before each pid: `[TP01] 4711`, `[TP01] 0`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np

from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import OPERATOR, is_launch
from profiler_kit.load.trace.columns import EventColumns

Mark = tuple[str, ...]

UNKNOWN: Final = 0  # the process of what cannot be told, in Processes.names
ANY: Final = -1  # of a GPU whose pid has no mark: every process may have launched its work
_SEPARATORS: Final = re.compile(r"[\s:/|,;._-]+")


@dataclass(frozen=True)
class Processes:
    """The processes of a file by number; number 0 is UNKNOWN.

    names: the pid as the file writes it, or the mark of GPUs whose host is not in the file. on_host: of each thread
    of the file, the process that it belongs to by its pid, UNKNOWN where no launch or operator has that pid. mark: of
    each process, and gpu_mark: of each thread, by number; a GPU event belongs to a process of its mark, or to any where
    it is ANY. sole: of each thread, the one process it can belong to, UNKNOWN where there are several.
    """

    names: list[str]
    on_host: I64
    mark: I64
    gpu_mark: I64
    sole: I64

    @property
    def hosts(self) -> int:
        """How many processes have their host side in the file."""
        return len(np.unique(self.on_host[self.on_host != UNKNOWN]))

    @property
    def count(self) -> int:
        """How many processes the file holds, one where nothing tells."""
        return max(1, len(self.names) - 1)


def find_processes(columns: EventColumns, gpu: I64, repeated: I64) -> Processes:
    """The processes of a file; gpu are the rows of its GPU events, repeated those of calls that share their id."""
    pids = [pid for pid, _ in columns.threads]
    host = threads_with_work(columns)
    parts = _parts_of_pids(columns, host, repeated, gpu)
    names: list[str] = [""]
    marks: list[Mark] = [()]
    on_host = np.zeros(len(pids) + 1, dtype=np.int64)
    numbers: dict[tuple[int | str, int], int] = {}
    for thread in np.flatnonzero(host).tolist():
        pid, part = pids[thread], int(parts[thread])
        if (pid, part) not in numbers:
            numbers[pid, part] = len(names)
            name = "" if pid == MISSING else str(pid)
            names.append(f"{name} (part {part})" if part else name)
            marks.append(rank_mark(pid))
        on_host[thread] = numbers[pid, part]
    for thread in np.flatnonzero(~host).tolist():  # those that hold regions only
        on_host[thread] = numbers.get((pids[thread], 0), UNKNOWN)
    known = {mark: code for code, mark in enumerate(dict.fromkeys(marks[1:]))}
    gpu_mark = np.full(len(pids) + 1, ANY, dtype=np.int64)
    for thread in np.flatnonzero(_threads_of(columns, gpu)).tolist():
        mark = rank_mark(pids[thread])
        found = mark if mark in known else next((one for one in known if one and set(one) <= set(mark)), mark)
        # a mark that no process on the host has means something only where all of these have marks
        if found and found not in known and all(known):
            known[found] = len(known)
            names.append(" ".join(found))
            marks.append(found)
        gpu_mark[thread] = known.get(found, ANY) if found else ANY
    of_process = np.array([ANY, *(known[mark] for mark in marks[1:])], dtype=np.int64)
    sole = np.full(len(pids) + 1, 1 if len(names) == 2 else UNKNOWN, dtype=np.int64)
    for code in range(len(known)):
        of_mark = np.flatnonzero(of_process == code)
        if len(of_mark) == 1:
            sole[gpu_mark == code] = of_mark[0]
    return Processes(names, on_host, of_process, gpu_mark, sole)


def _parts_of_pids(columns: EventColumns, host: Mask, repeated: I64, gpu: I64) -> I64:
    """By thread: 1, 2, ... for the parts of a pid that two ranks share (containers count from 1), else 0.

    They are two when calls with one id are in two parts of the file that each hold GPU work.
    """
    parts = np.zeros(len(columns.threads), dtype=np.int64)
    if not len(repeated):
        return parts
    begins = parts_of(columns, np.append(host, False))
    ids, thread = columns.integers["correlation"][repeated], columns.thread[repeated]
    whole = np.isin(begins, holding_work(begins[thread], gpu))
    same = (ids[1:] == ids[:-1]) & (begins[thread[1:]] != begins[thread[:-1]]) & whole[thread[1:]] & whole[thread[:-1]]
    pids = [pid for pid, _ in columns.threads]
    clashes: dict[int | str, set[tuple[int, int]]] = {}
    for a, b in {*zip(thread[1:][same].tolist(), thread[:-1][same].tolist(), strict=True)}:
        if pids[a] == pids[b]:
            clashes.setdefault(pids[a], set()).update(((begins[a], begins[b]), (begins[b], begins[a])))
    for pid, apart in clashes.items():
        mine = [number for number in np.flatnonzero(host).tolist() if pids[number] == pid]
        part, here = 1, set[int]()
        for begin in np.unique(begins[mine]).tolist():
            if any((begin, other) in apart for other in here):
                part, here = part + 1, set()
            here.add(begin)
            parts[[number for number in mine if begins[number] == begin]] = part
    return parts


def parts_of(columns: EventColumns, host: Mask) -> I64:
    """By thread: the row at which its part of the file begins, where the file is one trace after another.

    Threads on the host whose events mix are of one part.
    """
    count = len(host)
    first, last = np.full(count, len(columns)), np.full(count, -1)
    row = np.flatnonzero(host[columns.thread])
    np.minimum.at(first, columns.thread[row], row)
    np.maximum.at(last, columns.thread[row], row)
    order = np.argsort(first, kind="stable")
    # a part begins where all threads before have ended
    reach = np.maximum.accumulate(last[order])
    new = np.append(True, first[order][1:] > reach[:-1])
    found = np.empty(count, dtype=np.int64)
    found[order] = np.maximum.accumulate(np.where(new, first[order], 0))
    return found


def holding_work(begins: I64, gpu: I64) -> I64:
    """Of parts of the file that begin at these rows, those with a GPU event before the next one."""
    parts = np.unique(begins)
    held = np.searchsorted(parts, gpu, "right") - 1
    return parts[np.unique(held[held >= 0])]


def rank_mark(pid: int | str) -> Mark:
    """What a merge added to a pid: the parts with digits beside the pid itself, the last plain number; () for none."""
    parts = [part for part in _SEPARATORS.split(pid) if any(map(str.isdigit, part))] if isinstance(pid, str) else []
    own = next((place for place in reversed(range(len(parts))) if parts[place].isdigit()), len(parts))
    return (*parts[:own], *parts[own + 1 :])


def threads_with_work(columns: EventColumns) -> Mask:
    """Threads that hold launches or operators."""
    return _threads_of(columns, np.flatnonzero(columns.of_category(lambda one: one == OPERATOR or is_launch(one))))


def _threads_of(columns: EventColumns, rows: I64) -> Mask:
    seen = np.zeros(len(columns.threads), dtype=bool)
    seen[columns.thread[rows]] = True
    return seen
