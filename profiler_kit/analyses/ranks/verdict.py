"""Who holds a job up, by what and since when: who would make it faster in a replay by doing as its peers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple

import numpy as np
import pandas as pd

from profiler_kit.analyses.ranks.job import PIECES, Job, slow_among
from profiler_kit.analyses.ranks.links import SlowLink, slow_link
from profiler_kit.analyses.ranks.replay import NONE
from profiler_kit.load.integers import F64, Mask
from profiler_kit.schema import Column, Schema

State = Literal["rank", "node", "link", "spread", "nobody", "cannot tell"]
NAMED_FROM: Final = 0.03  # of the job's time: what gains less is not worth a name
LOW_FROM: Final = 0.01  # that the gain reaches in 19 of 20 drawings of steps
CLEAR: Final = 1.5  # times the gain of the next best one
EXCESS_FROM: Final = 0.02  # of its work: a rank that is more above its peers is looked at
SCATTER: Final = 4.0  # times the usual scatter of ranks
CAUSE_FROM: Final = 0.3  # of all that a rank has more
DOUBT: Final = 2.0  # times what chance alone gives, where it is not drawn
OUTSTANDING: Final = 10.0  # times the scatter of ranks and steps
CAUSES: Final = ("compute", "host", "data", "copies")
WHOLE: Final = 0.98  # of the job: a rank that recorded so far recorded to its end
DRAWN: Final = 400
BEGUN: Final = 0.25  # of what is more in a slow step: it began in this one
NEARLY: Final = 1.2  # times the gain: no reason to name more
TRIED: Final = 3
MOST_TOGETHER: Final = 6  # slow ranks of which it is tried who of them is needed
FEW: Final = 4  # ranks: of fewer the scatter is not known

WHAT_IF: Final = Schema(
    "RANK_WHAT_IF",
    "change that was tried on the whole job, the one that gains most first",
    {
        "tried": Column("str", "What is tried.", "what if"),
        "ranks": Column("str", "On whom.", "on"),
        "gain_share": Column("float64", "Of the time of the job.", "gain"),
        "gain_low": Column(
            "float64", "It is more in 19 of 20 bootstrap samples of the steps.", "at least", unit="share"
        ),
        "gain_high": Column(
            "float64", "It is less in 19 of 20 bootstrap samples of the steps.", "at most", unit="share"
        ),
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
        "share": Column("float64", "Share of all its extra own work."),
    },
)


class Slow(NamedTuple):
    """A rank that is slow: by what, since when. slow_steps: see Verdict."""

    rank: int
    cause: str | None
    since_step: int | None
    slow_steps: int | None


@dataclass(frozen=True)
class Verdict:
    """Who holds the job up. gain_*: shares of the job's time; None where nothing was replayed."""

    state: State
    rank: int | None = None
    node: str | None = None
    cause: str | None = None
    since_step: int | None = None
    slow_steps: int | None = None  # how many are slow, of which since_step is the slowest; None: all since then
    gain_share: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    ranks: tuple[int, ...] = ()  # all that are meant: those of a node, of a link, or that share it
    slow: tuple[Slow, ...] = ()  # of "spread": each of them; its cause is what they have in common
    group: str = ""  # of a link: the name of its process group
    chance: bool = False  # of "cannot tell": these ranks have more work, of too few steps to know


@dataclass(frozen=True)
class _Gain:
    """What a change of the replay gives: a row of WHAT_IF."""

    share: float
    low: float
    high: float
    saved_ns: int


