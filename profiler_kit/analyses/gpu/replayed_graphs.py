"""CUDA graphs that are replayed: how much they run, and of how many of their kernels the capture is known."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.captures import Captures
from profiler_kit.attribute.frames import KERNEL_DETAILS
from profiler_kit.schema import Column, Schema

REPLAYED_GRAPHS: Final = Schema(
    "REPLAYED_GRAPHS",
    "sequence of kernels that is replayed, by first launch",
    {
        "graph": Column("int64", "Its number.", unit="id"),
        "launches": Column("int64", "How often it was replayed.", "replays"),
        "gpu_events": Column("int64", "GPU events of one replay."),
        "sum_ns": Column("int64", "Their durations in all replays added up."),
        "share": Column("float64", "Of the time of all GPU events.", "of GPU"),
        "matched": Column("float64", "GPU events of a replay whose operator is known.", "known", unit="share"),
        "how": Column(
            "str",
            "Where from: capture (the calls of one); one by one (the same kernels launched without a graph); several "
            "captures (more than one fits, with other operators or shapes); not found.",
            "known from",
        ),
        "capture": Column("str", "The trace that says it.", "in"),
    },
)
SEVERAL, NOT_FOUND = "several captures", "not found"


def replayed_graphs(details: pd.DataFrame, found: Captures, names: Sequence[str]) -> pd.DataFrame:
    """KERNEL_DETAILS and its captures -> REPLAYED_GRAPHS. names: of the traces that were looked into."""
    dur = KERNEL_DETAILS.check(details)["dur_ns"].to_numpy()
    whole, rows = int(dur.sum()), []
    for number, graph in enumerate(found.graphs):
        sum_ns = int(dur[np.flatnonzero(found.graph == number)].sum())
        match = graph.match
        how = match.how if match is not None else SEVERAL if graph.several else NOT_FOUND
        matched = 0 if match is None else len(match.kernel)
        where = "" if match is None else names[match.source]
        share = (sum_ns / max(1, whole), matched / graph.kernels)
        rows.append((number, graph.launches, graph.kernels, sum_ns, *share, how, where))
    return REPLAYED_GRAPHS.of(rows)
