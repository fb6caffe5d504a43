"""Add up the GPU work of each region path."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.intervals import added, covered_by_group, with_ancestors
from profiler_kit.attribute.frames import GPU_EVENTS, REGION_INSTANCES
from profiler_kit.attribute.links import NONE
from profiler_kit.attribute.regions import NO_REGION, UNLINKED, Path
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.categories import COMPILED_REGION
from profiler_kit.schema import Column, Schema

REGION_TOTALS: Final = Schema(
    "REGION_TOTALS",
    "region path, a parent before its children, longest sum (then host time) first",
    {
        "path": Column("path"),
        "instances": Column("int64", show="room"),
        "gpu_events": Column("int64", show="room"),
        "sum_ns": Column("int64"),
        "busy_ns": Column("int64"),
        "span_ns": Column("int64", show="room"),
        "self_sum_ns": Column("int64", show="room"),
        "host_ns": Column("int64", show="room"),
        "launches": Column("int64", show="room"),
    },
)


# Regions that say nothing about the code: what was not attributed, and what torch.compile makes up.
_COMPILED: Final = ("## Call CompiledFxGraph", COMPILED_REGION, "CompiledFunction")
UNNAMED: Final = (NO_REGION[0], UNLINKED[0], *_COMPILED)
HOLDS: Final = 0.5  # a nested region with at least this share of the one around it is the more useful answer


def innermost(paths: Sequence[Path], values: Sequence[int]) -> list[tuple[Path, int]]:
    """The regions without regions inside and their values, highest first; those that say nothing are left out.

    values: of each path, nested regions included.
    """
    held = {p: v for p, v in zip(paths, values, strict=True) if not p[-1].startswith(UNNAMED)}
    around = {path[:depth] for path in held for depth in range(1, len(path))}
    # where instances overlap, a stretch counts for each of them: such a region can exceed the one around it
    inner = [(p, v) for p, v in held.items() if p not in around and 0 < v <= held.get(p[:-1], v)]
    return sorted(inner, key=lambda row: -row[1])


def deepest(paths: Sequence[Path], values: Sequence[int]) -> tuple[Path, int]:
    """The innermost region that holds most, and how much: from the largest at the top down, while one nested region
    holds half of the one around it. ((), 0) when none has any. values: of each path, nested regions included.
    """
    held = {p: v for p, v in zip(paths, values, strict=True) if v > 0 and not p[-1].startswith(UNNAMED)}
    best: Path = ()
    while True:
        nested = {p: v for p, v in held.items() if len(p) == len(best) + 1 and p[:-1] == best}
        # where instances overlap, a region can exceed the one around it (see innermost): such a one is no answer
        nested = {p: v for p, v in nested.items() if not best or v <= held[best]}
        inner = max(nested, key=lambda p: nested[p], default=())
        if not inner or (best and nested[inner] < HOLDS * held[best]):
            return best, held.get(best, 0)
        best = inner


def region_totals(gpu_events: pd.DataFrame, instances: pd.DataFrame) -> pd.DataFrame:
    """One row per region path, a parent before its children, siblings by sum, then by host time.

    gpu_events, sum_ns, busy_ns, span_ns and launches include nested regions; self_sum_ns counts what was launched
    with this region as the innermost one, so that it adds up to the sum over all GPU events. busy_ns is the union
    over every stream and device. span_ns adds up last end - first start of each instance, host_ns the instances'
    own time on their threads. Of a region that straddles others, `instances` has a row for each stretch
    (Trace.region_parts), and each path counts what its own stretches hold. launches counts the launch calls that own a
    GPU event. Rows ("(no region)",) and ("(unlinked)",) hold what was launched outside every region and what has no
    launch in the trace; they have no instances, and no span. They are left out when they would be empty.
    """
    gpu_events = GPU_EVENTS.check(gpu_events)
    instances = REGION_INSTANCES.check(instances)
    event_paths: list[Path] = list(gpu_events["path"].cat.categories)
    instance_paths: list[Path] = list(instances["path"].cat.categories)
    used = {event_paths[code] for code in np.unique(gpu_events["path"].cat.codes)}
    used |= {instance_paths[code] for code in np.unique(instances["path"].cat.codes)}
    paths = _with_parents(used)
    if not paths:
        return REGION_TOTALS.empty()
    index = {path: row for row, path in enumerate(paths)}
    parent = np.array([index.get(path[:-1], -1) for path in paths], dtype=np.int64)
    # row of `totals` for each GPU event, and below for each instance: code of the frame's categorical -> row
    own = np.array([index.get(path, -1) for path in event_paths], dtype=np.int64)[gpu_events["path"].cat.codes]
    opened = np.array([index.get(path, -1) for path in instance_paths], dtype=np.int64)[instances["path"].cat.codes]
    start = gpu_events["start_ns"].to_numpy()
    dur = gpu_events["dur_ns"].to_numpy()
    count = len(paths)
    # the stretches of one region that share a path count as one: a number for these, and the first row of each
    whole = opened * (int(instances["event"].max()) + 1 if len(instances) else 1) + instances["event"].to_numpy()
    _, first, whole = np.unique(whole, return_index=True, return_inverse=True)
    self_sum = added(own, dur, count)
    around, row = with_ancestors(own, parent)  # the union of a path is of its events and of all below it
    launch = gpu_events["launch"]
    # the first GPU event of each launch call, so that a call with several counts once
    launches = gpu_events.loc[launch.notna() & ~launch.duplicated(), "path"].cat.codes
    launch_path = np.array([index.get(path, -1) for path in event_paths], dtype=np.int64)[launches]
    totals = pd.DataFrame(
        {
            "path": pd.Series(paths, dtype=object),
            "instances": np.bincount(opened[first], minlength=count),
            "gpu_events": _handed_up(np.bincount(own, minlength=count).astype(np.int64), parent),
            "sum_ns": _handed_up(self_sum, parent),
            "busy_ns": covered_by_group(around, start[row], (start + dur)[row], count),
            "span_ns": added(opened[first], _spans(instances, whole, len(first)), count),
            "self_sum_ns": self_sum,
            "host_ns": added(opened, (instances["end_ns"] - instances["start_ns"]).to_numpy(), count),
            "launches": _handed_up(np.bincount(launch_path, minlength=count).astype(np.int64), parent),
        }
    )
    return REGION_TOTALS.check(_as_tree(totals, parent))


def _with_parents(used: Iterable[Path]) -> list[Path]:
    """Every path and every prefix of it, parents first."""
    found = set(used)
    for path in [*found]:
        while len(path) > 1 and (path := path[:-1]) not in found:  # above one that is found, all are
            found.add(path)
    return sorted(found, key=lambda p: (len(p), p))


def _handed_up(own: I64, parent: I64) -> I64:
    """Own values plus those of all descendants; parents come before their children."""
    total = own.copy()
    for row in range(len(total) - 1, -1, -1):
        if parent[row] >= 0:
            total[parent[row]] += total[row]
    return total


def _spans(instances: pd.DataFrame, whole: I64, count: int) -> I64:
    """Last end less first start of what each whole launched, 0 where that is nothing; whole: number of each row's."""
    start, end = np.full(count, np.iinfo(np.int64).max), np.full(count, np.iinfo(np.int64).min)
    known = instances["gpu_start_ns"].notna().to_numpy()
    np.minimum.at(start, whole[known], instances["gpu_start_ns"][known].to_numpy(dtype=np.int64))
    np.maximum.at(end, whole[known], instances["gpu_end_ns"][known].to_numpy(dtype=np.int64))
    return np.where(start > end, 0, end - start)


def _as_tree(totals: pd.DataFrame, parent: I64) -> pd.DataFrame:
    """Order rows depth first: longest sum, then longest host time first; the two catch-all rows last."""
    paths = totals["path"].tolist()
    weight = [
        (path in (NO_REGION, UNLINKED), -total, -host, path[-1])
        for path, total, host in zip(paths, totals["sum_ns"].tolist(), totals["host_ns"].tolist(), strict=True)
    ]
    children: dict[int, list[int]] = {}
    for row, above in enumerate(parent.tolist()):
        children.setdefault(above, []).append(row)
    order: list[int] = []
    waiting = sorted(children.get(NONE, []), key=weight.__getitem__, reverse=True)
    while waiting:
        order.append(waiting.pop())
        waiting += sorted(children.get(order[-1], []), key=weight.__getitem__, reverse=True)
    return totals.iloc[order].reset_index(drop=True)
