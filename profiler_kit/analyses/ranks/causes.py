"""Who holds a job up, since when, by what, and what it would gain: the cause, not those that wait for it.

A rank's own work before its arrival at each collective is compared with that of the ranks that run the same program.
Who is named has to make the job faster in a replay in which its work is like theirs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.collectives import bus_factor
from profiler_kit.analyses.ranks.clocks import CLOCKS, Clocks, clocks, components
from profiler_kit.analyses.ranks.matching import PAIRWISE, REASONS, UNEVEN, Matched, match, medians, numbered
from profiler_kit.analyses.ranks.of_rank import UNKNOWN, members_of
from profiler_kit.analyses.ranks.replay import NONE, Seen, program_of
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

F64 = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
State = Literal["rank", "node", "link", "spread", "nobody", "cannot tell"]
PIECES: Final = ("compute", "copies", "host", "data", "other")

NAMED_FROM: Final = 0.03  # of the job's time: what gains less is not worth a name
LOW_FROM: Final = 0.01  # that the gain reaches in 19 of 20 drawings of steps
CLEAR: Final = 1.5  # times the gain of the next best one
EXCESS_FROM: Final = 0.02  # of its work: a rank that is more above its peers is looked at
SCATTER: Final = 4.0  # times the usual scatter of ranks
SLOW_LINK: Final = 1.25  # times the transfer of groups that do the same
CAUSE_FROM: Final = 0.3  # of all that a rank has more
OUTSTANDING: Final = 10.0  # times the scatter of ranks and steps
CAUSES: Final = ("compute", "host", "data", "copies")
DRAWN: Final = 400
TRIED: Final = 3
MOST_PEERS: Final = 8

WHAT_IF: Final = Schema(
    "RANK_WHAT_IF",
    "change that was tried on the whole job, the one that gains most first",
    {
        "tried": Column("str", "What is tried.", "what if"),
        "ranks": Column("str", "On whom.", "on"),
        "gain_share": Column("float64", "Of the time of the job.", "gain"),
        "gain_low": Column("float64", "In 19 of 20 drawings of its steps it is more.", "at least", unit="share"),
        "gain_high": Column("float64", "In 19 of 20 drawings of its steps it is less.", "at most", unit="share"),
        "saved_ns": Column("int64", "Of the time of the job.", "saves"),
    },
)
SLOW_PARTS: Final = Schema(
    "SLOW_PARTS",
    "part of a rank's own work, against the median of its peers",
    {
        "rank": Column("int64"),
        "part": Column(
            "str", "One of compute, copies, host, data, other; own work is all of it, unexplained what they leave."
        ),
        "own_ns": Column("int64", "Of this rank."),
        "peers_ns": Column("int64", "Of the median of its peers.", "peers"),
        "more_ns": Column("int64", "Of this rank than of its peers.", "more"),
        "share": Column("float64", "Of all that it has more."),
    },
)
RANK_SCORES: Final = Schema(
    "RANK_SCORES",
    "rank",
    {
        "rank": Column("int64"),
        "own_ns": Column("int64", "Its own work before its arrivals at collectives, added up.", "own work"),
        "more_ns": Column("int64", "More than the median of its peers.", "more"),
        "more_share": Column("float64", "Of the work of its peers.", "of theirs", unit="change"),
        "wait_ns": Column("int64", "Time in collectives until the last rank arrived.", "waited"),
        "arrived_last": Column("int64", "Collectives at which it arrived last."),
        "held_ns": Column("int64", "How long others waited at most, at the collectives where it arrived last.", "held"),
        "collectives": Column("int64", "Collectives that it shares with another rank."),
    },
)
RANK_STEP_WORK: Final = Schema(
    "RANK_STEP_WORK",
    "rank and step",
    {
        "rank": Column("int64"),
        "step": Column("int64", "The 3 of ProfilerStep#3; -1 outside every step.", unit="id"),
        "own_ns": Column("int64", "Its own work before its arrivals at collectives.", "own work"),
        "more_ns": Column("int64", "More than the median of its peers.", "more"),
        "wait_ns": Column("int64", "Time in collectives until the last rank arrived.", "waited"),
    },
)
LINKS: Final = Schema(
    "LINKS",
    "group, operation and size of message, the slowest against its like first",
    {
        "group": Column("str", "Name of the process group."),
        "description": Column("str", "What the group is for."),
        "members": Column("str", "Its ranks as runs, first:end:distance.", show="room"),
        "size": Column("int64", "How many ranks it has."),
        "operation": Column("str", "What is done, such as allreduce."),
        "bytes": Column("int64", "Size of the message; -1 where it was not recorded.", unit="bytes"),
        "count": Column("int64", "Collectives."),
        "transfer_ns": Column("int64", "Median time from the arrival of the last rank to the end.", "transfer"),
        "of_like": Column("float64", "Over that of the median group with the same operation and sizes.", "of like"),
        "bus_bytes_per_s": Column("float64", "What each rank's link carries (nccl-tests: busbw).", "busbw"),
    },
)


ROWS: Final = Schema(
    "COLLECTIVE_ROWS",
    "kernel of JOB_WORK",
    {
        "collective": Column("int64", "Number of the collective; -1 where it was not matched.", unit="id"),
        "group": Column("int64", "Row of the job's groups; -1 without one.", unit="id"),
        "wait_ns": Column("int64", "How much longer it took than the shortest of its collective."),
        "last": Column("bool", "It is the shortest: its rank arrived last."),
        "own_ns": Column("float64", "The rank's own work before it was ready for it."),
        "more_ns": Column("float64", "More than that of its peers."),
    },
)


@dataclass(frozen=True)
class Verdict:
    """Who holds the job up. gain_*: shares of the job's time; None where nothing was replayed."""

    state: State
    rank: int | None = None
    node: str | None = None
    cause: str | None = None
    since_step: int | None = None
    gain_share: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    ranks: tuple[int, ...] = ()  # all that are meant: those of a node, of a link, or that share it
    group: str = ""  # of a link: the name of its process group


