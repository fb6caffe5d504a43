"""How fast the groups of a job communicate, and which of them is slower than those that do the same."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.collectives import bus_factor
from profiler_kit.analyses.ranks.job import Job
from profiler_kit.analyses.ranks.matching import medians
from profiler_kit.analyses.ranks.of_rank import UNKNOWN, members_of
from profiler_kit.load.integers import F64
from profiler_kit.schema import Column, Schema

SLOW_LINK: Final = 1.25  # times the transfer of groups that do the same

LINKS: Final = Schema(
    "LINKS",
    "group, operation and size of message, the slowest against its like first",
    {
        "group": Column("str", "Name of the process group."),
        "description": Column("str", "What the group is for.", show="room"),
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

BANDWIDTHS: Final = Schema(
    "BANDWIDTHS",
    "kind of group, operation and size of message, the largest message first",
    {
        "description": LINKS.columns["description"],
        "size": LINKS.columns["size"],
        "operation": LINKS.columns["operation"],
        "bytes": LINKS.columns["bytes"],
        "groups": Column("int64", "Groups that did it.", show="room"),
        "count": LINKS.columns["count"],
        "transfer_ns": Column("int64", "Of the median group.", "transfer"),
        "bus_bytes_per_s": Column("float64", "Of the median group (nccl-tests: busbw).", "busbw"),
        "lowest_bytes_per_s": Column("float64", "Of the slowest group.", "slowest"),
        "slowest": Column("str", "Ranks of the slowest group as runs, first:end:distance.", "slowest ranks", "room"),
    },
)


class SlowLink(NamedTuple):
    """rank: the one that all slow groups share; node: of all their ranks; group: the only one; transfer: without it;
    places: of all their ranks.
    """

    rank: int | None
    node: str | None
    ranks: tuple[int, ...]
    group: str
    transfer: F64
    places: list[int]


def links_of(job: Job) -> pd.DataFrame:
    """LINKS, with the number of the group and kind of collective (`row`)."""
    program = job.program
    sizes = np.bincount(program.collective, minlength=len(program.transfer))
    group = job.of_collective(job.matched.group)
    shared = np.flatnonzero((sizes > 1) & (group != UNKNOWN))
    if not len(shared):
        return LINKS.empty().assign(row=pd.Series(dtype="int64"))
    kind = job.kind_of_collectives()
    kinds = int(kind.max()) + 1
    keys, row = np.unique(group[shared] * kinds + kind[shared], return_inverse=True)
    transfer = medians(row, program.transfer[shared], len(keys))
    of_kind = keys % kinds
    like = medians(of_kind, transfer, kinds)[of_kind]
    first = job.of_collective(np.arange(len(job.rank)))[shared[np.unique(row, return_index=True)[1]]]
    table = job.matched.groups.iloc[keys // kinds]
    operation = [job.operations[code] for code in job.operation[first].tolist()]
    factor = [bus_factor(name, size) for name, size in zip(operation, table["size"].tolist(), strict=True)]
    size = job.bytes[first]
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


def bandwidths(links: pd.DataFrame) -> pd.DataFrame:
    """LINKS -> BANDWIDTHS: groups of a kind together."""
    kind = ["description", "size", "operation", "bytes"]
    if links.empty:
        return BANDWIDTHS.empty()
    found = LINKS.check(links).groupby(kind, as_index=False, sort=False).agg(
        groups=("members", "nunique"),
        count=("count", "sum"),
        transfer_ns=("transfer_ns", "median"),
        bus_bytes_per_s=("bus_bytes_per_s", "median"),
        lowest_bytes_per_s=("bus_bytes_per_s", "min"),
    )  # fmt: skip
    slowest = links.sort_values("transfer_ns", kind="stable").drop_duplicates(kind, keep="last")
    found = found.merge(slowest[[*kind, "members"]].rename(columns={"members": "slowest"}), on=kind)
    return BANDWIDTHS.cast(found.sort_values(["bytes", "transfer_ns"], ascending=False, kind="stable"))


def slow_link(job: Job, links: pd.DataFrame) -> SlowLink | None:
    """The groups whose transfers take longer than those of groups that do the same, and transfers without that."""
    program, group, kind = job.program, job.of_collective(job.matched.group), job.kind_of_collectives()
    kinds = int(kind.max(initial=0)) + 1
    # one transfer of a link that was long by chance is no slow link: the mean of the others, of two the shorter
    several = np.flatnonzero(job.shared & (group != UNKNOWN))
    numbers = np.sort(links["row"].to_numpy())
    row = np.searchsorted(numbers, group[several] * kinds + kind[several])
    times, counts = np.bincount(row, program.transfer[several]), np.bincount(row)
    longest = np.zeros(len(counts))
    np.maximum.at(longest, row, program.transfer[several])
    mean = ((times - longest) / np.maximum(counts - 1, 1))[np.searchsorted(numbers, links["row"])]
    usual = links["transfer_ns"].to_numpy() / np.maximum(links["of_like"].to_numpy(), 1e-9)
    is_slow = (mean > SLOW_LINK * np.maximum(usual, 1.0)) & (links["count"].to_numpy() > 1)
    slow = links[is_slow]
    if slow.empty or len(slow) * 2 > len(links):
        return None
    transfer = program.transfer.copy()
    for number, like in zip(slow["row"], usual[is_slow], strict=True):
        those = (group == number // kinds) & (kind == number % kinds)
        transfer[those] = np.minimum(transfer[those], like)
    sets = [set(members_of(text).tolist()) for text in slow["members"].unique().tolist()]
    shared = sorted(set.intersection(*sets) & set(job.ids.tolist()))
    every = sorted(set.union(*sets) & set(job.ids.tolist()))
    rank = shared[0] if len(sets) > 1 and len(shared) == 1 else None
    nodes = {job.nodes.get(one, "") for one in every}
    return SlowLink(
        rank,
        nodes.pop() or None if len(nodes) == 1 else None,
        (rank,) if rank is not None else tuple(every),
        str(slow["group"].iloc[0]) if len(sets) == 1 else "",
        transfer,
        np.searchsorted(job.ids, every).tolist(),
    )
