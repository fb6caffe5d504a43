"""Attribute GPU work to the regions that launched it: one region path per GPU event.

The rules (DESIGN.md, Attribution): a GPU event belongs to the launch with its correlation id; the launch belongs
to the stack of regions (`record_function`) open on its thread at its start; what autograd's backward threads
launch nests below the regions of the thread that called backward.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from profiler_kit.attribute.autograd_threads import BackwardThreads, find_backward
from profiler_kit.attribute.believable import BELIEVED, UNTIMED, doubt
from profiler_kit.attribute.gpu_work import categories_of, communication_of
from profiler_kit.attribute.links import NONE, Links, find_links
from profiler_kit.attribute.span_forest import ROOT, Forest, build_forest, depths, nesting_rank
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.load.trace.categories import KERNEL, MTIA_KERNEL, REGION, STEP_PREFIX, is_gpu_work
from profiler_kit.load.trace.columns import EventColumns

Path = tuple[str, ...]

NO_REGION: Final[Path] = ("(no region)",)
UNLINKED: Final[Path] = ("(unlinked)",)
NO_REGION_PATH, UNLINKED_PATH, NO_FORWARD_PATH = 0, 1, 2  # where Attribution.paths has them, and the empty path
_NEVER: Final = np.iinfo(np.int64).max
_BUDGET: Final = 20_000_000  # pieces nested again and again, over all rounds: some seconds


@dataclass(frozen=True)
class Instances:
    """One row per region that was opened, by start. parent is a row of this table or NONE, path an index of paths."""

    event: I64
    name: list[str]
    step: I64  # MISSING where the name has none
    parent: I64
    path: I64
    thread: I64
    start_ns: I64
    end_ns: I64
    gpu_start_ns: I64  # MISSING where nothing was launched inside
    gpu_end_ns: I64


@dataclass(frozen=True)
class LeftOut:
    """GPU events whose time cannot be believed (believable.py). One row each, as Attribution's; untimed: it has none,
    else its duration is impossible.
    """

    event: I64
    launch: I64
    path: I64
    untimed: npt.NDArray[np.bool_]
    overrun_ns: I64  # MISSING where unknown, as room_ns
    room_ns: I64


@dataclass(frozen=True)
class Attribution:
    """One row per GPU event with a time, by start. launch is a row of the events or NONE, instance one of instances.

    category is an index of categories, communication of rules (gpu_work.py; 0 where it is none).
    path and forward_path are indices of paths, which begin with NO_REGION, UNLINKED and the empty path (a forward
    path that is not known). part is a row of parts or NONE: the stretches of the instances, each with the path it has
    then. They are the instances themselves where no regions straddle.
    """

    event: I64
    links: Links
    instance: I64
    part: I64
    path: I64
    forward_path: I64
    paths: list[Path]
    instances: Instances
    parts: Instances
    regions: Regions
    category: I64
    categories: list[str]
    communication: I64
    rules: list[str]
    left_out: LeftOut

    @property
    def launch(self) -> I64:
        """The call that launched each GPU event: a row of the events or NONE."""
        return self.links.launch

    def part_at(self, thread: npt.NDArray[np.int32], time: I64) -> I64:
        """The part that is the innermost open at each moment; NONE outside every region."""
        node = self.regions.open_at(thread, time)
        return self.regions.instance[node] if self.parts is self.instances else node - 1


def attribute(columns: EventColumns, users: Sequence[re.Pattern[str]] = ()) -> Attribution:
    """Attribute every GPU event of a trace; nothing disappears, every row has a path.

    users: names of kernels and operators that communicate, beside those that are known.
    """
    gpu = np.flatnonzero(columns.of_category(is_gpu_work))
    gpu = gpu[np.argsort(columns.start_ns[gpu], kind="stable")]
    links = find_links(columns, gpu)
    regions = Regions.of(columns, links.processes.on_host)
    launch, linked = links.launch, links.launch != NONE
    launched = np.where(linked, columns.start_ns[np.where(linked, launch, 0)], MISSING) if len(gpu) else gpu
    doubts = doubt(columns, gpu, launched, links.process)
    linked = links.origin != NONE
    thread, start = (column[links.origin[linked]] for column in (columns.thread, columns.start_ns))
    node = np.zeros(len(gpu), dtype=np.int64)
    node[linked] = regions.open_at(thread, start)
    path = np.where(linked, regions.path[node], UNLINKED_PATH)
    forward = np.full(len(gpu), NO_FORWARD_PATH, dtype=np.int64)
    forward[linked] = regions.forward_path(thread, start)
    left = doubts.verdict != BELIEVED
    untimed = doubts.verdict[left] == UNTIMED
    left_out = LeftOut(gpu[left], launch[left], path[left], untimed, doubts.overrun_ns[left], doubts.room_ns[left])
    gpu, launch, node, path, forward = (values[~left] for values in (gpu, launch, node, path, forward))
    links = links.of(~left)
    category, categories = categories_of(columns, gpu)
    kernel = np.array([label in (KERNEL, MTIA_KERNEL) for label in categories], dtype=bool)[category]
    communication, rules = communication_of(columns, gpu, launch, kernel, users)
    end_ns = columns.start_ns[gpu] + columns.dur_ns[gpu]
    instances, parts = regions.instances(columns, node, columns.start_ns[gpu], end_ns)
    instance = regions.instance[node]
    return Attribution(
        event=gpu,
        links=links,
        instance=instance,
        part=instance if parts is instances else node - 1,
        path=path,
        forward_path=forward,
        paths=regions.paths,
        instances=instances,
        parts=parts,
        regions=regions,
        category=category,
        categories=categories,
        communication=communication,
        rules=rules,
        left_out=left_out,
    )


@dataclass(frozen=True)
class Regions:
    """The regions of a trace as a forest of pieces.

    A region is one piece unless it straddles another, that is, each is open for some time without the other. Then the
    one that is the inner by stack_order is cut where the outer one begins or ends, so that the path of a moment names
    just the regions open then, always in the same order. Pieces are nodes of the forest, node 0 is ROOT;
    parent may lead to another thread (backward threads). instance and path hold one entry per node.
    """

    forest: Forest
    parent: I64
    instance: I64
    path: I64
    paths: list[Path]
    event: I64  # per instance, by start
    first: I64  # node of each instance's first piece
    name: list[str]  # per instance
    step: I64
    backward: BackwardThreads
    shortened: int  # pieces closed early, see cut_into_pieces

    @staticmethod
    def of(columns: EventColumns, process: I64) -> Regions:
        """Find and nest the regions of a trace; process is that of each thread."""
        event = np.flatnonzero(columns.of_category(lambda category: category == REGION))
        # from here on by start, the outer one first
        event = event[np.argsort(nesting_rank(columns, event))]
        names, step = _step_names([columns.names[code] for code in columns.name[event].tolist()])
        thread, start = columns.thread[event].astype(np.int64), columns.start_ns[event]
        end = start + columns.dur_ns[event]
        forest, instance, shortened = cut_into_pieces(thread, start, end)
        if len(instance) - 1 > len(event):  # some straddle
            order = stack_order(forest, instance, thread, end, names)
            forest, instance, shortened = cut_into_pieces(thread, start, end, order)
        backward = find_backward(columns, event, process)
        parent = _across_threads(columns, forest, event[instance[1:]], backward)
        first = np.full(len(event), ROOT, dtype=np.int64)
        first[instance[:0:-1]] = np.arange(len(instance) - 1, 0, -1)  # the lowest node of an instance wins
        codes: dict[str, int] = {}
        by_node = [codes.setdefault(names[row], len(codes)) for row in instance[1:].tolist()]
        path, paths = paths_of(parent, np.array(by_node, dtype=np.int64), list(codes), [NO_REGION, UNLINKED, ()])
        return Regions(forest, parent, instance, path, paths, event, first, names, step, backward, shortened)

    def open_at(self, thread: npt.NDArray[np.int32], time: I64) -> I64:
        """Node of the innermost region open at each moment, the caller's on a backward thread; else ROOT."""
        node = self.forest.innermost(thread.astype(np.int64), time)
        outside = np.flatnonzero(node == ROOT)
        caller = self.backward.caller(thread[outside], time[outside])
        called = caller != NONE
        node[outside[called]] = self.forest.innermost(caller[called], time[outside[called]])
        return node

    def forward_path(self, thread: npt.NDArray[np.int32], time: I64) -> I64:
        """Path of the forward region of the operator whose backward runs then; NO_FORWARD_PATH where not known."""
        path = np.full(len(time), NO_FORWARD_PATH, dtype=np.int64)
        operator_thread, operator_start = self.backward.forward(thread, time)
        known = np.flatnonzero(operator_thread != NONE)
        path[known] = self.path[self.forest.innermost(operator_thread[known], operator_start[known])]
        return path

    def instances(self, columns: EventColumns, node: I64, start_ns: I64, end_ns: I64) -> tuple[Instances, Instances]:
        """The instances and their parts, with the span of what each launched (node, start, end of each GPU event)."""
        first_start = np.full(len(self.parent), np.iinfo(np.int64).max)
        last_end = np.full(len(self.parent), np.iinfo(np.int64).min)
        np.minimum.at(first_start, node, start_ns)
        np.maximum.at(last_end, node, end_ns)
        # first start and last end of each node, so far of its own events; deepest level first, each node hands them up
        depth = depths(self.parent)
        for level in range(int(depth.max()), 0, -1):
            nodes = np.flatnonzero(depth == level)
            np.minimum.at(first_start, self.parent[nodes], first_start[nodes])
            np.maximum.at(last_end, self.parent[nodes], last_end[nodes])
        gpu_start = np.full(len(self.event), np.iinfo(np.int64).max)
        gpu_end = np.full(len(self.event), np.iinfo(np.int64).min)
        # an instance launched what its pieces launched
        np.minimum.at(gpu_start, self.instance[1:], first_start[1:])
        np.maximum.at(gpu_end, self.instance[1:], last_end[1:])
        nothing = gpu_start > gpu_end
        instances = Instances(
            event=self.event,
            name=self.name,
            step=self.step,
            parent=self.instance[self.parent[self.first]],
            path=self.path[self.first],
            thread=columns.thread[self.event].astype(np.int64),
            start_ns=columns.start_ns[self.event],
            end_ns=columns.start_ns[self.event] + columns.dur_ns[self.event],
            gpu_start_ns=np.where(nothing, MISSING, gpu_start),
            gpu_end_ns=np.where(nothing, MISSING, gpu_end),
        )
        if len(self.parent) - 1 == len(self.event):
            return instances, instances
        row, nothing = self.instance[1:], first_start[1:] > last_end[1:]
        times = self.forest.axis
        parts = Instances(
            event=self.event[row],
            name=[self.name[one] for one in row.tolist()],
            step=self.step[row],
            parent=self.parent[1:] - 1,
            path=self.path[1:],
            thread=instances.thread[row],
            start_ns=times.time_of(instances.thread[row], self.forest.start[1:]),
            end_ns=times.time_of(instances.thread[row], self.forest.end[1:]),
            gpu_start_ns=np.where(nothing, MISSING, first_start[1:]),
            gpu_end_ns=np.where(nothing, MISSING, last_end[1:]),
        )
        return instances, parts


