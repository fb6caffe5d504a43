"""Match the regions of a trace and a memory snapshot of the same run, to put both on one clock.

Both files count Unix time: a trace in nanoseconds since its base time, a snapshot in microseconds. Regions
(record_function) are in both, each written down by a callback of its own at the region's start and at its end, so that
the two readings of one boundary tell how far the files disagree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.intervals import added, covered_by_group, with_ancestors
from profiler_kit.analyses.memory.leaks import MEMORY_REGION_INSTANCES
from profiler_kit.analyses.memory.regions import MEMORY_REGION_SPANS, Regions
from profiler_kit.analyses.memory.replay import Replay
from profiler_kit.attribute.frames import GPU_EVENTS, REGION_INSTANCES
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema
from profiler_kit.units import NS_PER_US

CLOCK_PAIRS: Final = Schema(
    "CLOCK_PAIRS",
    "opened region found in both files, by device and start",
    {
        "device": Column("int64", "Device of the snapshot's annotation."),
        "instance": Column("int64"),
        "span": Column("int64", "Row of the snapshot's region spans."),
        "start_difference_us": Column("float64", "Start in the trace minus the start in the snapshot."),
        "end_difference_us": Column("Float64", "The same for the end; missing if it was still open at the end."),
    },
)

REGION_MEMORY: Final = Schema(
    "REGION_MEMORY",
    "opened region found in both files, by device and start",
    {
        "device": Column("int64"),
        "path": Column("path"),
        "instance": Column("int64", show="room"),
        "start_ns": Column("int64", "Start on the host, in nanoseconds since the trace's base time."),
        "end_ns": Column("int64", show="room"),
        "gpu_events": Column("int64", "GPU events that it launched on the device.", show="room"),
        "sum_ns": Column("int64"),
        "busy_ns": Column("int64"),
        "before_bytes": Column("int64", "Allocated on the device when it opened."),
        "peak_bytes": Column("int64"),
        "after_bytes": Column("int64", "Allocated on the device when it closed."),
        "allocated_bytes": Column("int64"),
    },
)

REGION_MEMORY_TOTALS: Final = Schema(
    "REGION_MEMORY_TOTALS",
    "device and region path, in order of first opening",
    {
        "device": Column("int64", show="room"),
        "path": Column("path"),
        "instances": Column("int64", show="room"),
        "gpu_events": Column("int64", show="room"),
        "sum_ns": Column("int64", show="room"),
        "busy_ns": Column("int64"),
        "peak_bytes": Column("int64"),
        "allocated_bytes": Column("int64"),
        "net_bytes": Column("int64", show="room"),
    },
)


FARTHEST_US: Final = 1_000  # starts of one region further apart are not of one run; real ones differ by microseconds


@dataclass(frozen=True)
class Clock:
    """How far the two files disagree about when a region began or ended.

    readings: boundaries found in both. offset_us: median of trace - snapshot. median_us, p99_us, max_us: of the
    absolute difference, which is the error of taking both times as they are.
    """

    readings: int
    offset_us: float
    median_us: float
    p99_us: float
    max_us: float


def match_regions(instances: pd.DataFrame, spans: pd.DataFrame, base_ns: int) -> pd.DataFrame:
    """CLOCK_PAIRS: opened regions of one name, each the other's nearest, at most FARTHEST_US apart.

    Takes REGION_INSTANCES with times since `base_ns` (Unix time), and MEMORY_REGION_SPANS. `ProfilerStep#N` is one
    name. Empty when nothing matches.
    """
    instances, spans = REGION_INSTANCES.check(instances), MEMORY_REGION_SPANS.check(spans)
    start, end = instances["start_ns"].to_numpy(), instances["end_ns"].to_numpy()
    opened, closed = spans["start_us"].to_numpy(), spans["end_us"].to_numpy()
    of_name = cast("dict[str, I64]", instances.groupby("name", sort=False).indices)
    ended = spans["closed"].to_numpy()
    names = spans["path"].map(lambda path: path[-1])
    parts = []
    of_span = cast("dict[tuple[int, str], I64]", names.groupby([spans["device"], names], sort=False).indices)
    for (device, name), rows in of_span.items():
        known = of_name.get(name)
        if known is None:
            continue
        span, instance = _mutual(rows, known, opened * NS_PER_US - base_ns, start)
        first = _us(start[instance] + base_ns, opened[span])
        last = _us(end[instance] + base_ns, closed[span])
        parts.append(
            pd.DataFrame(
                {
                    "device": np.full(len(span), device, np.int64),
                    "instance": instance,
                    "span": span,
                    "start_difference_us": first,
                    "end_difference_us": pd.arrays.FloatingArray(last, ~ended[span]),
                }
            )
        )
    pairs = CLOCK_PAIRS.join(parts)
    order = np.lexsort((start[pairs["instance"].to_numpy()], pairs["device"].to_numpy()))
    return pairs.iloc[order].reset_index(drop=True)


def _mutual(rows: I64, others: I64, time: I64, other_time: I64) -> tuple[I64, I64]:
    """Pairs of a row and another, each the other's nearest in time and near enough; `time` is indexed by rows."""
    rows = rows[np.argsort(time[rows], kind="stable")]
    others = others[np.argsort(other_time[others], kind="stable")]
    a, b = time[rows], other_time[others]
    # nearest other of each row and nearest row of each other; a pair is mutual when going there and back returns
    there, back = _nearest(a, b), _nearest(b, a)
    both = back[there] == np.arange(len(a))
    near = np.abs(b[there] - a) <= FARTHEST_US * NS_PER_US
    kept = both & near
    return rows[kept], others[there[kept]]


