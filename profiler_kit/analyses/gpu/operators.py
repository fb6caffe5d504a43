"""Add up the host time of operators by region path and operator name."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd

from profiler_kit.analyses.gpu.intervals import added
from profiler_kit.attribute.frames import KERNEL_DETAILS, OPERATORS, THREAD_PATH
from profiler_kit.attribute.regions import UNLINKED, Path
from profiler_kit.load.integers import I64
from profiler_kit.schema import Column, Schema

OPERATOR_TOTALS: Final = Schema(
    "OPERATOR_TOTALS",
    "innermost region path and operator name, longest self time first; host time",
    {
        "path": Column("path", THREAD_PATH),
        "name": Column("str", "A PyTorch operator on the host.", "operator"),
        "count": Column("int64", label="calls"),
        "sum_ns": Column("int64", "Host time inside it, operators called inside included.", "host"),
        "self_ns": Column("int64"),
    },
)


def operator_totals(operators: pd.DataFrame) -> pd.DataFrame:
    """Host time by innermost region path and operator name, longest self time first.

    sum_ns includes operators called inside (so it counts nested time again), self_ns does not: the self times of
    one thread add up to the time it spent in operators. Empty in, empty out.
    """
    operators = OPERATORS.check(operators)
    if operators.empty:
        return OPERATOR_TOTALS.empty()
    grouped = operators.groupby(["path", "name"], observed=True, sort=False)
    totals = grouped.agg(count=("dur_ns", "size"), sum_ns=("dur_ns", "sum"), self_ns=("self_ns", "sum")).reset_index()
    return OPERATOR_TOTALS.cast(totals.sort_values("self_ns", ascending=False, kind="stable", ignore_index=True))


_WORK: Final = {
    "calls": Column("int64"),
    "host_ns": Column("int64", "Host time inside it, operators called inside included.", show="room"),
    "self_ns": Column("int64", label="host, self"),
    "gpu_events": Column("int64", "GPU events that it launched itself, as the innermost operator.", show="room"),
    "gpu_ns": Column("int64", "Durations of the GPU events that it launched itself, added up."),
    "nested_gpu_events": Column("int64", show="room"),
    "nested_gpu_ns": Column("int64"),
}

OPERATOR_WORK: Final = Schema(
    "OPERATOR_WORK",
    "operator name, longest gpu_ns first; (no operator) and (unlinked) hold the rest",
    {
        "name": Column("str", "A PyTorch operator on the host.", "operator"),
        **_WORK,
    },
)

OPERATOR_KERNELS: Final = Schema(
    "OPERATOR_KERNELS",
    "innermost operator and GPU event name, stream, device and process, longest sum first",
    {
        "operator": Column("str", "Innermost operator open at the launch; (no operator) and (unlinked) hold the rest."),
        "name": Column("str", "Kernel, memory copy or memory set.", "kernel", unit="kernel"),
        "category": Column("str", show="room"),
        "process": Column("str", show="varied"),
        "device": Column("Int64", show="room"),
        "stream": Column("Int64", show="room"),
        "count": Column("int64"),
        "sum_ns": Column("int64"),
        "mean_ns": Column("float64"),
        "min_ns": Column("int64", show="room"),
        "max_ns": Column("int64", show="room"),
    },
)

MODULE_WORK: Final = Schema(
    "MODULE_WORK",
    "path of nn.Modules, longest first; the empty path holds what ran outside every module",
    {
        "path": Column("path", "The nn.Modules whose forward was running at the launch, outermost first.", "module"),
        "gpu_events": Column("int64", "GPU events it launched, modules called inside included."),
        "sum_ns": Column("int64", "Their durations added up."),
        "self_sum_ns": Column("int64"),
    },
)

SHAPE_WORK: Final = Schema(
    "SHAPE_WORK",
    "operator name and input shapes, longest nested_gpu_ns (then self_ns) first",
    {
        "name": Column("str", "A PyTorch operator on the host.", "operator"),
        "input_dims": Column("str", "Sizes of its tensor arguments.", "shapes", unit="json"),
        **_WORK,
    },
)


NO_OPERATOR: Final = "(no operator)"
NO_LAUNCH: Final = UNLINKED[0]


def operator_work(operators: pd.DataFrame, details: pd.DataFrame) -> pd.DataFrame:
    """OPERATORS, KERNEL_DETAILS -> OPERATOR_WORK: one row per operator name.

    gpu_ns counts a GPU event for the innermost operator open at its launch, so gpu_ns over all rows is the sum over all
    GPU events: rows "(no operator)" and "(unlinked)" hold what was launched outside every operator and what has no
    launch in the trace. nested_gpu_ns counts it for that operator and for each in which that was called, once a name
    (an operator that calls itself launches its kernels once). A backward thread counts by itself. Empty in, empty out.
    """
    operators, details = OPERATORS.check(operators), KERNEL_DETAILS.check(details)
    work = _work(operators, details, None)
    rest = _outside(details)
    totals = pd.concat([work.drop(columns="input_dims", errors="ignore"), rest], ignore_index=True)
    if totals.empty:
        return OPERATOR_WORK.empty()
    order = totals.sort_values(["gpu_ns", "self_ns", "name"], ascending=[False, False, True])
    return OPERATOR_WORK.check(order.reset_index(drop=True))


def shape_work(operators: pd.DataFrame, details: pd.DataFrame, input_dims: pd.Series[str]) -> pd.DataFrame:
    """OPERATORS, KERNEL_DETAILS -> SHAPE_WORK: one row per operator name and input shapes.

    input_dims holds the shapes of every row of EVENTS as text (`load_trace(path, arguments=["input_dims"])` keeps them
    as that column of `events`). What each number counts is as in operator_work, with name and shapes as the key; GPU
    events outside every operator have no shapes and no row. Empty in, empty out.
    """
    operators, details = OPERATORS.check(operators), KERNEL_DETAILS.check(details)
    if operators.empty:
        return SHAPE_WORK.empty()
    totals = _work(operators, details, input_dims.iloc[operators["event"].to_numpy()].reset_index(drop=True))
    order = totals.sort_values(["nested_gpu_ns", "self_ns", "name", "input_dims"], ascending=[False, False, True, True])
    return SHAPE_WORK.check(order.reset_index(drop=True))


def operator_kernels(details: pd.DataFrame) -> pd.DataFrame:
    """KERNEL_DETAILS -> OPERATOR_KERNELS: which kernels each operator launched, longest sum first.

    As TraceLens's kernel summary, which calls the innermost operator the parent. Counts and sums add up to those of
    all GPU events. Empty in, empty out.
    """
    details = KERNEL_DETAILS.check(details)
    if details.empty:
        return OPERATOR_KERNELS.empty()
    keys = ["operator", "name", "category", "process", "device", "stream"]
    frame = details[[*keys[1:], "dur_ns"]].assign(operator=_operator_names(details))
    grouped = frame.groupby(keys, observed=True, sort=False, dropna=False)["dur_ns"]
    totals = grouped.agg(count="size", sum_ns="sum", min_ns="min", max_ns="max").reset_index()
    totals = totals.astype(dict.fromkeys(("operator", "name", "category", "process"), object))
    totals["mean_ns"] = totals["sum_ns"] / totals["count"]
    totals = totals.sort_values(["sum_ns", *keys], ascending=[False, *[True] * len(keys)])
    return OPERATOR_KERNELS.check(totals.reset_index(drop=True))


def module_work(details: pd.DataFrame) -> pd.DataFrame:
    """KERNEL_DETAILS -> MODULE_WORK: GPU work by path of nn.Modules (recorded with `with_stack` and `with_modules`).

    self_sum_ns adds up to the sum over all GPU events; the empty path holds what was launched outside every module, on
    a backward thread, or has no launch. Empty in, empty out.
    """
    details = KERNEL_DETAILS.check(details)
    if details.empty:
        return MODULE_WORK.empty()
    own: list[Path] = list(details["modules"].cat.categories)
    code = details["modules"].cat.codes.to_numpy()
    count = np.bincount(code, minlength=len(own))
    total = added(code.astype(np.int64), details["dur_ns"].to_numpy(), len(own))
    rows: dict[Path, list[int]] = {}
    for path, events, ns in zip(own, count.tolist(), total.tolist(), strict=True):
        if events:
            for depth in range(min(1, len(path)), len(path) + 1):
                row = rows.setdefault(path[:depth], [0, 0, 0])
                row[0], row[1] = row[0] + events, row[1] + ns
            rows[path][2] += ns
    totals = pd.DataFrame(list(rows.values()), columns=["gpu_events", "sum_ns", "self_sum_ns"], dtype="int64")
    totals["path"] = pd.Series(list(rows), dtype=object)
    order = sorted(range(len(totals)), key=lambda at: (-totals["sum_ns"].iloc[at], totals["path"].iloc[at]))
    return MODULE_WORK.check(totals.iloc[order].reset_index(drop=True))


def _work(operators: pd.DataFrame, details: pd.DataFrame, shapes: pd.Series[str] | None) -> pd.DataFrame:
    """The totals of each name, or of each name and shapes, without order."""
    count = len(operators)
    # row of `operators` for each event number, then the row that launched each GPU event with an operator
    row_of = np.full(int(operators["event"].max()) + 1 if count else 0, -1, dtype=np.int64)
    row_of[operators["event"].to_numpy()] = np.arange(count)
    inside = details["operator_event"].notna().to_numpy()
    row = row_of[details["operator_event"][inside].to_numpy(dtype=np.int64)]
    own_count = np.bincount(row, minlength=count)
    own_ns = added(row, details["dur_ns"].to_numpy()[inside], count)
    keyed = pd.DataFrame({"name": operators["name"]}).assign(input_dims="" if shapes is None else shapes)
    keys = ["name", "input_dims"]
    # a number for each distinct key, and the first row that has it
    group = np.asarray(keyed.groupby(keys, sort=False, observed=True).ngroup(), dtype=np.int64)
    _, first = np.unique(group, return_index=True)
    totals = keyed.iloc[first].astype(object).reset_index(drop=True)
    groups = len(totals)
    nested_count, nested_ns = _once_a_group(operators, group, groups, own_count, own_ns)
    work = totals.assign(
        calls=np.bincount(group[operators["thread"].to_numpy() >= 0], minlength=groups),  # below 0: of a capture's file
        host_ns=added(group, operators["dur_ns"].to_numpy(), groups),
        self_ns=added(group, operators["self_ns"].to_numpy(), groups),
        gpu_events=added(group, own_count, groups),
        gpu_ns=added(group, own_ns, groups),
        nested_gpu_events=nested_count,
        nested_gpu_ns=nested_ns,
    )
    return work[(work["calls"] > 0) | (work["nested_gpu_events"] > 0)]


def _once_a_group(operators: pd.DataFrame, group: I64, groups: int, count: I64, ns: I64) -> tuple[I64, I64]:
    """Events and time of each group and of all called inside, each call counting once for each group above it."""
    total_count, total_ns = np.zeros(groups, dtype=np.int64), np.zeros(groups, dtype=np.int64)
    parent = operators["parent"].fillna(-1).to_numpy(dtype=np.int64)
    origin = np.flatnonzero(count)
    node, seen = origin, [group[origin]]
    np.add.at(total_count, group[origin], count[origin])
    np.add.at(total_ns, group[origin], ns[origin])
    while True:
        # climb one level with every operator that launched something; `seen` has the groups it was counted for already
        node = parent[node]
        going = node >= 0
        node, origin = node[going], origin[going]
        seen = [before[going] for before in seen]
        if not len(node):
            return total_count, total_ns
        here = group[node]
        new = ~np.any([before == here for before in seen], axis=0)
        np.add.at(total_count, here[new], count[origin[new]])
        np.add.at(total_ns, here[new], ns[origin[new]])
        seen.append(here)


def _outside(details: pd.DataFrame) -> pd.DataFrame:
    """Rows for GPU events outside every operator and for those without a launch; none where there are no such."""
    names = _operator_names(details)
    rows = []
    for name in (NO_OPERATOR, NO_LAUNCH):
        mine = details.loc[(names == name).to_numpy(), "dur_ns"]
        if len(mine):
            rows.append((name, 0, 0, 0, len(mine), int(mine.sum()), len(mine), int(mine.sum())))
    return OPERATOR_WORK.of(rows)


def _operator_names(details: pd.DataFrame) -> pd.Series[str]:
    """The innermost operator of each GPU event, or which of the two catch-all rows it belongs to."""
    unknown = np.where(details["launch_thread"].isna().to_numpy(), NO_LAUNCH, NO_OPERATOR)
    names = details["operator"].astype(object)
    return names.where(names.notna(), pd.Series(unknown, index=details.index, dtype=object))
