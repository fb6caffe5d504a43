"""Find where the kernels of a replayed CUDA graph were launched one by one: at its capture, or in a pass without it.

A replay launches all kernels with one call, so that nothing says which operator each belongs to. The sequence of its
kernels is aligned with the launches between the begin and the end of a capture, of which a trace has the calls but no
kernels, and with kernels that were launched one by one, which have names. What is not aligned stays unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from profiler_kit.attribute.launch_context import nest_operators
from profiler_kit.attribute.links import NONE
from profiler_kit.attribute.regions import Attribution, Path
from profiler_kit.attribute.span_forest import ROOT
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.categories import MEMCPY, MEMSET, is_launch
from profiler_kit.load.trace.columns import EventColumns, TextColumn

GRAPH_LAUNCH: Final = re.compile(r"GraphLaunch")
CAPTURE, EAGER = "capture", "one by one"
_BEGIN, _END = "StreamBeginCapture", "StreamEndCapture"
_LAUNCHES: Final = re.compile(r"LaunchKernel|LaunchCooperative|Memcpy|Memset", re.IGNORECASE)
_KINDS: Final = {MEMCPY: 1, MEMSET: 2}  # of GPU events; kernels are 0
_UNNAMED: Final = -1
_GRAM: Final = 8  # kernels in a row that tell where to look; fewer where a trace was given to look into
_MOST_GAPS: Final = 256  # kernels without a partner, on both sides together
_OTHERS: Final = 3  # in a row that have another name, in the same place
_TRIED: Final = 16  # places where a graph may have been launched one by one
_LEAST_OWN: Final = 8  # kernels of a graph that may be looked for outside a capture, and
_LEAST_SHARE: Final = 0.9  # the share of them that has to be there, where no capture was given
_OVERLAP_NS: Final = 1_000  # kernels in a line overlap by less


@dataclass(frozen=True)
class Source:
    """A trace that may hold captures. text: an argument of its events, read when it is asked for."""

    name: str
    columns: EventColumns
    found: Attribution
    text: Callable[[str], TextColumn]
    given: bool = True


@dataclass(frozen=True)
class Match:
    """Kernels of a graph and the launches they come from, both as places in their sequences. launch: rows of events."""

    source: int
    how: str
    kernel: I64
    launch: I64


@dataclass(frozen=True)
class Graph:
    """One sequence of kernels that is replayed. kernels: of one replay. launches: how many replays.

    match: None where nothing fits; several: where more than one capture fits, of other operators or shapes.
    """

    kernels: int
    launches: int
    match: Match | None
    several: bool = False


@dataclass(frozen=True)
class Captures:
    """What is known of replayed kernels. Per GPU event: graph, row of graphs or NONE; source and launch, the row of
    that source's events, or NONE.
    """

    graphs: list[Graph] = field(default_factory=list)
    graph: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    source: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))
    launch: I64 = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


@dataclass(frozen=True)
class _Stretch:
    """Launches in order. token: number of the kernel's name, or _UNNAMED."""

    source: int
    how: str
    row: I64
    token: I64
    kind: I64


@dataclass(frozen=True)
class Host:
    """What replayed kernels may come from. columns: the events of a trace, and after them those of the traces with its
    captures, where these are others; traces: how many these are. Per GPU event: captured, the row of the launch at its
    capture or NONE, and capture_path, an index of paths.
    """

    columns: EventColumns
    traces: int
    captured: I64
    capture_path: I64
    paths: list[Path]


def host_of(traces: Sequence[tuple[EventColumns, Attribution]], found: Captures) -> Host:
    """The events that the launches of `found` are among; traces: the trace of the replays, then its sources."""
    used = int(found.source.max(initial=0)) + 1
    columns = [columns for columns, _ in traces[:used]]
    begins = np.cumsum([0, *map(len, columns)])
    known = found.launch != NONE
    captured = np.where(known, found.launch + begins[np.maximum(found.source, 0)], NONE)
    codes: dict[Path, int] = {(): 0}
    path = np.zeros(len(captured), dtype=np.int64)
    for at, (events, attribution) in enumerate(traces[:used]):
        mine = np.flatnonzero(found.source == at)
        row = found.launch[mine]
        open_then = attribution.regions.path[attribution.regions.open_at(events.thread[row], events.start_ns[row])]
        distinct, where = np.unique(open_then, return_inverse=True)
        named = [codes.setdefault(attribution.paths[code], len(codes)) for code in distinct.tolist()]
        path[mine] = np.array(named, dtype=np.int64)[where]
    whole = columns[0] if used == 1 else appended(columns[0], columns[1:])
    return Host(whole, used, captured, path, list(codes))


