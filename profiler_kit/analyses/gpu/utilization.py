"""Judge whether each region was bound by the GPU or by the host."""

from __future__ import annotations

import dataclasses
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.idle import (
    HOST_BOUND,
    KERNEL_WAIT,
    KERNEL_WAIT_BELOW_NS,
    NO_REQUEST,
    OTHER,
    SYNCHRONISED,
    idle_gaps,
)
from profiler_kit.analyses.gpu.intervals import covered_between, covered_by_group, union, with_ancestors
from profiler_kit.analyses.gpu.regions import REGION_TOTALS
from profiler_kit.attribute.frames import KERNEL_DETAILS, LAUNCH_CALLS, REGION_INSTANCES
from profiler_kit.load.integers import I64, MISSING
from profiler_kit.schema import Column, Schema

REGION_UTILIZATION: Final = Schema(
    "REGION_UTILIZATION",
    "region path, longest wall time first",
    {
        "path": Column("path"),
        "instances": Column("int64", show="room"),
        "gpu_events": Column("int64", show="room"),
        "wall_ns": Column(
            "int64",
            "From its start on the host to its end there or that of its last GPU event, added over the instances.",
            "wall time",
        ),
        "busy_ns": Column("int64", "Time in which a GPU ran work that was launched in it.", show="never"),
        "other_ns": Column("int64", "GPUs ran only work that was launched elsewhere.", "other work", of="wall_ns"),
        "idle_ns": Column("int64", "Nothing ran on any GPU; the causes add up to it.", show="never"),
        "host_ns": Column("int64", "Idle, because the launch came late.", "idle: host", "room", of="wall_ns"),
        "synchronised_ns": Column(
            "int64",
            "Idle, because the launch came late: the host had been waiting for a GPU.",
            "idle: host waited",
            "room",
            of="wall_ns",
        ),
        "kernel_wait_ns": Column(
            "int64", "Idle for the usual gap between two kernels.", "idle: kernels", "room", of="wall_ns"
        ),
        "other_wait_ns": Column(
            "int64",
            "Idle for another cause, such as waiting for another stream.",
            "idle: other",
            "room",
            of="wall_ns",
        ),
        "no_request_ns": Column(
            "int64", "Idle while the server had no request.", "idle: no request", "varied", of="wall_ns"
        ),
        "waiting_ns": Column("int64", "Time the host spent in calls that wait for a GPU.", "host waiting", "never"),
        "utilization": Column(
            "float64", "Share of the wall time in which a GPU worked for the region.", "busy", unit="share"
        ),
        "ahead": Column(
            "float64",
            "Share of its GPU events that were launched before the work ahead of them was done.",
            "launched ahead",
            "room",
            "share",
            where="gpu_events",
        ),
        "verdict": Column(
            "str",
            "GPU-bound: a GPU works at least 80 % of the time. host-bound: at least half of its idle time ends with "
            "a launch that came late. synchronising: the launch came late because the host had waited for a GPU. Time "
            "in which a server had no request does not count.",
            "bound by",
        ),
    },
)

REGION_OVERVIEW: Final = Schema(
    "REGION_OVERVIEW",
    REGION_TOTALS.row,
    {
        "path": REGION_TOTALS.columns["path"],
        "verdict": REGION_UTILIZATION.columns["verdict"],
        "utilization": dataclasses.replace(REGION_UTILIZATION.columns["utilization"], label="busy share"),
        **{name: REGION_UTILIZATION.columns[name] for name in ("other_ns", "no_request_ns")},
        "idle_ns": dataclasses.replace(REGION_UTILIZATION.columns["idle_ns"], show="always", of="wall_ns"),
        "wall_ns": dataclasses.replace(REGION_UTILIZATION.columns["wall_ns"], show="never"),
        **{name: column for name, column in REGION_TOTALS.columns.items() if name != "path"},
    },
)


GPU_BOUND: Final = "GPU-bound"
SYNCHRONISING: Final = "synchronising"
MIXED: Final = "mixed"
NO_GPU_WORK: Final = "no GPU work"
# What a verdict is called; the values of the column are older than the field's word.
NAMES: Final = {
    **{verdict: verdict for verdict in (GPU_BOUND, HOST_BOUND, MIXED, NO_GPU_WORK)},
    SYNCHRONISING: "synchronization-bound",
}
CAUSE_OF: Final = {  # the column of the idle time that has a cause
    "host_ns": HOST_BOUND,
    "synchronised_ns": SYNCHRONISED,
    "kernel_wait_ns": KERNEL_WAIT,
    "other_wait_ns": OTHER,
    "no_request_ns": NO_REQUEST,
}
STARVED: Final = 0.25  # idle share from which a GPU is said to wait
# The rule, in this order:
GPU_BUSY_FROM: Final = 0.8  # GPU-bound: the GPU worked for the region this share of the time it did no other work
IDLE_CAUSE_FROM: Final = 0.5  # synchronising, then host-bound: this share of the idle time has that cause
AHEAD_FROM: Final = 0.9  # GPU-bound all the same: this share of the GPU events was launched before its turn came


