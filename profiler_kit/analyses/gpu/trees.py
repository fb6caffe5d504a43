"""Where time goes as trees: regions, modules, operators and kernels; Python functions, top-down and bottom-up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import pandas as pd

from profiler_kit.attribute.frames import KERNEL_DETAILS, OPERATORS
from profiler_kit.attribute.launch_context import NestedSpans, codes_of, nest_python
from profiler_kit.attribute.regions import Path, paths_of
from profiler_kit.attribute.span_forest import ROOT
from profiler_kit.load.integers import I64
from profiler_kit.load.trace.columns import EventColumns
from profiler_kit.schema import Column, Schema

CALLERS: Final = 4  # names of a path that is read from the inside out
LEAST: Final = 0.001  # of the whole: Python functions below that have no row of their own

CALL_TREE: Final = Schema(
    "CALL_TREE",
    "path of regions, nn.Modules, operators and at last a kernel, a parent above its children",
    {
        "path": Column("path", "Open at the launch, outermost first; last the GPU event.", "call"),
        "kind": Column("str", "What the last name is: region, module, operator or kernel."),
        "gpu_events": Column("int64", "GPU events in it, nested ones included."),
        "sum_ns": Column("int64"),
    },
)
PYTHON_TREE: Final = Schema(
    "PYTHON_TREE",
    "path of Python functions, a parent above its children, of at least 0.1 % of the host or GPU time",
    {
        "path": Column("path", "Functions that are open, outermost first.", "function"),
        "calls": Column("int64"),
        "host_ns": Column("int64"),
        "self_ns": Column("int64", "Host time in it, less the functions it calls."),
        "gpu_events": Column("int64", "GPU events launched in it and in what it calls.", show="room"),
        "gpu_ns": Column("int64", "Their durations added up."),
    },
)
PYTHON_CALLERS: Final = Schema(
    "PYTHON_CALLERS",
    "Python function and below it its callers (up to 3), of at least 0.1 % of the host or GPU time",
    {
        "path": Column("path", "The function, then who called it.", "function"),
        "calls": Column("int64"),
        "self_ns": Column("int64", "Host time in it, less the functions it calls."),
        "gpu_events": Column("int64", "GPU events launched with it as the innermost function.", show="room"),
        "gpu_ns": Column("int64", "Their durations added up."),
    },
)


def call_tree(operators: pd.DataFrame, details: pd.DataFrame) -> pd.DataFrame:
    """OPERATORS, KERNEL_DETAILS -> CALL_TREE. The outermost rows add up to all GPU events. Empty in, empty out."""
    operators, details = OPERATORS.check(operators), KERNEL_DETAILS.check(details)
    if details.empty:
        return CALL_TREE.empty()
    # path of operators of each call: as a forest, whose node 0 is none
    parent = np.concatenate(([ROOT], operators["parent"].fillna(-1).to_numpy(dtype=np.int64) + 1))
    of_call, chains = paths_of(parent, codes_of(operators["name"]), list(operators["name"].cat.categories), [()])
    row_of = np.zeros(int(operators["event"].max()) + 2 if len(operators) else 1, dtype=np.int64)
    row_of[operators["event"].to_numpy()] = np.arange(1, len(operators) + 1)
    call = row_of[details["operator_event"].fillna(-1).to_numpy(dtype=np.int64)]
    columns = [codes_of(details["path"]), codes_of(details["modules"]), of_call[call], codes_of(details["name"])]
    frame = pd.DataFrame(dict(enumerate(columns))).assign(dur=details["dur_ns"].to_numpy())
    grouped = frame.groupby([0, 1, 2, 3])["dur"].agg(["size", "sum"])
    regions, modules, names = (list(details[name].cat.categories) for name in ("path", "modules", "name"))
    found: dict[Path, list[Any]] = {}
    for (region, module, chain, name), events, ns in zip(
        grouped.index.tolist(), grouped["size"].tolist(), grouped["sum"].tolist(), strict=True
    ):
        parts = (("region", regions[region]), ("module", modules[module]), ("operator", chains[chain]))
        kinds = [kind for kind, path in parts for _ in path]
        whole: Path = (*(one for _, path in parts for one in path), names[name])
        for depth, kind in enumerate([*kinds, "kernel"], 1):
            row = found.setdefault(whole[:depth], [kind, 0, 0])
            row[1] += events
            row[2] += ns
    return _framed(CALL_TREE, found, sort=2)


def python_tree(columns: EventColumns, details: pd.DataFrame) -> pd.DataFrame:
    """Calls of Python functions (with_stack) and KERNEL_DETAILS -> PYTHON_TREE. Empty without stacks."""
    paths, own = _python(columns, details)
    whole = {path: list(values) for path, values in zip(paths, own.tolist(), strict=True)}
    for path in sorted(whole, key=len, reverse=True):  # what was launched inside, from the inside out
        if len(path) > 1:
            for at in (3, 4):
                whole[path[:-1]][at] += whole[path][at]
    return _framed(PYTHON_TREE, _large(whole, 1, 4), sort=1)


def python_callers(columns: EventColumns, details: pd.DataFrame) -> pd.DataFrame:
    """The same from the inside out -> PYTHON_CALLERS: time that no function inside it has."""
    found: dict[Path, list[Any]] = {}
    paths, own = _python(columns, details)
    for path, (calls, _, self_ns, events, ns) in zip(paths, own.tolist(), strict=True):
        for depth in range(1, min(CALLERS, len(path)) + 1):
            row = found.setdefault(path[: -depth - 1 : -1], [0, 0, 0, 0])
            for at, value in enumerate((calls, self_ns, events, ns)):
                row[at] += value
    return _framed(PYTHON_CALLERS, _large(found, 1, 3), sort=1)


def _python(columns: EventColumns, details: pd.DataFrame) -> tuple[list[Path], I64]:
    """Each path of Python functions, and its calls, host and self time, and what it launched itself (events, time)."""
    nested: NestedSpans = nest_python(columns)
    event, forest = nested.event, nested.forest
    if not len(event):
        return [], np.zeros((0, 5), dtype=np.int64)
    path, paths = paths_of(forest.parent, columns.name[event].astype(np.int64), columns.names, [()])
    dur = columns.dur_ns[event]
    own = np.zeros((len(paths), 5), dtype=np.int64)
    np.add.at(own[:, 0], path[1:], 1)
    np.add.at(own[:, 1], path[1:], dur)
    inside = np.zeros(len(event) + 1, dtype=np.int64)
    np.add.at(inside, forest.parent[1:], dur)  # of each node, the time of the functions it calls
    np.add.at(own[:, 2], path[1:], np.maximum(dur - inside[1:], 0))
    linked = details["launch_thread"].notna().to_numpy() & details["launch_start_ns"].notna().to_numpy()
    thread, time = (details[name][linked].to_numpy(dtype=np.int64) for name in ("launch_thread", "launch_start_ns"))
    launcher = path[forest.innermost(thread, time)]
    np.add.at(own[:, 3], launcher, 1)
    np.add.at(own[:, 4], launcher, details["dur_ns"].to_numpy()[linked])
    return paths[1:], own[1:]


def _large(rows: Mapping[Path, list[Any]], host: int, gpu: int) -> dict[Path, list[Any]]:
    """Those of at least LEAST of all host time or all GPU time, and what they are in."""
    top = [values for path, values in rows.items() if len(path) == 1]
    least = [max(1, LEAST * sum(values[at] for values in top)) for at in (host, gpu)]
    kept = [path for path, values in rows.items() if values[host] >= least[0] or values[gpu] >= least[1]]
    shown = {path[:depth] for path in kept for depth in range(1, len(path) + 1)}
    return {path: values for path, values in rows.items() if path in shown}


def _framed(schema: Schema, rows: Mapping[Path, list[Any]], sort: int) -> pd.DataFrame:
    """The rows depth first, siblings by the value at `sort`, largest first."""
    order = depth_first({path: values[sort] for path, values in rows.items()})
    return schema.of((path, *rows[path]) for path in order)


def depth_first(size: Mapping[Path, float]) -> list[Path]:
    """Each path behind what it is in, siblings by their size, largest first."""

    inside: dict[Path, list[Path]] = {}
    for path in size:
        inside.setdefault(path[:-1], []).append(path)
    found: list[Path] = []
    waiting: list[Path] = [()]
    while waiting:
        path = waiting.pop()
        if path:
            found.append(path)
        waiting += sorted(inside.get(path, ()), key=lambda one: (-size[one], one[-1]), reverse=True)
    return found
