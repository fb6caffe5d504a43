"""How busy the GPU is without the profiler, from its work in a recorded batch and the latency of unrecorded ones."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from profiler_kit.analyses.gpu.regions import REGION_TOTALS

# run.json's latency samples time the `timed region`; a step also holds what comes before it (the copy to the device).
_BATCHES: Final = ("timed region", "ProfilerStep")


@dataclass(frozen=True)
class BatchLoad:
    """One batch. region: whose instances are the batches. gpu_ns: time the GPU was busy in a recorded batch, on
    average. latency_ns: median wall time of a batch without the profiler.
    """

    region: str
    batches: int
    gpu_ns: float
    latency_ns: float

    @property
    def busy_share(self) -> float:
        """gpu_ns / latency_ns, at most 1: the share of an unrecorded batch in which the GPU works."""
        return min(1.0, self.gpu_ns / self.latency_ns)


def batch_load(regions: pd.DataFrame, latency_ns: Sequence[int]) -> BatchLoad | None:
    """How busy the GPU is without the profiler; None without latency samples, batches, or GPU work in them.

    Recording slows the host (each launch and operator is written down) and with it the GPU waits more, so that busy
    time over recorded time is too low. Kernels themselves take as long as without it. Therefore

        busy share = (busy_ns of the batches / number of batches) / median(latency_ns)

    with busy_ns the union over all streams of what a batch launched. The batches are the instances of `timed region`,
    which is what latency_ns of run.json times; without any, those of `ProfilerStep`. Takes REGION_TOTALS.

    Raises SchemaError when a column is missing or has another dtype.
    """
    REGION_TOTALS.check(regions)
    latency = statistics.median(latency_ns) if latency_ns else 0
    names = regions["path"].map(lambda path: path[-1])
    for name in _BATCHES:
        rows = regions[names == name]
        batches, busy = int(rows["instances"].sum()), int(rows["busy_ns"].sum())
        if batches and busy and latency > 0:
            return BatchLoad(name, batches, busy / batches, float(latency))
    return None