def region_utilization(
    details: pd.DataFrame,
    instances: pd.DataFrame,
    launch_calls: pd.DataFrame,
    *,
    kernel_wait_below_ns: int = KERNEL_WAIT_BELOW_NS,
    in_flight: tuple[I64, I64] | None = None,
) -> pd.DataFrame:
    """KERNEL_DETAILS, REGION_INSTANCES, LAUNCH_CALLS -> REGION_UTILIZATION: one row per region path, longest first.

    instances, and that of each of the details, are the parts of regions where these straddle (Trace.region_parts).
    The wall time of an instance runs from its start on the host (or the start of its first GPU event, if that is
    earlier) to its end on the host or the end of the last GPU event it launched, whichever is later. It divides into
    busy_ns (the GPU ran work launched in the region, nested regions included; union over every stream and device),
    other_ns (it ran only work launched elsewhere) and idle_ns; idle_ns divides by what ended the idleness (idle_gaps
    over all devices): no_request_ns (a server had none), kernel_wait_ns, other_wait_ns, synchronised_ns (the launch
    came late because the host had been waiting for the GPU) and host_ns (it came late otherwise, or nothing was
    launched any more). All add up exactly. in_flight: as idle_gaps has it.
    ahead is the share of GPU events that found earlier work of their stream unfinished when their launch returned.

    verdict: "GPU-bound" when busy_ns reaches GPU_BUSY_FROM of busy_ns + idle_ns (what the GPU did for others does not
    count against the region); else "synchronising" when synchronised_ns, or "host-bound" when synchronised_ns + host_ns
    reach IDLE_CAUSE_FROM of idle_ns; else "GPU-bound" when ahead reaches AHEAD_FROM; else "mixed". idle_ns counts
    without no_request_ns in this rule.
    "no GPU work" when nothing was launched. Empty in, empty out.
    """
    details, instances = KERNEL_DETAILS.check(details), REGION_INSTANCES.check(instances)
    launch_calls = LAUNCH_CALLS.check(launch_calls)
    if instances.empty:
        return REGION_UTILIZATION.empty()
    gaps = idle_gaps(details, launch_calls, scope="all", kernel_wait_below_ns=kernel_wait_below_ns, in_flight=in_flight)
    by_instance = _by_instance(details, instances, gaps, in_flight)
    by_instance["waiting_ns"] = _waiting(launch_calls, instances)
    path, distinct = pd.factorize(instances["path"])
    totals = by_instance.groupby(path).sum()
    totals.insert(0, "instances", instances["event"].groupby(path).nunique())
    totals.insert(0, "path", pd.Series(list(distinct), dtype=object))
    wall = totals["wall_ns"].where(totals["wall_ns"] > 0, 1)
    totals["utilization"] = totals["busy_ns"] / wall
    totals["ahead"] = totals["queued_events"] / totals["gpu_events"].where(totals["gpu_events"] > 0, 1)
    totals["verdict"] = [_verdict(row) for row in totals.itertuples()]
    order = totals.assign(name=[" > ".join(p) for p in totals["path"]])
    order = order.sort_values(["wall_ns", "name"], ascending=[False, True])
    return REGION_UTILIZATION.check(order.reset_index(drop=True))


def _verdict(row: tuple[object, ...]) -> str:
    values = {name: getattr(row, name) for name in REGION_UTILIZATION.columns if name.endswith("_ns")}
    if not getattr(row, "gpu_events", 0):
        return NO_GPU_WORK
    idle = values["idle_ns"] - values["no_request_ns"]
    if values["busy_ns"] >= GPU_BUSY_FROM * (values["busy_ns"] + idle):
        return GPU_BOUND
    enough = IDLE_CAUSE_FROM * idle
    if values["synchronised_ns"] >= enough:
        return SYNCHRONISING
    if values["synchronised_ns"] + values["host_ns"] >= enough:
        return HOST_BOUND
    return GPU_BOUND if getattr(row, "ahead", 0) >= AHEAD_FROM else MIXED