def replayed(columns: EventColumns, found: Attribution) -> npt.NDArray[np.bool_]:
    """Which GPU events a graph launch launched."""
    named = np.array([GRAPH_LAUNCH.search(name) is not None for name in columns.names] or [False], dtype=bool)
    linked = found.launch != NONE
    answer = np.zeros(len(found.event), dtype=bool)
    answer[linked] = named[columns.name[found.launch[linked]]]
    return answer


def find_captures(own: Source, others: Sequence[Source]) -> Captures:
    """The captured launch of each replayed kernel; own: the trace of the replays, which may hold the capture too."""
    columns, found = own.columns, own.found
    rows = np.flatnonzero(replayed(columns, found))
    nowhere = np.full(len(found.event), NONE, dtype=np.int64)
    if not len(rows):
        return Captures([], nowhere, nowhere, nowhere)
    codes: dict[str, int] = {}
    sources = [own, *others]
    names = np.array([codes.setdefault(name, len(codes)) for name in columns.names], dtype=np.int64)
    token, kind = names[columns.name[found.event]], _kinds(found)
    run = {columns.names[code] for code in np.unique(columns.name[found.event[rows]]).tolist()}
    kernels = {name: code for name, code in codes.items() if name in run}
    stretches = [part for at, source in enumerate(sources) for part in _stretches(at, source, codes, kernels)]
    graph, of_source, launch = nowhere.copy(), nowhere.copy(), nowhere.copy()
    graphs: list[Graph] = []
    for replays in _same_sequences(rows, found.launch[rows], token):
        first, number = replays[0], len(graphs)
        in_line = _in_line(columns, found, replays)
        match, several = _best(token[first], kind[first], in_line, stretches, sources)
        if match is not None and not in_line:
            match = _of_one_branch(match, columns, found, replays, token)
        graphs.append(Graph(len(first), len(replays), match, several))
        for replay in replays:
            graph[replay] = number
            if match is not None:
                of_source[replay[match.kernel]] = match.source
                launch[replay[match.kernel]] = match.launch
    return Captures(graphs, graph, of_source, launch)


def _kinds(found: Attribution) -> I64:
    table = np.array([_KINDS.get(label, 0) for label in found.categories] or [0], dtype=np.int64)
    return table[found.category]


def _same_sequences(rows: I64, launch: I64, token: I64) -> list[list[I64]]:
    """The GPU events of each graph launch by start, those with the same names in one list, in order of the first."""
    order = np.argsort(launch, kind="stable")  # GPU events come by start
    rows, launch = rows[order], launch[order]
    found: dict[bytes, list[I64]] = {}
    for replay in np.split(rows, np.flatnonzero(launch[1:] != launch[:-1]) + 1):
        found.setdefault(token[replay].tobytes(), []).append(replay)
    return list(found.values())


def _in_line(columns: EventColumns, found: Attribution, replays: Sequence[I64]) -> bool:
    """Whether the kernels run one after the other, so that their order is that of the capture."""
    for replay in replays:
        event = found.event[replay]
        start = columns.start_ns[event]
        reach = np.maximum.accumulate(start + columns.dur_ns[event])
        if (start[1:] < reach[:-1] - _OVERLAP_NS).any():
            return False
    return True


def _of_one_branch(
    match: Match, columns: EventColumns, found: Attribution, replays: Sequence[I64], token: I64
) -> Match | None:
    """Without the kernels whose name is on several streams: where branches overlap, they may be of either of them."""
    several = set[int]()
    for replay in replays:
        both = np.stack((token[replay], columns.integers["stream"][found.event[replay]]))
        names, streams = np.unique(np.unique(both, axis=1)[0], return_counts=True)
        several.update(names[streams > 1].tolist())
    kept = ~np.isin(token[replays[0]][match.kernel], list(several))
    return replace(match, kernel=match.kernel[kept], launch=match.launch[kept]) if kept.any() else None


