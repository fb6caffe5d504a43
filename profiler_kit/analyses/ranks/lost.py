"""Put back the kernels of collectives that ranks lost: a recording may lack some, and then hides who was waited for.

A collective ends at one moment on all its members, so when a lost kernel ended is known from the others. If all others
had begun more than a usual transfer before that, its rank was ready a usual transfer before; else when its peers, which
run the same program, would have been.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from profiler_kit.analyses.ranks.job import PIECES, Job
from profiler_kit.analyses.ranks.matching import JOB_WORK, PAIRWISE, Matched
from profiler_kit.analyses.ranks.of_rank import UNKNOWN, members_of
from profiler_kit.analyses.ranks.replay import LEAST_NS, NONE
from profiler_kit.load.integers import I64, Mask

LONGER: Final = 0.25  # of a usual transfer: so much longer than that the others waited
MOST_LOST: Final = 500  # that are put back; of recordings that lack more little can be said


class PutBack(NamedTuple):
    """JOB_WORK with what was lost, its collectives, which rows were recorded, and which hold the work of one alone."""

    work: pd.DataFrame
    matched: Matched
    recorded: Mask
    is_split: Mask


def put_back(work: pd.DataFrame, job: Job) -> PutBack | None:
    """JOB_WORK and its Job in; None where nothing was lost."""
    lost = list(islice(_lost(job), MOST_LOST + 1))
    if not 0 < len(lost) <= MOST_LOST:
        return None
    other, like = np.array(lost, dtype=np.int64).T
    stream, arrive = work["stream"].to_numpy(), work["arrive_ns"].to_numpy().copy()
    is_split = np.ones(len(work), dtype=bool)
    times = np.empty((3, len(lost)))
    for at, (one, row) in enumerate(lost):
        times[:, at], later = _times(job, stream, one, row)
        for changed, ready in later.items():
            arrive[changed] = job.by_own_clock(job.rank[changed : changed + 1], np.array([ready]))[0]
            is_split[changed] = False
    added = work.iloc[like].assign(
        event=UNKNOWN,
        held_ns=0,
        **{name: work[name].iloc[other].to_numpy() for name in ("step", "bytes")},
        **{
            f"{name}_ns": job.by_own_clock(job.rank[like], time)
            for name, time in zip(("arrive", "start", "end"), times, strict=True)
        },
        **{f"{side}_{name}_ns": 0 for side in ("before", "under") for name in PIECES},
    )
    collective = job.matched.collective.copy()
    for number in np.unique(job.program.collective[other[collective[other] == UNKNOWN]]).tolist():
        collective[job.program.collective == number] = int(collective.max()) + 1
    whole = JOB_WORK.join([work.assign(arrive_ns=arrive), added])
    order = np.lexsort((whole["arrive_ns"].to_numpy(), whole["rank"].to_numpy()))
    group, why = job.matched.group, np.where(collective == UNKNOWN, job.matched.why, 0)
    found = [np.append(one, one[other])[order] for one in (collective, group, why)]
    matched = replace(job.matched, collective=found[0], group=found[1], why=found[2])
    is_split = np.append(is_split, np.zeros(len(lost), dtype=bool))[order]
    return PutBack(whole.iloc[order].reset_index(drop=True), matched, order < len(work), is_split)


def _lost(job: Job) -> Iterator[tuple[int, int]]:
    """Of each lost kernel a row of another member, and the nearest row of its own rank with the same operation.

    A rank lost the kernels that others of the group recorded, between those that it recorded itself.
    """
    program, group = job.program, job.matched.group
    pairwise = np.isin(job.operations, PAIRWISE)
    kind = np.where(pairwise[job.operation], UNKNOWN, job.operation)
    first, last = np.full(job.ranks, np.inf), np.full(job.ranks, -np.inf)
    np.minimum.at(first, job.rank, program.end)
    np.maximum.at(last, job.rank, program.start)
    members = job.matched.groups["members"].to_numpy()
    partial = np.flatnonzero(~job.complete & (job.of_collective(group) != UNKNOWN))
    rows = np.flatnonzero(np.isin(program.collective, partial))
    rows = rows[np.argsort(program.collective[rows], kind="stable")]
    for present in np.split(rows, np.flatnonzero(np.diff(program.collective[rows])) + 1) if len(rows) else ():
        one = int(present[np.argmin(program.end[present])])
        all_of_it = np.flatnonzero(np.isin(job.ids, members_of(members[group[one]])))
        for place in np.setdiff1d(all_of_it, job.rank[present]).tolist():
            apart = job.clocks.component[place] != job.clocks.component[job.rank[one]]
            if apart or not first[place] < program.end[one] < last[place]:
                continue
            mine = np.flatnonzero((job.rank == place) & (group == group[one]))
            beside = (program.end[mine] > program.start[one]) & (program.start[mine] < program.end[one])
            like = mine[kind[mine] == kind[one]]
            if len(like) and not (beside & ~job.is_matched[mine]).any():  # else that may be it
                yield one, int(like[np.argmin(np.abs(program.end[like] - program.end[one]))])


def _times(job: Job, stream: I64, other: int, like: int) -> tuple[tuple[float, float, float], dict[int, float]]:
    """When the rank was ready for its lost kernel, when that began and when it ended, by the common clock; and when it
    was ready for those after it that had to wait for it on their stream, which is not in its recording.
    """
    program = job.program
    last, end = float(program.start[program.collective == program.collective[other]].max()), float(program.end[other])
    mine = np.flatnonzero(job.rank == job.rank[like])
    earlier, after = mine[program.end[mine] < end], mine[program.end[mine] >= end]
    free = float(program.end[earlier[stream[earlier] == stream[like]]].max(initial=0.0))
    usual = _usual_transfer(job, other, like)
    begun = max(end - usual, free)
    ready = _ready(job, other, like, float(program.arrive[earlier[-1]]), float(program.end[earlier[-1]]))
    if begun - max(last, free) > max(LEAST_NS, LONGER * usual):  # the others waited for this rank
        ready = begun
    ready = min(ready, max(begun, last), float(program.arrive[after[0]]))
    later: dict[int, float] = {after[0]: float(program.arrive[after[0]])}
    if stream[after[0]] == stream[like] and program.start[after[0]] < end + LEAST_NS:
        until, ended = ready, end
        for row in after[program.arrive[after] == program.arrive[after[0]]].tolist():
            until = min(_ready(job, row, like, until, ended), float(program.arrive[row]))
            later[row], ended = until, float(program.end[row])
    return (ready, min(max(ready, free), end), end), later


def _ready(job: Job, at: int, like: int, ready: float, ended: float) -> float:
    """When a rank that does as its peers is ready for the collective of this row after it was for one that ended so.

    By the lower quartile of the peers' work: some of few may be slow.
    """
    program = job.program
    peers = (program.level == program.level[at]) & (job.role[job.rank] == job.role[job.rank[like]])
    peers &= job.rank != job.rank[like]
    if not peers.any():
        return float("inf")
    waits = (program.waits[peers] != NONE).mean() > 0.5
    return (max(ready, ended) if waits else ready) + float(np.quantile(program.own[peers], 0.25, method="lower"))


def _usual_transfer(job: Job, other: int, like: int) -> float:
    """What the others of this kind take in this group, else in others of its kind; infinity without any."""
    mine = (job.matched.group == job.matched.group[like]) & (job.operation == job.operation[like])
    mine &= (job.bytes == job.bytes[other]) & job.complete[job.program.collective]
    number = job.program.collective[other]
    known = job.program.transfer[job.program.collective[mine]]
    return float(np.median(known)) if len(known) else float(job.usual_transfer(np.inf)[number])
