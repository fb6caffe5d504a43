"""Tables of kernels, operators, modules, launches and sequences: totals in; names, units and shares to read out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import pandas as pd

from profiler_kit.analyses.gpu.kernel_groups import KERNEL_GROUPS, KERNEL_ORIGINS
from profiler_kit.analyses.gpu.launches import LAUNCH_TOTALS
from profiler_kit.analyses.gpu.operator_work import MODULE_WORK, OPERATOR_KERNELS, OPERATOR_WORK, SHAPE_WORK
from profiler_kit.analyses.gpu.queue import QUEUE_TOTALS
from profiler_kit.analyses.gpu.sequences import KERNEL_SEQUENCES
from profiler_kit.names import fit_names, kernel_names
from profiler_kit.render.tables import INDENT, KERNEL_LETTERS, printable
from profiler_kit.text import MISSING, fmt_path
from profiler_kit.units import ns_to_ms, ns_to_us

_SEQUENCE_LETTERS: Final = 28
_OUTSIDE: Final = "(no module)"


def group_table(groups: pd.DataFrame, *, names: bool) -> pd.DataFrame:
    """KERNEL_GROUPS; `names` when the groups are kernels, whose names are shortened and written out at the end."""
    KERNEL_GROUPS.check(groups)
    table = pd.DataFrame(
        {
            "kernel" if names else "group": _kernels(list(groups["key"]))
            if names
            else [printable(key) for key in groups["key"]],
            "share": 100 * groups["share"],
            "sum_ms": groups["sum_ns"].map(ns_to_ms),
            "count": groups["count"],
        }
    )
    for name in ("mean", "median", "min", "max"):
        table[f"{name}_us"] = groups[f"{name}_ns"].map(ns_to_us)
    return table.assign(full_name=groups["key"].map(printable)) if names else table


def origin_table(origins: pd.DataFrame) -> pd.DataFrame:
    """KERNEL_ORIGINS; columns nobody recorded are left out."""
    KERNEL_ORIGINS.check(origins)
    whole = int(origins["sum_ns"].sum()) or 1
    table = pd.DataFrame(
        {
            "path": [printable(fmt_path(path)) for path in origins["path"]],
            "share": 100 * origins["sum_ns"] / whole,
            "sum_ms": origins["sum_ns"].map(ns_to_ms),
            "count": origins["count"],
        }
    )
    for name, column in (("operator",) * 2, ("module", "module_type"), ("site",) * 2, ("call",) * 2):
        if origins[name].ne("").any():
            table[column] = origins[name].map(lambda text: printable(text) if text else MISSING)
    return table


def work_table(work: pd.DataFrame, *, gpu: bool) -> pd.DataFrame:
    """OPERATOR_WORK; without `gpu` host time only. The share is of all GPU time, or of all self time on the host."""
    OPERATOR_WORK.check(work)
    rows = work if gpu else work[work["calls"] > 0].sort_values("self_ns", ascending=False, ignore_index=True)
    column = "gpu_ns" if gpu else "self_ns"
    whole = int(rows[column].sum()) or 1
    table = pd.DataFrame({"operator": rows["name"].map(printable), "share": 100 * rows[column] / whole})
    if gpu:
        table["gpu_ms"] = rows["gpu_ns"].map(ns_to_ms)
        table["nested_gpu_ms"] = rows["nested_gpu_ns"].map(ns_to_ms)
    table["self_ms"] = rows["self_ns"].map(ns_to_ms)
    table["operator_host_ms"] = rows["host_ns"].map(ns_to_ms)
    table["calls"] = rows["calls"]
    return table.assign(gpu_events=rows["gpu_events"]) if gpu else table


def operator_kernel_table(kernels: pd.DataFrame) -> pd.DataFrame:
    """OPERATOR_KERNELS of one operator."""
    OPERATOR_KERNELS.check(kernels)
    whole = int(kernels["sum_ns"].sum()) or 1
    table = pd.DataFrame(
        {
            "kernel": _kernels(list(kernels["name"])),
            "share": 100 * kernels["sum_ns"] / whole,
            "sum_ms": kernels["sum_ns"].map(ns_to_ms),
            "count": kernels["count"],
        }
    )
    for name in ("mean", "min", "max"):
        table[f"{name}_us"] = kernels[f"{name}_ns"].map(ns_to_us)
    return table.assign(stream=kernels["stream"], device=kernels["device"], full_name=kernels["name"].map(printable))


def shape_table(shapes: pd.DataFrame, *, gpu: bool) -> pd.DataFrame:
    """SHAPE_WORK; without `gpu` host time only."""
    SHAPE_WORK.check(shapes)
    rows = shapes if gpu else shapes.sort_values("self_ns", ascending=False, ignore_index=True)
    table = pd.DataFrame(
        {"operator": rows["name"].map(printable), "shapes": rows["input_dims"].map(lambda t: printable(t or MISSING))}
    )
    if gpu:
        table["gpu_ms"] = rows["gpu_ns"].map(ns_to_ms)
        table["nested_gpu_ms"] = rows["nested_gpu_ns"].map(ns_to_ms)
    table["self_ms"] = rows["self_ns"].map(ns_to_ms)
    return table.assign(calls=rows["calls"])


def module_table(work: pd.DataFrame) -> pd.DataFrame:
    """MODULE_WORK as a tree: a module above those it calls."""
    MODULE_WORK.check(work)
    by_path = dict(zip(work["path"], work.itertuples(index=False), strict=True))

    def place(path: tuple[str, ...]) -> list[tuple[int, str]]:
        return [(-int(getattr(by_path[path[:n]], "sum_ns", 0)), path[n - 1]) for n in range(1, len(path) + 1)]

    order = sorted(by_path, key=lambda path: (not path, place(path)))  # what ran outside every module last
    rows = [by_path[path] for path in order]
    whole = int(work["self_sum_ns"].sum()) or 1
    return pd.DataFrame(
        {
            "module": [INDENT * (len(p) - 1) + printable(p[-1]) if p else _OUTSIDE for p in order],
            "share": [100 * int(getattr(row, "sum_ns", 0)) / whole for row in rows],
            "gpu_ms": [ns_to_ms(int(getattr(row, "sum_ns", 0))) for row in rows],
            "self_gpu_ms": [ns_to_ms(int(getattr(row, "self_sum_ns", 0))) for row in rows],
            "gpu_events": [int(getattr(row, "gpu_events", 0)) for row in rows],
        }
    )


def launch_table(launches: pd.DataFrame) -> pd.DataFrame:
    """LAUNCH_TOTALS."""
    LAUNCH_TOTALS.check(launches)
    table = pd.DataFrame({"call": launches["name"].map(printable), "launches": launches["launches"]})
    table["gpu_events"] = launches["gpu_events"]
    table["call_host_ms"] = launches["host_ns"].map(ns_to_ms)
    table["gpu_ms"] = launches["gpu_ns"].map(ns_to_ms)
    for name in ("median", "max", "median_delay", "max_delay"):
        table[f"{name}_us"] = launches[f"{name}_ns"].map(ns_to_us)
    for name in ("short", "slow", "delayed"):
        table[name] = launches[name]
    return table


def queue_table(queue: pd.DataFrame) -> pd.DataFrame:
    """QUEUE_TOTALS."""
    QUEUE_TOTALS.check(queue)
    total = queue["total_ns"].where(queue["total_ns"] > 0, 1)
    return pd.DataFrame(
        {
            "device": queue["device"],
            "stream": queue["stream"],
            "mean_length": queue["mean_length"],
            "max_length": queue["max_length"],
            "empty_share": 100 * queue["empty_ns"] / total,
            "empty_ms": queue["empty_ns"].map(ns_to_ms),
        }
    )


def sequence_table(sequences: pd.DataFrame, *, most: int = 200) -> pd.DataFrame:
    """KERNEL_SEQUENCES, the first `most`; kernels by their short names, in order of launch."""
    KERNEL_SEQUENCES.check(sequences)
    rows = sequences.head(most)
    distinct = list(dict.fromkeys(name for kernels in rows["kernels"] for name in kernels))
    short = dict(zip(distinct, fit_names(kernel_names(distinct), _SEQUENCE_LETTERS), strict=True))
    return pd.DataFrame(
        {
            "count": rows["count"],
            "sum_ms": rows["sum_ns"].map(ns_to_ms),
            "gap_ms": rows["gap_ns"].map(ns_to_ms),
            "operator": rows["operator"].map(printable),
            "sequence": [" → ".join(printable(short[name]) for name in kernels) for kernels in rows["kernels"]],
        }
    )


def _kernels(names: Sequence[str]) -> list[str]:
    return [printable(name) for name in fit_names(kernel_names(names), KERNEL_LETTERS)]
