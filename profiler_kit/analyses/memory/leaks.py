"""Find memory that stays: leaks, regions whose memory grows, and how long allocations live."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.memory.live import region_of
from profiler_kit.analyses.memory.regions import NO_REGION, Regions, range_max, told_of
from profiler_kit.analyses.memory.replay import Bools, Ints, Replay
from profiler_kit.schema import Column, Schema

MEMORY_LEAKS: Final = Schema(
    "MEMORY_LEAKS",
    "stack and region that left memory behind, growing ones first, most bytes first",
    {
        "device": Column("int64"),
        "stack": Column("int64", "The line of the stack that is your own code, and what it called.", "allocated by"),
        "path": Column("path", "The innermost region that the allocations were made in; it has closed."),
        "count": Column("int64", "Allocations that are live at the end.", "allocations", "room"),
        "size_bytes": Column("int64", "What they hold, in the bytes asked for."),
        "instances_left": Column("int64", "Instances of the region that left some of it.", "left by", "room"),
        "instances": Column("int64", "Instances of the region that closed.", "of instances", "room"),
        "growing": Column(
            "bool", "At least three instances left some of it, and more than half of all: a leak.", "grows"
        ),
        "first_us": Column("int64", "When the first was allocated, in Unix time.", "first", "never", "unix_us"),
        "last_us": Column("int64", "When the last was allocated, in Unix time.", "last", "never", "unix_us"),
    },
)

MEMORY_GROWTH: Final = Schema(
    "MEMORY_GROWTH",
    "region with at least four closed instances, fastest growing first",
    {
        "device": Column("int64"),
        "path": Column("path"),
        "instances": Column("int64", "Instances of the region that closed.", show="room"),
        "first_bytes": Column("int64", "Allocated on the device after the first instance.", "after the first"),
        "last_bytes": Column("int64", "Allocated on the device after the last instance.", "after the last"),
        "median_step_bytes": Column(
            "int64", "Median change from one instance to the next, the first left out.", "median change"
        ),
        "growing_steps": Column(
            "int64", "Instances after which the total was higher than after the one before.", "grew"
        ),
        "steps": Column("int64", "Instances that were compared with the one before.", "of"),
    },
)

MEMORY_REGION_INSTANCES: Final = Schema(
    "MEMORY_REGION_INSTANCES",
    "opened region, by start; the device's total",
    {
        "device": Column("int64"),
        "path": Column("path"),
        "start_us": Column("int64", "When it opened, in Unix time.", "opened", unit="unix_us"),
        "end_us": Column("int64", "When it closed, in Unix time.", "closed", unit="unix_us"),
        "before_bytes": Column("int64", "Allocated on the device when it opened."),
        "peak_bytes": Column("int64"),
        "after_bytes": Column("int64", "Allocated on the device when it closed."),
    },
)

MEMORY_LIFETIMES: Final = Schema(
    "MEMORY_LIFETIMES",
    "device and stack that allocated in the history, most bytes first",
    {
        "device": Column("int64"),
        "stack": Column("int64", "The line of the stack that is your own code, and what it called.", "allocated by"),
        "count": Column("int64", "Allocations made in the history.", "allocations"),
        "size_bytes": Column("int64", "Their sizes added up.", "allocated"),
        "live_count": Column("int64", "Of them, live at the end.", "live at the end", "room"),
        "median_us": Column(
            "float64", "Half of those that were freed lived shorter; missing when none was.", "median life"
        ),
        "max_us": Column("float64", "The longest life of those that were freed.", "longest", "room"),
    },
)


LEAST_STEPS: Final = 3  # what fewer instances leave behind may be their result


def instance_of(regions: Regions, path: Ints, times_us: Ints) -> Ints:
    """Number of the instance of region `path` open at each time; -1 where path is below 0."""
    found = np.full(len(path), -1, np.int64)
    order = np.argsort(path, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(path[order])) + 1):
        if len(rows) and path[rows[0]] >= 0:
            instances = np.flatnonzero(regions.instance_path == path[rows[0]])
            # the last instance of the path that began by each time
            at = np.searchsorted(regions.start_us[instances], times_us[rows], side="right") - 1
            found[rows] = instances[np.maximum(at, 0)]
    return found


def leak_candidates(one: Replay, allocations: pd.DataFrame, regions: Regions, *, cut: bool) -> pd.DataFrame:
    """MEMORY_LEAKS of one device: what was allocated inside a region that closed and is live at the end.

    By stack and innermost region. One that every instance of a region leaves behind (`growing`) is a leak; one from
    a single instance may be its result. Where there is no region at all, everything that was allocated in the history
    counts: what is meant to stay cannot be told from a leak.
    """
    mine = allocations[(allocations["device"] == one.device) & allocations["alloc_event"].notna()]
    mine = mine[mine["free_event"].isna()]
    path = region_of(mine, regions)
    instance = instance_of(regions, path, mine["alloc_us"].to_numpy(np.int64))
    left = (instance >= 0) & regions.closed[np.maximum(instance, 0)] if len(regions.closed) else instance < 0
    rows = mine.assign(region=path, instance=instance)[left]
    grouped = rows.groupby(["stack", "region"], sort=True)
    frame = grouped.agg(
        count=("size_bytes", "size"),
        size_bytes=("size_bytes", "sum"),
        instances_left=("instance", "nunique"),
        first_us=("alloc_us", "min"),
        last_us=("alloc_us", "max"),
    ).reset_index()
    known = regions.closed & told_of(one, regions, cut=cut)
    closed = np.bincount(regions.instance_path[known], minlength=max(len(regions.paths), 1))
    inside = frame["region"].to_numpy(np.int64) >= 0
    instances = np.where(inside, closed[frame["region"].to_numpy(np.int64)], 0)
    paths = [*regions.paths, NO_REGION]
    frame = frame.assign(
        device=np.int64(one.device),
        path=np.fromiter((paths[n] for n in frame["region"]), dtype=object, count=len(frame)),
        instances=instances.astype(np.int64),
        instances_left=np.where(inside, frame["instances_left"], 0),
        growing=inside
        & (frame["instances_left"].to_numpy() >= LEAST_STEPS)
        & (2 * frame["instances_left"].to_numpy() > instances),
    ).astype({name: np.int64 for name in ("stack", "count", "size_bytes", "instances_left", "first_us", "last_us")})
    frame = frame.sort_values(["growing", "size_bytes"], ascending=False, kind="stable", ignore_index=True)
    return MEMORY_LEAKS.check(frame)


def growth(one: Replay, regions: Regions, *, cut: bool) -> pd.DataFrame:
    """MEMORY_GROWTH of one device: how the total moved from instance to instance of each region that repeats.

    The total after an instance is compared with the total after the one before it. The first instance is left out:
    it pays for what is made once (the optimizer's state, workspaces).
    """
    rows, known = [], regions.closed & told_of(one, regions, cut=cut)
    for number, path in enumerate(regions.paths):
        mine = np.flatnonzero((regions.instance_path == number) & known)
        if len(mine) <= LEAST_STEPS:
            continue
        # total after each instance: in the state before the first event at or after its end
        after = one.allocated_bytes[np.searchsorted(one.times_us, np.sort(regions.end_us[mine]))]
        steps = np.diff(after[1:])
        rows.append(
            {
                "device": one.device,
                "path": path,
                "instances": len(mine),
                "first_bytes": int(after[0]),
                "last_bytes": int(after[-1]),
                "median_step_bytes": int(np.median(steps)),
                "growing_steps": int((steps > 0).sum()),
                "steps": len(steps),
            }
        )
    found = MEMORY_GROWTH.of(rows)
    return found.sort_values("median_step_bytes", ascending=False, kind="stable", ignore_index=True)


def region_instances(one: Replay, regions: Regions, *, cut: bool) -> pd.DataFrame:
    """MEMORY_REGION_INSTANCES of one device, by start: the total on entering, at its highest, and on leaving."""
    since = np.searchsorted(one.times_us, regions.start_us)
    until = np.where(regions.closed, np.searchsorted(one.times_us, regions.end_us), len(one.times_us))
    count = len(regions.instance_path)
    peak = range_max(one.allocated_bytes, since, until + 1) if count else np.zeros(0, np.int64)
    frame = pd.DataFrame(
        {
            "device": np.full(count, one.device, np.int64),
            "path": np.fromiter((regions.paths[n] for n in regions.instance_path), dtype=object, count=count),
            "start_us": regions.start_us,
            "end_us": regions.end_us,
            "before_bytes": one.allocated_bytes[since],
            "peak_bytes": peak,
            "after_bytes": one.allocated_bytes[until],
        }
    )
    return MEMORY_REGION_INSTANCES.check(frame[told_of(one, regions, cut=cut)].reset_index(drop=True))


def lifetimes(allocations: pd.DataFrame) -> pd.DataFrame:
    """MEMORY_LIFETIMES: how long the allocations of each stack lived, most bytes first.

    Of those made and freed in the history; what lived on at its end counts as live.
    """
    mine = allocations[allocations["alloc_event"].notna()]
    freed: Bools = mine["free_event"].notna().to_numpy()
    life = (mine["free_us"] - mine["alloc_us"]).where(mine["alloc_us"] > 0).to_numpy(np.float64, na_value=np.nan)
    grouped = mine.assign(life_us=life, live=~freed).groupby(["device", "stack"], sort=True)
    frame = grouped.agg(
        count=("size_bytes", "size"),
        size_bytes=("size_bytes", "sum"),
        live_count=("live", "sum"),
        median_us=("life_us", "median"),
        max_us=("life_us", "max"),
    ).reset_index()
    frame = frame.astype({name: np.int64 for name in ("device", "stack", "count", "size_bytes", "live_count")})
    frame = frame.astype({name: np.float64 for name in ("median_us", "max_us")})
    frame = frame.sort_values("size_bytes", ascending=False, kind="stable", ignore_index=True)
    return MEMORY_LIFETIMES.check(frame)