def _step_names(names: list[str]) -> tuple[list[str], I64]:
    """ProfilerStep#3 is the region ProfilerStep, step 3: otherwise there would be as many paths as steps."""
    steps = np.full(len(names), MISSING, dtype=np.int64)
    plain: list[str] = []
    for row, name in enumerate(names):
        number = name.removeprefix(STEP_PREFIX)
        if number != name and number.isascii() and number.isdigit() and len(number) < 19:
            steps[row] = int(number)
            name = STEP_PREFIX[:-1]
        plain.append(name)
    return plain, steps


def stack_order(forest: Forest, instance: I64, thread: I64, end: I64, names: list[str]) -> I64:
    """The place of each region in the stack of those open with it, outer ones lower, where some straddle.

    Takes the regions outer first, and the forest of their pieces cut in that order. Of two regions that straddle, the
    outer one is of the name that is ahead on their thread: ProfilerStep, else the one that was opened first. So it
    stays whenever regions of these two names are open together. Names that never straddle nest as they contain each
    other: a name comes no later than any that it contains in this way.
    """
    codes: dict[tuple[int, str], int] = {}
    name = np.array([codes.setdefault(one, len(codes)) for one in zip(thread.tolist(), names, strict=True)])
    place = np.arange(len(codes))  # the first of each name, as regions come by start
    place[[code for (_, spelled), code in codes.items() if spelled == STEP_PREFIX[:-1]]] = -1
    # every two regions that are open together: one has a piece somewhere above a piece of the other
    pairs: dict[bool, list[I64]] = {True: [], False: []}
    node = np.arange(1, len(instance))
    above = forest.parent[node]
    work = 0
    while (above != ROOT).any() and work < _BUDGET:
        node, above = node[above != ROOT], above[above != ROOT]
        work += len(node)
        inner, outer = instance[node], instance[above]
        straddles = end[inner] > end[outer]
        key = name[outer] * len(codes) + name[inner]
        for kind, found in pairs.items():
            found.append(np.unique(key[straddles == kind]))
        above = forest.parent[above]
    straddling, containing = np.concatenate(pairs[True]), np.unique(np.concatenate(pairs[False]))
    back = straddling % len(codes) * len(codes) + straddling // len(codes)
    containing = containing[~np.isin(containing, np.concatenate((straddling, back)))]
    outer, inner = containing // len(codes), containing % len(codes)
    while (place[outer] > place[inner]).any():
        np.minimum.at(place, outer, place[inner])
    order = np.empty(len(name), dtype=np.int64)
    order[np.argsort(place[name], kind="stable")] = np.arange(len(name))
    return order


