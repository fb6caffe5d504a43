"""Who holds a job up, by what and since when: who would make it faster in a replay by doing as its peers do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import pandas as pd

from profiler_kit.analyses.ranks.job import PIECES, Job
from profiler_kit.analyses.ranks.links import slow_link
from profiler_kit.analyses.ranks.of_rank import UNKNOWN
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
OUTSTANDING: Final = 10.0  # times the scatter of ranks and steps
CAUSES: Final = ("compute", "host", "data", "copies")
WHOLE: Final = 0.98  # of the job: a rank that recorded so far recorded to its end
DRAWN: Final = 400
TRIED: Final = 3
FEW: Final = 4  # ranks: of fewer the scatter is not known

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
    usual = float(np.median(share))
    scatter = 1.4826 * float(np.median(np.abs(share - usual)))
    slow = np.flatnonzero(share > usual + max(EXCESS_FROM, SCATTER * scatter))
    # of few parts chance is not drawn: then the scatter of the ranks says what is more
    doubted = set(job.ids.tolist()) - set(job.ids[slow].tolist()) if job.is_short and job.ranks >= FEW else set()
    tried: list[Verdict] = []
    rows: list[tuple[object, ...]] = []

    def add(verdict: Verdict | None, what: str, on: str, own: F64, transfer: F64 | None = None) -> None:
        places = [] if transfer is not None or verdict is None else np.searchsorted(job.ids, verdict.ranks).tolist()
        if transfer is None:
            transfer = job.transfer_without(places) if places else program.transfer
        gain = _gain(job, own, transfer, places)
        rows.append((what, on, gain.share, gain.low, gain.high, gain.saved_ns))
        if verdict is not None:
            tried.append(replace(verdict, gain_share=gain.share, gain_low=gain.low, gain_high=gain.high))

    for place in np.argsort(-scores["more_ns"].to_numpy(), kind="stable")[:TRIED].tolist():
        rank = int(job.ids[place])
        add(
            Verdict("rank", rank, job.nodes.get(rank) or None, ranks=(rank,)),
            "this rank like its peers", f"rank {rank}", job.like_peers([place]),
        )  # fmt: skip
    for node, places in job.ranks_of_nodes().items():
        if np.median(share[places]) > usual + EXCESS_FROM:
            ranks = tuple(job.ids[places].tolist())
            add(
                Verdict("node", None, node, ranks=ranks),
                "this node like the others", node, job.like_peers(places),
            )  # fmt: skip
    if len(slow) > 1:
        ranks = tuple(job.ids[slow].tolist())
        add(
            Verdict("spread", ranks=ranks), "these ranks like their peers", _listed(ranks),
            job.like_peers(slow.tolist()),
        )  # fmt: skip
    link = slow_link(job, links)
    if link is not None:
        slower = Verdict("link", link.rank, link.node, ranks=link.ranks, group=link.group)
        on = link.group or f"rank {link.rank}"
        add(slower, "this link like the others", on, program.own, link.transfer)
    everyone = np.where(job.compared, job.typical, program.own)
    add(None, "every rank like the median", "all", everyone)
    add(None, "communication takes no time", "all", program.own, program.transfer * 0)
    gains = {one.rank: one.gain_share or 0.0 for one in tried if one.state == "rank" and one.rank is not None}
    sure = [one for one in tried if (one.gain_share or 0) >= NAMED_FROM and _sure(job, one, gains)]
    named = [one for one in sure if one.state != "rank" or one.rank not in doubted]  # a link is not told by work
    single = [one for one in named if one.state != "spread"]
    best = max(single or named, key=lambda one: one.gain_share or 0, default=None)
    if best is not None and best.state == "node":  # one rank of it that does nearly as much is the cause
        alone = [one for one in single if one.state == "rank" and (one.gain_share or 0) * 1.2 > (best.gain_share or 0)]
        best = alone[0] if alone else best
    if best is None:
        maybe = max(sure, key=lambda one: one.gain_share or 0, default=None)
        verdict = _nobody(job) if maybe is None else Verdict("cannot tell", ranks=maybe.ranks, chance=True)
        return verdict, rows, []
    places = np.searchsorted(job.ids, best.ranks).tolist()
    if best.state == "link":
        return replace(best, cause="link"), rows, places
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
    told = more[cause] >= CAUSE_FROM * whole
    since, count = _since(job, places)
    return replace(best, cause=cause if told else None, since_step=since, slow_steps=count), rows, places


def _gain(job: Job, own: F64, transfer: F64, places: Sequence[int] = ()) -> _Gain:
    """Of the time that the ranks at these places recorded, of all of it unless they are given."""
    ended = job.program.run(own, transfer)
    was, then = job.lengths(job.base), job.lengths(ended)
    if places:
        start, stop = job.recorded(places)
        stop = np.inf if stop > WHOLE * was.sum() else stop
        was, then = job.lengths(job.base, start, stop), job.lengths(ended, start, stop - was.sum() + then.sum())
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
    waited = ~job.complete & (job.of_collective(job.matched.group) != UNKNOWN)
    if not waited.any():
        return Verdict("nobody")
    usual = np.where(waited, np.minimum(program.transfer, job.usual_transfer(0.0)), program.transfer)
    return Verdict("cannot tell" if _gain(job, program.own, usual).share >= NAMED_FROM else "nobody")


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


def _since(job: Job, places: list[int]) -> tuple[int | None, int | None]:
    """The first step of the slow ones; of a few scattered ones the slowest, and how many they are."""
    slow = np.flatnonzero(job.slow_blocks(places))
    if not len(slow) or job.block_names[0] is None:
        steps = job.step[np.isin(job.rank, places) & (job.step != NONE) & (job.more > 0)]
        return (int(steps.min()) if len(steps) else None), None
    lasting = len(slow) >= 0.7 * (len(job.block_names) - slow[0])
    worst = int(job.by_block(job.more)[places].mean(axis=0).argmax())
    return (job.block_names[slow[0]], None) if lasting else (job.block_names[worst], len(slow))


def slow_parts(job: Job, places: list[int], rows: Mask) -> pd.DataFrame:
    """SLOW_PARTS of these ranks together, over these rows."""
    if not places or not len(job.rank):
        return SLOW_PARTS.empty()
    mine = rows & np.isin(job.rank, places) & job.compared
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