@dataclass(frozen=True)
class JobAnswer:
    """What is known of a job. matched, unmatched: kernels. why: of the unmatched ones, how many for each reason."""

    verdict: Verdict
    matched: int
    unmatched: int
    why: dict[str, int]
    looked_at: int | None  # the rank that is named, else the one with most work beyond that of its peers
    peers: tuple[int, ...]  # some that run the same program as that one
    groups: pd.DataFrame
    clocks: pd.DataFrame
    what_if: pd.DataFrame
    slow_parts: pd.DataFrame
    scores: pd.DataFrame
    steps: pd.DataFrame
    links: pd.DataFrame
    rows: pd.DataFrame = field(repr=False)  # ROWS, one for each row of the work
    replayed_ns: int = 0
    recorded_ns: int = 0
    middle_ns: int = 0  # the moment, in Unix time, that the offsets of the clocks hold at

    def on_one_clock(self, rank: int, time_ns: I64) -> I64:
        """Unix times of a rank's clock by that of the first rank of its component."""
        row = self.clocks[self.clocks["rank"] == rank].iloc[0]
        drifted = (time_ns - self.middle_ns) * (float(row["drift_ppm"]) / 1e6)
        return time_ns - int(row["offset_ns"]) - np.round(drifted).astype(np.int64)


def answer(
    work: pd.DataFrame, groups: pd.DataFrame, nodes: Mapping[int, str] | None = None, missing: int = 0
) -> JobAnswer:
    """JOB_WORK (by rank and start) and JOB_GROUPS of a job's ranks -> what is known of it.

    nodes: the host of each rank, where that is known. missing: how many ranks of the job have no trace.
    """
    matched = match(work, groups)
    return _Job(work, matched, nodes or {}, missing).answer()