def cut_into_pieces(thread: I64, start: I64, end: I64, order: I64 | None = None) -> tuple[Forest, I64, int]:
    """Nest regions given outer first; return the forest of pieces and the instance of each node (NONE for ROOT).

    order: of each region, its place in the stack of those open with it; that of the regions if it is not given. Each
    round cuts every parent that should be the inner one where the piece begins, and every other piece that outlives its
    parent at the parent's end; what is cut off begins anew there. The pieces of n regions of which k are open at once
    number n x k. When _BUDGET is spent, what still outlives its parent is closed with it, so that no path ever names a
    region that is not open; the third value says how many pieces that shortened.
    """
    instance = order_of = np.arange(len(start))
    if order is not None:
        order_of = order
    work = 0
    while True:
        rank = order_of[instance]
        forest = build_forest(thread, start, end, rank)
        span = forest.span
        child = np.flatnonzero(forest.parent != ROOT)
        piece, above = span[child], span[forest.parent[child]]
        swapped = rank[piece] < rank[above]
        late = ~swapped & (end[piece] > end[above])  # what should be the outer one stays whole
        # where each piece is cut first, if anywhere
        cut = np.full(len(start), _NEVER)
        np.minimum.at(cut, piece[late], end[above[late]])
        np.minimum.at(cut, above[swapped], start[piece[swapped]])
        piece = np.flatnonzero(cut != _NEVER)
        work += len(start)
        if not len(piece) or work + len(start) + len(piece) > _BUDGET + 2 * len(start):
            break
        thread = np.concatenate((thread, thread[piece]))
        start = np.concatenate((start, cut[piece]))
        instance = np.concatenate((instance, instance[piece]))
        end = np.concatenate((end, end[piece]))
        end[piece] = cut[piece]
    if len(piece):
        forest = build_forest(thread, start, np.maximum(_closed_with_parents(forest, end), start), rank)
    return forest, np.concatenate(([NONE], instance[forest.span[1:]])), len(piece)


