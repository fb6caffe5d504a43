"""Compare the ranks of one job: how busy each was, and which one the others waited for.

A collective's kernel runs on every rank of its group and ends on all of them together; on a rank that is early it
waits. So the shortest kernel of a collective is that of the rank that arrived last, and the extra time of each other
is its wait. That needs no common clock.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.timeline import GPU_TIMES
from profiler_kit.analyses.ranks.causes import RANK_SCORES, RANK_STEP_WORK, JobAnswer
from profiler_kit.analyses.ranks.of_rank import RANK_STEPS
from profiler_kit.schema import Column, Schema

RANK_COLLECTIVES: Final = Schema(
    "RANK_COLLECTIVES",
    "collective and rank, those of one collective together",
    {
        "collective": Column("int64", "Number of the collective, in order.", "no."),
        "rank": Column("int64"),
        "event": Column("int64", "Row of that rank's events."),
        "name": Column("str", "Kernel of the collective.", "kernel", unit="kernel"),
        "group": Column("str", "Process group, as the trace names it.", show="room"),
        "start_ns": Column("int64", "Unix time in nanoseconds.", show="never"),
        "dur_ns": Column("int64"),
        "wait_ns": Column("int64", "How much longer its kernel took than the shortest.", "waited"),
        "last": Column("bool", "Its kernel is the shortest: this rank arrived last.", "came last"),
    },
)

RANK_TOTALS: Final = Schema(
    "RANK_TOTALS",
    "rank",
    {
        "rank": Column("int64"),
        "gpu_events": Column("int64", "Kernels, memory copies and memory sets.", show="room"),
        **GPU_TIMES,
        "collectives": Column("int64", "Collectives that were recorded on this rank and on another.", show="room"),
        "wait_ns": Column("int64", "Time in collectives until the last rank arrived.", "waited"),
        "arrived_last": Column("int64", "Collectives at which this rank arrived last.", show="room"),
        "held_ns": Column("int64", "How long others waited at the collectives where it arrived last.", "held others"),
        "own_ns": Column("int64", "Its own work before its arrivals at collectives, added up.", "own work"),
        "more_ns": Column("int64", "More own work than the median of its peers, which run the same program.", "more"),
        "more_share": Column(
            "float64",
            "Of the work of its peers, before collectives that they recorded too.",
            "of theirs",
            "room",
            unit="change",
        ),
    },
)

STEPS_OF_RANKS: Final = Schema(
    "STEPS_OF_RANKS",
    "rank and step",
    {
        "rank": Column("int64"),
        "step": RANK_STEPS.columns["step"],
        "start_ns": Column("int64", "Unix time by the clock of the rank.", show="never"),
        "wall_ns": Column("int64", "Time on the host.", "time"),
        **{name: RANK_STEP_WORK.columns[name] for name in ("own_ns", "more_ns", "wait_ns")},
        **{
            name: RANK_STEPS.columns[name] for name in ("gpu_events", "computation_ns", "communication_ns", "memcpy_ns")
        },
    },
)
STEP_TIMES: Final = Schema(
    "STEP_TIMES",
    "step of the job",
    {
        "step": RANK_STEPS.columns["step"],
        "ranks": Column("int64", "Ranks that recorded it."),
        "wall_ns": Column("int64", "Of the slowest rank.", "time"),
        "slow_rank": Column(
            "Int64",
            "The rank with most own work beyond that of its peers; missing where none has more.",
            "most beyond",
            unit="id",
        ),
        "more_ns": Column("int64", "More own work than its peers; 0 where none has.", "more"),
    },
)

COLLECTIVE_WAITS: Final = Schema(
    "COLLECTIVE_WAITS",
    "collective, the longest wait first",
    {
        "collective": RANK_COLLECTIVES.columns["collective"],
        "name": RANK_COLLECTIVES.columns["name"],
        "wait_ns": Column("int64", "Of the rank that waited longest.", "longest wait"),
        "last_rank": Column("int64", "The rank that arrived last; the others waited for it.", unit="id"),
        "waiting_rank": Column("int64", "The rank that waited longest.", unit="id"),
        "transfer_ns": Column("int64", "The shortest kernel: no rank was waited for any more.", "itself"),
        "group": RANK_COLLECTIVES.columns["group"],
    },
)


SLOW_NAMES: Final = Schema(
    "SLOW_NAMES",
    "kernel, or region in which the GPU was idle, of one rank, that with most beyond its peers first",
    {
        "rank": Column("int64"),
        "kind": Column(
            "str", "Of a kernel its durations count, of a region the idle time of the GPU while the host was in it."
        ),
        "name": Column("str", "The kernel or the region.", unit="kernel"),
        "own_ns": Column("int64", "Of this rank."),
        "peers_ns": Column("int64", "Of the median of its peers.", "peers"),
        "more_ns": Column("int64", "Of this rank than of its peers.", "more"),
    },
)


def slow_names(parts: pd.DataFrame, rank: int) -> pd.DataFrame:
    """RANK_PARTS behind a column rank, of a rank and of its peers -> SLOW_NAMES: where it has more than they have."""
    kernels = parts["kind"] == "kernel"
    value = parts["gpu_ns"].where(kernels, parts["idle_ns"])
    texts = parts[["kind", "name"]].astype(object)
    by_rank = value.groupby([texts["kind"], texts["name"], parts["rank"]]).sum().unstack(fill_value=0)
    if rank not in by_rank or by_rank.shape[1] < 2:
        return SLOW_NAMES.empty()
    own, peers = by_rank[rank], by_rank.drop(columns=rank).median(axis=1).astype("int64")
    found = pd.DataFrame({"own_ns": own, "peers_ns": peers, "more_ns": own - peers}).reset_index().assign(rank=rank)
    found = found[(found["own_ns"] > 0) | (found["peers_ns"] > 0)]
    return SLOW_NAMES.cast(found.sort_values("more_ns", ascending=False, kind="stable", ignore_index=True))


def rank_collectives(work: pd.DataFrame, found: JobAnswer) -> pd.DataFrame:
    """JOB_WORK and what is known of it -> RANK_COLLECTIVES: its matched kernels."""
    rows = found.rows
    names = np.append(found.groups["name"].to_numpy(), "")
    frame = pd.DataFrame(
        {
            "collective": rows["collective"],
            "rank": work["rank"],
            "event": work["event"],
            "name": work["name"].astype(object),
            "group": names[rows["group"].to_numpy()],
            "start_ns": work["start_ns"],
            "dur_ns": work["end_ns"] - work["start_ns"],
            "wait_ns": rows["wait_ns"],
            "last": rows["last"],
        }
    )
    matched = frame[rows["collective"] >= 0]
    return RANK_COLLECTIVES.check(matched.sort_values(["collective", "rank"], kind="stable", ignore_index=True))


def rank_totals(timelines: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """The GPU timeline of each rank and RANK_SCORES -> RANK_TOTALS: one row per rank."""
    of_work = RANK_SCORES.check(scores).set_index("rank")
    found = timelines.join(of_work, on="rank")
    return RANK_TOTALS.cast(found.fillna(dict.fromkeys(of_work.columns, 0)))


def rank_steps(steps: pd.DataFrame, work: pd.DataFrame) -> pd.DataFrame:
    """RANK_STEPS behind a column rank, and RANK_STEP_WORK -> STEPS_OF_RANKS."""
    timed = steps.assign(wall_ns=steps["end_ns"] - steps["start_ns"])
    found = timed.merge(RANK_STEP_WORK.check(work), on=["rank", "step"], how="left")
    return STEPS_OF_RANKS.cast(found.fillna({"own_ns": 0, "more_ns": 0, "wait_ns": 0}))


def step_times(steps: pd.DataFrame) -> pd.DataFrame:
    """STEPS_OF_RANKS -> STEP_TIMES: how long each step of the job took, and who had most work beyond its peers."""
    rows = STEPS_OF_RANKS.check(steps)
    if rows.empty:
        return STEP_TIMES.empty()
    most = rows.loc[rows.groupby("step")["more_ns"].idxmax()].set_index("step")
    by_step = rows.groupby("step")
    found = pd.DataFrame({"ranks": by_step.size(), "wall_ns": by_step["wall_ns"].max()})
    slow = most["rank"].astype("Int64").where(most["more_ns"] > 0)
    return STEP_TIMES.cast(found.assign(slow_rank=slow, more_ns=most["more_ns"].clip(lower=0)).reset_index())


def collective_waits(collectives: pd.DataFrame) -> pd.DataFrame:
    """RANK_COLLECTIVES -> COLLECTIVE_WAITS: who waited longest at each collective, and for whom."""
    rows = RANK_COLLECTIVES.check(collectives)
    if rows.empty:
        return COLLECTIVE_WAITS.empty()
    longest = rows.loc[rows.groupby("collective")["wait_ns"].idxmax()].set_index("collective")
    last = rows[rows["last"]].drop_duplicates("collective").set_index("collective")
    found = last[["name"]].assign(
        group=last["group"].str.strip('"'),
        wait_ns=longest["wait_ns"],
        last_rank=last["rank"],
        waiting_rank=longest["rank"],
        transfer_ns=last["dur_ns"],
    )
    order = found.reset_index().sort_values(["wait_ns", "collective"], ascending=[False, True], ignore_index=True)
    return COLLECTIVE_WAITS.check(order)