def _by_instance(
    details: pd.DataFrame, instances: pd.DataFrame, gaps: pd.DataFrame, in_flight: tuple[I64, I64] | None
) -> pd.DataFrame:
    count = len(instances)
    start, end = details["start_ns"].to_numpy(), (details["start_ns"] + details["dur_ns"]).to_numpy()
    began, ended = instances["start_ns"].to_numpy(), instances["end_ns"].to_numpy()
    gpu_start, gpu_end = _integers(instances["gpu_start_ns"], MISSING), _integers(instances["gpu_end_ns"], MISSING)
    # the wall time of each instance: on the host and on the GPU together
    began = np.where(gpu_start == MISSING, began, np.minimum(began, gpu_start))
    ended = np.maximum(ended, gpu_end)
    group, row = with_ancestors(_integers(details["instance"], -1), _integers(instances["parent"], -1))
    # each event cut to the wall time of the instance
    busy = covered_by_group(group, np.maximum(start[row], began[group]), np.minimum(end[row], ended[group]), count)
    occupied = covered_between(*union(start, end), began, ended)
    idle = (ended - began) - occupied
    gap_start, gap_end = gaps["start_ns"].to_numpy(), (gaps["start_ns"] + gaps["dur_ns"]).to_numpy()

    def idle_of(chosen: npt.NDArray[np.bool_]) -> I64:
        return covered_between(gap_start[chosen], gap_end[chosen], began, ended)

    cause = gaps["cause"].to_numpy()
    waits, others, synchronised = (idle_of(cause == one) for one in (KERNEL_WAIT, OTHER, SYNCHRONISED))
    absent = np.zeros_like(idle)
    if in_flight is not None:  # before the first GPU event and after the last too
        some = [np.concatenate(both) for both in zip((start, end), in_flight, strict=True)]
        absent = (ended - began) - covered_between(*union(*some), began, ended)
    queued = _integers(details["queue_ns"], 0) > 0
    return pd.DataFrame(
        {
            "gpu_events": np.bincount(group, minlength=count),
            "queued_events": np.bincount(group[queued[row]], minlength=count),
            "wall_ns": ended - began,
            "busy_ns": busy,
            "other_ns": occupied - busy,
            "idle_ns": idle,
            "host_ns": idle - waits - others - synchronised - absent,
            "synchronised_ns": synchronised,
            "kernel_wait_ns": waits,
            "other_wait_ns": others,
            "no_request_ns": absent,
        }
    )


def region_overview(regions: pd.DataFrame, utilization: pd.DataFrame) -> pd.DataFrame:
    """REGION_TOTALS, REGION_UTILIZATION -> REGION_OVERVIEW: regions with what bounds each; "" where nothing is known.

    Regions that ran on neither side are left out.
    """
    regions, utilization = REGION_TOTALS.check(regions), REGION_UTILIZATION.check(utilization)
    ran = regions[(regions["gpu_events"] > 0) | (regions["host_ns"] > 0)].reset_index(drop=True)
    terms = ("verdict", "utilization", "other_ns", "no_request_ns", "idle_ns", "wall_ns")
    known = dict(zip(utilization["path"], zip(*(utilization[name] for name in terms), strict=True), strict=True))
    found = [known.get(path, ("", np.nan, 0, 0, 0, 0)) for path in ran["path"]]
    return REGION_OVERVIEW.cast(ran.assign(**{name: [one[at] for one in found] for at, name in enumerate(terms)}))


def _waiting(launch_calls: pd.DataFrame, instances: pd.DataFrame) -> I64:
    """How long the host waited for the GPU inside each instance, on the instance's own thread."""
    calls = launch_calls[launch_calls["waits"]]
    total = np.zeros(len(instances), dtype=np.int64)
    for thread in np.intersect1d(calls["thread"], instances["thread"]).tolist():
        mine = calls[calls["thread"] == thread]
        rows = np.flatnonzero(instances["thread"] == thread)
        covered = union(mine["start_ns"].to_numpy(), (mine["start_ns"] + mine["dur_ns"]).to_numpy())
        low, high = instances["start_ns"].to_numpy()[rows], instances["end_ns"].to_numpy()[rows]
        total[rows] = covered_between(*covered, low, high)
    return total


def _integers(values: pd.Series[int], missing: int) -> I64:
    return np.asarray(values.fillna(missing).to_numpy(dtype=np.int64))