class _Job:
    def __init__(self, work: pd.DataFrame, matched: Matched, nodes: Mapping[int, str], missing: int) -> None:
        self.matched, self.nodes, self.missing = matched, nodes, missing
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
        origin = np.full(self.ranks + 1, np.inf)
        np.minimum.at(origin, self.clocks.component[self.rank], arrive)
        arrive, start, end = (time - origin[self.clocks.component[self.rank]] for time in (arrive, start, end))
        alone = np.cumsum(~self.is_matched) + (int(matched.collective.max()) if len(work) else 0)
        self.role = self._roles()
        self.number = np.where(self.is_matched, matched.collective, alone)
        self.wait, self.last = self._waits()
        seen = Seen(self.wait, work["held_ns"].to_numpy(), self.step)
        self.program = program_of(
            self.rank, self.number, work["stream"].to_numpy(), self.role, arrive, start, end, seen
        )
        self.pieces = self._pieces(work)
        self.typical, self.compared = self._typical(self.program.own)
        self.more = np.where(self.compared, self.program.own - self.typical, 0.0)
        self.base = self.program.run(self.program.own, self.program.transfer)
        self.blocks, self.block_names = self._blocks()

    def _clocks(self, end: F64) -> Clocks:
        rows = np.flatnonzero(self.is_matched)
        weights = np.array([0.1 if name in (*PAIRWISE, *UNEVEN) else 0.3 if name == "alltoall" else 1.0
                            for name in self.operations] or [1.0])  # fmt: skip
        return clocks(
            self.rank[rows], self.matched.collective[rows], end[rows], weights[self.operation[rows]], self.ranks
        )

    # ---- who does the same

    def _roles(self) -> I64:
        """Ranks that run the same program: the same operations in the same kinds of groups; in a pipeline, of a stage.

        A stage is what is joined by other things than sends and receives, and not by groups of all ranks.
        """
        group, sizes = self.matched.group, np.append(self.matched.groups["size"].to_numpy(), 0)
        told = self._told_apart(self.operation, self.dtype)
        width = int(told.max()) + 1 if len(told) else 1
        used = np.unique(self.rank * width + told)
        sets: dict[int, list[int]] = {}
        for one in used.tolist():
            sets.setdefault(one // width, []).append(one % width)
        label = np.arange(self.ranks)
        pairwise = np.array([name in PAIRWISE for name in self.operations] or [False])[self.operation]
        if pairwise.any():
            joins = (group != UNKNOWN) & ~pairwise & (sizes[group] < max(self.ranks, 2)) & self.is_matched
            numbers, collective = np.unique(self.matched.collective[joins], return_inverse=True)
            label = components(self.rank[joins], collective, self.ranks, len(numbers))
        else:
            label = np.zeros(self.ranks, dtype=np.int64)
        keys: dict[tuple[int, tuple[int, ...]], int] = {}
        return np.array(
            [keys.setdefault((int(label[at]), tuple(sets.get(at, ()))), len(keys)) for at in range(self.ranks)],
            dtype=np.int64,
        )

    def _typical(self, value: F64) -> tuple[F64, Mask]:
        """What the median of a rank's peers has at the same collective, and whether there is any.

        A rank that has none is compared with itself in other steps.
        """
        program = self.program
        if not len(value):
            return value, np.zeros(0, dtype=bool)
        roles = int(self.role.max()) + 1
        key = np.unique(program.level * roles + self.role[self.rank], return_inverse=True)[1]
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

    # ---- what it would gain

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
        parts = min(10, most)
        return level * parts // most, [None] * parts

    def _lengths(self, ended: F64) -> F64:
        """How long each block took."""
        last = np.full(len(self.block_names), -np.inf)
        np.maximum.at(last, self.blocks, ended)
        return np.diff(np.maximum.accumulate(np.maximum(last, 0.0)), prepend=0.0)

    def _gain(self, own: F64, transfer: F64) -> _Gain:
        ended = self.program.run(own, transfer)
        was, then = self._lengths(self.base), self._lengths(ended)
        drawn = np.random.default_rng(0).integers(0, len(was), (DRAWN, len(was)))
        gains = 1 - then[drawn].sum(axis=1) / np.maximum(was[drawn].sum(axis=1), 1.0)
        low, high = np.quantile(gains, (0.05, 0.95)).tolist()
        saved = float(was.sum() - then.sum())
        return _Gain(saved / max(float(was.sum()), 1.0), low, high, round(saved))

    def _like_peers(self, places: list[int]) -> F64:
        """The own work of all rows if these ranks' were like that of their peers outside."""
        mine = np.isin(self.rank, places)
        if len(places) == 1 or not len(mine):
            return np.where(mine & self.compared, self.typical, self.program.own)
        program, roles = self.program, int(self.role.max()) + 1
        key = np.unique(program.level * roles + self.role[self.rank], return_inverse=True)[1]
        keys = int(key.max()) + 1
        others = medians(key[~mine], program.own[~mine], keys)[key]
        known = mine & ~np.isnan(others) & (program.before != NONE)
        return np.where(known, others, program.own)

    def answer(self) -> JobAnswer:
        scores, steps = self._scores(), self._steps()
        links = self._links()
        rows: list[tuple[object, ...]] = []
        verdict = Verdict("cannot tell")
        chosen: list[int] = []
        enough = self.ranks > 1 and self.is_matched.sum() * 2 > len(self.rank) and self.compared.any()
        if enough:
            verdict, rows, chosen = self._verdict(scores, links)
        what_if = WHAT_IF.of(rows).sort_values("gain_share", ascending=False, kind="stable", ignore_index=True)
        why = np.bincount(self.matched.why, minlength=len(REASONS))
        if not chosen and len(scores):
            chosen = [int(scores["more_ns"].to_numpy().argmax())]
        return JobAnswer(
            verdict=verdict,
            matched=int(self.is_matched.sum()),
            unmatched=int((~self.is_matched).sum()),
            why={reason: int(count) for reason, count in zip(REASONS, why, strict=True) if reason and count},
            looked_at=int(self.ids[chosen[0]]) if chosen else None,
            peers=self._peers(chosen),
            groups=self.matched.groups,
            clocks=self._clock_frame(),
            what_if=what_if,
            slow_parts=self._slow_parts(chosen, self._slow_rows(chosen)),
            scores=scores,
            steps=steps,
            links=links.drop(columns=["row"]),
            rows=self._rows(),
            replayed_ns=round(float(self.base.max(initial=0.0))),
            recorded_ns=round(float(self.program.end.max(initial=0.0))),
            middle_ns=self.first + round(self.clocks.middle_ns),
        )

    def _verdict(
        self, scores: pd.DataFrame, links: pd.DataFrame
    ) -> tuple[Verdict, list[tuple[object, ...]], list[int]]:
        program = self.program
        share = scores["more_share"].to_numpy()
        usual = float(np.median(share))
        scatter = 1.4826 * float(np.median(np.abs(share - usual)))
        slow = np.flatnonzero(share > usual + max(EXCESS_FROM, SCATTER * scatter))
        tried: list[Verdict] = []
        rows: list[tuple[object, ...]] = []

        def add(verdict: Verdict | None, what: str, on: str, own: F64, transfer: F64) -> None:
            gain = self._gain(own, transfer)
            rows.append((what, on, gain.share, gain.low, gain.high, gain.saved_ns))
            if verdict is not None:
                tried.append(replace(verdict, gain_share=gain.share, gain_low=gain.low, gain_high=gain.high))

        for place in np.argsort(-scores["more_ns"].to_numpy(), kind="stable")[:TRIED].tolist():
            rank = int(self.ids[place])
            add(
                Verdict("rank", rank, self.nodes.get(rank) or None, ranks=(rank,)),
                "this rank like its peers", f"rank {rank}", self._like_peers([place]), program.transfer,
            )  # fmt: skip
        for node, places in self._nodes().items():
            if np.median(share[places]) > usual + EXCESS_FROM:
                ranks = tuple(self.ids[places].tolist())
                add(
                    Verdict("node", None, node, ranks=ranks),
                    "this node like the others", node, self._like_peers(places), program.transfer,
                )  # fmt: skip
        if len(slow) > 1:
            ranks = tuple(self.ids[slow].tolist())
            add(
                Verdict("spread", ranks=ranks), "these ranks like their peers", _listed(ranks),
                self._like_peers(slow.tolist()), program.transfer,
            )  # fmt: skip
        link = self._slow_link(links)
        if link is not None:
            verdict, transfer = link
            add(verdict, "this link like the others", verdict.group or f"rank {verdict.rank}", program.own, transfer)
        everyone = np.where(self.compared, self.typical, program.own)
        add(None, "every rank like the median", "all", everyone, program.transfer)
        add(None, "communication takes no time", "all", program.own, program.transfer * 0)
        gains = {one.rank: one.gain_share or 0.0 for one in tried if one.state == "rank" and one.rank is not None}
        named = [one for one in tried if (one.gain_share or 0) >= NAMED_FROM and self._sure(one, gains)]
        single = [one for one in named if one.state != "spread"]
        best = max(single or named, key=lambda one: one.gain_share or 0, default=None)
        if best is not None and best.state == "node":  # one rank of it that does nearly as much is the cause
            alone = [
                one for one in single if one.state == "rank" and (one.gain_share or 0) * 1.2 > (best.gain_share or 0)
            ]
            best = alone[0] if alone else best
        if best is None:
            return Verdict(self._nobody()), rows, []
        places = np.searchsorted(self.ids, best.ranks).tolist()
        if best.state == "link":
            return replace(best, cause="link"), rows, places
        parts = self._slow_parts(places, self._slow_rows(places))
        more = {part: ns for part, ns in zip(parts["part"], parts["more_ns"], strict=True) if part in CAUSES}
        cause = max(more, key=lambda part: more[part])
        whole = float(parts["more_ns"].iloc[0])
        # a slow host makes no kernel longer: where kernels and gaps both are, the kernels are what is slow
        grown = {
            part: ns / max(peers, 1)
            for part, ns, peers in zip(*(parts[c] for c in ("part", "more_ns", "peers_ns")), strict=True)
        }
        if more["compute"] >= CAUSE_FROM * whole and grown["compute"] >= 0.5 * grown[cause]:
            cause = "compute"
        told = more[cause] >= CAUSE_FROM * whole
        return replace(best, cause=cause if told else None, since_step=self._since(places)), rows, places

    def _sure(self, verdict: Verdict, gains: dict[int, float]) -> bool:
        """Whether it is more than chance: in most drawings of steps, or in a step far beyond the scatter of all."""
        if verdict.state == "rank":
            others = [gain for rank, gain in gains.items() if rank != verdict.rank]
            if (verdict.gain_share or 0) < CLEAR * max(others, default=0.0):
                return False
        if (verdict.gain_low or 0) >= LOW_FROM:
            return True
        if verdict.state == "link":
            return False
        more = self._by_block(self.more)
        mine = more[np.searchsorted(self.ids, verdict.ranks)].min(axis=0)
        scatter = 1.4826 * float(np.median(np.abs(more - np.median(more))))
        return bool(mine.max(initial=0.0) > OUTSTANDING * max(scatter, 1_000.0))

    def _nobody(self) -> State:
        """Nobody, unless what was waited for may be a rank without a trace: transfers that are often long."""
        program = self.program
        if not self.missing or not len(program.transfer):
            return "nobody"
        sizes = np.bincount(program.collective, minlength=len(program.transfer))
        kind = self._kind_of_collectives()
        order = np.lexsort((program.transfer, kind))
        counts = np.bincount(kind)
        first = np.concatenate(([0], np.cumsum(counts)[:-1]))
        low = program.transfer[order[np.minimum(first + counts // 4, len(order) - 1)]]
        usual = np.where(sizes > 1, np.minimum(program.transfer, low[kind]), program.transfer)
        return "cannot tell" if self._gain(program.own, usual).share >= NAMED_FROM else "nobody"

    def _kind_of_collectives(self) -> I64:
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

    def _nodes(self) -> dict[str, list[int]]:
        """The places of the ranks of each node, where there are several nodes with several ranks."""
        found: dict[str, list[int]] = {}
        for place, rank in enumerate(self.ids.tolist()):
            found.setdefault(self.nodes.get(rank, ""), []).append(place)
        found.pop("", None)
        return {node: places for node, places in found.items() if len(places) > 1} if len(found) > 1 else {}

    def _by_block(self, value: F64) -> F64:
        """The values added up by rank and block."""
        blocks = len(self.block_names)
        key = self.rank * blocks + self.blocks[self.program.collective] if len(value) else self.rank
        found: F64 = np.bincount(key, value, minlength=self.ranks * blocks).astype(np.float64)
        return found.reshape(self.ranks, blocks)

    def _slow_blocks(self, places: list[int]) -> Mask:
        """In which blocks these ranks were slow: those with more than half of what they have more in a slow one."""
        more = self._by_block(self.more)[places].mean(axis=0)
        return np.asarray(more > max(0.5 * float(np.quantile(more, 0.9)), 0.25 * float(more.max(initial=0.0))))

    def _slow_rows(self, places: list[int]) -> Mask:
        if not len(self.rank) or not places:
            return np.zeros(len(self.rank), dtype=bool)
        slow = self._slow_blocks(places)
        return np.asarray(slow[self.blocks[self.program.collective]] if slow.any() else np.ones(len(self.rank), bool))

    def _since(self, places: list[int]) -> int | None:
        """The first step of the slow ones; of a few scattered ones the slowest."""
        slow = np.flatnonzero(self._slow_blocks(places))
        if not len(slow) or self.block_names[0] is None:
            steps = self.step[np.isin(self.rank, places) & (self.step != NONE) & (self.more > 0)]
            return int(steps.min()) if len(steps) else None
        lasting = len(slow) >= 0.7 * (len(self.block_names) - slow[0])
        worst = int(self._by_block(self.more)[places].mean(axis=0).argmax())
        return self.block_names[int(slow[0]) if lasting else worst]

    def _peers(self, chosen: list[int]) -> tuple[int, ...]:
        """Ranks that run the same program as the chosen ones, and are none of these."""
        if not chosen:
            return ()
        alike = np.flatnonzero(self.role == self.role[chosen[0]])
        return tuple(self.ids[np.setdiff1d(alike, chosen)[:MOST_PEERS]].tolist())

    # ---- frames

    def _slow_parts(self, places: list[int], rows: Mask) -> pd.DataFrame:
        """SLOW_PARTS of these ranks together, over these rows."""
        if not places or not len(self.rank):
            return SLOW_PARTS.empty()
        mine = rows & np.isin(self.rank, places) & self.compared
        own, more = float(self.program.own[mine].sum()), float(self.more[mine].sum())
        found = [("own work", own, more)]
        for name, piece in zip(PIECES, self.pieces, strict=True):
            typical, _ = self._typical(piece)
            found.append((name, float(piece[mine].sum()), float((piece - typical)[mine].sum())))
        left = more - sum(one for _, _, one in found[1:])
        found.append(("unexplained", own - sum(one for _, one, _ in found[1:]), left))
        rank = int(self.ids[places[0]])
        return SLOW_PARTS.of(
            (rank, name, round(had), round(had - above), round(above), above / more if more else 0.0)
            for name, had, above in found
        )

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

    def _scores(self) -> pd.DataFrame:
        wait, last = self.wait, self.last
        longest = np.zeros(len(self.program.transfer), dtype=np.int64)
        np.maximum.at(longest, self.program.collective, wait)

        def added(value: F64 | I64 | Mask) -> F64:
            return np.bincount(self.rank, value, minlength=self.ranks).astype(np.float64)

        more = added(self.more)
        return RANK_SCORES.cast(
            pd.DataFrame(
                {
                    "rank": self.ids,
                    "own_ns": added(self.program.own).round(),
                    "more_ns": more.round(),
                    "more_share": more / np.maximum(added(np.where(self.compared, self.typical, 0.0)), 1.0),
                    "wait_ns": added(wait),
                    "arrived_last": added(last),
                    "held_ns": added(np.where(last, longest[self.program.collective], 0)),
                    "collectives": added(self.is_matched),
                }
            )
        )

    def _steps(self) -> pd.DataFrame:
        if not len(self.rank):
            return RANK_STEP_WORK.empty()
        wait = self.wait
        steps, number = np.unique(self.step, return_inverse=True)
        keys, row = np.unique(self.rank * len(steps) + number, return_inverse=True)
        return RANK_STEP_WORK.cast(
            pd.DataFrame(
                {
                    "rank": self.ids[keys // len(steps)],
                    "step": steps[keys % len(steps)],
                    "own_ns": np.bincount(row, self.program.own).round(),
                    "more_ns": np.bincount(row, self.more).round(),
                    "wait_ns": np.bincount(row, wait).round(),
                }
            )
        )

    def _rows(self) -> pd.DataFrame:
        wait, last = self.wait, self.last
        return ROWS.check(
            pd.DataFrame(
                {
                    "collective": self.matched.collective,
                    "group": self.matched.group,
                    "wait_ns": wait,
                    "last": last,
                    "own_ns": self.program.own,
                    "more_ns": self.more,
                }
            )
        )

    def _clock_frame(self) -> pd.DataFrame:
        told = self.clocks
        return CLOCKS.cast(
            pd.DataFrame(
                {
                    "rank": self.ids,
                    "component": told.component,
                    "offset_ns": told.offset.round(),
                    "drift_ppm": told.drift * 1e6,
                    "error_ns": np.nan_to_num(told.error).round(),
                    "collectives": told.count,
                }
            )
        )

    def _of_collective(self, value: I64) -> I64:
        """Of each collective what one of its rows has."""
        found = np.full(len(self.program.transfer), NONE)
        found[self.program.collective] = value
        return found

    def _links(self) -> pd.DataFrame:
        """LINKS, with the number of the group and kind of collective (`row`)."""
        program = self.program
        sizes = np.bincount(program.collective, minlength=len(program.transfer))
        group = self._of_collective(self.matched.group)
        shared = np.flatnonzero((sizes > 1) & (group != UNKNOWN))
        if not len(shared):
            return LINKS.empty().assign(row=pd.Series(dtype="int64"))
        kind = self._kind_of_collectives()
        kinds = int(kind.max()) + 1
        keys, row = np.unique(group[shared] * kinds + kind[shared], return_inverse=True)
        transfer = medians(row, program.transfer[shared], len(keys))
        of_kind = keys % kinds
        like = medians(of_kind, transfer, kinds)[of_kind]
        first = self._of_collective(np.arange(len(self.rank)))[shared[np.unique(row, return_index=True)[1]]]
        table = self.matched.groups.iloc[keys // kinds]
        operation = [self.operations[code] for code in self.operation[first].tolist()]
        factor = [bus_factor(name, size) for name, size in zip(operation, table["size"].tolist(), strict=True)]
        size = self.bytes[first]
        speed = np.where(size != UNKNOWN, size, np.nan) * np.array(factor) / np.maximum(transfer, 1.0) * 1e9
        found = (
            table[["description", "members", "size"]]
            .reset_index(drop=True)
            .assign(
                group=table["name"].to_numpy(),
                operation=operation,
                bytes=size,
                count=np.bincount(row),
                transfer_ns=transfer.round().astype(np.int64),
                of_like=transfer / np.maximum(like, 1.0),
                bus_bytes_per_s=speed,
                row=keys,
            )
        )
        LINKS.check(found)
        order = found.sort_values(["of_like", "transfer_ns"], ascending=False, kind="stable", ignore_index=True)
        chosen: pd.DataFrame = order[[*LINKS.columns, "row"]]
        return chosen

    def _slow_link(self, links: pd.DataFrame) -> tuple[Verdict, F64] | None:
        """The groups whose transfers take longer than those of groups that do the same, and transfers without that."""
        slow = links[(links["of_like"] > SLOW_LINK) & (links["count"] > 1)]
        if slow.empty or len(slow) * 2 > len(links):
            return None
        group, kind = self._of_collective(self.matched.group), self._kind_of_collectives()
        kinds = int(kind.max()) + 1
        factor = np.ones(len(self.program.transfer))
        for key, ratio in zip(slow["row"], slow["of_like"], strict=True):
            factor[(group == key // kinds) & (kind == key % kinds)] = ratio
        sets = [set(members_of(text).tolist()) for text in slow["members"].unique().tolist()]
        shared = sorted(set.intersection(*sets) & set(self.ids.tolist()))
        every = sorted(set.union(*sets) & set(self.ids.tolist()))
        rank = shared[0] if len(sets) > 1 and len(shared) == 1 else None
        nodes = {self.nodes.get(one, "") for one in every}
        named = Verdict(
            "link",
            rank,
            nodes.pop() or None if len(nodes) == 1 else None,
            ranks=(rank,) if rank is not None else tuple(every),
            group=str(slow["group"].iloc[0]) if len(sets) == 1 else "",
        )
        return named, self.program.transfer / factor


@dataclass(frozen=True)
class _Gain:
    """What a change of the replay gives: a row of WHAT_IF."""

    share: float
    low: float
    high: float
    saved_ns: int


def _listed(ranks: tuple[int, ...]) -> str:
    return "ranks " + ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