def _nearest(values: I64, table: I64) -> I64:
    """Index into the sorted `table` of what is nearest to each of the sorted values; equals go in step."""
    # the first entry >= the value and the one before it: whichever is nearer
    right = np.searchsorted(table, values).clip(max=len(table) - 1)
    left = (right - 1).clip(min=0)
    return np.where(np.abs(table[left] - values) < np.abs(table[right] - values), left, right)


def _us(unix_ns: I64, unix_us: I64) -> npt.NDArray[np.float64]:
    return (unix_ns - unix_us * NS_PER_US) / NS_PER_US


def measure(pairs: pd.DataFrame) -> Clock:
    """The disagreement over all boundaries of CLOCK_PAIRS; raises ValueError when there is none."""
    if pairs.empty:
        raise ValueError("no region is in both files, expected at least one pair")
    ends = pairs["end_difference_us"].dropna().to_numpy(np.float64)
    difference = np.concatenate((pairs["start_difference_us"].to_numpy(), ends))
    apart = np.abs(difference)
    return Clock(
        readings=len(difference),
        offset_us=float(np.median(difference)),
        median_us=float(np.median(apart)),
        p99_us=float(np.percentile(apart, 99)),
        max_us=float(apart.max()),
    )


def region_memory(
    pairs: pd.DataFrame, instances: pd.DataFrame, gpu_events: pd.DataFrame, memory: pd.DataFrame, allocated: I64
) -> pd.DataFrame:
    """REGION_MEMORY: the GPU work and the memory of each opened region of CLOCK_PAIRS.

    Takes REGION_INSTANCES, GPU_EVENTS, MEMORY_REGION_INSTANCES of all devices with the bytes allocated in each row
    (in the order of the pairs' spans). Work is counted by the trace's own boundaries and memory by the snapshot's, so
    that neither suffers from the clocks. A GPU event counts for the region that launched it, which need not be open
    any more when it runs; memory is that of the allocator, which the host moves.
    """
    pairs, memory = CLOCK_PAIRS.check(pairs), MEMORY_REGION_INSTANCES.check(memory)
    row = pairs["instance"].to_numpy()
    opened, held = REGION_INSTANCES.check(instances).iloc[row], memory.iloc[pairs["span"].to_numpy()]
    frame = pd.DataFrame(
        {
            "device": pairs["device"].to_numpy(),
            "path": np.fromiter(opened["path"], dtype=object, count=len(opened)),
            "instance": row,
            "start_ns": opened["start_ns"].to_numpy(),
            "end_ns": opened["end_ns"].to_numpy(),
            **_work(pairs, instances, GPU_EVENTS.check(gpu_events)),
            "before_bytes": held["before_bytes"].to_numpy(),
            "peak_bytes": held["peak_bytes"].to_numpy(),
            "after_bytes": held["after_bytes"].to_numpy(),
            "allocated_bytes": allocated[pairs["span"].to_numpy()],
        }
    )
    return REGION_MEMORY.check(frame)


def _work(pairs: pd.DataFrame, instances: pd.DataFrame, gpu_events: pd.DataFrame) -> dict[str, I64]:
    """gpu_events, sum_ns and busy_ns of each pair: each event joins the group of every region around its launch."""
    count = len(instances)
    parent = instances["parent"].fillna(-1).to_numpy(np.int64)
    out = {name: np.zeros(len(pairs), np.int64) for name in ("gpu_events", "sum_ns", "busy_ns")}
    where = gpu_events["device"].fillna(-1).to_numpy(np.int64)
    innermost = gpu_events["instance"].fillna(-1).to_numpy(np.int64)
    for device, rows in pairs.groupby("device").indices.items():
        # events of the device (or of none) that were launched in a region; each also joins every region around that one
        group, event = with_ancestors(np.where((where == device) | (where < 0), innermost, -1), parent)
        start, dur = gpu_events["start_ns"].to_numpy()[event], gpu_events["dur_ns"].to_numpy()[event]
        total = added(group, dur, count)
        mine = pairs["instance"].to_numpy()[rows]
        out["gpu_events"][rows] = np.bincount(group, minlength=count)[mine]
        out["sum_ns"][rows] = total[mine]
        out["busy_ns"][rows] = covered_by_group(group, start, start + dur, count)[mine]
    return out


def allocated_in(one: Replay, regions: Regions) -> I64:
    """Bytes allocated while each region of a device was open, in the order of its spans."""
    # bytes allocated before each event; of a region: those before its end less those before its start
    total = np.concatenate(([0], np.cumsum(one.allocated)))
    since = np.searchsorted(one.times_us, regions.start_us)
    until = np.where(regions.closed, np.searchsorted(one.times_us, regions.end_us), len(one.times_us))
    return np.asarray(total[until] - total[since], np.int64)


def region_memory_totals(regions: pd.DataFrame) -> pd.DataFrame:
    """REGION_MEMORY_TOTALS of REGION_MEMORY."""
    regions = REGION_MEMORY.check(regions)
    if regions.empty:
        return REGION_MEMORY_TOTALS.empty()
    net = regions["after_bytes"] - regions["before_bytes"]
    totals = (
        regions.assign(net_bytes=net)
        .groupby(["device", "path"], sort=False)
        .agg(
            instances=("instance", "size"),
            gpu_events=("gpu_events", "sum"),
            sum_ns=("sum_ns", "sum"),
            busy_ns=("busy_ns", "sum"),
            peak_bytes=("peak_bytes", "max"),
            allocated_bytes=("allocated_bytes", "sum"),
            net_bytes=("net_bytes", "sum"),
        )
        .reset_index()
    )
    return REGION_MEMORY_TOTALS.check(totals)
