"""What a job needs to know of one rank, in small columns: its collectives, what it did between them, its steps.

The columns are numpy arrays and lists of strings by the names of the schemas below, not frames: thousands of ranks are
put together before a frame is made. Times are Unix nanoseconds by the clock of the rank.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.analyses.gpu.collectives import ARGUMENTS, message_of
from profiler_kit.analyses.gpu.intervals import covered_until, union
from profiler_kit.analyses.gpu.timeline import GpuTimeline, timeline_of
from profiler_kit.attribute.gpu_work import NOT
from profiler_kit.attribute.links import NONE
from profiler_kit.attribute.regions import Attribution
from profiler_kit.attribute.waits import waiting
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import KERNEL, MEMCPY, MTIA_KERNEL, OPERATOR
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.schema import Column, Schema
from profiler_kit.table import json_of

# What to load a trace with (load_trace(path, arguments=RANK_ARGUMENTS)).
RANK_ARGUMENTS: Final = (
    "collective_name", "process_group_name", "process_group_ranks", "group_size", "dtype", "in_msg_nelems",
    "out_msg_nelems", "Seq", "Src Rank", "Dst Rank", "Global rank start", "Global rank stride",
)  # fmt: skip
QUEUED_NS: Final = 5_000  # a kernel that starts so soon after the one before it on its stream may have waited for it
DRIFT: Final = 1e-4  # of clocks, at most
RESUMED_NS: Final = 20_000  # what begins so soon after an end may have waited for it
ROUNDED_NS: Final = 2_000  # an end and the start that waited for it are written rounded
UNKNOWN: Final = -1
_OPERATIONS: Final = re.compile(
    "allreduce|allgather|reducescatter|alltoall|broadcast|barrier|sendrecv|send|recv|gather|scatter|reduce"
)
_DATA: Final = re.compile(r"data_?loader|^data$|^(load|fetch|get|next)_(data|batch)|^batch$", re.IGNORECASE)
_OF_REGION: Final = "nccl:"  # the region that c10d opens around each collective

_PIECE_COLUMNS: Final = {
    "compute_ns": "Something was computed.",
    "copies_ns": "Memory was copied, and nothing computed.",
    "host_ns": "Nothing ran but communication, and what ran next had not been launched.",
    "data_ns": "The same while the host was in a region of loading data.",
    "other_ns": "Nothing ran but communication, although the next was launched.",
}

RANK_WORK: Final = Schema(
    "RANK_WORK",
    "kernel that communicates, of one rank, by start",
    {
        "event": Column("int64"),
        "name": Column("str", "The kernel.", unit="kernel"),
        "group": Column("int64", "Row of the rank's groups; -1 where the trace does not say.", unit="id"),
        "sequence": Column("int64", "Its number in the group, as recorded; -1 where it was not.", unit="id"),
        "peer": Column("int64", "Of a send or a receive the other rank; -1 where it was not recorded.", unit="id"),
        "operation": Column("str", "Such as allreduce or send, by its arguments, else by the kernel's name."),
        "bytes": Column("int64", "Size of its message; -1 where it was not recorded.", unit="bytes"),
        "dtype": Column("str", "Of what it communicates."),
        "step": Column("int64", "The 3 of ProfilerStep#3; -1 outside every step.", unit="id"),
        "stream": Column("int64"),
        "issue_ns": Column("int64", "When its launch returned; -1 where that is not in the trace.", show="never"),
        "arrive_ns": Column(
            "int64",
            "When the rank was ready for it: its start, or where the collective before held it up, when all that it "
            "depends on was done.",
            show="never",
        ),
        "start_ns": Column("int64", "Unix time by the clock of the rank.", show="never"),
        "end_ns": Column("int64", "Unix time by the clock of the rank.", show="never"),
        "held_ns": Column(
            "int64",
            "How long nothing else ran before its end, where the rank went on right after it: what it waited for.",
        ),
        **{f"before_{name}": Column("int64", f"{said} Before it was ready, since the last one ended.")
           for name, said in _PIECE_COLUMNS.items()},
        **{f"under_{name}": Column("int64", f"{said} While it ran, until the rank was ready for the next.")
           for name, said in _PIECE_COLUMNS.items()},
    },
)  # fmt: skip
RANK_GROUPS: Final = Schema(
    "RANK_GROUPS",
    "process group of one rank",
    {
        "group": Column("int64", "Row of the rank's groups.", unit="id"),
        "name": Column("str", "As the trace names it."),
        "description": Column("str", "What it is for, where that was recorded."),
        "size": Column("int64", "How many ranks it has; 0 where that was not recorded."),
        "members": Column("str", "Its ranks as runs, first:end:distance; empty where they are not known."),
    },
)
RANK_STEPS: Final = Schema(
    "RANK_STEPS",
    "ProfilerStep of one rank, by start",
    {
        "step": Column("int64", "The 3 of ProfilerStep#3.", unit="id"),
        "start_ns": Column("int64", "On the host.", show="never"),
        "end_ns": Column("int64", "On the host.", show="never"),
        "gpu_events": Column("int64", "Kernels, memory copies and memory sets that it launched."),
        "computation_ns": Column("int64", "Durations of its computation, added up."),
        "communication_ns": Column("int64", "Durations of its communication, added up."),
        "memcpy_ns": Column("int64", "Durations of its memory copies, added up."),
    },
)
RANK_PARTS: Final = Schema(
    "RANK_PARTS",
    "step and region, or kernel, of one rank",
    {
        "kind": Column("str", "A region: what it launched, and the idle time in it; a kernel: all of one name."),
        "step": Column("int64", "The 3 of ProfilerStep#3; -1 outside every step, and of kernels.", unit="id"),
        "name": Column("str", "The innermost region, or the kernel.", unit="kernel"),
        "count": Column("int64", "GPU events."),
        "gpu_ns": Column("int64", "Durations added up, without communication."),
        "idle_ns": Column("int64", "Nothing but communication ran on the GPU, and the host was here."),
    },
)

Columns = dict[str, Any]  # one numpy array or list of strings by the name of each column


@dataclass(frozen=True)
class RankParts:
    """One rank: columns of RANK_WORK, RANK_GROUPS, RANK_STEPS and RANK_PARTS; its timeline; how many GPU events."""

    work: Columns
    groups: Columns
    steps: Columns
    parts: Columns
    timeline: GpuTimeline
    gpu_events: int
    start_ns: int
    end_ns: int


def of_rank(columns: EventColumns, found: Attribution, metadata: Mapping[str, Any], base_ns: int) -> RankParts:
    """Columns and attribution of one rank's trace, loaded with RANK_ARGUMENTS -> what its job needs to know of it."""
    start, dur = columns.start_ns[found.event], columns.dur_ns[found.event]
    end = start + dur
    label = found.categories
    copy = np.array([name == MEMCPY for name in label] or [False], dtype=bool)[found.category]
    kernel = np.array([name in (KERNEL, MTIA_KERNEL) for name in label] or [False], dtype=bool)[found.category]
    communicates = found.communication != NOT
    order = np.lexsort((start, _launch_number(columns, found)))
    step = _steps(columns, found, order)
    mine = np.flatnonzero(communicates)
    work, groups = _messages(columns, found, metadata, mine)
    issue = _issue(columns, found.launch[mine])
    arrive = _arrivals(columns, found, mine, order, kernel & ~communicates, issue)
    gaps = _gaps(columns, found, start, end, communicates)
    work |= {
        "event": found.event[mine],
        "name": [columns.names[code] for code in columns.name[found.event[mine]].tolist()],
        "step": step[mine],
        "stream": columns.integers["stream"][found.event[mine]].astype(np.int64),
        "issue_ns": np.where(issue == MISSING, UNKNOWN, issue + base_ns),
        "arrive_ns": arrive + base_ns,
        "start_ns": start[mine] + base_ns,
        "end_ns": end[mine] + base_ns,
        "held_ns": _held(columns, found, arrive, end[mine], gaps),
        **_pieces(arrive, end[mine], start, end, ~communicates & ~copy, ~communicates, gaps),
    }
    return RankParts(
        work={name: work[name] for name in RANK_WORK.columns},
        groups=groups,
        steps=_step_rows(found, step, dur, communicates, copy, base_ns),
        parts=_parts(columns, found, step, dur, communicates, gaps),
        timeline=timeline_of(start, dur, communicates, copy),
        gpu_events=len(start) + len(found.left_out.event),
        start_ns=int(start[0]) + base_ns if len(start) else 0,
        end_ns=int(end.max()) + base_ns if len(end) else 0,
    )


