"""A trace and a memory snapshot of the same run on one clock: kernels and memory of each region."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from profiler_kit.analyses.compare import clock
from profiler_kit.analyses.compare.clock import Clock
from profiler_kit.analyses.memory.leaks import MEMORY_REGION_INSTANCES
from profiler_kit.errors import InputError
from profiler_kit.kept import kept
from profiler_kit.later import later
from profiler_kit.snapshot import Snapshot
from profiler_kit.table import Filled, Value
from profiler_kit.trace import Trace
from profiler_kit.units import NS_PER_S, NS_PER_US

_HINT = (
    "Record both at once: with profiler_runner('trace.json.gz'), memory_runner('memory.pickle'): ... with your code in "
    "`with region(name):` blocks."
)


@dataclass(frozen=True, eq=False)
class JoinedRun:
    """A trace and a snapshot that were recorded at the same time; made by `join_run`.

    pairs: CLOCK_PAIRS. clock: how far the two files disagree, measured on the regions that both hold.
    """

    trace: Trace
    snapshot: Snapshot
    pairs: pd.DataFrame
    clock: Clock

    @kept
    def regions(self) -> pd.DataFrame:
        """REGION_MEMORY: one row per opened region that is in both files."""
        snapshot, devices = self.snapshot, self.snapshot.devices
        memory = MEMORY_REGION_INSTANCES.join([snapshot.region_instances(device) for device in devices])
        allocated = [clock.allocated_in(snapshot.replay(one), snapshot.nested_regions(one)) for one in devices]
        return clock.region_memory(
            self.pairs, self.trace.region_instances(), self.trace.gpu_events(), memory, np.concatenate(allocated)
        )

    def table(self, name: str, **options: Value) -> Filled:
        """A declared table, filled; see Trace.table."""
        filled: Filled = later("fill")(name, {"joined": self}, **options)
        return filled

    @kept
    def region_totals(self) -> pd.DataFrame:
        """REGION_MEMORY_TOTALS: one row per device and region path."""
        return clock.region_memory_totals(self.regions())


def join_run(trace: Trace, snapshot: Snapshot) -> JoinedRun:
    """Put a trace and a snapshot of the same run on one clock.

    The times of both are taken as they are; `clock` says how far they disagree.

    Raises InputError when they were recorded at different times, or share no region.
    """
    pairs = clock.match_regions(trace.region_instances(), snapshot.region_spans(), trace.base_ns)
    if pairs.empty:
        raise InputError(
            f"{snapshot.path}: {_why(trace, snapshot)}, expected the memory snapshot of {trace.path}. {_HINT}"
        )
    return JoinedRun(trace, snapshot, pairs, clock.measure(pairs))


def _why(trace: Trace, snapshot: Snapshot) -> str:
    """Why nothing matches, in a few words."""
    spans, instances = snapshot.region_spans(), trace.region_instances()
    if spans.empty:
        return "no regions in the snapshot"
    if instances.empty:
        return "no regions in the trace"
    first, last = int(instances["start_ns"].min()) + trace.base_ns, int(instances["end_ns"].max()) + trace.base_ns
    opened, closed = int(spans["start_us"].min()) * NS_PER_US, int(spans["end_us"].max()) * NS_PER_US
    apart = max(opened - last, first - closed)
    if apart > 0:
        when = "after" if opened > last else "before"
        return f"recorded {apart / NS_PER_S:.3f} s {when} the trace"
    names = sorted({str(path[-1]) for path in spans["path"]})
    return f"none of its regions ({', '.join(names[:4])}{', …' if len(names) > 4 else ''}) is in the trace at its time"
