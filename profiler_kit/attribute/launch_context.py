"""Where on the host each GPU event came from: its operator, its nn.Module, and how long it waited.

Costs more than the attribution itself (it nests every operator), so nothing here runs until it is asked for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.links import NONE
from profiler_kit.attribute.regions import Attribution, Path, cut_into_pieces, paths_of
from profiler_kit.attribute.span_forest import ROOT, Forest, build_forest, depths, nesting_rank
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.categories import OPERATOR
from profiler_kit.load.trace.columns import EventColumns

MODULE_PREFIX: Final = "nn.Module: "  # of a python_function event (torch/csrc/autograd/profiler_python.cpp)
PYTHON: Final = "python_function"


@dataclass(frozen=True)
class NestedSpans:
    """Spans of one kind nested by thread; node k > 0 of the forest is row `event[k - 1]` of the events."""

    forest: Forest
    event: I64

    def at(self, node: I64) -> I64:
        """Row of the events for each node; NONE for ROOT."""
        found = np.full(len(node), NONE, dtype=np.int64)
        inside = node != ROOT
        found[inside] = self.event[node[inside] - 1]
        return found

    def outermost(self, node: I64, thread: I64, time: I64) -> I64:
        """The outermost span open at each moment, given the innermost one.

        All that is open is above the innermost one, but where spans overlap without nesting not all above is open.
        """
        at = self.forest.axis.place(thread, time)
        found, above = node.copy(), node
        rows = np.arange(len(node))
        while True:
            # climb one level; keep the ancestors still open at that moment, the last one kept is the outermost
            above = self.forest.parent[above]
            going = above != ROOT
            rows, above = rows[going], above[going]
            if not len(rows):
                return found
            still_open = self.forest.end[above] > at[rows]
            found[rows[still_open]] = above[still_open]


def nest_operators(columns: EventColumns) -> NestedSpans:
    """Nest the operators (cpu_op) of each thread."""
    return _nest(columns, columns.of_category(lambda category: category == OPERATOR))


def nest_modules(columns: EventColumns) -> NestedSpans:
    """Nest the calls of nn.Modules of each thread; there are none unless modules were recorded (`with_stack`)."""
    named = np.array([name.startswith(MODULE_PREFIX) for name in columns.names] or [False], dtype=bool)
    if not named.any():
        return _nest(columns, np.zeros(len(columns), dtype=bool))
    return _nest(columns, named[columns.name] & columns.of_category(lambda category: category == PYTHON), cut=True)


def nest_python(columns: EventColumns) -> NestedSpans:
    """Nest the Python functions of each thread; there are none unless stacks were recorded (`with_stack`)."""
    return _nest(columns, columns.of_category(lambda category: category == PYTHON))


def _nest(columns: EventColumns, chosen: Mask, *, cut: bool = False) -> NestedSpans:
    """Nest the chosen events. With `cut`, what outlives its parent goes on as a node of its own (see Regions)."""
    event = np.flatnonzero(chosen)
    start, end = columns.start_ns[event], columns.start_ns[event] + columns.dur_ns[event]
    rank = nesting_rank(columns, event)
    if not cut:
        forest = build_forest(columns.thread[event].astype(np.int64), start, end, rank)
        return NestedSpans(forest, event[forest.span[1:]])
    order = np.argsort(rank)
    event, start, end = event[order], start[order], end[order]
    forest, instance, _ = cut_into_pieces(columns.thread[event].astype(np.int64), start, end)
    return NestedSpans(forest, event[instance[1:]])


@dataclass(frozen=True)
class OperatorCalls:
    """One row per operator call on the host, by thread and start.

    depth counts the operators above it; parent is a row of this table or NONE.
    """

    event: I64
    self_ns: I64
    depth: I64
    parent: I64


def operator_calls(columns: EventColumns, nested: NestedSpans) -> OperatorCalls:
    """Each operator's own time: that in which it is the innermost one open on its thread.

    The own times of a thread add up to the time it spent in operators, also where these overlap without nesting.
    """
    event, forest = nested.event, nested.forest
    start, end = columns.start_ns[event], columns.start_ns[event] + columns.dur_ns[event]
    parent = forest.parent[1:]
    # nodes count from 1 (ROOT is 0), rows from 0: take each child's time, cut at its parent's end, off the parent
    child = np.flatnonzero(parent != ROOT)
    above = parent[child] - 1
    self_ns = columns.dur_ns[event].copy()
    np.subtract.at(self_ns, above, np.minimum(end[child], end[above]) - start[child])
    outlives = end[child] > end[above]  # as an asynchronous operator does
    child, above = child[outlives], above[outlives]
    outer = _open_after(forest)[1:] if len(child) else parent
    while len(child):
        # the rest of its time is off what is around its parent and still open, which may end before it too
        since, above = end[above], outer[above] - 1
        inside = above >= 0
        child, above, since = child[inside], above[inside], since[inside]
        np.subtract.at(self_ns, above, np.minimum(end[child], end[above]) - since)
        outlives = end[child] > end[above]
        child, above = child[outlives], above[outlives]
    return OperatorCalls(event, self_ns, depths(forest.parent)[1:], parent - 1)


def _open_after(forest: Forest) -> I64:
    """Of each node the nearest one above it that ends after it, by pointer jumping; ROOT never ends."""
    outer, end = forest.parent.copy(), forest.end
    closed = np.flatnonzero((end[outer] <= end) & (outer != ROOT))
    while len(closed):
        outer[closed] = outer[outer[closed]]
        closed = closed[(end[outer[closed]] <= end[closed]) & (outer[closed] != ROOT)]
    return outer


@dataclass(frozen=True)
class LaunchContexts:
    """One row per GPU event, as in Attribution. Events are rows of the trace's events, NONE where there is none.

    modules is an index of module_paths. Times are MISSING where they cannot be told; see kernel_details for what
    they mean.
    """

    operator: I64
    outer_operator: I64
    module: I64
    modules: I64
    module_paths: list[Path]
    launch_end_ns: I64
    since_launch_ns: I64
    launch_delay_ns: I64
    queue_ns: I64
    latency_ns: I64
    previous_end_ns: I64


def find_launch_contexts(
    columns: EventColumns, found: Attribution, operators: NestedSpans, captured: I64
) -> LaunchContexts:
    """The operator, module and delays of every GPU event.

    captured: of each, the row of the launch at the capture of its graph, or NONE; columns may go on with the events of
    the traces that hold these.
    """
    linked = found.links.origin != NONE
    replays = (captured != NONE)[linked]

    def moments(rows: I64) -> tuple[I64, I64]:
        return columns.thread[rows].astype(np.int64), columns.start_ns[rows]

    origin = found.links.origin[linked]
    launched = moments(origin)
    thread, start = moments(np.where(replays, captured[linked], origin))

    def spread_out(of_linked: I64) -> I64:
        """One value per GPU event from one per linked event; ROOT for the others."""
        rows = np.full(len(linked), ROOT, dtype=np.int64)
        rows[linked] = of_linked
        return rows

    node = operators.forest.innermost(thread, start)
    by_operator = np.flatnonzero((found.launch == NONE)[linked])
    if len(by_operator):  # the origin is the operator itself
        node_of = np.full(len(columns), ROOT, dtype=np.int64)
        node_of[operators.event] = np.arange(1, len(operators.event) + 1)
        node[by_operator] = node_of[origin[by_operator]]
    outer = node
    if replays.any():
        outer = np.where(replays, operators.forest.innermost(*launched), node)
    modules = nest_modules(columns)
    module = spread_out(modules.forest.innermost(thread, start))
    names = [name.removeprefix(MODULE_PREFIX) for name in columns.names]
    path, paths = paths_of(modules.forest.parent, columns.name[modules.event].astype(np.int64), names, [()])
    return LaunchContexts(
        operator=operators.at(spread_out(node)),
        outer_operator=operators.at(spread_out(operators.outermost(outer, *launched))),
        module=modules.at(module),
        modules=path[module],
        module_paths=paths,
        **_delays(columns, found),
    )


def _delays(columns: EventColumns, found: Attribution) -> dict[str, I64]:
    start = columns.start_ns[found.event]
    end = start + columns.dur_ns[found.event]
    linked = found.launch != NONE
    # any row will do where there is no launch: the result is masked below
    launch = np.where(linked, found.launch, 0)
    launch_start = columns.start_ns[launch] if len(columns) else start
    launch_end = launch_start + columns.dur_ns[launch] if len(columns) else end
    stream, device, correlation = (columns.integers[name][found.event] for name in ("stream", "device", "correlation"))
    previous = previous_end(stream_codes(found.links.process, device, stream), start, end, correlation)
    delay = np.maximum(start - launch_end, 0)
    # how long after the launch call returned the stream was still busy with earlier work, up to the event's start
    waited = np.minimum(np.where(previous == MISSING, launch_end, previous), start) - launch_end
    queue = np.maximum(waited, 0)
    queued = linked & (stream != MISSING)
    return {
        "launch_end_ns": np.where(linked, launch_end, MISSING),
        "since_launch_ns": np.where(linked, np.maximum(start - launch_start, 0), MISSING),
        "launch_delay_ns": np.where(linked, delay, MISSING),
        "queue_ns": np.where(queued, queue, MISSING),
        "latency_ns": np.where(queued, delay - queue, MISSING),
        "previous_end_ns": np.where(stream != MISSING, previous, MISSING),
    }


def previous_end(stream: I64, start: I64, end: I64, tie: I64) -> I64:
    """When everything before each event on its stream had ended; MISSING for the first event of a stream.

    Events of a stream are taken by start, then by end and tie. Where they overlap the latest end so far counts.
    """
    order = np.lexsort((tie, end, start, stream))
    group = stream[order]
    # latest end so far on each stream; an event's predecessors end at the value one place before it
    reach = pd.Series(end[order]).groupby(group).cummax().to_numpy()
    first = np.concatenate(([True], group[1:] != group[:-1]))[: len(order)]
    previous = np.full(len(order), MISSING, dtype=np.int64)
    previous[order[1:]] = np.where(first[1:], MISSING, reach[:-1])
    return previous


def codes_of(values: pd.Series[str]) -> I64:
    """The codes of a categorical column."""
    return np.asarray(values.cat.codes.to_numpy(), dtype=np.int64)


def stream_codes(process: I64, device: I64, stream: I64) -> I64:
    """A number for each (process, device, stream)."""
    code = np.zeros(len(stream), dtype=np.int64)
    for key in (process, device, stream):
        if len(key) and (key != key[0]).any():
            keys, number = np.unique(key, return_inverse=True)
            # the numbers stay below the number of rows, so that no product overflows
            code = np.unique(code * len(keys) + number, return_inverse=True)[1]
    return code