def _launch_number(columns: EventColumns, found: Attribution) -> I64:
    """A number that grows in the order of the launches: the correlation id, else the time of the launch."""
    number = columns.integers["correlation"][found.event].astype(np.int64)
    if len(number) and found.links.processes.count == 1 and (number > 0).all():
        return number
    launch = found.launch
    start = columns.start_ns[found.event]
    return np.where(launch == NONE, start, columns.start_ns[np.maximum(launch, 0)]) if len(start) else start


def _steps(columns: EventColumns, found: Attribution, order: I64) -> I64:
    """The step that was open when each GPU event was launched, whatever the thread; what has no launch belongs where
    the one launched before it does.
    """
    rows = np.flatnonzero(found.instances.step != MISSING)
    if not len(order) or not len(rows):
        return np.full(len(order), UNKNOWN, dtype=np.int64)
    launch = found.links.origin[order]
    linked = launch != NONE
    time = columns.start_ns[np.maximum(launch, 0)]
    at = np.searchsorted(found.instances.start_ns[rows], time, "right") - 1
    inside = linked & (at >= 0) & (found.instances.end_ns[rows[np.maximum(at, 0)]] > time)
    number = np.where(inside, found.instances.step[rows[np.maximum(at, 0)]], UNKNOWN)
    known = np.maximum.accumulate(np.where(linked, np.arange(len(order)), NONE))
    step = np.empty(len(order), dtype=np.int64)
    step[order] = np.where(known == NONE, UNKNOWN, number[known])
    return step