def _stretches(at: int, source: Source, codes: dict[str, int], kernels: dict[str, int]) -> list[_Stretch]:
    """The captures of a trace, and per thread what it launched one by one; kernels: those that are replayed."""
    columns, found = source.columns, source.found
    called = [_BEGIN in name or _END in name for name in columns.names] or [False]
    stretches = []
    if any(called):
        stretches = _windows(at, source, kernels)
    linked = np.flatnonzero((found.launch != NONE) & ~replayed(columns, found))
    row = found.launch[linked]
    order = np.lexsort((linked, columns.start_ns[row], columns.thread[row]))
    linked, row = linked[order], row[order]
    name = np.array([codes.setdefault(name, len(codes)) for name in columns.names], dtype=np.int64)
    token, kind = name[columns.name[found.event[linked]]], _kinds(found)[linked]
    cuts = np.flatnonzero(np.diff(columns.thread[row])) + 1
    parts = (np.split(values, cuts) for values in (row, token, kind))
    return stretches + [_Stretch(at, EAGER, *part) for part in zip(*parts, strict=True) if len(part[0])]


def _windows(at: int, source: Source, kernels: dict[str, int]) -> list[_Stretch]:
    """The launches between the begin and the end of each capture; of Triton kernels the operator says the name.

    Those of a thread that captures nothing itself, as autograd's, are of the only capture that its process has open.
    """
    columns = source.columns
    calls = np.flatnonzero(columns.of_category(is_launch))
    calls = calls[np.argsort(columns.start_ns[calls], kind="stable")]
    owning = np.zeros(len(columns), dtype=bool)
    owning[source.found.launch[source.found.launch != NONE]] = True
    operators = nest_operators(columns)
    found: list[_Stretch] = []
    windows: dict[int, list[int]] = {}  # of the threads that capture
    until: dict[int, int] = {}
    for row, thread, start, dur, code in zip(
        calls.tolist(),
        columns.thread[calls].tolist(),
        columns.start_ns[calls].tolist(),
        columns.dur_ns[calls].tolist(),
        columns.name[calls].tolist(),
        strict=True,
    ):
        name = columns.names[code]
        if _BEGIN in name:
            windows[thread] = []
        elif _END in name:
            if window := windows.pop(thread, None):
                found.append(_window(at, columns, operators.at, operators.forest, np.array(window), kernels))
        elif windows and _LAUNCHES.search(name) and not owning[row] and start >= until.get(thread, start):
            process = columns.threads[thread][0]
            mine = [thread] if thread in windows else [one for one in windows if columns.threads[one][0] == process]
            if len(mine) == 1:
                windows[mine[0]].append(row)
                until[thread] = start + dur  # none inside another
    return found


def _window(
    at: int, columns: EventColumns, rows_of: Callable[[I64], I64], forest: Any, row: I64, kernels: dict[str, int]
) -> _Stretch:
    node = forest.innermost(columns.thread[row].astype(np.int64), columns.start_ns[row])
    operator = rows_of(node)
    kind, token = [], []
    for call, inside in zip(row.tolist(), operator.tolist(), strict=True):
        name = columns.names[columns.name[call]].lower()
        kind.append(1 if "memcpy" in name else 2 if "memset" in name else 0)
        token.append(kernels.get(columns.names[columns.name[inside]], _UNNAMED) if inside != NONE else _UNNAMED)
    return _Stretch(at, CAPTURE, row, np.array(token, dtype=np.int64), np.array(kind, dtype=np.int64))