def judge(job: Job, scores: pd.DataFrame, links: pd.DataFrame) -> tuple[Verdict, list[tuple[object, ...]], list[int]]:
    """RANK_SCORES and LINKS in; the verdict, the rows of WHAT_IF, and the places of the ranks that are meant out."""
    program = job.program
    share = scores["more_share"].to_numpy()
    usual = float(np.quantile(share, 0.5, method="lower"))
    # of few ranks, of which half may be slow, the scatter is that of each piece of work, added up as chance does
    of_ranks, by_chance = 1.4826 * float(np.median(np.abs(share - usual))), _chance(job)
    slow = np.flatnonzero(share > usual + np.maximum(EXCESS_FROM, SCATTER * np.minimum(of_ranks, by_chance)))
    # of few parts chance is not drawn: then the scatter of the ranks says what is more
    beyond = np.flatnonzero(share > usual + np.maximum(EXCESS_FROM, SCATTER * np.minimum(of_ranks, DOUBT * by_chance)))
    doubted = set(job.ids.tolist()) - set(job.ids[beyond].tolist()) if job.is_short and job.ranks >= FEW else set()
    tried: list[Verdict] = []
    rows: list[tuple[object, ...]] = []

    def add(verdict: Verdict | None, what: str, on: str, gain: _Gain) -> None:
        rows.append((what, on, gain.share, gain.low, gain.high, gain.saved_ns))
        if verdict is not None:
            tried.append(replace(verdict, gain_share=gain.share, gain_low=gain.low, gain_high=gain.high))

    def by_work(own: F64, places: Sequence[int] = ()) -> _Gain:
        return _gained(job, job.base, program.run(own, program.transfer), places)

    for place in np.argsort(-scores["more_ns"].to_numpy(), kind="stable")[:TRIED].tolist():
        rank = int(job.ids[place])
        add(
            Verdict("rank", rank, job.nodes.get(rank) or None, ranks=(rank,)),
            "this rank like its peers", f"rank {rank}", by_work(job.like_peers([place]), [place]),
        )  # fmt: skip
    for node, places in job.ranks_of_nodes().items():
        if np.quantile(share[places], 0.25, method="lower") > usual + EXCESS_FROM:  # most of its ranks
            ranks = tuple(job.ids[places].tolist())
            add(
                Verdict("node", None, node, ranks=ranks),
                "this node like the others", node, by_work(job.like_peers(places), places),
            )  # fmt: skip
    alone = [one.ranks for one in tried if one.state == "rank" and (one.gain_share or 0) >= NAMED_FROM]
    together = _together(job, sorted({*slow.tolist(), *(int(np.searchsorted(job.ids, one[0])) for one in alone)}))
    if len(together) > 1:
        ranks = tuple(job.ids[together].tolist())
        gain = by_work(job.like_peers(together), together)
        add(Verdict("spread", ranks=ranks), "these ranks like their peers", _listed(ranks), gain)
    link = slow_link(job, links)
    if link is not None:
        of_link = Verdict("link", link.rank, link.node, ranks=link.ranks, group=link.group)
        on = link.group or f"rank {link.rank}"
        add(of_link, "this link like the others", on, _gain_of_link(job, link))
    add(None, "every rank like the median", "all", by_work(job.like_median()))
    without = program.run(job.own, program.transfer * 0)
    add(None, "communication takes no time", "all", _gained(job, job.base, without))
    gains = {one.rank: one.gain_share or 0.0 for one in tried if one.state == "rank" and one.rank is not None}
    sure = [one for one in tried if (one.gain_share or 0) >= NAMED_FROM and _sure(job, one, gains)]
    # a link is not told by work
    named = [one for one in sure if one.state not in ("rank", "spread") or doubted.isdisjoint(one.ranks)]
    best = max(named, key=lambda one: one.gain_share or 0, default=None)
    if best is not None and best.state in ("node", "spread"):
        best = _simpler(named, best)
    if best is None:
        maybe = max(sure, key=lambda one: one.gain_share or 0, default=None)
        if maybe is not None:
            return Verdict("cannot tell", ranks=maybe.ranks, chance=True), rows, []
        # a link that is slow, of which the parts of the job do not say for sure what it costs
        slow_links = (one for one in tried if one.state == "link" and (one.gain_share or 0) >= NAMED_FROM)
        return Verdict("cannot tell") if any(slow_links) else _nobody(job), rows, []
    places = np.searchsorted(job.ids, best.ranks).tolist()
    if best.state == "link":
        assert link is not None
        more: F64 = np.bincount(job.blocks, program.transfer - link.transfer, len(job.block_names)).astype(np.float64)
        since, count = _since(job, more)
        if since is None:
            steps = job.step[(program.transfer > link.transfer)[program.collective] & (job.step != NONE)]
            since = int(steps.min()) if len(steps) else None
        return replace(best, cause="link", since_step=since, slow_steps=count), rows, places
    if best.state == "spread":
        each = tuple(Slow(rank, *_why(job, [place])) for rank, place in zip(best.ranks, places, strict=True))
        causes = {one.cause for one in each}
        steps = [one.since_step for one in each if one.since_step is not None]
        together_since = min(steps, default=None)
        best = replace(best, slow=each, cause=causes.pop() if len(causes) == 1 else None, since_step=together_since)
        return best, rows, places
    cause, since, count = _why(job, places)
    return replace(best, cause=cause, since_step=since, slow_steps=count), rows, places