def _issue(columns: EventColumns, launch: I64) -> I64:
    """When each launch returned; MISSING without one."""
    if not len(columns):
        return launch
    return np.where(launch == NONE, MISSING, columns.start_ns[launch] + columns.dur_ns[launch])


def _arrivals(
    columns: EventColumns, found: Attribution, mine: I64, order: I64, computes: npt.NDArray[np.bool_], issue: I64
) -> I64:
    """When the rank was ready for each collective.

    A kernel that started right after the one before it on its stream may have waited for that: then it was ready when
    it was launched and the last kernel launched before it was done, which is what c10d makes it wait for.
    """
    start, dur = columns.start_ns[found.event], columns.dur_ns[found.event]
    end = start + dur
    place = np.empty(len(order), dtype=np.int64)
    place[order] = np.arange(len(order))
    last = np.maximum.accumulate(np.where(computes[order], np.arange(len(order)), NONE))[place[mine]]
    done = np.where(last == NONE, MISSING, end[order[np.maximum(last, 0)]]) if len(order) else issue
    stream = columns.integers["stream"][found.event[mine]]
    previous = np.full(len(mine), MISSING)
    for one in np.unique(stream).tolist():
        rows = np.flatnonzero(stream == one)
        # a clock that drifts shows a long kernel's end off the next one's start
        near = end[mine[rows]] + QUEUED_NS + (dur[mine[rows]] * DRIFT).astype(np.int64)
        previous[rows[1:]] = np.maximum.accumulate(near)[:-1]
    ready = np.maximum(done, issue)
    queued = (previous != MISSING) & (start[mine] < previous) & (ready != MISSING)
    arrive = np.where(queued, np.minimum(ready, start[mine]), start[mine])
    return np.asarray(np.maximum.accumulate(arrive), dtype=np.int64)


