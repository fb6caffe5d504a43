"""Add up the GPU events by name, stream and device."""

from __future__ import annotations

import re
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from profiler_kit.analyses.compare.kernel_keys import COMMUNICATION, kernel_kind
from profiler_kit.attribute.frames import GPU_EVENTS, KERNEL_DETAILS, LAUNCH_PATH
from profiler_kit.attribute.launch_context import nest_python
from profiler_kit.attribute.span_forest import ROOT
from profiler_kit.load.integers import I64, MISSING, Mask
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.names import gpu_name
from profiler_kit.schema import Column, Schema

KERNEL_TOTALS: Final = Schema(
    "KERNEL_TOTALS",
    "name, stream, device, process and category, longest sum first",
    {
        "name": Column("str", "Kernel, memory copy or memory set.", "kernel", unit="kernel"),
        "stream": Column("Int64", show="room"),
        "device": Column("Int64", show="room"),
        "process": Column("str", show="varied"),
        "category": Column("str", show="room"),
        "count": Column("int64"),
        "sum_ns": Column("int64"),
        "mean_ns": Column("float64"),
        "min_ns": Column("int64", show="room"),
        "max_ns": Column("int64", show="room"),
    },
)


_KEYS = ["name", "stream", "device", "process", "category"]


def kernel_totals(gpu_events: pd.DataFrame) -> pd.DataFrame:
    """One row per name, stream, device, process and category, longest sum first.

    Kernels, memory copies and memory sets alike. The sums add up to the sum over all GPU events. Stream and device
    are missing where the trace does not say. Empty in, empty out.
    """
    gpu_events = GPU_EVENTS.check(gpu_events)
    if gpu_events.empty:
        return KERNEL_TOTALS.empty()
    grouped = gpu_events.groupby(_KEYS, observed=True, sort=False, dropna=False)["dur_ns"]
    totals = grouped.agg(count="size", sum_ns="sum", mean_ns="mean", min_ns="min", max_ns="max").reset_index()
    totals = totals.astype(dict.fromkeys(("name", "category", "process"), object))
    totals["mean_ns"] = totals["sum_ns"] / totals["count"]
    order = ["sum_ns", "name", "process", "device", "stream", "category"]
    totals = totals.sort_values(order, ascending=[False, *[True] * (len(order) - 1)], kind="stable", ignore_index=True)
    return KERNEL_TOTALS.check(totals)


KERNEL_GROUPS: Final = Schema(
    "KERNEL_GROUPS",
    "name, kind or stream, longest sum first",
    {
        "key": Column(
            "str",
            "Kernel name, kind of work (told by the name, of communication as in the table communication), or stream.",
            "group",
            unit="kernel",
        ),
        "count": Column("int64"),
        "sum_ns": Column("int64"),
        "mean_ns": Column("float64"),
        "median_ns": Column("float64", show="room"),
        "min_ns": Column("int64", show="room"),
        "max_ns": Column("int64", show="room"),
        "share": Column("float64", "Share of the sum over all GPU events.", "of sum"),
    },
)

KERNEL_ORIGINS: Final = Schema(
    "KERNEL_ORIGINS",
    "region, operator, module class, call and Python function, longest sum first",
    {
        "path": Column("path", LAUNCH_PATH, "launched in"),
        "operator": Column("str", "Innermost operator open at the launch."),
        "module": Column("str", "Class of the innermost nn.Module whose forward was running at the launch."),
        "site": Column(
            "str",
            "Innermost Python function outside torch at the launch; the line is where it begins.",
            "Python function",
        ),
        "call": Column("str", "Call of the runtime or driver that launched it."),
        "count": Column("int64"),
        "sum_ns": Column("int64"),
    },
)


By = Literal["name", "kind", "stream"]
_UNKNOWN: Final = MISSING  # a device or stream that the trace does not name
_NUMBER: Final = re.compile(r"_\d+$")  # torch numbers the modules of a class: Linear_3


def group_keys(gpu_events: pd.DataFrame, by: By) -> pd.Series[Any]:
    """The group of each GPU event: its name, what sort of work it is (kernel_kind), or `GPU 0, stream 7`.

    Takes GPU_EVENTS; gives a categorical with its index.
    """
    gpu_events = GPU_EVENTS.check(gpu_events)
    if by == "stream":
        keys = gpu_events[["device", "stream"]].astype("Int64").fillna(_UNKNOWN).assign(process=gpu_events["process"])
        streams, lanes = pd.factorize(pd.MultiIndex.from_frame(keys))
        several = gpu_events["process"].nunique() > 1
        labels = [
            f"{gpu_name(None if device == _UNKNOWN else device, process if several else '')}, "
            f"stream {'?' if stream == _UNKNOWN else stream}"
            for device, stream, process in lanes
        ]
        return _labelled(streams, labels, gpu_events.index)
    name = gpu_events["name"]
    if by == "name":
        return name
    of_name = [*(kernel_kind(str(label)) for label in name.cat.categories), COMMUNICATION]
    kinds, distinct = pd.factorize(np.array(of_name, dtype=object))
    # the operator that launched a kernel may say more than its name
    communicates = gpu_events["communication"].notna().to_numpy()
    codes = np.where(communicates, kinds[-1], kinds[name.cat.codes.to_numpy()])
    return _labelled(codes, list(distinct), name.index)


