"""Which kernels of several ranks are one collective.

Where every member of a group numbered its collectives they are one by that number, as long as operation, size and the
ends bear it out (kernels got numbers only lately, and one release numbered them wrongly). Else the group's kernels are
aligned: the same operations in the same order, or, where ranks recorded other parts, by the shift of their clocks at
which most ends of the same operation coincide: a collective ends at one moment on all its members. What that does not
settle is counted, never guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.ranks.of_rank import DRIFT, RANK_GROUPS, RANK_WORK, UNKNOWN, members_of
from profiler_kit.load.integers import F64, I64, Mask
from profiler_kit.schema import Column, Schema


def of_job(of_rank: Schema) -> Schema:
    """The schema of what was read of all ranks: with the rank, and texts as categories."""
    columns = {
        name: replace(column, dtype="category") if column.dtype == "str" else column
        for name, column in of_rank.columns.items()
    }
    return Schema(of_rank.name.replace("RANK_", "JOB_"), of_rank.row, {"rank": Column("int64"), **columns})


JOB_WORK: Final = of_job(RANK_WORK)
JOB_GROUPS: Final = of_job(RANK_GROUPS)

# Ends of one collective differ by microseconds, those of two by more than this.
TOGETHER_NS: Final = 20_000
NEAR_NS, STEADY, EXACT_NS = 4_000, 2e-5, 1_500  # what most jobs keep to
SAME_NS: Final = 100  # chance does not bring all ends of a rank so close to others
PAIRWISE: Final = ("send", "recv", "sendrecv")
UNEVEN: Final = ("broadcast", "reduce", "gather", "scatter")  # some members may end before others
_MOST_PAIRS: Final = 4_000_000  # differences of ends that are looked at to align two ranks

NO_GROUP: Final = "its group was not recorded"
NO_MEMBERS: Final = "who else is in its group was not recorded"
ALONE: Final = "the group has one member"
NO_PEER: Final = "which rank it was sent to or received from was not recorded"
NO_TRACE: Final = "no other member recorded it"
APART: Final = "its place among those of the others cannot be told"


@dataclass(frozen=True)
class Matched:
    """collective: of each row of JOB_WORK, the number of its collective, UNKNOWN where it could not be matched.

    group: of each row, a row of `groups` or UNKNOWN. why: of each unmatched row, why (a place in REASONS).
    """

    collective: I64
    group: I64
    why: I64
    groups: pd.DataFrame


REASONS: Final = ("", NO_GROUP, NO_MEMBERS, ALONE, NO_PEER, NO_TRACE, APART)
GROUPS: Final = Schema(
    "GROUPS",
    "process group of the job",
    {
        "group": Column("int64", "Row of the job's groups.", unit="id"),
        "name": RANK_GROUPS.columns["name"],
        "description": RANK_GROUPS.columns["description"],
        "size": Column("int64", "How many ranks it has."),
        "members": RANK_GROUPS.columns["members"],
        "known": Column("bool", "Whether its members are known."),
    },
)


def groups_of(work: pd.DataFrame, groups: pd.DataFrame) -> tuple[pd.DataFrame, I64]:
    """JOB_WORK, JOB_GROUPS -> GROUPS, and the group of each row of the work (UNKNOWN without one).

    A group is its name and its members: names come again in other groups of a job. Of one whose members no rank could
    name they are those that use it, if they are as many as it has.
    """
    groups = JOB_GROUPS.check(groups)
    texts = groups[["name", "members"]].astype(object)
    named = texts["name"].to_numpy() + "\0" + groups["size"].to_numpy().astype(str) + "\0" + texts["members"].to_numpy()
    keys, first, place = np.unique(named.astype(str), return_index=True, return_inverse=True)
    rows = groups.iloc[first]
    # the row of groups of each kernel: by rank and the rank's own number of the group
    width = int(groups["group"].max()) + 2 if len(groups) else 2
    own = groups["rank"].to_numpy() * width + groups["group"].to_numpy()
    order = np.argsort(own, kind="stable")
    wanted = work["rank"].to_numpy() * width + work["group"].to_numpy()
    group = np.full(len(work), UNKNOWN, dtype=np.int64)
    known = work["group"].to_numpy() != UNKNOWN
    if known.any():
        group[known] = place[order[np.searchsorted(own[order], wanted[known])]]
    members = rows["members"].astype(object).to_numpy().copy()
    sizes = rows["size"].to_numpy()
    for number in np.flatnonzero(members == "").tolist():
        users = np.unique(work["rank"].to_numpy()[group == number])
        if len(users) == sizes[number]:
            members[number] = " ".join(f"{one}:{one + 1}:1" for one in users.tolist())
    found = pd.DataFrame(
        {
            "group": np.arange(len(keys)),
            "name": rows["name"].astype(object).to_numpy(),
            "description": rows["description"].astype(object).to_numpy(),
            "size": sizes,
            "members": members,
            "known": members != "",
        }
    )
    return GROUPS.check(found), group


def medians(key: I64, value: F64, size: int) -> F64:
    """The median of the values of each key 0 .. size - 1, the lower one of two; NaN without any."""
    order = np.lexsort((value, key))
    counts = np.bincount(key, minlength=size)
    first = np.concatenate(([0], np.cumsum(counts)[:-1]))
    found = np.full(size, np.nan)
    some = counts > 0
    found[some] = value[order[first[some] + (counts[some] - 1) // 2]]
    return found


def numbered(*columns: npt.NDArray[np.integer[Any]]) -> I64:
    """A number for each row, the same where all columns are."""
    key = np.zeros(len(columns[0]), dtype=np.int64)
    for column in columns:
        _, code = np.unique(column, return_inverse=True)
        key = np.unique(key * (int(code.max(initial=0)) + 1) + code, return_inverse=True)[1]
    return np.asarray(key, dtype=np.int64)


def match(work: pd.DataFrame, groups: pd.DataFrame) -> Matched:
    """JOB_WORK (by rank and start), JOB_GROUPS -> which rows are one collective."""
    work = JOB_WORK.check(work)
    found, group = groups_of(work, groups)
    return _Matching(work, found, group).run()


class _Matching:
    def __init__(self, work: pd.DataFrame, groups: pd.DataFrame, group: I64) -> None:
        self.groups, self.group = groups, group
        self.rank = work["rank"].to_numpy()
        self.sequence = work["sequence"].to_numpy()
        self.peer = work["peer"].to_numpy()
        operation = work["operation"].astype("category")
        names = [str(name) for name in operation.cat.categories]
        code = operation.cat.codes.to_numpy().astype(np.int64)
        self.sends = np.array([name == "send" for name in names] or [False], dtype=bool)[code]
        self.pairwise = np.array([name in PAIRWISE for name in names] or [False], dtype=bool)[code]
        size, dtype = work["bytes"].to_numpy(), work["dtype"].astype("category").cat.codes.to_numpy().astype(np.int64)
        # both ends of a send are one thing; how much the members of an all-to-all give differs
        plain = np.array([PAIRWISE[-1] if name in PAIRWISE else name for name in names] or [""], dtype=object)
        kind = np.unique(plain.astype(str), return_inverse=True)[1][code]
        varies = np.array([name in ("alltoall", *UNEVEN) for name in names] or [False], dtype=bool)[code]
        size = np.where(self.pairwise | varies, UNKNOWN, size)
        self.token = numbered(kind, size, dtype)
        self.bare = numbered(kind) + int(self.token.max(initial=0)) + 1  # by the operation alone
        self.unsized = (size == UNKNOWN) & ~self.pairwise & ~varies
        start = work["start_ns"].to_numpy()
        self.first = int(start.min()) if len(start) else 0
        self.end = (work["end_ns"].to_numpy() - self.first).astype(np.float64)
        self.span = float(self.end.max()) if len(start) else 0.0
        self.collective = np.full(len(work), UNKNOWN, dtype=np.int64)
        self.why = np.full(len(work), UNKNOWN, dtype=np.int64)
        self.count = 0

    def run(self) -> Matched:
        self._tell_groups()
        self._compare_what_all_recorded()
        open_ones = self.group != UNKNOWN
        self.why[~open_ones] = REASONS.index(NO_GROUP)
        sizes, known = self.groups["size"].to_numpy(), self.groups["known"].to_numpy()
        single, unknown = np.append(sizes == 1, False)[self.group], np.append(~known, False)[self.group]
        self.why[open_ones & unknown] = REASONS.index(NO_MEMBERS)
        self.why[open_ones & single] = REASONS.index(ALONE)
        rows = np.flatnonzero(open_ones & ~single & ~unknown)
        pairs = rows[self.pairwise[rows] & (self.peer[rows] != UNKNOWN)]
        self._pairs(pairs)
        rows = rows[~(self.pairwise[rows] & (self.peer[rows] != UNKNOWN))]
        left = self._by_sequence(rows)
        left = self._by_order(left)
        for group in np.unique(self.group[left]).tolist():
            self._by_ends(left[self.group[left] == group])
        self._drop_single()
        self.why[self.collective != UNKNOWN] = 0
        return Matched(self.collective, self.group, self.why, self.groups)

    def _compare_what_all_recorded(self) -> None:
        """Where some members of a group recorded no sizes, as older versions do, operations alone are compared."""
        known = self.group != UNKNOWN
        plain = np.isin(self.group, self.group[known & self.unsized]) & known
        self.token = np.where(plain, self.bare, self.token)

    def _take(self, rows: I64, key: I64) -> None:
        """Make collectives of the rows that have the same key."""
        numbers, place = np.unique(key, return_inverse=True)
        self.collective[rows] = self.count + place
        self.count += len(numbers)

    def _drop_single(self) -> None:
        """What only one rank recorded is not a collective of several; number the others by their first end."""
        some = np.flatnonzero(self.collective != UNKNOWN)
        counts = np.bincount(self.collective[some], minlength=self.count)
        alone = some[counts[self.collective[some]] < 2]
        self.collective[alone] = UNKNOWN
        self.why[alone] = REASONS.index(NO_TRACE)
        some = np.flatnonzero(self.collective != UNKNOWN)
        if not len(some):
            return
        first = np.full(self.count, np.inf)
        np.minimum.at(first, self.collective[some], self.end[some])
        number = np.empty(self.count, dtype=np.int64)
        number[np.argsort(first, kind="stable")] = np.arange(self.count)
        self.collective[some] = number[self.collective[some]]

    # ---- groups that kernels do not name

    def _tell_groups(self) -> None:
        """Kernels without a group, of ranks whose metadata lists several kinds: the kind whose members' ends agree.

        Ranks that run one program issue the same kinds of collectives in the same order. So the k-th kernel is of the
        kind of group in which the ends of each two members differ by one and the same time, that of their clocks; of
        several such kinds it is of the largest. Nothing is told where ranks recorded different numbers of kernels.
        """
        rows = np.flatnonzero(self.group == UNKNOWN)
        ranks, counts = np.unique(self.rank[rows], return_counts=True)
        if len(ranks) < 2 or len(np.unique(counts)) != 1:
            return
        count = int(counts[0])
        place = {rank: at for at, rank in enumerate(ranks.tolist())}
        end = self.end[rows].reshape(len(ranks), count)
        if not (self.token[rows].reshape(len(ranks), count) == self.token[rows][:count]).all():
            return
        kinds: dict[str, list[tuple[int, I64]]] = {}
        for number, name, said, ranks_of in (
            self.groups[["group", "name", "description", "members"]].to_numpy().tolist()
        ):
            members = np.array([place[one] for one in members_of(ranks_of).tolist() if one in place], dtype=np.int64)
            if len(members) > 1:
                kinds.setdefault(said or name, []).append((number, members))
        if not kinds:  # nothing is listed: one group of all ranks, if their ends say so
            kinds = {"": [(UNKNOWN, np.arange(len(ranks)))]}
        off, sizes, of = [], [], []
        limit = EXACT_NS + STEADY * self.span / 2
        for listed in kinds.values():
            apart = np.concatenate([end[members[1:]] - end[members[:-1]] for _, members in listed])
            # of one or two ends any clock would do: then clocks count as they are
            middle = np.array([_densest(one, limit) if count > 2 else 0.0 for one in apart])
            off.append(np.quantile(np.abs(apart - middle[:, None]), 0.9, axis=0))
            sizes.append(max(len(members) for _, members in listed))
            groups = np.full(len(ranks), UNKNOWN, dtype=np.int64)
            for group, members in listed:
                groups[members] = group
            of.append(groups)
        if kinds.keys() == {""} and of[0][0] == UNKNOWN:
            if (off[0] < limit).mean() < 0.9:
                return
            self.groups = GROUPS.join([self.groups, GROUPS.of([(len(self.groups), "", "", len(ranks), "", True)])])
            of[0][:] = len(self.groups) - 1
        told = np.full((len(ranks), count), UNKNOWN, dtype=np.int64)
        # what of a kind fits much worse than the rest of it only ended at about one time
        closest = np.argmin(off, axis=0)
        usual = [float(np.median(one[closest == kind])) if (closest == kind).any() else 0.0
                 for kind, one in enumerate(off)]  # fmt: skip
        for at in range(count):
            best = min(float(one[at]) for one in off)
            if best > max(3 * usual[closest[at]], EXACT_NS / 5):
                continue
            fits = [kind for kind, one in enumerate(off) if one[at] <= max(3 * best, EXACT_NS / 3)]
            largest = max(fits, key=lambda kind: sizes[kind])
            # several fit: told where the groups of the others are parts of the largest
            inside = all(_within(of[kind], of[largest]) for kind in fits)
            if best < limit and inside:
                told[:, at] = of[largest]
        self.group[rows] = told.reshape(-1)

    # ---- by the numbers that were recorded

    def _by_sequence(self, rows: I64) -> I64:
        """Match the groups whose members all numbered theirs; return the rows of the others."""
        if not len(rows):
            return rows
        group = self.group[rows]
        size = len(self.groups)
        bad = np.zeros(size, dtype=bool)
        bad[group[self.sequence[rows] == UNKNOWN]] = True
        rank = np.unique(self.rank[rows], return_inverse=True)[1]
        owner = group * (int(rank.max()) + 1) + rank
        place = np.unique(owner, return_inverse=True)[1]
        step = int(self.sequence[rows].max()) + 2
        twice = np.unique(place * step + self.sequence[rows], return_counts=True)
        again = np.unique(twice[0][twice[1] > 1] // step)
        bad[group[np.isin(place, again)]] = True
        key = np.unique(group * step + self.sequence[rows], return_inverse=True)[1]
        bad |= self._disagree(rows, group, place, key, size)
        good = ~bad[group]
        self._take(rows[good], key[good])
        return rows[~good]

    def _disagree(self, rows: I64, group: I64, place: I64, key: I64, size: int) -> Mask:
        """Of each group, whether operation, size or ends say that these keys are no collectives."""
        bad = np.zeros(size, dtype=bool)
        count = int(key.max()) + 1 if len(key) else 0
        low, high = np.full(count, np.iinfo(np.int64).max), np.full(count, -1)
        np.minimum.at(low, key, self.token[rows])
        np.maximum.at(high, key, self.token[rows])
        bad[group[(low != high)[key]]] = True
        # ends of a rank less those of the group: one time, that of the clocks, but for drift
        middle = medians(key, self.end[rows], count)[key]
        apart = self.end[rows] - middle
        owners = int(place.max()) + 1 if len(place) else 0
        spread = np.abs(apart - medians(place, apart, owners)[place])
        wide = medians(place, spread, owners)
        of = np.full(owners, 0)
        of[place] = group
        limit = 4 * TOGETHER_NS + DRIFT * self.span
        share = np.bincount(of, wide > limit, minlength=size) / np.maximum(np.bincount(of, minlength=size), 1)
        found: Mask = bad | (share > 0.25)
        return found

    # ---- by their order

    def _by_order(self, rows: I64) -> I64:
        """Match the groups whose members all recorded the same operations in the same order; return the others."""
        if not len(rows):
            return rows
        group, rank = self.group[rows], self.rank[rows]
        order = np.lexsort((np.arange(len(rows)), rank, group))
        rows, group, rank = rows[order], group[order], rank[order]
        first = np.append(True, (group[1:] != group[:-1]) | (rank[1:] != rank[:-1]))
        owner = np.cumsum(first) - 1
        number = np.arange(len(rows)) - np.flatnonzero(first)[owner]
        counts = np.bincount(owner)
        of = group[first]
        size = len(self.groups)
        most, least = np.zeros(size, dtype=np.int64), np.full(size, len(rows) + 1)
        np.maximum.at(most, of, counts)
        np.minimum.at(least, of, counts)
        bad = most != least
        key = np.unique(group * (int(number.max()) + 1) + number, return_inverse=True)[1]
        bad |= self._disagree(rows, group, owner, key, size)
        good = ~bad[group]
        self._take(rows[good], key[good])
        left: I64 = rows[~good]
        return left

    # ---- by their ends

    def _by_ends(self, rows: I64) -> None:
        """Align the members of one group by the shift of clocks at which most ends of the same operation coincide."""
        members = [rows[self.rank[rows] == rank] for rank in np.unique(self.rank[rows]).tolist()]
        members.sort(key=len, reverse=True)
        if len(members) < 2:
            return
        known = _Ends(self.end[members[0]], self.token[members[0]], np.arange(len(members[0])))
        self.collective[members[0]] = self.count + np.arange(len(members[0]))
        self.count += len(members[0])
        waiting = members[1:]
        while waiting:
            later = []
            for mine in waiting:
                place = known.place_of(self.end[mine], self.token[mine], DRIFT)
                if place is None:
                    later.append(mine)
                    continue
                number, times = place
                new = number == UNKNOWN
                base = self.count - known.count
                number[new] = known.count + np.arange(int(new.sum()))
                self.collective[mine] = base + number
                self.count += int(new.sum())
                known = known.with_new(times[new], self.token[mine[new]])
            if len(later) == len(waiting):
                break
            waiting = later
        for mine in waiting:
            self.why[mine] = REASONS.index(APART)

    # ---- point to point

    def _pairs(self, rows: I64) -> None:
        """Sends and receives between two ranks, by their order; where the two counts differ, by their ends."""
        if not len(rows):
            return
        mine, other = self.rank[rows], self.peer[rows]
        # a receive waits for a send of the other direction: both have the same source and target
        sends = self.sends[rows]
        source, target = np.where(sends, mine, other), np.where(sends, other, mine)
        width = int(max(source.max(), target.max())) + 1
        pair = np.unique((self.group[rows] * width + source) * width + target, return_inverse=True)[1]
        for part in _parts_by(pair, rows):
            ranks = np.unique(self.rank[part])
            if len(ranks) != 2:
                self.why[part] = REASONS.index(NO_TRACE)
                continue
            first, second = (part[self.rank[part] == rank] for rank in ranks.tolist())
            if len(first) == len(second):
                both, number = np.concatenate((first, second)), np.arange(len(first))
                self._take(both, np.concatenate((number, number)))
            else:
                self._by_ends(part)


def _within(part: I64, whole: I64) -> bool:
    """Whether ranks that share a group of `part` share one of `whole`."""
    return all(len(np.unique(whole[part == group])) == 1 for group in np.unique(part).tolist())


def _parts_by(key: I64, rows: I64) -> Iterator[I64]:
    """The rows of each key, in their order."""
    order = np.argsort(key, kind="stable")
    yield from np.split(rows[order], np.flatnonzero(np.diff(key[order])) + 1)


def _densest(values: F64, width: float) -> float:
    """The middle of the stretch of twice that width that holds most of the values; NaN without any."""
    if not len(values):
        return float("nan")
    values = np.sort(values)
    last = np.searchsorted(values, values + 2 * width, "right")
    at = int(np.argmax(last - np.arange(len(values))))
    return float(np.median(values[at : last[at]]))


@dataclass(frozen=True)
class _Ends:
    """When the collectives of a group ended, by the clock of its first member."""

    end: F64
    token: I64
    number: I64

    @property
    def count(self) -> int:
        return len(self.number)

    def with_new(self, end: F64, token: I64) -> _Ends:
        number = np.concatenate((self.number, self.count + np.arange(len(end))))
        end, token = np.concatenate((self.end, end)), np.concatenate((self.token, token))
        order = np.argsort(end, kind="stable")
        return _Ends(end[order], token[order], number[order])

    def place_of(self, end: F64, token: I64, drift: float) -> tuple[I64, F64] | None:
        """The number of the collective that each kernel is, UNKNOWN where it is none of these, and its end by this
        clock; None where that cannot be told.
        """
        step = max(1, len(end) * self.count // _MOST_PAIRS)  # of long recordings every so many
        apart = end[::step, None] - self.end
        apart = apart[token[::step, None] == self.token]
        span = float(end[-1] - end[0]) if len(end) else 0.0
        limit = TOGETHER_NS + drift * span
        # as closely as ends are known where clocks are steady, else as far apart as they may be; the closest fit of few
        # ends may be chance, unless it is one of all
        ends, half = len(end) // step, max(2, len(end) // step // 2)
        for width, least in (
            (SAME_NS, max(3, ends - ends // 10)),
            (EXACT_NS + STEADY * span / 2, half),
            (NEAR_NS + STEADY * span, half),
            (limit, half),
        ):
            middle = _densest(apart, width)
            near = np.abs(apart - middle) <= 2 * width
            most = int(near.sum())
            others = apart[~near]
            next_best = int((np.abs(others - _densest(others, width)) <= 2 * width).sum())
            if most >= least and most > next_best * 1.25:
                break
        else:
            return None
        times = end - middle
        found = np.full(len(end), UNKNOWN, dtype=np.int64)
        for one in np.unique(token).tolist():
            there, mine = np.flatnonzero(self.token == one), np.flatnonzero(token == one)
            if not len(there):
                continue
            at = np.clip(np.searchsorted(self.end[there], times[mine]), 1, max(len(there) - 1, 1))
            before = there[at - 1]
            after = there[np.minimum(at, len(there) - 1)]
            nearest = np.where(
                np.abs(self.end[before] - times[mine]) <= np.abs(self.end[after] - times[mine]), before, after
            )
            close = np.abs(self.end[nearest] - times[mine]) <= 2 * limit
            found[mine[close]] = self.number[nearest[close]]
        _, first = np.unique(found, return_index=True)
        again = np.ones(len(found), dtype=bool)
        again[first] = False
        if (again & (found != UNKNOWN)).any():  # two kernels at one end: it is not told which is which
            return None
        return found, times
