"""The ranks of a job on one clock, and what each did against those that run the same program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.ranks.clocks import Clocks, clocks, components
from profiler_kit.analyses.ranks.matching import PAIRWISE, UNEVEN, Matched, medians, numbered
from profiler_kit.analyses.ranks.of_rank import UNKNOWN
from profiler_kit.analyses.ranks.replay import NONE, Seen, program_of
from profiler_kit.load.integers import F64, I64, Mask

PIECES: Final = ("compute", "copies", "host", "data", "other")
MOST_PEERS: Final = 8
PARTS: Final = 10  # of a job without steps to draw from


class Job:
    """Every row is a kernel of JOB_WORK, with the work of its rank before it was ready for it (`program.own`).

    typical: that of its peers; more: the difference, 0 where there is nothing to compare with (`compared`), except what
    a rank was late to its first collective (`late_at_first`). own: the work that is replayed.

    role: ranks with the same number run the same program. blocks: the part of the job that each collective is in, by
    `block_names`, which are steps, or None where too few were recorded.

    is_split: of each row whether it is known what its work was, which is not so around lost kernels (lost.py).
    """

    def __init__(
        self, work: pd.DataFrame, matched: Matched, nodes: Mapping[int, str], is_split: Mask | None = None
    ) -> None:
        self.matched, self.nodes = matched, nodes
        self.is_split = np.ones(len(work), dtype=bool) if is_split is None else is_split
        self.ids, self.rank = np.unique(work["rank"].to_numpy(), return_inverse=True)
        self.ranks = len(self.ids)
        operation = work["operation"]
        self.operation = operation.cat.codes.to_numpy().astype(np.int64)
        self.operations = [str(name) for name in operation.cat.categories]
        self.dtype = work["dtype"].cat.codes.to_numpy().astype(np.int64)
        self.bytes, self.step = work["bytes"].to_numpy(), work["step"].to_numpy()
        self.is_matched = matched.collective != UNKNOWN
        self.took = (work["end_ns"] - work["start_ns"]).to_numpy()
        self.first = first = int(work["start_ns"].min()) if len(work) else 0
        arrive, start, end = (
            (work[name].to_numpy() - first).astype(np.float64) for name in ("arrive_ns", "start_ns", "end_ns")
        )
        self.clocks = self._clocks(end)
        arrive, start, end = (self.clocks.correct(self.rank, time) for time in (arrive, start, end))
        # each component from its own first arrival
        self._origin = np.full(self.ranks + 1, np.inf)
        np.minimum.at(self._origin, self.clocks.component[self.rank], arrive)
        arrive, start, end = (time - self._origin[self.clocks.component[self.rank]] for time in (arrive, start, end))
        alone = np.cumsum(~self.is_matched) + (int(matched.collective.max()) if len(work) else 0)
        self.number = np.where(self.is_matched, matched.collective, alone)
        self.role = self._roles()
        self.wait, self.last = self._waits()
        seen = Seen(self.wait, work["held_ns"].to_numpy(), self.step)
        stream = work["stream"].to_numpy()
        self.program = program_of(self.rank, self.number, stream, self.role, arrive, start, end, seen)
        # of one place: who began to record later has other collectives at the same level, until it meets the others
        what = self._told_apart(self.operation), self.step
        self._place = numbered(self.program.level, self.role[self.rank], *what)
        before = self.program.before
        since = np.where(before == NONE, NONE, self.program.level[before]) if len(work) else before
        # alike is what is before the same collective since the same one before
        self.alike = numbered(self._place, since)
        self.pieces = self._pieces(work)
        self.typical, self.compared = self.typical_of(self.program.own)
        self.late_at_first = self._late_at_first()
        self.more = np.where(self.compared, self.program.own - self.typical, self.late_at_first)
        self.own = self._replayed()
        self.base = self.program.run(self.own, self.program.transfer)
        self.shared = np.bincount(self.program.collective, minlength=len(self.base)) > 1  # of each collective
        self.blocks, self.block_names = self._blocks()

    def _clocks(self, end: F64) -> Clocks:
        rows = np.flatnonzero(self.is_matched)
        weights = np.array([0.1 if name in (*PAIRWISE, *UNEVEN) else 0.3 if name == "alltoall" else 1.0
                            for name in self.operations] or [1.0])  # fmt: skip
        return clocks(
            self.rank[rows], self.matched.collective[rows], end[rows], weights[self.operation[rows]], self.ranks
        )

    def by_own_clock(self, place: I64, time: F64) -> I64:
        """Times of the program as Unix times by the clocks of the ranks at these places."""
        told = self.clocks
        drift = told.drift[place]
        time = time + self._origin[told.component[place]] + told.offset[place] - drift * told.middle_ns[place]
        return self.first + np.round(time / (1 - drift)).astype(np.int64)

    def _roles(self) -> I64:
        """Ranks that run the same program: the same operations in the same kinds of groups; in a pipeline, of a stage.

        A stage is what is joined by other things than sends and receives, and not by groups of all ranks.
        """
        group, sizes = self.matched.group, np.append(self.matched.groups["size"].to_numpy(), 0)
        known = self.is_matched & (group != UNKNOWN)
        told = self._told_apart(self.operation, self.dtype) if known.all() else numbered(self.operation, self.dtype)
        width = int(told.max()) + 1 if len(told) else 1
        used = np.unique(self.rank * width + told)
        sets: dict[int, list[int]] = {}
        for one in used.tolist():
            sets.setdefault(one // width, []).append(one % width)
        label = np.arange(self.ranks)
        pairwise = np.array([name in PAIRWISE for name in self.operations] or [False])[self.operation]
        # kernels of all-to-all have the name of sends and receives
        of_more = np.unique(group[known & pairwise & (np.bincount(self.number)[self.number] > 2)])
        pairwise &= ~np.isin(group, of_more)
        if pairwise.any():
            joins = known & ~pairwise & (sizes[group] < max(self.ranks, 2))
            numbers, collective = np.unique(self.matched.collective[joins], return_inverse=True)
            label = components(self.rank[joins], collective, self.ranks, len(numbers))
        else:
            label = np.zeros(self.ranks, dtype=np.int64)
        keys: dict[tuple[int, tuple[int, ...]], int] = {}
        return np.array(
            [keys.setdefault((int(label[at]), tuple(sets.get(at, ()))), len(keys)) for at in range(self.ranks)],
            dtype=np.int64,
        )

    def typical_of(self, value: F64) -> tuple[F64, Mask]:
        """What the median of a rank's peers has at the same collective, and whether there is any.

        A rank that has none is compared with itself in other steps.
        """
        program = self.program
        if not len(value):
            return value, np.zeros(0, dtype=bool)
        key = self.alike
        keys = int(key.max()) + 1
        counts = np.bincount(key, minlength=keys)[key]
        found = medians(key, value, keys)[key]
        # of few, the others alone: the median of two is one of them
        few = np.flatnonzero((counts > 1) & (counts < 4))
        sums, lowest, highest = (np.zeros(keys), np.full(keys, np.inf), np.full(keys, -np.inf))
        np.add.at(sums, key[few], value[few])
        np.minimum.at(lowest, key[few], value[few])
        np.maximum.at(highest, key[few], value[few])
        other = sums[key[few]] - value[few]
        # of two others the lower one
        lower = np.where(value[few] == lowest[key[few]], other - highest[key[few]], lowest[key[few]])
        found[few] = np.where(counts[few] == 2, other, lower)
        compared = counts > 1
        own = np.flatnonzero(~compared & (program.place != NONE))
        if len(own):
            width = int(program.place.max()) + 1
            same, place = np.unique(self.rank[own] * width + program.place[own], return_inverse=True)
            often = np.bincount(place)[place] > 2
            found[own] = medians(place, value[own], len(same))[place]
            compared[own] = often
        # before its first collective a rank did what is not all in the recording
        compared &= program.before != NONE
        return np.where(compared, found, value), compared

    def _replayed(self) -> F64:
        """The own work of each row; none before a rank's first collective where its peers recorded earlier ones: what
        it waited for then is in that.
        """
        program, role = self.program, self.role[self.rank]
        begun = np.full(int(self.role.max(initial=0)) + 1, program.level.max(initial=0))
        np.minimum.at(begun, role, program.level)
        late = (program.before == NONE) & (program.level > begun[role])
        return np.where(late, self.late_at_first, program.own)

    def _late_at_first(self) -> F64:
        """How much later than its peers a rank came to its first collective, at most what it has more there in other
        steps: what was before is not all in the recording.
        """
        program, found = self.program, np.zeros(len(self.rank))
        first = np.flatnonzero((program.before == NONE) & (program.place != NONE))
        if not len(first):
            return found
        key = self._place
        peers = np.flatnonzero(np.bincount(key)[key] > 1)
        usual = medians(key[peers], program.arrive[peers], int(key.max()) + 1)[key[first]]
        place = numbered(self.rank, program.place)
        other = np.flatnonzero(self.compared)
        more = medians(place[other], (program.own - self.typical)[other], int(place.max()) + 1)[place[first]]
        found[first] = np.nan_to_num(np.maximum(np.minimum(program.arrive[first] - usual, more), 0.0))
        return found

    def _pieces(self, work: pd.DataFrame) -> F64:
        """What each row's own work was, one line for each of PIECES."""
        program = self.program
        before = np.stack([work[f"before_{name}_ns"].to_numpy() for name in PIECES]).astype(np.float64)
        under = np.stack([work[f"under_{name}_ns"].to_numpy() for name in PIECES]).astype(np.float64)
        held = program.before != NONE
        earlier = np.where(held, under[:, program.before], 0.0) if len(held) else under
        whole = earlier.sum(axis=0)
        # what was done while the collective before ran is own work as far as the rank did not wait for its end
        rest = np.clip(program.own - before.sum(axis=0), 0, whole)
        return np.asarray(before + earlier * np.where(whole > 0, rest / np.maximum(whole, 1.0), 0.0))

    def _waits(self) -> tuple[I64, Mask]:
        """How much longer each kernel took than the shortest of its collective, and whether it is the (first) shortest:
        that needs no clock.
        """
        order = np.lexsort((np.arange(len(self.number)), self.took, self.number))
        first = np.append(True, np.diff(self.number[order]) > 0)[: len(order)]
        shortest = np.zeros(int(self.number.max()) + 1 if len(order) else 0, dtype=np.int64)
        shortest[self.number[order[first]]] = order[first]
        wait: I64 = np.where(self.is_matched, self.took - self.took[shortest[self.number]], 0)
        last: Mask = self.is_matched & (shortest[self.number] == np.arange(len(self.number)))
        return wait, last

    def _blocks(self) -> tuple[I64, list[int | None]]:
        """Parts of the job to draw from, one for each collective: its steps, else stretches of some collectives."""
        program = self.program
        count = len(program.transfer)
        step = np.full(count, NONE)
        np.maximum.at(step, program.collective, self.step)
        steps = np.unique(step[step != NONE])
        if len(steps) >= 3:
            return np.searchsorted(steps, np.maximum(step, steps[0])), [int(one) for one in steps.tolist()]
        level = np.zeros(count, dtype=np.int64)
        level[program.collective] = program.level
        most = int(level.max()) + 1 if count else 1
        parts = min(PARTS, most)
        return level * parts // most, [None] * parts

    @property
    def is_short(self) -> bool:
        """Whether it has so few parts that drawing from them says little about chance."""
        return self.block_names[0] is None and (len(self.block_names) < PARTS or bool((self.step != NONE).any()))

    def lengths(self, ended: F64, start: float = 0.0, stop: float = np.inf) -> F64:
        """How long each block took, as far as it is between these times; kernels that were not matched hold waits."""
        last = np.full(len(self.block_names), -np.inf)
        np.maximum.at(last, self.blocks[self.shared], ended[self.shared])
        return np.diff(np.maximum.accumulate(np.clip(last, start, stop)), prepend=start)

    def recorded_from_to(self, places: Sequence[int]) -> tuple[float, float]:
        """From when to when the work of these ranks is known: from the end of their first collective, before which it
        is not all in the recording, to that of their last one. Where it is known that they came late to the first one,
        from when others were ready for it.
        """
        program = self.program
        mine = np.isin(self.rank, places)
        first = np.flatnonzero(mine & (program.before == NONE))
        ready = np.full(len(self.base), np.inf)
        np.minimum.at(ready, program.collective, program.start)
        number = program.collective[first]
        since = np.where(self.late_at_first[first] > 0, ready[number], self.base[number])
        return float(since.min()), float(self.base[program.collective[mine]].max())

    def first_of_all(self, places: Sequence[int]) -> int | None:
        """The first collective of the one of these ranks that began to record last; None where no one was late."""
        program = self.program
        first = np.flatnonzero(np.isin(self.rank, places) & (program.before == NONE))
        last = first[program.start[first].argmax()]
        return int(program.collective[last]) if program.start[last] > self.base.min() else None

    def like_peers(self, places: list[int]) -> F64:
        """The own work of all rows if these ranks' were like that of their peers outside."""
        mine, program = np.isin(self.rank, places), self.program
        own = self.own - np.where(mine, self.late_at_first, 0.0)
        if len(places) == 1 or not len(mine):
            return np.where(mine & self.compared, self.typical, own)
        key = self.alike
        others = medians(key[~mine], program.own[~mine], int(key.max()) + 1)[key]
        known = mine & ~np.isnan(others) & (program.before != NONE)
        return np.where(known, others, own)

    def like_median(self) -> F64:
        """The own work of all rows if each rank's were like that of its peers."""
        return np.where(self.compared, self.typical, self.own - self.late_at_first)

    def usual_transfer(self, otherwise: float) -> F64:
        """Of each collective what those of its kind take that all members recorded; otherwise: where there are none."""
        kind, rows = self.kind_of_collectives(), np.flatnonzero(self.complete)
        found = np.full(int(kind.max(initial=0)) + 1, otherwise)
        order = rows[np.lexsort((self.program.transfer[rows], kind[rows]))]
        kinds, first, counts = np.unique(kind[order], return_index=True, return_counts=True)
        found[kinds] = self.program.transfer[order[first + counts // 4]]
        return found[kind]

    @property
    def complete(self) -> Mask:
        """Of each collective whether all members of its group recorded it."""
        sizes = np.append(self.matched.groups["size"].to_numpy(), 0)
        count = np.bincount(self.program.collective, minlength=len(self.base))
        return np.asarray(self.shared & (count >= sizes[self.of_collective(self.matched.group)]))

    def kind_of_collectives(self) -> I64:
        """Of each collective: the same operation, sizes and kind of group have the same number."""
        found = np.zeros(len(self.program.transfer), dtype=np.int64)
        found[self.program.collective] = self._told_apart(self.operation, self.dtype, self.bytes)
        return found

    def _told_apart(self, *columns: I64) -> I64:
        """A number for each row: the same where these columns and the kind and size of its group are."""
        group, table = self.matched.group, self.matched.groups
        kind = np.append(np.unique(table["description"].to_numpy().astype(str), return_inverse=True)[1], UNKNOWN)
        sizes = np.append(table["size"].to_numpy(), 0)
        return numbered(*columns, kind[group], sizes[group])

    def of_collective(self, value: I64) -> I64:
        """Of each collective what one of its rows has."""
        found = np.full(len(self.program.transfer), NONE)
        found[self.program.collective] = value
        return found

    def ranks_of_nodes(self) -> dict[str, list[int]]:
        """The places of the ranks of each node, where there are several nodes with several ranks."""
        found: dict[str, list[int]] = {}
        for place, rank in enumerate(self.ids.tolist()):
            found.setdefault(self.nodes.get(rank, ""), []).append(place)
        found.pop("", None)
        return {node: places for node, places in found.items() if len(places) > 1} if len(found) > 1 else {}

    def by_block(self, value: F64) -> F64:
        """The values added up by rank and block."""
        blocks = len(self.block_names)
        key = self.rank * blocks + self.blocks[self.program.collective] if len(value) else self.rank
        found: F64 = np.bincount(key, value, minlength=self.ranks * blocks).astype(np.float64)
        return found.reshape(self.ranks, blocks)

    def slow_blocks(self, places: list[int]) -> Mask:
        """In which blocks these ranks were slow (slow_among)."""
        return slow_among(self.by_block(self.more)[places].mean(axis=0))

    def slow_rows(self, places: list[int]) -> Mask:
        """The rows in those blocks; all rows where there is none."""
        if not len(self.rank) or not places:
            return np.zeros(len(self.rank), dtype=bool)
        slow = self.slow_blocks(places)
        return np.asarray(slow[self.blocks[self.program.collective]] if slow.any() else np.ones(len(self.rank), bool))

    def peers_of(self, place: int, others: list[int]) -> tuple[int, ...]:
        """Ranks that run the same program as the one at this place, and are neither that nor one of the others."""
        alike = np.flatnonzero(self.role == self.role[place])
        return tuple(self.ids[np.setdiff1d(alike, [place, *others])[:MOST_PEERS]].tolist())


def slow_among(more: F64) -> Mask:
    """Which of the blocks are slow: those with more than half of what is more in a slow one."""
    return np.asarray(more > max(0.5 * float(np.quantile(more, 0.9)), 0.25 * float(more.max(initial=0.0))))