def _chance(job: Job) -> F64:
    """How far the share that each rank has more would scatter, were the pieces of its work independent.

    By those that are below their peers, for half of the ranks may be slow.
    """
    rows = np.flatnonzero(job.compared & (job.typical > 0))
    below = (-job.more[rows] / job.typical[rows])[job.more[rows] < 0]
    scatter = 1.4826 * float(np.median(below)) if len(below) else 0.0
    work, squares = (np.bincount(job.rank[rows], job.typical[rows] ** power, minlength=job.ranks) for power in (1, 2))
    return np.asarray(scatter * np.sqrt(squares) / np.maximum(work, 1.0))


def _together(job: Job, places: list[int]) -> list[int]:
    """Those of the slow ranks without whom what all gain would be less; all if they are many."""

    def ended(chosen: list[int]) -> F64:
        return job.program.run(job.like_peers(chosen), job.program.transfer)

    while 1 < len(places) <= MOST_TOGETHER:
        every = ended(places)
        rests = [[one for one in places if one != left] for left in places]
        needed = [_gained(job, ended(rest), every) for rest in rests]
        least = min(range(len(places)), key=lambda at: needed[at].share)
        if needed[least].share >= NAMED_FROM and (job.is_short or needed[least].low >= LOW_FROM):
            break
        places = rests[least]
    return places


def _simpler(named: list[Verdict], best: Verdict) -> Verdict:
    """What says as much by fewer: of a node one rank that does nearly as much, of some ranks their node."""
    enough = (best.gain_share or 0) / NEARLY
    states = {"node": ("rank",), "spread": ("node",)}[best.state]
    fewer = [one for one in named if one.state in states and (one.gain_share or 0) > enough]
    return fewer[0] if fewer else best


def _why(job: Job, places: list[int]) -> tuple[str | None, int | None, int | None]:
    """By what these ranks are slow, None where that is not clear, and since when (_since)."""
    parts = slow_parts(job, places, job.slow_rows(places))
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
    since, count = _since(job, job.by_block(job.more)[places].mean(axis=0))
    if since is None:
        steps = job.step[np.isin(job.rank, places) & (job.step != NONE) & (job.more > 0)]
        since = int(steps.min()) if len(steps) else None
    return cause if more[cause] >= CAUSE_FROM * whole else None, since, count


def _gain_of_link(job: Job, link: SlowLink) -> _Gain:
    """Of the time since all its ranks recorded: before, their kernels hold it and were compared with no other's."""
    since = job.first_of_all(link.places)
    after = job.program.run(job.own, link.transfer)
    if since is None:
        return _gained(job, job.base, after)
    return _drawn(job.lengths(job.base, float(job.base[since])), job.lengths(after, float(after[since])))


def _gained(job: Job, before: F64, after: F64, places: Sequence[int] = ()) -> _Gain:
    """By collectives that end so, of those that end as before; of the time that the ranks at these places recorded, of
    all of it unless they are given.
    """
    was, then = job.lengths(before), job.lengths(after)
    if places:
        start, stop = job.recorded_from_to(places)
        stop = np.inf if stop > WHOLE * was.sum() else stop
        was, then = job.lengths(before, start, stop), job.lengths(after, start, stop - was.sum() + then.sum())
    return _drawn(was, then)


def _drawn(was: F64, then: F64) -> _Gain:
    """How long each part took, and how long it would take."""
    was, then = was[was > 0], then[was > 0]  # a part that holds nothing of the time says nothing of a gain
    if not len(was):
        return _Gain(0.0, 0.0, 0.0, 0)
    drawn = np.random.default_rng(0).integers(0, len(was), (DRAWN, len(was)))
    gains = 1 - then[drawn].sum(axis=1) / np.maximum(was[drawn].sum(axis=1), 1.0)
    low, high = np.quantile(gains, (0.05, 0.95)).tolist()
    saved = float(was.sum() - then.sum())
    return _Gain(saved / max(float(was.sum()), 1.0), low, high, round(saved))


