"""The place of each rank in a job: its node, and its tensor, pipeline, data and expert group."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import pandas as pd

from profiler_kit.analyses.ranks.of_rank import members_of
from profiler_kit.schema import Column, Schema

NODE: Final = "node"
_NO_DESCRIPTION: Final = ("", "undefined")  # the second is torch's for a group without one

RANK_PLACES: Final = Schema(
    "RANK_PLACES",
    "rank and kind of group that divides the job",
    {
        "rank": Column("int64"),
        "kind": Column("str", "The node, or what the group is for; where no trace says that, its size and distance."),
        "group": Column("str", "The node, or the name of the group."),
        "members": Column("str", "Ranks of the group as runs, first:end:distance.", show="room"),
    },
)


def rank_places(groups: pd.DataFrame, nodes: Mapping[int, str]) -> pd.DataFrame:
    """The groups of a job (JobAnswer.groups) and the node of each rank -> RANK_PLACES.

    A kind of which there is one group alone divides nothing and is left out. Of several groups of a kind that a rank is
    in, the first counts.
    """
    ranks = sorted(nodes)
    found: dict[str, dict[int, tuple[str, str]]] = {NODE: {rank: (node, "") for rank, node in nodes.items() if node}}
    columns = (groups[name].astype(str) for name in ("name", "description", "members"))
    for name, description, text in zip(*columns, strict=True):
        members = members_of(text).tolist()
        if len(members) < 2:
            continue
        kind = description
        if kind in _NO_DESCRIPTION:
            kind = f"groups of {len(members)}, {members[1] - members[0]} apart"
        for rank in members:
            found.setdefault(kind, {}).setdefault(rank, (name, text))
    rows = [
        (rank, kind, *places[rank])
        for kind, places in found.items()
        if len(set(places.values())) > 1
        for rank in ranks
        if rank in places
    ]
    return RANK_PLACES.of(rows)