def _labelled(codes: npt.NDArray[np.int64], labels: list[str], index: pd.Index[Any]) -> pd.Series[Any]:
    return pd.Series(pd.Categorical.from_codes(codes.tolist(), pd.Index(labels, dtype=object)), index=index)


def kernel_groups(gpu_events: pd.DataFrame, by: By) -> pd.DataFrame:
    """GPU_EVENTS -> KERNEL_GROUPS: durations of each name, kind or stream, longest sum first. Empty in, empty out."""
    if gpu_events.empty:
        return KERNEL_GROUPS.empty()
    grouped = gpu_events["dur_ns"].groupby(group_keys(gpu_events, by), observed=True, sort=False)
    totals = grouped.agg(["size", "sum", "mean", "median", "min", "max"])
    totals = totals.rename(columns={name: f"{name}_ns" for name in ("sum", "mean", "median", "min", "max")})
    totals = totals.rename(columns={"size": "count"}).rename_axis("key").reset_index()
    totals["key"] = totals["key"].astype(object)
    totals["share"] = totals["sum_ns"] / max(1, int(totals["sum_ns"].sum()))
    return KERNEL_GROUPS.check(totals.sort_values(["sum_ns", "key"], ascending=[False, True], ignore_index=True))


def in_group(gpu_events: pd.DataFrame, by: By, key: str) -> Mask:
    """Which GPU events belong to a group."""
    return np.asarray(group_keys(gpu_events, by) == key, dtype=bool)


def kernel_origins(details: pd.DataFrame, call: pd.Series[str], site: pd.Series[str]) -> pd.DataFrame:
    """KERNEL_DETAILS -> KERNEL_ORIGINS: where these GPU events were launched, longest sum first.

    call: the name of each one's launch call, site: the Python function that made it, one a row, "" where not known.
    Empty in, empty out.
    """
    details = KERNEL_DETAILS.check(details)
    if details.empty:
        return KERNEL_ORIGINS.empty()
    frame = pd.DataFrame(
        {
            "path": details["path"].astype(object),
            "operator": details["operator"].astype(object).fillna(""),
            "module": details["module"].astype(object).fillna("").map(lambda name: _NUMBER.sub("", name)),
            "site": site.to_numpy(),
            "call": call.to_numpy(),
            "dur_ns": details["dur_ns"],
        }
    )
    keys = ["path", "operator", "module", "site", "call"]
    grouped = frame.groupby(keys, sort=False)["dur_ns"].agg(["size", "sum"]).reset_index()
    totals = grouped.rename(columns={"size": "count", "sum": "sum_ns"})
    return KERNEL_ORIGINS.check(totals.sort_values("sum_ns", ascending=False, kind="stable", ignore_index=True))


# Frames that are not the user's code: torch itself, built-in functions, and nn.Modules (which have a column).
INSIDE_TORCH: Final = re.compile(r"^(?:.*/)?torch/|^<built-in|^<string>|^nn\.Module: |^<frozen")


def call_sites(columns: EventColumns, thread: I64, time: I64) -> list[str]:
    """The innermost Python function outside torch that was open on each thread at each moment.

    Where only functions of torch were open, the innermost of those; "" where no Python function
    was open, or none was recorded.
    """
    nested = nest_python(columns)
    forest = nested.forest
    node = forest.innermost(thread.astype(np.int64), time)
    inner = np.array([bool(INSIDE_TORCH.match(name)) for name in columns.names] or [False], dtype=bool)
    # by node of the forest (0 is ROOT): whether its function is of INSIDE_TORCH; climb past these from the innermost
    hidden = np.concatenate(([False], inner[columns.name[nested.event]]))
    shown = node.copy()
    while (climbing := (shown != ROOT) & hidden[shown]).any():
        shown[climbing] = forest.parent[shown[climbing]]
    chosen = np.where(shown == ROOT, node, shown)
    rows = nested.at(chosen)
    return ["" if row < 0 else columns.names[columns.name[row]] for row in rows.tolist()]
