"""What each file of a job is: the trace of a rank, one of its other recordings, or why it is none."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

READ: Final = "read"
UNREADABLE: Final = "unreadable"
NO_RANK: Final = "no rank"
DUPLICATE: Final = "duplicate"
OTHER_RECORDING: Final = "other recording"

RANK_FILES: Final = Schema(
    "RANK_FILES",
    "file of the job, by its path",
    {
        "file": Column("str", "Its path below the folder of the job."),
        "rank": Column("Int64"),
        "status": Column(
            "str",
            "As read; other recording: the job was recorded several times, and another one is looked at; duplicate: "
            "another file has the same rank and time; no rank: it does not say which it is; unreadable.",
        ),
        "reason": Column("str", "Why it is left out."),
        "recording": Column("Int64", "Which time of several that the job was recorded, from 0 on.", show="varied"),
        "size_bytes": Column("int64", "Of the file.", show="room"),
        "host": Column("str", "The machine, by the file's name, else its folder within the job.", show="varied"),
        "device": Column("str", "GPUs that the trace lists.", show="varied"),
        "world_size": Column(
            "int64", "How many ranks the job has, as the trace says; 0 where it does not.", show="room"
        ),
        "first_ns": Column("int64", "When its GPU work began, in Unix time by its own clock.", show="never"),
        "last_ns": Column("int64", "When its GPU work ended.", show="never"),
        "events": Column("int64", "Entries of its traceEvents.", show="room"),
        "gpu_events": Column("int64", "Kernels, memory copies and memory sets.", show="room"),
    },
)


def recordings(
    rank: Sequence[int], first_ns: I64, last_ns: I64, folder: Sequence[str], *, on_one_clock: bool
) -> tuple[I64, I64]:
    """Of each file with its rank: which recording of the job it is of, and the row that it is a duplicate of (or -1).

    Files of one rank whose times overlap are duplicates; where they do not, the job was recorded several times. Files
    of several ranks are of one recording when their times overlap, if the clocks can tell; else the first file of each
    rank is of recording 0, its second of recording 1. Of duplicates that in the folder of most ranks counts; a folder
    of which most are duplicates of those in others is of another job, and the rest of it counts as duplicates too.
    """
    number, same = np.zeros(len(rank), dtype=np.int64), np.full(len(rank), -1, dtype=np.int64)
    of_rank: dict[int, list[int]] = {}
    ranks = Counter(where for where, _ in set(zip(folder, rank, strict=True)))
    for row in np.lexsort((np.arange(len(rank)), first_ns)).tolist():
        before = of_rank.setdefault(rank[row], [])
        other = next((one for one in before if first_ns[row] <= last_ns[one]), -1)
        if other < 0:
            number[row] = len(before)
            before.append(row)
            continue
        kept, left = sorted((other, row), key=lambda one: (-ranks[folder[one]], one))  # of equal ones the first by name
        same[left] = kept
        if left == other:
            before[before.index(other)], number[row] = row, number[other]
    lost: dict[str, list[int]] = {}
    for row in np.flatnonzero(same >= 0).tolist():
        if folder[same[row]] != folder[row]:
            lost.setdefault(folder[row], []).append(row)
    for where, rows in lost.items():
        if len(rows) * 2 > ranks[where]:
            same[[row for row, one in enumerate(folder) if one == where and same[row] < 0]] = same[rows[0]]
    kept = np.flatnonzero(same < 0)
    if number.any() and on_one_clock:
        # stretches in which some rank was recorded, apart from each other
        order = kept[np.argsort(first_ns[kept], kind="stable")]
        reach = np.maximum.accumulate(last_ns[order])
        stretch = np.cumsum(np.append(False, first_ns[order][1:] > reach[:-1]))[: len(order)]
        pairs = {(rank[row], int(at)) for row, at in zip(order.tolist(), stretch, strict=True)}
        if len(pairs) == len(order):  # no rank is twice in one
            number[order] = stretch
    number[same >= 0] = number[same[same >= 0]]
    return number, same


def most_ranks(number: I64, same: I64) -> int:
    """The recording of most ranks, the last of these."""
    counts = np.bincount(number[same < 0]) if (same < 0).any() else np.zeros(1)
    return int(len(counts) - 1 - counts[::-1].argmax())


def says_of_another_job(path: str, rank: int, other: str) -> str:
    """Why a rank is left out whose folder holds ranks that another one holds too."""
    return (
        f"{path}: rank {rank} is in a folder whose other ranks are in that of {other} too, expected the ranks of one "
        "job. Name the folder of one job."
    )


def of_another_time(path: str, rank: int, recording: int, looked_at: int, recordings: int) -> str:
    """Why another recording of a rank is left out."""
    return (
        f"{path}: rank {rank} in recording {recording + 1} of {recordings} of this job, expected those of one time: "
        f"recording {looked_at + 1} is looked at. Name the traces of another, or see all: profiler-kit trend"
    )


def runs_of(frame: pd.DataFrame) -> dict[str, list[int]]:
    """RANK_FILES of a folder -> the rows of each run in it: those of each folder below that has ranks of other folders
    too. Where none has, the folders are of nodes, and all of it is one run, "".
    """
    known = frame[frame["rank"].notna() & ~frame["status"].isin((UNREADABLE, NO_RANK))]
    top = known["file"].str.partition("/")
    folder = top[0].where(top[1] != "", "")
    found = {name: rows.index.tolist() for name, rows in known.groupby(folder)}
    ranks = [set(known["rank"].loc[rows]) for rows in found.values()]
    apart = sum(map(len, ranks)) == len(set().union(*ranks))
    return {"": known.index.tolist()} if apart else found