def _best(
    token: I64, kind: I64, in_line: bool, stretches: Sequence[_Stretch], sources: Sequence[Source]
) -> tuple[Match | None, bool]:
    """The stretch that most kernels of a graph fit; whether several do that say other things."""
    found: list[Match] = []
    for stretch in stretches:
        pairs = (
            [_by_place(token, kind, stretch, in_line)]
            if stretch.how == CAPTURE
            else _by_name(token, kind, stretch, sources[stretch.source].given)
        )
        found += [Match(stretch.source, stretch.how, at, stretch.row[place]) for at, place in pairs if len(at)]
    if not found:
        return None, False
    most = max(len(match.kernel) for match in found)
    fits = [match for match in found if len(match.kernel) == most]
    if len(fits) > 1 and len({_says(match, sources[match.source]) for match in fits}) > 1:
        return None, True
    return fits[0], False


def _says(match: Match, source: Source) -> tuple[bytes, ...]:
    """The operators and their shapes that a match gives its kernels, to tell matches apart."""
    columns = source.columns
    operators = nest_operators(columns)
    node = operators.forest.innermost(columns.thread[match.launch].astype(np.int64), columns.start_ns[match.launch])
    row = operators.at(node)[node != ROOT]
    shapes = source.text("input_dims")
    names = [columns.names[code] for code in columns.name[row].tolist()]
    return (
        match.kernel.tobytes(),
        *(
            f"{name}{shapes.values[code]}".encode()
            for name, code in zip(names, shapes.codes[row].tolist(), strict=True)
        ),
    )


def _by_name(token: I64, kind: I64, stretch: _Stretch, given: bool) -> list[tuple[I64, I64]]:
    """Where the kernels were launched one by one: pairs of places, for each place where they may have been."""
    if not given and len(token) < _LEAST_OWN:
        return []
    begins: dict[int, int] = {}
    for gram in (_GRAM, _GRAM // 2, 2 if len(token) > 1 else 1) if given else (_GRAM,):
        if begins or gram > min(len(token), len(stretch.token)):
            continue
        wanted, there = _grams(token, gram), _grams(stretch.token, gram)
        order = np.argsort(there, kind="stable")
        low, high = (np.searchsorted(there[order], wanted, side) for side in ("left", "right"))
        rare = np.argsort(np.where(high > low, high - low, len(there) + 1), kind="stable")[:_TRIED]
        for at in rare.tolist():
            for place in order[low[at] : high[at]].tolist():
                begins[place - at] = begins.get(place - at, 0) + 1
    found = []
    if len(token) == 1 and len(begins) > _TRIED:  # too many to compare what each says
        return []
    for begin in sorted(begins, key=lambda begin: (-begins[begin], begin))[:_TRIED]:
        pairs = _filled(*_walk(token, stretch.token, begin), kind, stretch.kind, _OTHERS)
        if given or len(pairs[0]) >= _LEAST_SHARE * len(token):
            found.append(pairs)
    return found


def _grams(token: I64, length: int) -> npt.NDArray[np.uint64]:
    """A hash of each `length` tokens in a row."""
    value = np.zeros(len(token) - length + 1, dtype=np.uint64)
    for at in range(length):
        value = value * np.uint64(0x9E3779B97F4A7C15) + token[at : len(token) - length + 1 + at].astype(np.uint64)
    return value


def _walk(a: I64, b: I64, begin: int) -> tuple[I64, I64]:
    """Places of equal tokens in a and b, with as few left out on either side as can be, the rest of b aside.

    begin: where in b the first of a is to be. Myers' algorithm (An O(ND) difference algorithm, 1986): for each number
    of tokens left out, how far each diagonal reaches. None where more than _MOST_GAPS are left out.
    """
    skipped, start = max(0, -begin), max(0, begin)
    x, y = a[skipped:].tolist(), b[start : start + len(a) + _MOST_GAPS].tolist()
    reach: dict[int, int] = {1: 0}  # of each diagonal (place in a less place in b)
    before: list[dict[int, int]] = []
    for gaps in range(min(_MOST_GAPS, len(x) + len(y)) + 1):
        before.append(dict(reach))
        for diagonal in range(-gaps, gaps + 1, 2):
            down = diagonal == -gaps or (diagonal != gaps and reach[diagonal - 1] < reach[diagonal + 1])
            i = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
            while i < len(x) and 0 <= i - diagonal < len(y) and x[i] == y[i - diagonal]:
                i += 1
            reach[diagonal] = i
            if i >= len(x):
                first, second = _back(before, gaps, diagonal, min(i, len(x)))
                return first + skipped, second + start
    return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)