def _closed_with_parents(forest: Forest, end: I64) -> I64:
    """The end of each span, no later than that of any span it is nested in; by pointer doubling."""
    # earliest end of each node and of its ancestors up to `above`, which moves twice as far up in each round
    first = np.concatenate(([np.iinfo(np.int64).max], end[forest.span[1:]]))
    above = forest.parent
    while above.any():
        first = np.minimum(first, first[above])
        above = above[above]
    closed = end.copy()
    closed[forest.span[1:]] = first[1:]
    return closed


def _across_threads(columns: EventColumns, forest: Forest, event: I64, backward: BackwardThreads) -> I64:
    """Parents, with the outermost regions of backward threads hung below what their caller has open."""
    parent = forest.parent.copy()
    # nodes count from 1 (ROOT is 0), `event` from 0
    outermost = np.flatnonzero(parent[1:] == ROOT) + 1
    thread = columns.thread[event[outermost - 1]]
    start = columns.start_ns[event[outermost - 1]]
    caller = backward.caller(thread, start)
    called = caller != NONE
    parent[outermost[called]] = forest.innermost(caller[called], start[called])
    return parent


def paths_of(parent: I64, name: I64, spelled: Sequence[str], fixed: list[Path]) -> tuple[I64, list[Path]]:
    """Path of each node of a forest as an index, and the paths.

    name: of each node but ROOT, an index of spelled. The paths begin with `fixed`, whose first is ROOT's.
    """
    known = {path: code for code, path in enumerate(fixed)}
    paths = list(fixed)
    path = np.zeros(len(parent), dtype=np.int64)
    depth = depths(parent)
    # ROOT has depth 0 like the outermost regions: place those first, then level by level
    nodes = np.flatnonzero(depth[1:] == 0) + 1
    level = 0
    while len(nodes):
        above = path[parent[nodes]]
        # one integer per (path of the parent, own name), so that each distinct path is built once, in Python
        key, where = np.unique(above * len(spelled) + name[nodes - 1], return_inverse=True)
        code = []
        for one in key.tolist():
            up, last = divmod(one, len(spelled))
            here = (*(() if up == 0 else paths[up]), spelled[last])
            code.append(known.setdefault(here, len(known)))
            if len(known) > len(paths):
                paths.append(here)
        path[nodes] = np.array(code, dtype=np.int64)[where]
        level += 1
        nodes = np.flatnonzero(depth == level)
    return path, paths