@dataclass(frozen=True)
class _Gaps:
    """Stretches in which nothing but communication ran: why (a place in _GAPS), the region that the host was in."""

    start: I64
    end: I64
    cause: I64
    path: I64
    event: I64  # row of the GPU events: what ended it


_HOST, _LOADING, _OTHER = range(3)


def _gaps(
    columns: EventColumns, found: Attribution, start: I64, end: I64, communicates: npt.NDArray[np.bool_]
) -> _Gaps:
    work = np.flatnonzero(~communicates)
    covered, until = union(start[work], end[work])
    low, high = until[:-1], covered[1:]
    event = work[np.searchsorted(start[work], high)] if len(high) else high
    launch = found.launch[event]
    launched = columns.start_ns[np.maximum(launch, 0)] if len(columns) else launch
    cause = np.where((launch != NONE) & (launched > low), _HOST, _OTHER)
    # the region of a gap is that around its middle, or around the middle of what is left after the last collective
    ends = np.sort(end[communicates])
    at = np.searchsorted(ends, high) - 1
    since = np.maximum(low, np.where(at >= 0, ends[np.maximum(at, 0)], low)) if len(ends) else low
    late = cause == _HOST
    path = np.full(len(low), NONE, dtype=np.int64)
    regions = found.regions
    node = regions.open_at(columns.thread[launch[late]], (since[late] + np.minimum(high, launched)[late]) // 2)
    path[late] = regions.path[node]
    loads = np.array([any(_DATA.search(name) for name in path) for path in found.paths], dtype=bool)
    cause[late & loads[path]] = _LOADING
    return _Gaps(low, high, cause, path, event)


def _held(columns: EventColumns, found: Attribution, arrive: I64, end: I64, gaps: _Gaps) -> I64:
    """How long each collective held the rank up: the stretch without other work that its end is in, up to that end.

    That counts where the work after the stretch had been launched before the end and began right after it, or where a
    call that waits for the GPU returned right after it.
    """
    if not len(gaps.start) or not len(end):
        return np.zeros_like(end)
    at = np.searchsorted(gaps.start, end) - 1
    place = np.maximum(at, 0)
    inside = (at >= 0) & (gaps.end[place] >= end - ROUNDED_NS)
    launch = found.launch[gaps.event[place]]
    launched = np.where(launch == NONE, MISSING, columns.start_ns[np.maximum(launch, 0)])
    on_gpu = (launched < end) & (gaps.end[place] - end < RESUMED_NS)
    waits = waiting(columns, found)
    returned = np.sort(columns.start_ns[waits] + columns.dur_ns[waits])
    after = np.append(returned, np.iinfo(np.int64).max)[np.searchsorted(returned, end)]
    on_host = (launched >= end) & (after < end + RESUMED_NS) & (after <= launched)
    return np.where(inside & (on_gpu | on_host), np.maximum(end - np.maximum(gaps.start[place], arrive), 0), 0)


def _pieces(
    arrive: I64,
    end: I64,
    starts: I64,
    ends: I64,
    computes: npt.NDArray[np.bool_],
    works: npt.NDArray[np.bool_],
    gaps: _Gaps,
) -> Columns:
    """What was done before the rank was ready for each collective, and under it; the stretches tile the time."""
    if not len(arrive):
        return {f"{side}_{name}": arrive for side in ("before", "under") for name in _PIECE_COLUMNS}
    reach = np.maximum.accumulate(end)
    upto = np.minimum(reach, np.append(arrive[1:], reach[-1]))
    upto = np.maximum(upto, arrive)
    since = np.concatenate((np.minimum(starts[:1], arrive[:1]), upto[:-1]))
    moments = np.stack((since, arrive, upto))
    compute, work, host, loading = (
        np.diff(covered_until(*intervals, moments), axis=0)
        for intervals in (
            union(starts[computes], ends[computes]),
            union(starts[works], ends[works]),
            *((gaps.start[rows], gaps.end[rows]) for rows in (gaps.cause == _HOST, gaps.cause == _LOADING)),
        )
    )
    pieces = compute, work - compute, host, loading, np.diff(moments, axis=0) - work - host - loading
    return {
        f"{side}_{name}": piece[row]
        for row, side in enumerate(("before", "under"))
        for name, piece in zip(_PIECE_COLUMNS, pieces, strict=True)
    }


def _messages(
    columns: EventColumns, found: Attribution, metadata: Mapping[str, Any], mine: I64
) -> tuple[Columns, Columns]:
    """What each kernel communicates, and the groups of the rank."""
    event = found.event[mine]
    source = _source(columns, event, found.launch[mine])
    asked = [name for name in RANK_ARGUMENTS if name in columns.extra and len(columns.extra[name].values) > 1]
    texts = [columns.extra[name] for name in asked]
    named = np.where(source == NONE, columns.name[event].astype(np.int64), NONE)
    region = np.where(source == NONE, found.path[mine], NONE)
    codes = [np.where(source == NONE, NONE, text.codes[source].astype(np.int64)) for text in texts]
    key, width = np.zeros(len(mine), dtype=np.int64), 1
    for name, code in zip((*asked, "", ""), (*codes, named, region), strict=True):
        if name == "Seq":  # every kernel has another
            continue
        size = int(code.max(initial=0)) + 2
        if width * size >= 1 << 62:
            key, width = np.unique(key, return_inverse=True)[1], len(key)
        key, width = key * size + code + 1, width * size
    _, first, row = np.unique(key, return_index=True, return_inverse=True)
    groups = _Groups(metadata)
    told: list[tuple[int, int, str, int, str]] = []
    for at in first.tolist():
        values: dict[str, Any] = {
            name: _told(text.values[code[at]]) if code[at] != NONE else None
            for name, text, code in zip(asked, texts, codes, strict=True)
        }
        message = message_of([values.get(name) for name in ARGUMENTS], columns.names[columns.name[event[at]]])
        inner = found.paths[found.path[mine[at]]][-1]
        said = inner.removeprefix(_OF_REGION) if inner.startswith(_OF_REGION) and source[at] == NONE else ""
        operation = _OPERATIONS.search((said or str(message.texts[0])).lower().replace("_", ""))
        peer = next((one for one in (values.get("Dst Rank"), values.get("Src Rank")) if type(one) is int), UNKNOWN)
        size = UNKNOWN if np.isnan(message.size) else int(message.size)
        told.append((groups.of(values), peer, operation[0] if operation else "", size, message.texts[4]))
    each = [told[one] for one in row.tolist()]
    sequence = np.full(len(mine), UNKNOWN, dtype=np.int64)
    if "Seq" in asked:
        numbers = [_told(text) if text else UNKNOWN for text in columns.extra["Seq"].values]
        plain = np.array([one if type(one) is int and 0 <= one < 1 << 62 else UNKNOWN for one in numbers] or [UNKNOWN])
        sequence = np.where(source == NONE, UNKNOWN, plain[codes[asked.index("Seq")]])
    return {
        "group": np.array([one[0] for one in each], dtype=np.int64),
        "sequence": sequence,
        "peer": np.array([one[1] for one in each], dtype=np.int64),
        "operation": [one[2] for one in each],
        "bytes": np.array([one[3] for one in each], dtype=np.int64),
        "dtype": [one[4] for one in each],
    }, groups.columns()


_told = functools.lru_cache(4096)(json_of)  # the ranks of a job say the same; what it gives is not changed


def _source(columns: EventColumns, event: I64, launch: I64) -> I64:
    """The event whose arguments say what each kernel communicates: itself, or the operator open at its launch."""
    telling = columns.integers["collective"] != MISSING
    found = np.where(telling[event], event, NONE) if len(event) else event
    operator = np.flatnonzero(telling & columns.of_category(lambda one: one == OPERATOR))
    asked = np.flatnonzero((found == NONE) & (launch != NONE))
    if not len(operator) or not len(asked):
        return found
    thread, start = columns.thread.astype(np.int64), columns.start_ns
    operator = operator[np.lexsort((start[operator], thread[operator]))]
    # the last one begun by then on that thread, by one search over (thread, start)
    width = int(start.max()) - int(start.min()) + 1
    low = int(start.min())
    at = np.searchsorted(
        thread[operator] * width + start[operator] - low,
        thread[launch[asked]] * width + start[launch[asked]] - low,
        "right",
    )
    one = operator[np.maximum(at - 1, 0)]
    inside = (at > 0) & (thread[one] == thread[launch[asked]])
    inside &= start[one] + columns.dur_ns[one] > start[launch[asked]]
    found[asked[inside]] = one[inside]
    return found


class _Groups:
    """The process groups of a rank, numbered as they come; what its metadata lists comes after those with kernels."""

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        info = metadata.get("distributedInfo")
        listed = info.get("pg_config") if isinstance(info, dict) else None
        self._listed: dict[str, tuple[str, tuple[int, ...], int]] = {}
        for one in listed if isinstance(listed, list) else []:
            if isinstance(one, dict):
                members = _ranks_of(one.get("ranks"))
                size = one.get("pg_size")
                size = size if type(size) is int and 0 < size < 1 << 31 else len(members)
                self._listed[str(one.get("pg_name", ""))] = str(one.get("pg_desc", "")), members, size
        self._rows: dict[tuple[str, tuple[int, ...], int], str] = {}

    def of(self, values: Mapping[str, Any]) -> int:
        """The row of the group that these arguments name; UNKNOWN where they name none."""
        name = values.get("process_group_name")
        if name is None and not values.get("group_size"):
            if len(self._listed) != 1:
                return UNKNOWN
            name = next(iter(self._listed))
        name = str("" if name is None else name)
        said, members, size = self._listed.get(name, ("", (), 0))
        told = values.get("group_size")
        size = told if type(told) is int and 0 < told < 1 << 31 else size
        listed = _ranks_of(values.get("process_group_ranks")) or _strided(values, size)
        members = listed or (members if len(members) == size else ())
        key = name, members, size
        self._rows.setdefault(key, said)
        return list(self._rows).index(key)

    def columns(self) -> Columns:
        """Columns of RANK_GROUPS."""
        for name, (said, members, size) in self._listed.items():
            self._rows.setdefault((name, members, size), said)
        rows = [(name, said, size, members_text(members))
                for (name, members, size), said in self._rows.items()]  # fmt: skip
        names, texts, sizes, members = zip(*rows, strict=True) if rows else ((), (), (), ())
        return {
            "group": np.arange(len(rows)),
            "name": list(names),
            "description": list(texts),
            "size": np.array(sizes, dtype=np.int64),
            "members": list(members),
        }


@functools.lru_cache(64)  # the ranks of a job name the same groups
def members_text(members: tuple[int, ...]) -> str:
    """Ranks as runs, first:end:distance: a thousand ranks name the same thousand members."""
    runs, at = [], 0
    while at < len(members):
        distance = members[at + 1] - members[at] if at + 1 < len(members) else 1
        end = at + 1
        while end < len(members) and members[end] - members[end - 1] == distance > 0:
            end += 1
        runs.append(f"{members[at]}:{members[end - 1] + max(distance, 1)}:{max(distance, 1)}")
        at = end
    return " ".join(runs)


def members_of(text: str) -> I64:
    """The ranks that members_text wrote."""
    runs = [np.arange(*map(int, run.split(":"))) for run in text.split()]
    return np.concatenate(runs) if runs else np.zeros(0, dtype=np.int64)


def _ranks_of(value: object) -> tuple[int, ...]:
    """The ranks that a list or its text names; none where some are left out ("[0, 1, ..., 7]")."""
    listed = _told(value) if isinstance(value, str) else value
    if not isinstance(listed, list) or set(map(type, listed)) != {int} or min(listed) < 0 or max(listed) >= 1 << 31:
        return ()
    return tuple(listed)


def _strided(values: Mapping[str, Any], size: int) -> tuple[int, ...]:
    """The ranks of a group of which the first and the distance were recorded."""
    first, stride = values.get("Global rank start"), values.get("Global rank stride")
    if type(first) is not int or type(stride) is not int or not 0 < stride < 1 << 20 or not 0 < size < 1 << 20:
        return ()
    return tuple(range(first, first + size * stride, stride)) if first >= 0 else ()


def _step_rows(
    found: Attribution,
    step: I64,
    dur: I64,
    communicates: npt.NDArray[np.bool_],
    copy: npt.NDArray[np.bool_],
    base_ns: int,
) -> Columns:
    """Columns of RANK_STEPS."""
    rows = np.flatnonzero(found.instances.step != MISSING)
    numbers, place = np.unique(found.instances.step[rows], return_inverse=True)
    inside = step != UNKNOWN
    at = np.searchsorted(numbers, step[inside])

    def summed(mask: npt.NDArray[np.bool_]) -> I64:
        values = np.bincount(at, np.where(mask, dur, 0)[inside], minlength=len(numbers)).astype(np.int64)
        return np.asarray(values[place], dtype=np.int64)

    return {
        "step": found.instances.step[rows],
        "start_ns": found.instances.start_ns[rows] + base_ns,
        "end_ns": found.instances.end_ns[rows] + base_ns,
        "gpu_events": np.bincount(at, minlength=len(numbers))[place] if len(rows) else rows,
        "computation_ns": summed(~communicates & ~copy),
        "communication_ns": summed(communicates),
        "memcpy_ns": summed(copy),
    }


def _parts(
    columns: EventColumns, found: Attribution, step: I64, dur: I64, communicates: npt.NDArray[np.bool_], gaps: _Gaps
) -> Columns:
    """Columns of RANK_PARTS."""
    work = np.flatnonzero(~communicates)
    idle = gaps.path != NONE
    path = np.concatenate((found.path[work], gaps.path[idle]))
    of_step = np.concatenate((step[work], step[gaps.event[idle]]))
    gpu = np.concatenate((dur[work], np.zeros(int(idle.sum()), np.int64)))
    waits = np.concatenate((np.zeros(len(work), np.int64), (gaps.end - gaps.start)[idle]))
    numbers = np.append(UNKNOWN, np.unique(found.instances.step[found.instances.step != MISSING]))
    place = np.searchsorted(numbers, of_step)
    pairs, row = np.unique(path * len(numbers) + place, return_inverse=True)
    kernel = columns.name[found.event[work]]
    of_kernel = np.bincount(kernel, minlength=len(columns.names))
    codes = np.flatnonzero(of_kernel)

    def summed(values: I64 | Mask) -> I64:
        return np.bincount(row, values, minlength=len(pairs)).astype(np.int64)

    return {
        "kind": ["region"] * len(pairs) + ["kernel"] * len(codes),
        "step": np.concatenate((numbers[pairs % len(numbers)], np.full(len(codes), UNKNOWN))),
        "name": [found.paths[one // len(numbers)][-1] for one in pairs.tolist()]
        + [columns.names[code] for code in codes.tolist()],
        "count": np.concatenate((summed(gpu > 0), of_kernel[codes])),
        "gpu_ns": np.concatenate((summed(gpu), np.bincount(kernel, dur[work])[codes].astype(np.int64))),
        "idle_ns": np.concatenate((summed(waits), np.zeros(len(codes), np.int64))),
    }
