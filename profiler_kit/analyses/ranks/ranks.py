"""Compare the ranks of one job: how busy each was, and which one the others waited for.

A collective's kernel runs on every rank of its group and ends on all of them together; on a rank that is early it
waits. So the shortest kernel of a collective is that of the rank that arrived last, and the extra time of each other
is its wait. That needs no common clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.timeline import GPU_TIMES, gpu_timeline, is_communication
from profiler_kit.attribute.frames import GPU_EVENTS
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

RANK_KERNELS: Final = Schema(
    "RANK_KERNELS",
    "NCCL or RCCL kernel of a rank",
    {
        "rank": Column("int64"),
        "event": Column("int64", "Row of that rank's events."),
        "name": Column("str", "Kernel of the collective.", "kernel", unit="kernel"),
        "group": Column("str", "Process group, as the trace names it.", show="room"),
        "start_ns": Column("int64", "Unix time in nanoseconds.", show="never"),
        "dur_ns": Column("int64"),
    },
)

RANK_COLLECTIVES: Final = Schema(
    "RANK_COLLECTIVES",
    "collective and rank, those of one collective together",
    {
        "collective": Column("int64", "Number of the collective, in order.", "no."),
        **RANK_KERNELS.columns,
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
        "arrived_last": Column("int64", "Collectives at which this rank arrived last."),
        "held_ns": Column("int64", "How long others waited at the collectives where it arrived last.", "held others"),
    },
)

COLLECTIVE_WAITS: Final = Schema(
    "COLLECTIVE_WAITS",
    "collective, the longest wait first",
    {
        "collective": RANK_COLLECTIVES.columns["collective"],
        "name": RANK_KERNELS.columns["name"],
        "wait_ns": Column("int64", "Of the rank that waited longest.", "longest wait"),
        "last_rank": Column("int64", "The rank that arrived last; the others waited for it.", unit="id"),
        "waiting_rank": Column("int64", "The rank that waited longest.", unit="id"),
        "transfer_ns": Column("int64", "The shortest kernel: no rank was waited for any more.", "itself"),
        "group": RANK_KERNELS.columns["group"],
    },
)


MOST_SHIFTS: Final = 2_000  # recordings that begin further apart than this many collectives are not matched
_PAIRWISE: Final = "sendrecv"  # sends and receives are between two ranks: not every rank has them


def communication_kernels(gpu_events: pd.DataFrame, rank: int, base_ns: int, group: pd.Series | None) -> pd.DataFrame:
    """GPU_EVENTS of one rank -> RANK_KERNELS: its NCCL and RCCL kernels.

    base_ns: Unix time that start_ns counts from. group: the process group of each row of EVENTS, as the trace names
    it, or None when it was not loaded.
    """
    gpu_events = GPU_EVENTS.check(gpu_events)
    found = gpu_events[is_communication(gpu_events)]
    event = found["event"].to_numpy()
    names = "" if group is None else group.iloc[event].astype(object).fillna("").to_numpy()
    return RANK_KERNELS.check(
        pd.DataFrame(
            {
                "rank": np.full(len(found), rank, np.int64),
                "event": event,
                "name": found["name"].astype(object).to_numpy(),
                "group": pd.Series(names, index=range(len(found)), dtype=object),
                "start_ns": found["start_ns"].to_numpy() + base_ns,
                "dur_ns": found["dur_ns"].to_numpy(),
            }
        )
    )


def collectives(kernels: pd.DataFrame) -> pd.DataFrame:
    """RANK_KERNELS -> RANK_COLLECTIVES: the kernels of each collective that two ranks or more recorded.

    Every rank of a group issues its collectives in the same order, so that the k-th kernel of a name and a group is
    the k-th on each of its ranks. Where their numbers differ (recordings that begin or end apart), a rank's kernels
    are shifted to where they end closest to those of the rank with the fewest, by Unix time. Sends and receives are
    left out. Empty in, empty out.
    """
    kernels = RANK_KERNELS.check(kernels)
    parts, number = [], 0
    for (name, _), rows in kernels.groupby(["name", "group"], sort=True):
        if _PAIRWISE in str(name).lower():
            continue
        found = _matched([of_rank.sort_values("start_ns", kind="stable") for _, of_rank in rows.groupby("rank")])
        if len(found) < 2:
            continue
        times = np.stack([of_rank["dur_ns"].to_numpy() for of_rank in found])
        shortest, last = times.min(axis=0), times.argmin(axis=0)
        numbers = number + np.arange(times.shape[1])
        number += times.shape[1]
        parts += [
            of_rank.assign(collective=numbers, wait_ns=times[place] - shortest, last=last == place)
            for place, of_rank in enumerate(found)
        ]
    return RANK_COLLECTIVES.join(parts).sort_values(["collective", "rank"], ignore_index=True)


def rank_totals(gpu_events: Mapping[int, pd.DataFrame], matched: pd.DataFrame) -> pd.DataFrame:
    """GPU_EVENTS of each rank and RANK_COLLECTIVES -> RANK_TOTALS: one row per rank."""
    matched = RANK_COLLECTIVES.check(matched)
    longest = matched.groupby("collective")["wait_ns"].transform("max")
    held = matched.assign(held_ns=longest.where(matched["last"], 0)).groupby("rank")
    sums = held[["wait_ns", "held_ns", "last"]].sum()
    counts = held.size()
    rows = []
    for rank, events in sorted(gpu_events.items()):
        mine = sums.loc[rank] if rank in sums.index else {"wait_ns": 0, "held_ns": 0, "last": 0}
        rows.append(
            {
                "rank": rank,
                "gpu_events": len(events),
                **gpu_timeline(events),
                "collectives": int(counts.get(rank, 0)),
                "wait_ns": int(mine["wait_ns"]),
                "arrived_last": int(mine["last"]),
                "held_ns": int(mine["held_ns"]),
            }
        )
    return RANK_TOTALS.of(rows)


def _matched(ranks: list[pd.DataFrame]) -> list[pd.DataFrame]:
    """The same number of kernels of each rank, those of one collective in the same row."""
    fewest = min(ranks, key=len)
    size = len(fewest)
    if all(len(of_rank) == size for of_rank in ranks):
        return ranks
    wanted = _ends(fewest)
    return [of_rank.iloc[(shift := _best_shift(_ends(of_rank), wanted)) : shift + size] for of_rank in ranks]


def _ends(kernels: pd.DataFrame) -> I64:
    return (kernels["start_ns"] + kernels["dur_ns"]).to_numpy(np.int64)


def _best_shift(ends: I64, wanted: I64) -> int:
    """How many of the first kernels to leave out so that the rest end closest to `wanted`, by the median."""
    shifts = min(len(ends) - len(wanted), MOST_SHIFTS)
    apart = [float(np.median(np.abs(ends[s : s + len(wanted)] - wanted))) for s in range(shifts + 1)]
    return int(np.argmin(apart))


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