def _sure(job: Job, verdict: Verdict, gains: dict[int, float]) -> bool:
    """Whether it is more than chance: in most drawings of steps, or in a step far beyond the scatter of all."""
    if verdict.state == "rank":
        others = [gain for rank, gain in gains.items() if rank != verdict.rank]
        if (verdict.gain_share or 0) < CLEAR * max(others, default=0.0):
            return False
    if (verdict.gain_low or 0) >= LOW_FROM:
        return True
    if verdict.state == "link":
        return False
    more = job.by_block(job.more)
    mine = more[np.searchsorted(job.ids, verdict.ranks)].min(axis=0)
    scatter = 1.4826 * float(np.median(np.abs(more - np.median(more))))
    return bool(mine.max(initial=0.0) > OUTSTANDING * max(scatter, 1_000.0))


def _nobody(job: Job) -> Verdict:
    """Nobody, unless what was waited for may be what no recording holds: a rank that did not record the collective
    (transfers longer than where all did), or, in a short job, the work before a rank's first one.
    """
    program = job.program
    late = _late_at_first(job)
    if late is not None:
        return Verdict("cannot tell", ranks=(late,))
    sizes = np.append(job.matched.groups["size"].to_numpy(), 0)
    waited = ~job.complete & (sizes[job.of_collective(job.matched.group)] != 1)
    if not waited.any():
        return Verdict("nobody")
    usual = np.where(waited, np.minimum(program.transfer, job.usual_transfer(0.0)), program.transfer)
    without = program.run(job.own, usual)
    even = job.like_median()
    # also where they hold up what would be gained if all were alike
    hidden = (
        _gained(job, without, program.run(even, usual)).share
        - _gained(job, job.base, program.run(even, program.transfer)).share
    )
    unknown = max(_gained(job, job.base, without).share, hidden) >= NAMED_FROM
    return Verdict("cannot tell" if unknown else "nobody")


def _late_at_first(job: Job) -> int | None:
    """The rank of a short job that all others waited for, alike and long, in its first collective."""
    longest = np.zeros(len(job.program.transfer))
    np.maximum.at(longest, job.program.collective, job.wait.astype(np.float64))
    first = job.is_short & job.last & (job.program.before == NONE)
    if not first.any():
        return None
    row = int(np.where(first, longest[job.program.collective], -1.0).argmax())
    waits = job.wait[(job.program.collective == job.program.collective[row]) & ~job.last]
    usual = float(np.median(waits)) if len(waits) else 0.0
    chance = SCATTER * 1.4826 * float(np.median(np.abs(waits - usual))) if len(waits) else 0.0
    is_long = usual >= NAMED_FROM * float(job.base.max()) and usual > chance
    return int(job.ids[job.rank[row]]) if is_long else None


def _since(job: Job, more: F64) -> tuple[int | None, int | None]:
    """The first step that is slow, by what is more in each; of a few scattered ones the slowest, and how many."""
    slow = np.flatnonzero(slow_among(more))
    if not len(slow) or job.block_names[0] is None:
        return None, None
    first = int(slow[0])
    if len(slow) < 0.7 * (len(more) - first):
        return job.block_names[int(more.argmax())], len(slow)
    # what is done after the last collective of a step is before the first one of the next
    begun = first > 0 and more[first - 1] > BEGUN * float(np.quantile(more, 0.9))
    return job.block_names[first - begun], None


def slow_parts(job: Job, places: list[int], rows: Mask) -> pd.DataFrame:
    """SLOW_PARTS of these ranks together, over these rows."""
    if not places or not len(job.rank):
        return SLOW_PARTS.empty()
    mine = rows & np.isin(job.rank, places) & job.compared & job.is_split
    own, more = float(job.program.own[mine].sum()), float(job.more[mine].sum())
    found = [("own work", own, more)]
    for name, piece in zip(PIECES, job.pieces, strict=True):
        typical, _ = job.typical_of(piece)
        found.append((name, float(piece[mine].sum()), float((piece - typical)[mine].sum())))
    left = more - sum(one for _, _, one in found[1:])
    found.append(("unexplained", own - sum(one for _, one, _ in found[1:]), left))
    rank = int(job.ids[places[0]])
    return SLOW_PARTS.of(
        (rank, name, round(had), round(had - above), round(above), above / more if more else 0.0)
        for name, had, above in found
    )


def _listed(ranks: tuple[int, ...]) -> str:
    return "ranks " + ", ".join(map(str, ranks[:8])) + (f" and {len(ranks) - 8} more" if len(ranks) > 8 else "")
