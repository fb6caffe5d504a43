"""What changed from run A to others: totals, regions, work, kernels, operators, layers, and memory.

The tables of traces and of snapshots are filled from comparisons with the same A, by letter (B, C, ...).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import pandas as pd

from profiler_kit.analyses.compare.measurements import STEP
from profiler_kit.analyses.compare.side_by_side import (
    COMPARED,
    COMPARED_REGIONS,
    common_batches,
    compared,
    compared_layers,
    compared_regions,
)
from profiler_kit.analyses.compare.snapshots import MEMORY_COMPARED, MemoryComparison, memory_compared
from profiler_kit.analyses.compare.traces import LATENCY, Comparison
from profiler_kit.analyses.compare.trees import TREE_COMPARED, compare_trees
from profiler_kit.analyses.gpu.categories import CATEGORY_TOTALS
from profiler_kit.names import fit_names, names_of_sides, tell_apart
from profiler_kit.schema import Column, Schema
from profiler_kit.table import Option, Table
from profiler_kit.tables.memory import DEVICE

Comparisons = Mapping[str, Comparison]
MemoryComparisons = Mapping[str, MemoryComparison]
RUN: Final = Option("run", None, "Only this run, by its letter; all runs if left out.")
BATCH: Final = Option(
    "batch_size", None, "Batch size to compare at; if left out, the largest that all runs have.", "count"
)
LETTERS: Final = 90  # of a name; JSON has all of it
FUNCTIONS: Final = 2  # of a stack, the innermost


def _named(label: str, meaning: str) -> Schema:
    """COMPARED with another heading for what is compared."""
    return Schema("COMPARED", COMPARED.row, {**COMPARED.columns, "path": Column("path", meaning, label)})


def of_letter(table: Table, letter: str) -> Table:
    """The table of one run with its letter in the headings, where others have B."""
    columns = table.schema.columns.items()
    named = {name: replace(one, label=re.sub(r"\bB\b", letter, one.label)) for name, one in columns}
    return replace(table, schema=replace(table.schema, columns=named))


def _rows(kind: str) -> Callable[..., pd.DataFrame]:
    def fill(comparisons: Comparisons, run: str | None = None) -> pd.DataFrame:
        rows = compared(comparisons)
        return _of_run(rows[rows["kind"] == kind], run)

    return fill


def _regions(comparisons: Comparisons, run: str | None = None) -> pd.DataFrame:
    return _of_run(compared_regions(compared(comparisons)), run)


def _layers(totals: Mapping[str, pd.DataFrame], batch_size: int | None = None, run: str | None = None) -> pd.DataFrame:
    sizes = common_batches(totals)
    if not sizes and batch_size is None:
        return COMPARED.empty()
    return _of_run(compared_layers(totals, batch_size or sizes[-1]), run)


def _memory(kind: str) -> Callable[..., pd.DataFrame]:
    def fill(comparisons: MemoryComparisons, device: int | None = None, run: str | None = None) -> pd.DataFrame:
        rows = memory_compared(comparisons)
        rows = rows[rows["kind"] == kind]
        if kind == "total":  # a device that holds nothing in any run says nothing
            rows = rows[(rows["a_bytes"].fillna(0) > 0) | (rows["b_bytes"].fillna(0) > 0)]
        if kind == "stack":
            rows = rows[rows["status"] != "same"]
        return _of_run(rows if device is None else rows[rows["device"] == device], run)

    return fill


def _of_run(rows: pd.DataFrame, run: str | None) -> pd.DataFrame:
    return (rows if run is None else rows[rows["run"] == run]).reset_index(drop=True)


def _total_names(comparisons: Comparisons, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    rounds = {one.round for one in comparisons.values()}
    step = "step" if rounds == {STEP} else " or ".join(sorted(filter(None, rounds)))
    names = {"round": f"{step}, on the host", "trace": "first to last event", LATENCY: "latency, unprofiled"}
    return {"path": [names.get(path[0], path[0]) for path in frame["path"]]}


def _operator_names(source: object, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    return {"path": fit_names([path[-1] for path in frame["path"]], LETTERS)}


def kernel_texts(frame: pd.DataFrame) -> list[str]:
    """The kernel of each row as its sides name it, `elementwise CUDAFunctor_add f32 [128,2] → bf16 [128,4]`."""
    keys = [path[-1] for path in frame["path"]]
    sides = zip(keys, frame["a_names"], frame["b_names"], strict=True)
    return fit_names(tell_apart(keys, [names_of_sides(names) or key for key, *names in sides]), LETTERS)


def _kernel_names(source: object, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    return {"path": kernel_texts(frame)}


def _call_names(source: object, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    kernels = frame[frame["kind"] == "kernel"]
    short = dict(zip(kernels["path"], kernel_texts(kernels), strict=True))
    return {"path": [short.get(path, path[-1]) for path in frame["path"]]}


def _stack_names(source: object, frame: pd.DataFrame) -> Mapping[str, Sequence[str]]:
    texts = [" > ".join(path[-FUNCTIONS:]) for path in frame["path"]]
    return {"path": [text if len(text) <= LETTERS else "…" + text[1 - LETTERS :] for text in texts]}


TOTALS: Final = Table(
    "diff_totals",
    "diff",
    "totals",
    COMPARED,
    _rows("total"),
    (RUN,),
    "diff",
    order=("path", "run"),
    texts=_total_names,
)
REGIONS: Final = Table(
    "diff_regions",
    "diff",
    "regions: GPU busy time, and time on the host",
    COMPARED_REGIONS,
    _regions,
    (RUN,),
    "diff",
    order=("path", "run"),
    tree=True,
)
WORK: Final = Table(
    "diff_work",
    "diff",
    "GPU work by kind",
    _named("kind", CATEGORY_TOTALS.columns["category"].meaning),
    _rows("work"),
    (RUN,),
    "diff",
    order=("path", "run"),
)
KERNELS: Final = Table(
    "diff_kernels",
    "diff",
    "kernels, largest change first",
    _named(
        "kernel",
        "The kernel in A → in the run. Those that differ in dtype and sizes alone are compared as one: the one that "
        "took longest is named, … stands for others.",
    ),
    _rows("kernel"),
    (RUN,),
    "diff",
    order=("path", "run"),
    texts=_kernel_names,
    top=10,
)
OPERATORS: Final = Table(
    "diff_operators",
    "diff",
    "operators, self time on the host, largest change first",
    _named("operator", "The operator's name without what torch.compile makes up anew."),
    _rows("operator"),
    (RUN,),
    "diff",
    order=("path", "run"),
    texts=_operator_names,
    top=10,
)
LAYERS: Final = Table(
    "diff_layers",
    "layers diff",
    "time per item of each layer",
    _named("layer", "Path of the module in the model."),
    _layers,
    (BATCH, RUN),
    order=("path", "run"),
)
MEMORY_TOTALS: Final = Table(
    "memory_diff_totals",
    "memory diff",
    "totals",
    MEMORY_COMPARED,
    _memory("total"),
    (DEVICE, RUN),
    order=("path", "device", "run", "a_bytes", "b_bytes", "change"),
)
MEMORY_REGIONS: Final = Table(
    "memory_diff_regions",
    "memory diff",
    "regions: peak while they were open",
    Schema(
        "MEMORY_COMPARED",
        "region of a device, and run it is compared in",
        {
            **MEMORY_COMPARED.columns,
            "path": Column("path"),
            "a_count": Column("int64", "Instances of the region in A.", "instances A", "room"),
            "b_count": Column("int64", "The same in the run.", "instances B", "room"),
            "a_allocated_bytes": Column("int64", "Allocated by one instance in A, on average.", "each in A", "room"),
            "b_allocated_bytes": Column("int64", "The same in the run.", "each in B", "room"),
        },
    ),
    _memory("region"),
    (DEVICE, RUN),
    order=("path", "device", "run", "a_bytes", "b_bytes", "change"),
    tree=True,
)
MEMORY_STACKS: Final = Table(
    "memory_diff_stacks",
    "memory diff",
    "live at the peak by stack, largest change first",
    Schema(
        "MEMORY_COMPARED",
        "stack that held memory at the peak of a device, and run it is compared in",
        {
            **MEMORY_COMPARED.columns,
            "path": Column("path", "The innermost functions of the stack, and the files they are in.", "stack"),
            "a_count": Column("int64", "Allocations of the stack in A.", "allocations A", "room"),
            "b_count": Column("int64", "The same in the run.", "allocations B", "room"),
        },
    ),
    _memory("stack"),
    (DEVICE, RUN),
    order=("path", "device", "run", "a_bytes", "b_bytes", "change"),
    texts=_stack_names,
    top=10,
)
TREE: Final = Table(
    "diff_tree",
    "tree diff",
    "GPU time by region, module, operator and kernel",
    TREE_COMPARED,
    lambda traces: compare_trees(
        {letter: trace.call_tree() for letter, trace in traces.items()},
        {letter: int(trace.region_instances()["step"].notna().sum()) for letter, trace in traces.items()},
    ),
    order=("path", "a_ns", "b_ns", "more_ns", "status", "differs"),
    tree=True,
    texts=_call_names,
    icicle=("a_ns", "b_ns"),
    top=60,
)
TABLES: Final = (
    TREE,
    *(TOTALS, REGIONS, WORK, KERNELS, OPERATORS, LAYERS),
    *(MEMORY_TOTALS, MEMORY_REGIONS, MEMORY_STACKS),
)
