"""What each batch of requests ran: its region in the trace, the parts of it, and what they ran on the GPU."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.gpu.intervals import covered_between, covered_by_group, union
from profiler_kit.analyses.serving.requests import REQUESTS, STAGES
from profiler_kit.attribute.frames import GPU_EVENTS, REGION_INSTANCES
from profiler_kit.formats.request_file import BATCH
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

REST: Final = "(rest)"  # of a batch: what is in none of its parts
_BATCH: Final = Column("int64", "Number of the batch.", label="batch number", unit="id")
BATCHES: Final = Schema(
    "BATCHES",
    "batch that a server ran",
    {
        "batch": _BATCH,
        "batch_size": Column("int64", "Requests in it.", label="batch"),
        "queued": Column(
            "int64", "Requests in the queue when it began, counting only those that were run.", label="still queued"
        ),
        "start_ns": Column("int64", "When it began, in nanoseconds since the trace's base time.", show="never"),
        "model_ns": Column("Int64", "From its start until the masks of its last request were known.", label="model"),
        "instance": Column("Int64", "Row of region_instances: its region, if the trace has it.", show="room"),
        "gpu_events": Column("int64", "Of what its region launched."),
        "gpu_busy_ns": Column("int64", "Union over all streams of what its region launched.", "GPU busy"),
        "gpu_idle_ns": Column("Int64", "Of its time in the model: nothing that it launched ran.", label="GPU idle"),
    },
)
BATCH_PARTS: Final = Schema(
    "BATCH_PARTS",
    "part of a batch that a server ran, in the order in which they begin",
    {
        "batch": _BATCH,
        "part": Column("str", f"Region directly below the batch; {REST} is what is in none."),
        "host_ns": Column("int64", "Time on the host; waiting for the GPU is where the host did it."),
        "gpu_busy_ns": Column("int64", "Union over all streams of what it launched.", "GPU busy"),
        "gpu_events": Column("int64", "How many GPU events it launched."),
    },
)
GPU_IDLE, HOST_REST = "model, GPU idle", "model, other"
REQUEST_PARTS: Final = Schema(
    "REQUEST_PARTS",
    "stage of a request, or part of its batch, in the order in which they begin",
    {
        "id": Column("int64", "Number of the request.", label="request", unit="id", show="varied"),
        "batch": dataclasses.replace(_BATCH, show="varied"),
        "part": Column("str", "Stage of the request; in the model the parts of its batch, and what they leave."),
        "place": Column("str", "Where the time was taken: by the server, on the GPU, or on the host."),
        "dur_ns": Column("int64", "How much of the latency it was."),
    },
)


@dataclass(frozen=True, eq=False)
class Served:
    """All that is known of the requests of a run. requests: REQUESTS. batches: BATCHES. parts: BATCH_PARTS. shares: as
    those, with the column `id`: of each request, what of them came before its own masks were known.
    """

    requests: pd.DataFrame
    batches: pd.DataFrame
    parts: pd.DataFrame
    shares: pd.DataFrame


def batches_of(requests: pd.DataFrame, regions: pd.DataFrame, gpu_events: pd.DataFrame) -> Served:
    """The batches of REQUESTS in REGION_INSTANCES and GPU_EVENTS of their trace, which may be empty.

    The region of a batch is the one whose middle lies between the start of the batch and its last masks: the clocks of
    the server and of the trace differ by some microseconds.
    """
    REGION_INSTANCES.check(regions)
    GPU_EVENTS.check(gpu_events)
    ran = requests[requests["queue_ns"].notna()]
    before = ran[["receive_ns", "decode_ns", "queue_ns"]].fillna(0).sum(axis=1).astype("int64")
    began = ran["arrival_ns"] + before
    each = ran.assign(start_ns=began, end_ns=began + ran["gpu_ns"], queued_ns=began - ran["queue_ns"].astype("int64"))
    batches = each.groupby("batch").agg(
        batch_size=("batch_size", "first"), start_ns=("start_ns", "min"), end_ns=("end_ns", "max")
    )
    batches = batches.sort_values("start_ns").reset_index()
    start = batches["start_ns"].to_numpy(np.int64)
    end = batches["end_ns"].fillna(batches["start_ns"]).to_numpy(np.int64)
    queued, left = np.sort(each["queued_ns"].to_numpy(np.int64)), np.sort(each["start_ns"].to_numpy(np.int64))
    # in the queue at a moment: those that had entered by then, less those that had left by then
    waiting = np.searchsorted(queued, start, "right") - np.searchsorted(left, start, "right")
    level, _ = _below_batch(regions["path"])
    outer = np.flatnonzero(level == 0)
    middle = (regions["start_ns"].to_numpy(np.int64)[outer] + regions["end_ns"].to_numpy(np.int64)[outer]) // 2
    # the batch of each region: the last that began before the middle of it, if it had not ended
    of = np.searchsorted(start, middle, "right") - 1
    held = (of >= 0) & (middle < end[np.maximum(of, 0)]) if len(start) else np.zeros(len(outer), bool)
    instance = np.full(len(batches), -1, np.int64)
    instance[of[held]] = outer[held]
    own = each.loc[each["gpu_ns"].notna(), ["id", "batch", "gpu_ns"]]
    parts, shares, busy, count = _parts(batches["batch"].to_numpy(np.int64), instance, regions, gpu_events, own)
    found = batches.assign(
        queued=waiting,
        model_ns=batches["end_ns"] - batches["start_ns"],
        instance=pd.Series(instance, dtype="Int64").mask(instance < 0),
        gpu_events=count,
        gpu_busy_ns=busy,
    )
    found["gpu_idle_ns"] = (found["model_ns"] - busy).clip(lower=0).where(count > 0)
    return Served(requests, BATCHES.cast(found), parts, shares)


def _below_batch(paths: pd.Series) -> tuple[I64, npt.NDArray[np.object_]]:
    """How far each path goes below a batch (0: it ends there, -1: there is none), and the part that it is in."""
    level, part = [], []
    for path in paths.cat.categories:
        at = path.index(BATCH) if BATCH in path else len(path)
        level.append(len(path) - 1 - at)
        part.append(path[at + 1] if at + 1 < len(path) else REST)
    code = paths.cat.codes.to_numpy(np.int64)
    return np.array([*level, -1], np.int64)[code], np.array([*part, REST], object)[code]


def _parts(
    batch: I64, instance: I64, regions: pd.DataFrame, gpu: pd.DataFrame, own: pd.DataFrame
) -> tuple[pd.DataFrame, pd.DataFrame, I64, I64]:
    """BATCH_PARTS; the shares of the requests `own`; of each batch, how long the GPU was busy with it and with how many
    events. instance: by start.
    """
    start, end = (regions[name].to_numpy(np.int64) for name in ("start_ns", "end_ns"))
    whole = np.flatnonzero(instance >= 0)
    first, last = start[instance[whole]], end[instance[whole]]

    def batch_at(time: I64) -> I64:
        """The row of the batch whose region holds each time, -1 for none: one thread runs them, one after the other."""
        at = np.searchsorted(first, time, "right") - 1
        held = (at >= 0) & (time < last[np.maximum(at, 0)]) if len(first) else np.zeros(len(time), bool)
        return np.where(held, whole[np.maximum(at, 0)] if len(whole) else -1, -1)

    level, part = _below_batch(regions["path"])
    of = np.where(level == 1, batch_at(start), -1)
    below = np.flatnonzero(of >= 0)
    of_region, part_of_region = of[below], part[below]
    each = {"batch": of_region, "part": part_of_region, "host_ns": (end - start)[below], "start": start[below]}
    grouped = pd.DataFrame(each).groupby(["batch", "part"], sort=False)
    host = pd.DataFrame({"host_ns": grouped["host_ns"].sum(), "start": grouped["start"].min()}).reset_index()
    inside = host.groupby("batch")["host_ns"].sum().reindex(whole, fill_value=0).to_numpy(np.int64)
    rest = {"batch": whole, "part": REST, "host_ns": last - first - inside, "start": last}
    rows = pd.concat([host, pd.DataFrame(rest)]).sort_values(["batch", "start"], kind="stable", ignore_index=True)
    # a GPU event belongs to the batch that its innermost region is in, where that is one below a batch
    level, part = _below_batch(gpu["path"])
    inner = gpu["instance"].fillna(-1).to_numpy(np.int64)
    of = np.where((level >= 0) & (inner >= 0), batch_at(start[inner] if len(start) else inner), -1)
    mine = np.flatnonzero(of >= 0)
    begin = gpu["start_ns"].to_numpy(np.int64)[mine]
    stop = begin + gpu["dur_ns"].to_numpy(np.int64)[mine]
    key = pd.MultiIndex.from_frame(rows[["batch", "part"]])
    row = key.get_indexer(pd.MultiIndex.from_arrays([of[mine], part[mine]])).astype(np.int64)
    rows["gpu_busy_ns"] = covered_by_group(row, begin, stop, len(rows))
    rows["gpu_events"] = np.bincount(row, minlength=len(rows)).astype(np.int64)
    rows["since"] = pd.Series(first, whole).reindex(rows["batch"]).to_numpy(np.int64)
    rows["batch"] = batch[rows["batch"].to_numpy(np.int64)]
    # of each request its batch's parts, until its own masks; what is in no part is then what they leave
    shares = rows.assign(row=np.arange(len(rows))).merge(own, "inner", "batch").sort_values(["id", "row"])
    until = (shares["since"] + shares["gpu_ns"]).to_numpy(np.int64)
    at = shares["row"].to_numpy(np.int64)
    shares["gpu_busy_ns"] = _covered_until(row, begin, stop, at, until)
    row = key.get_indexer(pd.MultiIndex.from_arrays([of_region, part_of_region])).astype(np.int64)
    shares["host_ns"] = _covered_until(row, start[below], end[below], at, until)
    left = (shares["part"] == REST).to_numpy(bool)
    known = shares.groupby("id")["host_ns"].transform("sum").to_numpy(np.int64)
    over = np.minimum(until, shares["start"].to_numpy(np.int64)) - shares["since"].to_numpy(np.int64) - known
    shares.loc[left, "host_ns"] = over[left]
    shares = shares[["id", *BATCH_PARTS.columns]].reset_index(drop=True)
    busy = covered_by_group(of[mine], begin, stop, len(batch))
    count = np.bincount(of[mine], minlength=len(batch)).astype(np.int64)
    return BATCH_PARTS.cast(rows), shares, busy, count


def _covered_until(group: I64, start: I64, end: I64, asked: I64, until: I64) -> I64:
    """How much of the time before each of `until` the intervals of its group `asked` cover."""
    if not len(start):
        return np.zeros(len(asked), np.int64)
    # one axis: group g takes the part of it from g * width on
    zero, width = int(start.min()), int(end.max() - start.min()) + 1
    start, end = union(start - zero + group * width, end - zero + group * width)
    low = asked * width
    return covered_between(start, end, low, low + np.clip(until - zero, 0, width - 1))


def batch_region(served: Served, batch: int, regions: pd.DataFrame) -> tuple[int, int] | None:
    """Start and end of the region of a batch, among REGION_INSTANCES; None where the trace has none."""
    rows = served.batches.loc[served.batches["batch"] == batch, "instance"].dropna()
    return None if rows.empty else tuple(regions[["start_ns", "end_ns"]].iloc[int(rows.iloc[0])].tolist())


def request_parts(served: Served) -> pd.DataFrame:
    """REQUEST_PARTS, by request; stages and parts that are not known or took no time have no row.

    In place of the stage in the model the parts of the request's batch until its own masks were known: what ran on the
    GPU for each, and that nothing did; of a batch without GPU events, and of one whose region the trace does not hold,
    the host's time.
    """
    requests, batches = served.requests, served.batches.set_index("batch")
    stages = requests.melt(["id", "batch"], [f"{stage}_ns" for stage in STAGES], "stage", "dur_ns")
    stages["order"] = stages["stage"].map({f"{stage}_ns": 1000 * number for number, stage in enumerate(STAGES)})
    stages = stages.assign(part=stages["stage"].map(REQUESTS.label), place="server")
    inside = stages[stages["stage"] == "gpu_ns"][["id", "order"]].merge(served.shares, "inner", "id")
    on_gpu = (inside["batch"].map(batches["gpu_events"]) > 0).to_numpy(bool)
    inside["dur_ns"] = inside["gpu_busy_ns"].where(on_gpu, inside["host_ns"])
    inside["order"] += inside.groupby("id").cumcount() + 1
    inside["place"] = np.where(on_gpu, "GPU", "host")
    # what the parts leave of the stage in the model
    model = stages["stage"] == "gpu_ns"
    used = inside.groupby("id")["dur_ns"].sum()
    left = stages.loc[model, "dur_ns"] - stages.loc[model, "id"].map(used).fillna(0).astype("int64")
    split = stages["id"].isin(used.index) & model & (left.reindex(stages.index) >= 0)
    stages.loc[split, "dur_ns"] = left[split[model]]
    stages.loc[split, "part"] = np.where(stages.loc[split, "batch"].map(batches["gpu_events"]) > 0, GPU_IDLE, HOST_REST)
    stages.loc[split, "order"] += 900
    rows = pd.concat([stages, inside[inside["id"].isin(stages.loc[split, "id"])]])
    rows = rows[rows["dur_ns"].fillna(0) > 0].sort_values(["id", "order"], kind="stable", ignore_index=True)
    return REQUEST_PARTS.cast(rows)
