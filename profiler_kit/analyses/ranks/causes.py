"""What is known of a job: who holds it up, and each rank, step, link and clock.

A rank's own work before its arrival at each collective is compared with that of the ranks that run the same program
(job.py); who is named has to make the job faster in a replay (verdict.py): the cause, not those that wait for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.ranks.clocks import CLOCKS
from profiler_kit.analyses.ranks.job import Job
from profiler_kit.analyses.ranks.links import links_of
from profiler_kit.analyses.ranks.lost import put_back
from profiler_kit.analyses.ranks.matching import REASONS, match
from profiler_kit.analyses.ranks.verdict import WHAT_IF, Verdict, judge, slow_parts
from profiler_kit.load.integers import F64, I64, Mask
from profiler_kit.schema import Column, Schema

RANK_SCORES: Final = Schema(
    "RANK_SCORES",
    "rank",
    {
        "rank": Column("int64"),
        "own_ns": Column("int64", "Its own work before its arrivals at collectives, added up.", "own work"),
        "more_ns": Column("int64", "More than the median of its peers.", "more"),
        "more_share": Column(
            "float64",
            "Of the work of its peers, before collectives that they recorded too.",
            "of theirs",
            unit="change",
        ),
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
class JobAnswer:
    """What is known of a job. matched, unmatched: kernels. why: of the unmatched ones, how many for each reason."""

    verdict: Verdict
    matched: int
    unmatched: int
    why: dict[str, int]
    by_steps: bool  # whether intervals of gains are drawn from steps, else from parts of the job
    looked_at: int | None  # of the ranks that are named, else of all, the one with most work beyond that of its peers
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
    # by rank, in Unix time of its own clock: the moment that its offset holds at
    middle_ns: Mapping[int, int] = field(default_factory=dict, repr=False)

    def on_one_clock(self, rank: int, time_ns: I64) -> I64:
        """Unix times of a rank's clock by that of the first rank of its component."""
        row = self.clocks[self.clocks["rank"] == rank].iloc[0]
        drifted = (time_ns - self.middle_ns[rank]) * (float(row["drift_ppm"]) / 1e6)
        return time_ns - int(row["offset_ns"]) - np.round(drifted).astype(np.int64)


def answer(work: pd.DataFrame, groups: pd.DataFrame, nodes: Mapping[int, str] | None = None) -> JobAnswer:
    """JOB_WORK (by rank and start) and JOB_GROUPS of a job's ranks -> what is known of it.

    nodes: the host of each rank, where that is known.
    """
    job = seen = Job(work, match(work, groups), nodes or {})
    recorded = np.ones(len(work), dtype=bool)
    found = put_back(work, seen)
    if found is not None:
        job, recorded = Job(found.work, found.matched, seen.nodes, found.is_split), found.recorded
    scores, steps = _scores(job, seen), _steps(job, seen, recorded)
    links = links_of(job)
    rows: list[tuple[object, ...]] = []
    verdict = Verdict("cannot tell")
    chosen: list[int] = []
    enough = job.ranks > 1 and seen.is_matched.sum() * 2 > len(seen.rank) and job.compared.any()
    if enough:
        verdict, rows, chosen = judge(job, scores, links)
    what_if = WHAT_IF.of(rows).sort_values("gain_share", ascending=False, kind="stable", ignore_index=True)
    why = np.bincount(seen.matched.why, minlength=len(REASONS))
    if not chosen and len(scores):
        chosen = [int(scores["more_ns"].to_numpy().argmax())]
    slowest = max(chosen, key=lambda place: int(scores["more_ns"].iloc[place]), default=None)
    of_slowest = [] if slowest is None else [slowest]
    return JobAnswer(
        verdict=verdict,
        matched=int(seen.is_matched.sum()),
        unmatched=int((~seen.is_matched).sum()),
        why={reason: int(count) for reason, count in zip(REASONS, why, strict=True) if reason and count},
        by_steps=job.block_names[0] is not None,
        looked_at=int(job.ids[slowest]) if slowest is not None else None,
        peers=job.peers_of(slowest, chosen) if slowest is not None else (),
        groups=job.matched.groups,
        clocks=_clock_frame(seen),
        what_if=what_if,
        slow_parts=slow_parts(job, of_slowest, job.slow_rows(of_slowest)),
        scores=scores,
        steps=steps,
        links=links.drop(columns=["row"]),
        rows=_rows(job, seen, recorded),
        replayed_ns=round(float(job.base.max(initial=0.0))),
        recorded_ns=round(float(job.program.end.max(initial=0.0))),
        middle_ns={
            rank: seen.first + round(middle)
            for rank, middle in zip(seen.ids.tolist(), seen.clocks.middle_ns.tolist(), strict=True)
        },
    )


def _scores(job: Job, seen: Job) -> pd.DataFrame:
    """RANK_SCORES. seen: the job as it was recorded, without what was put back."""
    wait, last = seen.wait, seen.last
    longest = np.zeros(len(seen.program.transfer), dtype=np.int64)
    np.maximum.at(longest, seen.program.collective, wait)

    def added(value: F64 | I64 | Mask) -> F64:
        rank = job.rank if len(value) == len(job.rank) else seen.rank
        return np.bincount(rank, value, minlength=job.ranks).astype(np.float64)

    more = added(job.more)
    return RANK_SCORES.cast(
        pd.DataFrame(
            {
                "rank": job.ids,
                "own_ns": added(job.program.own).round(),
                "more_ns": more.round(),
                "more_share": more / np.maximum(added(np.where(job.compared, job.typical, 0.0)), 1.0),
                "wait_ns": added(wait),
                "arrived_last": added(last),
                "held_ns": added(np.where(last, longest[seen.program.collective], 0)),
                "collectives": added(seen.is_matched),
            }
        )
    )


def _steps(job: Job, seen: Job, recorded: Mask) -> pd.DataFrame:
    if not len(job.rank):
        return RANK_STEP_WORK.empty()
    wait = np.zeros(len(job.rank), dtype=np.int64)
    wait[recorded] = seen.wait
    steps, number = np.unique(job.step, return_inverse=True)
    keys, row = np.unique(job.rank * len(steps) + number, return_inverse=True)
    return RANK_STEP_WORK.cast(
        pd.DataFrame(
            {
                "rank": job.ids[keys // len(steps)],
                "step": steps[keys % len(steps)],
                "own_ns": np.bincount(row, job.program.own).round(),
                "more_ns": np.bincount(row, job.more).round(),
                "wait_ns": np.bincount(row, wait).round(),
            }
        )
    )


def _rows(job: Job, seen: Job, recorded: Mask) -> pd.DataFrame:
    return ROWS.check(
        pd.DataFrame(
            {
                "collective": seen.matched.collective,
                "group": seen.matched.group,
                "wait_ns": seen.wait,
                "last": seen.last,
                "own_ns": job.program.own[recorded],
                "more_ns": job.more[recorded],
            }
        )
    )


def _clock_frame(job: Job) -> pd.DataFrame:
    told = job.clocks
    return CLOCKS.cast(
        pd.DataFrame(
            {
                "rank": job.ids,
                "component": told.component,
                "offset_ns": told.offset.round(),
                "drift_ppm": told.drift * 1e6,
                "error_ns": np.nan_to_num(told.error).round(),
                "collectives": told.count,
            }
        )
    )