def _back(before: Sequence[dict[int, int]], gaps: int, diagonal: int, i: int) -> tuple[I64, I64]:
    """The pairs of the way that reached place i of this diagonal."""
    first, second = list[int](), list[int]()
    while gaps >= 0:
        reach = before[gaps]
        down = diagonal == -gaps or (diagonal != gaps and reach[diagonal - 1] < reach[diagonal + 1])
        since = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
        first += range(i - 1, since - 1, -1)
        second += range(i - 1 - diagonal, since - 1 - diagonal, -1)
        i, diagonal, gaps = (since, diagonal + 1, gaps - 1) if down else (since - 1, diagonal - 1, gaps - 1)
    return np.array(first[::-1], dtype=np.int64), np.array(second[::-1], dtype=np.int64)


def _by_place(token: I64, kind: I64, stretch: _Stretch, in_line: bool) -> tuple[I64, I64]:
    """Where a capture has each kernel: those with names, and between them the others where they are as many."""
    named = np.flatnonzero(stretch.token != _UNNAMED)
    mine = np.flatnonzero(np.isin(token, stretch.token[named]))
    first, second = _walk(token[mine], stretch.token[named], 0)
    first, second = mine[first], named[second]
    if not in_line:
        return first, second
    ends = (np.concatenate(([-1], first, [len(token)])), np.concatenate(([-1], second, [len(stretch.row)])))
    at, place = _filled(*ends, np.append(kind, 0), np.append(stretch.kind, 0), len(token))
    inside = (at >= 0) & (at < len(token))
    return at[inside], place[inside]


def _filled(first: I64, second: I64, kind: I64, other: I64, most: int) -> tuple[I64, I64]:
    """Pairs, and between two of them those in a gap that is as long on both sides, of the same kinds in order.

    most: kernels of a gap.
    """
    left, right = [first], [second]
    gap = np.flatnonzero((np.diff(first) == np.diff(second)) & (np.diff(first) > 1) & (np.diff(first) <= most + 1))
    for at in gap.tolist():
        a, b = np.arange(first[at] + 1, first[at + 1]), np.arange(second[at] + 1, second[at + 1])
        if (kind[a] == other[b]).all():
            left.append(a)
            right.append(b)
    a, b = np.concatenate(left), np.concatenate(right)
    order = np.argsort(a, kind="stable")
    return a[order], b[order]


def appended(columns: EventColumns, others: Sequence[EventColumns]) -> EventColumns:
    """The events of several traces as those of one, each with threads of its own; without arrows between them."""
    tables: dict[str, dict[str, int]] = {"name": {}, "category": {}}
    parts: dict[str, list[Any]] = {"name": [], "category": [], "thread": [], "start_ns": [], "dur_ns": []}
    threads: list[tuple[int | str, int | str]] = []
    for at, one in enumerate((columns, *others)):
        for key, labels in (("name", one.names), ("category", one.categories)):
            table = tables[key]
            code = np.array([table.setdefault(label, len(table)) for label in labels] or [0], dtype=np.int32)
            parts[key].append(code[getattr(one, key)])
        parts["thread"].append(one.thread + np.int32(len(threads)))
        parts["start_ns"].append(one.start_ns)
        parts["dur_ns"].append(one.dur_ns)
        threads += [(f"{at}:{pid}", tid) for pid, tid in one.threads]
    joined = {key: np.concatenate(values) for key, values in parts.items()}
    numbers = {key: np.concatenate([one.integers[key] for one in (columns, *others)]) for key in columns.integers}
    changed: dict[str, Any] = {**joined, "names": list(tables["name"]), "categories": list(tables["category"])}
    return replace(columns, **changed, integers=numbers, threads=threads, extra={})


def appended_text(columns: Sequence[TextColumn]) -> TextColumn:
    """An argument of the events of several traces, as of `appended`."""
    values: list[str] = []
    codes = []
    for one in columns:
        codes.append(one.codes + np.int32(len(values)))
        values += one.values
    return TextColumn(np.concatenate(codes), values)
